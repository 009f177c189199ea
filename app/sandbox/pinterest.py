"""Pinterest Conversions API v5, emulated.

Source of facts: the OpenAPI description that Pinterest publishes (github.com/pinterest/api-description, v5/openapi.yaml,
release 5.23.0), its guide to tracking conversions, and answers that others have shown in public.

POST {prefix}/v5/ad_accounts/{account}/events, JSON. What breaks the schema, such as an unknown field, fails the whole request
with HTTP 400. Events that fit the schema and are wrong for another reason fail alone: the answer is then HTTP 422 with a
result for each event under `details`, and the others are taken. With ?test=true nothing is kept.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import date, timedelta
from functools import cache
from itertools import product
from string import ascii_lowercase
from typing import Any

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
    read_object,
)
from app.sandbox._checks import Check, Problems, step, words

HOUR = 3600
MAX_AGE = 365 * 24 * HOUR  # no limit is published; an event of 18 months ago was refused
MAX_AHEAD = 60  # clocks differ
MOST_EVENTS = 1000
DEDUP_WINDOW = HOUR  # nothing is published: the shortest that anybody reports

MALFORMED = "4196"
NOT_PROCESSED = "953"
NOT_LOGGED_IN = "2"

EVENT_NAMES = words(
    """
    add_payment_info add_to_cart add_to_wishlist app_install app_open checkout contact custom customize_product find_location
    initiate_checkout lead page_visit schedule search signup start_trial submit_application subscribe view_category
    view_content watch_video
    """
)
ACTION_SOURCES = ("app_android", "app_ios", "web", "offline")

HASHED = words("em ph fn ln ge db ct st zp country external_id hashed_maids")


# --- the schema: what breaks it fails the request -------------------------------------------------


def nullable(check: Check) -> Check:
    def run(value: Any, path: str) -> Problems:
        return iter(()) if value is None else check(value, path)

    return run


def string(value: Any, path: str) -> Problems:
    if not isinstance(value, str):
        yield Problem(path, "must be a string")


def shorter_than(most: int) -> Check:
    def run(value: Any, path: str) -> Problems:
        yield from string(value, path)
        if isinstance(value, str) and len(value) > most:
            yield Problem(path, f"must have at most {most} characters")

    return run


def int64(value: Any, path: str) -> Problems:
    yield from must.whole()(value, path)
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        yield Problem(path, "is out of range")


def between(least: int, most: int | None = None) -> Check:
    def run(value: Any, path: str) -> Problems:
        yield from must.whole(least)(value, path)
        if most is not None and isinstance(value, int) and value > most:
            yield Problem(path, f"must be at most {most}")

    return run


_strings = must.each(string, least=0)
_text_or_null = nullable(string)


def _each(names: str, check: Check) -> dict[str, Check]:
    return dict.fromkeys(names.split(), check)


_USER_DATA = must.record(
    {
        **dict.fromkeys(HASHED, _strings),
        **_each("client_ip_address client_user_agent", string),
        **_each("click_id partner_id", _text_or_null),
    }
)


def user_data(value: Any, path: str) -> Problems:
    yield from _USER_DATA(value, path)
    if isinstance(value, dict) and not (
        value.keys() & {"em", "hashed_maids"} or {"client_ip_address", "client_user_agent"} <= value.keys()
    ):
        yield Problem(path, "must have em, hashed_maids, or client_ip_address and client_user_agent")


CONTENT = must.record({**_each("id item_price item_name item_category item_brand", string), "quantity": int64})

CUSTOM_DATA = must.record(
    {
        **_each("currency content_name content_category content_brand order_id search_string", _text_or_null),
        **_each("value predicted_ltv opt_out_type np external_measurement_id", _text_or_null),
        "external_measurement_vendor_id": nullable(must.whole()),
        "num_items": int64,
        "content_ids": _strings,
        "contents": must.each(CONTENT, least=0),
    }
)

APP_INFO = must.record(
    {
        **_each("app_id app_name app_package_name", shorter_than(200)),
        **_each("app_store app_version", shorter_than(100)),
        "user_agent": shorter_than(16384),
        "install_time": between(0),
        **_each("window_height window_width", between(0, 30720)),
    }
)

DEVICE_INFO = must.record(
    {
        **_each("brand carrier kernel_version model os_name os_release_name os_version type", shorter_than(100)),
        "locale": shorter_than(35),
        "timezone": shorter_than(40),
        "timezone_abbr": shorter_than(5),
        "languages": must.each(string, least=0, most=100),
        "battery_level": between(0, 100),
        "cpu_cores": between(0, 1152),
        **_each("screen_height screen_width", between(0, 30720)),
        "screen_density": between(0, 100_000),
        **_each("storage_size storage_free_space", between(0, 2**20)),
        **_each("external_storage_size external_storage_free_space", between(0, 2**20)),
        "form_factor": must.one_of(
            "desktop", "laptop", "cellphone", "tablet", "smartwatch", "tv", "vr", "console", "other"
        ),
        "network_type": must.one_of("wifi", *(f"cellular_{number}g" for number in range(2, 7)), "ethernet", "unknown"),
        "os_family": must.one_of("ios", "android", "macos", "windows", "linux", "bsd", "other"),
    }
)

EVENT = must.record(
    {
        **_each("event_name action_source event_id", string),
        "event_time": int64,
        "user_data": user_data,
        "custom_data": CUSTOM_DATA,
        **_each("event_source_url partner_name language", _text_or_null),
        **_each("app_id app_name app_version", _text_or_null),
        **_each("device_brand device_carrier device_model device_type os_version", _text_or_null),
        **_each("opt_out wifi", must.flag),
        "app_info": APP_INFO,
        "device_info": DEVICE_INFO,
    },
    required=("event_name", "action_source", "event_time", "event_id", "user_data"),
)

ENVELOPE = must.record({"data": must.anything}, required=("data",))  # event by event, below


# --- rules beyond the schema: what breaks them fails alone ----------------------------------------


def check_event(event: dict[str, Any], path: str, now: float) -> Iterator[Problem]:
    """Everything wrong with one event that fits the schema."""
    present = _without_nulls(event)
    yield from must.text(present["event_id"], step(path, "event_id"))
    yield from must.like("[A-Za-z0-9_-]{1,100}", "a name of 1 to 100 letters, digits, _ and -")(
        present["event_name"], step(path, "event_name")
    )
    yield from must.one_of(*ACTION_SOURCES)(present["action_source"], step(path, "action_source"))
    yield from _time(present["event_time"], step(path, "event_time"), now)
    for fields, place in (
        (present, path),
        (part(present, "user_data"), step(path, "user_data")),
        (part(present, "custom_data"), step(path, "custom_data")),
        *((content, f"{path}.custom_data.contents[{i}]") for i, content in enumerate(_contents(present))),
    ):
        yield from _values(fields, place)
    yield from must.clear_data({key: event[key] for key in event if key != "user_data"}, path)


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(member) for key, member in value.items() if member is not None}
    return value


def _contents(event: dict[str, Any]) -> list[Any]:
    found: list[Any] = part(event, "custom_data").get("contents", [])
    return found


def _time(time: int, path: str, now: float) -> Problems:
    if time > now + MAX_AHEAD:
        yield Problem(path, "is a timestamp in the future")
    elif time < now - MAX_AGE:
        yield Problem(path, "is a timestamp too far in the past")


def _values(fields: dict[str, Any], path: str) -> Problems:
    for key, value in fields.items():
        if key in VALUES:
            yield from VALUES[key](value, step(path, key))


_decimal = must.like(r"-?[0-9]+(\.[0-9]+)?", "a decimal number in a string")

#: What is checked of a field wherever it stands; the schema has seen to its type.
VALUES: Mapping[str, Check] = {
    **dict.fromkeys(HASHED, must.each(must.sha256)),
    "client_ip_address": must.not_hashed(must.ip),
    "client_user_agent": must.not_hashed(must.text),
    "click_id": must.not_hashed(must.text),
    "event_source_url": must.url,
    "language": must.like("[a-z]{2}", "a language of ISO 639-1"),
    "partner_name": must.like("ss-[a-z0-9_-]+", "ss- and a name in lower case"),
    "currency": must.upper_currency,
    "opt_out_type": must.like("[A-Z]+(,[A-Z]+)*", "flags such as LDP, with commas between them"),
    **_each("value predicted_ltv item_price", _decimal),
    **_each("order_id search_string content_name content_category content_brand", must.text),
    **_each("id item_name item_category item_brand", must.text),
    "content_ids": must.each(must.text, least=0),
    "quantity": must.whole(1),
    "num_items": must.whole(0),
}


# --- taken, and yet worse than it could be --------------------------------------------------------


def warn_event(event: dict[str, Any], path: str, now: float) -> Iterator[Problem]:
    if event["event_name"] not in EVENT_NAMES:
        yield Problem(step(path, "event_name"), "is an event of your own: it counts in no conversion report")
    if event["action_source"] != "offline" and event["event_time"] < now - HOUR:
        yield Problem(step(path, "event_time"), "is more than an hour ago: the event counts as offline")
    if event["action_source"] == "web" and not event.get("event_source_url"):
        yield Problem(step(path, "event_source_url"), "is missing, and action_source is web")
    yield from _warn_custom(event, part(event, "custom_data"), step(path, "custom_data"))
    yield from _warn_user(part(event, "user_data"), step(path, "user_data"))


def _warn_custom(event: dict[str, Any], custom: dict[str, Any], path: str) -> Problems:
    if event["event_name"] == "checkout" and not custom.get("value"):
        yield Problem(step(path, "value"), "is missing, and the event is a checkout")
    if custom.get("value") and not custom.get("currency"):
        yield Problem(step(path, "currency"), "is missing beside value: the ad account's own is taken")


def _warn_user(user: dict[str, Any], path: str) -> Problems:
    for key, inputs in _LISTABLE.items():
        if not set(user.get(key, ())) <= inputs():
            yield Problem(step(path, key), "is not the hash of a normalised value: it matches nobody")


def _hashes(values: Iterable[str]) -> frozenset[str]:
    return frozenset(hashlib.sha256(value.encode()).hexdigest() for value in values)


@cache
def _genders() -> frozenset[str]:
    return _hashes("fmn")


@cache
def _two_letters() -> frozenset[str]:
    return _hashes(a + b for a, b in product(ascii_lowercase, repeat=2))


@cache
def _birth_dates() -> frozenset[str]:
    first = date(1900, 1, 1)
    return _hashes(f"{first + timedelta(days=day):%Y%m%d}" for day in range(150 * 365))


#: Hashes of which all possible inputs can be listed show whether they were normalised.
_LISTABLE: Mapping[str, Callable[[], frozenset[str]]] = {
    "ge": _genders,
    "st": _two_letters,
    "country": _two_letters,
    "db": _birth_dates,
}


# --- request and answer ---------------------------------------------------------------------------


def events(call: Call) -> Ruling:
    """POST /v5/ad_accounts/{account}/events."""
    return replace(_ruling(call), dry_run=call.query.get("test") == "true")


def _ruling(call: Call) -> Ruling:
    account = call.path["account"]
    scheme, _, token = call.headers.get("Authorization", "").partition(" ")
    token = token.strip() if scheme.lower() == "bearer" else ""
    if not token or not call.admits(account, token):
        problem = Problem("Authorization", "is missing, or the token is not good for this ad account", NOT_LOGGED_IN)
        return Ruling(account, _error(call, 401, 2, "Authentication failed."), problems=(problem,))
    body, unreadable = read_object(call)
    problems = _coded([*_address(call), *(unreadable or _envelope(body))], MALFORMED)
    if problems:
        return Ruling(account, _malformed(call), problems=problems)
    return _judge(call, account, body["data"])


def _address(call: Call) -> Problems:
    if not re.fullmatch("[0-9]{1,18}", call.path["account"], re.ASCII):
        yield Problem("ad_account_id", "must be 1 to 18 digits")
    if call.query.get("test", "false") not in {"true", "false"}:
        yield Problem("query.test", "must be true or false")
    for key in set(call.query) - {"test"}:
        yield Problem(step("query", key), "is an unknown parameter")


def _envelope(body: dict[str, Any]) -> Problems:
    yield from ENVELOPE(body, "")
    data = body.get("data")
    if "data" in body and (not isinstance(data, list) or not 1 <= len(data) <= MOST_EVENTS):
        yield Problem("data", f"must be an array of 1 to {MOST_EVENTS} events")


def _judge(call: Call, account: str, data: list[Any]) -> Ruling:
    malformed = [_coded(EVENT(event, f"data[{index}]"), MALFORMED) for index, event in enumerate(data)]
    if any(malformed):
        checked = tuple(_checked(event, problems) for event, problems in zip(data, malformed, strict=True))
        return Ruling(account, _malformed(call), events=checked, atomic=True)
    checked = tuple(_processed(call, account, event, f"data[{index}]") for index, event in enumerate(data))
    return Ruling(account, _receipt(call, checked), events=checked)


def _processed(call: Call, account: str, event: dict[str, Any], path: str) -> Checked:
    problems = _coded(check_event(event, path, call.now), NOT_PROCESSED)
    if not problems and call.spoils(account):
        problems = (Problem(path, "could not be processed", NOT_PROCESSED),)
    return _checked(event, problems, () if problems else tuple(warn_event(event, path, call.now)))


def _checked(event: Any, problems: tuple[Problem, ...], warnings: tuple[Problem, ...] = ()) -> Checked:
    fields = event if isinstance(event, dict) else {}
    name, event_id = as_id(fields.get("event_name")), as_id(fields.get("event_id"))
    # Pinterest says of offline events that it cannot know them again
    key = (str(name), event_id) if event_id and fields.get("action_source") != "offline" else None
    return Checked(event, name, event_id, key, problems, warnings)


def _coded(problems: Iterable[Problem], code: str) -> tuple[Problem, ...]:
    return tuple(replace(problem, code=code) for problem in problems)


def _receipt(call: Call, checked: tuple[Checked, ...]) -> Answer:
    """HTTP 200 when all events were processed, else 422 with the same under `details`."""
    results = [
        {
            "status": "failed" if event.problems else "processed",
            "error_message": _message(event.problems),
            "warning_message": _message(event.warnings),
        }
        for event in checked
    ]
    processed = sum(not event.problems for event in checked)
    receipt = {"num_events_received": len(checked), "num_events_processed": processed, "events": results}
    if processed == len(checked):
        return json_answer(200, receipt, _headers(call))
    body = {"code": 953, "message": "Not all events were successfully processed.", "details": receipt}
    return json_answer(422, body, _headers(call))


def _message(problems: tuple[Problem, ...]) -> str:
    """The first one. Only the last part of its path: an event has a result of its own."""
    return f"{problems[0].field.rpartition('.')[2]} {problems[0].reason}" if problems else ""


def _malformed(call: Call) -> Answer:
    return _error(call, 400, 4196, "The request was invalid.")


def _error(call: Call, status: int, code: int, message: str) -> Answer:
    return json_answer(status, {"code": code, "message": message}, _headers(call))


def _headers(call: Call) -> dict[str, str]:
    digest = hashlib.sha256(call.body + repr(call.now).encode()).digest()
    return {"X-Pinterest-Rid": str(int.from_bytes(digest[:7]))}


def platform() -> Platform:
    return Platform(
        name="pinterest",
        title="Pinterest Conversions API",
        routes=(Route("/v5/ad_accounts/{account}/events", events),),
        failures={
            "status_429": json_answer(429, {"code": 8, "message": "This request exceeded a rate limit."}),
            "status_500": json_answer(500, {"code": 12, "message": "Something went wrong on our end."}),
        },
        dedup_window=DEDUP_WINDOW,
        partial=True,
        personal=HASHED,
    )
