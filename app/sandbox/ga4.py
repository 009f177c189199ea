"""GA4, emulated: the Measurement Protocol, and the Data Manager API for web streams of a property.

Source of facts: Google's Measurement Protocol reference for GA4 (no version in the path), its validation rules as
Google's own event builder applies them, its table of the same fields in the Data Manager API (see _google.py), and
Analytics Help on purchases counted twice.

POST {prefix}/mp/collect answers 204 to everything, wrong secrets included: what GA4 would drop in silence, the listing
of refusals names. POST {prefix}/debug/mp/collect answers with validation messages, keeps nothing and reads no secret.
POST {prefix}/v1/events:ingest says what is wrong, and fails the request as a whole.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from app.sandbox import _checks as must
from app.sandbox import _google as google
from app.sandbox._base import (
    Answer,
    Call,
    Checked,
    Platform,
    Problem,
    Route,
    Ruling,
    as_id,
    json_answer,
    part,
    read_json,
)
from app.sandbox._checks import Check, Problems, step, words

MICROS = 1_000_000
MAX_AGE = 72 * 3600
MAX_AHEAD = 15 * 60  # no documented tolerance; integrations in the field live with this
MOST_BYTES = 130_000
MOST_EVENTS = 25
MOST_PARAMS = 25
MOST_ITEMS = 200
MOST_CUSTOM_ITEM_PARAMS = 10
LONGEST_NAME = 40
LONGEST_VALUE = 100
LONGEST = {"page_title": 300, "page_referrer": 420, "page_location": 1000}

INVALID = "VALUE_INVALID"
REQUIRED = "VALUE_REQUIRED"
BOUNDS = "VALUE_OUT_OF_BOUNDS"
NAME = "NAME_INVALID"
RESERVED = "NAME_RESERVED"
TOO_MANY = "EXCEEDED_MAX_ENTITIES"

APP_ONLY_EVENTS = frozenset({"ad_impression", "in_app_purchase", "screen_view"})  # reserved on web streams
RESERVED_EVENTS = words(
    """
    ad_activeview ad_click ad_exposure ad_query adunit_exposure app_clear_data app_install app_remove app_update error
    first_open first_visit notification_dismiss notification_foreground notification_open notification_receive os_update
    session_start user_engagement
    """
)
RESERVED_PREFIXES = ("_", "firebase_", "ga_", "google_", "gtag.")
RESERVED_PARAMS = frozenset({"firebase_conversion"})
RESERVED_PROPERTIES = frozenset(
    {"first_open_time", "first_visit_time", "first_open_after_install", "last_deep_link_referrer", "user_id"}
)

#: Without these the event is taken, and reports of it are poor.
ADVISED: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(
        (
            "view_item",
            "add_to_wishlist",
            "add_to_cart",
            "remove_from_cart",
            "view_cart",
            "begin_checkout",
            "add_shipping_info",
            "add_payment_info",
            "purchase",
        ),
        ("items", "value"),
    ),
    "view_item_list": ("items",),
    "search": ("search_term",),
    "refund": ("value",),
    "generate_lead": ("value",),
}


# --- names and values -----------------------------------------------------------------------------


def name(longest: int, reserved: frozenset[str] = frozenset(), prefixes: tuple[str, ...] = RESERVED_PREFIXES) -> Check:
    def run(value: Any, path: str) -> Problems:
        if not isinstance(value, str):
            yield Problem(path, "must be a string", NAME)
        elif value in reserved or value.startswith(prefixes):
            yield Problem(path, "is a reserved name, or begins like one", RESERVED)
        elif not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", value):
            yield Problem(path, "must begin with a letter and have only letters, digits and _", NAME)
        elif len(value) > longest:
            yield Problem(path, f"is longer than {longest} characters", NAME)

    return run


def short(check: Check, longest: int = LONGEST_VALUE) -> Check:
    def run(value: Any, path: str) -> Problems:
        yield from check(value, path)
        if isinstance(value, str) and len(value) > longest:
            yield Problem(path, f"is longer than {longest} characters", BOUNDS)

    return run


def string(value: Any, path: str) -> Problems:
    if not isinstance(value, str):
        yield Problem(path, "must be a string")


def session_id(value: Any, path: str) -> Problems:
    if not re.fullmatch(r"[1-9][0-9]*", str(as_id(value)), re.ASCII):
        yield Problem(path, "must be the number in the session cookie")


def engagement(value: Any, path: str) -> Problems:
    yield from must.number(value, path)
    if must.is_number(value) and value <= 0:
        yield Problem(path, "must be greater than 0", BOUNDS)


def debug_mode(value: Any, path: str) -> Problems:
    return must.flag(value, path) if isinstance(value, bool) else must.one_of(1)(value, path)


_text = short(string)

PARAMS: Mapping[str, Check] = {
    "session_id": session_id,
    "engagement_time_msec": engagement,
    "currency": must.upper_currency,
    "value": must.number,
    "tax": must.number,
    "shipping": must.number,
    "transaction_id": short(must.text),
    "debug_mode": debug_mode,
    **{key: short(string, longest) for key, longest in LONGEST.items()},
    **dict.fromkeys(("coupon", "affiliation", "payment_type", "shipping_tier", "search_term", "method"), _text),
}

ITEM: Mapping[str, Check] = {
    **dict.fromkeys(
        words(
            """
            item_id item_name affiliation coupon item_brand item_category item_category2 item_category3 item_category4
            item_category5 item_list_id item_list_name item_variant location_id creative_name creative_slot promotion_id
            promotion_name
            """
        ),
        _text,
    ),
    "currency": must.upper_currency,
    **dict.fromkeys(("price", "discount", "index", "quantity"), must.number),
}

_param_name = name(LONGEST_NAME, RESERVED_PARAMS)
_item_key = name(LONGEST_NAME, prefixes=("ga_", "google_", "firebase_"))


def item(value: Any, path: str) -> Problems:
    if not isinstance(value, dict):
        yield Problem(path, "must be an object")
        return
    if not value.get("item_id") and not value.get("item_name"):
        yield Problem(path, "must have item_id or item_name", REQUIRED)
    if len(set(value) - set(ITEM)) > MOST_CUSTOM_ITEM_PARAMS:
        yield Problem(path, f"must have at most {MOST_CUSTOM_ITEM_PARAMS} parameters of its own", TOO_MANY)
    for key, member in value.items():
        yield from _item_key(key, step(path, key))
        yield from ITEM.get(key, short(must.scalar))(member, step(path, key))


def items(value: Any, path: str) -> Problems:
    if isinstance(value, list) and len(value) > MOST_ITEMS:
        yield Problem(path, f"must have at most {MOST_ITEMS} entries", TOO_MANY)
    else:
        yield from must.each(item, least=0)(value, path)


def params(value: Any, path: str) -> Problems:
    if not isinstance(value, dict):
        yield Problem(path, "must be an object")
        return
    if len(value.keys() - {"items"}) > MOST_PARAMS:
        yield Problem(path, f"must have at most {MOST_PARAMS} parameters", TOO_MANY)
    for key, member in value.items():
        yield from _param_name(key, step(path, key))
        check = items if key == "items" else PARAMS.get(key, short(must.scalar))
        yield from check(member, step(path, key))


def micros(now: float) -> Check:
    """A time in microseconds: an integer, or a string of digits."""

    def run(value: Any, path: str) -> Problems:
        digits = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
        if not isinstance(digits, str) or not re.fullmatch(r"[0-9]{1,20}", digits):
            yield Problem(path, "must be an integer")
        elif int(digits) < 10**14:
            yield Problem(path, "must be in microseconds", BOUNDS)
        elif int(digits) > (now + MAX_AHEAD) * MICROS:
            yield Problem(path, "is in the future", BOUNDS)
        elif int(digits) < (now - MAX_AGE) * MICROS:
            yield Problem(path, "is older than 72 hours", BOUNDS)

    return run


# --- one event ------------------------------------------------------------------------------------


def check_event(event: Any, path: str, now: float, *, is_app: bool) -> Iterator[Problem]:
    """Everything wrong with one event of `events`."""
    yield from must.record(
        {
            "name": name(LONGEST_NAME, RESERVED_EVENTS if is_app else RESERVED_EVENTS | APP_ONLY_EVENTS),
            "params": params,
            "timestamp_micros": micros(now),
        },
        required=("name",),
    )(event, path)
    if isinstance(event, dict):
        if str(event.get("name")).startswith("app_store_"):
            yield Problem(step(path, "name"), "is a reserved name, or begins like one", RESERVED)
        yield from _money(event, path)
        yield from must.clear_data(event, path)


def _money(event: dict[str, Any], path: str) -> Problems:
    given, place = part(event, "params"), step(path, "params")
    if "value" in given and "currency" not in given:
        yield Problem(step(place, "currency"), "is missing beside value: no revenue", REQUIRED)
    if event.get("name") in ("purchase", "refund") and "transaction_id" not in given:
        yield Problem(step(place, "transaction_id"), "is missing", REQUIRED)


def warn_event(event: dict[str, Any], path: str) -> Iterator[Problem]:
    given, place = part(event, "params"), step(path, "params")
    for key in ("session_id", "engagement_time_msec"):
        if key not in given:
            yield Problem(step(place, key), "is missing: not in session and realtime reports")
    for key in ADVISED.get(str(event.get("name")), ()):
        if given.get(key) in (None, []):
            yield Problem(step(place, key), "is missing, and reports of this event want it")
    if "currency" in given and "value" not in given:
        yield Problem(step(place, "value"), "is missing beside currency")


# --- the body around the events -------------------------------------------------------------------


def _hashes(value: Any, path: str) -> Problems:
    return must.one_or_many(must.sha256, most=3)(value, path)


def city(value: Any, path: str) -> Problems:
    yield from must.text(value, path)
    if isinstance(value, str) and (value != value.strip().lower() or re.search(r"\d", value)):
        yield Problem(path, "must be trimmed, in lower case and without digits")


USER_DATA = must.record(
    {
        "sha256_email_address": _hashes,
        "sha256_phone_number": _hashes,
        "address": must.each(
            must.record(
                {
                    **dict.fromkeys(("sha256_first_name", "sha256_last_name", "sha256_street"), must.sha256),
                    "city": must.not_hashed(city),
                    "region": must.not_hashed(must.text),
                    "postal_code": must.not_hashed(must.text),
                    "country": must.like("[A-Za-z]{2}", "an ISO 3166-1 alpha-2 code"),
                }
            ),
            most=2,
        ),
    }
)

_consent = must.one_of("GRANTED", "DENIED")
_behavior = must.one_of("RELAXED", "ENFORCE_RECOMMENDATIONS")
_un_m49 = must.like("[0-9]{3}", "a UN M49 code")

LOCATION = must.record(
    {
        "city": must.text,
        "region_id": must.like("[A-Z]{2}-[A-Z0-9]{1,3}", "an ISO 3166-2 code"),
        "country_id": must.like("[A-Z]{2}", "an ISO 3166-1 alpha-2 code"),
        "subcontinent_id": _un_m49,
        "continent_id": _un_m49,
    }
)
DEVICE = must.record(
    dict.fromkeys(
        words(
            "category language screen_resolution operating_system operating_system_version model brand browser "
            "browser_version"
        ),
        must.text,
    )
)


def user_properties(now: float) -> Check:
    property_name = name(24, RESERVED_PROPERTIES, ("_", "firebase_", "ga_", "google_"))
    property_value = must.record(
        {"value": short(must.scalar, 36), "timestamp_micros": micros(now)}, required=("value",)
    )

    def run(value: Any, path: str) -> Problems:
        if not isinstance(value, dict):
            yield Problem(path, "must be an object")
            return
        if len(value) > 25:
            yield Problem(path, "must have at most 25 properties", TOO_MANY)
        for key, member in value.items():
            yield from property_name(key, step(path, key))
            yield from property_value(member, step(path, key))

    return run


def client_id(value: Any, path: str) -> Problems:
    """Two numbers and a dot; since 2026-02-17 also with the cookie's own prefix."""
    check = must.like(r"(GA1\.\d+\.)?[1-9][0-9]*\.[1-9][0-9]*", "the _ga cookie's two numbers and a dot")
    return check(value, path)


def envelope(now: float, *, is_app: bool) -> Check:
    return must.record(
        {
            "client_id": client_id,
            "app_instance_id": must.like("[0-9A-Fa-f]{32}", "32 hex digits"),
            "user_id": short(must.text, 256),
            "timestamp_micros": micros(now),
            "user_properties": user_properties(now),
            "user_data": USER_DATA,
            "consent": must.record({"ad_user_data": _consent, "ad_personalization": _consent}),
            "non_personalized_ads": must.flag,
            "user_location": LOCATION,
            "ip_override": must.ip,
            "device": DEVICE,
            "user_agent": must.text,
            "validation_behavior": _behavior,
            "validationBehavior": _behavior,
            "events": must.anything,  # event by event, above
        },
        required=("app_instance_id" if is_app else "client_id", "events"),
    )


def check_envelope(body: Any, now: float, *, is_app: bool) -> Iterator[Problem]:
    """Everything wrong with the body around the events: it is wrong with each of them."""
    yield from envelope(now, is_app=is_app)(body, "")
    if not isinstance(body, dict):
        return
    for key in ("client_id", "user_agent") if is_app else ("app_instance_id",):
        if key in body:
            yield Problem(key, f"does not belong to {'an app' if is_app else 'a web'} stream")
    yield from must.clear_data({key: body[key] for key in body.keys() - {"events", "user_data", "user_agent"}}, "")


def warn_envelope(body: dict[str, Any]) -> Iterator[Problem]:
    if str(body.get("client_id")).startswith("GA1."):
        yield Problem("client_id", "is better without the cookie's prefix")
    if "non_personalized_ads" in body:
        yield Problem("non_personalized_ads", "is superseded by consent.ad_personalization")
    if "user_data" in body and "user_id" not in body:
        yield Problem("user_id", "is missing beside user_data")


# --- request and answer ---------------------------------------------------------------------------


def collect(call: Call) -> Ruling:
    """POST /mp/collect: 204, whatever was sent."""
    ruling = _judge(call)
    return replace(ruling, answer=Answer(204), problems=(*_address(call), *ruling.problems))


def validate(call: Call) -> Ruling:
    """POST /debug/mp/collect: neither secret nor measurement id is looked at."""
    ruling = _judge(call)
    found = [*ruling.problems, *(problem for event in ruling.events for problem in event.problems)]
    messages = [
        {"fieldPath": problem.field, "description": problem.reason, "validationCode": problem.code} for problem in found
    ]
    return replace(ruling, answer=json_answer(200, {"validationMessages": messages}), dry_run=True)


def _is_app(call: Call, body: Any) -> bool:
    """The validation server is happy without any id in the query: then the body tells the kind of stream."""
    if "measurement_id" in call.query:
        return False
    return "firebase_app_id" in call.query or (isinstance(body, dict) and "app_instance_id" in body)


def _account(call: Call) -> str:
    return call.query.get("measurement_id") or call.query.get("firebase_app_id") or "(none)"


def _address(call: Call) -> Problems:
    """The query, of which GA4 never says that it is wrong."""
    if ("measurement_id" in call.query) == ("firebase_app_id" in call.query):
        yield Problem("query", "must have exactly one of measurement_id and firebase_app_id", REQUIRED)
    check = must.record(
        {
            "measurement_id": must.like("G-[A-Z0-9]{4,}", "a measurement id: G-XXXXXXXXXX"),
            "firebase_app_id": must.like(r"\d+:\d+:[a-z]+:[0-9a-z]+", "a Firebase app id: 1:123:android:abc"),
            "api_secret": must.text,
        },
        required=("api_secret",),
    )
    yield from _with_code(check(dict(call.query), "query"))
    if re.search(r"firebase_app_id=[^&]*%3a", call.raw_query, re.IGNORECASE):
        yield Problem("query.firebase_app_id", "must have its colons as they are, not percent-encoded", INVALID)
    if call.query.get("api_secret") and not call.admits(_account(call), call.query["api_secret"]):
        yield Problem("query.api_secret", "is not a secret of this stream", INVALID)


def _judge(call: Call) -> Ruling:
    """The body: what of it is wrong, as a whole and event by event."""
    account, nothing = _account(call), Answer(204)
    try:
        body = read_json(call.body)
    except ValueError:
        return Ruling(account, nothing, problems=(Problem("body", "cannot be read as JSON", INVALID),))
    is_app = _is_app(call, body)
    problems = [*_transport(call), *_with_code(check_envelope(body, call.now, is_app=is_app))]
    found = body.get("events") if isinstance(body, dict) else None
    around = {key: body[key] for key in body if key != "events"} if isinstance(body, dict) else None
    if isinstance(found, list) and 1 <= len(found) <= MOST_EVENTS:
        warnings = () if problems else tuple(warn_envelope(body))
        events = tuple(_checked(one, index, call, warnings, is_app=is_app) for index, one in enumerate(found))
        return Ruling(account, nothing, tuple(problems), events, around)
    if isinstance(body, dict) and "events" in body:
        problems.append(Problem("events", f"must be an array of 1 to {MOST_EVENTS} entries", TOO_MANY))
    return Ruling(account, nothing, tuple(problems), envelope=around)


def _transport(call: Call) -> Problems:
    if call.headers.get("Content-Type", "").partition(";")[0].strip().lower() != "application/json":
        yield Problem("Content-Type", "must be application/json", INVALID)
    if len(call.body) >= MOST_BYTES:
        yield Problem("body", "must be under 130 kB", BOUNDS)


def _with_code(problems: Problems) -> Problems:
    """The validation code follows from the reason where the check knew none."""
    for problem in problems:
        missing = problem.reason.startswith("is missing")
        yield problem if problem.code else replace(problem, code=REQUIRED if missing else INVALID)


def _checked(event: Any, index: int, call: Call, around: tuple[Problem, ...], *, is_app: bool) -> Checked:
    path = f"events[{index}]"
    problems = tuple(_with_code(check_event(event, path, call.now, is_app=is_app)))
    fields = event if isinstance(event, dict) else {}
    given, event_name = part(fields, "params"), as_id(fields.get("name"))
    transaction = as_id(given.get("transaction_id"))
    event_id = transaction or as_id(given.get("event_id"))  # GA4 knows no event id; ours may travel as a parameter
    warnings = () if problems else (*around, *warn_event(fields, path))
    key = (transaction,) if transaction and event_name == "purchase" and not is_app else None
    return Checked(event, event_name, event_id, key, problems, warnings)


# --- the Data Manager API -------------------------------------------------------------------------

_CODES = {NAME: "INVALID_EVENT_NAME", RESERVED: "RESERVED_NAME_USED", BOUNDS: "FIELD_VALUE_TOO_LONG"}


def _translated(check: Check) -> Check:
    """The same check, with the reasons of the Data Manager API."""

    def run(value: Any, path: str) -> Problems:
        return (replace(one, code=_CODES.get(one.code, "INVALID_ARGUMENT")) for one in check(value, path))

    return run


def parameters(texts: Mapping[str, Check], most: int) -> Check:
    """A list of names and texts, each name once."""
    known = must.record(
        {"parameterName": _translated(_param_name), "value": string}, required=("parameterName", "value")
    )

    def run(value: Any, path: str) -> Problems:
        yield from google.many(known, most, "TOO_MANY_ELEMENTS")(value, path)
        seen = set()
        for index, one in enumerate(value if isinstance(value, list) else ()):
            key = as_id(one.get("parameterName")) if isinstance(one, dict) else None
            place = f"{path}[{index}]"
            if key in seen:
                yield Problem(step(place, "parameterName"), "is there twice", "INVALID_ARGUMENT")
            seen.add(key)
            if key is not None and isinstance(one.get("value"), str):
                yield from _translated(texts.get(key, _text))(one["value"], step(place, "value"))

    return run


def digits(value: Any, path: str) -> Problems:
    if not re.fullmatch("[1-9][0-9]*", str(as_id(value)), re.ASCII):
        yield Problem(path, "must be a number greater than 0")


INGESTED_ITEM = must.record(
    {
        "itemId": _text,
        "quantity": google.int64,
        "unitPrice": must.number,
        "conversionValue": must.number,
        "additionalItemParameters": parameters({}, len(ITEM) + MOST_CUSTOM_ITEM_PARAMS),
    }
)

INGESTED = must.record(
    {
        "destinationReferences": must.each(must.text, least=0),
        "eventName": _translated(name(LONGEST_NAME, RESERVED_EVENTS | APP_ONLY_EVENTS)),
        "clientId": must.like(r"[1-9][0-9]*\.[1-9][0-9]*", "the _ga cookie's two numbers and a dot"),
        "userId": short(must.text, 256),
        "eventTimestamp": google.time,
        "lastUpdatedTimestamp": google.time,
        "eventSource": must.coded(must.one_of("WEB"), "EVENT_SOURCE_AND_DESTINATION_MISMATCH"),
        "transactionId": short(must.text),
        "currency": must.coded(must.upper_currency, google.CURRENCY),
        "conversionValue": must.number,
        "userData": must.anything,  # with the encoding of the request
        "consent": google.CONSENT,
        "eventDeviceInfo": google.DEVICE,
        "cartData": must.record(
            {
                "items": must.each(INGESTED_ITEM, most=MOST_ITEMS),
                "couponCodes": must.each(_text),
                "transactionDiscount": must.number,
            }
        ),
        "additionalEventParameters": parameters(
            {
                "session_id": digits,
                "engagement_time_msec": digits,
                **{key: short(string, longest) for key, longest in LONGEST.items()},
            },
            MOST_PARAMS,
        ),
    },
    required=("eventName", "clientId", "eventTimestamp"),
)


def ingest_rules(event: dict[str, Any], path: str, now: float) -> Iterator[Problem]:
    happened = google.parse_time(event.get("eventTimestamp"))
    if happened is not None and happened < now - MAX_AGE:
        yield Problem(step(path, "eventTimestamp"), "is older than 72 hours", google.TIME)
    if event.get("eventName") in ("purchase", "refund") and "transactionId" not in event:
        yield Problem(step(path, "transactionId"), "is missing", google.MISSING)
    own = {"currency", "value", "transaction_id", "items"}
    for index, key in enumerate(_names_of(event.get("additionalEventParameters"))):
        if key in own:
            place = f"{step(path, 'additionalEventParameters')}[{index}]"
            yield Problem(step(place, "parameterName"), "has a field of its own", "INVALID_ARGUMENT")
    found = part(event, "cartData").get("items")
    for index, one in enumerate(found if isinstance(found, list) else ()):
        fields = one if isinstance(one, dict) else {}
        if not fields.get("itemId") and "item_name" not in _names_of(fields.get("additionalItemParameters")):
            place = f"{step(path, 'cartData')}.items[{index}]"
            yield Problem(place, "must have itemId or the parameter item_name", "INVALID_ARGUMENT")


def _names_of(given: Any) -> list[str | None]:
    members = given if isinstance(given, list) else []
    return [as_id(one.get("parameterName")) if isinstance(one, dict) else None for one in members]


def ingest_warnings(event: dict[str, Any], path: str) -> Iterator[Problem]:
    """None of them is told in the answer."""
    for key in {"session_id", "engagement_time_msec"} - set(_names_of(event.get("additionalEventParameters"))):
        place = step(path, "additionalEventParameters")
        yield Problem(place, f"{key} is missing: not in session and realtime reports")


def known_by(event: dict[str, Any], _destination: str) -> tuple[str, ...] | None:
    number = as_id(event.get("transactionId"))
    return (number,) if number and event.get("eventName") == "purchase" else None


ANALYTICS = google.Product(
    account_type="GOOGLE_ANALYTICS_PROPERTY",
    account=must.like("[0-9]+", "the number of a property"),
    destination=must.coded(must.like("G-[A-Z0-9]{4,}", "a measurement id: G-XXXXXXXXXX"), google.DESTINATION),
    event=INGESTED,
    rules=ingest_rules,
    later=lambda _event, _path, _now: iter(()),
    warnings=ingest_warnings,
    key=known_by,
    name=lambda event, _destination: as_id(event.get("eventName")),
)


def platform() -> Platform:
    return Platform(
        name="ga4",
        title="Google Analytics 4",
        routes=(Route("/mp/collect", collect), Route("/debug/mp/collect", validate), *google.routes(ANALYTICS)),
        failures={"status_429": Answer(429), "status_500": Answer(500)},
        queues=True,
        personal=frozenset(
            {
                *("sha256_email_address", "sha256_phone_number"),
                *("sha256_first_name", "sha256_last_name", "sha256_street"),
                *("emailAddress", "phoneNumber", "givenName", "familyName", "addressLine"),
            }
        ),
    )
