"""A receiver of webhooks, as somebody would write one who read docs/event.md and Standard Webhooks 1.0.0:
https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md

POST {prefix}/{account}, or {prefix} alone, answers 204. One bad event fails the whole request with 400, a bad signature with 401.
The signature is computed where the secrets of the account are known to the sandbox; else only its form is looked at. The timestamp
is that of the attempt: more than five minutes from the receiver's clock is refused, as the standard's own libraries do it.
"""

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Collection, Iterator
from typing import Any

from app.sandbox import _checks as must
from app.sandbox._base import Answer, Call, Checked, Platform, Problem, Route, Ruling, as_id, json_answer, read_json
from app.sandbox._checks import Check, Problems, step, words

MOST_EVENTS = 1000
MOST_AHEAD = 5 * 60  # clocks differ
MOST_OLD = 5 * 60  # of a request: an older one may be a copy that somebody sends again
NOBODY = "(none)"
SIGNATURE = re.compile(r"v1,([A-Za-z0-9+/]{43}=)")


# --- the schema -----------------------------------------------------------------------------------


def moment(now: float) -> Check:
    def run(value: Any, path: str) -> Problems:
        yield from must.whole(0)(value, path)
        if not must.is_number(value):
            return
        if value < 10**11:
            yield Problem(path, "must be in milliseconds")
        elif value > (now + MOST_AHEAD) * 1000:
            yield Problem(path, "is in the future")

    return run


def texts(names: str) -> dict[str, Check]:
    return dict.fromkeys(words(names), _string)


def _string(value: Any, path: str) -> Problems:
    if not isinstance(value, str):
        yield Problem(path, "must be a string")


_variants = must.record({}, others=must.sha256)
_signal = must.one_of("granted", "denied")

#: Fields that hold hashes: clear text in them is masked when it was refused.
HASHED = words("email phone first_name last_name birth_date gender street places")

ITEM = must.record(
    {
        **texts("item_id item_name brand category variant coupon"),
        "quantity": must.whole(),
        **dict.fromkeys(words("price discount"), must.number),
    }
)
PARTS: dict[str, Check] = {
    "user": must.record({**dict.fromkeys(HASHED, _variants), **texts("city region postal_code country user_id")}),
    "context": must.record(texts("ip user_agent url referrer title language")),
    "ids": must.record({}, others=_string),
    "commerce": must.record(
        {
            **dict.fromkeys(words("value tax shipping discount"), must.number),
            **texts(
                "currency coupon transaction_id refund_id affiliation search_term payment_type shipping_tier method list_id "
                "list_name"
            ),
            "items": must.each(ITEM, least=0),
        }
    ),
    "consent": must.record(
        {
            **dict.fromkeys(words("ad_storage analytics_storage ad_user_data ad_personalization"), _signal),
            **texts("tcf gpp us_privacy"),
            "gpc": must.flag,
            "categories": must.record({}, others=must.flag),
        }
    ),
    "tags": must.record({}, others=must.record({"ran": must.flag, "event_id": _string})),
    "labels": must.each(must.text, least=0),
    "custom": must.record({}, others=must.scalar),
}


def event_check(now: float) -> Check:
    return must.record(
        {
            "event_id": must.text,
            "event_name": must.text,
            "site": must.text,
            "source": must.one_of("pixel", "server", "app", "offline", "crm"),
            "time": moment(now),
            "received": moment(now),
            "revision": must.whole(0),
            **PARTS,
        },
        required=("event_id", "event_name", "site", "source", "time", "received"),
        others=must.anything,  # the setting `map` may add what it likes
    )


def check_event(event: Any, path: str, now: float) -> Iterator[Problem]:
    """Everything wrong with one event of `events`."""
    yield from event_check(now)(event, path)
    yield from must.clear_data(event, path)
    commerce = event.get("commerce") if isinstance(event, dict) else None
    if isinstance(commerce, dict) and "value" in commerce and "currency" not in commerce:
        yield Problem(step(step(path, "commerce"), "currency"), "is missing beside value")


# --- the signature --------------------------------------------------------------------------------


def check_signature(call: Call, secrets: Collection[str] | None) -> Iterator[Problem]:
    """What is wrong with the three headers; `secrets` are those that may have signed, None when nobody knows."""
    given = {name: call.headers.get(f"webhook-{name}", "") for name in ("id", "timestamp", "signature")}
    if not re.fullmatch(r"[^\s.]{1,256}", given["id"]):
        yield Problem("webhook-id", "must be an id without a full stop")
    if not re.fullmatch(r"[0-9]{1,12}", given["timestamp"]):
        yield Problem("webhook-timestamp", "must be Unix seconds")
    elif int(given["timestamp"]) > call.now + MOST_AHEAD:
        yield Problem("webhook-timestamp", "is in the future")
    elif int(given["timestamp"]) < call.now - MOST_OLD:
        yield Problem("webhook-timestamp", "is older than five minutes")
    signatures = [found[1] for word in given["signature"].split(" ") if (found := SIGNATURE.fullmatch(word))]
    if not signatures:
        yield Problem("webhook-signature", "must be v1, a comma and an HMAC-SHA256 in base64")
    elif secrets is not None:
        content = f"{given['id']}.{given['timestamp']}.".encode(errors="surrogateescape") + call.body
        good = [hmac.new(key_of(secret), content, hashlib.sha256).digest() for secret in secrets]
        sent = [base64.b64decode(one) for one in signatures]
        if not any(hmac.compare_digest(one, other) for one in good for other in sent):
            yield Problem("webhook-signature", "is not that of any secret of this account")


def key_of(secret: str) -> bytes:
    """Standard Webhooks writes a key as whsec_ and base64; a text without that prefix is taken as it is."""
    prefix, _, encoded = secret.partition("_")
    if prefix != "whsec":
        return secret.encode()
    try:
        return base64.b64decode(encoded, validate=True)
    except binascii.Error:
        return secret.encode()


# --- request and answer ---------------------------------------------------------------------------


def receive(call: Call) -> Ruling:
    """POST {prefix}/{account}: all events, or none."""
    account = call.path.get("account", NOBODY)
    if unsigned := [*check_signature(call, call.tokens(account))]:
        return Ruling(account, json_answer(401, {"error": "signature"}), tuple(unsigned))
    refused = json_answer(400, {"error": "request"})
    if call.headers.get("Content-Type", "").partition(";")[0].strip().lower() != "application/json":
        return Ruling(account, refused, (Problem("Content-Type", "must be application/json"),))
    try:
        body = read_json(call.body)
    except ValueError:
        return Ruling(account, refused, (Problem("body", "cannot be read as JSON"),))
    problems = tuple(_BODY(body, ""))
    if problems:
        return Ruling(account, refused, problems)
    events = tuple(_checked(event, index, call.now) for index, event in enumerate(body["events"]))
    bad = any(event.problems for event in events)
    return Ruling(account, refused if bad else Answer(204), events=events, atomic=True)


_BODY = must.record({"events": must.each(must.anything, most=MOST_EVENTS)}, required=("events",))


def _checked(event: Any, index: int, now: float) -> Checked:
    path = f"events[{index}]"
    problems = tuple(check_event(event, path, now))
    fields = event if isinstance(event, dict) else {}
    identity = tuple(str(fields.get(key, 0)) for key in ("site", "event_name", "event_id", "revision"))
    unknown = sorted(fields.keys() - PARTS.keys() - _IDENTITY)
    warnings = tuple(Problem(step(path, key), "is no part of an event") for key in unknown)
    return Checked(event, as_id(fields.get("event_name")), as_id(fields.get("event_id")), identity, problems, warnings)


_IDENTITY = words("event_id event_name site source time received revision")


def platform() -> Platform:
    return Platform(
        name="webhook",
        title="Webhook receiver",
        routes=(Route("/{account}", receive), Route("", receive)),
        failures={
            "status_429": json_answer(429, {"error": "too many requests"}),
            "status_500": json_answer(500, {"error": "trouble"}),
        },
        personal=HASHED,
    )
