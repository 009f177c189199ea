"""Would we send what another system sends? Its export against our requests in shadow, and against what became of them.

Events are paired by order number, else by event id. For each pair: what differs, field by field. For what only one side has: why,
where our receipts tell it. Values of fields about a person are compared and never told: other systems send them in clear, too.

    pair         which of theirs is which of ours
    differences  what one pair differs in
    compare      the whole; `Report` is what the command prints
    ours         reads capistream.trace and capistream.receipts
"""

import re
import statistics
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import orjson

from app import exports, identity, records, redaction, topics
from app.destination import Destination
from app.events import Json
from app.exports import SENT, WOULD, Export, Ours, Sent
from app.letters import printable, when
from app.settings import Settings
from sinks import SINKS
from sinks._base import Places

CENT = 0.005  # amounts closer than this are the same
ALIKE = 0.9  # part of the differences in a field that must be of the same size to be told as one
LATE = 3_600_000  # milliseconds by which an event may lie ahead of its record in Kafka: app/normalize.py
#: Filtered for these reasons, an event was left to the other system on purpose.
LEFT = ("before_live_from", "after_live_until", "not_in_share", "destination_off")
UNKNOWN = "not known here: no copy came, or it still waits"

#: The classes of a report, and what each is called.
FINE = {
    "equal": "in both, equal",
    "left": "left to the old system, which has it",
    "repeated": "again in the old system, under the same id and name",
}
WRONG = {
    "different": "in both, different",
    "only_old": "only in the old system",
    "only_ours": "only in ours",
    "neither": "left to the old system, which does not have it",
    "twice": "sent by both, and the platform may count it twice",
}

Names = Mapping[str, Collection[str]]  # our name of an event -> what a destination may call it, in lower case


@dataclass(frozen=True)
class Difference:
    field: str
    how: str  # a fixed text, which differences are counted by
    old: str = ""  # what both say, of fields that are about the event alone
    ours: str = ""

    def __str__(self) -> str:
        return f"{self.field} {self.how}" + (f", {self.old} -> {self.ours}" if self.old or self.ours else "")

    def as_json(self) -> Json:
        return {name: value for name, value in vars(self).items() if value}


@dataclass(frozen=True)
class Finding:
    """One event, or a pair, in a class of the report."""

    kind: str
    old: Sent | None = None
    ours: Sent | None = None
    differences: Sequence[Difference] = ()
    why: str = ""

    def within(self, span: "Span") -> bool:
        """By either side's time: they may differ by a time zone."""
        return any(span.has(one) for one in (self.old, self.ours) if one)

    def as_json(self) -> Json:
        old, ours = self.old or Sent(), self.ours or Sent()
        time = ours.time if old.time is None else old.time
        said = {
            "kind": self.kind,
            "order_id": exports.shown_id(old.order_id or ours.order_id),
            "event_id": exports.shown_id(old.event_id or ours.event_id),
            "name": exports.shown_id(ours.name or old.name or ours.event_name),
            "time": "" if time is None else when(time),
            "why": self.why,
            "differences": [one.as_json() for one in self.differences],
        }
        return {name: value for name, value in said.items() if value}

    def __str__(self) -> str:
        said = self.as_json()
        name = " ".join(said[part] for part in ("name", "time") if part in said)
        ids = f"order {said['order_id']}" if "order_id" in said else f"event {said.get('event_id', '?')}"
        more = [self.why] if self.why else [str(one) for one in self.differences]
        return ": ".join(filter(None, (f"{ids}  {name}", "; ".join(more))))


@dataclass(frozen=True)
class Span:
    """Of time, both ends belonging to it, in Unix milliseconds; None: open."""

    since: int | None = None
    until: int | None = None

    def has(self, one: Sent) -> bool:
        """What tells no time may lie in any."""
        return one.time is None or (
            (self.since is None or self.since <= one.time) and (self.until is None or one.time <= self.until)
        )


@dataclass(frozen=True)
class Report:
    findings: Sequence[Finding]
    span: Span  # in which it was judged what stands on one side only
    outside: int = 0  # not in that time, or what both have not in the one that was asked for
    merged: int = 0  # sent by both, under one id by which the platform makes one of them
    unpairable: int = 0  # of the old system without any id

    def of(self, kind: str) -> list[Finding]:
        return [one for one in self.findings if one.kind == kind]


# Pairs


@dataclass
class Pairs:
    both: list[tuple[Sent, Sent]] = field(default_factory=list)
    only_old: list[Sent] = field(default_factory=list)
    only_ours: list[Sent] = field(default_factory=list)
    repeated: list[Sent] = field(default_factory=list)  # of the old system


def pair(old: Iterable[Sent], ours: Sequence[Sent], names: Names) -> Pairs:
    """By order number, else by event id; under one id by name, and then those left over that may be the same under another name."""
    by_id: dict[str, list[int]] = defaultdict(list)
    for index, one in enumerate(ours):
        for id_ in {one.order_id, one.event_id} - {""}:
            by_id[id_].append(index)
    known = {name for called in names.values() for name in called}
    pairs, free, taken = Pairs(), set(range(len(ours))), set[tuple[str, str]]()
    left = list(old)
    for renamed in (False, True):
        waiting, left = left, []
        for one in waiting:
            found = [
                index
                for id_ in (one.order_id, one.event_id)
                for index in by_id.get(id_, ())
                if index in free
                and (_same_name(one, ours[index], names) or (renamed and one.name.casefold() not in known))
            ]
            if found:
                index = max(found, key=lambda index: (ours[index].event_id == one.event_id, -index))
                free.remove(index)
                taken.add(_which(one))
                pairs.both.append((one, ours[index]))
            elif _which(one) in taken:
                pairs.repeated.append(one)
            else:
                left.append(one)
    for one in left:
        (pairs.repeated if _which(one) in taken else pairs.only_old).append(one)
        taken.add(_which(one))
    pairs.only_ours = [ours[index] for index in sorted(free)]
    return pairs


def _which(one: Sent) -> tuple[str, str]:
    return one.order_id or one.event_id, one.name.casefold()


def _same_name(old: Sent, ours: Sent, names: Names) -> bool:
    theirs = old.name.casefold()
    own = [ours.name.casefold()] if ours.name else names.get(ours.event_name, ())
    return not theirs or theirs == ours.event_name.casefold() or theirs in own


# What differs


def differences(old: Sent, ours: Sent, tolerance: int, places: Places | None = None) -> list[Difference]:
    """What an export does not tell is no difference, but for the fields of bodies. `tolerance` of times is in milliseconds."""
    found: list[Difference] = []
    if old.value is not None and ours.value is not None and abs(old.value - ours.value) >= CENT:
        found.append(Difference("value", "differs", _number(old.value), _number(ours.value)))
    texts = {"currency": (old.currency, ours.currency), "event_id": (old.event_id, ours.event_id)}
    texts |= {"name": (old.name, ours.name), "order_id": (_order_sent(old, places), _order_sent(ours, places))}
    if not old.body and old.name.casefold() in (ours.name.casefold(), ours.event_name.casefold()):
        del texts["name"]  # a report may write names as it likes; a request may not
    if not old.body and old.order_id == ours.event_id:
        del texts["order_id"]  # one column for both kinds of ids
    for name, (theirs, own) in texts.items():
        if theirs and own and theirs != own:
            found.append(Difference(name, "differs", exports.shown_id(theirs), exports.shown_id(own)))
    if old.time is not None and ours.time is not None and abs(old.time - ours.time) > tolerance:
        found.append(Difference("time", "differs", when(old.time), when(ours.time)))
    if old.body and ours.body and places:
        found += _of_bodies(orjson.loads(old.body), orjson.loads(ours.body), places)
    return found


def _order_sent(one: Sent, places: Places | None) -> str:
    """The order number as the platform gets it."""
    sent = exports.at(orjson.loads(one.body), places.order_id) if one.body and places else None
    return one.order_id if sent is None else str(sent)


def _of_bodies(old: Json, ours: Json, places: Places) -> Iterator[Difference]:
    """All other fields. Of these no value is told: it may be of a person, and in clear."""
    told = {getattr(places, name) for name in exports.FIELDS}
    theirs, own = (dict(_leaves(one)) for one in _unlike(old, ours))
    for path in sorted((theirs.keys() | own.keys()) - told):
        field_ = redaction.masked(path)
        if path not in own:
            yield Difference(field_, "is only in the old")
        elif path not in theirs:
            yield Difference(field_, "is only in ours")
        elif how := _how(theirs[path], own[path]):
            yield Difference(field_, how)


def _unlike(one: Any, other: Any) -> tuple[Any, Any]:
    """Both without the members that are the same: of most pairs nothing is left to look at."""
    if not isinstance(one, dict) or not isinstance(other, dict):
        return one, other
    theirs, own = {}, {}
    for name in one.keys() | other.keys():
        if name not in other:
            theirs[name] = one[name]
        elif name not in one:
            own[name] = other[name]
        elif one[name] != other[name]:
            theirs[name], own[name] = _unlike(one[name], other[name])
    return theirs, own


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """(path, what stands there), each spelling of the same alike. A list of one is its member, the order of others is none."""
    if isinstance(value, list) and value and all(isinstance(one, dict) for one in value):
        names = [name for one in value for name in one]
        if len(names) == len(set(names)):  # such as [{"emailAddress": …}, {"phoneNumber": …}]
            value = {name: inner for one in value for name, inner in one.items()}
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _leaves(inner, f"{path}.{name}".removeprefix("."))
    elif value not in (None, "", []):
        yield path, _plain(value)


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        plain = sorted((_plain(one) for one in value), key=lambda one: orjson.dumps(one, option=orjson.OPT_SORT_KEYS))
        return plain[0] if len(plain) == 1 else plain
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, str) and identity.is_sha256(value):
        return value[:64].lower()
    if isinstance(value, str):
        return _number(value) if re.fullmatch(r"-?(0|[1-9]\d{0,14})\.\d{1,9}", value) else value.strip()
    return value if isinstance(value, bool) else _number(value)


def _number(value: float | str) -> str:
    """59.9 and "59.90" are the same, 60 and 60.0, too."""
    return format(Decimal(str(value)).normalize(), "f")


def _how(old: Any, ours: Any) -> str:
    """In what they differ; empty where they do not. A clear value that is hashed to ours is no difference."""
    hashed_old, hashed_ours = (isinstance(one, str) and identity.is_sha256(one) for one in (old, ours))
    if old == ours:
        return ""
    if hashed_old and hashed_ours:
        if old == identity.sha256(ours):
            return "is hashed twice in the old"
        return "is the hash of nothing in the old" if old in _OF_NOTHING else "differs, both hashed"
    if hashed_ours and isinstance(old, str):
        return "" if ours in _hashes(old) else "differs, and is not hashed in the old"
    return "differs, and is hashed in the old only" if hashed_old else "differs"


_OF_NOTHING = frozenset(map(identity.sha256, ("", " ", "null", "undefined", "none")))


def _hashes(clear: str) -> set[str]:
    """Each hash that a text may have as something of a person."""
    found = {identity.sha256(clear.strip().lower()), identity.sha256(clear.strip())}
    for kind in identity.RULES:
        try:
            found.update(identity.hashes(kind, clear, None).values())
        except identity.Unusable:
            continue
    return found


# The whole


def compare(
    old: Iterable[Sent],
    ours: Iterable[Sent],
    destination: Destination,
    *,
    tolerance: int,
    span: Span = Span(),
    events: Collection[str] = (),
) -> Report:
    """`events` are our names of those that count; none: all. `tolerance` of times is in milliseconds.

    What happened within `span` is judged; where that is open, all that both have, and of what stands on one side only what lies
    within the time of which both sides tell.
    """
    sink = SINKS[destination.sink](destination)
    names = {
        name: {one.casefold() for one in (name, *destination.platform_names(sink.names, name))}
        for name in {*sink.names, *destination.events, *events}
    }
    wanted = {one for name in events for one in names[name]}
    theirs = [one for one in old if not events or not one.name or one.name.casefold() in wanted]
    with_id = [one for one in theirs if one.order_id or one.event_id]
    mine = [one for one in ours if not events or one.event_name in events]
    pairs = pair(with_id, [one for one in mine if one.outcome in WOULD], names)
    reasons = pair(pairs.only_old, [one for one in mine if one.outcome not in WOULD], names)
    alone = [
        *(Finding("only_old", one, why=UNKNOWN) for one in reasons.only_old),
        *(Finding("only_ours", ours=one) for one in pairs.only_ours),
        *(Finding("neither", ours=one, why=one.reason) for one in reasons.only_ours if _is_left(one)),
    ]
    of_both = [
        *(_judged(one, own, tolerance, sink.places) for one, own in pairs.both),
        *(_why(one, own) for one, own in reasons.both),
        *(Finding("repeated", one) for one in (*pairs.repeated, *reasons.repeated)),
    ]
    common = _common(with_id, mine)
    narrow = Span(
        common.since if span.since is None else span.since, common.until if span.until is None else span.until
    )
    judged = [one for one in of_both if one.within(span)] + [one for one in alone if one.within(narrow)]
    return Report(
        judged,
        narrow,
        outside=len(of_both) + len(alone) - len(judged),
        merged=sum(
            one.ours.outcome in SENT and _counts_once(one.old, one.ours, sink.places)
            for one in judged
            if one.old and one.ours
        ),
        unpairable=len(theirs) - len(with_id),
    )


def _common(old: Sequence[Sent], ours: Sequence[Sent]) -> Span:
    """The time of which both sides tell; open where one of them tells no times."""
    times = [[one.time for one in side if one.time is not None] for side in (old, ours)]
    return Span(max(map(min, times)), min(map(max, times))) if all(times) else Span()


def _judged(old: Sent, ours: Sent, tolerance: int, places: Places | None) -> Finding:
    """Both have it. Where both really sent it the platform has it twice, unless it knows it again."""
    found = differences(old, ours, tolerance, places)
    if ours.outcome in SENT and not _counts_once(old, ours, places):
        return Finding("twice", old, ours, found)
    return Finding("different" if found else "equal", old, ours, found)


def _counts_once(old: Sent, ours: Sent, places: Places | None) -> bool:
    if places is None or not places.counts_once_by:
        return False
    if places.counts_once and not {ours.name, ours.event_name} & set(places.counts_once):
        return False
    theirs, own = (getattr(one, places.counts_once_by) for one in (old, ours))
    return bool(theirs) and theirs == own


def _why(old: Sent, ours: Sent) -> Finding:
    """We had a reason not to send it."""
    if _is_left(ours):
        return Finding("left", old, ours, why=ours.reason)
    return Finding("only_old", old, ours, why=": ".join(filter(None, (ours.outcome, ours.reason))))


def _is_left(ours: Sent) -> bool:
    return ours.outcome == "filtered" and ours.reason in LEFT


# What is printed


def summary(report: Report, export: Export) -> Json:
    """What is told in numbers."""
    counts = {kind: len(found) for kind in (*FINE, *WRONG) if (found := report.of(kind))}
    fields = Counter(f"{one.field} {one.how}" for finding in report.findings for one in finding.differences)
    why = Counter(finding.why for finding in report.of("only_old"))
    said: Json = {
        "differs": differs(report, export),
        "old": len(export.sent),
        "since": "" if report.span.since is None else when(report.span.since),
        "until": "" if report.span.until is None else when(report.span.until),
        "counts": counts,
        "merged_by_platform": report.merged,
        "outside": report.outside,
        "without_id": report.unpairable,
        "unread": len(export.unread),
        "lines_without_event": export.without,
        "columns": export.columns,
        "fields": dict(fields.most_common()),
        "only_old_why": dict(why.most_common()),
        "hints": hints(report),
    }
    return {name: value for name, value in said.items() if name == "differs" or value}


def differs(report: Report, export: Export) -> bool:
    """Is there anything to look at?"""
    return bool(export.unread) or any(one.kind in WRONG for one in report.findings)


def hints(report: Report) -> list[str]:
    """Differences that nearly all are of one size have one cause."""
    ratios: list[float] = []
    shifts: list[float] = []
    for finding in report.of("different"):
        old, ours = finding.old or Sent(), finding.ours or Sent()
        told = {one.field for one in finding.differences}
        if "value" in told and old.value:
            ratios.append(round((ours.value or 0) / old.value, 3))
        if "time" in told:
            shifts.append(round(((ours.time or 0) - (old.time or 0)) / 1000))
    found: list[str] = []
    if (ratio := _usual(ratios)) is not None:
        found.append(f"where the value differs, ours is {ratio:g} times the old one: gross and net, or cents?")
    if (shift := _usual(shifts)) is not None:
        found.append(f"where the time differs, ours is {shift:+g} s from the old one: a time zone?")
    return found


def _usual(numbers: Sequence[float]) -> float | None:
    """The one that nearly all of them are; None for a few, or where there is none."""
    if len(numbers) < 3:
        return None
    usual = statistics.mode(numbers)
    return usual if numbers.count(usual) >= ALIKE * len(numbers) else None


def for_people(report: Report, export: Export, show: int) -> list[str]:
    """A table, what differs how often, and the first `show` of each class."""
    said, total = summary(report, export), len(report.findings)
    span = f", compared from {said['since']} to {said['until']}" if "since" in said and "until" in said else ""
    columns = ", ".join(f"{name} in {column}" for name, column in export.columns.items())
    lines = [f"{len(export.sent)} events of the old system{span}", *([f"  read: {columns}"] if columns else []), ""]
    for kind, words in {**FINE, **WRONG}.items():
        count = said.get("counts", {}).get(kind, 0)
        if count or kind in ("equal", "different", "only_old", "only_ours"):
            lines.append(f"{count:9} {count / max(1, total):7.1%}  {words}")
    for name, words in _ASIDE.items():
        if count := said.get(name):
            lines.append(f"{count:9}           {words}")
    lines += [*_counted("What differs", said.get("fields", {})), *(f"  {one}" for one in said.get("hints", ()))]
    lines += _counted("Only in the old system: what became of it here", said.get("only_old_why", {}))
    for kind, words in WRONG.items():
        if found := report.of(kind)[:show]:
            lines += ["", words.capitalize(), *(f"  {one}" for one in found)]
            if more := len(report.of(kind)) - len(found):
                lines.append(f"  … {more} more: --show, or --json for all")
    return [printable(line) for line in lines]


_ASIDE = {
    "merged_by_platform": "of these sent by both under one id, of which the platform makes one",
    "outside": "before or after the time that is compared: not judged",
    "without_id": "of the old system without order number and event id: not judged",
    "unread": "of the old system that cannot be read",
    "lines_without_event": "lines without an event of this platform",
}


def _counted(title: str, counts: Mapping[str, int]) -> list[str]:
    return ["", title, *(f"{count:9}  {what}" for what, count in counts.items())] if counts else []


# Our own side


def read_file(text: bytes, name: str, places: Places | None) -> list[Sent]:
    """Rows of capistream.trace, or what `capistream preview --json` prints, of one destination."""
    found: list[Sent] = []
    for line in text.splitlines():
        try:
            row = orjson.loads(line)
        except orjson.JSONDecodeError:
            continue
        if isinstance(row, dict) and row.get("destination") == name and (sent := exports.of_trace(row, places)):
            found.append(sent)
    return found


async def ours(settings: Settings, name: str, places: Places | None, since: int | None = None) -> list[Sent]:
    """What Kafka has of one destination: requests in shadow, and receipts. Raises Unavailable."""
    known, names = Ours(), topics.names(settings)
    begin = None if since is None else since - LATE
    async with records.reader(settings) as consumer:
        for topic in (names.trace, names.receipts):
            async for record in records.everything(consumer, topic, range(settings.kafka.partitions), begin):
                row = _row(record, name)
                if row is None:
                    continue
                if topic == names.trace:
                    known.add_trace(record.key, row, places)
                else:
                    known.add_receipt(record.key, row)
    return list(known.all())


def _row(record: Any, name: str) -> Json | None:
    """Of this destination; None for others', and for what somebody else wrote there."""
    try:
        row = orjson.loads(record.value)
    except (TypeError, ValueError):
        return None
    is_ours = isinstance(row, dict) and record.key is not None and row.get("destination") == name
    return row if is_ours else None
