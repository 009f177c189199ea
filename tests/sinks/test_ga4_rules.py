"""Whatever the event: a body that sinks/ga4.py makes breaks no rule of the Measurement Protocol.

GA4 answers 204 to what it then drops in silence, so the rules are written down here a second time, from Google's reference and not
from the sink: https://developers.google.com/analytics/devguides/collection/protocol/ga4/reference
"""

import copy
import math
import re
from collections.abc import Callable, Iterator
from typing import Any

import orjson
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from app.events import CANONICAL_NAMES, Event, Json
from sinks._base import Payload
from sinks.ga4 import Ga4, Settings
from tests.factories import encode, events, make_event, sha

SINK = {"sink": "ga4", "measurement_id": "G-ABC123XYZ", "api_secret": {"env": "GA4_SECRET"}, "browser_tag": "none"}
HOUR = 3600
MICROS = 1_000_000

RESERVED_EVENTS = {
    "ad_activeview",
    "ad_click",
    "ad_exposure",
    "ad_impression",
    "ad_query",
    "adunit_exposure",
    "app_clear_data",
    "app_install",
    "app_remove",
    "app_update",
    "error",
    "first_open",
    "first_visit",
    "in_app_purchase",
    "notification_dismiss",
    "notification_foreground",
    "notification_open",
    "notification_receive",
    "os_update",
    "screen_view",
    "session_start",
    "user_engagement",
}
RESERVED_PREFIXES = ("_", "firebase_", "ga_", "google_", "gtag.")
RESERVED_PROPERTIES = {
    "first_open_time",
    "first_visit_time",
    "first_open_after_install",
    "last_deep_link_referrer",
    "user_id",
}
TOP = {
    "client_id",
    "user_id",
    "timestamp_micros",
    "user_properties",
    "user_data",
    "consent",
    "user_location",
    "ip_override",
    "device",
    "user_agent",
    "validation_behavior",
    "events",
}
LONGER = {"page_title": 300, "page_referrer": 420, "page_location": 1000}
ITEM_TEXTS = {
    "item_id",
    "item_name",
    "affiliation",
    "coupon",
    "currency",
    "item_brand",
    "item_category",
    "item_category2",
    "item_category3",
    "item_category4",
    "item_category5",
    "item_list_id",
    "item_list_name",
    "item_variant",
    "location_id",
    "creative_name",
    "creative_slot",
    "promotion_id",
    "promotion_name",
}
ITEM_NUMBERS = {"price", "discount", "index", "quantity"}


# the rules: each yields what is broken


def broken(body: Any, now: float) -> Iterator[str]:
    if len(orjson.dumps(body)) >= 130_000:
        yield "body: size"
    if unknown := body.keys() - TOP:
        yield f"unknown field: {min(unknown)}"
    if not isinstance(body.get("client_id"), str) or not body["client_id"] or body["client_id"].startswith("GA1."):
        yield "client_id"
    yield from _timestamp(body.get("timestamp_micros"), now)
    if "user_id" in body and not 0 < len(body["user_id"]) <= 256:
        yield "user_id: length"
    for signal, said in body.get("consent", {}).items():
        if signal not in ("ad_user_data", "ad_personalization") or said not in ("GRANTED", "DENIED"):
            yield "consent"
    yield from _properties(body.get("user_properties", {}))
    yield from _user_data(body.get("user_data", {}))
    if not 1 <= len(body["events"]) <= 25:
        yield "events: count"
    for event in body["events"]:
        yield from _event(event)


def _timestamp(micros: Any, now: float) -> Iterator[str]:
    if type(micros) is not int:
        yield "timestamp: an integer"
    elif not (now - 72 * HOUR) * MICROS <= micros <= (now + HOUR / 4) * MICROS:
        yield "timestamp: microseconds, at most 72 hours ago and a quarter of an hour ahead"


def _name(name: str, longest: int = 40) -> Iterator[str]:
    if len(name) > longest or not re.fullmatch("[A-Za-z][A-Za-z0-9_]*", name):
        yield "name: letters, digits and _"
    if name.startswith(RESERVED_PREFIXES):
        yield "name: reserved prefix"


def _value(name: str, value: Any, longest: int) -> Iterator[str]:
    if not isinstance(value, str | int | float):
        yield f"{name}: text, number or boolean"
    elif isinstance(value, float) and not math.isfinite(value):
        yield f"{name}: a number that JSON has"
    elif isinstance(value, str) and len(value) > longest:
        yield f"{name}: length"
    elif isinstance(value, str) and ("ada@example.com" in value or "ada%40example.com" in value):
        yield f"{name}: personal data"


def _properties(properties: Any) -> Iterator[str]:
    if len(properties) > 25:
        yield "user_properties: count"
    for name, inner in properties.items():
        yield from _name(name, 24)
        if name in RESERVED_PROPERTIES:
            yield "user_properties: reserved"
        yield from _value("user_property", inner["value"], 36)


def _user_data(data: Any) -> Iterator[str]:
    hashes = [*data.get("sha256_email_address", ()), *data.get("sha256_phone_number", ())]
    if len(data.get("sha256_email_address", ())) > 3 or len(data.get("sha256_phone_number", ())) > 3:
        yield "user_data: count"
    if len(data.get("address", ())) > 2:
        yield "address: count"
    for address in data.get("address", ()):
        for name, value in address.items():
            if name.startswith("sha256_"):
                hashes.append(value)
            elif name in ("city", "region"):
                if value != value.strip().lower() or re.search(r"[\d.,!@#$%&*/()-]", value):
                    yield f"{name}: without digits and signs"
            elif name == "postal_code":
                if re.search("[.~]", value) or value != value.strip():
                    yield "postal_code: without . and ~"
            elif name != "country" or not re.fullmatch("[A-Z]{2}", value):
                yield "country, or an unknown field"
    if not all(re.fullmatch("[0-9a-f]{64}", digest) for digest in hashes):
        yield "user_data: a hash"


def _event(event: Any) -> Iterator[str]:
    if event.keys() - {"name", "params", "timestamp_micros"}:
        yield "event: unknown field"
    yield from _name(event["name"])
    if event["name"] in RESERVED_EVENTS or event["name"].startswith("app_store_"):
        yield "event: reserved"
    params = event["params"]
    if len(params) > 25:
        yield "params: count"
    for name, value in params.items():
        yield from _name(name)
        if name == "firebase_conversion":
            yield "param: reserved"
        yield from _items(value) if name == "items" else _value(name, value, LONGER.get(name, 100))
    yield from _meaning(event["name"], params)


def _meaning(name: str, params: Any) -> Iterator[str]:
    if "value" in params and "currency" not in params:
        yield "value without currency"
    if "currency" in params and not re.fullmatch("[A-Z]{3}", params["currency"]):
        yield "currency"
    for key in ("value", "tax", "shipping", "engagement_time_msec"):
        if key in params and (isinstance(params[key], bool) or not isinstance(params[key], int | float)):
            yield f"{key}: a number"
    if params.get("engagement_time_msec", 1) <= 0:
        yield "engagement_time_msec: above 0"
    if params.get("transaction_id") == "" or (name == "refund" and "transaction_id" not in params):
        yield "transaction_id"
    if not re.fullmatch("[1-9][0-9]*", str(params.get("session_id", 1))):
        yield "session_id"


def _items(items: Any) -> Iterator[str]:
    if not 0 < len(items) <= 200:
        yield "items: count"
    for item in items:
        if not item.get("item_id") and not item.get("item_name"):
            yield "item: id or name"
        if len(item.keys() - ITEM_TEXTS - ITEM_NUMBERS) > 10:
            yield "item: count of its own parameters"
        for name, value in item.items():
            if not re.fullmatch("[A-Za-z][A-Za-z0-9_]*", name) or name.startswith(("ga_", "google_", "firebase_")):
                yield "item: name"
            if (name in ITEM_NUMBERS) == isinstance(value, str):
                yield "item: type"
            yield from _value("item", value, 100)


# any event


NAMES = st.one_of(
    st.sampled_from(CANONICAL_NAMES),
    st.sampled_from(
        [
            *sorted(RESERVED_EVENTS),
            *(f"{prefix}x" for prefix in RESERVED_PREFIXES),
            "firebase_conversion",
            "app_store_refund",
            "x" * 40,
            "x" * 41,
            "Größe",
            "with space",
            "1st",
            "items",
            "value",
            "session_id",
            "user_id",
        ]
    ),
    st.from_regex("[A-Za-z0-9_]{1,42}", fullmatch=True),
)
TEXTS = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        ["x" * 2000, "€" * 101, "https://s.example/?m=ada%40example.com&q=" + "y" * 990, "of ada@example.com", "0"]
    ),
)
CUSTOM = st.dictionaries(NAMES, st.one_of(TEXTS, st.booleans(), st.integers(-(2**53), 2**53)), max_size=40)
SWITCHES = st.fixed_dictionaries(
    dict.fromkeys(("user_id", "user_data", "device_and_place", "debug_mode"), st.booleans())
)


@st.composite
def reported(draw: st.DrawFn) -> Event:
    """Any event that gets so far as to be encoded: one with a client id, and a time that platforms take."""
    event: Any = draw(events())
    event["event_name"] = draw(NAMES)
    event["time"] = draw(st.integers(1_700_000_000_000, 1_900_000_000_000))
    event["ids"] = event.get("ids", {}) | {"ga_client_id": draw(st.sampled_from(["1.2", "GA1.2.3.4"]))}
    event["custom"] = draw(CUSTOM)
    event["context"] = draw(st.fixed_dictionaries({}, optional=dict.fromkeys(("url", "title", "referrer"), TEXTS)))
    items = event.get("commerce", {}).get("items", [])
    event.setdefault("commerce", {})["items"] = items * draw(st.sampled_from([1, 1, 70, 201]))
    return event  # type: ignore[no-any-return]


def body_of(event: Event, **settings: Any) -> Json | None:
    sink = Ga4(Settings.model_validate(SINK | {"custom_events": True} | settings))
    payload = encode(sink, event)
    if not isinstance(payload, Payload):
        return None
    return dict(orjson.loads(sink.request([payload], {"api_secret": "SECRET"}).body))


@given(event=reported(), switches=SWITCHES)
def test_no_body_breaks_a_rule(event, switches):
    body = body_of(event, **switches)

    assume(body is not None)
    assert list(broken(body, event["time"] / 1000)) == []


@given(name=NAMES, custom=CUSTOM)
def test_no_name_of_an_event_or_a_field_breaks_a_rule(name, custom):
    event = make_event(event_name=name, custom=custom)

    body = body_of(event)

    assert list(broken(body, event["time"] / 1000) if body else ()) == []


@pytest.mark.parametrize("letter", ["x", "€", "😀"])
def test_the_largest_event_stays_below_the_largest_body(letter):
    texts = dict.fromkeys(("item_id", "item_name", "brand", "category", "variant", "coupon"), letter * 100)
    custom = {f"c{number:02}": letter * 100 for number in range(25)}
    pages = dict.fromkeys(("url", "title", "referrer"), letter * 1000)
    event = make_event(commerce={"items": [texts] * 300}, custom=custom, context=pages)

    body = body_of(event, user_id=True, user_data=True)

    assert body
    assert list(broken(body, event["time"] / 1000)) == []
    assert len(body["events"][0]["params"]["items"]) > 30


# the rules would notice

Break = Callable[[Any, Any], object]
BREAKS: dict[str, Break] = {
    "body: size": lambda body, params: body.update(user_agent="x" * 130_000),
    "unknown field: event_id": lambda body, params: body.update(event_id="1"),
    "client_id": lambda body, params: body.update(client_id="GA1.1.1.2"),
    "timestamp: an integer": lambda body, params: body.update(timestamp_micros=1.5),
    "timestamp: microseconds, at most 72 hours ago and a quarter of an hour ahead": lambda body, params: body.update(
        timestamp_micros=body["timestamp_micros"] // 1000
    ),
    "user_id: length": lambda body, params: body.update(user_id="x" * 257),
    "consent": lambda body, params: body.update(consent={"ad_user_data": "granted"}),
    "user_properties: count": lambda body, params: body.update(
        user_properties={f"p{n}": {"value": n} for n in range(26)}
    ),
    "user_properties: reserved": lambda body, params: body.update(user_properties={"user_id": {"value": 1}}),
    "user_property: length": lambda body, params: body.update(user_properties={"tier": {"value": "x" * 37}}),
    "user_data: count": lambda body, params: body.update(user_data={"sha256_email_address": [sha("a")] * 4}),
    "user_data: a hash": lambda body, params: body.update(user_data={"sha256_email_address": ["ada@example.com"]}),
    "address: count": lambda body, params: body.update(user_data={"address": [{}] * 3}),
    "city: without digits and signs": lambda body, params: body.update(user_data={"address": [{"city": "Bonn 1"}]}),
    "postal_code: without . and ~": lambda body, params: body.update(user_data={"address": [{"postal_code": "9.0"}]}),
    "country, or an unknown field": lambda body, params: body.update(user_data={"address": [{"country": "usa"}]}),
    "events: count": lambda body, params: body.update(events=body["events"] * 26),
    "event: unknown field": lambda body, params: body["events"][0].update(event_id="1"),
    "event: reserved": lambda body, params: body["events"][0].update(name="session_start"),
    "name: letters, digits and _": lambda body, params: params.update({"größe": 1}),
    "name: reserved prefix": lambda body, params: params.update(ga_x=1),
    "params: count": lambda body, params: params.update({f"p{n}": n for n in range(26)}),
    "param: reserved": lambda body, params: params.update(firebase_conversion=1),
    "note: text, number or boolean": lambda body, params: params.update(note=None),
    "note: length": lambda body, params: params.update(note="x" * 101),
    "page_title: length": lambda body, params: params.update(page_title="x" * 301),
    "note: personal data": lambda body, params: params.update(note="of ada@example.com"),
    "note: a number that JSON has": lambda body, params: params.update(note=math.inf),
    "value without currency": lambda body, params: params.pop("currency"),
    "currency": lambda body, params: params.update(currency="usd"),
    "value: a number": lambda body, params: params.update(value="1"),
    "engagement_time_msec: above 0": lambda body, params: params.update(engagement_time_msec=0),
    "transaction_id": lambda body, params: params.update(transaction_id=""),
    "session_id": lambda body, params: params.update(session_id="0"),
    "items: count": lambda body, params: params.update(items=params["items"] * 201),
    "item: id or name": lambda body, params: params.update(items=[{"price": 1}]),
    "item: count of its own parameters": lambda body, params: params["items"][0].update(
        {f"o{n}": "x" for n in range(11)}
    ),
    "item: name": lambda body, params: params["items"][0].update(ga_x="1"),
    "item: type": lambda body, params: params["items"][0].update(price="1"),
    "item: length": lambda body, params: params["items"][0].update(coupon="x" * 101),
}


def test_a_complete_purchase_keeps_them_all():
    assert list(broken(body_of(make_event()), make_event()["time"] / 1000)) == []


@pytest.mark.parametrize(("rule", "breaks"), BREAKS.items(), ids=BREAKS)
def test_each_rule_notices_when_it_is_broken(rule, breaks):
    event = make_event()
    body: Any = copy.deepcopy(body_of(event))

    breaks(body, body["events"][0]["params"])

    assert rule in set(broken(body, event["time"] / 1000))
