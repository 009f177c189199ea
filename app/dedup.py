"""The pure half of dedup: records of one partition in, merged events and table rows out. No I/O and no clock of its own.

The same records give the same outputs, however they are batched: the only time it knows comes as clock records of the log.

Table `seen`, by conversion key, JSON:
    v  version of the row        n  copies received, each record counted once
    c  copies: [source, record time, offset in capistream.events, event id where it differs from the key's, origin]
    o  highest offset counted    s  null while held, else how it closed: complete, no_hold, hold_ended
    t  time of closing           r  routes that are not "queued": destination -> [state, reason]
An alias row (key begins with 0x1e) names the conversion that another event id belongs to: {"=": id}.

Table `held`, by conversion key: {"v": 1, "d": deadline, "x": [copies]}, and "c", the consent that any copy told, once "x"
is full and copies are cut.
"""

import heapq
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

import orjson

from app import clock, keys, merge
from app.events import Event, Json, Source
from app.routing import Route
from app.settings import EventRule

ROW_VERSION = 1
ALIAS = b"\x1e"
SOURCES = frozenset(get_args(Source))

Get = Callable[[Sequence[bytes]], Sequence[bytes | None]]
Rows = dict[bytes, bytes | None]


@dataclass(frozen=True)
class Closed:
    """A conversion that is ready to go."""

    key: bytes
    event: Event
    how: str  # complete, no_hold, hold_ended
    routes: Mapping[str, Route]
    copies: Sequence[Json]  # what is known of each copy: source, received, origin, event_id
    received: int  # copies received so far, repeats included

    def record(self) -> Json:
        """As it stands in capistream.conversions."""
        return {
            "v": ROW_VERSION,
            "event": self.event,
            "closed": self.how,
            "copies": list(self.copies),
            "received": self.received,
            "routes": {
                name: {k: v for k, v in (("state", r.state), ("reason", r.reason), ("basis", r.basis)) if v}
                for name, r in self.routes.items()
            },
        }


@dataclass
class Result:
    """What came of one batch."""

    closed: list[Closed] = field(default_factory=list)
    seen: Rows = field(default_factory=dict)
    held: Rows = field(default_factory=dict)
    duplicates: list[tuple[str, str]] = field(default_factory=list)  # (event name, repeat or late), each record once
    unreadable: list[int] = field(default_factory=list)  # offsets of records that are nothing of ours


@dataclass
class Partition:
    """What dedup keeps in memory of one partition: the deadlines of its holds, and the clock."""

    rule: Callable[[str], EventRule]
    route: Callable[[Event], Mapping[str, Route]]
    open: dict[bytes, int] = field(default_factory=dict)  # keys with a hold -> deadline
    deadlines: list[tuple[int, bytes]] = field(default_factory=list)  # a heap; entries of closed holds are stale
    now: int | None = None  # the log's clock: unknown after a restart until heard again

    def recover(self, held: Iterable[tuple[bytes, bytes]]) -> None:
        """Find the holds again, from the recovered table."""
        self.open = {key: orjson.loads(row)["d"] for key, row in held}
        self.deadlines = [(deadline, key) for key, deadline in self.open.items()]
        heapq.heapify(self.deadlines)

    @property
    def waiting(self) -> int:
        """Open holds."""
        return len(self.open)

    def run(self, records: Iterable[Any], seen_get: Get, held_get: Get) -> Result:
        """All records of one batch, in order. Records have `key`, `value` and `offset`."""
        records = list(records)
        return _Run(self, seen_get, held_get, dict.fromkeys(r.key for r in records if r.key is not None)).run(records)


class _Run:
    """One batch: rows are read once, changed in memory, written once."""

    def __init__(self, partition: Partition, seen_get: Get, held_get: Get, wanted: Iterable[bytes]) -> None:
        self.partition, self.seen_get, self.held_get = partition, seen_get, held_get
        self.rows: dict[bytes, Json | None] = {}
        self.holds: dict[bytes, Json | None] = {}
        self.dirty_rows: set[bytes] = set()
        self.dirty_holds: set[bytes] = set()
        self.stored: set[bytes] = set()  # keys with a row in `held`: only those need a deletion
        self.result = Result()
        self._load(list(wanted))

    def _load(self, keys_: Sequence[bytes]) -> None:
        """Read rows not read yet, and their holds."""
        new = [key for key in keys_ if key not in self.rows]
        self.rows.update(zip(new, map(_loads, self.seen_get(new)), strict=True))
        # A crash may have come between the two changelog writes: a hold can stand without a row, and beside a closed one.
        open_ = [key for key in new if key in self.partition.open]
        self.holds.update(zip(open_, map(_loads, self.held_get(open_)), strict=True))
        self.stored.update(open_)

    def run(self, records: Sequence[Any]) -> Result:
        for record in records:
            found = _read(record)
            if found is None:
                self.result.unreadable.append(record.offset)
            elif isinstance(found, int):
                self.partition.now = found
                self._close_due()  # here and nowhere else: the clock moves nowhere else
            else:
                self._copy(record.key, found, record.offset)
        self.result.seen.update((key, _dumps(self.rows[key])) for key in self.dirty_rows)
        self.result.held.update((key, _dumps(self.holds.get(key))) for key in self.dirty_holds)
        if not self.partition.open:
            self.partition.deadlines.clear()  # nobody sends clock records to a partition without holds
        return self.result

    def _copy(self, key: bytes, copy: Event, offset: int) -> None:
        rule = self.partition.rule(copy["event_name"])
        row, hold = self.rows[key], self.holds.get(key)
        held = hold is not None and (row is None or row["s"] is None)
        if row is None or (not held and copy["received"] - row["c"][0][1] > rule.horizon * 1000):
            row = self.rows[key] = {"v": ROW_VERSION, "c": [], "n": 0, "o": -1, "s": None}
            if not held:
                hold = None  # of what the key meant before its horizon: closed, only not dropped yet
        if new := offset > row["o"]:  # else redelivered after a crash: counted before
            row["n"] += 1
            row["o"] = offset
        listed = any(c[2] == offset for c in row["c"])
        if not listed and len(row["c"]) < merge.MAX_COPIES:
            row["c"].append(_brief(key, copy, offset))
            listed = True
        if listed:  # also again: a crash may have come between the row and its alias
            self._alias(key, copy)
        self.dirty_rows.add(key)
        if row["s"] is not None:
            if new:
                self.result.duplicates.append((copy["event_name"], "late"))
            return
        if hold is None:
            # a first copy behind the clock, because its source was left out, gets a whole window, too
            start = max(copy["received"], self.partition.now or 0)
            hold = self.holds[key] = {"v": 1, "d": int(start + rule.merge_window * 1000), "x": []}
            if not _complete(rule, [copy]):
                self.partition.open[key] = hold["d"]
                heapq.heappush(self.partition.deadlines, (hold["d"], key))
        if copy["received"] > hold["d"]:
            if new:
                self.result.duplicates.append((copy["event_name"], "late"))
            return  # the hold closes with the next clock record
        copies = [*hold["x"], copy]
        hold["x"] = merge.distinct(copies)
        if len(hold["x"]) < len(copies) and new:
            self.result.duplicates.append((copy["event_name"], "repeat"))
        if len(hold["x"]) == merge.MAX_COPIES:
            hold["c"] = merge.merge_consent([hold.get("c", {}), merge.decided(copies)])
        self.dirty_holds.add(key)
        if _complete(rule, hold["x"]):
            self._close(key, row, hold, "complete" if rule.expect else "no_hold")

    def _alias(self, key: bytes, copy: Event) -> None:
        if copy["event_id"] != keys.parts(key)[0]:
            conversion, site, name = keys.parts(key)
            alias = ALIAS + keys.SEPARATOR.join((copy["event_id"], site, name)).encode()
            self.result.seen[alias] = orjson.dumps({"=": conversion})

    def _close(self, key: bytes, row: Json, hold: Json, how: str) -> None:
        event = merge.merge(hold["x"], hold.get("c"))
        routes = self.partition.route(event)
        copies = [
            {"source": c["source"], "received": c["received"], "event_id": c["event_id"], "origin": c.get("origin", {})}
            for c in sorted(hold["x"], key=lambda c: c["received"])
        ]
        self.result.closed.append(Closed(key, event, how, routes, copies, row["n"]))
        row["s"] = how
        # when the last copy came, or for a hold that ended, what the log's clock said
        row["t"] = self.partition.now if how == "hold_ended" else max(c["received"] for c in hold["x"])
        if held_back := {name: [r.state, r.reason] for name, r in routes.items() if r.state != "queued"}:
            row["r"] = held_back
        self.dirty_rows.add(key)
        self._drop_hold(key)

    def _drop_hold(self, key: bytes) -> None:
        self.holds[key] = None
        self.partition.open.pop(key, None)
        if key in self.stored:
            self.dirty_holds.add(key)
        else:
            self.dirty_holds.discard(key)

    def _close_due(self) -> None:
        now, heap, open_ = self.partition.now, self.partition.deadlines, self.partition.open
        due: dict[bytes, None] = {}
        while now is not None and heap and heap[0][0] < now:
            deadline, key = heapq.heappop(heap)
            if open_.get(key) == deadline:
                due[key] = None
        self._load(list(due))
        for key in due:
            hold, row = self.holds.get(key), self.rows[key]
            if hold is None:
                open_.pop(key, None)
                continue
            if row is None:  # a crash came between the two changelog writes: held written, seen not
                row = self.rows[key] = {"v": ROW_VERSION, "c": [], "n": 0, "o": -1, "s": None}
                row["c"] = [_brief(key, copy, -1) for copy in hold["x"]]
                row["n"] = len(hold["x"])
            if row["s"] is None:
                self._close(key, row, hold, "hold_ended")
            else:
                self._drop_hold(key)


def _read(record: Any) -> Event | int | None:
    """A copy, the clock in milliseconds, or None for what somebody else wrote into our topic."""
    try:
        if record.key is None:
            return clock.decode(record.value)
        copy: Event = orjson.loads(record.value)
        return copy if keys.key(copy) == record.key and copy["received"] >= 0 and copy["source"] in SOURCES else None
    except (TypeError, ValueError, KeyError, AttributeError):
        return None


def _complete(rule: EventRule, copies: Sequence[Event]) -> bool:
    """Nothing more is waited for: all expected sources are there, or no other copy can come."""
    there = {copy["source"] for copy in copies}
    # an id made up for one call pairs with nothing, unless the order number is what pairs
    made_up = any(c.get("pairs") is False and keys.conversion_id(c) == c["event_id"] for c in copies)
    alone = made_up or bool(there & {"offline", "crm"})
    return alone or there.issuperset(rule.expect)


def _brief(key: bytes, copy: Event, offset: int) -> list[Any]:
    origin = copy.get("origin", {})
    where = (
        f"{origin['topic']}/{origin['partition']}/{origin['offset']}"
        if "topic" in origin
        else origin.get("request", "")
    )
    event_id = copy["event_id"] if copy["event_id"] != keys.parts(key)[0] else ""
    return [copy["source"], copy["received"], offset, event_id, where]


def _loads(row: bytes | None) -> Json | None:
    return orjson.loads(row) if row else None


def _dumps(row: Json | None) -> bytes | None:
    return orjson.dumps(row) if row else None
