"""app/formats/segment.py: calls of the Segment spec as its SDKs send them."""

import copy
from typing import Any

import pytest

from app import formats
from app.errors import BadEvent
from app.formats import Ignored, segment
from app.normalize import Inlet, Normalized, normalize
from tests.factories import merged

ORDER: dict[str, Any] = {
    "type": "track",
    "event": "Order Completed",
    "messageId": "ajs-next-1",
    "anonymousId": "507f191e",
    "userId": "customer-7",
    "timestamp": "2026-11-23T09:59:59.123Z",
    "sentAt": "2026-11-23T10:00:00.456Z",
    "receivedAt": "2026-11-23T10:00:00.500Z",
    "channel": "server",
    "version": 2,
    "context": {
        "ip": "203.0.113.7",
        "userAgent": "Mozilla/5.0 (X11; Linux x86_64)",
        "locale": "en-US",
        "library": {"name": "analytics.js", "version": "4.0.4"},
        "page": {
            "path": "/thanks",
            "referrer": "https://shop.example.com/checkout",
            "search": "",
            "title": "Thank you",
            "url": "https://shop.example.com/thanks",
        },
        "traits": {
            "email": "ada@example.com",
            "phone": "+15550100199",
            "firstName": "Ada",
            "lastName": "Lovelace",
            "birthday": "1997-02-16",
            "gender": "female",
            "address": {
                "street": "1 Main Street",
                "city": "Menlo Park",
                "state": "CA",
                "postalCode": "94025-1234",
                "country": "US",
            },
        },
        "ids": {"fbp": "fb.1.1795420000000.1234567890", "ga_client_id": "1234567890.1699999999"},
        "consent": {"ad_storage": "granted", "ad_user_data": "denied", "gpc": False},
        "tags": {"meta": {"ran": True, "event_id": "order-1001"}},
        "labels": ["test"],
        "site": "shop",
    },
    "integrations": {"All": True, "Google Analytics 4": {"clientId": "9.9", "sessionId": 1795420000}},
    "properties": {
        "event_id": "order-1001",
        "order_id": "1001",
        "affiliation": "Google Store",
        "subtotal": 54.98,
        "total": 64.48,
        "revenue": 59.98,
        "shipping": 5,
        "tax": 4.5,
        "discount": 2.5,
        "coupon": "WELCOME",
        "currency": "USD",
        "gclid": "Cj0KCQ-gclid",
        "payment_method": "card",
        "shipping_method": "post",
        "products": [
            {
                "product_id": "507f1f77",
                "sku": "SKU-1",
                "name": "Shirt",
                "price": 29.99,
                "position": 1,
                "quantity": 2,
                "category": "Clothing",
                "brand": "Acme",
                "variant": "red",
                "coupon": "SHIRT",
                "discount": 1,
                "url": "https://shop.example.com/shirt",
            },
            {"sku": "SKU-2", "name": "Socks", "price": "5.00"},
        ],
        "first_order": True,
    },
}


def draft(**overrides: Any) -> dict[str, Any]:
    found = segment.draft(merged(ORDER, overrides))
    assert not isinstance(found, Ignored)
    return found


def track(event: str, **properties: Any) -> dict[str, Any]:
    found = segment.draft({"type": "track", "event": event, "messageId": "m1", "properties": properties})
    assert not isinstance(found, Ignored)
    return found


def refused(call: Any) -> tuple[str, str]:
    with pytest.raises(BadEvent) as caught:
        segment.draft(call)
    return caught.value.reason, caught.value.field


def test_an_order_in_full():
    call = copy.deepcopy(ORDER)

    found = segment.draft(call)

    assert found == {
        "event_name": "purchase",
        "event_id": "order-1001",
        "site": "shop",
        "time": "2026-11-23T09:59:59.123Z",
        "sent_at": "2026-11-23T10:00:00.456Z",
        "user": {
            "email": "ada@example.com",
            "phone": "+15550100199",
            "first_name": "Ada",
            "last_name": "Lovelace",
            "birth_date": "1997-02-16",
            "gender": "female",
            "street": "1 Main Street",
            "city": "Menlo Park",
            "region": "CA",
            "postal_code": "94025-1234",
            "country": "US",
            "user_id": "customer-7",
        },
        "context": {
            "ip": "203.0.113.7",
            "user_agent": "Mozilla/5.0 (X11; Linux x86_64)",
            "url": "https://shop.example.com/thanks",
            "referrer": "https://shop.example.com/checkout",
            "title": "Thank you",
            "language": "en-US",
        },
        "ids": {
            "fbp": "fb.1.1795420000000.1234567890",
            "ga_client_id": "1234567890.1699999999",
            "ga_session_id": 1795420000,
            "gclid": "Cj0KCQ-gclid",
        },
        "commerce": {
            "value": 59.98,
            "currency": "USD",
            "tax": 4.5,
            "shipping": 5,
            "discount": 2.5,
            "coupon": "WELCOME",
            "transaction_id": "1001",
            "affiliation": "Google Store",
            "payment_type": "card",
            "shipping_tier": "post",
            "items": [
                {
                    "item_id": "507f1f77",
                    "item_name": "Shirt",
                    "brand": "Acme",
                    "category": "Clothing",
                    "variant": "red",
                    "coupon": "SHIRT",
                    "quantity": 2,
                    "price": 29.99,
                    "discount": 1,
                },
                {"item_id": "SKU-2", "item_name": "Socks", "price": "5.00"},
            ],
        },
        "consent": {"ad_storage": "granted", "ad_user_data": "denied", "gpc": False},
        "tags": {"meta": {"ran": True, "event_id": "order-1001"}},
        "labels": ["test"],
        "custom": {"subtotal": 54.98, "first_order": True},
    }
    assert call == ORDER  # untouched


def test_that_order_is_an_event():
    (result,) = normalize(ORDER, Inlet("t", "segment", "shop", "server"), 1_795_428_001_000, {})

    assert isinstance(result, Normalized)
    assert result.drops == ()


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [  # https://segment.com/docs/connections/spec/ecommerce/v2/ and the B2B spec
        ("Products Searched", "search"),
        ("Product List Viewed", "view_item_list"),
        ("Product Viewed", "view_item"),
        ("Product Added", "add_to_cart"),
        ("Product Removed", "remove_from_cart"),
        ("Cart Viewed", "view_cart"),
        ("Checkout Started", "begin_checkout"),
        ("Checkout Step Completed", "add_shipping_info"),
        ("Payment Info Entered", "add_payment_info"),
        ("Order Completed", "purchase"),
        ("Order Refunded", "refund"),
        ("Product Added to Wishlist", "add_to_wishlist"),
        ("Signed Up", "sign_up"),
        ("Signed In", "login"),
        # no counterpart of ours: custom events under their own names
        ("Product Clicked", "Product Clicked"),
        ("Promotion Viewed", "Promotion Viewed"),
        ("Order Cancelled", "Order Cancelled"),
        ("Coupon Entered", "Coupon Entered"),
        # our names, and what people write
        ("purchase", "purchase"),
        ("generate_lead", "generate_lead"),
        ("order completed", "purchase"),
        ("ORDER COMPLETED", "purchase"),
        ("product added to wishlist", "add_to_wishlist"),
        ("Product Added To Wishlist", "add_to_wishlist"),
        (" Order Completed ", "purchase"),
        ("My Event", "My Event"),
        ("my event", "my event"),
    ],
)
def test_a_name_of_the_spec_becomes_ours(theirs, ours):
    assert track(theirs)["event_name"] == ours


def test_a_person_as_rudderstack_writes_one():
    traits = {"firstname": "Ada", "lastname": "Lovelace", "address": {"postalcode": "94025"}}

    found = segment.draft({"event": "Signed Up", "messageId": "m1", "context": {"traits": traits}})

    assert not isinstance(found, Ignored)
    assert found["user"] == {"first_name": "Ada", "last_name": "Lovelace", "postal_code": "94025"}


@pytest.mark.parametrize("kind", ["page", "screen"])
def test_page_and_screen_are_page_views(kind):
    found = segment.draft(
        {
            "type": kind,
            "name": "Home",
            "messageId": "m1",
            "properties": {"title": "Home", "url": "https://shop.example.com/", "path": "/"},
        }
    )

    assert found == {
        "event_name": "page_view",
        "event_id": "m1",
        "pairs": False,
        "context": {"title": "Home", "url": "https://shop.example.com/"},
        "custom": {"path": "/"},
    }


@pytest.mark.parametrize("kind", ["identify", "group", "alias"])
def test_calls_that_report_nothing_are_ignored(kind):
    assert segment.draft({"type": kind, "userId": "u1", "traits": {"email": "ada@example.com"}}) == Ignored(kind)


@pytest.mark.parametrize(
    ("call", "reason", "field"),
    [
        ({}, "missing", "type"),
        ({"type": ""}, "missing", "type"),
        ({"type": 5}, "wrong_type", "type"),
        ({"type": ["track"]}, "wrong_type", "type"),
        ({"type": {}, "event": "x"}, "wrong_type", "type"),
        ({"type": "ada@example.com"}, "unknown_type", "type"),
        ({"type": "track"}, "missing", "event"),
        ({"type": "track", "event": ""}, "missing", "event"),
        ({"type": "track", "event": 5}, "wrong_type", "event"),
        ({"event": None}, "missing", "event"),
        ({"event": "x", "properties": []}, None, None),
        ({"event": "x", "properties": [1]}, "wrong_type", "properties"),
        ({"event": "x", "properties": "x"}, "wrong_type", "properties"),
        ({"event": "x", "context": "x"}, "wrong_type", "context"),
        ({"event": "x", "context": [1]}, "wrong_type", "context"),
        ({"event": "x", "properties": {"products": "x"}}, "wrong_type", "properties.products"),
        ({"event": "x", "properties": {"products": [1]}}, "wrong_type", "properties.products"),
        ({"event": "x", "properties": {"products": {}}}, "wrong_type", "properties.products"),
    ],
)
def test_a_malformed_call_is_refused_naming_the_field(call, reason, field):
    if reason is None:
        assert segment.draft(call) == {"event_name": "x"}
    else:
        assert refused(call) == (reason, field)


def test_a_call_without_type_but_with_an_event_is_a_track():
    assert segment.draft({"event": "x", "messageId": "m1"}) == {"event_name": "x", "event_id": "m1", "pairs": False}


# which id


@pytest.mark.parametrize("nothing", [None, "", "undefined", "null", 0, "[object Object]", False])
def test_without_an_event_id_an_order_has_its_number(nothing):
    found = track("Order Completed", event_id=nothing, order_id="1001")

    assert found["event_id"] == "1001"
    assert "pairs" not in found


@pytest.mark.parametrize("nothing", [None, "", "undefined", "null", 0, "[object Object]"])
def test_with_nothing_else_the_message_id_serves_but_cannot_pair(nothing):
    found = track("Order Completed", event_id=nothing, order_id=nothing)

    assert found["event_id"] == "m1"
    assert found["pairs"] is False


def test_an_order_number_is_no_id_of_another_event():
    found = track("Checkout Started", order_id="1001")

    assert (found["event_id"], found["pairs"]) == ("m1", False)
    assert found["commerce"] == {"transaction_id": "1001"}


def test_an_event_id_can_pair():
    assert "pairs" not in track("Product Added", event_id="ev-1")


def test_without_any_id_there_is_none():
    assert segment.draft({"event": "x", "messageId": "undefined"}) == {"event_name": "x"}


# time


def test_the_time_is_the_timestamp_and_else_the_original_one():
    assert draft(originalTimestamp="2026-11-23T08:00:00Z")["time"] == ORDER["timestamp"]
    assert draft(timestamp=None, originalTimestamp="2026-11-23T08:00:00Z")["time"] == "2026-11-23T08:00:00Z"
    assert "time" not in draft(timestamp=None)


# products


@pytest.mark.parametrize("event", ["Product Viewed", "Product Added", "Product Removed", "Product Added to Wishlist"])
def test_a_single_product_is_an_item_with_its_value(event):
    found = track(event, product_id="p1", sku="s1", name="Shirt", price=29.99, quantity=3, currency="EUR", size="M")

    assert found["commerce"] == {
        "currency": "EUR",
        "value": 89.97,
        "items": [{"item_id": "p1", "item_name": "Shirt", "price": 29.99, "quantity": 3}],
    }
    assert found["custom"] == {"size": "M"}


@pytest.mark.parametrize(
    ("properties", "value"),
    [
        ({"price": "29.99", "quantity": "2"}, 59.98),
        ({"price": 29.99}, 29.99),
        ({"price": 0}, 0),
        ({"price": 0.1, "quantity": 3}, 0.3),
        ({"price": 29.99, "value": 25}, 25),
        ({"price": 29.99, "quantity": 0}, 0),
        ({"price": 29.99, "quantity": True}, None),
        ({"price": "29,99"}, None),
        ({"price": "inf"}, None),
        ({"price": "nan"}, None),
        ({"price": 29.99, "quantity": "two"}, None),
        ({"price": 29.99, "currency": None}, None),
        ({"price": 29.99, "currency": ""}, None),
        ({"price": [29.99]}, None),
        ({}, None),
    ],
)
def test_a_single_products_value_is_price_times_quantity_where_both_can_be_read(properties, value):
    found = track("Product Added", **{"product_id": "p1", "currency": "EUR", **properties})

    assert found["commerce"].get("value") == value


def test_a_product_list_wins_over_the_fields_of_one_product():
    found = track("Product Added", product_id="p1", products=[{"product_id": "p2"}])

    assert found["commerce"]["items"] == [{"item_id": "p2"}]


@pytest.mark.parametrize("products", [None, []])
def test_an_order_may_come_without_products(products):
    found = track("Order Completed", order_id="1", products=products)

    assert found["commerce"].get("items", []) == []


def test_a_product_of_another_event_stays_custom():
    found = track("Product Clicked", product_id="p1", name="Shirt")

    assert found["custom"] == {"product_id": "p1", "name": "Shirt"}


# value, person, consent


@pytest.mark.parametrize(
    ("properties", "value"),
    [
        ({"revenue": 1, "value": 2, "total": 3}, 1),
        ({"value": 2, "total": 3}, 2),
        ({"total": "3.00"}, "3.00"),
        ({"revenue": 0, "total": 3}, 0),
        ({"revenue": None, "total": 3}, 3),
        ({"revenue": "", "total": 3}, 3),
    ],
)
def test_the_value_is_revenue_else_value_else_total(properties, value):
    assert track("Order Completed", **properties)["commerce"]["value"] == value


@pytest.mark.parametrize("place", ["properties", "traits", "context.traits"])
def test_email_and_phone_are_found_and_stay_out_of_custom(place):
    call: dict[str, Any] = {"event": "x", "messageId": "m1"}
    inner = call
    for part in place.split("."):
        inner = inner.setdefault(part, {})
    inner.update(email="ada@example.com", phone="+15550100199")

    found = segment.draft(call)

    assert found == {
        "event_name": "x",
        "event_id": "m1",
        "pairs": False,
        "user": {"email": "ada@example.com", "phone": "+15550100199"},
    }


@pytest.mark.parametrize(
    ("consent", "expected"),
    [
        ({"ad_storage": "denied"}, {"ad_storage": "denied"}),
        ("garbage", "garbage"),
        ([1], [1]),
        # Segment's own wrappers of consent managers
        (
            {"categoryPreferences": {"Advertising": True, "Analytics": False}},
            {"categories": {"Advertising": True, "Analytics": False}},
        ),
        (
            {"categoryPreferences": {"a": True}, "categories": {"b": True}, "ad_storage": "granted"},
            {"categories": {"b": True}, "ad_storage": "granted"},
        ),
    ],
)
def test_consent_travels_in_the_context(consent, expected):
    call = {"event": "x", "context": {"consent": consent}}
    before = copy.deepcopy(call)

    found = segment.draft(call)

    assert not isinstance(found, Ignored)
    assert found["consent"] == expected
    assert call == before


# what Jitsu adds


def test_jitsus_ids_are_taken():
    ids = {"fbp": "fb.1.1.2", "fbc": None, "ga4": {"clientId": "1.2", "sessionIds": {"ABC1234567": "1795420000"}}}

    found = segment.draft({"event": "x", "context": {"clientIds": ids}})

    assert not isinstance(found, Ignored)
    assert found["ids"] == {"fbp": "fb.1.1.2", "ga_client_id": "1.2", "ga_session_id": "1795420000"}


@pytest.mark.parametrize("sessions", [{}, {"A": "1", "B": "2"}, [], "1", None])
def test_of_several_sessions_none_is_taken(sessions):
    found = segment.draft({"event": "x", "context": {"clientIds": {"ga4": {"sessionIds": sessions}}}})

    assert not isinstance(found, Ignored)
    assert "ids" not in found


# batches


def test_a_batch_shares_what_it_says_once():
    calls = [{"type": "track", "event": "a"}, {"type": "track", "event": "b", "context": {"ip": "203.0.113.8"}}, 5]

    ones = formats.split("segment", {"batch": calls, "sentAt": "T", "context": {"ip": "203.0.113.7"}, "writeKey": "k"})

    assert ones == [
        {"sentAt": "T", "context": {"ip": "203.0.113.7"}, "type": "track", "event": "a"},
        {"sentAt": "T", "context": {"ip": "203.0.113.8"}, "type": "track", "event": "b"},
        5,
    ]


@pytest.mark.parametrize("body", [{"type": "track"}, {"batch": {}}, [], None, 5])
def test_what_is_no_batch_is_one_call(body):
    assert formats.split("segment", body) == [body]


def test_a_partial_refund_is_told_from_others_of_its_order():
    assert track("Order Refunded", order_id="1001", refund_id="r1")["event_id"] == "1001.r1"
    assert track("Order Refunded", order_id="1001")["event_id"] == "1001"
