"""What was said to a platform and what it answered, for one event: the rows of `<prefix>.trace`. Pure.

One request holds many events. Each of them has a row of its own, with the request as it would be for that event alone: whoever
looks at one person's event sees no other's. Nothing in a row lets anybody in: there are no headers, and secrets are masked. The IP
address is cut, and user agent and place are left out: platforms need them, nobody who looks does. Only what a destination in shadow
would have sent is kept whole, to be compared with what another system sends.

A row, by conversion key, JSON:

    v  version of the row           time  when it was sent, Unix milliseconds
    destination, event_name, event_id, transaction_id: of which event             name  the platform's, for the event
    method, url, body  the request, for this event alone                          events  how many it had
    attempt  counted from 1         seconds  until the answer                      status, answer  what came back; none: nothing did
    outcome  delivered, accepted, rejected, retry, halt; shadowed: it was not sent         reason
    cut  1 where the request was too long to be kept whole
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from operator import is_not
from typing import Any

import orjson

from app import keys, redaction
from app.delivery import Job
from app.events import Event, Json
from app.log import cut
from app.settings import Trace
from sinks._base import Accepted, Delivered, Outcome, Payload, Request, person_ip

LONGEST_BODY = 16_000  # characters of a request
LONGEST_ANSWER = 2_000  # characters of an answer
LEFT_OUT = "[not kept]"


@dataclass(frozen=True)
class Exchange:
    """A request that was sent, and what came back. Times in seconds."""

    outcomes: list[Outcome]  # one for each event
    usage: float = 0.0  # the part of the account's limits that is used
    at: float = 0.0  # Unix time of sending; 0: nothing was sent
    seconds: float = 0.0
    status: int = 0  # 0: no answer
    body: bytes = b""


def wanted(settings: Trace, job: Job, outcome: Outcome) -> bool:
    """Is this kept? Of failures only the first of a row of equal ones."""
    if settings.requests == "none":
        return False
    if isinstance(outcome, Delivered | Accepted):
        return settings.requests == "all" and keys.chosen(keys.conversion_id(job.event), settings.share)
    told = f"{kind(outcome)} {outcome.reason}"
    if job.told == told:
        return False
    job.told = told
    return True


def kind(outcome: Outcome) -> str:
    return type(outcome).__name__.lower()


def row(job: Job, destination: str, request: Request | None, at: float, more: Mapping[str, Any]) -> bytes:
    """`request` is that of the event alone, made with masked secrets; None where none could be made. `at` is Unix time."""
    event = job.event
    said: Json = {
        "v": 1,
        "time": int(at * 1000),
        "destination": destination,
        "event_name": event["event_name"],
        "event_id": event["event_id"],
        "transaction_id": event.get("commerce", {}).get("transaction_id"),
        "name": job.name,
        **more,
    }
    if request is not None:
        body = request.body.decode(errors="replace")
        said["method"], said["url"], said["body"] = request.method, request.url, body[:LONGEST_BODY]
        said["cut"] = int(len(body) > LONGEST_BODY)
    return orjson.dumps({name: value for name, value in said.items() if value})


def exchange_of(job: Job, exchange: Exchange, outcome: Outcome, answer: str) -> Json:
    """What a row says of an attempt; `answer` is fit to be kept."""
    return {
        "attempt": job.attempts + 1,
        "events": len(exchange.outcomes),
        "seconds": round(exchange.seconds, 3),
        "status": exchange.status,
        "answer": answer,
        "outcome": kind(outcome),
        "reason": getattr(outcome, "reason", ""),
    }


def answer(body: bytes, secrets: Mapping[str, str]) -> str:
    """What a platform answered, without secrets and personal data that it may have echoed."""
    if not body:
        return ""
    text = body[: 2 * LONGEST_ANSWER].decode(errors="replace")
    for secret in secrets.values():
        text = text.replace(secret, "MASKED") if secret else text
    text = redaction.masked(text)
    return text if len(text) <= LONGEST_ANSWER else f"{text[:LONGEST_ANSWER]} …"


def discreet(payload: Payload, event: Event) -> Payload:
    """The payload without what tells of the person in clear: all that is hashed stays."""
    gone = in_clear(event)
    if not gone:
        return payload
    group = tuple(_without_in_text(text, gone) for text in payload.group)
    return Payload(payload.event_id, _without(payload.body, gone), group, payload.dedup_window, payload.overhead)


def in_clear(event: Event) -> dict[str, str]:
    """What the event says of the person in clear, in lower case -> what stands for it."""
    context, user = event.get("context", {}), event.get("user", {})
    values = [context.get("user_agent"), user.get("city"), user.get("region"), user.get("postal_code")]
    found = {value.lower(): LEFT_OUT for value in values if value}
    if address := context.get("ip"):
        found |= _addresses(address)
    return found


@lru_cache(maxsize=1 << 14)  # each destination of an event asks
def _addresses(address: str) -> Mapping[str, str]:
    return {one.lower(): cut(address) for one in (address, person_ip(address)) if one}


def _without_in_text(text: str, gone: Mapping[str, str]) -> str:
    """A part of a group may be JSON, of what all events of a request have in common."""
    try:
        said = orjson.loads(text) if text.startswith("{") else text
    except orjson.JSONDecodeError:
        said = text
    found = _without(said, gone)
    return text if found is said else found if isinstance(found, str) else orjson.dumps(found).decode()


def _without(value: Any, gone: Mapping[str, str]) -> Any:
    """The value itself where it has none of them, and so in each of its parts: of every event that is sent there is a row."""
    if isinstance(value, str):
        return gone.get(value.lower(), value)
    if isinstance(value, dict):
        changed = {}
        # nearly all are texts, or digests in lists of their own: a call for each would cost more than the rest
        for name, inner in value.items():
            new: Any = inner
            if isinstance(inner, str):
                new = gone.get(inner.lower(), inner)
            elif isinstance(inner, list) and len(inner) == 1 and isinstance(inner[0], str):
                new = [gone[inner[0].lower()]] if inner[0].lower() in gone else inner
            elif isinstance(inner, _WITH_PARTS):
                new = _without(inner, gone)
            if new is not inner:
                changed[name] = new
        return {**value, **changed} if changed else value
    if isinstance(value, _WITH_PARTS):
        members = [_without(inner, gone) for inner in value]
        return members if any(map(is_not, members, value)) else value
    return value


_WITH_PARTS = (dict, list, tuple)
