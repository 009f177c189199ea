"""app/formats/meta.py: Meta's server events, bare or as a Conversions API request."""

import copy
from typing import Any

import pytest

from app import formats
from app.errors import BadEvent
from app.formats import Ignored, meta
from app.normalize import Inlet, Normalized, normalize
from tests.factories import merged, sha

PURCHASE: dict[str, Any] = {
    "event_name": "Purchase",
    "event_time": 1795420800,
    "event_id": "order-1001",
    "action_source": "website",
    "event_source_url": "https://shop.example.com/thanks",
    "referrer_url": "https://shop.example.com/checkout",
    "opt_out": False,
    "data_processing_options": [],
    "user_data": {
        "em": [sha("ada@example.com"), sha("ada@example.org")],
        "ph": [sha("15550100199")],
        "fn": sha("ada"),
        "ln": sha("lovelace"),
        "db": [sha("19970216")],
        "ge": sha("f"),
        "ct": [sha("menlopark")],
        "st": "CA",
        "zp": "94025",
        "country": "us",
        "external_id": ["customer-7"],
        "client_ip_address": "203.0.113.7",
        "client_user_agent": "Mozilla/5.0 (X11; Linux x86_64)",
        "fbp": "fb.1.1795420000000.1234567890",
        "fbc": "fb.1.1795410000000.AbCdEf",
        "lead_id": 12345678901234567,
    },
    "custom_data": {
        "value": "59.98",
        "currency": "usd",
        "order_id": 1001,
        "content_type": "product",
        "content_ids": ["SKU-1"],
        "contents": [
            {"id": "SKU-1", "quantity": 2, "item_price": 29.99, "title": "Shirt", "brand": "Acme", "category": "Clothing"},
        ],
        "num_items": 2,
        "search_string": "shirts",
    },
}  # fmt: skip


def draft(**overrides: Any) -> dict[str, Any]:
    found = meta.draft(merged(PURCHASE, overrides))
    assert not isinstance(found, Ignored)
    return found


def test_a_purchase_in_full():
    event = copy.deepcopy(PURCHASE)

    found = meta.draft(event)

    assert found == {
        "event_name": "purchase",
        "event_id": "order-1001",
        "time": 1795420800,
        "user": {
            "email": sha("ada@example.com"),
            "phone": sha("15550100199"),
            "first_name": sha("ada"),
            "last_name": sha("lovelace"),
            "birth_date": sha("19970216"),
            "gender": sha("f"),
            "city": sha("menlopark"),
            "region": "CA",
            "postal_code": "94025",
            "country": "us",
            "user_id": "customer-7",
        },
        "context": {
            "ip": "203.0.113.7",
            "user_agent": "Mozilla/5.0 (X11; Linux x86_64)",
            "url": "https://shop.example.com/thanks",
            "referrer": "https://shop.example.com/checkout",
        },
        "ids": {
            "fbp": "fb.1.1795420000000.1234567890",
            "fbc": "fb.1.1795410000000.AbCdEf",
            "lead_id": 12345678901234567,
        },
        "commerce": {
            "value": "59.98",
            "currency": "usd",
            "transaction_id": 1001,
            "search_term": "shirts",
            "items": [
                {
                    "item_id": "SKU-1",
                    "item_name": "Shirt",
                    "brand": "Acme",
                    "category": "Clothing",
                    "quantity": 2,
                    "price": 29.99,
                }
            ],
        },
        "custom": {"content_type": "product", "num_items": 2},
    }
    assert event == PURCHASE


def test_hashes_of_that_purchase_stay():
    (result,) = normalize({"data": [PURCHASE]}, Inlet("t", "meta", "shop", "server"), 1_795_420_801_456, {})

    assert isinstance(result, Normalized)
    assert result.event["user"] == {
        "email": {"given": sha("ada@example.com")},
        "phone": {"given": sha("15550100199")},
        "first_name": {"given": sha("ada")},
        "last_name": {"given": sha("lovelace")},
        "birth_date": {"given": sha("19970216")},
        "gender": {"given": sha("f")},
        "region": "CA",
        "postal_code": "94025",
        "places": {"city": sha("menlopark")},
        "country": "US",
        "user_id": "customer-7",
    }
    assert result.drops == ()


@pytest.mark.parametrize(
    ("opt_out", "consent"), [(True, {"ad_personalization": "denied"}), (False, None), (None, None)]
)
def test_who_opted_out_stays_so(opt_out, consent):
    assert draft(opt_out=opt_out).get("consent") == consent


def test_clear_values_of_user_data_are_hashed():
    event = merged(PURCHASE, {"user_data": {"em": " Ada@Example.com ", "ph": "+1 555 010 0199", "fn": ["Ada"]}})

    (result,) = normalize(event, Inlet("t", "meta", "shop", "server"), 1_795_420_801_456, {})

    assert isinstance(result, Normalized)
    assert result.event["user"]["email"]["plain"] == sha("ada@example.com")
    assert result.event["user"]["phone"]["digits"] == sha("15550100199")
    assert result.event["user"]["first_name"]["plain"] == sha("ada")


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("PageView", "page_view"),
        ("ViewContent", "view_item"),
        ("Search", "search"),
        ("AddToCart", "add_to_cart"),
        ("AddToWishlist", "add_to_wishlist"),
        ("InitiateCheckout", "begin_checkout"),
        ("AddPaymentInfo", "add_payment_info"),
        ("Purchase", "purchase"),
        ("Lead", "generate_lead"),
        ("CompleteRegistration", "sign_up"),
        ("Subscribe", "subscribe"),
        ("Contact", "Contact"),
        ("my_event", "my_event"),
    ],
)
def test_a_standard_event_becomes_ours(theirs, ours):
    assert draft(event_name=theirs)["event_name"] == ours


@pytest.mark.parametrize(
    ("action_source", "source"),
    [
        ("website", None),  # may as well be a copy of the browser's: the topic's setting says
        ("app", "app"),
        ("physical_store", "offline"),
        ("system_generated", "crm"),
        ("email", None),
        ("chat", None),
        (None, None),
        (5, None),
        (["app"], None),
    ],
)
def test_the_source_follows_from_where_the_sale_was_made(action_source, source):
    assert draft(action_source=action_source).get("source") == source


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("x", "x"),
        (["x", "y"], "x"),
        (["x"], "x"),
        ([], None),
        ("", None),
        (None, None),
        ([None], None),
        ([""], None),
        (5, 5),
    ],
)
def test_user_data_is_a_value_or_the_first_of_a_list(value, expected):
    found = meta.draft({"event_name": "Lead", "user_data": {"em": value}})

    assert not isinstance(found, Ignored)
    assert found.get("user", {}).get("email") == expected


@pytest.mark.parametrize("nothing", [None, "", "undefined", 0, "null"])
def test_a_purchase_without_event_id_has_its_order_number(nothing):
    assert draft(event_id=nothing)["event_id"] == 1001


def test_another_event_without_event_id_has_none():
    assert "event_id" not in draft(event_name="Lead", event_id=None)


@pytest.mark.parametrize(
    ("custom_data", "expected"),
    [
        ({"content_ids": ["a", "b"]}, [{"item_id": "a"}, {"item_id": "b"}]),
        ({"content_ids": ["a", None, 5]}, [{"item_id": "a"}, {"item_id": 5}]),
        ({"content_ids": "a"}, [{"item_id": "a"}]),
        ({"content_ids": []}, []),
        ({"content_ids": None}, None),
        ({"contents": None, "content_ids": ["a"]}, [{"item_id": "a"}]),
        ({"contents": [{"id": "b"}], "content_ids": ["a"]}, [{"item_id": "b"}]),
        ({"contents": []}, []),
        ({}, None),
    ],
)
def test_products_are_contents_else_content_ids(custom_data, expected):
    found = meta.draft({"event_name": "AddToCart", "custom_data": custom_data})

    assert not isinstance(found, Ignored)
    assert found.get("commerce", {}).get("items") == expected
    assert "custom" not in found


@pytest.mark.parametrize("part", ["user_data", "custom_data"])
def test_a_part_that_is_no_object_is_refused(part):
    with pytest.raises(BadEvent) as refused:
        meta.draft({"event_name": "Lead", part: "ada@example.com"})
    assert (refused.value.reason, refused.value.field) == ("wrong_type", part)


@pytest.mark.parametrize("contents", ["[]", {}, [1], [None]])
def test_contents_that_are_no_list_of_objects_are_refused(contents):
    with pytest.raises(BadEvent) as refused:
        draft(custom_data={"contents": contents})
    assert (refused.value.reason, refused.value.field) == ("wrong_type", "custom_data.contents")


@pytest.mark.parametrize(
    ("name", "reason"), [(None, "missing"), ("", "missing"), (5, "wrong_type"), ({}, "wrong_type")]
)
def test_an_event_without_a_name_is_refused(name, reason):
    with pytest.raises(BadEvent) as refused:
        meta.draft({**PURCHASE, "event_name": name})
    assert (refused.value.reason, refused.value.field) == (reason, "event_name")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"data": [PURCHASE, PURCHASE], "test_event_code": "T1", "access_token": "x"}, [PURCHASE, PURCHASE]),
        ({"data": []}, []),
        (PURCHASE, [PURCHASE]),
        ({"data": {}}, [{"data": {}}]),
        (None, [None]),
    ],
)
def test_a_body_is_one_event_or_a_request(body, expected):
    assert formats.split("meta", body) == expected
