"""The pages' JSON, as types, and the OpenAPI document that is made of them. A test holds real answers against it.

https://spec.openapis.org/oas/v3.1.1.html
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, NotRequired

from pydantic import ConfigDict, Field, TypeAdapter
from typing_extensions import TypedDict

from app.events import Json


def _doc(text: str) -> Any:
    return Field(description=text)


_STRICT = ConfigDict(extra="forbid")
_State = Annotated[
    str,
    _doc(
        "delivered, accepted (the platform tells later), shadowed, rejected, skipped, held_back, filtered, erased; queued, held or "
        "halted while it waits; parked: it is not sent unless something comes that confirms it"
    ),
]
_When = Annotated[str, _doc("ISO 8601, UTC")]


class Problem(TypedDict):
    __pydantic_config__ = _STRICT  # type: ignore[misc]
    error: Annotated[str, _doc("What is wrong, in a sentence")]


class Standing(TypedDict):
    __pydantic_config__ = _STRICT  # type: ignore[misc]
    platform: str
    mode: Literal["off", "shadow", "live"]
    halted: Annotated[str, _doc("Why it sends nothing; empty: it does")]


class Index(TypedDict):
    __pydantic_config__ = _STRICT  # type: ignore[misc]
    destinations: Annotated[dict[str, Standing], _doc("By name, as this worker sees them")]


class Origin(TypedDict, total=False):
    __pydantic_config__ = _STRICT  # type: ignore[misc]
    topic: str
    partition: int
    offset: int
    request: Annotated[str, _doc("The collector's id of the request")]


class Unusable(TypedDict):
    __pydantic_config__ = _STRICT  # type: ignore[misc]
    field: str
    reason: str


class Copy(TypedDict):
    __pydantic_config__ = _STRICT  # type: ignore[misc]
    source: Literal["pixel", "server", "app", "offline", "crm"]
    received: Annotated[_When, _doc("Record time")]
    event_id: str
    offset: Annotated[int, _doc("In <prefix>.events; -1: not known")]
    origin: Annotated[Origin, _doc("Where it was read")]
    arrived: NotRequired[Annotated[_When, _doc("When it was appended to <prefix>.events")]]
    gap: NotRequired[Annotated[float, _doc("Seconds after the first copy")]]
    part: NotRequired[
        Annotated[
            Literal["held", "merged", "repeat", "late", ""],
            _doc("What part it has in the conversion; empty: not known any more"),
        ]
    ]
    unusable: NotRequired[
        Annotated[list[Unusable], _doc("What its source told of the person, and what could not be used. Never a value")]
    ]


class FieldRow(TypedDict):
    """A field of the copies and of the merged event. Values are as the page shows them: shortened, or masked."""

    __pydantic_config__ = _STRICT  # type: ignore[misc]
    field: Annotated[str, _doc("Path in the event")]
    copies: Annotated[list[str | None], _doc("What each copy says, in the order of `copies`")]
    differ: Annotated[bool, _doc("Do copies contradict each other?")]
    merged: NotRequired[str]
    taken_from: NotRequired[Annotated[list[int], _doc("Copies that the merged value is from, counted from 1")]]


class Decision(TypedDict):
    __pydantic_config__ = _STRICT  # type: ignore[misc]
    how: Literal["complete", "no_hold", "hold_ended", "unconfirmed", "erased"]
    at: _When


class Named(TypedDict, total=False):
    """What became of it under one of the platform's names."""

    __pydantic_config__ = _STRICT  # type: ignore[misc]
    state: _State
    name: Annotated[str, _doc("The platform's name for the event")]
    at: _When
    attempts: int
    reason: str
    detail: str
    next_try: Annotated[_When, _doc("The next attempt, at the earliest")]
    under_way: Annotated[bool, _doc("A request with it is under way")]
    set_aside: Annotated[bool, _doc("It failed while others passed, and no longer holds them up")]
    traces: Annotated[list[int], _doc("Offsets in <prefix>.trace; without payloads")]


class Route(TypedDict):
    __pydantic_config__ = _STRICT  # type: ignore[misc]
    state: Annotated[str, _doc("queued, held_back, filtered, parked, erased")]
    reason: NotRequired[str]


class Consent(TypedDict):
    __pydantic_config__ = _STRICT  # type: ignore[misc]
    verdict: Literal["allowed", "denied", "not asked"]
    basis: Annotated[str, _doc("The signals that it was judged by")]


class BrowserTag(TypedDict):
    """The platform's own tag in the browser, as the pixel reported it."""

    __pydantic_config__ = _STRICT  # type: ignore[misc]
    expected: Annotated[Literal["none", "same_id"], _doc("The setting browser_tag")]
    ran: NotRequired[bool]
    event_id: NotRequired[str]
    verdict: Literal["not reported", "did not run", "same id", "another id", "id not reported"]


class Sent(TypedDict):
    __pydantic_config__ = _STRICT  # type: ignore[misc]
    method: str
    url: str
    body: Annotated[str, _doc("For this event alone, with secrets masked")]
    cut: bool


class Attempt(TypedDict, total=False):
    __pydantic_config__ = _STRICT  # type: ignore[misc]
    at: _When
    name: str
    attempt: Annotated[int, _doc("Counted from 1")]
    events: Annotated[int, _doc("In the same request")]
    seconds: float
    status: Annotated[int, _doc("HTTP status; absent: no answer")]
    answer: str
    outcome: str
    reason: str
    request: Sent


class There(Named, total=False):
    """What became of it at one destination; of several names the worst."""

    names: list[Named]
    route: Route
    consent: Consent
    browser_tag: BrowserTag
    attempts_kept: Annotated[
        list[Attempt], _doc("Those of <prefix>.trace that are retained; of equal failures in a row the first")
    ]
    replay: Annotated[bool, _doc("Can it be sent again, by POST /events/{id}/replay?")]


class Conversion(TypedDict):
    __pydantic_config__ = _STRICT  # type: ignore[misc]
    id: str
    site: str
    event_name: str
    apart: Annotated[str, _doc("Tells it from other conversions with this id")]
    partition: int
    state: Literal["held", "parked", "closed"]
    copies: list[Copy]
    received: Annotated[int, _doc("Copies, repeats and late ones included")]
    people: Annotated[int, _doc("Different people under this id")]
    hot: Annotated[bool, _doc("So many people have this id that it is taken for a placeholder")]
    revisions: int
    records: Annotated[list[int], _doc("Offsets in <prefix>.conversions")]
    decision: NotRequired[Decision]
    waits_for: NotRequired[Literal["confirmation", "copies"]]
    held_until: NotRequired[_When]
    seconds_left: NotRequired[float]
    destinations: dict[str, There]
    fields: NotRequired[list[FieldRow]]
    preview: NotRequired[Annotated[bool, _doc("The merged event is as it would be by now, or not known")]]
    why_not: NotRequired[Annotated[str, _doc("Why nothing of what is in topics is told")]]


class Journey(TypedDict):
    __pydantic_config__ = _STRICT  # type: ignore[misc]
    id: str
    conversions: Annotated[
        list[Conversion],
        _doc("All that have this id, as event id, order number or alias. Only the first 5 with payloads"),
    ]
    workers_asked: int
    workers_silent: Annotated[int, _doc("More than 0: there may be more")]
    since: NotRequired[
        Annotated[_When, _doc("What was received before this may not be known. Absent: all that ever was")]
    ]


class Replayed(TypedDict):
    __pydantic_config__ = _STRICT  # type: ignore[misc]
    destination: str
    replayed: Annotated[int, _doc("Dead letters that are sent again")]
    not_replayed: Annotated[list[str], _doc("Why others are not")]


class Record(TypedDict, total=False):
    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]
    time: Annotated[int, _doc("Unix milliseconds")]
    who: str
    what: str
    object: str


class Audited(TypedDict):
    __pydantic_config__ = _STRICT  # type: ignore[misc]
    topic: str
    records: Annotated[list[Record], _doc("The newest first")]


class Letter(TypedDict, total=False):
    """A dead letter: docs/topics.md."""

    __pydantic_config__ = _STRICT  # type: ignore[misc]
    id: str
    time: _When
    place: Annotated[str, _doc("The destination, the topic that it was read from, or the collector")]
    stage: str
    reason: str
    field: str
    detail: str
    destination: str
    name: Annotated[str, _doc("The platform's name for the event")]
    event_id: str
    event_name: str
    attempts: int
    index: Annotated[int, _doc("Which event of its record")]
    origin: Annotated[dict[str, str | int], _doc("Where it was read")]
    state: Annotated[Literal["replayed", "dropped"], _doc("Absent: it waits")]
    at: _When
    by: str


class Group(TypedDict):
    __pydantic_config__ = _STRICT  # type: ignore[misc]
    reason: str
    place: str
    destination: str
    letters: int


class DeadLetters(TypedDict):
    __pydantic_config__ = _STRICT  # type: ignore[misc]
    total: int
    groups: list[Group]
    letters: Annotated[list[Letter], _doc("The newest 200 at most, the newest first")]
    whole: Annotated[bool, _doc("Is it of all records? Else of the newest 30,000")]


class OneLetter(TypedDict):
    __pydantic_config__ = _STRICT  # type: ignore[misc]
    letter: Letter
    why_not: Annotated[str, _doc("Why it cannot be replayed; empty: it can")]


class NotDone(TypedDict):
    __pydantic_config__ = _STRICT  # type: ignore[misc]
    why: str
    letters: int


class Work(TypedDict):
    __pydantic_config__ = _STRICT  # type: ignore[misc]
    work: Annotated[str, _doc("For /dead/work/{work}.json of the same worker")]
    what: Literal["replay", "drop"]
    total: int
    done: int
    not_done: list[NotDone]
    failed: Annotated[str, _doc("What ended it before its time; empty: nothing")]
    finished: bool


class LettersForm(TypedDict, total=False):
    """Which letters: those named, or all that wait and fit."""

    __pydantic_config__ = _STRICT  # type: ignore[misc]
    letter: Annotated[list[str], _doc("Ids, or how they begin")]
    reason: str
    destination: str
    event_id: str


class AtWorker(TypedDict):
    __pydantic_config__ = _STRICT  # type: ignore[misc]
    worker: str
    state: str
    reason: str


class Destination(TypedDict):
    """Counts are of all workers that answered, since each of them began."""

    __pydantic_config__ = _STRICT  # type: ignore[misc]
    platform: str
    mode: Literal["off", "shadow", "live"]
    max_age: Annotated[int, _doc("Seconds up to which it takes events")]
    api_version: str
    sunset: Annotated[str, _doc("When this version stops to answer; empty: not known")]
    rate: Annotated[float, _doc("Requests a second, of all workers; 0: nothing is known")]
    guard: list[str]
    state: Annotated[
        str, _doc("ok, slow, retrying, halted, paused, or unknown where no worker answered; that of the worst worker")
    ]
    reason: str
    paused: Annotated[bool, _doc("By an order of somebody, or of a guard")]
    by: NotRequired[str]
    since: NotRequired[_When]
    waiting: int
    in_flight: Annotated[int, _doc("Requests")]
    parked: Annotated[int, _doc("Events that failed while others passed, and are tried again")]
    lag: Annotated[int, _doc("Records of its topic that are not finished")]
    oldest: Annotated[float, _doc("Seconds since the oldest waiting event happened; 0: none waits")]
    spent: Annotated[float, _doc("The largest part of its maximum age that a waiting event has waited")]
    without_topic: bool
    per_second: Annotated[float, _doc("Events that it took, over the last minute")]
    failure: Annotated[str, _doc("Why it did not take an event, the last time; empty: none failed yet")]
    failed_at: Annotated[str, _doc("When that was, in ISO 8601, UTC")]
    answers: Annotated[dict[str, int], _doc("Requests by HTTP status; 0: no answer")]
    outcomes: dict[str, int]
    latency: Annotated[dict[str, float | None], _doc("p50, p95, p99 in seconds, at most; null: over 10 s")]
    workers: list[AtWorker]


class Destinations(TypedDict):
    __pydantic_config__ = _STRICT  # type: ignore[misc]
    destinations: dict[str, Destination]
    workers_asked: int
    workers_silent: int


class Waits(TypedDict):
    __pydantic_config__ = _STRICT  # type: ignore[misc]
    id: str
    site: str
    event_name: str
    apart: str
    name: Annotated[str, _doc("The platform's name for the event")]
    time: Annotated[_When, _doc("When it happened; in its topic, when it was queued")]
    set_aside: Annotated[bool, _doc("It failed while others passed, and no longer holds them up")]


class Waiting(TypedDict):
    __pydantic_config__ = _STRICT  # type: ignore[misc]
    destination: str
    which: Annotated[
        Literal["waiting", "under_way", "unfinished"],
        _doc(
            "Those that wait at workers, those in requests, or those that its topic has, which no worker is asked for"
        ),
    ]
    total: int
    events: Annotated[list[Waits], _doc("Those that happened first; 200 at most")]
    workers_asked: int
    workers_silent: int


class Answered(TypedDict):
    """To a request, of one of the events that it had."""

    __pydantic_config__ = _STRICT  # type: ignore[misc]
    id: str
    site: str
    event_name: str
    apart: str
    at: Annotated[_When, _doc("When it was sent")]
    status: Annotated[int, _doc("Of HTTP; 0: there was no answer")]
    seconds: float
    attempt: Annotated[int, _doc("Counted from 1")]
    events: Annotated[int, _doc("Of the request")]
    outcome: str
    reason: str


class Answers(TypedDict):
    """Of the newest 10,000 answers that are kept, of all destinations together."""

    __pydantic_config__ = _STRICT  # type: ignore[misc]
    destination: str
    status: int | None
    slowest: Annotated[bool, _doc("The slowest first; else the newest")]
    total: int
    answers: Annotated[list[Answered], _doc("200 at most")]


class Ordered(TypedDict):
    __pydantic_config__ = _STRICT  # type: ignore[misc]
    destination: str
    paused: bool


class OrderForm(TypedDict, total=False):
    __pydantic_config__ = _STRICT  # type: ignore[misc]
    reason: Annotated[str, _doc("Needed for a pause")]
    accept: Annotated[Literal["yes"], _doc("Resume although it rejects most events")]


class ReplayForm(TypedDict):
    __pydantic_config__ = _STRICT  # type: ignore[misc]
    destination: str
    site: str
    event_name: str
    apart: NotRequired[str]


class Running(TypedDict):
    __pydantic_config__ = _STRICT  # type: ignore[misc]
    worker: str
    version: str
    python: str
    since: _When
    configuration: Annotated[str, _doc("Of what decides about events, as receipts carry it")]
    fingerprint: Annotated[str, _doc("Of all settings but ports and folders")]


class Setting(TypedDict):
    __pydantic_config__ = _STRICT  # type: ignore[misc]
    setting: str
    value: Annotated[str, _doc("As text; of a secret only where it is")]
    given: Annotated[bool, _doc("By the file; else it is a default")]


class Config(Running):
    """What runs at the worker that was asked, and at the others."""

    workers: list[Running]
    differ: Annotated[list[str], _doc("In what workers differ; empty: in nothing")]
    workers_asked: int
    workers_silent: int
    destinations: list[str]
    settings: list[Setting]


class TestRequest(TypedDict):
    __pydantic_config__ = _STRICT  # type: ignore[misc]
    method: str
    url: str
    headers: dict[str, str]
    body: Any


class TestAnswer(TypedDict, total=False):
    __pydantic_config__ = _STRICT  # type: ignore[misc]
    ok: bool
    outcome: str
    reason: str
    detail: str
    seconds: float
    status: int
    answer: str


class Trial(TypedDict):
    """One made-up purchase for a destination; secrets are masked."""

    __pydantic_config__ = _STRICT  # type: ignore[misc]
    destination: str
    platform: str
    announcement: str
    counts: Annotated[bool, _doc("Does the platform count it like any other?")]
    has_test_mode: bool
    request: TestRequest
    answer: NotRequired[Annotated[TestAnswer, _doc("Where it was sent")]]


class TrialForm(TypedDict, total=False):
    __pydantic_config__ = _STRICT  # type: ignore[misc]
    counts: Annotated[Literal["yes"], _doc("Needed where the platform counts it")]


class Window(TypedDict):
    """The newest events that Kafka has: a sample."""

    __pydantic_config__ = _STRICT  # type: ignore[misc]
    conversions: int
    copies: int
    since: NotRequired[Annotated[_When, _doc("When the first of the conversions was merged")]]
    until: NotRequired[_When]


class Matched(TypedDict):
    """Events of one name; all numbers are of events, by identifier."""

    __pydantic_config__ = _STRICT  # type: ignore[misc]
    event: str
    events: int
    skipped: Annotated[dict[str, int], _doc("Those that the platform cannot have, by the reason")]
    carried: Annotated[dict[str, int], _doc("Those of which the platform would get it")]
    given: Annotated[dict[str, int], _doc("Those of which our event has it, in whatever form")]


class Lint(TypedDict):
    __pydantic_config__ = _STRICT  # type: ignore[misc]
    event: str
    key: str
    text: str


class MatchQuality(TypedDict):
    __pydantic_config__ = _STRICT  # type: ignore[misc]
    destination: str
    platform: str
    window: Window
    keys: Annotated[list[str], _doc("By what the platform finds people, the best first; empty: by nothing")]
    events: list[Matched]
    lint: Annotated[list[Lint], _doc("What could be better")]
    event: str
    without: str
    skipped: str
    total: Annotated[
        int, _doc("Events of this name: without this identifier, or skipped for this reason, or all that count")
    ]
    ids: Annotated[list[str], _doc("The newest 100 of them")]


class Share(TypedDict):
    """Of orders of a list."""

    __pydantic_config__ = _STRICT  # type: ignore[misc]
    orders: int
    classes: Annotated[dict[str, int], _doc("Each order is in one class; they sum to `orders`")]
    delivered: Annotated[int, _doc("The platform has them: delivered and differs")]
    due: Annotated[
        int,
        _doc(
            "The platform should have them: without those held by consent, of bots, left out, unknown, or just on their way"
        ),
    ]
    share: Annotated[float | None, _doc("Percent of `due` that are delivered; null: none is due")]
    below: Annotated[bool, _doc("Is that below the threshold?")]


class OfDay(Share):
    day: Annotated[str, _doc("ISO 8601, in the zone asked for; empty: the list tells no time")]


class Why(TypedDict):
    __pydantic_config__ = _STRICT  # type: ignore[misc]
    class_: Annotated[str, Field(serialization_alias="class")]
    reason: str
    orders: int


class OrdersReport(Share):
    destination: str
    platform: str
    time_zone: str
    threshold: Annotated[float, _doc("Percent")]
    alert: Annotated[bool, _doc("Is the share of all orders, or of a day, below the threshold?")]
    reasons: list[Why]
    days: list[OfDay]
    from_pixel_alone: Annotated[int, _doc("Delivered, and no server reported them")]
    refunds: Annotated[int, _doc("Orders with a row below zero")]
    refunds_sent: Annotated[int, _doc("Of these, the platform was told")]
    repeated_rows: int
    unread: Annotated[list[str], _doc("Rows that cannot be used, or not wholly, by line")]
    more_unread: int
    columns: Annotated[dict[str, str], _doc("What was read where")]
    hints: list[str]
    after: Annotated[list[str], _doc("What begins after delivery")]


class ListedOrder(TypedDict, total=False):
    __pydantic_config__ = _STRICT  # type: ignore[misc]
    order_id: str
    line: int
    class_: Annotated[str, Field(serialization_alias="class")]
    reason: str
    day: str
    value: float
    currency: str
    sent_value: float
    sent_currency: str
    sources: Annotated[list[str], _doc("Who reported it, where that is known")]


class Look(TypedDict):
    """A look at a list of orders. The report is there once it is finished."""

    __pydantic_config__ = _STRICT  # type: ignore[misc]
    look: Annotated[str, _doc("For /reconcile/{look}.json, for an hour")]
    destination: str
    by: str
    at: _When
    listed: Annotated[int, _doc("Orders of the list")]
    read: Annotated[int, _doc("Records of Kafka by now, in thousands")]
    finished: bool
    failed: str
    report: NotRequired[OrdersReport]
    class_: NotRequired[Annotated[str, Field(serialization_alias="class")]]
    day: NotRequired[str]
    reason: NotRequired[str]
    total: NotRequired[Annotated[int, _doc("Orders of this class, day and reason")]]
    page: NotRequired[int]
    pages: NotRequired[int]
    orders: NotRequired[
        Annotated[list[ListedOrder], _doc("At most 200: one page of those of a class, a day or a reason")]
    ]


class LookList(TypedDict):
    __pydantic_config__ = _STRICT  # type: ignore[misc]
    looks: Annotated[list[Look], _doc("Those that this worker has, without reports")]
    destinations: list[str]


class ReconcileForm(TypedDict):
    __pydantic_config__ = _STRICT  # type: ignore[misc]
    to: Annotated[str, _doc("Destination")]
    orders: Annotated[str, _doc("The list, as CSV; at most 16 MB")]
    tz: NotRequired[Annotated[str, _doc("IANA name; default UTC")]]
    threshold: NotRequired[Annotated[str, _doc("Percent; default 90")]]
    column_order_id: NotRequired[Annotated[str, _doc("Name of its column")]]
    column_time: NotRequired[str]
    column_value: NotRequired[str]
    column_currency: NotRequired[str]


class LiveThere(TypedDict):
    __pydantic_config__ = _STRICT  # type: ignore[misc]
    state: _State
    reason: NotRequired[str]


class LiveConversion(TypedDict):
    __pydantic_config__ = _STRICT  # type: ignore[misc]
    at: Annotated[_When, _doc("When it was appended to <prefix>.conversions")]
    id: str
    site: str
    event_name: str
    apart: NotRequired[str]
    value: NotRequired[str]
    currency: NotRequired[str]
    sources: Annotated[list[str], _doc("Of the copies that were merged")]
    received: Annotated[int, _doc("Copies, repeats included")]
    closed: str
    destinations: dict[str, LiveThere]


class Lost(TypedDict):
    __pydantic_config__ = _STRICT  # type: ignore[misc]
    step: Annotated[Literal["consented", "queued", "delivered"], _doc("The step that they did not reach")]
    state: _State
    reason: str
    conversions: int


class FunnelThere(TypedDict):
    """Conversions. `delivered`, `waiting` and those of `lost` that were queued are together `queued`."""

    __pydantic_config__ = _STRICT  # type: ignore[misc]
    destination: str
    unique: int
    consented: Annotated[int, _doc("Not held back for want of consent")]
    queued: int
    delivered: Annotated[int, _doc("Accepted ones included")]
    waiting: int
    lost: list[Lost]


class Funnel(TypedDict):
    """Of the conversions in the window that the filter leaves. copies = unique + joined + repeats."""

    __pydantic_config__ = _STRICT  # type: ignore[misc]
    copies: int
    joined: Annotated[int, _doc("Copies that joined another one")]
    repeats: Annotated[int, _doc("Copies that said nothing new")]
    unique: int
    destinations: list[FunnelThere]


class Minute(TypedDict):
    """Counts of all, whatever the filter; null: that was not read."""

    __pydantic_config__ = _STRICT  # type: ignore[misc]
    at: _When
    copies: int | None
    conversions: int | None
    delivered: int | None
    not_delivered: int | None


class LiveNow(TypedDict):
    __pydantic_config__ = _STRICT  # type: ignore[misc]
    reading: Annotated[bool, _doc("false: what is newest is still being read")]
    why_not: Annotated[str, _doc("Why nothing can be read; empty: it can")]
    since: Annotated[_When | None, _doc("When the oldest conversion of the window closed")]
    full: Annotated[bool, _doc("Did older ones make room for newer ones?")]
    partitions: int
    followed: Annotated[int, _doc("Fewer than `partitions`: there is so much that only a part is read")]
    funnel: Funnel
    minutes: Annotated[list[Minute], _doc("The oldest first; the last one is under way")]
    conversions: Annotated[list[LiveConversion], _doc("The newest 100 at most, the newest first")]


class CopiesRead(TypedDict):
    """What the newest copies are."""

    __pydantic_config__ = _STRICT  # type: ignore[misc]
    copies: int
    conversions: int
    since: Annotated[_When, _doc("Record time of the oldest")]
    until: _When
    whole: Annotated[bool, _doc("All that is retained, and not only the newest")]
    read: Annotated[int, _doc("Partitions; fewer than `partitions` are a fair sample")]
    partitions: int


class GapBucket(TypedDict):
    __pydantic_config__ = _STRICT  # type: ignore[misc]
    up_to: Annotated[float | None, _doc("Seconds, more than the bucket before; null: longer than all")]
    pairs: int


class Hold(TypedDict):
    __pydantic_config__ = _STRICT  # type: ignore[misc]
    hold: Annotated[float, _doc("Seconds")]
    together: int
    split: Annotated[int, _doc("Pairs of which one copy would be sent alone")]
    share: Annotated[float, _doc("Of the pairs that are split, 0 to 1")]


class IdForm(TypedDict):
    __pydantic_config__ = _STRICT  # type: ignore[misc]
    form: Annotated[str, _doc("9 is a digit, a and A are letters")]
    conversions: int


class Meets(TypedDict):
    """Conversions of one event name, by what became of them: together, late, missing, alone, open, not_held add up to them."""

    __pydantic_config__ = _STRICT  # type: ignore[misc]
    event: str
    expect: list[str]
    hold: Annotated[float, _doc("Seconds, of the configuration")]
    conversions: int
    together: Annotated[int, _doc("All expected copies within the hold")]
    late: Annotated[int, _doc("All of them, but later than that")]
    missing: Annotated[dict[str, int], _doc("By the source that did not report it")]
    alone: Annotated[int, _doc("No other copy could come")]
    open: Annotated[int, _doc("Too new, or too close to where reading began, to tell")]
    not_held: int
    of_several_sources: Annotated[int, _doc("Of those that are not held")]
    repeats: Annotated[int, _doc("Copies of a source that had reported it")]
    share: Annotated[float | None, _doc("With all copies, of those that could have them, 0 to 1")]
    merged: Annotated[float | None, _doc("With all copies within the hold, of the same")]
    gaps: Annotated[dict[str, float], _doc("p50, p97, p99 of the seconds until all copies were there; empty: no pair")]
    histogram: list[GapBucket]
    holds: list[Hold]
    near: Annotated[list[list[str]], _doc("Some ids that lack each other, and differ by their form alone")]
    near_total: int
    forms: Annotated[dict[str, list[IdForm]], _doc("Of ids that lack a copy, by the source that wrote them")]
    advice: list[str]


class CountedRow(TypedDict):
    __pydantic_config__ = _STRICT  # type: ignore[misc]
    event: Annotated[str, _doc("custom: all custom names")]
    closed: dict[str, int]
    hold_ended_share: float | None
    duplicates: Annotated[dict[str, int], _doc("repeat, late")]
    flagged: dict[str, int]


class Counted(TypedDict):
    __pydantic_config__ = _STRICT  # type: ignore[misc]
    since: Annotated[_When, _doc("When the last of the workers began")]
    oldest: Annotated[_When, _doc("When the first of them began")]
    events: list[CountedRow]


class SourceClock(TypedDict):
    __pydantic_config__ = _STRICT  # type: ignore[misc]
    source: str
    mark: Annotated[_When | None, _doc("Every copy before this has been read; null: not heard from yet")]
    behind: Annotated[float | None, _doc("Seconds")]
    left_out: bool
    worker: Annotated[str, _doc("Who reads it; empty: nobody, or one that did not answer")]


class StatePartition(TypedDict):
    __pydantic_config__ = _STRICT  # type: ignore[misc]
    partition: int
    worker: str
    open: Annotated[int, _doc("Holds, those kept for late copies included")]
    keys: Annotated[int, _doc("An estimate")]
    bytes: Annotated[int, _doc("On disk; what is in memory yet is not in it")]
    clock: _When | None
    since: Annotated[_When | None, _doc("What was received before this may not be known; null: all that ever was")]


class DedupHealth(TypedDict):
    __pydantic_config__ = _STRICT  # type: ignore[misc]
    window: CopiesRead
    events: Annotated[list[Meets], _doc("The 50 most frequent names at most, those that are held first")]
    events_left_out: int
    counted: Counted
    clocks: list[SourceClock]
    partitions: list[StatePartition]
    workers_asked: int
    workers_silent: int


class Met(TypedDict):
    __pydantic_config__ = _STRICT  # type: ignore[misc]
    id: str
    site: str
    event_name: str
    first: _When
    sources: list[str]
    copies: int
    what: str
    gap: Annotated[float | None, _doc("Seconds until all expected copies were there")]


class MetList(TypedDict):
    __pydantic_config__ = _STRICT  # type: ignore[misc]
    window: CopiesRead
    event: str
    what: str
    longer: float | None
    total: int
    conversions: Annotated[list[Met], _doc("The newest 200 at most, the newest first")]


class Held(TypedDict):
    __pydantic_config__ = _STRICT  # type: ignore[misc]
    id: str
    site: str
    event_name: str
    apart: str
    partition: int
    until: Annotated[_When, _doc("When it ends, if no other copy comes before")]


class HeldList(TypedDict):
    __pydantic_config__ = _STRICT  # type: ignore[misc]
    partition: int | None
    total: int
    holds: Annotated[list[Held], _doc("200 at most, those that end first")]
    workers_asked: int
    workers_silent: int


#: Name in the document -> type.
TYPES: Mapping[str, Any] = {
    "Problem": Problem, "Index": Index, "Journey": Journey, "Audited": Audited, "Replayed": Replayed, "ReplayForm": ReplayForm,
    "DeadLetters": DeadLetters, "OneLetter": OneLetter, "Work": Work, "LettersForm": LettersForm, "Destinations": Destinations,
    "Waiting": Waiting, "Answers": Answers, "Ordered": Ordered, "OrderForm": OrderForm, "MatchQuality": MatchQuality,
    "Config": Config, "Trial": Trial, "TrialForm": TrialForm,
    "Look": Look, "LookList": LookList, "ReconcileForm": ReconcileForm,
    "LiveNow": LiveNow, "DedupHealth": DedupHealth, "MetList": MetList, "HeldList": HeldList,
}  # fmt: skip


def _query(name: str, text: str, **schema: Any) -> Json:
    return {"name": name, "in": "query", "description": text, "schema": {"type": "string", **schema}}


_ID: Json = {
    "name": "id",
    "in": "path",
    "required": True,
    "schema": {"type": "string"},
    "description": "Event id, order number, or another copy's event id",
}
_WHICH = [
    _query("site", "Only conversions of this site"),
    _query("name", "Only those of this event name"),
    _query("apart", "Only the one that is set apart by this"),
    _query("payloads", "false: only what the tables know, which is faster", enum=["true", "false"]),
]


_LETTERS = [
    _query("reason", "Only letters with this reason"),
    _query("destination", "Only those of this destination"),
    _query("event_id", "Only those of this event"),
    _query("state", "all: replayed and dropped ones, too", enum=["all"]),
]


_MATCHED = [
    _query("event", "List events of this name"),
    _query("without", "that do not carry this identifier"),
    _query("skipped", "or that the platform does not get for this reason"),
]
_ON_ITS_WAY = _query(
    "which", "What waits (the default), is in requests, or is in its topic", enum=["waiting", "under_way", "unfinished"]
)
_ANSWERED = [
    _query("status", "Only answers with this status; 0: those that did not come", pattern="^[0-9]{1,3}$"),
    _query("slowest", "yes: the slowest first", enum=["yes"]),
]
_HELD = [_query("partition", "Only holds of this partition", pattern="^[0-9]+$")]
_ORDERS = [
    _query("class", "The orders of this class; `has`: those at the platform; `due`: those that it should have"),
    _query("day", "Those of this day; none: those without one"),
    _query("reason", "Those with this reason"),
    _query("page", "Counted from 1", pattern="^[0-9]+$"),
]


_LIVE = [
    _query("event", "Only conversions of this event name"),
    _query("site", "Only those of this site"),
    _query("source", "Only those with a copy of this source"),
    _query("copies", "Only those of one copy, of several, or with repeats", enum=["single", "joined", "repeated"]),
    _query("closed", "Only those that closed so: complete, no_hold, hold_ended, unconfirmed, erased"),
    _query("label", "Only those with this label: bot, prefetch, internal, test, backfill, several_people, hot_id"),
    _query("destination", "`outcome`, `reason` and `reached` are those there; else, at any destination"),
    _query("outcome", "Only those in this state"),
    _query("reached", "Only those that came so far, or further", enum=["consented", "queued", "delivered"]),
    _query("reason", "Only those with this reason"),
]


_MET = [
    _query("event", "The event name"),
    _query("what", "together, late, missing SOURCE, alone, open, not_held, repeats, several or after_closing"),
    _query("longer", "Only pairs further apart than so many seconds"),
]


def _path(name: str) -> Json:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}


def document() -> Json:
    """The whole of it."""
    schemas: Json = {}
    for name, of_type in TYPES.items():
        schema = TypeAdapter(of_type).json_schema(ref_template="#/components/schemas/{model}", mode="serialization")
        schemas |= schema.pop("$defs", {})
        schemas[name] = schema
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "capistream",
            "version": "1",
            "description": "What the pages of a worker show, for programs. Every worker answers for all of them. Log in with "
            "`Authorization: Bearer` and a token of `[view.tokens]`.",
        },
        "security": [{"token": []}],
        "paths": {
            "/index.json": {"get": _operation("Destinations as this worker sees them", "Index")},
            "/events/{id}.json": {
                "get": _operation("What became of an id", "Journey", [_ID, *_WHICH], more={"404": "Journey"})
            },
            "/events/{id}/replay": {
                "post": _operation(
                    "Send again what a destination rejected. For operators", "Replayed", [_ID], body="ReplayForm"
                )
            },
            "/live.json": {
                "get": _operation(
                    "The newest conversions, and what became of them", "LiveNow", _LIVE, more={"503": "LiveNow"}
                )
            },
            "/dedup.json": {
                "get": _operation(
                    "How copies meet, clocks and state",
                    "DedupHealth",
                    [_query("hold", "Another hold, in seconds: what if?")],
                )
            },
            "/dedup/list.json": {"get": _operation("The conversions behind a number of it", "MetList", _MET)},
            "/dedup/held.json": {
                "get": _operation("Conversions that wait for copies, at all workers", "HeldList", _HELD)
            },
            "/destinations.json": {"get": _operation("How destinations do, at all workers", "Destinations")},
            "/destinations/{name}/pause": {
                "post": _operation(
                    "Send nothing there until it is resumed. For operators",
                    "Ordered",
                    [_path("name")],
                    body="OrderForm",
                )
            },
            "/destinations/{name}/resume": {
                "post": _operation("Go on. For operators", "Ordered", [_path("name")], body="OrderForm")
            },
            "/destinations/{name}/match.json": {
                "get": _operation(
                    "By which identifiers a platform can find the people of its newest events",
                    "MatchQuality",
                    [_path("name"), *_MATCHED],
                    more={"400": "Problem"},
                )
            },
            "/destinations/{name}/waiting.json": {
                "get": _operation(
                    "What is on its way there, at all workers",
                    "Waiting",
                    [_path("name"), _ON_ITS_WAY],
                    more={"400": "Problem"},
                )
            },
            "/destinations/{name}/answers.json": {
                "get": _operation(
                    "What it answered lately", "Answers", [_path("name"), *_ANSWERED], more={"400": "Problem"}
                )
            },
            "/dead.json": {
                "get": _operation("Dead letters, by reason and the newest of them", "DeadLetters", _LETTERS)
            },
            "/dead/{letter}.json": {
                "get": _operation("One dead letter", "OneLetter", [_path("letter")], more={"404": "Problem"})
            },
            "/dead/replay": {"post": _operation("Replay dead letters. For operators", "Work", body="LettersForm")},
            "/dead/drop": {"post": _operation("Drop dead letters. For operators", "Work", body="LettersForm")},
            "/dead/work/{work}.json": {
                "get": _operation(
                    "How far a replay is. For operators", "Work", [_path("work")], more={"404": "Problem"}
                )
            },
            "/config.json": {"get": _operation("What is running. For operators", "Config")},
            "/config/test/{name}.json": {
                "get": _operation(
                    "What a test would send. For operators", "Trial", [_path("name")], more={"400": "Problem"}
                )
            },
            "/config/test/{name}": {
                "post": _operation(
                    "Send one event as a test. For operators",
                    "Trial",
                    [_path("name")],
                    body="TrialForm",
                    more={"400": "Problem"},
                )
            },
            "/reconcile.json": {"get": _operation("Lists of orders that were looked at. For operators", "LookList")},
            "/reconcile": {
                "post": _operation(
                    "What became of each order of a list. For operators",
                    "Look",
                    body="ReconcileForm",
                    more={"400": "Problem"},
                )
            },
            "/reconcile/{look}.json": {
                "get": _operation(
                    "The report, and a page of its orders. For operators",
                    "Look",
                    [_path("look"), *_ORDERS],
                    more={"404": "Problem"},
                )
            },
            "/audit.json": {"get": _operation("Who looked at what, and did what. For operators", "Audited")},
        },
        "components": {
            "schemas": schemas,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(
    text: str,
    answer: str,
    parameters: list[Json] | None = None,
    *,
    body: str = "",
    more: Mapping[str, str] | None = None,
) -> Json:
    answers = {"200": answer, "401": "Problem", "403": "Problem", "503": "Problem", **(more or {})}
    said: Json = {
        "summary": text,
        "responses": {
            status: {"description": _STATUS[status], "content": {"application/json": {"schema": _ref(name)}}}
            for status, name in answers.items()
        },
    }
    if parameters:
        said["parameters"] = parameters
    if body:
        said["requestBody"] = {"required": True, "content": {"application/json": {"schema": _ref(body)}}}
    return said


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


_STATUS = {
    "200": "Here it is",
    "400": "The request is wrong",
    "401": "No token, or none that is known",
    "403": "Not with this role",
    "404": "Nothing is known of it",
    "503": "Not now: the worker has just begun, or Kafka does not answer",
}
