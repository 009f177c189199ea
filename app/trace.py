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

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import orjson

from app import keys, redaction
from app.delivery import Job
from app.events import Event, Json
from app.log import cut
from app.settings import Trace
from sinks._base import Accepted, Delivered, Halt, Outcome, Payload, Request, person_ip

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


def rows(
    destination: str,
    kept: Sequence[tuple[Job, Outcome]],
    exchange: Exchange,
    answer: str,
    at: float,
    alone: Callable[[Sequence[Payload]], Request | Halt],
    *,
    lists: bool = False,
) -> list[tuple[Job, bytes]]:
    """Of a request, the rows of these events. `answer` is fit to be kept, and `at` is Unix time.

    `alone` makes the request as it would be for one event, without secrets; `lists` is `Sink.lists_events`.
    """
    heads: dict[tuple[str, str, int], bytes] = {}  # most events of a request have all of this in common
    asked = _asked([job for job, _ in kept], alone, lists=lists) if exchange.at else itertools.repeat(None)
    found = []
    for (job, outcome), request in zip(kept, asked, strict=False):
        same = kind(outcome), getattr(outcome, "reason", ""), job.attempts
        if (head := heads.get(same)) is None:
            head = heads[same] = _head(destination, at, exchange_of(job, exchange, outcome, answer))
        found.append((job, head + _tail(job, request)))
    return found


def row(job: Job, destination: str, request: Request | None, at: float, more: Mapping[str, Any]) -> bytes:
    """`request` is that of the event alone, made with masked secrets; None where none could be made. `at` is Unix time."""
    return _head(destination, at, more) + _tail(job, _read(request) if request else None)


_Asked = tuple[str, str, str]  # method, address and body of a request


def _asked(
    jobs: Iterable[Job], alone: Callable[[Sequence[Payload]], Request | Halt], *, lists: bool
) -> Iterator[_Asked | None]:
    """Of each event of a request, the request for it alone."""
    frame: list[str] = []  # what stands around the events, where it is the same for all of them
    method = url = ""
    for job in jobs:
        if frame:
            yield method, url, _without(job.payload.json.decode(), in_clear(job.event)).join(frame)
            continue
        payload = discreet(job.payload, job.event)
        request = alone([payload])
        if not isinstance(request, Request):
            yield None
            continue
        method, url, body = _read(request)
        yield method, url, body
        parts = body.split(payload.json.decode()) if lists else []
        frame = parts if len(parts) == 2 else []


def _read(request: Request) -> _Asked:
    return request.method, request.url, request.body.decode(errors="replace")


def _head(destination: str, at: float, more: Mapping[str, Any]) -> bytes:
    """The begin of a row, which `_tail` ends: JSON that was written once does for many rows."""
    said = {"v": 1, "time": int(at * 1000), "destination": destination, **more}
    return orjson.dumps({name: value for name, value in said.items() if value})[:-1] + b","


def _tail(job: Job, request: _Asked | None) -> bytes:
    event = job.event
    said: Json = {"event_name": event["event_name"], "event_id": event["event_id"]}
    if order := event.get("commerce", {}).get("transaction_id"):
        said["transaction_id"] = order
    if job.name:
        said["name"] = job.name
    if request:
        said["method"], said["url"], body = request
        said["body"] = body[:LONGEST_BODY]
        if len(body) > LONGEST_BODY:
            said["cut"] = 1
    return orjson.dumps(said)[1:]


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
    text = _masked(text)
    return text if len(text) <= LONGEST_ANSWER else f"{text[:LONGEST_ANSWER]} …"


#: A receipt for each event is the same text for as many events.
_masked = lru_cache(maxsize=32)(redaction.masked)


def discreet(payload: Payload, event: Event) -> Payload:
    """The payload without what tells of the person in clear: all that is hashed stays."""
    gone = in_clear(event)
    group = tuple([_without_in_text(text, gone) for text in payload.group])
    return payload.with_body(_without(payload.json.decode(), gone).encode(), group)


def in_clear(event: Event) -> dict[str, str]:
    """What the event says of the person in clear, in lower case -> what stands for it."""
    found: dict[str, str] = {}
    if context := event.get("context"):
        if agent := context.get("user_agent"):
            found[agent.lower()] = LEFT_OUT
        if address := context.get("ip"):
            found[address.lower()] = short = cut(address)
            if (written := person_ip(address)) not in ("", address):
                found[written.lower()] = short
    if user := event.get("user"):
        for place in (user.get("city"), user.get("region"), user.get("postal_code")):
            if place:
                found[place.lower()] = LEFT_OUT
    return found


def _without_in_text(text: str, gone: Mapping[str, str]) -> str:
    """A part of a group may be JSON, of what all events of a request have in common."""
    if not text.startswith("{"):
        return gone.get(text.lower(), text)
    try:
        return _without(text, gone)
    except orjson.JSONDecodeError:
        return text


def _without(text: str, gone: Mapping[str, str]) -> str:
    """This JSON with each text that is gone replaced.

    Of every event that is sent there is a row, so it is not read: a text stands in it between quotation marks, as it is.
    """
    lower = text.lower()
    if "\\" in text or len(lower) != len(text):  # but for texts with such a sign, and where lower case has other places
        return _read_without(text, gone)
    found: list[tuple[int, int, str]] = []  # begin, end, what stands for it
    for value, instead in gone.items():
        quoted = f'"{value}"'
        at = lower.find(quoted)
        if at >= 0 and (value[0] in _BETWEEN_TEXTS or '"' in value):
            return _read_without(text, gone)
        while at >= 0:
            end = at + len(quoted)
            if not text.startswith(":", end):  # else it is a name
                found.append((at, end, instead))
            at = lower.find(quoted, end)
    kept, done = "", 0
    for at, end, instead in sorted(found):
        kept += f'{text[done:at]}"{instead}"'
        done = end
    return kept + text[done:] if found else text


_BETWEEN_TEXTS = (":", ",", "]", "}")  # what may follow the end of a text


def _read_without(text: str, gone: Mapping[str, str]) -> str:
    return orjson.dumps(_without_in(orjson.loads(text), gone)).decode()


def _without_in(value: Any, gone: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return gone.get(value.lower(), value)
    if isinstance(value, dict):
        return {name: _without_in(inner, gone) for name, inner in value.items()}
    return [_without_in(inner, gone) for inner in value] if isinstance(value, list) else value
