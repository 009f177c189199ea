"""app/formats/ga4.py: bodies of the Measurement Protocol."""

import copy
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import formats
from app.errors import BadEvent
from app.events import Json
from app.normalize import Inlet, Normalized, normalize
from tests.factories import merged, sha

PURCHASE: dict[str, Any] = {
    "name": "purchase",
    "timestamp_micros": 1795420800123456,
    "params": {
        "session_id": "1795420000",
        "engagement_time_msec": 100,
        "debug_mode": True,
        "transaction_id": "1001",
        "affiliation": "Google Store",
        "value": 59.98,
        "currency": "USD",
        "tax": 4.5,
        "shipping": 5,
        "coupon": "WELCOME",
        "payment_type": "card",
        "shipping_tier": "post",
        "page_location": "https://shop.example.com/thanks",
        "page_referrer": "https://shop.example.com/checkout",
        "page_title": "Thank you",
        "language": "en-us",
        "customer_type": "new",
        "items": [
            {
                "item_id": "SKU-1",
                "item_name": "Shirt",
                "item_brand": "Acme",
                "item_category": "Clothing",
                "item_category2": "Adult",
                "item_variant": "red",
                "coupon": "SHIRT",
                "quantity": 2,
                "price": 29.99,
                "discount": 1,
                "index": 0,
            }
        ],
    },
}
LEAD: dict[str, Any] = {
    "name": "generate_lead",
    "params": {"event_id": "lead-1", "item_list_id": "l", "method": "form"},
}
BODY: dict[str, Any] = {
    "client_id": "1234567890.1699999999",
    "user_id": "customer-7",
    "timestamp_micros": "1795420700000000",
    "ip_override": "203.0.113.7",
    "user_agent": "Mozilla/5.0 (X11; Linux x86_64)",
    "user_properties": {"tier": {"value": "gold"}},
    "device": {"language": "de"},
    "consent": {"ad_user_data": "GRANTED", "ad_personalization": "DENIED"},
    "user_data": {
        "sha256_email_address": [sha("ada@example.com"), sha("ada@example.org")],
        "sha256_phone_number": sha("+15550100199"),
        "address": [
            {
                "sha256_first_name": sha("ada"),
                "sha256_last_name": sha("lovelace"),
                "sha256_street": sha("1 main street"),
                "city": "menlo park",
                "region": "california",
                "postal_code": "94025",
                "country": "US",
            },
            {"city": "london"},
        ],
    },
    "user_location": {"city": "Paris", "country_id": "FR", "region_id": "FR-75"},
    "events": [PURCHASE, LEAD],
}

SHARED: dict[str, Any] = {
    "user": {
        "user_id": "customer-7",
        "email": sha("ada@example.com"),
        "phone": sha("+15550100199"),
        "first_name": sha("ada"),
        "last_name": sha("lovelace"),
        "street": sha("1 main street"),
        "city": "menlo park",
        "region": "california",
        "postal_code": "94025",
        "country": "US",
    },
    "consent": {"ad_user_data": "GRANTED", "ad_personalization": "DENIED"},
}


def drafts(body: Any) -> list[Any]:
    return [formats.draft("ga4", one) for one in formats.split("ga4", body)]


def draft(event: Any, **shared: Any) -> Json:
    (found,) = drafts({**shared, "events": [event]})
    assert isinstance(found, dict)
    return found


def test_a_body_of_two_events_in_full():
    body = copy.deepcopy(BODY)

    assert drafts(body) == [
        {
            **SHARED,
            "event_name": "purchase",
            "event_id": "1001",
            "time": 1795420800123456,
            "context": {
                "ip": "203.0.113.7",
                "user_agent": "Mozilla/5.0 (X11; Linux x86_64)",
                "url": "https://shop.example.com/thanks",
                "referrer": "https://shop.example.com/checkout",
                "title": "Thank you",
                "language": "de",
            },
            "ids": {"ga_client_id": "1234567890.1699999999", "ga_session_id": "1795420000"},
            "commerce": {
                "value": 59.98,
                "currency": "USD",
                "tax": 4.5,
                "shipping": 5,
                "coupon": "WELCOME",
                "transaction_id": "1001",
                "affiliation": "Google Store",
                "payment_type": "card",
                "shipping_tier": "post",
                "items": [
                    {
                        "item_id": "SKU-1",
                        "item_name": "Shirt",
                        "brand": "Acme",
                        "category": "Clothing",
                        "variant": "red",
                        "coupon": "SHIRT",
                        "quantity": 2,
                        "price": 29.99,
                        "discount": 1,
                    }
                ],
            },
            "custom": {"customer_type": "new"},
        },
        {
            **SHARED,
            "event_name": "generate_lead",
            "event_id": "lead-1",
            "time": "1795420700000000",
            "context": {
                "ip": "203.0.113.7",
                "user_agent": "Mozilla/5.0 (X11; Linux x86_64)",
                "language": "de",
            },
            "ids": {"ga_client_id": "1234567890.1699999999"},
            "commerce": {"list_id": "l", "method": "form"},
        },
    ]
    assert body == BODY


def test_those_two_are_events():
    results = normalize(BODY, Inlet("t", "ga4", "shop", "server"), 1_795_420_801_456, {})

    assert all(isinstance(result, Normalized) and result.drops == () for result in results)
    assert [r.event["time"] for r in results if isinstance(r, Normalized)] == [1_795_420_800_123, 1_795_420_700_000]
    assert all(
        r.event["consent"] == {"ad_user_data": "granted", "ad_personalization": "denied"}
        for r in results
        if isinstance(r, Normalized)
    )


def test_an_event_may_come_alone():
    assert drafts(LEAD) == [
        {"event_name": "generate_lead", "event_id": "lead-1", "commerce": {"list_id": "l", "method": "form"}}
    ]


@pytest.mark.parametrize(
    ("user_data", "expected"),
    [
        ({"sha256_email_address": "x"}, {"email": "x"}),
        ({"sha256_email_address": ["x", "y"]}, {"email": "x"}),
        ({"sha256_email_address": []}, {}),
        ({"sha256_email_address": [""]}, {}),
        ({"sha256_email_address": [None]}, {}),
        ({"sha256_email_address": None}, {}),
        ({"address": {"city": "paris"}}, {"city": "paris"}),
        ({"address": [{"city": "paris"}]}, {"city": "paris"}),
        ({"address": []}, {}),
        ({"address": "paris"}, {}),
        ({"address": ["paris"]}, {}),
        ([], {}),
        ("x", {}),
    ],
)
def test_user_data_is_a_value_or_the_first_of_an_array(user_data, expected):
    assert draft(LEAD, user_data=user_data).get("user", {}) == expected


def test_where_somebody_is_serves_when_there_is_no_address():
    found = draft(LEAD, user_location={"city": "Paris", "country_id": "FR"})

    assert found["user"] == {"city": "Paris", "country": "FR"}


@pytest.mark.parametrize(
    ("consent", "expected"),
    [
        ({"ad_user_data": "GRANTED"}, {"ad_user_data": "GRANTED"}),
        ({"ad_user_data": "?"}, {"ad_user_data": "?"}),
        ({"ad_user_data": None}, None),
        ({}, None),
        (None, None),
        ("DENIED", "DENIED"),  # unreadable, and that must not pass for absent
        ([], []),
        (False, False),
    ],
)
def test_consent_is_handed_on_also_when_it_cannot_be_read(consent, expected):
    assert draft(LEAD, consent=consent).get("consent") == expected


# which id


def test_an_event_id_among_the_params_is_the_id():
    found = draft(merged(PURCHASE, {"params": {"event_id": "ev-1"}}))

    assert found["event_id"] == "ev-1"
    assert "pairs" not in found
    assert found["custom"] == {"customer_type": "new"}


@pytest.mark.parametrize("name", ["purchase", "refund"])
def test_an_order_has_its_number(name):
    found = draft({**PURCHASE, "name": name})

    assert found["event_id"] == "1001"
    assert "pairs" not in found


@pytest.mark.parametrize("nothing", [None, "", "undefined", "null", 0])
def test_without_any_id_one_is_made_up_that_cannot_pair(nothing):
    found = draft(merged(PURCHASE, {"params": {"event_id": nothing, "transaction_id": nothing}}))

    assert found["event_id"].startswith("ga4-")
    assert len(found["event_id"]) == 36
    assert found["pairs"] is False


def test_a_transaction_id_is_no_id_of_another_event():
    assert draft({**PURCHASE, "name": "begin_checkout"})["pairs"] is False


def test_without_id_and_time_there_is_no_id():
    found = draft({"name": "login", "params": {}}, client_id="1.2")

    assert "event_id" not in found
    assert "pairs" not in found


MADE_UP = {"name": "login", "timestamp_micros": 1795420800123456, "params": {"method": "Google"}}


def test_the_same_body_again_makes_the_same_id():
    again = {"params": {"method": "Google"}, "timestamp_micros": 1795420800123456, "name": "login"}

    assert draft(MADE_UP, client_id="1.2")["event_id"] == draft(again, client_id="1.2")["event_id"]


PARAMS = st.dictionaries(st.sampled_from(("method", "a", "b")), st.integers(0, 2) | st.text(max_size=3), max_size=2)


@given(PARAMS, PARAMS)
def test_a_made_up_id_tells_different_events_apart(one, other):
    ids = [draft({**MADE_UP, "params": params})["event_id"] for params in (one, other)]

    assert (ids[0] == ids[1]) == (one == other)


def test_a_made_up_id_tells_clients_apart():
    assert draft(MADE_UP, client_id="1.2")["event_id"] != draft(MADE_UP, client_id="1.3")["event_id"]


def test_a_made_up_id_tells_nothing_of_what_it_was_made_of():
    found = draft({**MADE_UP, "params": {"who": "ada@example.com"}})

    assert b"ada" not in orjson.dumps(found["event_id"])


# malformed


@pytest.mark.parametrize(
    ("event", "reason", "field"),
    [
        (None, "wrong_type", "events"),
        (5, "wrong_type", "events"),
        ("x", "wrong_type", "events"),
        ([], "wrong_type", "events"),
        ({}, "missing", "name"),
        ({"name": ""}, "missing", "name"),
        ({"name": 5}, "wrong_type", "name"),
        ({"name": "login", "params": "x"}, "wrong_type", "params"),
        ({"name": "login", "params": [1]}, "wrong_type", "params"),
        ({"name": "login", "params": {"items": "x"}}, "wrong_type", "params.items"),
        ({"name": "login", "params": {"items": [1]}}, "wrong_type", "params.items"),
        ({"name": "login", "params": {"items": {}}}, "wrong_type", "params.items"),
    ],
)
def test_a_malformed_event_is_refused_naming_the_field(event, reason, field):
    with pytest.raises(BadEvent) as refused:
        draft(event)
    assert (refused.value.reason, refused.value.field) == (reason, field)


@pytest.mark.parametrize("params", [None, {}, {"items": None}, {"items": []}])
def test_params_and_items_may_be_missing(params):
    assert draft({"name": "login", "params": params})["event_name"] == "login"


@pytest.mark.parametrize("body", [{"events": {}}, {"events": None}, {}, [], None, 5, "x"])
def test_a_body_without_a_list_of_events_is_one_event(body):
    assert formats.split("ga4", body) == [{"event": body}]


def test_names_of_shared_parts_cannot_be_taken_by_the_body():
    assert formats.split("ga4", {"event": "planted", "events": [LEAD]}) == [{"event": LEAD}]
