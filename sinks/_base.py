"""What a sink is: pure functions from an event to a request, and from an answer to outcomes.

A sink does no I/O, keeps no state, holds no secret and reads no clock. agents/deliver does all of that, once, the same
way for every platform: batching, tokens, sending, retries, splitting, halts, records.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any, ClassVar, Literal, Protocol

from app.events import Event, Source
from app.settings import Destination

Purpose = Literal["advertising", "analytics", "other"]

DAY = 86_400


@dataclass(frozen=True)
class Limits:
    """What the platform allows. Times in seconds, sizes in bytes."""

    events: int  # per request
    bytes: int  # per request body
    max_age: int  # older events are refused
    max_age_by_source: Mapping[Source, int] = field(default_factory=dict)
    dedup_window: int = 0  # how long the platform recognises a repeated event id; 0: never
    timeout: float = 10.0  # of one request
    api_version: str = ""
    sunset: date | None = None  # when this API version stops answering

    def age_limit(self, source: Source) -> int:
        return self.max_age_by_source.get(source, self.max_age)


@dataclass(frozen=True)
class Payload:
    """One event as the platform wants it."""

    event_id: str
    body: dict[str, Any]  # JSON
    group: tuple[str, ...] = ()  # what must be equal in one request beside the destination


@dataclass(frozen=True)
class Skip:
    """This platform cannot or must not have this event. Final, and no error."""

    reason: str


@dataclass(frozen=True)
class Request:
    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Response:
    """What came back. `body` is at most the first 64 kB."""

    status: int
    headers: Mapping[str, str]
    body: bytes


# Reasons are a few fixed texts that letters and receipts are grouped by; what differs each time, such as the platform's own
# id of the request, is detail. Neither ever holds a secret or anything of the event.


@dataclass(frozen=True)
class Delivered:
    detail: str = ""  # the platform's receipt or warning, without personal data


@dataclass(frozen=True)
class Retry:
    """Not taken, and it may be taken later."""

    reason: str
    after: float | None = None  # seconds the platform asked for
    detail: str = ""


@dataclass(frozen=True)
class Rejected:
    """Will never be taken. `whole`: the platform failed all events for one it does not name, so the engine splits."""

    reason: str
    whole: bool = False
    detail: str = ""


@dataclass(frozen=True)
class Halt:
    """Credentials or account are wrong: nothing can be delivered until somebody acts. Events stay where they are."""

    reason: str
    detail: str = ""


Outcome = Delivered | Retry | Rejected | Halt


class Sink(Protocol):
    """Built from its settings, once per destination."""

    kind: ClassVar[str]  # "meta": what `sink = ` in the configuration says
    title: ClassVar[str]  # "Meta Conversions API"
    purpose: ClassVar[Purpose]  # decides which consent is needed by default
    Settings: ClassVar[type[Destination]]
    takes_revisions: ClassVar[bool]  # can the platform restate an event that it has? Else late changes do not go to it
    variants: ClassVar[Mapping[str, str]]  # identifier -> hash rule of app/identity.py
    limits: Limits

    def __init__(self, settings: Any) -> None: ...

    def encode(self, event: Event) -> Payload | Skip:
        """The event in the platform's words. Never raises for an Event that fits its schema."""
        ...

    def request(self, batch: Sequence[Payload], token: str) -> Request:
        """One request for payloads of one group. `token` is the destination's secret, fetched by the engine."""
        ...

    def verdict(self, batch: Sequence[Payload], response: Response) -> list[Outcome]:
        """One outcome per payload, in order. A 200 is read before it is believed."""
        ...


def retry_after(response: Response) -> float | None:
    """Seconds of a Retry-After header given as a number; dates are ignored (platforms send numbers)."""
    try:
        seconds = float(response.headers.get("Retry-After", ""))
    except ValueError:
        return None
    return max(0.0, seconds) if math.isfinite(seconds) else None


def hashed(user: Mapping[str, Any], variants: Mapping[str, str]) -> dict[str, str]:
    """Pick the identifiers that a sink takes of a person, each in the variant it names, else as it was given."""
    chosen = {name: user.get(name, {}).get(rule) or user.get(name, {}).get("given") for name, rule in variants.items()}
    return {name: digest for name, digest in chosen.items() if digest}


def one_for_all(batch: Sequence[Payload], outcome: Outcome) -> list[Outcome]:
    return [outcome] * len(batch)
