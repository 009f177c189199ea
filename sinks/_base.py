"""What a sink is: pure functions from an event to a request, and from an answer to outcomes.

A sink does no I/O, keeps no state, holds no secret and reads no clock. agents/deliver does all of that, once, the same
way for every platform: batching, tokens, sending, retries, splitting, halts, records. What a destination's settings `events`,
`map`, `value`, `mode`, `share`, `live_from` and `live_until` say is done before and after `encode`, also once for all
(app/prepare.py).
"""

import ipaddress
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date
from email.utils import parsedate_to_datetime
from functools import lru_cache
from types import MappingProxyType
from typing import Any, ClassVar, Literal

import orjson

from app.consent import Flag
from app.destination import Destination
from app.events import Event, Json, Source
from app.proxies import of_the_internet
from sinks._kinds import Kinds

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
    timeout: float = 10.0  # of one request, from its start to the last byte of the answer
    follow_up_after: float = 1800.0  # seconds until the platform may tell what became of a request that it queued
    rate: float | None = None  # requests a second that the account may make; None: nothing is known
    api_version: str = ""
    sunset: date | None = None  # when this API version stops answering

    def age_limit(self, source: Source) -> int:
        return self.max_age_by_source.get(source, self.max_age)


class Payload:
    """One event as the platform wants it.

    What stands for it in a request is a JSON object, and is kept as that: written once, for its size, the request and what is kept
    of that. `body` reads it. Nothing here changes.
    """

    __slots__ = ("dedup_window", "event_id", "group", "json", "overhead")

    def __init__(
        self,
        event_id: str,
        body: Json | bytes,  # bytes are JSON already
        group: tuple[str, ...] = (),  # what must be equal in one request beside the destination
        dedup_window: int | None = None,  # seconds, where this event differs from the platform's `Limits.dedup_window`
        overhead: int = 1024,  # bytes of its request's body around the events, where a group has much in common
    ) -> None:
        self.event_id = event_id
        self.json = body if isinstance(body, bytes) else orjson.dumps(body)
        self.group = group
        self.dedup_window = dedup_window
        self.overhead = overhead

    @property
    def body(self) -> Json:
        found: Json = orjson.loads(self.json)
        return found

    def with_body(self, body: Json | bytes, group: tuple[str, ...] | None = None) -> "Payload":
        group = self.group if group is None else group
        return Payload(self.event_id, body, group, self.dedup_window, self.overhead)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Payload) and self._told() == other._told()

    __hash__ = None  # type: ignore[assignment]  # as of what holds a dictionary

    def __repr__(self) -> str:
        return f"Payload{self._told()}"

    def _told(self) -> tuple[Any, ...]:
        return self.event_id, self.body, self.group, self.dedup_window, self.overhead


def listed(batch: Sequence[Payload]) -> orjson.Fragment:
    """The list of these events, for the body of a request."""
    return orjson.Fragment(b"[" + b",".join([payload.json for payload in batch]) + b"]")


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
class Places:
    """Where a request says what, so that `capistream compare` reads ours and those of another system alike.

    `events` is the list of events in the body. The others are paths into an event, dots between levels; empty for what the
    platform does not have. A list of one member is gone into as if it were that member.
    """

    events: str
    event_id: str = ""
    order_id: str = ""
    name: str = ""
    time: str = ""
    value: str = ""
    currency: str = ""
    shared: tuple[str, ...] = ()  # fields of the body that count for each of its events
    counts_once_by: Literal["event_id", "order_id", ""] = ""  # by which id the platform makes one of two events
    counts_once: tuple[str, ...] = ()  # events of which that is so, by the platform's names; empty: of all


@dataclass(frozen=True)
class MatchKey:
    """Something by which the platform finds the person whom an event is about. Match quality is the share of events that carry it.

    `places` are paths into the encoded event (`Sink.told`), dots between levels, lists gone through; each of them is enough, and
    those that are needed together are joined by `+`. `fields` are those of our event that it is made of, each of them enough, so
    that one that is there and cannot be used is told from one that is missing.
    """

    name: str  # "click id", as people call it
    places: tuple[str, ...]
    fields: tuple[str, ...]
    of_click: bool = False  # it stands in the address that an ad leads to


@dataclass(frozen=True)
class Response:
    """What came back. `body` is at most the first 512 kB."""

    status: int
    headers: Mapping[str, str]
    body: bytes


# Reasons are a few fixed texts that letters and receipts are grouped by; what differs each time, such as the platform's own
# id of the request, is detail. Neither ever holds a secret or anything of the event.


@dataclass(frozen=True)
class Delivered:
    detail: str = ""  # the platform's receipt or warning, without personal data


@dataclass(frozen=True)
class Accepted:
    """Queued at the platform, which tells later what became of it: see `Sink.follow_up`. Never sent again."""

    reference: str  # what to ask with, the platform's id of the request
    detail: str = ""


@dataclass(frozen=True)
class Retry:
    """Not taken, and it may be taken later."""

    reason: str
    after: float | None = None  # seconds the platform asked for
    detail: str = ""
    throttled: bool = False  # by a limit of the account: the destination as a whole slows down
    unclear: bool = False  # the platform may have taken it all the same, as when a gateway answers for it


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
    unclear: bool = False  # the platform may have taken what was sent


Outcome = Delivered | Accepted | Retry | Rejected | Halt

#: Name of a setting that is a secret -> its value, read anew for each request. Of a sink with `scopes`, the secret
#: `credentials` is that of a service account or user of Google, and its value here the access token that the engine got for it.
Secrets = Mapping[str, str]


@dataclass(frozen=True)
class Followed:
    """What the platform says later of a request that it had queued. The status decides: the numbers can be missing."""

    status: Literal["success", "partial", "failed"]  # all were taken, some were, none was
    events: int = 0  # how many it speaks of; 0: it does not say
    failed: Mapping[str, int] = field(default_factory=dict)  # the platform's reason -> events


class Sink(ABC):
    """Built from its settings, once per destination. A sink derives from this class and leaves out what it has no use for."""

    kind: ClassVar[str]  # "meta": what `sink = ` in the configuration says
    title: ClassVar[str]  # "Meta Conversions API"
    purpose: ClassVar[Purpose]  # decides which consent is needed by default
    #: Where the platform says on which terms it takes people's data; empty for one's own endpoint.
    terms: ClassVar[str] = ""
    #: The company's id on the IAB's Global Vendor List, which a TCF string must name.
    vendor: ClassVar[int | None] = None
    #: Which partial consent `encode` tells the platform of: app/consent.py.
    flags: ClassVar[frozenset[Flag]] = frozenset()
    Settings: ClassVar[type[Destination]]
    names: ClassVar[Mapping[str, str]] = {}  # canonical event name -> the platform's
    variants: ClassVar[Mapping[str, str]] = {}  # identifier -> hash rule of app/identity.py
    #: What the platform's event holds where, as far as known; may hang on the settings.
    fields: Kinds = MappingProxyType({})
    places: Places | None = None  # where its requests say what; may hang on the settings
    match: tuple[MatchKey, ...] = ()  # by what the platform finds people, the best first; may hang on the settings
    takes_revisions: ClassVar[bool] = False  # can the platform restate an event? Else late changes do not go to it
    counts_tests: ClassVar[bool] = False  # does what `test_request` sends count like any other event?
    #: Does the answer to `test_request` tell whether the secret is right? May hang on the settings.
    proves_secret: bool = True
    lists_events: ClassVar[bool] = False  # is a request nothing but `listed` events, in what their group alone decides?
    check_share: float = 0.0  # part of the requests that `check` is for, too, 0 to 1; may hang on the settings
    scopes: tuple[str, ...] = ()  # of Google's OAuth, where `credentials` is a setting; may hang on the settings
    limits: Limits

    def __init__(self, settings: Any) -> None:
        self.settings = settings

    @classmethod
    def marks_tests(cls, settings: Any) -> bool:  # noqa: ARG003
        """With these settings, does `request` tell the platform which events have the label `test`? Else they are not sent, as they
        would count as sales. Their payloads then have a group of their own: see `is_test`.
        """
        return False

    @abstractmethod
    def encode(self, event: Event, name: str) -> Payload | Skip:
        """The event in the platform's words, under this name of the platform's.

        Never raises for an Event that fits its schema, and never changes it.
        """

    @abstractmethod
    def request(self, batch: Sequence[Payload], secrets: Secrets) -> Request:
        """One request for payloads of one group."""

    def told(self, payload: Payload) -> Json:
        """What a request with this payload alone says of its event, for the places of `match`."""
        return payload.body

    def signed(self, request: Request, secrets: Secrets, now: float) -> Request:  # noqa: ARG002
        """A request of this sink with what proves who sends it and when: called for each attempt, right before it is sent.

        `now` is in Unix seconds, with fractions: no two attempts have the same, so a digest of it and of the request does for
        a nonce. A function of its arguments, which only adds headers.
        """
        return request

    @abstractmethod
    def verdict(self, batch: Sequence[Payload], response: Response) -> list[Outcome]:
        """One outcome per payload, in order. A 200 is read before it is believed."""

    def usage(self, response: Response) -> float:  # noqa: ARG002
        """Which part of its limits the account has used, 0 to 1, where the platform says so: above 0.75 the engine slows down."""
        return 0.0

    def test_request(self, batch: Sequence[Payload], secrets: Secrets) -> Request | None:  # noqa: ARG002
        """The same as `request`, in the platform's test mode, for `capistream destinations test`. None: it has none."""
        return None

    def check(self, batch: Sequence[Payload], secrets: Secrets) -> Request | None:  # noqa: ARG002
        """The same events for the platform's validation, of a platform that takes whatever it gets. None: it has none for these.

        Sent beside the delivery, of which it changes nothing.
        """
        return None

    def complaints(self, response: Response) -> Sequence[str]:  # noqa: ARG002
        """What the validation finds wrong: the platform's codes and the names of fields, short, never a value of an event."""
        return ()

    def follow_up(self, reference: str, secrets: Secrets) -> Request:
        """Ask what became of a request that was `Accepted`."""
        raise NotImplementedError

    def followed(self, response: Response) -> Followed | None:
        """The answer to that; None while there is none yet."""
        raise NotImplementedError


def retry_after(response: Response) -> float | None:
    """Seconds of a Retry-After header: a number, or a date, which is counted from the answer's own `Date`, not from our clock."""
    said = response.headers.get("Retry-After", "")
    try:
        seconds = float(said)
    except ValueError:
        seconds = _http_date(said) - _http_date(response.headers.get("Date", ""))
    return max(0.0, seconds) if math.isfinite(seconds) else None


def _http_date(text: str) -> float:
    """Unix seconds; NaN for what is no date."""
    try:
        at = parsedate_to_datetime(text)
    except ValueError:
        return math.nan
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


def left_open(response: Response) -> bool:
    """For `Retry.unclear`: may the platform have taken the events, for all that this answer says?

    A gateway that got no answer in time says 502 or 504, a platform that failed in the middle of its work 500, and a 2xx without
    the platform's receipt says nothing at all. 503 and 4xx are said before the work begins. Where the platform's own words say
    more than the status, the sink reads those.
    """
    return 200 <= response.status < 300 or (response.status >= 500 and response.status != 503)


#: Identifier -> the hash rule that a platform wants (app/identity.py), and its own name for it.
HashedFields = Mapping[str, tuple[str, str]]


def hashed(user: Mapping[str, Any], variants: Mapping[str, str]) -> dict[str, str]:
    """Pick the identifiers that a sink takes of a person, each in the variant it names, else as it was given."""
    return {
        name: digest
        for name, rule in variants.items()
        if (hashes := user.get(name)) and (digest := hashes.get(rule) or hashes.get("given"))
    }


def hashed_lists(user: Mapping[str, Any], fields: HashedFields) -> dict[str, list[str]]:
    """The same under the platform's names, each as a list of one."""
    return {
        theirs: [digest]
        for ours, (rule, theirs) in fields.items()
        if (hashes := user.get(ours)) and (digest := hashes.get(rule) or hashes.get("given"))
    }


@lru_cache(maxsize=512)
def currency_code(text: str) -> str:
    """Three capital letters; an empty text for what is no currency."""
    code = text.upper()
    return code if re.fullmatch("[A-Z]{3}", code) else ""


def is_blank(value: Any) -> bool:
    return isinstance(value, str) and not value.strip()


def is_test(event: Event) -> bool:
    return "test" in event.get("labels", ())


def one_for_all(batch: Sequence[Payload], outcome: Outcome) -> list[Outcome]:
    return [outcome] * len(batch)


def person_ip(text: str) -> str:
    """An IP address as everybody writes it; an empty text for what is none."""
    if not text:
        return ""
    if usual := of_the_internet(text):
        return usual
    try:
        return str(ipaddress.ip_address(text.strip()))
    except ValueError:
        return ""


def answered(body: bytes) -> Json:
    """The JSON object of an answer; an empty one for anything else, such as a page in HTML."""
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return answer if isinstance(answer, dict) else {}


def whole_number(value: Any) -> int:
    """A whole number of an answer; 0 for anything else."""
    return value if type(value) is int else 0
