"""app/normalize.py: every rule of an event's way in, and that neither malice nor nonsense gets further or does harm."""

import base64
import copy
import dataclasses
import time
import tracemalloc
from typing import Any
from urllib.parse import quote, urlencode

import orjson
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from app import identity, normalize, plain, reading, redaction
from app.errors import BadEvent, SettingsError
from app.events import SIGNALS, Event, Ids, Json, Origin
from app.formats import FORMATS, NOT_AN_ID, Ignored
from app.normalize import (
    MAX_BYTES,
    MAX_EVENTS,
    Inlet,
    Normalized,
    Refused,
    Result,
    inlet_of,
    normalize_bytes,
)
from app.plain import Plain
from app.settings import Settings, SourceTopic
from tests.factories import merged, sha

RECEIVED = 1_795_428_000_000  # 2026-11-23T10:00:00Z
HOUR = 3_600_000
ORIGIN: Origin = {"topic": "orders", "partition": 3, "offset": 4711}
EVENT: TypeAdapter[Event] = TypeAdapter(Event)

DRAFT: Json = {
    "event_name": "purchase",
    "event_id": "order-1001",
    "site": "shop",
    "source": "server",
    "time": "2026-11-23T09:59:59.123Z",
    "sent_at": RECEIVED,
    "user": {
        "email": "Ada.Lovelace@Example.com",
        "phone": "+15550100199",
        "first_name": "Ada",
        "last_name": "Lovelace",
        "birth_date": "1997-02-16",
        "gender": "f",
        "street": "1 Main Street",
        "city": "Menlo Park",
        "region": "CA",
        "postal_code": "94025-1234",
        "country": "us",
        "user_id": "customer-7",
    },
    "context": {
        "ip": "203.0.113.7",
        "user_agent": "Mozilla/5.0 (X11; Linux x86_64)",
        "url": "https://shop.example.com/thanks?gclid=Cj0K-x_y&utm_source=x",
        "referrer": "https://shop.example.com/checkout",
        "title": "Thank you",
        "language": "en-US",
    },
    "ids": {"ga_client_id": "GA1.1.1234567890.1699999999", "fbp": "fb.1.1795420000000.1234567890", "lead_id": 12345678901234567},
    "commerce": {
        "value": "59.98",
        "currency": "usd",
        "tax": 4.5,
        "transaction_id": 1001,
        "coupon": "",
        "items": [{"item_id": "SKU-1", "item_name": "Shirt", "quantity": 2, "price": 29.99}],
    },
    "consent": {"ad_storage": "granted", "ad_user_data": "GRANTED", "analytics_storage": True, "gpc": False},
    "tags": {"meta": {"ran": True, "event_id": "order-1001"}},
    "labels": ["test", "bot", "test"],
    "custom": {"tier": "gold", "nested": {"deep": {"n": 1}}, "list": [1, "two", {"three": None}], "none": None},
}  # fmt: skip


#: A shop's own order, and the map that reads it.
ORDER: Json = {
    "state": "purchase",
    "number": "1001",
    "placed": "2026-11-23T09:59:59Z",
    "customer": {
        "mail": "ada@example.com",
        "tel": "+15550100199",
        "name": ["Ada", "Lovelace"],
        "street": "1 Main Street",
    },
    "sum": "59.98",
    "currency": "EUR",
    "lines": [{"sku": "SKU-1", "each": 29.99, "pieces": 2}, {"each": "1"}],
    "page": "https://shop.example.com/thanks?gclid=Cj0K-x_y",
    "more": {"tier": "gold"},
}
MAP = {
    "event_name": "state",
    "event_id": "number",
    "time": "placed",
    "user.email": "customer.mail",
    "user.phone": "customer.tel",
    "user.first_name": "customer.name[0]",
    "user.last_name": "customer.name[1]",
    "user.birth_date": "customer.born",
    "user.street": "customer.street",
    "context.url": "page",
    "commerce.value": "sum",
    "commerce.currency": "currency",
    "commerce.items[]": "lines",
    "commerce.items[].item_id": "sku",
    "commerce.items[].price": "each",
    "commerce.items[].quantity": "pieces",
    "custom": "more",
}


def inlet(format_name: str = "capistream", **settings: Any) -> Inlet:
    rules = {"rules": reading.rules(MAP, None)} if format_name == "map" else {}
    return Inlet(**{"name": "t", "format": format_name, "site": "shop", "source": "server", **rules, **settings})


def run(body: Any, format_name: str = "capistream", extra: Json | None = None, **settings: Any) -> list[Result]:
    return normalize.normalize(body, inlet(format_name, **settings), RECEIVED, ORIGIN, extra)


def result_of(overrides: Json, **settings: Any) -> Result:
    """Of the valid draft with these changes."""
    (result,) = run(merged(DRAFT, overrides), **settings)
    return result


def accepted(overrides: Json, **settings: Any) -> Normalized:
    result = result_of(overrides, **settings)
    assert isinstance(result, Normalized), result
    return result


def event_of(overrides: Json, **settings: Any) -> Any:
    return accepted(overrides, **settings).event


def refusal_of(overrides: Json, **settings: Any) -> tuple[str, str]:
    result = result_of(overrides, **settings)
    assert isinstance(result, Refused), result
    assert result.detail
    return result.reason, result.field


# the whole


def test_a_draft_in_full():
    before = copy.deepcopy(DRAFT)

    (result,) = run(DRAFT)

    assert result == Normalized(
        {
            "v": 1,
            "event_id": "order-1001",
            "event_name": "purchase",
            "site": "shop",
            "source": "server",
            "time": RECEIVED - 877,
            "received": RECEIVED,
            "origin": ORIGIN,
            "user": {
                "email": {
                    "plain": sha("ada.lovelace@example.com"),
                    "gmail": sha("ada.lovelace@example.com"),
                    "strict": sha("adalovelace@example.com"),
                },
                "phone": {"e164": sha("+15550100199"), "digits": sha("15550100199")},
                "first_name": {"plain": sha("ada"), "letters": sha("ada"), "joined": sha("ada")},
                "last_name": {"plain": sha("lovelace"), "letters": sha("lovelace"), "joined": sha("lovelace")},
                "birth_date": {"ymd": sha("19970216")},
                "gender": {"letter": sha("f")},
                "street": {"plain": sha("1 main street")},
                "city": "Menlo Park",
                "region": "CA",
                "postal_code": "94025-1234",
                "country": "US",
                "user_id": "customer-7",
            },
            "context": {
                "ip": "203.0.113.7",
                "user_agent": "Mozilla/5.0 (X11; Linux x86_64)",
                "url": "https://shop.example.com/thanks?gclid=Cj0K-x_y&utm_source=x",
                "referrer": "https://shop.example.com/checkout",
                "title": "Thank you",
                "language": "en-US",
            },
            "ids": {
                "ga_client_id": "1234567890.1699999999",
                "fbp": "fb.1.1795420000000.1234567890",
                "lead_id": "12345678901234567",
                "gclid": "Cj0K-x_y",
            },
            "commerce": {
                "value": 59.98,
                "currency": "USD",
                "tax": 4.5,
                "transaction_id": "1001",
                "items": [{"item_id": "SKU-1", "item_name": "Shirt", "quantity": 2, "price": 29.99}],
            },
            "consent": {
                "ad_storage": "granted",
                "ad_user_data": "granted",
                "analytics_storage": "granted",
                "gpc": False,
            },
            "tags": {"meta": {"ran": True, "event_id": "order-1001"}},
            "labels": ["bot", "test"],
            "custom": {"tier": "gold", "nested.deep.n": 1, "list": '[1,"two",{}]'},
        }
    )
    assert before == DRAFT  # the caller's body is untouched


def test_the_least_there_can_be():
    (result,) = run({"event_name": "login", "event_id": "1"})

    assert result == Normalized(
        {
            "v": 1,
            "event_id": "1",
            "event_name": "login",
            "site": "shop",
            "source": "server",
            "time": RECEIVED,
            "received": RECEIVED,
            "origin": ORIGIN,
        }
    )


def test_a_null_is_as_good_as_nothing():
    (result,) = run({**dict.fromkeys(DRAFT), "event_name": "login", "event_id": "1", "user": {"email": None}})

    assert isinstance(result, Normalized)
    assert set(result.event) == {"v", "event_id", "event_name", "site", "source", "time", "received", "origin"}


# bytes


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "empty"),
        (b"", "empty"),
        (b" ", "not_json"),
        (b"{", "not_json"),
        (b"{'a':1}", "not_json"),
        (b'{"a":NaN}', "not_json"),
        (b'{"a":Infinity}', "not_json"),
        (b'{"a":1e999}', "not_json"),
        (b'{"a":"\xff"}', "not_json"),
        ('{"event_name":"Grüße"}'.encode("latin-1"), "not_json"),
        ('{"event_name":"x"}'.encode("utf-16"), "not_json"),
        (b'\xef\xbb\xbf{"a":1}', "not_json"),
        (b'{"a":"\\ud800"}', "not_json"),
        (b'{"a":"\x00"}', "not_json"),
        (b'{"a":1}{"b":2}', "not_json"),
        pytest.param(b"[" * 100_000, "not_json", id="deep"),
        pytest.param(b"[" * 5000 + b"]" * 5000, "not_json", id="deep and whole"),
        (b"ada@example.com", "not_json"),
        (b"null", "wrong_type"),
        (b'"ada@example.com"', "wrong_type"),
        (b"5", "wrong_type"),
        (b"[]", "empty"),
        (b'{"batch":[]}', "empty"),
    ],
)
def test_bytes_that_are_no_event_are_refused(value, reason):
    (result,) = normalize_bytes(value, inlet(), RECEIVED, ORIGIN)

    assert isinstance(result, Refused)
    assert result.reason == reason
    assert "ada" not in result.detail


def test_bytes_are_normalised_like_what_they_mean():
    assert normalize_bytes(orjson.dumps(DRAFT), inlet(), RECEIVED, ORIGIN) == run(DRAFT)


def test_of_a_name_given_twice_the_last_counts():
    (result,) = normalize_bytes(b'{"event_name":"a","event_id":"1","event_name":"b"}', inlet(), RECEIVED, ORIGIN)

    assert isinstance(result, Normalized)
    assert result.event["event_name"] == "b"


def test_a_position_is_all_that_an_error_in_json_tells():
    with pytest.raises(BadEvent) as refused:
        normalize.parse(b'{"email":"ada@example.com",}')
    assert refused.value.detail == "not JSON, at character 26"
    assert refused.value.__suppress_context__


# batches


def test_each_event_of_a_batch_has_its_own_result_and_place():
    bad: Json = {"event_name": "x", "event_id": "1", "oops": 1}
    good: Json = {"event_name": "login", "event_id": "1"}

    results = run([good, bad, 5, good, {}, None])

    assert [type(result) for result in results] == [Normalized, Refused, Refused, Normalized, Refused, Refused]
    assert [(r.index, r.reason, r.field) for r in results if isinstance(r, Refused)] == [
        (1, "unknown_field", "oops"),
        (2, "wrong_type", ""),
        (4, "missing", "event_name"),
        (5, "wrong_type", ""),
    ]


def test_what_is_ignored_keeps_its_place_in_a_batch():
    calls = [{"type": "identify"}, {"type": "track", "event": "x", "messageId": "m"}, {"type": "track"}]

    ignored, normalized, refused = run({"batch": calls}, "segment")

    assert ignored == Ignored("identify")
    assert isinstance(normalized, Normalized)
    assert isinstance(refused, Refused)
    assert refused.index == 2


@pytest.mark.parametrize(
    ("format_name", "body"),
    [
        ("capistream", []),
        ("capistream", {"batch": []}),
        ("segment", {"batch": []}),
        ("meta", {"data": []}),
        ("ga4", {"events": []}),
    ],
)
def test_an_empty_batch_is_refused(format_name, body):
    assert run(body, format_name) == [Refused("empty", "", "there is no event in it")]


def test_a_batch_of_very_many_events_is_refused_as_a_whole():
    assert len(run([{}] * MAX_EVENTS)) == MAX_EVENTS
    assert run([{}] * (MAX_EVENTS + 1)) == [Refused("too_many", "", "more than 5000 events in one body")]


def test_a_body_that_repeats_a_large_part_for_each_event_is_refused():
    (result,) = run({"batch": [{}] * 1000, "custom": {"x": "y" * 50_000}})

    assert isinstance(result, Refused)
    assert (result.reason, result.field) == ("too_large", "")


@pytest.mark.parametrize("format_name", FORMATS)
def test_a_cloudevents_envelope_is_taken_off(format_name):
    body = {
        "capistream": DRAFT,
        "segment": {"type": "track", "event": "x", "messageId": "m"},
        "meta": {"event_name": "Lead", "event_id": "1"},
        "ga4": {"events": [{"name": "login", "params": {"event_id": "1"}}]},
        "gtag": {"query": "v=2&tid=G-ABC1234567&en=login&ep.event_id=1", "lines": ""},
        "map": ORDER,
    }[format_name]
    envelope = {
        "specversion": "1.0",
        "id": "9",
        "source": "/x",
        "type": "t",
        "time": "1999-01-01T00:00:00Z",
        "data": body,
    }

    (bare,), (opened,) = run(body, format_name), run(envelope, format_name)
    assert isinstance(bare, Normalized)
    assert isinstance(opened, Normalized)
    attributes = {"ce_specversion": "1.0", "ce_id": "9", "ce_source": "/x", "ce_type": "t", "ce_time": envelope["time"]}
    assert opened.event == {**bare.event, "origin": {**ORIGIN, "headers": attributes}}


# names and ids


@pytest.mark.parametrize("nothing", [*sorted(NOT_AN_ID), " ", "NULL", " Undefined ", 0, False, True, None])
def test_what_broken_clients_send_counts_as_missing(nothing):
    order: Json = {"commerce": {"transaction_id": nothing, "refund_id": nothing}}

    assert refusal_of({"event_name": "login", "event_id": nothing}) == ("missing", "event_id")
    assert event_of({"event_id": nothing})["event_id"] == "1001"
    assert refusal_of({"event_id": nothing, **order}) == ("missing", "event_id")
    assert not {"transaction_id", "refund_id"} & set(event_of(order)["commerce"])
    assert "user_id" not in event_of({"user": {"user_id": nothing}})["user"]
    assert set(event_of({"ids": {"gclid": nothing, "fbp": nothing, "ga_client_id": nothing}})["ids"]) == {
        "lead_id",
        "gclid",
    }
    if isinstance(nothing, str):
        assert refusal_of({"event_name": nothing}) == ("missing", "event_name")


@pytest.mark.parametrize(
    ("event_id", "expected"),
    [
        ("order-1001", "order-1001"),
        (" a b ", " a b "),
        ("ÄÖ漢字", "ÄÖ漢字"),
        ("e\u0301", "e\u0301"),
        ("A", "A"),
        (1001, "1001"),
        (1001.0, "1001"),
        (10.5, "10.5"),
        (12345678901234567890, "12345678901234567890"),
        ("00", "00"),
        ("x" * 200, "x" * 200),
    ],
)
def test_an_id_is_kept_byte_for_byte(event_id, expected):
    assert event_of({"event_id": event_id})["event_id"] == expected
    assert event_of({"commerce": {"transaction_id": event_id}})["commerce"]["transaction_id"] == expected
    assert event_of({"user": {"user_id": event_id}})["user"]["user_id"] == expected.strip()


@pytest.mark.parametrize(
    "field", ["event_id", "commerce.transaction_id", "commerce.refund_id", "user.user_id", "ids.lead_id"]
)
@pytest.mark.parametrize("number", [1e29, -1e29, 2.0**53])
def test_a_number_that_lost_digits_is_no_id(field, number):
    """Two such ids would be one: JSON readers make 123456789012345678901234567890 the same as ...891."""
    *parts, name = field.split(".")

    assert refusal_of({parts[0]: {name: number}} if parts else {name: number}) == ("wrong_type", field)


@pytest.mark.parametrize("field", ["event_id", "event_name", "commerce.transaction_id", "commerce.refund_id"])
@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("ada@example.com", "personal_id"),
        (" ADA@EXAMPLE.COM ", "personal_id"),
        ("order-ada@example.com-1", "personal_id"),
        ("order of ada@example.com", "personal_id"),
        ("ada%40example.com", "personal_id"),
        ("+49 30 123456", "personal_id"),
        ("+4930123456", "personal_id"),
        ("a\x1fb", "control_character"),
        ("a\nb", "control_character"),
        ("a\x00", "control_character"),
        ("\x7f", "control_character"),
        pytest.param("x" * 201, "too_long", id="long"),
        pytest.param("x" * 10_000_000, "too_long", id="10 MB"),
        ({}, "wrong_type"),
        (["1"], "wrong_type"),
    ],
)
def test_what_cannot_be_an_id_is_refused(field, value, reason):
    *parts, name = field.split(".")

    assert refusal_of({**DRAFT, parts[0]: {**DRAFT[parts[0]], name: value}} if parts else {**DRAFT, name: value}) == (
        reason,
        field,
    )


def test_a_name_has_at_most_100_characters_and_no_space_around():
    assert event_of({"event_name": " purchase\n"})["event_name"] == "purchase"
    assert event_of({"event_name": "x" * 100})["event_name"] == "x" * 100
    assert refusal_of({"event_name": "x" * 101}) == ("too_long", "event_name")
    assert refusal_of({"event_name": None}) == ("missing", "event_name")
    assert event_of({"event_name": " purchase", "event_id": None})["event_id"] == "1001"


@pytest.mark.parametrize("name", ["purchase", "refund"])
def test_an_order_without_event_id_has_its_number(name):
    assert event_of({"event_name": name, "event_id": None})["event_id"] == "1001"


def test_partial_refunds_of_an_order_are_different_events_to_platforms():
    refunds = [{"event_name": "refund", "event_id": None, "commerce": {"refund_id": one}} for one in ("r1", 2, None)]

    assert [event_of(one)["event_id"] for one in refunds] == ["1001.r1", "1001.2", "1001"]
    assert (
        event_of({"event_name": "refund", "event_id": "given", "commerce": {"refund_id": "r1"}})["event_id"] == "given"
    )
    assert event_of({"event_name": "purchase", "event_id": None, "commerce": {"refund_id": "r1"}})["event_id"] == "1001"


def test_pairs_is_false_or_absent():
    assert event_of({"pairs": False})["pairs"] is False
    assert "pairs" not in event_of({"pairs": None})
    assert refusal_of({"pairs": True}) == ("wrong_type", "pairs")


# where from


def test_the_site_is_the_sources_own():
    assert event_of({"site": None})["site"] == "shop"
    assert refusal_of({"site": "another"}) == ("unknown_site", "site")
    assert refusal_of({"site": ""}) == ("unknown_site", "site")


def test_an_event_may_say_its_source_where_that_is_allowed():
    pixel_only = frozenset({"pixel"})

    assert event_of({"source": None})["source"] == "server"
    assert event_of({"source": "crm"})["source"] == "crm"
    assert event_of({"source": None}, source="pixel", sources=pixel_only)["source"] == "pixel"
    assert refusal_of({"source": "server"}, source="pixel", sources=pixel_only) == ("source_not_allowed", "source")
    assert refusal_of({"source": "ada@example.com"}) == ("wrong_type", "source")


def test_what_the_connection_says_wins_over_the_body():
    (result,) = run(DRAFT, extra={"ip": "198.51.100.1", "user_agent": "Firefox"})

    assert isinstance(result, Normalized)
    assert result.event["context"]["ip"] == "198.51.100.1"
    assert result.event["context"]["user_agent"] == "Firefox"
    assert result.event["context"]["title"] == "Thank you"


def test_a_header_that_is_no_utf8_does_no_harm():
    (result,) = run(DRAFT, extra={"user_agent": b"Mozilla/5.0 \xff\xfe".decode(errors="surrogateescape")})

    assert isinstance(result, Normalized)
    assert result.event["context"]["user_agent"] == "Mozilla/5.0 ??"


# time


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1_795_427_999, 1_795_427_999_000),
        (1_795_427_999.123, 1_795_427_999_123),
        ("1795427999", 1_795_427_999_000),
        (" 1795427999.123 ", 1_795_427_999_123),
        (1_795_427_999_123, 1_795_427_999_123),
        (1_795_427_999_123.9, 1_795_427_999_123),
        ("1795427999123", 1_795_427_999_123),
        (1_795_427_999_123_456, 1_795_427_999_123),
        ("1795427999123999", 1_795_427_999_123),
        (1_795_427_999_123_456_789, 1_795_427_999_123),
        ("2026-11-23T09:59:59.123Z", 1_795_427_999_123),
        ("2026-11-23T09:59:59.123456Z", 1_795_427_999_123),
        ("2026-11-23T09:59:59Z", 1_795_427_999_000),
        ("2026-11-23 10:59:59.123+01:00", 1_795_427_999_123),
        ("2026-11-23T04:59:59.123-0500", 1_795_427_999_123),
        ("20261123T095959Z", 1_795_427_999_000),
        (" 2026-11-23T09:59:59Z\n", 1_795_427_999_000),
        (None, RECEIVED),
        ("2015-01-01T00:00:00Z", 1_420_070_400_000),
        (1_420_070_400, 1_420_070_400_000),
        ("2027-01-01T00:00:00Z", None),
        (RECEIVED, RECEIVED),
        # a clock that is a little ahead, as servers' are: not later than its receipt
        (RECEIVED + HOUR, RECEIVED),
        ("2026-11-23T10:59:59Z", RECEIVED),
    ],
)
def test_times_are_told_apart_by_form_and_size(value, expected):
    if expected is None:
        assert refusal_of({"time": value}) == ("time_in_future", "time")
    else:
        assert event_of({"time": value})["time"] == expected


@given(st.integers(RECEIVED - 10**11, RECEIVED))
@example(1_795_420_809_997)
def test_a_millisecond_survives_every_spelling(milliseconds):
    seconds, rest = divmod(milliseconds, 1000)
    iso = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{rest:03}Z"

    for spelling in (
        iso,
        milliseconds,
        milliseconds / 1000,
        f"{seconds}.{rest:03}",
        milliseconds * 1000,
        milliseconds * 1000.0,
        milliseconds * 1_000_000,
        str(milliseconds * 1_000_000),
    ):
        assert normalize.milliseconds(spelling, "time", None) == milliseconds, spelling


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (0, "time_out_of_range"),
        ("0", "time_out_of_range"),
        (True, "time_out_of_range"),
        (1, "time_out_of_range"),
        ("1970-01-01T00:00:00Z", "time_out_of_range"),
        ("2014-12-31T23:59:59Z", "time_out_of_range"),
        ("0001-01-01T00:00:00+14:00", "time_out_of_range"),
        (-1, "time_out_of_range"),
        (1e20, "time_out_of_range"),
        (1e300, "time_out_of_range"),
        ("9" * 30, "time_out_of_range"),
        (20261123, "time_out_of_range"),
        ("20261123", "time_out_of_range"),
        ("2026", "time_out_of_range"),
        ("9999-12-31T23:59:59Z", "time_in_future"),
        ("9999-12-31T23:59:59-14:00", "time_in_future"),
        (RECEIVED + HOUR + 1, "time_in_future"),
        ((RECEIVED + 2 * HOUR) // 1000, "time_in_future"),
        ("", "bad_time"),
        ("now", "bad_time"),
        ("yesterday ada@example.com", "bad_time"),
        ("23.11.2026 10:00", "bad_time"),
        ("11/23/2026", "bad_time"),
        ("Mon, 23 Nov 2026 09:59:59 GMT", "bad_time"),
        ("2026-11-23T25:00:00Z", "bad_time"),
        ("2026-02-30T00:00:00Z", "bad_time"),
        ("-1795427999", "bad_time"),
        ("1_795_427_999", "bad_time"),
        ("1e9", "bad_time"),
        pytest.param("9" * 100_000, "bad_time", id="long"),
        ("2026-11-23T09:59:59", "no_time_zone"),
        ("2026-11-23", "no_time_zone"),
        ([], "wrong_type"),
        ({}, "wrong_type"),
    ],
)
def test_a_time_that_cannot_be_is_refused(value, reason):
    assert refusal_of({"time": value} if value != {} else {**DRAFT, "time": [{}]}) == (reason, "time")


@pytest.mark.parametrize(
    ("value", "zone", "expected"),
    [
        ("2026-11-23T10:59:59", "Europe/Berlin", "2026-11-23T09:59:59Z"),
        ("2026-07-01T12:00:00", "Europe/Berlin", "2026-07-01T10:00:00Z"),
        ("2026-11-23", "America/New_York", "2026-11-23T05:00:00Z"),
        ("2026-11-23T09:59:59Z", "Europe/Berlin", "2026-11-23T09:59:59Z"),  # its own zone wins
        ("2026-03-29T02:30:00", "Europe/Berlin", "2026-03-29T01:30:00Z"),  # in the gap of spring
        ("2026-10-25T02:30:00", "Europe/Berlin", "2026-10-25T00:30:00Z"),  # the first of two in autumn
    ],
)
def test_the_sources_zone_serves_for_times_without_one(value, zone, expected):
    assert event_of({"time": value}, time_zone=zone)["time"] == event_of({"time": expected})["time"]


def test_the_last_times_there_are_do_no_harm_in_any_zone():
    for zone in ("Pacific/Kiritimati", "Etc/GMT+12"):
        assert refusal_of({"time": "9999-12-31T23:59:59.999999"}, time_zone=zone) == ("time_in_future", "time")
        assert refusal_of({"time": "0001-01-01T00:00:00"}, time_zone=zone) == ("time_out_of_range", "time")


def pixel(time: Any, sent_at: Any) -> Json:
    return {"source": "pixel", "time": time, "sent_at": sent_at}


@pytest.mark.parametrize(
    ("time", "sent_at", "expected"),
    [
        (RECEIVED - 5000, RECEIVED, RECEIVED - 5000),
        (RECEIVED + 30 * HOUR, RECEIVED + 30 * HOUR + 2000, RECEIVED - 2000),  # a clock a day ahead
        (1_000_000_000_000, 1_000_000_002_000, RECEIVED - 2000),  # a clock in 2001
        (0, 2000, RECEIVED - 2_000_000),  # a clock that begins at zero: both are seconds
        ("2026-11-23T09:00:00Z", "2026-11-23T09:00:10Z", RECEIVED - 10_000),
        (RECEIVED - 48 * HOUR, RECEIVED, RECEIVED - 48 * HOUR),  # kept while offline
        (RECEIVED, RECEIVED - 5000, RECEIVED),  # it happens after it was sent: not after its receipt
        (RECEIVED - 5000, None, RECEIVED - 5000),
        (None, RECEIVED, RECEIVED),
        (None, "nonsense", RECEIVED),
    ],
)
def test_a_browsers_clock_is_corrected_by_when_it_sent(time, sent_at, expected):
    assert event_of(pixel(time, sent_at))["time"] == expected


@pytest.mark.parametrize(
    ("sent_at", "reason", "field"),
    [
        (0, "time_in_future", "time"),
        ("1970-01-01T00:00:00Z", "time_in_future", "time"),
        ("9999-12-31T23:59:59Z", "time_out_of_range", "time"),
        (-5, "time_out_of_range", "sent_at"),
        ("ada@example.com", "bad_time", "sent_at"),
        ("2026-11-23T10:00:00", "no_time_zone", "sent_at"),
        ([], "wrong_type", "sent_at"),
    ],
)
def test_a_silly_sent_at_of_a_browser_is_refused(sent_at, reason, field):
    assert refusal_of(pixel(RECEIVED, sent_at)) == (reason, field)


@pytest.mark.parametrize("sent_at", [0, "ada@example.com", "9999-12-31T23:59:59Z", RECEIVED + 30 * HOUR])
def test_the_sent_at_of_a_server_is_not_looked_at(sent_at):
    assert event_of({"time": RECEIVED - 5, "sent_at": sent_at})["time"] == RECEIVED - 5


# money


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (59.98, 59.98),
        ("59.98", 59.98),
        (" 59.98 ", 59.98),
        (60, 60.0),
        ("60", 60.0),
        (0, 0.0),
        ("0.00", 0.0),
        (-5.5, -5.5),
        ("-5.50", -5.5),
        ("1e3", 1000.0),
        (999_999_999_999_999, 999_999_999_999_999.0),
    ],
)
def test_an_amount_is_a_number_or_a_decimal_text(value, expected):
    commerce: Json = {
        "value": value,
        "tax": value,
        "shipping": value,
        "discount": value,
        "items": [{"price": value, "discount": value}],
    }

    found = event_of({"commerce": commerce})["commerce"]

    assert found["value"] == found["tax"] == found["shipping"] == found["discount"] == expected
    assert found["items"] == [{"price": expected, "discount": expected}]


@pytest.mark.parametrize(
    "field", ["value", "tax", "shipping", "discount", "items.0.price", "items.0.discount", "items.0.quantity"]
)
@pytest.mark.parametrize(
    "value",
    [
        True,
        False,
        "",
        "abc",
        "59,98",
        "1.234,50",
        "€5",
        "5 EUR",
        "NaN",
        "nan",
        "inf",
        "-Infinity",
        "1e999",
        "1e15",
        1e15,
        -1e300,
        10**16,
        "9" * 400,
        [],
        [5],
        {"amount": 5},
        "0x10",
        "ada@example.com",
    ],
)
def test_what_is_no_amount_is_refused(field, value):
    commerce: Json = {"currency": "EUR", "items": [{"item_id": "1"}]}
    (commerce["items"][0] if "." in field else commerce)[field.rsplit(".", 1)[-1]] = value

    assert refusal_of({**DRAFT, "commerce": commerce}) == ("wrong_type", f"commerce.{field}")


@pytest.mark.parametrize("quantity", ["2", 2, 2.0, "2.0"])
def test_a_quantity_is_a_whole_number(quantity):
    assert event_of({"commerce": {"items": [{"quantity": quantity}]}})["commerce"]["items"] == [{"quantity": 2}]


def test_half_a_piece_is_refused():
    assert refusal_of({"commerce": {"items": [{"quantity": 1.5}]}}) == ("wrong_type", "commerce.items.0.quantity")


def test_a_value_needs_a_currency():
    assert refusal_of({"commerce": {"currency": None}}) == ("no_currency", "commerce.currency")
    assert refusal_of({"commerce": {"currency": ""}}) == ("no_currency", "commerce.currency")
    assert refusal_of({"commerce": {"currency": None, "value": 0}}) == ("no_currency", "commerce.currency")
    assert "currency" not in event_of({"commerce": {"currency": None, "value": None}})["commerce"]
    assert event_of({"commerce": {"value": None}})["commerce"]["currency"] == "USD"


@pytest.mark.parametrize(("currency", "expected"), [("eur", "EUR"), (" Usd ", "USD"), ("XXX", "XXX")])
def test_a_currency_is_three_capitals(currency, expected):
    assert event_of({"commerce": {"currency": currency}})["commerce"]["currency"] == expected


@pytest.mark.parametrize("currency", ["€", "EU", "EURO", "E U", "ЕUR", "U$D", "978", " ", "ada@example.com"])
def test_a_bad_currency_is_refused(currency):
    assert refusal_of({"commerce": {"currency": currency}}) == ("bad_currency", "commerce.currency")


@pytest.mark.parametrize(
    ("currency", "given", "expected"),
    [
        ("EUR", 5998, 59.98),
        ("JPY", 5998, 5998),
        ("KWD", 5998, 5.998),
        ("eur", "5998", 59.98),
        ("EUR", 1, 0.01),
        ("EUR", -5, -0.05),
    ],
)
def test_minor_units_become_major_ones_by_currency(currency, given, expected):
    commerce: Json = {
        "value": given, "currency": currency, "tax": given, "shipping": given, "discount": given,
        "items": [{"price": given, "discount": given, "quantity": 3}],
    }  # fmt: skip

    found = event_of({"commerce": commerce}, minor_units=True)["commerce"]

    assert [found[name] for name in ("value", "tax", "shipping", "discount")] == [expected] * 4
    assert found["items"] == [{"price": expected, "discount": expected, "quantity": 3}]


def test_texts_that_are_empty_are_left_out():
    assert "coupon" not in event_of({"commerce": {"coupon": ""}})["commerce"]
    assert "title" not in event_of({"context": {"title": ""}})["context"]


# consent


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("granted", "granted"),
        ("GRANTED", "granted"),
        (" Granted ", "granted"),
        (True, "granted"),
        ("denied", "denied"),
        (False, "denied"),
    ],
)
@pytest.mark.parametrize("signal", ["ad_storage", "analytics_storage", "ad_user_data", "ad_personalization"])
def test_a_signal_is_granted_or_denied(signal, value, expected):
    found = accepted({"consent": {signal: value}})

    assert found.event["consent"][signal] == expected  # type: ignore[literal-required]
    assert found.drops == ()


@pytest.mark.parametrize(
    "value", ["yes", "no", "", "grant", "true", 1, 0, 5.5, [], ["granted"], {"granted": True}, "ada@example.com"]
)
def test_a_signal_that_cannot_be_read_is_denied_and_counted(value):
    (found,) = run(
        {"event_name": "login", "event_id": "1", "consent": {"ad_storage": value, "ad_user_data": "granted"}}
    )

    assert isinstance(found, Normalized)
    assert found.event["consent"] == {"ad_storage": "denied", "ad_user_data": "granted"}
    assert found.drops == (("consent.ad_storage", "unreadable"),)


@pytest.mark.parametrize("value", ["granted", "", 5, True, False, ["granted"], []])
def test_consent_that_cannot_be_read_at_all_is_denied_and_counted(value):
    (found,) = run({"event_name": "login", "event_id": "1", "consent": value})

    assert isinstance(found, Normalized)
    assert set(found.event["consent"].values()) == {"denied"}
    assert len(found.event["consent"]) == 4
    assert found.drops == (("consent", "unreadable"),)


@pytest.mark.parametrize("value", [None, {}, {"ad_storage": None}])
def test_no_consent_told_is_none_at_all(value):
    (found,) = run({"event_name": "login", "event_id": "1", "consent": value})

    assert isinstance(found, Normalized)
    assert "consent" not in found.event


@pytest.mark.parametrize(
    ("name", "value", "expected", "drops"),
    [
        ("gpc", True, True, ()),
        ("gpc", "1", True, ()),
        ("gpc", 1, True, ()),
        ("gpc", "false", False, ()),
        ("gpc", 0, False, ()),
        ("gpc", "maybe", True, (("consent.gpc", "unreadable"),)),
        ("gpc", [], True, (("consent.gpc", "unreadable"),)),
        ("gpc", 2, True, (("consent.gpc", "unreadable"),)),
        ("us_privacy", "1YNN", "1YNN", ()),
        ("us_privacy", 1, "unreadable", (("consent.us_privacy", "unreadable"),)),
        ("tcf", ["CPx"], "unreadable", (("consent.tcf", "unreadable"),)),
        ("gpp", False, "unreadable", (("consent.gpp", "unreadable"),)),
        # what is no such string by its look is not kept: it may be anything
        ("tcf", "ada@example.com", "unreadable", (("consent.tcf", "unreadable"),)),
        ("gpp", "YWRhQGV4YW1wbGUuY29t", "unreadable", (("consent.gpp", "unreadable"),)),
        ("us_privacy", "1YN", "unreadable", (("consent.us_privacy", "unreadable"),)),
        ("categories", {"a": True, "b": "0"}, {"a": True, "b": False}, ()),
        ("categories", {"a": True, "b": "perhaps"}, {"a": True, "b": False}, (("consent.categories", "unreadable"),)),
        ("categories", "all", {}, (("consent.categories", "unreadable"),)),
        ("categories", ["a"], {}, (("consent.categories", "unreadable"),)),
    ],
)
def test_the_other_signals_cost_no_event_either_and_are_read_for_the_worse(name, value, expected, drops):
    found = accepted({**DRAFT, "consent": {"ad_storage": "granted", name: value}})

    assert found.event["consent"][name] == expected  # type: ignore[literal-required]
    assert found.drops == drops


CATEGORIES = {"C0004": ["ad_storage", "ad_user_data"]}


def consented(consent: Any, **settings: Any) -> Normalized:
    (found,) = run({**DRAFT, "consent": consent}, **settings)
    assert isinstance(found, Normalized)
    return found


@pytest.mark.parametrize(
    ("told", "expected", "drops"),
    [
        ({"gcs": "G110"}, {"ad_storage": "granted", "analytics_storage": "denied"}, ()),
        ({"gcs": "G1--"}, {}, ()),
        ({"gcd": "13r3q3l3l5"}, {"ad_storage": "granted", "analytics_storage": "denied"}, ()),
        ({"gcs": "G111", "gcd": "13q3l3l3l5"}, {"ad_storage": "denied", "analytics_storage": "granted"}, ()),
        ({"gcs": "G110", "ad_storage": "denied"}, {"ad_storage": "denied", "analytics_storage": "denied"}, ()),
        ({"gcs": "G1"}, {"ad_storage": "denied", "analytics_storage": "denied"}, (("consent.gcs", "unreadable"),)),
        ({"gcd": ["11"]}, dict.fromkeys(SIGNALS, "denied"), (("consent.gcd", "unreadable"),)),
    ],
)
def test_googles_parameters_become_signals_and_a_denial_in_any_counts(told, expected, drops):
    found = consented(told)

    assert found.event.get("consent", {}) == expected
    assert found.drops == drops


@pytest.mark.parametrize(
    ("categories", "expected"),
    [
        ({"C0004": True}, "granted"),
        ({"C0004": False}, "denied"),
        ({"C0002": True}, "denied"),
        ({}, "denied"),
        ("all", "denied"),
        (None, None),
    ],
)
def test_categories_become_signals_where_the_site_says_what_they_mean(categories, expected):
    found = consented({"analytics_storage": "granted", "categories": categories}, categories=CATEGORIES)

    told = found.event["consent"]
    assert (told.get("ad_storage"), told.get("ad_user_data")) == (expected, expected)


def test_a_category_cannot_grant_what_a_signal_denies():
    found = consented({"ad_storage": "denied", "categories": {"C0004": True}}, categories=CATEGORIES)

    assert found.event["consent"]["ad_storage"] == "denied"


@pytest.mark.parametrize(
    ("region", "expected", "drops"),
    [
        ("us-ca", "US-CA", ()),
        ("DE", "DE", ()),
        ("California", None, (("consent.region", "not_a_region"),)),
        (["US"], None, (("consent.region", "not_a_region"),)),
    ],
)
def test_the_place_where_somebody_was_asked_is_a_code(region, expected, drops):
    found = consented({"ad_storage": "granted", "region": region})

    assert found.event["consent"].get("region") == expected
    assert found.drops == drops


@pytest.mark.parametrize("consent", [{}, {"gpc": False}, {"ad_storage": "granted"}])
def test_global_privacy_control_in_the_browsers_request_counts_whatever_the_body_says(consent):
    found = consented(consent, gpc=True)

    assert found.event["consent"]["gpc"] is True


def test_nobody_but_us_says_that_an_event_is_limited():
    assert refusal_of({"consent": {"limited": True}}) == ("unknown_field", "consent.limited")


def test_a_signal_nobody_knows_is_refused():
    """It may be a misspelt denial."""
    assert refusal_of({"consent": {"ad_storge": "denied"}}) == ("unknown_field", "consent.ad_storge")


def test_unreadable_consent_of_ga4_is_not_absent():
    (found,) = run({"consent": "DENIED", "events": [{"name": "login", "params": {"event_id": "1"}}]}, "ga4")

    assert isinstance(found, Normalized)
    assert set(found.event["consent"].values()) == {"denied"}


# person


def test_what_cannot_be_normalised_is_dropped_and_counted():
    found = accepted(
        {
            "user": {
                "email": "nobody",
                "phone": "+12",
                "first_name": "---",
                "last_name": "x" * 501,
                "birth_date": "31.12.1999",
                "gender": "x",
                "country": "Germany",
            }
        }
    )

    assert set(found.drops) == {
        ("user.email", "not_an_email"),
        ("user.phone", "not_a_phone"),
        ("user.first_name", "empty"),
        ("user.last_name", "too_long"),
        ("user.birth_date", "not_a_date"),
        ("user.gender", "not_f_m_or_n"),
        ("user.country", "not_two_letters"),
    }
    assert set(found.event["user"]) == {"street", "city", "region", "postal_code", "user_id"}


@pytest.mark.parametrize(
    ("user", "site_country", "e164"),
    [
        ({"phone": "030 123456", "country": "DE"}, None, "+4930123456"),
        ({"phone": "030 123456"}, "DE", "+4930123456"),
        ({"phone": "212 555 0100", "country": "US"}, "DE", "+12125550100"),
        ({"phone": "0049 30 123456"}, None, "+4930123456"),
        ({"phone": 4930123456, "country": "DE"}, None, "+4930123456"),
        ({"phone": "030 123456"}, None, None),
    ],
)
def test_a_national_phone_is_read_by_the_persons_country_else_the_sites(user, site_country, e164):
    (found,) = run({"event_name": "login", "event_id": "1", "user": user}, country=site_country)

    assert isinstance(found, Normalized)
    if e164 is None:
        assert found.drops == (("user.phone", "no_country_code"),)
        assert "user" not in found.event
    else:
        assert found.event["user"]["phone"]["e164"] == sha(e164)


@pytest.mark.parametrize("field", identity.RULES)
def test_a_sha256_is_kept_as_given(field):
    assert event_of({"user": {field: f" {sha('x').upper()} "}}, keep={})["user"][field] == {"given": sha("x")}


@pytest.mark.parametrize("field", ["city", "region", "postal_code"])
def test_a_hash_of_a_place_is_kept_apart_from_what_is_clear(field):
    found = accepted(
        {"user": {"city": None, "region": None, "postal_code": None, field: f" {sha('berlin').upper()}.AQ"}}
    )

    assert found.event["user"]["places"] == {field: sha("berlin")}
    assert field not in found.event["user"]
    assert found.drops == ()


@pytest.mark.parametrize("field", ["city", "region", "postal_code"])
def test_the_hash_of_no_place_is_dropped_and_counted(field):
    found = accepted({"user": {field: sha("")}})

    assert "places" not in found.event["user"]
    assert found.drops == ((f"user.{field}", "empty"),)


def test_a_hashed_country_is_told_by_its_hash():
    assert accepted({"user": {"country": sha("de")}}).event["user"]["country"] == "DE"
    assert accepted({"user": {"country": sha("no country")}}).drops == (("user.country", "not_two_letters"),)


@pytest.mark.parametrize("field", ["city", "region", "postal_code"])
@pytest.mark.parametrize("value", ["ada@example.com", "Berlin, ada@example.com", "+49 30 123456", "ada%40example.com"])
def test_an_address_in_a_place_is_dropped_and_counted(field, value):
    found = accepted({"user": {field: value}})

    assert field not in found.event["user"]
    assert found.drops == ((f"user.{field}", "personal"),)


@pytest.mark.parametrize("field", ["city", "region", "postal_code"])
@pytest.mark.parametrize("value", ["0151 12345678", "Berlin, 030/1234567", "DE89370400440532013000"])
def test_a_number_of_a_person_in_a_place_is_dropped_and_counted(field, value):
    assert accepted({"user": {field: value}}).drops == ((f"user.{field}", "personal"),)


@pytest.mark.parametrize("field", ["event_id", "commerce.transaction_id", "ids.ga_client_id"])
def test_an_address_in_base64_is_no_id(field):
    *part, name = field.split(".")
    written = {name: base64.b64encode(b"ada@example.com").decode()}

    assert refusal_of({part[0]: written} if part else written) == ("personal_id", field)


def test_a_user_id_that_is_an_address_in_base64_is_hashed():
    written = base64.b64encode(b"ada@example.com").decode()

    assert event_of({"user": {"user_id": written}})["user"]["user_id"] == sha(written.lower())


@pytest.mark.parametrize("value", ["07001-1234", "01310-100", "SW1A 1AA", "00-950"])
def test_a_postal_code_is_no_phone_number(value):
    assert event_of({"user": {"postal_code": value}})["user"]["postal_code"] == value


@pytest.mark.parametrize(
    ("user_id", "expected"),
    [
        ("customer-7", "customer-7"),
        (7, "7"),
        (" Customer-7 ", "Customer-7"),
        ("Ada@Example.com", sha("ada@example.com")),
        ("+49 30 123456", sha("+4930123456")),
        ("0049 (0)30 123456", sha("+4930123456")),
        ("tel:+49-30-123456", sha("+4930123456")),
        ("Ada <ada@example.com>", sha("ada <ada@example.com>")),
        ("ada%40example.com", sha("ada%40example.com")),
        (sha("x"), sha("x")),
    ],
)
def test_a_user_id_with_an_address_is_hashed(user_id, expected):
    assert event_of({"user": {"user_id": user_id}})["user"]["user_id"] == expected


def test_only_the_wanted_variants_are_kept():
    keep = {"email": frozenset({"gmail"}), "phone": frozenset({"e164", "digits"}), "gender": frozenset[str]()}

    user = event_of({}, keep=keep)["user"]

    assert user["email"] == {"gmail": sha("ada.lovelace@example.com")}
    assert set(user["phone"]) == {"e164", "digits"}
    assert not {"gender", "first_name", "street"} & set(user)
    assert user["city"] == "Menlo Park"


def test_a_name_that_the_wanted_rule_leaves_nothing_of_is_counted():
    assert accepted({"user": {"first_name": "123"}}, keep={"first_name": frozenset({"letters"})}).drops == (
        ("user.first_name", "empty"),
    )


# context and ids


@pytest.mark.parametrize(
    ("ip", "expected"),
    [
        ("203.0.113.7", "203.0.113.7"),
        (" 203.0.113.7 ", "203.0.113.7"),
        ("2001:DB8:0::1", "2001:db8::1"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("2001:db8::1%eth0", "2001:db8::1"),
        ("203.0.113.7.AQ", "203.0.113.7"),  # with the mark of Meta's parameter builder
        ("2001:db8::1.AQYBAQAB", "2001:db8::1"),
    ],
)
def test_an_address_of_a_person_is_kept_in_its_usual_spelling(ip, expected):
    found = accepted({"context": {"ip": ip}})

    assert (found.event["context"]["ip"], found.drops) == (expected, ())


@pytest.mark.parametrize(
    ("ip", "reason"),
    [
        *((ip, "private") for ip in (
            "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "127.0.0.1", "169.254.1.1", "100.64.0.1", "0.0.0.0",
            "255.255.255.255", "224.0.0.1", "::1", "::", "fe80::1", "fe80::1%eth0", "fd00::1", "ff02::1", "::ffff:10.0.0.1",
            "::ffff:127.0.0.1",
        )),
        *((ip, "not_an_address") for ip in (
            "unknown", "203.0.113", "203.0.113.256", "203.0.113.7:80", "[2001:db8::1]", "203.0.113.7, 10.0.0.1", "1", "0x7f000001",
            "203.0.113.07", "203.0.113.7.1", "203.0.113.7.AQYB", " ", "%", "ada@example.com", "2001:db8::1%ada@example.com",
        )),
    ],
)  # fmt: skip
def test_an_address_that_says_nothing_is_dropped_and_counted(ip, reason):
    found = accepted({"context": {"ip": ip}})

    assert "ip" not in found.event["context"]
    assert found.drops == (("context.ip", reason),)


def test_long_texts_are_cut_and_control_characters_leave_the_agent():
    found = event_of(
        {"context": {"url": "https://x/" + "é" * 5000, "title": "t" * 5000, "user_agent": "a\x00b\nc" * 999}}
    )["context"]

    assert len(found["url"]) == 2000
    assert len(found["title"]) == 2000
    assert found["user_agent"] == ("abc" * 999)[:1000]


def test_an_address_is_redacted_before_a_text_is_cut():
    found = event_of({"context": {"url": "https://x/" + "y" * 1975 + "?e=ada.lovelace@example.com"}})["context"]

    assert "ada" not in found["url"]


def test_control_characters_hide_no_address_in_the_agent():
    assert event_of({"context": {"user_agent": "ada\x01@example.com"}})["context"]["user_agent"] == "[redacted]"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://x/?gclid=Ab-C_d", {"gclid": "Ab-C_d"}),
        ("https://x/?a=b&fbclid=IwAR0&ttclid=E.C.P.x#gclid=no", {"fbclid": "IwAR0", "ttclid": "E.C.P.x"}),
        ("https://x/?ScCid=1&sccid=2", {"sc_click_id": "1"}),
        ("https://x/?a=b&%67clid=1", {"gclid": "1"}),
        ("https://x/?msclkid=a%2Fb&twclid=2&li_fat_id=3&rdt_cid=4&epik=5&wbraid=6&gbraid=7",
         {"msclkid": "a/b", "twclid": "2", "li_fat_id": "3", "rdt_cid": "4", "epik": "5", "wbraid": "6", "gbraid": "7"}),
        ("https://x/?gclid=", {}),
        ("https://x/?gclid=undefined", {}),
        ("https://x/?gclid=null", {}),
        ("https://[/?gclid=1", {}),
        ("gclid=1", {}),
        ("?gclid=1", {"gclid": "1"}),
        pytest.param("https://x/?" + "a=1&" * 10_000 + "gclid=1", {"gclid": "1"}, id="long"),
    ],
)  # fmt: skip
def test_click_ids_are_found_in_the_url(url, expected):
    assert event_of({"context": {"url": url}, "ids": None}).get("ids", {}) == expected


def test_a_click_id_that_was_told_wins_over_the_urls_and_nothing_does_not():
    url: Json = {"url": "https://x/?gclid=url&fbclid=url"}

    assert event_of({"context": url, "ids": {"gclid": "told", "fbclid": "undefined"}})["ids"]["gclid"] == "told"
    assert event_of({"context": url, "ids": {"gclid": "told", "fbclid": "undefined"}})["ids"]["fbclid"] == "url"


@pytest.mark.parametrize(
    ("query", "drop"),
    [
        ("gclid=ada%40example.com", ("ids.gclid", "personal")),
        ("gclid=a%0Ab", ("ids.gclid", "malformed")),
        ("fbclid=a%00", ("ids.fbclid", "malformed")),
    ],
)
def test_a_click_id_of_the_url_must_be_one_too(query, drop):
    found = accepted({"context": {"url": "https://x/?" + query}})

    assert drop in found.drops
    assert "gclid" not in found.event["ids"]


@pytest.mark.parametrize("name", [name for name in Ids.__annotations__ if name != "ga_client_id"])
@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("a\nb", "malformed"),
        ("x" * 1001, "malformed"),
        ("ada@example.com", "personal"),
        ("x ada%40example.com", "personal"),
        ("+4930123456", "personal"),
    ],
)
def test_an_id_of_a_platform_that_is_none_is_dropped_and_counted(name, value, reason):
    found = accepted({"ids": {name: value}, "context": {"url": None}})

    assert name not in found.event["ids"]
    assert found.drops == ((f"ids.{name}", reason),)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("GA1.1.123.456", "123.456"),
        ("GA1.1.004930.1699999999", "004930.1699999999"),
        ("GA1.2.123.456", "123.456"),
        ("123.456", "123.456"),
        ("any text", "any text"),
        ("GA1.1.", None),
    ],
)
def test_the_ga_cookie_loses_its_prefix(value, expected):
    assert event_of({"ids": {"ga_client_id": value}})["ids"].get("ga_client_id") == expected


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("ga_client_id", "GA1.2-2.1234567890.1699999999", "1234567890.1699999999"),
        ("ga_session_id", "GS1.1.1700000000.3.1.1700000100.0.0.0", "1700000000"),
        ("ga_session_id", "GS2.1.s1700000000$o3$g1$t1700000100$j60$l0$h0", "1700000000"),
        ("ga_session_id", "1700000000", "1700000000"),
        ("gclid", "GCL.1700000000.Cj0K-Case_Kept", "Cj0K-Case_Kept"),
        ("gclid", "Cj0K-Case_Kept", "Cj0K-Case_Kept"),
        ("msclkid", "_uet0a1b2c", "0a1b2c"),
        ("fbc", "fb.1.1795410000000.AbCdEf", "fb.1.1795410000000.AbCdEf"),
    ],
)
def test_a_back_end_may_hand_on_a_cookie_as_it_is(name, value, expected):
    assert event_of({"ids": {name: value}, "context": {"url": None}})["ids"][name] == expected


@pytest.mark.parametrize("value", ["ada@example.com", "GA1.1.ada@example.com", "ada%40example.com", "+49 30 123456"])
def test_a_client_id_that_is_an_address_is_refused(value):
    assert refusal_of({"ids": {"ga_client_id": value}}) == ("personal_id", "ids.ga_client_id")


# custom


@pytest.mark.parametrize(
    ("custom", "expected"),
    [
        ({"a": 1, "b": 1.5, "c": True, "d": "x", "e": ""}, {"a": 1, "b": 1.5, "c": True, "d": "x", "e": ""}),
        ({"a": None, "b": {"c": None}}, {}),
        ({"a": {"b": {"c": 1}, "d": 2}}, {"a.b.c": 1, "a.d": 2}),
        ({"a": [1, [2, None], {"b": None, "c": 3}], "d": []}, {"a": '[1,[2],{"c":3}]', "d": "[]"}),
        ({"note": "to ada@example.com"}, {"note": "to [redacted]"}),
        ({"ada@example.com": 1}, {"[redacted]": 1}),
        ({"ada@example": {"com": 1}}, {"[redacted]": 1}),
        (
            {"a": ["ada@example.com", {"eva@example.com": "x\nada@example.com"}]},
            {"a": '["[redacted]",{"[redacted]":"x\\n[redacted]"}]'},
        ),
        ({"phone": "+49 30 123456"}, {"phone": "[redacted]"}),
    ],
)
def test_own_data_becomes_scalars_without_addresses(custom, expected):
    (found,) = run({"event_name": "login", "event_id": "1", "custom": custom})

    assert isinstance(found, Normalized)
    assert found.event.get("custom", {}) == expected


@pytest.mark.parametrize(
    ("custom", "masked", "dropped"),
    [
        ({"first_name": "Ada", "plan": "gold"}, {"first_name": "[redacted]", "plan": "gold"}, {"plan": "gold"}),
        ({"customer": {"name": "Ada", "tier": 1}}, {"customer.name": "[redacted]", "customer.tier": 1}, {"customer.tier": 1}),
        ({"note": "call 030 1234567"}, {"note": "call [redacted]"}, {}),
        ({"phone": 4930123456}, {"phone": "[redacted]"}, {}),
        ({"emails": ["a", "b"]}, {"emails": '["[redacted]","[redacted]"]'}, {"emails": "[]"}),
        ({"a": [{"dob": "1987-06-05", "n": 1}]}, {"a": '[{"dob":"[redacted]","n":1}]'}, {"a": '[{"n":1}]'}),
        ({"n": 4111111111111111, "m": 4111111111111112}, {"n": "[redacted]", "m": 4111111111111112}, {"m": 4111111111111112}),
        ({"iban": "x", "email": True}, {"iban": "[redacted]", "email": True}, {"email": True}),
        ({"+49 30 123456": 1}, {"[redacted]": 1}, {"[redacted]": 1}),
    ],
)  # fmt: skip
def test_a_persons_data_among_own_data_is_masked_or_dropped(custom, masked, dropped):
    event = {"event_name": "login", "event_id": "1", "custom": custom}

    (one,), (other,) = run(event), run(event, redact="drop")

    assert isinstance(one, Normalized)
    assert isinstance(other, Normalized)
    assert one.event["custom"] == masked
    assert other.event.get("custom", {}) == dropped


@pytest.mark.parametrize("how", ["mask", "drop"])
def test_what_is_taken_out_of_free_text_is_counted_once_for_each_field(how):
    found = accepted(
        {
            "context": {"url": "https://shop.example/?first_name=Ada", "title": "Hello +49 30 123456"},
            "commerce": {"search_term": "ada@example.com", "items": [{"item_name": "for 0171 1234567"}] * 2},
            "custom": {"a": "ada@example.com", "b": "ada@example.com"},
        },
        redact=how,
    )

    assert found.drops == (
        ("commerce.items.item_name", "personal"),
        ("commerce.search_term", "personal"),
        ("context.url", "personal"),
        ("context.title", "personal"),
        ("custom", "personal"),
    )


@pytest.mark.parametrize(
    ("draft", "place"),
    [
        ({"tags": {"ada@example.com": {"ran": True}}}, "tags"),
        ({"tags": {"meta": {"event_id": "ada@example.com"}}}, "tags"),
        ({"consent": {"categories": {"ada@example.com": True}}}, "consent.categories"),
        ({"context": {"user_agent": "Mozilla/5.0 ada@example.com"}}, "context.user_agent"),
        ({"context": {"language": "0171 1234567"}}, "context.language"),
        ({"commerce": {"list_id": "YWRhQGV4YW1wbGUuY29t"}}, "commerce.list_id"),
        ({"custom": {"a": {"ada@example.com": {"ada@example.com": 1}}}}, "custom"),
    ],
)
def test_what_is_taken_out_where_an_id_or_a_name_stands_is_counted(draft, place):
    found = accepted(draft)

    assert found.drops == ((place, "personal"),)
    text = str(found.event)
    assert "[redacted]" in text
    assert not any(one in text for one in ("ada@", "0171", "YWRh"))


def test_what_is_dropped_leaves_the_rest_of_its_part():
    event = event_of(
        {
            "context": {"title": "Hello +49 30 123456"},
            "commerce": {
                "search_term": "0171 1234567",
                "items": [{"item_id": "1", "item_name": "for ada@example.com"}],
            },
        },
        redact="drop",
    )

    assert "title" not in event["context"]
    assert "search_term" not in event["commerce"]
    assert event["commerce"]["items"] == [{"item_id": "1"}]
    assert event["commerce"]["value"] == 59.98


@pytest.mark.parametrize(
    ("kept", "url"),
    [
        ("full", "https://shop.example.com/thanks?gclid=Cj0K-x_y&utm_source=x"),
        ("path", "https://shop.example.com/thanks?utm_source=x"),
        ("origin", "https://shop.example.com/?utm_source=x"),
    ],
)
def test_of_page_addresses_as_much_is_kept_as_the_settings_say_and_click_ids_are_read_before(kept, url):
    event = event_of({"context": {"referrer": "https://search.example/?q=x"}}, url=kept)

    assert event["context"]["url"] == url
    assert event["context"]["referrer"].startswith("https://search.example/")
    assert ("?q=x" in event["context"]["referrer"]) is (kept == "full")
    assert event["ids"]["gclid"] == "Cj0K-x_y"


def test_ids_of_a_catalogue_are_not_taken_for_phone_numbers_or_cards():
    items = [{"item_id": "030 1234567"}, {"item_id": "4111111111111111"}]

    assert event_of({"commerce": {"items": items}})["commerce"]["items"] == items


def test_a_name_of_an_event_with_a_phone_number_is_refused():
    assert refusal_of({"event_name": "call 030 1234567"}) == ("personal_id", "event_name")


@pytest.mark.parametrize("value", ["5d41402abc4b2a76b9719d911017c592", "A" * 40])
def test_a_hash_that_no_platform_takes_is_dropped_and_counted(value):
    found = accepted({"user": {"first_name": value, "email": value}})

    assert not {"first_name", "email"} & set(found.event["user"])
    assert set(found.drops) == {("user.first_name", "another_hash"), ("user.email", "another_hash")}


# wrong types, unknown fields, sizes


@pytest.mark.parametrize("part", ["user", "context", "ids", "commerce", "tags", "labels", "custom"])
@pytest.mark.parametrize("value", ["ada@example.com", 5, True, [{"x": 1}], [[]], 1.5])
def test_a_part_of_the_wrong_type_is_refused_by_name(part, value):
    reason, field = refusal_of({**DRAFT, part: value})

    assert reason == "wrong_type"
    assert field.split(".")[0] == part


def every_field() -> list[str]:
    return [
        f"{part}.{name}"
        for part in ("user", "context", "commerce")
        for name in DRAFT[part]
        if name not in ("items", "coupon")
    ]


@pytest.mark.parametrize("field", every_field())
@pytest.mark.parametrize("value", [{"ada@example.com": 1}, ["ada@example.com"]])
def test_a_field_of_the_wrong_type_is_refused_by_its_path(field, value):
    part, name = field.split(".")

    assert refusal_of({**DRAFT, part: {**DRAFT[part], name: value}}) == ("wrong_type", field)


@pytest.mark.parametrize(
    ("overrides", "field"),
    [
        ({"oops": 1}, "oops"),
        ({"user": {"e_mail": 1}}, "user.e_mail"),
        ({"commerce": {"items": [{}, {"sku": 1}]}}, "commerce.items.1.sku"),
        ({"tags": {"meta": {"id": 1}}}, "tags.meta.id"),
        ({"ids": {"gclid2": 1}}, "ids.gclid2"),
        ({"context": {"größe": 1}}, "context.größe"),
        ({"v": 1}, "v"),
        ({"origin": {}}, "origin"),
        ({"received": 1}, "received"),
        ({"revision": 1}, "revision"),
        # what may be somebody's name, address or number is not repeated
        ({"ada@example.com": 1}, "[redacted]"),
        ({"user": {"ada@example.com": 1}}, "user.[redacted]"),
        ({"user": {"ada%40example.com": 1}}, "user.[redacted]"),
        ({"user": {"+49 30 123456": 1}}, "user.[redacted]"),
        ({"user": {"4930123456": 1}}, "user.[redacted]"),
        ({"user": {"tel4930123456": 1}}, "user.[redacted]"),
        ({"user": {"Ada Lovelace": 1}}, "user.[redacted]"),
        ({"user": {"x" * 65: 1}}, "user.[redacted]"),
        ({"user": {"a\nb": 1}}, "user.[redacted]"),
        ({"user": {"": 1}}, "user.[redacted]"),
        ({"tags": {"ada@example.com": {"id": 1}}}, "tags.[redacted].id"),
        ({"ids": {"ada@example.com": 1e300}}, "[redacted]"),
    ],
)
def test_an_unknown_field_is_refused_by_its_path(overrides, field):
    reason, found = refusal_of(overrides)

    assert (reason, found) == (
        "wrong_type" if overrides.get("ids") == {"ada@example.com": 1e300} else "unknown_field",
        field,
    )


def test_an_event_of_60_kb_is_too_large_however_large_it_is():
    fits = event_of({"custom": {"x": "a" * (MAX_BYTES - 5000)}})

    assert fits["custom"]["x"] == "a" * (MAX_BYTES - 5000)
    for n in (MAX_BYTES, 10_000_000):
        assert refusal_of({"custom": {"x": "a" * n}}) == ("too_large", "")
    assert refusal_of({"custom": {"x": ["a"] * 100_000}}) == ("too_large", "")
    assert refusal_of({"labels": [str(i) for i in range(20_000)]}) == ("too_large", "")
    assert refusal_of({"commerce": {"items": [{"item_id": "x"}] * 10_000}}) == ("too_large", "")


def test_names_of_objects_inside_each_other_take_no_more_than_an_event_may_have():
    own: Json = {f"leaf{n}": 1 for n in range(2_000)}  # each under the names of all objects around it
    for _ in range(10):
        own = {"n" * 1_000: own}

    tracemalloc.start()
    try:
        assert refusal_of({"custom": own}) == ("too_large", "")
        assert tracemalloc.get_traced_memory()[1] < 20 * MAX_BYTES  # the names would be 20 MB
    finally:
        tracemalloc.stop()


def test_of_own_data_no_more_is_looked_at_than_an_event_may_have(monkeypatch):
    looked_at = list[str]()
    look = redaction.masked

    def masked(text: str) -> str:
        looked_at.append(text)
        return look(text)

    monkeypatch.setattr(redaction, "masked", masked)

    assert refusal_of({"custom": {"texts": ["a@b."] * 200_000}}) == ("too_large", "")
    assert refusal_of({"custom": {"text": "a@b." * 200_000}}) == ("too_large", "")

    assert sum(map(len, looked_at)) < 2 * MAX_BYTES


def nested(levels: int, kind: str) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value] if kind == "list" else {"a": value}
    return value


@pytest.mark.parametrize("kind", ["list", "object"])
@pytest.mark.parametrize("levels", [100, 260, 900, 5000])
@pytest.mark.parametrize("place", ["custom", "user", "commerce", "consent", "tags", "labels", "oops"])
def test_deep_nesting_is_refused(kind, levels, place):
    (result,) = run({**DRAFT, place: {"x": nested(levels, kind)}})

    assert result == Refused("too_deep", "", "nested too deeply")


def test_some_nesting_is_fine():
    assert event_of({"custom": {"x": nested(50, "object")}})["custom"]["x" + ".a" * 50] == 1


@pytest.mark.parametrize("format_name", [name for name in FORMATS if name != "gtag"])  # whose hits are flat
@pytest.mark.parametrize("levels", [100, 260, 900])
@pytest.mark.parametrize(("begin", "end"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_deep_nesting_is_refused_in_every_format(format_name, levels, begin, end):
    body = {
        "capistream": b'{"event_name":"x","event_id":"1","custom":{"x":DEEP}}',
        "segment": b'{"type":"track","event":"x","messageId":"1","properties":{"x":DEEP}}',
        "meta": b'{"event_name":"x","event_id":"1","custom_data":{"x":DEEP}}',
        "ga4": b'{"timestamp_micros":1795428000000000,"events":[{"name":"x","params":{"x":DEEP}}]}',
        "map": b'{"state":"x","number":"1","more":{"x":DEEP}}',
    }[format_name].replace(b"DEEP", begin * levels + b"1" + end * levels)

    (result,) = normalize_bytes(body, inlet(format_name), RECEIVED, ORIGIN)

    assert isinstance(result, Refused)
    assert result.reason == ("bad_mapping" if format_name == "map" and levels > 250 else "too_deep")


# settings


def config(**source: Any) -> tuple[Settings, SourceTopic]:
    site: Json = {"write_key": "wk-12345678", "secret_key": {"env": "SECRET"}, "country": "DE"}
    topic: Json = {"topic": "orders", "format": "segment", "site": "shop", "source": "crm", **source}
    found = Settings.model_validate(
        {"sites": {"shop": site}, "sources": {"orders": topic}, "worker": {"keep_variants": "all"}}
    )
    return found, found.sources["orders"]


def test_an_inlet_follows_from_the_settings():
    settings, topic = config(minor_units=True, time_zone="Europe/Berlin")

    assert inlet_of(settings, "orders", topic) == Inlet(
        "orders", "segment", "shop", "crm", country="DE", minor_units=True, time_zone="Europe/Berlin", keep=None
    )


def test_a_source_may_treat_personal_data_otherwise_than_its_site():
    settings, topic = config()
    strict = settings.sites["shop"].model_copy(update={"redact": "drop", "url": "origin"})
    settings = settings.model_copy(update={"sites": {"shop": strict}})

    one = inlet_of(settings, "orders", topic)
    other = inlet_of(settings, "orders", topic.model_copy(update={"redact": "mask", "url": "path"}))

    assert (one.redact, one.url) == ("drop", "origin")
    assert (other.redact, other.url) == ("mask", "path")


@pytest.mark.parametrize(
    "zone", ["Europe/Berlinn", "", "Europe", "../../etc/passwd", "/etc/passwd", "CEST+1", "x" * 500, "a\x00b"]
)
def test_a_time_zone_that_is_none_is_found_at_the_start(zone):
    settings, topic = config()

    with pytest.raises(SettingsError, match=r"^sources\.orders\.time_zone: "):
        inlet_of(settings, "orders", topic.model_copy(update={"time_zone": zone}))


# whatever comes


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=12),
    st.sampled_from(
        (
            "ada@example.com",
            "+4930123456",
            "0",
            "undefined",
            "1e999",
            "9" * 40,
            "2026-11-23T10:00:00",
            "granted",
            "EUR",
            "\x1f",
            "\x00",
            "%",
        )
    ),
)
NAMES = st.one_of(
    st.text(max_size=6),
    st.sampled_from(
        (
            *DRAFT,
            *DRAFT["user"],
            *DRAFT["context"],
            *DRAFT["commerce"],
            *DRAFT["consent"],
            "batch",
            "data",
            "specversion",
            "events",
            "event",
            "type",
            "properties",
            "traits",
            "products",
            "timestamp",
            "messageId",
            "user_data",
            "em",
            "custom_data",
            "contents",
            "content_ids",
            "params",
            "name",
            "address",
            "categoryPreferences",
            "categories",
            "ada@example.com",
        )
    ),
)
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4), max_leaves=12
)
BODIES: dict[str, Json] = {
    "capistream": DRAFT,
    "segment": {
        "type": "track",
        "event": "Order Completed",
        "messageId": "m1",
        "userId": "u1",
        "timestamp": "2026-11-23T09:59:59Z",
        "context": {
            "ip": "203.0.113.7",
            "page": {"url": "https://x/?gclid=1"},
            "traits": DRAFT["user"],
            "consent": DRAFT["consent"],
        },
        "properties": {
            **DRAFT["commerce"],
            "order_id": "1001",
            "products": [{"product_id": "1", "price": "5.00", "quantity": 1}],
        },
    },
    "meta": {
        "data": [
            {
                "event_name": "Purchase",
                "event_time": RECEIVED // 1000,
                "event_id": "1",
                "action_source": "website",
                "user_data": {"em": ["ada@example.com"], "ph": "+15550100199", "fn": [sha("ada")], "ct": sha("x")},
                "custom_data": {
                    "value": 5,
                    "currency": "EUR",
                    "order_id": "1",
                    "contents": [{"id": "1", "quantity": 1}],
                },
            }
        ]
    },
    "ga4": {
        "client_id": "1.2",
        "timestamp_micros": RECEIVED * 1000,
        "consent": {"ad_user_data": "GRANTED"},
        "user_data": {"sha256_email_address": [sha("x")], "address": [{"city": "x"}]},
        "events": [
            {"name": "purchase", "params": {"value": 5, "currency": "EUR", "items": [{"item_id": "1", "price": 5}]}}
        ],
    },
    "gtag": {
        "query": "v=2&tid=G-ABC1234567&cid=1.2&sid=1795420000&dl=https%3A%2F%2Fx%2F%3Fgclid%3D1&gcs=G111&gcd=13r3r3r3r5",
        "lines": "en=page_view\r\nen=purchase&epn.value=5&cu=EUR&pr1=id1~nmShirt~pr5~qt1&ep.user_data.email_address=a%40x.example",
    },
    "map": ORDER,
}


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of everything in it."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for name, one in inner for found in places(one, (*path, name)))]


def replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    result = copy.copy(value)
    result[path[0]] = replaced(value[path[0]], path[1:], new)
    return result


PLACES = {name: places(body) for name, body in BODIES.items()}


def check(results: list[Result]) -> None:
    """What holds for every body: known results, valid events that can be written, texts without values."""
    assert results
    for result in results:
        if isinstance(result, Normalized):
            EVENT.validate_python(result.event, strict=True)
            assert orjson.loads(orjson.dumps(result.event)) == result.event
            assert all(isinstance(field, str) and isinstance(reason, str) for field, reason in result.drops)
            assert "ada@example.com" not in repr(result).lower()
        elif isinstance(result, Refused):
            assert result.reason.isidentifier()
            assert "ada@" not in repr(result)
        else:
            assert isinstance(result, Ignored)


@pytest.mark.parametrize("format_name", FORMATS)
@settings(max_examples=150)
@given(body=JSON)
def test_no_json_is_more_than_refused(format_name, body):
    check(run(body, format_name))


@pytest.mark.parametrize("format_name", FORMATS)
@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_a_valid_body_with_something_else_in_one_place_does_no_harm(format_name, data):
    path = data.draw(st.sampled_from(PLACES[format_name]))

    check(run(replaced(BODIES[format_name], path, data.draw(JSON)), format_name))


@pytest.mark.parametrize("format_name", FORMATS)
@settings(max_examples=60)
@given(data=st.data())
def test_a_valid_body_with_something_more_in_one_place_does_no_harm(format_name, data):
    def at(path):
        value: Any = BODIES[format_name]
        for part in path:
            value = value[part]
        return value

    path = data.draw(st.sampled_from([p for p in PLACES[format_name] if isinstance(at(p), dict)]))
    more = data.draw(st.dictionaries(NAMES, JSON, max_size=2))

    check(run(replaced(BODIES[format_name], path, {**at(path), **more}), format_name))


EXACT: Json = DRAFT | {
    "ids": DRAFT["ids"] | {"lead_id": "12345678901234567"},
    "commerce": DRAFT["commerce"] | {"value": 60, "transaction_id": "1001"},
    "consent": {"ad_storage": "granted", "gpc": False, "categories": {"C0004": True}},
    "custom": {"a": [1, None, {"b": 2}]},
}


@settings(max_examples=300)
@given(data=st.data())
def test_what_is_read_in_one_go_is_what_is_read_step_by_step(data):
    raw = replaced(EXACT, data.draw(st.sampled_from([place for place in places(EXACT) if place])), data.draw(JSON))
    raw |= data.draw(st.dictionaries(NAMES, JSON, max_size=1))

    exact = plain.draft(copy.deepcopy(raw))
    if exact and "custom" in exact:
        exact["custom"] = normalize._without_nulls(exact["custom"])

    assert exact is None or exact == normalize._validated(normalize._without_nulls(raw))


FLAT: Json = EXACT | {"custom": {"x": 1}}  # nothing is nested in own data


def parsed(body: bytes) -> list[Result]:
    try:
        return normalize.normalize(normalize.parse(body), inlet(), RECEIVED, ORIGIN)
    except BadEvent as exc:
        return [Refused(exc.reason, exc.field, exc.detail)]


@settings(max_examples=300)
@given(data=st.data())
def test_bytes_that_are_read_in_one_go_are_the_same_events_as_those_that_are_parsed(data):
    raw = replaced(FLAT, data.draw(st.sampled_from([place for place in places(FLAT) if place])), data.draw(JSON))
    raw |= data.draw(st.dictionaries(NAMES, JSON, max_size=1))
    body = orjson.dumps(data.draw(st.sampled_from((raw, {"batch": [FLAT, raw]}, {"batch": [raw], "site": "shop"}))))

    results = normalize_bytes(body, inlet(), RECEIVED, ORIGIN)

    assert results == parsed(body)
    assert repr(results) == repr(parsed(body))  # 1 is 1.0, and 1 is True


@pytest.mark.parametrize("field", ["event_id", "user.user_id", "commerce.value", "custom.x", "time"])
@pytest.mark.parametrize(
    "number", ["9007199254740993", "9" * 19, "9" * 30, "1" + "0" * 15, "-5", "1e400", "1.0", "0.1e1"]
)
def test_numbers_of_any_size_are_read_in_one_go_as_they_are_parsed(field, number):
    body = orjson.dumps(replaced(FLAT, tuple(field.split(".")), "NUMBER")).replace(b'"NUMBER"', number.encode())

    assert repr(normalize_bytes(body, inlet(), RECEIVED, ORIGIN)) == repr(parsed(body))


@pytest.mark.parametrize("body", [FLAT, {"batch": [FLAT, FLAT]}])
def test_what_programs_send_as_a_rule_is_read_in_one_go(body):
    assert isinstance(normalize.read(orjson.dumps(body), inlet()), Plain)
    assert plain.draft(EXACT)


def test_a_source_that_maps_or_filters_needs_what_was_sent():
    rules = reading.rules({}, "event_name == 'purchase'")

    assert normalize.read(orjson.dumps(FLAT), inlet(rules=rules)) == FLAT


@pytest.mark.parametrize(
    "more",
    [
        {"x": 1},
        {"user": {"x": 1}},
        {"commerce": {"items": [{"x": 1}]}},
        {"tags": {"meta": {"x": 1}}},
        {"consent": {"x": "granted"}},
        {"time": None},
    ],
)
def test_what_is_not_known_or_nothing_is_not_read_in_one_go(more):
    assert plain.draft(EXACT | more) is None
    assert plain.read(orjson.dumps(FLAT | more)) is None


@settings(max_examples=150)
@given(st.binary(max_size=60) | JSON.map(orjson.dumps), st.sampled_from(tuple(FORMATS)))
def test_no_bytes_are_more_than_refused(value, format_name):
    check(normalize_bytes(value, inlet(format_name), RECEIVED, ORIGIN))


@pytest.mark.parametrize("format_name", FORMATS)
@pytest.mark.parametrize("value", [None, "", 0, False, [], {}, [None], [[]], [{}], {"": ""}, "x", 10**18, -1, "\x00"])
def test_no_odd_value_in_any_place_does_harm(format_name, value):
    for path in PLACES[format_name]:
        check(run(replaced(BODIES[format_name], path, value), format_name))


@pytest.mark.parametrize("format_name", FORMATS)
def test_normalising_twice_is_the_same(format_name):
    assert run(copy.deepcopy(BODIES[format_name]), format_name) == run(BODIES[format_name], format_name)


# P4: no clear personal data

PERSON = {
    "email": "Zyxadora.Qwmarker+shop@Leak-Test.example",
    "phone": "+4915112345678",
    "first_name": "Zyxadora",
    "last_name": "Qwmarker",
    "birth_date": "1987-06-05",
    "street": "Zyxallee 4711",
}
TRACES = ("zyxadora", "qwmarker", "leak-test", "15112345678", "1987-06-05", "19870605", "zyxallee")


def assert_nothing_clear(results: list[Result]) -> None:
    for result in results:
        said = repr(dataclasses.asdict(result)).lower()
        said += orjson.dumps(result.event).decode().lower() if isinstance(result, Normalized) else ""
        assert [trace for trace in TRACES if trace in said] == []


PERSONS: dict[str, Json] = {
    "map": {
        **ORDER,
        "customer": {
            "mail": PERSON["email"],
            "tel": PERSON["phone"],
            "name": [PERSON["first_name"], PERSON["last_name"]],
            "born": PERSON["birth_date"],
            "street": PERSON["street"],
        },
        "more": {"note": f"to {PERSON['email']}"},
    },
    "capistream": merged(DRAFT, {"user": PERSON}),
    "segment": merged(
        BODIES["segment"],
        {
            "properties": {"email": PERSON["email"]},
            "context": {
                "traits": {
                    "email": PERSON["email"],
                    "phone": PERSON["phone"],
                    "firstName": "Zyxadora",
                    "lastName": "Qwmarker",
                    "birthday": PERSON["birth_date"],
                    "address": {"street": PERSON["street"]},
                }
            },
        },
    ),
    "meta": {
        "event_name": "Purchase",
        "event_id": "1",
        "user_data": {
            "em": [PERSON["email"]],
            "ph": PERSON["phone"],
            "fn": "Zyxadora",
            "ln": ["Qwmarker"],
            "db": PERSON["birth_date"],
            "external_id": PERSON["email"],
        },
        "custom_data": {"order_id": "1"},
    },
    "ga4": {
        "client_id": "1.2",
        "user_id": PERSON["email"],
        "timestamp_micros": RECEIVED * 1000,
        "user_data": {
            "sha256_email_address": PERSON["email"],
            "sha256_phone_number": [PERSON["phone"]],
            "address": {
                "sha256_first_name": "Zyxadora",
                "sha256_last_name": "Qwmarker",
                "sha256_street": PERSON["street"],
            },
        },
        "events": [{"name": "login", "params": {"page_location": f"https://x/?e={PERSON['email']}"}}],
    },
    "gtag": {
        "query": urlencode({"v": "2", "cid": "1.2", "uid": PERSON["email"], "dl": f"https://x/?e={PERSON['email']}"}),
        "lines": urlencode(
            {
                "en": "login",
                "ep.user_data.email": PERSON["email"],
                "ep.user_data.phone_number": PERSON["phone"],
                "ep.user_data.address.first_name": "Zyxadora",
                "ep.user_data.address.0.last_name": "Qwmarker",
                "ep.user_data.address.street": PERSON["street"],
                "ep.user_data.born": PERSON["birth_date"],
                "ep.note": f"to {PERSON['email']}",
            }
        ),
    },
}


@pytest.mark.parametrize("format_name", FORMATS)
def test_a_person_leaves_nothing_clear(format_name):
    results = run(PERSONS[format_name], format_name)

    assert all(isinstance(result, Normalized) for result in results)
    assert_nothing_clear(results)


@pytest.mark.parametrize("field", [*PERSON, "gender", "user_id", "country", "city", "region", "postal_code"])
def test_an_email_in_any_field_of_the_person_leaves_nothing_clear(field):
    for written in (
        PERSON["email"],
        f"Zyxadora <{PERSON['email']}>",
        quote(PERSON["email"]),
        f"\t{PERSON['email']}\n",
        PERSON["phone"],
    ):
        assert_nothing_clear([result_of({"user": {field: written}})])


@pytest.mark.parametrize("field", PERSON)
@settings(max_examples=40)
@given(
    before=st.sampled_from(("", " ", "x", "\x00", "'", "<")),
    after=st.sampled_from(("", " ", "?", "\x00", ">", ", and more")),
)
def test_what_is_refused_or_hashed_of_a_person_leaves_nothing_clear(field, before, after):
    assert_nothing_clear([result_of({"user": {field: before + PERSON[field] + after}})])


@pytest.mark.parametrize("format_name", FORMATS)
@pytest.mark.parametrize(
    "written",
    [
        "{}", " {} ", "https://shop.example/?email={}&x=1", "Ada <{}>", "/a;b='{}'", '{{"email":"{}"}}', "user\n{}\nuser", "„{}“",
        "https://{}/", "mailto:{}?subject=x",
    ],
)  # fmt: skip
@pytest.mark.parametrize("encode", [str, quote, lambda text: quote(quote(text)), str.upper])
def test_an_email_in_any_text_of_a_body_leaves_nothing_clear(format_name, written, encode):
    email = written.format(encode(PERSON["email"]))

    for path in PLACES[format_name]:
        assert_nothing_clear(run(replaced(BODIES[format_name], path, email), format_name))


@pytest.mark.parametrize("format_name", FORMATS)
def test_an_email_as_any_name_in_a_body_leaves_nothing_clear(format_name):
    for path in PLACES[format_name]:
        for value in (1, "x", {"x": 1}, True, ["x"], 1e300):
            planted = {PERSON["email"]: value}
            assert_nothing_clear(run(replaced(BODIES[format_name], path, planted), format_name))
            assert_nothing_clear(run(replaced(BODIES[format_name], path, {"x": planted}), format_name))
            assert_nothing_clear(run(replaced(BODIES[format_name], path, [planted]), format_name))


@settings(max_examples=60)
@given(
    email=st.from_regex(r"zyxadora[a-z0-9._+-]{0,10}@[a-z]{1,8}\.(com|de|co\.uk)", fullmatch=True),
    around=st.tuples(st.text(max_size=8), st.text(max_size=8)),
    place=st.sampled_from(("url", "referrer", "title", "language", "user_agent")),
)
def test_an_email_between_any_characters_of_the_context_is_redacted(email, around, place):
    for written in (email, quote(email, safe="")):
        (result,) = run({"event_name": "x", "event_id": "1", "context": {place: f"{around[0]} {written} {around[1]}"}})

        assert_nothing_clear([result])


def test_neither_cause_nor_context_of_a_refusal_holds_a_value():
    with pytest.raises(BadEvent) as refused:
        normalize._validated({"event_name": "x", "user": {"email": {"x": "ada@example.com"}}})
    assert refused.value.__suppress_context__
    assert "ada" not in str(refused.value)
