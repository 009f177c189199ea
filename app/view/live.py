"""The newest conversions and what became of them, as they stand at the ends of two topics: a window, a funnel, rates. Pure.

`<prefix>.conversions` and `<prefix>.receipts` have them for the whole installation, whoever wrote them, so any worker shows all.
A conversion and its receipts have the same key and the same partition: a part of the partitions is a fair sample.

The funnel is of the conversions in the window, and tells where each of them is by now. So its steps add up, and each of its
numbers leads to the conversions that it counts.
"""

import hashlib
from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import orjson

from app import keys
from app.events import Json
from app.view.lookup import DONE, iso

MOST = 2000  # conversions in the window
SHOWN = 100  # of them, on a page
EARLY = 5000  # receipts that wait for their conversion
MINUTES = 15  # of the charts
MINUTE = 60_000  # milliseconds

#: What the charts count each minute.
KINDS = ("copies", "conversions", "delivered", "not_delivered")


@dataclass
class There:
    """What became of a conversion at one destination."""

    route: tuple[str, str]  # state and reason
    outcomes: dict[str, tuple[str, str]] = field(default_factory=dict)  # by the platform's name for the event

    @property
    def state(self) -> tuple[str, str]:
        """(state, reason); of several names the worst."""
        said = self.outcomes.values()
        return next((one for one in said if one[0] not in DONE), None) or next(iter(said), self.route)


@dataclass
class Line:
    """A conversion in the window."""

    row: str  # names it on a page, the same at every worker
    at: int  # when it was appended, Unix milliseconds
    id: str
    site: str
    event_name: str
    apart: str
    value: str
    currency: str
    sources: tuple[str, ...]  # of the copies that were merged
    received: int  # copies, repeats included
    closed: str
    labels: tuple[str, ...]
    there: dict[str, There]
    version: int = 0

    def as_json(self) -> Json:
        said = {name: getattr(self, name) for name in ("id", "site", "event_name", "apart", "value", "currency")}
        said = {name: value for name, value in said.items() if value}
        return said | {
            "at": iso(self.at),
            "sources": list(self.sources),
            "received": self.received,
            "closed": self.closed,
            "destinations": {
                name: {"state": state, "reason": reason} if reason else {"state": state}
                for name, (state, reason) in ((name, there.state) for name, there in self.there.items())
            },
        }


class Filter(NamedTuple):
    """Which lines; what is empty leaves out none."""

    event: str = ""
    site: str = ""
    source: str = ""  # one of its copies is of this source
    destination: str = ""  # `outcome` and `reason` are those there; without one, those of any
    outcome: str = ""  # a state
    reason: str = ""
    reached: str = ""  # a step of the funnel: consented, queued, delivered
    copies: str = ""  # single, joined, repeated
    closed: str = ""  # how it closed
    label: str = ""

    def takes(self, line: Line) -> bool:
        return (
            self.event in ("", line.event_name)
            and self.site in ("", line.site)
            and (not self.source or self.source in line.sources)
            and (not self.copies or self.copies in _copies(line))
            and self.closed in ("", line.closed)
            and (not self.label or self.label in line.labels)
            and self._there(line)
        )

    def _there(self, line: Line) -> bool:
        if not (self.destination or self.outcome or self.reason or self.reached):
            return True
        of = [line.there[self.destination]] if self.destination in line.there else []
        return any(
            self.outcome in ("", state)
            and self.reason in ("", reason)
            and (not self.reached or _reached(state, self.reached))
            for state, reason in (there.state for there in (of if self.destination else line.there.values()))
        )


def _copies(line: Line) -> Sequence[str]:
    merged = ["joined" if len(line.sources) > 1 else "single"]
    return [*merged, "repeated"] if line.received > len(line.sources) else merged


class Window:
    """The newest conversions, and counts of the last minutes."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._lines: OrderedDict[bytes, Line] = OrderedDict()  # the oldest first
        self._early: OrderedDict[bytes, list[Json]] = OrderedDict()  # receipts read before their conversion
        self._minutes: dict[int, Counter[str]] = {}
        self.version = 0  # changes with every line
        self.full = False  # did it have to leave out older ones?

    def lines(self) -> Iterable[Line]:
        """The newest first."""
        return reversed(self._lines.values())

    @property
    def since(self) -> int | None:
        """When the oldest of them was appended."""
        return next(iter(self._lines.values())).at if self._lines else None

    def conversion(self, key: bytes, value: bytes | None, at: int) -> None:
        """A record of `<prefix>.conversions`, appended at this time. What somebody else wrote there is passed over."""
        try:
            said = orjson.loads(value or b"")
            line = _line(key, said, at)
        except (ValueError, TypeError, KeyError, AttributeError):
            return
        known = self._lines.get(key)
        if said["closed"] == "updated" and known is None:
            return  # it closed before the window
        if known is None:
            self._lines[key] = line
            self._count(at, "copies", line.received)
            self._count(at, "conversions")
            if len(self._lines) > self._most:
                self._lines.popitem(last=False)
                self.full = True
        elif said["closed"] == "updated":  # only of the destinations to which it matters
            for name, there in line.there.items():
                if before := known.there.get(name):  # its receipt may have been read first
                    there.outcomes |= {of: said for of, said in before.outcomes.items() if said[0] in DONE}
                known.there[name] = there
            known.sources, known.received = line.sources, max(known.received, line.received)
            line = known
        else:  # written again after a crash: its outcomes stand
            return
        self._touch(line)
        for receipt in self._early.pop(key, ()):
            self._note(line, receipt)

    def receipt(self, key: bytes, value: bytes | None, at: int) -> None:
        """A record of `<prefix>.receipts`."""
        try:
            said = orjson.loads(value or b"")
            destination, outcome = str(said["destination"]), str(said["outcome"])
        except (ValueError, TypeError, KeyError):
            return
        if outcome not in ("filtered", "parked"):  # never were to be delivered, or not yet
            self._count(at, "delivered" if outcome in DONE else "not_delivered")
        said = {
            "destination": destination,
            "outcome": outcome,
            "reason": str(said.get("reason", "")),
            "name": str(said.get("name", "")),
        }
        if (line := self._lines.get(key)) is not None:
            self._note(line, said)
            return
        self._early.setdefault(key, []).append(said)
        if len(self._early) > EARLY:
            self._early.popitem(last=False)

    def _note(self, line: Line, receipt: Json) -> None:
        there = line.there.setdefault(receipt["destination"], There(("queued", "")))
        there.outcomes[receipt["name"]] = receipt["outcome"], receipt["reason"]
        self._touch(line)

    def _touch(self, line: Line) -> None:
        self.version += 1
        line.version = self.version

    def _count(self, at: int, kind: str, number: int = 1) -> None:
        minute = at // MINUTE
        self._minutes.setdefault(minute, Counter())[kind] += number
        for old in [one for one in self._minutes if one < max(self._minutes) - MINUTES]:
            del self._minutes[old]

    def rates(self, now: int, since: int) -> list[Json]:
        """Each of the last minutes, the one under way last. What was before `since` was not read: None."""
        return [
            {"at": iso(minute * MINUTE)}
            | {kind: None if minute * MINUTE < since else self._minutes.get(minute, Counter())[kind] for kind in KINDS}
            for minute in range(now // MINUTE - MINUTES + 1, now // MINUTE + 1)
        ]

    def choices(self) -> dict[str, list[str]]:
        """What filters can ask for."""
        found: dict[str, set[str]] = {name: set() for name in ("event", "site", "source", "outcome", "closed", "label")}
        for line in self._lines.values():
            found["event"].add(line.event_name)
            found["site"].add(line.site)
            found["source"].update(line.sources)
            found["outcome"].update(there.state[0] for there in line.there.values())
            found["closed"].add(line.closed)
            found["label"].update(line.labels)
        return {name: sorted(values) for name, values in found.items()}


def _line(key: bytes, said: Json, at: int) -> Line:
    event, commerce = said["event"], said["event"].get("commerce", {})
    conversion, site, name = keys.parts(key)
    sources = tuple(sorted(str(copy["source"]) for copy in said["copies"])) or (str(event["source"]),)
    return Line(
        row=f"c{hashlib.blake2s(key, digest_size=6).hexdigest()}",
        at=at,
        id=conversion,
        site=site,
        event_name=name,
        apart=keys.apart(key),
        value=str(commerce.get("value", "")),
        currency=str(commerce.get("currency", "")),
        sources=sources,
        received=max(int(said["received"]), len(sources)),
        closed=str(said["closed"]),
        labels=tuple(str(label) for label in event.get("labels", ())),
        there={
            destination: There((str(route["state"]), str(route.get("reason", ""))))
            for destination, route in said["routes"].items()
        },
    )


# The funnel

STEPS = ("consented", "queued", "delivered")

#: Where a state ends that is no delivery.
_AT_CONSENT = ("held_back",)
_AT_QUEUE = ("filtered", "parked", "erased")


def funnel(lines: Iterable[Line], destinations: Sequence[str]) -> Json:
    """Copies to conversions, and at each destination conversions to deliveries, with what is lost on the way and why."""
    lines = list(lines)
    joined = sum(len(line.sources) - 1 for line in lines)
    repeats = sum(line.received - len(line.sources) for line in lines)
    return {
        "copies": len(lines) + joined + repeats,
        "joined": joined,
        "repeats": repeats,
        "unique": len(lines),
        "destinations": [_at(lines, name) for name in destinations],
    }


def _at(lines: Sequence[Line], name: str) -> Json:
    states = Counter(line.there[name].state if name in line.there else ("filtered", "not_configured") for line in lines)
    lost: list[Json] = [
        {"step": _step(state), "state": state, "reason": reason, "conversions": count}
        for (state, reason), count in states.most_common()
        if state not in DONE and state != "queued"
    ]
    losses = Counter[str]()
    for one in lost:
        losses[one["step"]] += one["conversions"]
    waiting = sum(count for (state, _), count in states.items() if state == "queued")
    consented = len(lines) - losses["consented"]
    queued = consented - losses["queued"]
    return {
        "destination": name,
        "unique": len(lines),
        "consented": consented,
        "queued": queued,
        "delivered": queued - losses["delivered"] - waiting,
        "waiting": waiting,
        "lost": lost,
    }


def _reached(state: str, step: str) -> bool:
    """Did it come so far, or further?"""
    last = (
        "delivered" if state == "queued" else "" if state in DONE else _step(state)
    )  # the step that it did not reach, or not yet
    return step in STEPS[: STEPS.index(last)] if last else step in STEPS


def _step(state: str) -> str:
    """The step at which it was lost."""
    return "consented" if state in _AT_CONSENT else "queued" if state in _AT_QUEUE else "delivered"


def parse(query: Mapping[str, str]) -> Filter:
    return Filter(**{name: query.get(name, "").strip()[:200] for name in Filter._fields})


def link(chosen: Filter, **more: str) -> dict[str, str]:
    """The query of the same filter with this changed."""
    asked: Any = chosen._asdict() | more
    return {name: value for name, value in asked.items() if value}
