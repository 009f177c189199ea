"""TikTok Events API 2.0, emulated.

Source of facts: TikTok's reference of /event/track/, its help pages on events, their names and their de-duplication, its
tag template for server containers, and what its partners publish of its answers.

POST {prefix}/open_api/v1.3/event/track/, JSON. The HTTP status is 200 for right and wrong; the code in the body tells.
One bad event fails the whole request, and the message names its place: "data.3.properties.contents.0.content_id: ...".
"""

import hashlib
import ipaddress
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
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
from app.sandbox._checks import Problems, step, words

DAY = 86_400
MAX_AGE = 7 * DAY  # no page of TikTok's tells; senders in the field keep to it
MAX_AHEAD = 60  # clocks differ
MOST_EVENTS = 1000
DEDUP_WINDOW = 48 * 3600

OK = 0
NO_PERMISSION = 40001
INVALID = 40002
THROTTLED = 40100
NO_TOKEN = 40104
BAD_TOKEN = 40105
TROUBLE = 50000

EVENT_SOURCES = ("web", "app", "offline", "crm")
STANDARD_EVENTS = words(
    """
    AddPaymentInfo AddToCart AddToWishlist ApplicationApproval CompleteRegistration Contact CustomizeProduct Download
    FindLocation InitiateCheckout Lead PageView Pageview Purchase Schedule Search StartTrial SubmitApplication Subscribe
    ViewContent
    """
)
#: Turned into standard events, or about to end.
OTHER_EVENTS = words(
    """
    AddBilling Browse Checkout ClickButton ClickForm ClickInDownloadPage ClickToDownload CompletePayment Consult
    ConsultByPhone PlaceAnOrder Registration StartCheckout SubmitForm ViewConsultationPage ViewDownloadPage ViewForm
    """
)

HASHED_LISTS = words("email phone external_id")
HASHED = words("first_name last_name zip_code")
MATCHING = words("email phone external_id ttclid ttp")


# --- the schema -----------------------------------------------------------------------------------


def bare(value: Any, path: str) -> Problems:
    """A place as TikTok compares it: lower case, letters and digits only."""
    if not isinstance(value, str) or not value:
        yield Problem(path, "must be a string")
    elif value != value.lower() or not all(c.isalnum() or unicodedata.category(c)[0] == "M" for c in value):
        yield Problem(path, "must be lower case, of letters and digits only")


_raw_text = must.not_hashed(must.text)
_language = must.like(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{1,8})*", "a language tag as BCP 47 writes it")
_product_type = must.one_of("product", "product_group")
_anything = must.record({}, others=must.anything)

USER = must.record(
    {
        **dict.fromkeys(HASHED_LISTS, must.one_or_many(must.sha256)),
        **dict.fromkeys(HASHED, must.sha256),
        **dict.fromkeys(words("city state country"), must.not_hashed(bare)),
        **dict.fromkeys(words("ttclid ttp user_agent idfv att_status"), _raw_text),
        **dict.fromkeys(words("idfa gaid"), must.text),
        "ip": must.not_hashed(must.ip),
        "locale": must.not_hashed(_language),
    }
)

CONTENT = must.record(
    {
        **dict.fromkeys(words("content_id content_name content_category brand"), must.text),
        "content_type": _product_type,
        "price": must.number,
        "quantity": must.whole(1),
    }
)

PROPERTIES = must.record(
    {
        "value": must.number,
        "currency": must.upper_currency,
        "contents": must.each(CONTENT),
        "content_ids": must.each(must.text),
        "content_type": _product_type,
        "num_items": must.whole(0),
        **dict.fromkeys(words("order_id shop_id search_string query description delivery_category"), must.text),
        "predicted_ltv": must.number,
        "customer_type": must.one_of("new", "returning"),
    },
    others=must.scalar,  # the parameters of custom events
)

EVENT = must.record(
    {
        "event": must.like(r"[A-Za-z][A-Za-z0-9_-]{0,49}", "a letter, then up to 49 letters, digits, _ and -"),
        "event_time": must.whole(),
        "event_id": must.text,
        "user": USER,
        "properties": PROPERTIES,
        "page": must.record({"url": must.url, "referrer": must.text}),
        "limited_data_use": must.flag,
        "lead": must.record({"lead_id": must.text, "lead_event_source": must.text}),
        "ad": _anything,
        "app": _anything,
        "device": _anything,
    },
    required=("event", "event_time", "user"),
)

ENVELOPE = must.record(
    {
        "event_source": must.one_of(*EVENT_SOURCES),
        "event_source_id": must.text,
        "data": must.anything,  # event by event, below
        "test_event_code": must.text,
        "partner_name": must.text,
    },
    required=("event_source", "event_source_id", "data"),
)


# --- rules that span fields -----------------------------------------------------------------------


def check_event(event: Any, path: str, now: float, source: str = "web") -> Problems:
    """Everything wrong with one event of `data`."""
    yield from EVENT(event, path)
    if isinstance(event, dict):
        yield from _time(event, path, now)
        if source == "web" and "url" not in part(event, "page"):
            yield Problem(step(step(path, "page"), "url"), "is missing, and event_source is web")
        if "value" in part(event, "properties") and "currency" not in part(event, "properties"):
            yield Problem(step(step(path, "properties"), "currency"), "is missing beside value")
        yield from must.clear_data({key: event[key] for key in event if key != "user"}, path)


def _time(event: dict[str, Any], path: str, now: float) -> Problems:
    time: Any = event.get("event_time")
    place = step(path, "event_time")
    if not must.is_number(time):
        return
    if time > 10**11:
        yield Problem(place, "must be in seconds")
    elif time > now + MAX_AHEAD:
        yield Problem(place, "is in the future")
    elif time < now - MAX_AGE:
        yield Problem(place, f"is older than {MAX_AGE // DAY} days")


# --- what is taken and could be better ------------------------------------------------------------


def warn_event(event: dict[str, Any], path: str, source: str = "web") -> Problems:
    yield from _warn_name(event, path)
    yield from _warn_user(part(event, "user"), step(path, "user"))
    if "event_id" not in event:
        yield Problem(step(path, "event_id"), "is missing, so every copy counts, the pixel's too")
    if source in {"offline", "crm"} and event.get("limited_data_use") is True:
        yield Problem(step(path, "limited_data_use"), "is for web and app events only")
    if source != "crm" and "lead" in event:
        yield Problem(step(path, "lead"), "is for crm events only")


def _warn_name(event: dict[str, Any], path: str) -> Problems:
    name, place = event["event"], step(path, "event")
    if name in OTHER_EVENTS:
        yield Problem(place, "is a reserved or old name, which TikTok replaces by another")
    elif name not in STANDARD_EVENTS and _letters(name) in map(_letters, STANDARD_EVENTS):
        yield Problem(place, "is a standard event in another spelling, and counts as a custom event")


def _letters(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _warn_user(user: dict[str, Any], path: str) -> Problems:
    if MATCHING.isdisjoint(user) and not {"ip", "user_agent"} <= user.keys():
        yield Problem(path, "is too little to match a person by")
    if "ttclid" in user and not user["ttclid"].startswith("E.C.P."):
        yield Problem(step(path, "ttclid"), "does not look like a click id: E.C.P. and more")
    if "%" in user.get("ttclid", ""):
        yield Problem(step(path, "ttclid"), "is still percent-encoded")
    address = must.parse_ip(user.get("ip"))
    if address is not None and any(address in network for network in _NOT_PEOPLE):
        yield Problem(step(path, "ip"), "is private or local")


_NOT_PEOPLE = tuple(
    map(
        ipaddress.ip_network,
        words("10.0.0.0/8 172.16.0.0/12 192.168.0.0/16 127.0.0.0/8 169.254.0.0/16 ::1 fc00::/7 fe80::/10"),
    )
)


# --- request and answer ---------------------------------------------------------------------------


def track(call: Call) -> Ruling:
    """POST /open_api/v1.3/event/track/."""
    body, problems = read_object(call)
    source_id = as_id(body.get("event_source_id")) or "(none)"
    token = call.headers.get("Access-Token", "").strip()
    if not token:
        return _refused(call, source_id, Problem("Access-Token", "is missing", str(NO_TOKEN)))
    if not call.admits(source_id, token):
        wrong = Problem("Access-Token", "is incorrect, expired or revoked", str(BAD_TOKEN))
        return _refused(call, source_id, wrong)
    problems = problems or [*_envelope(body)]
    envelope = {key: body[key] for key in body if key != "data"}
    if problems:
        return _refused(call, source_id, *problems, envelope=envelope)
    source, data = body["event_source"], body["data"]
    events = tuple(_checked(event, f"data[{index}]", call, source) for index, event in enumerate(data))
    first = next((event.problems[0] for event in events if event.problems), None)
    return Ruling(source_id, _answer(call, first), events=events, envelope=envelope, atomic=True)


def _envelope(body: dict[str, Any]) -> Problems:
    yield from ENVELOPE(body, "")
    source_id = body.get("event_source_id")
    if body.get("event_source") == "web" and isinstance(source_id, str) and not re.fullmatch("[A-Z0-9]{5,}", source_id):
        yield Problem("event_source_id", "is no pixel code that this token may use", str(NO_PERMISSION))
    data = body.get("data")
    if "data" in body and (not isinstance(data, list) or not 1 <= len(data) <= MOST_EVENTS):
        yield Problem("data", f"must be an array of 1 to {MOST_EVENTS} events")


def _checked(event: Any, path: str, call: Call, source: str) -> Checked:
    problems = _with_code(check_event(event, path, call.now, source))
    fields = event if isinstance(event, dict) else {}
    name, event_id = as_id(fields.get("event")), as_id(fields.get("event_id"))
    warnings = () if problems else tuple(warn_event(fields, path, source))
    key = (str(name), event_id) if event_id else None
    return Checked(event, name, event_id, key, problems, warnings)


def _with_code(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    return tuple(problem if problem.code else replace(problem, code=str(INVALID)) for problem in problems)


def _refused(call: Call, source_id: str, *problems: Problem, envelope: Any = None) -> Ruling:
    found = _with_code(problems)
    return Ruling(source_id, _answer(call, found[0]), problems=found, envelope=envelope)


def _answer(call: Call, problem: Problem | None) -> Answer:
    """All is well, or the first problem and its place."""
    request_id = (
        f"{datetime.fromtimestamp(call.now, UTC):%Y%m%d%H%M%S}{hashlib.sha256(call.body).hexdigest()[:20].upper()}"
    )
    if problem is None:
        return _said(200, OK, "OK", request_id)
    place = re.sub(r"\[(\d+)\]", r".\1", problem.field)
    return _said(200, int(problem.code), f"{place}: {problem.reason}", request_id)


def _said(status: int, code: int, message: str, request_id: str = "20261123000000FAFAFAFAFAFAFAFAFAFA") -> Answer:
    return json_answer(status, {"code": code, "message": message, "request_id": request_id, "data": {}})


def platform() -> Platform:
    throttled = "Too many requests. Please retry in some time."
    return Platform(
        name="tiktok",
        title="TikTok Events API",
        routes=(Route("/open_api/v1.3/event/track/", track),),
        failures={
            "status_429": _said(429, THROTTLED, throttled),
            "throttle_200": _said(200, THROTTLED, throttled),
            "throttle_401": _said(401, THROTTLED, throttled),
            "status_500": _said(500, TROUBLE, "System error"),
        },
        dedup_window=DEDUP_WINDOW,
        personal=HASHED_LISTS | HASHED,
    )
