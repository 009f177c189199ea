"""What became of each order of the shop's own list at one destination. `capistream reconcile`, and the page of that name.

Each order is in exactly one of the CLASSES. What became of it is told by `capistream.receipts`; of what has no receipt yet, the
changelog of the table `seen` tells whether it came at all, by which sources, and where it stands. Both are read from Kafka, so
that the command needs no worker, and costs none anything.

    judge   one order, and what is known of it: a class and a reason
    Report  all of them, by class and by day
    read    what Kafka knows of the orders of a list
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import orjson

from app import dead_letter, exports, keys, records, topics
from app.compare import CENT
from app.dedup import ALIAS, MEMORY
from app.destination import Destination
from app.events import Json
from app.exports import SENT, Ours, Sent
from app.letters import printable
from app.orders import Order, Orders
from app.settings import Settings
from sinks import SINKS

#: The classes, and what each is called. An order that fits several is in the first of them that `judge` comes to.
CLASSES: Mapping[str, str] = {
    "delivered": "delivered, with the amount of the list",
    "differs": "delivered with another value or currency",
    "pending": "on its way: held, queued, or tried again",
    "never_received": "never received, neither from the pixel nor from the server",
    "pixel_only": "from the pixel alone, and not sent without the server's word",
    "held_by_consent": "held by consent, or the person has withdrawn or was erased",
    "bot_or_test": "of a bot, a test, or your own people",
    "too_old": "too old when it came",
    "rejected": "refused: by the platform, or because it has no use for it as it is",
    "left_out": "left out by the settings of this destination",
    "unknown": "not known any more",
}
HAS = ("delivered", "differs")  # the platform has these
#: Several classes together, that a list can be of.
GROUPS: Mapping[str, str] = {"has": "at the platform", "due": "that the platform should have"}
#: What nobody here can or should change: these do not count for the share that is watched.
APART = ("held_by_consent", "bot_or_test", "left_out", "unknown")
YOUNG = 3_600_000  # milliseconds for which an order that is on its way is not missed
EARLY = 86_400_000  # milliseconds by which the list may date an order later than the events of it came
THRESHOLD = 90.0  # percent

_LABELS = ("label_bot", "label_prefetch", "label_internal", "label_test")
_TOO_OLD = ("too_old", "beyond_horizon", "before_memory")


@dataclass(slots=True)
class State:
    """What the table `seen` tells of an order: of all conversions under its number."""

    sources: set[str] = field(default_factory=set)
    held: bool = False
    closed: int = 0  # when the last of them was, in Unix milliseconds
    how: set[str] = field(default_factory=set)
    routes: list[tuple[str, str]] = field(default_factory=list)  # those to this destination that are not "queued"
    queued: bool = False  # one of them is meant for this destination, and has no receipt


@dataclass(frozen=True, slots=True)
class Moment:
    """What a judgement hangs on beside what is known of the order; times in Unix milliseconds."""

    now: int
    kept_since: int  # what happened before may be forgotten
    max_age: int  # of the platform: what closed so long ago is not on its way
    must_confirm: bool = False  # a purchase that the pixel alone reports is not sent


@dataclass(frozen=True, slots=True)
class Judged:
    order: Order
    kind: str
    reason: str = ""
    sent: Sent | None = None  # as it was delivered
    sources: tuple[str, ...] = ()  # of its copies, where that is known

    def as_json(self) -> Json:
        order, sent = self.order, self.sent
        said = {
            "order_id": exports.shown_id(order.id),
            "line": order.line,
            "class": self.kind,
            "reason": self.reason,
            "day": order.day,
            "value": order.value,
            "currency": order.currency,
            "sent_value": sent.value if sent else None,
            "sent_currency": sent.currency if sent else "",
            "sources": list(self.sources),
        }
        return {name: value for name, value in said.items() if value not in (None, "", [])}


# One order


def judge(
    order: Order, receipts: Sequence[Sent], state: State | None, refused: str, moment: Moment
) -> tuple[str, str, Sent | None]:
    """(class, reason, what was delivered). `receipts` are those of this destination; `refused` says why no event was made of it.

    Under one number there may be several conversions, of two sites or of different people: what reached the platform counts
    before what is on its way, and that before what will not come.
    """
    for one in receipts:
        if one.outcome in SENT:
            difference = _difference(order, one)
            return ("differs", difference, one) if difference else ("delivered", "", one)
    if any(one.outcome == "shadowed" for one in receipts):
        return "left_out", "shadowed", None
    if state and state.held:
        return ("pixel_only", "waits", None) if _unconfirmed(state, moment) else ("pending", "held", None)
    if state and state.queued and moment.now - state.closed <= moment.max_age:
        return "pending", "queued", None
    if receipts:
        return (*_not_sent(receipts[-1].outcome, receipts[-1].reason), None)
    if state and state.routes:
        return (*_not_sent(*state.routes[-1]), None)
    if state and "unconfirmed" in state.how:
        return "pixel_only", "unconfirmed", None
    if state and "erased" in state.how:
        return "held_by_consent", "erasure", None
    if state:
        return "unknown", "no_outcome", None
    if refused:
        return "rejected", refused, None
    if order.time is not None and order.time < moment.kept_since:
        return "unknown", "older_than_kept", None
    return "never_received", "", None


def _unconfirmed(state: State, moment: Moment) -> bool:
    return moment.must_confirm and state.sources == {"pixel"}


def _difference(order: Order, sent: Sent) -> str:
    """In what the delivered event and the list differ; what one of them does not tell is no difference, but for the value."""
    if order.currency and sent.currency and order.currency != sent.currency:
        return "currency"
    if order.value is None:
        return ""
    if sent.value is None:
        return "no_value"
    return "value" if abs(order.value - sent.value) >= CENT else ""


def _not_sent(outcome: str, reason: str) -> tuple[str, str]:
    """The class of an outcome that is none of a delivery."""
    if reason in _LABELS:
        return "bot_or_test", reason
    if reason in _TOO_OLD:
        return "too_old", reason
    if outcome in ("held_back", "erased"):
        return "held_by_consent", reason or "erasure"
    if outcome == "parked":
        return "pixel_only", reason
    return ("left_out" if outcome == "filtered" else "rejected"), reason or outcome


# All of them


class Known:
    """What Kafka has of the orders of a list, for one destination. Fed in the order of the topics."""

    def __init__(self, destination: str, wanted: Collection[str]) -> None:
        self._destination = destination
        self._wanted = {one.encode() for one in wanted}
        self._refunded = {one.replace("%", "%25").replace(":", "%3A").encode() for one in wanted}  # as keys have them
        self._ours = Ours()
        self._states: dict[bytes, Json] = {}
        self._settled: set[bytes] = set()  # conversions that have a receipt
        self.refunds: set[str] = set()  # orders of which the platform was told a refund
        self.refused: dict[str, str] = {}  # event id -> why no event was made of it

    def add_receipt(self, key: bytes | None, value: bytes | None) -> None:
        if key is None or self._of(key) is None or (row := _json(value)) is None:
            return
        if row.get("destination") != self._destination:
            return
        if row.get("event_name") == "purchase":
            self._ours.add_receipt(key, row)
            self._settled.add(key)
        elif row.get("outcome") in SENT:
            self.refunds.add(str(row.get("transaction_id", "")))

    def add_state(self, key: bytes | None, value: bytes | None) -> None:
        if key is None or key[:1] in (ALIAS, MEMORY) or self._of(key) != b"purchase":
            return
        if (row := _json(value)) is None:
            self._states.pop(key, None)
        else:
            self._states[key] = row

    def add_letter(self, key: bytes | None, value: bytes | None) -> None:
        if (
            (letter := dead_letter.read(key, value))
            and letter.stage != "deliver"
            and letter.event_id.encode() in self._wanted
        ):
            self.refused[letter.event_id] = letter.reason

    def _of(self, key: bytes) -> bytes | None:
        """The event name, if it is of an order of the list: asked of each record of a topic, so nothing is decoded for it."""
        first, *rest = key.split(keys.SEPARATOR.encode())
        name = rest[1] if len(rest) > 1 else b""
        if name == b"purchase":
            return name if first in self._wanted else None
        return name if name == b"refund" and first.partition(b":")[0] in self._refunded else None

    def receipts(self) -> Mapping[str, Sequence[Sent]]:
        """By order number; an order without one is known by its event id."""
        found: dict[str, list[Sent]] = defaultdict(list)
        for one in self._ours.all():
            found[one.order_id or one.event_id].append(one)
        return found

    def states(self) -> Mapping[str, State]:
        found: dict[str, State] = defaultdict(State)
        for key, row in self._states.items():
            self._add(found[keys.parts(key)[0]], key, row)
        return found

    def _add(self, one: State, key: bytes, row: Json) -> None:
        one.sources |= {str(copy[0]) for copy in row.get("c", ())}
        if row.get("s") is None:
            one.held = True
            return
        one.how.add(str(row["s"]))
        one.closed = max(one.closed, int(row.get("t", 0)))
        route = row.get("r", {}).get(self._destination)
        if route:
            one.routes.append((str(route[0]), str(route[1])))
        else:
            one.queued = one.queued or (row["s"] not in ("unconfirmed", "erased") and key not in self._settled)


def _json(value: bytes | None) -> Json | None:
    """None for a deletion, and for what somebody else wrote there."""
    try:
        row = orjson.loads(value or b"")
    except orjson.JSONDecodeError:
        return None
    return row if isinstance(row, dict) else None


def judged(listed: Orders, known: Known, moment: Moment) -> list[Judged]:
    """Every order of the list, each once."""
    receipts, states, found = known.receipts(), known.states(), []
    for order in listed.orders.values():
        state = states.get(order.id)
        kind, reason, sent = judge(order, receipts.get(order.id, ()), state, known.refused.get(order.id, ""), moment)
        found.append(Judged(order, kind, reason, sent, tuple(sorted(state.sources)) if state else ()))
    return found


@dataclass(frozen=True)
class Share:
    """Of some orders, how many are of which class."""

    counts: Mapping[str, int]
    young: int = 0  # on their way, and not for long

    @property
    def orders(self) -> int:
        return sum(self.counts.values())

    @property
    def has(self) -> int:
        return sum(self.counts.get(kind, 0) for kind in HAS)

    @property
    def due(self) -> int:
        """Those that the platform should have."""
        return self.orders - self.young - sum(self.counts.get(kind, 0) for kind in APART)

    @property
    def part(self) -> float | None:
        """Percent of the due ones that it has; None: none is due."""
        return 100 * self.has / self.due if self.due else None

    def below(self, threshold: float) -> bool:
        return self.part is not None and self.part < threshold

    def as_json(self, threshold: float) -> Json:
        return {
            "orders": self.orders,
            "classes": {kind: self.counts.get(kind, 0) for kind in CLASSES},
            "delivered": self.has,
            "due": self.due,
            "share": None if self.part is None else round(self.part, 2),
            "below": self.below(threshold),
        }


def share(of: Iterable[Judged], now: int) -> Share:
    counts, young = Counter[str](), 0
    for one in of:
        counts[one.kind] += 1
        young += is_young(one, now)
    return Share(counts, young)


def is_young(one: Judged, now: int) -> bool:
    """On its way, and not missed yet."""
    return one.kind == "pending" and one.order.time is not None and now - one.order.time < YOUNG


@dataclass(frozen=True)
class Report:
    destination: str
    title: str  # of the platform
    listed: Orders
    judged: Sequence[Judged]
    now: int
    threshold: float = THRESHOLD
    refunds_sent: int = 0  # of the refunds of the list: the platform was told
    takes_refunds: bool = False

    def of(self, kind: str = "", day: str | None = None, reason: str = "") -> list[Judged]:
        """Those of a class or group, of a day, with a reason; of all of them where none is given."""
        return [
            one
            for one in self.judged
            if self._is(one, kind) and day in (None, one.order.day) and reason in ("", one.reason)
        ]

    def _is(self, one: Judged, kind: str) -> bool:
        match kind:
            case "has":
                return one.kind in HAS
            case "due":
                return one.kind not in APART and not is_young(one, self.now)
            case _:
                return kind in ("", one.kind)

    def days(self) -> dict[str, Share]:
        by_day: dict[str, list[Judged]] = defaultdict(list)
        for one in self.judged:
            by_day[one.order.day].append(one)
        return {day: share(by_day[day], self.now) for day in sorted(by_day)}

    @property
    def alert(self) -> bool:
        """Is the share of all orders, or of one day, below the threshold?"""
        return any(one.below(self.threshold) for one in (share(self.judged, self.now), *self.days().values()))

    @cached_property
    def summary(self) -> Json:
        """What is told in numbers; classes sum to the orders, in each day and over all of them."""
        reasons = Counter((one.kind, one.reason) for one in self.judged if one.reason)
        alone = sum(one.kind in HAS and one.sources == ("pixel",) for one in self.judged)
        said: Json = {
            "destination": self.destination,
            "platform": self.title,
            "time_zone": self.listed.zone,
            "threshold": self.threshold,
            "alert": self.alert,
            **share(self.judged, self.now).as_json(self.threshold),
            "reasons": [{"class": kind, "reason": why, "orders": n} for (kind, why), n in reasons.most_common()],
            "days": [{"day": day, **one.as_json(self.threshold)} for day, one in self.days().items()],
            "from_pixel_alone": alone,
            "refunds": len(self.listed.refunds),
            "refunds_sent": self.refunds_sent,
            "repeated_rows": self.listed.repeated,
            "unread": [str(one) for one in self.listed.unread],
            "more_unread": self.listed.more_unread,
            "columns": self.listed.columns,
            "hints": hints(self),
            "after": after(self),
        }
        return said


def hints(report: Report) -> list[str]:
    """What many orders of a class point to."""
    found = []
    never = [one.order for one in report.of("never_received")]
    if never and len(never) == len(report.judged):
        found.append(
            "no order of the list was ever received: is its column of order numbers the one that pixel and server report as "
            f"transaction id? {report.listed.columns.get('order_id', '')} was read"
        )
    elif never and not any(one.id[:1].isalnum() for one in never):
        found.append(
            "the numbers of all orders that were never received begin with a sign: are they reported without it?"
        )
    off = [one for one in report.of("differs") if one.reason == "value" and one.order.value and one.sent]
    ratios = Counter(round((one.sent.value or 0) / (one.order.value or 1), 3) for one in off if one.sent)
    if ratios and len(off) >= 3 and (usual := ratios.most_common(1)[0])[1] >= 0.9 * len(off):
        found.append(
            f"where the value differs, what was sent is {usual[0]:g} times the list's: gross and net, or cents?"
        )
    if not report.listed.columns.get("time"):
        found.append(
            "no column tells the time of an order, so there are no days, and no order on its way counts as young"
        )
    return found


def after(report: Report) -> list[str]:
    """What begins where this ends: why the platform shows fewer than it has."""
    has, refunds = share(report.judged, report.now).has, len(report.listed.refunds)
    said = [f"{report.title} has {has} of these {len(report.judged)} orders. What it shows of them is decided there."]
    said += [one.format(zone=report.listed.zone) for one in AFTER]
    if refunds and report.takes_refunds:
        said.append(
            f"Refunds: {report.refunds_sent} of the list's {refunds} were told to it; the orders of the others count in full."
        )
    elif refunds:
        said.append(f"Refunds: it is told of none, so the {refunds} refunded orders of the list count in full.")
    return said


AFTER = (
    "Matching: an order counts for an ad only if the platform finds the person. Match quality, on the page Destinations, has more.",
    "Attribution: of all orders, reports about ads show those of people who saw or clicked one in its attribution window.",
    "Days: the platform dates by its account's time zone, and some reports by the day of the click. Days here are of {zone}.",
    "Browser tag: what a tag on the page reports beside us is counted once only under the same id.",
)


# What is printed

REASONS: Mapping[str, str] = {
    "value": "another value",
    "no_value": "without a value",
    "currency": "another currency",
    "held": "held until its other copies come",
    "queued": "queued, in a request, or set aside until it is tried again",
    "waits": "waits for the server's copy",
    "unconfirmed": "the server's copy never came",
    "no_outcome": "closed long ago, and no receipt of this destination: was it added later?",
    "older_than_kept": "it happened before what is kept",
    "shadowed": "the destination is in shadow: it would have been sent",
}


def for_people(report: Report, kind: str, show: int) -> list[str]:
    """A table, the days, and the first `show` orders of what is wrong; or all orders of one class."""
    if kind:
        return [printable(_line(one)) for one in report.of(kind)]
    said = report.summary
    read = ", ".join(f"{name} in {column}" for name, column in said["columns"].items())
    lines = [f"{said['orders']} orders, at {report.destination} ({report.title})", f"  read: {read}", ""]
    for name, words in CLASSES.items():
        if count := said["classes"][name]:
            lines.append(f"{count:9} {count / said['orders']:7.1%}  {words}  [{name}]")
            whys = [one for one in said["reasons"] if one["class"] == name]
            lines += [f"{one['orders']:17}    {REASONS.get(one['reason'], one['reason'])}" for one in whys]
    lines += _asides(said)
    lines += ["", f"Days, in {report.listed.zone}: orders, and what the platform has of those that it should have"]
    lines += [_day(one, report.threshold) for one in said["days"]]
    for name in ("never_received", "differs", "rejected", "too_old", "pending", "pixel_only"):
        if some := report.of(name):
            lines += ["", CLASSES[name].capitalize(), *(f"  {_line(one)}" for one in some[:show])]
            lines += [f"  … {len(some) - show} more: --class {name}"] if len(some) > show else []
    lines += [""] * bool(said["hints"]) + [f"Hint: {one}" for one in said["hints"]]
    lines += ["", "After delivery", *(f"  {one}" for one in said["after"])]
    if said["alert"]:
        lines += ["", f"Below {report.threshold:g} %: see the days"]
    return [printable(line) for line in lines]


def _asides(said: Json) -> list[str]:
    words = {
        "from_pixel_alone": "of the delivered ones were reported by the pixel alone: what a browser says of money can be wrong",
        "refunds": "refunds: rows with an amount below zero, which are no orders",
        "repeated_rows": "further rows of the same orders",
    }
    unread = len(said["unread"]) + said["more_unread"]
    lines = [f"{said[name]:9}          {text}" for name, text in words.items() if said[name]]
    return lines + ([f"{unread:9}          rows that cannot be used, or not wholly: see above"] if unread else [])


def _day(one: Json, threshold: float) -> str:
    part = "nothing due" if one["share"] is None else f"{one['share']:.1f} % ({one['delivered']} of {one['due']})"
    return f"  {one['day'] or 'no day':10} {one['orders']:7}  {part}" + (
        f"  below {threshold:g} %" if one["below"] else ""
    )


def _line(one: Judged) -> str:
    said = one.as_json()
    money = " ".join(
        f"{said[name]:g}" if name == "value" else said[name] for name in ("value", "currency") if name in said
    )
    parts = [f"order {said['order_id']}", said.get("day", ""), money]
    if one.kind == "differs":
        sent = f"{said['sent_value']:g}" if "sent_value" in said else "nothing"
        parts.append(f"-> {sent} {said.get('sent_currency', '')}".rstrip())
    return "  ".join([*filter(None, parts)]) + (f": {REASONS.get(one.reason, one.reason)}" if one.reason else "")


# Kafka


async def read(settings: Settings, name: str, listed: Orders, progress: Callable[[], None] = lambda: None) -> Known:
    """What is known of these orders. Calls `progress` after each thousand records. Raises Unavailable."""
    known, its = Known(name, {*listed.orders, *listed.refunds}), topics.names(settings)
    times = [order.time for order in listed.orders.values()]
    since = None if None in times or not times else min(time for time in times if time is not None) - EARLY
    feeds = (its.receipts, known.add_receipt), (its.changelog("seen"), known.add_state), (its.dead, known.add_letter)
    async with records.reader(settings) as consumer:
        for topic, add in feeds:
            number = 0
            async for record in records.everything(consumer, topic, range(settings.kafka.partitions), since):
                add(record.key, record.value)
                number += 1
                if number % 1000 == 0:
                    progress()
    return known


def report(settings: Settings, name: str, listed: Orders, known: Known, now: int, threshold: float) -> Report:
    destination: Destination = settings.destinations[name]
    sink = SINKS[destination.sink](destination)
    kept = next(one for one in topics.plan(settings) if one.name == topics.names(settings).receipts)
    moment = Moment(
        now=now,
        kept_since=now - int(kept.config["retention.ms"]),
        max_age=topics.oldest(settings, name),
        must_confirm=settings.rule("purchase").wait_for == "server",
    )
    return Report(
        name,
        sink.title,
        listed,
        judged(listed, known, moment),
        now,
        threshold,
        refunds_sent=len(known.refunds & listed.refunds.keys()),
        takes_refunds=bool(destination.platform_names(sink.names, "refund")),
    )
