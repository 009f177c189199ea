"""Meta Conversions API, emulated.

Source of facts: Meta's Conversions API reference (parameters, de-duplication, error codes), Graph API v26.0, and the
checks in Meta's own SDK and parameter builder.

POST {prefix}/{version}/{dataset}/events, JSON or form-encoded. One bad event fails the whole request, and the answer
does not say which one it was. Throttling is HTTP 400 with a code in the body.
"""

import base64
import hashlib
import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import date, timedelta
from functools import cache
from itertools import product
from string import ascii_lowercase
from typing import Any
from urllib.parse import parse_qsl

from app.sandbox import _checks as must
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
from app.sandbox._checks import Problems, step, words

DAY = 86_400
MAX_AGE = 7 * DAY
MAX_AGE_IN_STORE = 62 * DAY
MAX_AHEAD = 60  # clocks differ; implementations in the field live with a minute
MOST_EVENTS = 1000
DEDUP_WINDOW = 48 * 3600

VERSIONS = ("v25.0", "v26.0")

INVALID = "100"
NOT_FOUND = "100/33"
TOO_OLD = "100/2804003"
IN_FUTURE = "100/2804004"
CONTENT_WITHOUT_ID = "100/2804008"
WITHOUT_VALUE = "100/2804009"
NOT_HASHED = "100/2804016"
WITHOUT_CURRENCY = "100/2804023"
WITHOUT_SYSTEM = "100/2804043"
TOO_LITTLE = "100/2804050"
NOT_LOGGED_IN = "190/463"
THROTTLED = (4, 1504022)

STANDARD_EVENTS = (
    "PageView",
    "ViewContent",
    "Search",
    "AddToCart",
    "AddToWishlist",
    "InitiateCheckout",
    "AddPaymentInfo",
    "Purchase",
    "Lead",
    "CompleteRegistration",
    "Contact",
    "CustomizeProduct",
    "Donate",
    "FindLocation",
    "Schedule",
    "StartTrial",
    "SubmitApplication",
    "Subscribe",
)
ACTION_SOURCES = (
    "website",
    "app",
    "email",
    "phone_call",
    "chat",
    "physical_store",
    "system_generated",
    "business_messaging",
    "other",
)
STATES = (
    0,
    *range(1000, 1004 + 1),
    *range(1005, 1014),
)  # 0: Meta finds out by IP; then CA, CO, CT, FL, OR, TX, MT, ...

HASHED = words("em ph fn ln ct st zp country db ge f5first f5last fi dobd dobm doby")
#: An event whose keys all lie within one of these is refused: too little to match a person by.
TOO_WEAK = (
    frozenset({"ct", "country", "st", "zp", "ge", "client_user_agent"}),
    frozenset({"db", "client_user_agent"}),
    frozenset({"fn", "ge"}),
    frozenset({"ln", "ge"}),
)


# --- the schema -----------------------------------------------------------------------------------


def hashed(value: Any, path: str) -> Problems:
    """Meta's parameter builder may append `.suffix` to a hash."""
    hash_, dot, suffix = value.partition(".") if isinstance(value, str) else (value, "", "")
    if dot and not re.fullmatch(r"[\w-]{2,8}", suffix, re.ASCII):
        return iter((Problem(path, "has a malformed suffix", NOT_HASHED),))
    return must.coded(must.sha256, NOT_HASHED)(hash_, path)


def address(value: Any, path: str) -> Problems:
    if _ip(value) is None:
        yield Problem(path, "must be an IPv4 or IPv6 address")


def _ip(value: Any) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address, with or without the parameter builder's suffix."""
    found = must.parse_ip(value)
    if found is None and isinstance(value, str):
        rest, _, suffix = value.rpartition(".")
        found = must.parse_ip(rest) if re.fullmatch(r"[\w-]{2,8}", suffix, re.ASCII) else None
    return found


def external_id(value: Any, path: str) -> Problems:
    """Raw or hashed; raw must still not be an e-mail address or a phone number."""
    yield from must.text(value, path)
    yield from must.clear_data(value, path)


def lead_id(value: Any, path: str) -> Problems:
    if not re.fullmatch(r"[0-9]{1,32}", str(as_id(value))):
        yield Problem(path, "must be an integer")


_free = must.not_hashed(must.text_or_whole)

USER_DATA = must.record(
    {
        **dict.fromkeys(HASHED, must.one_or_many(hashed)),
        "external_id": must.one_or_many(external_id),
        "client_ip_address": must.not_hashed(address),
        "client_user_agent": must.not_hashed(must.text),
        "fbp": must.not_hashed(
            must.like(r"fb\.\d+\.\d{13}\.[^\s.]+(\.[\w-]{2,8})?", "fb.<index>.<milliseconds>.<random>")
        ),
        "fbc": must.not_hashed(must.like(r"fb\.\d+\.\d{13}\.\S+", "fb.<index>.<milliseconds>.<fbclid>")),
        "lead_id": lead_id,
        "subscription_id": _free,
        "fb_login_id": _free,
        "anon_id": _free,
        "madid": _free,
        "page_id": _free,
        "page_scoped_user_id": _free,
        "ctwa_clid": _free,
        "ig_account_id": _free,
        "ig_sid": _free,
    }
)


def content(value: Any, path: str) -> Problems:
    if isinstance(value, dict) and "id" not in value:
        yield Problem(step(path, "id"), "is missing", CONTENT_WITHOUT_ID)
    yield from _CONTENT(value, path)


_delivery_category = must.one_of("in_store", "curbside", "home_delivery")

_CONTENT = must.record(
    {
        "id": must.coded(must.text_or_whole, CONTENT_WITHOUT_ID),
        "quantity": must.whole(1),
        "item_price": must.number,
        "delivery_category": _delivery_category,
        "title": must.text,
        "description": must.text,
        "brand": must.text,
        "category": must.text,
    }
)

CUSTOM_DATA = must.record(
    {
        "value": must.number,
        "currency": must.any_case_currency,
        "content_ids": must.each(must.text_or_whole),
        "contents": must.each(content),
        "content_type": must.one_of("product", "product_group"),
        "content_name": must.text,
        "content_category": must.text,
        "order_id": must.text,
        "num_items": must.whole(0),
        "search_string": must.text,
        "status": must.text,
        "predicted_ltv": must.number,
        "net_revenue": must.number,
        "delivery_category": _delivery_category,
    },
    others=must.scalar,
)


def extinfo(value: Any, path: str) -> Problems:
    if not isinstance(value, list) or len(value) != 16 or not all(isinstance(one, str) for one in value):
        yield Problem(path, "must be an array of 16 strings")
    elif value[0] not in {"a2", "i2"}:
        yield Problem(f"{path}[0]", "must be a2 or i2", WITHOUT_SYSTEM)


def _permission(value: Any, path: str) -> Problems:
    return must.flag(value, path) if isinstance(value, bool) else must.one_of(0, 1)(value, path)


APP_DATA = must.record(
    {
        "advertiser_tracking_enabled": _permission,
        "application_tracking_enabled": _permission,
        "extinfo": extinfo,
    },
    required=("advertiser_tracking_enabled", "application_tracking_enabled", "extinfo"),
    others=must.anything,
)

EVENT = must.record(
    {
        "event_name": must.text,
        "event_time": must.whole(),
        "event_id": must.text,
        "action_source": must.one_of(*ACTION_SOURCES),
        "event_source_url": must.url,
        "user_data": USER_DATA,
        "custom_data": CUSTOM_DATA,
        "opt_out": must.flag,
        "data_processing_options": must.each(must.one_of("LDU"), least=0, most=1),
        "data_processing_options_country": must.one_of(0, 1),
        "data_processing_options_state": must.one_of(*STATES),
        "referrer_url": must.text,
        "app_data": APP_DATA,
        "original_event_data": must.record(
            {"event_name": must.text, "event_time": must.whole(1), "order_id": must.text, "event_id": must.text}
        ),
        "attribution_data": must.record({}, others=must.anything),
        "customer_segmentation": must.text,
        "messaging_channel": must.text,
    },
    required=("event_name", "event_time", "action_source", "user_data"),
)

ENVELOPE = must.record(
    {
        "data": must.anything,  # event by event, below
        "access_token": must.text,
        "appsecret_proof": must.like("[0-9a-f]{64}", "an HMAC-SHA256 in 64 lowercase hex digits"),
        "test_event_code": must.text,
        "partner_agent": must.like(r"(?=(.*[A-Za-z]){2}).{2,22}", "under 23 characters with at least two letters"),
        "namespace_id": must.text_or_whole,
        "upload_id": must.text_or_whole,
        "upload_tag": must.text,
        "upload_source": must.text,
    },
    required=("data",),
)


# --- rules that span fields -----------------------------------------------------------------------


def check_event(event: Any, path: str, now: float) -> Iterator[Problem]:
    """Everything wrong with one event of `data`."""
    yield from EVENT(event, path)
    if isinstance(event, dict):
        for rule in (_website, _match_keys, _money, _processing, _by_action_source):
            yield from rule(event, path)
        yield from _time(event, path, now)
        yield from must.clear_data({key: event[key] for key in event if key != "user_data"}, path)


def _time(event: dict[str, Any], path: str, now: float) -> Problems:
    time: Any = event.get("event_time")
    place = step(path, "event_time")
    oldest = MAX_AGE_IN_STORE if event.get("action_source") == "physical_store" else MAX_AGE
    if not must.is_number(time):
        return
    if time > 10**11:
        yield Problem(place, "must be in seconds", IN_FUTURE)
    elif time > now + MAX_AHEAD:
        yield Problem(place, "is in the future", IN_FUTURE)
    elif time < now - oldest:
        yield Problem(place, f"is older than {oldest // DAY} days", TOO_OLD)


def _website(event: dict[str, Any], path: str) -> Problems:
    if event.get("action_source") != "website":
        return
    if "event_source_url" not in event:
        yield Problem(step(path, "event_source_url"), "is missing, and action_source is website")
    if "client_user_agent" not in part(event, "user_data"):
        yield Problem(step(step(path, "user_data"), "client_user_agent"), "is missing, and action_source is website")


def _match_keys(event: dict[str, Any], path: str) -> Problems:
    keys = event.get("user_data")
    if isinstance(keys, dict) and any(set(keys) <= weak for weak in TOO_WEAK):
        yield Problem(step(path, "user_data"), "is too little to match a person by", TOO_LITTLE)


def _money(event: dict[str, Any], path: str) -> Problems:
    custom, place = part(event, "custom_data"), step(path, "custom_data")
    is_purchase = event.get("event_name") == "Purchase"
    if is_purchase and "value" not in custom:
        yield Problem(step(place, "value"), "is missing, and the event is a Purchase", WITHOUT_VALUE)
    if (is_purchase or "value" in custom) and "currency" not in custom:
        yield Problem(step(place, "currency"), "is missing beside value", WITHOUT_CURRENCY)


def _processing(event: dict[str, Any], path: str) -> Problems:
    """Limited data use: country and state come together, and Meta can only find them out by the IP address."""
    country, state = "data_processing_options_country", "data_processing_options_state"
    limited = event.get("data_processing_options") == ["LDU"]
    if limited and country not in event:
        yield Problem(step(path, country), "is missing beside LDU")
    if country in event and state not in event:
        yield Problem(step(path, state), "is missing beside the country")
    if limited and event.get(state) == 0 and "client_ip_address" not in part(event, "user_data"):
        yield Problem(step(path, state), "is 0, and there is no client_ip_address to find it out by")


def _by_action_source(event: dict[str, Any], path: str) -> Problems:
    if event.get("action_source") == "app" and "app_data" not in event:
        yield Problem(step(path, "app_data"), "is missing, and action_source is app")
    if event.get("action_source") == "business_messaging" and "messaging_channel" not in event:
        yield Problem(step(path, "messaging_channel"), "is missing, and action_source is business_messaging")


# --- taken, and yet worse than it could be --------------------------------------------------------


def warn_event(event: dict[str, Any], path: str) -> Iterator[Problem]:
    if "event_id" not in event:
        yield Problem(step(path, "event_id"), "is missing: a repetition counts twice")
    name = event.get("event_name")
    if name not in STANDARD_EVENTS and str(name).replace("_", "").lower() in _FOLDED_EVENTS:
        yield Problem(step(path, "event_name"), "is a custom event, one letter case away from a standard one")
    yield from _warn_user(part(event, "user_data"), step(path, "user_data"))
    yield from _warn_custom(event, part(event, "custom_data"), step(path, "custom_data"))


_FOLDED_EVENTS = frozenset(name.lower() for name in STANDARD_EVENTS)


def _warn_user(user: dict[str, Any], path: str) -> Problems:
    """Hashes of which all possible inputs can be listed show whether they were normalised."""
    for key, inputs in (("ge", _genders), ("country", _countries), ("db", _birth_dates)):
        if key in user and not {one.partition(".")[0] for one in _list(user[key])} <= inputs():
            yield Problem(step(path, key), "is not the hash of a normalised value: it matches nobody")
    found = _ip(user.get("client_ip_address"))
    if found is not None and any(found in network for network in _NOT_PEOPLE if network.version == found.version):
        yield Problem(step(path, "client_ip_address"), "is not a person's address: private or local")


def _warn_custom(event: dict[str, Any], custom: dict[str, Any], path: str) -> Problems:
    if ("contents" in custom or "content_ids" in custom) and "content_type" not in custom:
        yield Problem(step(path, "content_type"), "is missing beside ids")
    if event.get("event_name") == "Search" and "search_string" not in custom:
        yield Problem(step(path, "search_string"), "is missing, and the event is a Search")


_NOT_PEOPLE = tuple(
    map(
        ipaddress.ip_network,
        (
            "10.0.0.0/8",
            "172.16.0.0/12",
            "192.168.0.0/16",
            "127.0.0.0/8",
            "169.254.0.0/16",
            "::1",
            "fc00::/7",
            "fe80::/10",
        ),
    )
)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _hashes(values: Iterator[str]) -> frozenset[str]:
    return frozenset(hashlib.sha256(value.encode()).hexdigest() for value in values)


@cache
def _genders() -> frozenset[str]:
    return _hashes(iter("fm"))


@cache
def _countries() -> frozenset[str]:
    return _hashes(a + b for a, b in product(ascii_lowercase, repeat=2))


@cache
def _birth_dates() -> frozenset[str]:
    first = date(1900, 1, 1)
    return _hashes(f"{first + timedelta(days=day):%Y%m%d}" for day in range(150 * 365))


# --- request and answer ---------------------------------------------------------------------------


def events(call: Call) -> Ruling:
    """POST /{version}/{dataset}/events."""
    dataset = call.path["dataset"]
    body, problems = _body(call)
    token = _token(call, body)
    if not token or not call.admits(dataset, token):
        return _refused(
            call, dataset, Problem("access_token", "is missing, expired or not of this dataset", NOT_LOGGED_IN)
        )
    problems = [*_address(call), *(problems or _envelope(body))]
    envelope = {key: body[key] for key in body if key != "data"}
    if problems:
        return _refused(call, dataset, *problems, envelope=envelope)
    return _judge(call, dataset, body["data"], envelope)


def _body(call: Call) -> tuple[dict[str, Any], list[Problem]]:
    """What was sent, or why it could not be read."""
    kind = call.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    try:
        if kind == "application/json":
            body = read_json(call.body)
        elif kind == "application/x-www-form-urlencoded":
            body = dict(parse_qsl(call.body.decode(), keep_blank_values=True, strict_parsing=True))
            body |= {"data": read_json(body["data"].encode())} if "data" in body else {}
        else:
            return {}, [Problem("Content-Type", "must be application/json or application/x-www-form-urlencoded")]
    except ValueError:
        return {}, [Problem("body", "cannot be read as its Content-Type says")]
    return (body, []) if isinstance(body, dict) else ({}, [Problem("body", "must be an object")])


def _token(call: Call, body: dict[str, Any]) -> str:
    scheme, _, token = call.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    found = call.query.get("access_token") or body.get("access_token")
    return found if isinstance(found, str) else ""


def _address(call: Call) -> Problems:
    if _version(call) > _version_of(VERSIONS[-1]):
        yield Problem("version", "does not exist")
    if not re.fullmatch(r"[0-9]+", call.path["dataset"]):
        yield Problem("dataset", "was not found", NOT_FOUND)
    for key in set(call.query) - {"access_token", "appsecret_proof"}:
        yield Problem(step("query", key), "is an unknown field")


def _version_of(version: str) -> tuple[int, int]:
    major, minor = version.removeprefix("v").split(".")
    return int(major), int(minor)


def _version(call: Call) -> tuple[int, int]:
    return _version_of(call.path["version"])


def _envelope(body: dict[str, Any]) -> Problems:
    yield from ENVELOPE(body, "")
    data = body.get("data")
    if "data" in body and (not isinstance(data, list) or not 1 <= len(data) <= MOST_EVENTS):
        yield Problem("data", f"must be an array of 1 to {MOST_EVENTS} events")


def _judge(call: Call, dataset: str, data: list[Any], envelope: Any) -> Ruling:
    checked = tuple(_checked(event, f"data[{index}]", call) for index, event in enumerate(data))
    first = next((event.problems[0] for event in checked if event.problems), None)
    answer = _success(call, len(data)) if first is None else _error(first, _trace(call))
    return Ruling(dataset, answer, events=checked, envelope=envelope, atomic=True)


def _checked(event: Any, path: str, call: Call) -> Checked:
    problems = _with_code(check_event(event, path, call.now))
    fields = event if isinstance(event, dict) else {}
    name, event_id = as_id(fields.get("event_name")), as_id(fields.get("event_id"))
    warnings = () if problems else (*_warn_call(call), *warn_event(fields, path))
    key = (str(name), event_id) if event_id else None  # the fallback by fbp does not know server and server apart
    return Checked(event, name, event_id, key, problems, warnings)


def _warn_call(call: Call) -> Problems:
    if "access_token" in call.query:
        yield Problem("query.access_token", "ends up in logs: send it as a Bearer header")
    if _version(call) < _version_of(VERSIONS[0]):
        yield Problem("version", "has expired")


def _refused(call: Call, dataset: str, *problems: Problem, envelope: Any = None) -> Ruling:
    found = _with_code(problems)
    return Ruling(dataset, _error(found[0], _trace(call)), problems=found, envelope=envelope)


def _with_code(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    return tuple(problem if problem.code else replace(problem, code=INVALID) for problem in problems)


def _success(call: Call, count: int) -> Answer:
    headers = {}
    if _version(call) < _version_of(VERSIONS[0]):
        headers["X-Ad-Api-Version-Warning"] = f"The call has been auto-upgraded to {VERSIONS[0]}"
    return json_answer(200, {"events_received": count, "messages": [], "fbtrace_id": _trace(call)}, headers)


def _trace(call: Call) -> str:
    digest = hashlib.sha256(call.body + repr(call.now).encode()).digest()
    return "A" + base64.urlsafe_b64encode(digest)[:22].decode()


TEXTS = {
    TOO_OLD: "Event Timestamp Too Old",
    IN_FUTURE: "Event Timestamp In The Future",
    CONTENT_WITHOUT_ID: "Missing Content ID",
    WITHOUT_VALUE: "Missing Value For Purchase Event",
    NOT_HASHED: "Customer Information Not Hashed",
    WITHOUT_CURRENCY: "Missing Currency",
    WITHOUT_SYSTEM: "Missing Operating System",
    TOO_LITTLE: "Not Enough Customer Information",
}


def _error(problem: Problem, trace: str) -> Answer:
    """Meta's error, which names neither the event nor the field."""
    code, _, subcode = problem.code.partition("/")
    status = 401 if code == "190" else 400
    return json_answer(status, {"error": _error_body(int(code), int(subcode or 0), trace, TEXTS.get(problem.code, ""))})


def _error_body(code: int, subcode: int, trace: str, user_text: str = "") -> dict[str, Any]:
    messages: Mapping[int, str] = {
        1: "An unknown error occurred",
        4: "(#4) Application request limit reached",
        190: "Error validating access token",
    }
    error: dict[str, Any] = {
        "message": messages.get(code, "Invalid parameter"),
        "type": "OAuthException",
        "code": code,
        "is_transient": code == 1,
        "fbtrace_id": trace,
    }
    if subcode:
        error["error_subcode"] = subcode
    if user_text:
        error |= {"error_user_title": user_text, "error_user_msg": user_text}
    return error


def _failure(status: int, code: int, subcode: int = 0) -> Answer:
    """An error that has nothing to do with the request."""
    return json_answer(status, {"error": _error_body(code, subcode, "AFaultFaultFaultFaultFa")})


def platform() -> Platform:
    return Platform(
        name="meta",
        title="Meta Conversions API",
        routes=(Route(r"/{version:v\d+\.\d+}/{dataset}/events", events),),
        failures={
            "status_429": _failure(429, *THROTTLED),
            "status_500": _failure(500, 1),
            "throttle_400": _failure(400, *THROTTLED),
        },
        dedup_window=DEDUP_WINDOW,
        personal=HASHED,
    )
