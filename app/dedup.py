"""The pure half of dedup: records of one partition in, merged events and table rows out. No I/O and no clock of its own.

The same records give the same outputs, however they are batched: the only time it knows comes with records of the log.

Table `seen`, by conversion key, JSON:
    v  version of the row        n  copies received, each record counted once
    c  copies: [source, record time, offset in capistream.events, event id where it differs from the key's, origin]
    o  highest offset counted    s  null while held, else how it closed: complete, no_hold, hold_ended, unconfirmed, erased
    t  time of closing           r  routes that are not "queued": destination -> [state, reason]
    k  1 when its hold is kept after closing        u  revisions sent
    w  who it was: marks of app/people.py. A late copy of somebody else is a conversion of its own
    g  different people under this id, where there is more than one: each of the others has a row of its own
    p  who sent copies, from the third copy on: marks of people or browsers        h  offset from which the id is no key
    f  keyed hashes of whom it was of, where the settings have a key: how an erasure finds it
    e  a checksum of what the merged copies deny, where they do
    d  what copies deny that came too late for the merge: deliver reads it before it sends what still waits
    x  offsets in capistream.conversions: of its closing, and of what was sent on after that; the newest ones
An alias row (key begins with 0x1e) names the conversion that another event id belongs to: {"=": id, "t": record time}. The
row with the key 0x1d is when this memory begins: {"since": Unix milliseconds}.

Table `held`, by conversion key, JSON, while it is open, and longer where a late copy may matter:
    v  version of the row           d  deadline, by the log's clock
    o  offset of its first copy     a  when that was appended to the log
    x  copies                       c  the consent that any copy told, once "x" is full and copies are cut
    l  copies past the deadline that came before the clock said so: [offset, when appended, copy]
    p  why it will be parked
    k  its stage after the merge window: `confirm` (waits for the source that must confirm it), `parked` (waited in vain),
       `kept` (closed)
"""

import hashlib
import heapq
import math
import zlib
from collections.abc import Callable, Container, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, NamedTuple

import msgspec
import orjson

from app import clock, consent, keys, merge, people, shape
from app.events import SIGNALS, Event, Json
from app.routing import Route
from app.settings import EventRule
from app.shape import GRANTED, Copy, Origin

ROW_VERSION = 1
ALIAS = b"\x1e"
MEMORY = b"\x1d"
#: People or browsers under one id from which on it is taken for a placeholder and each copy for a conversion of its own.
HOT = 16
#: Milliseconds beyond the horizon for which a row stays: a copy from within the horizon may be read so much later.
GRACE = 86_400_000
#: Milliseconds for which a conversion held back for want of consent waits for a copy that brings it.
KEEP = 7 * 86_400_000
MOST_KINDS = 1024  # of events, by which decisions are remembered
MOST_PLACES = 4  # offsets in a row's "x"
#: Holds that end in one part of a batch. After a night without a worker those of the whole night end with one clock record.
MOST_ENDING = 1_000

#: (mark, its copies) of each person, most often one.
Kin = Sequence[tuple[str, Sequence[Copy]]]
Get = Callable[[Sequence[bytes]], Sequence[bytes | None]]
Rows = dict[bytes, bytes | None]


class Arrival(msgspec.Struct, array_like=True, gc=False):
    """What a row of `seen` keeps of a copy."""

    source: str
    received: int
    offset: int  # in capistream.events; -1: a crash came between the two tables, and nobody knows it
    event_id: str  # where it differs from the key's
    origin: str


class Row(msgspec.Struct, omit_defaults=True, gc=False):
    """A row of `seen`, see above."""

    version: int = msgspec.field(name="v")
    arrivals: list[Arrival] = msgspec.field(name="c")
    received: int = msgspec.field(name="n")
    last: int = msgspec.field(name="o")
    how: str | None = msgspec.field(name="s")
    when: int = msgspec.field(name="t", default=-1)
    routes: dict[str, list[str]] | None = msgspec.field(name="r", default=None)
    kept: int = msgspec.field(name="k", default=0)
    revisions: int = msgspec.field(name="u", default=0)
    who: str = msgspec.field(name="w", default="")
    people: int = msgspec.field(name="g", default=1)
    visitors: tuple[str, ...] = msgspec.field(name="p", default=())
    hot_from: int = msgspec.field(name="h", default=-1)
    prints: tuple[str, ...] = msgspec.field(name="f", default=())
    merged_denials: str = msgspec.field(name="e", default="")
    denied: Json | None = msgspec.field(name="d", default=None)
    places: tuple[int, ...] = msgspec.field(name="x", default=())


class Held(msgspec.Struct, omit_defaults=True, gc=False):
    """A row of `held`, see above."""

    version: int = msgspec.field(name="v")
    deadline: int = msgspec.field(name="d")
    appended: int = msgspec.field(name="a")
    first: int = msgspec.field(name="o")
    copies: list[Copy] = msgspec.field(name="x")
    consent: Json | None = msgspec.field(name="c", default=None)
    late: list[tuple[int, int, Copy]] = msgspec.field(name="l", default_factory=list)
    why: str = msgspec.field(name="p", default="")
    stage: str = msgspec.field(name="k", default="")


_read_row = msgspec.json.Decoder(Row).decode
_read_held = msgspec.json.Decoder(Held).decode
_json = msgspec.json.Encoder().encode


class CopyBrief(msgspec.Struct, gc=False):
    """What a record of capistream.conversions tells of a copy."""

    source: str
    received: int
    event_id: str
    origin: Origin


class Decision(msgspec.Struct, gc=False):
    """Where an event goes, and what is kept of that. Events that are alike share one, so nobody changes it."""

    routes: Mapping[str, Route]
    denials: str = ""  # a checksum of what the event denies, where it does
    json: msgspec.Raw = msgspec.Raw()  # the routes as capistream.conversions tells them
    ended: dict[str, list[str]] | None = None  # and as a row does: where it does not go, and why

    def __post_init__(self) -> None:
        self.json = msgspec.Raw(_json({name: route.told for name, route in self.routes.items()}))
        self.ended = {name: [r.state, r.reason] for name, r in self.routes.items() if r.state != "queued"} or None

    def instead(self, state: str, reason: str) -> "Decision":
        """What would go out does not, for this reason."""
        return Decision(
            {n: Route(state, reason, r.basis) if r.state == "queued" else r for n, r in self.routes.items()}
        )


class Conversion(msgspec.Struct, gc=False):
    """A record of capistream.conversions."""

    v: int
    event: Any  # a Copy, or JSON
    closed: str
    copies: list[CopyBrief]
    received: int
    routes: msgspec.Raw


class Closing(msgspec.Struct, gc=False):
    """A conversion that is ready to go, or parked, with what it is made of."""

    key: bytes
    event: Copy
    how: str  # complete, no_hold, hold_ended, unconfirmed; updated: a late copy changed something; erased
    decision: Decision
    copies: Sequence[Copy]
    received: int  # copies received so far, repeats included

    def record(self, event: msgspec.Raw | None = None) -> Conversion:
        """As it stands in capistream.conversions. `event`: where that is JSON already."""
        briefs = [CopyBrief(one.source, one.received, one.event_id, one.origin or Origin()) for one in self.copies]
        briefs.sort(key=attrgetter("received"))
        return Conversion(ROW_VERSION, event or self.event, self.how, briefs, self.received, self.decision.json)


@dataclass
class Result:
    """What came of one batch."""

    closed: list[Any] = field(default_factory=list)  # what `Partition.output` makes of each Closing
    seen: Rows = field(default_factory=dict)
    held: Rows = field(default_factory=dict)
    duplicates: list[tuple[str, str]] = field(default_factory=list)  # (event name, repeat or late), each record once
    denied: list[bytes] = field(default_factory=list)  # keys of which a late copy denies more than was known
    flags: list[tuple[str, str]] = field(default_factory=list)  # (event name, what is odd about it: metrics.FLAGGED)
    unreadable: list[int] = field(default_factory=list)  # offsets of records that are nothing of ours
    left: Sequence[Any] = ()  # records that are still to be done, when this is written


class Hold(msgspec.Struct, gc=False):
    """When a hold ends: with the first clock record past its deadline, but not before it has stood in the log for a whole
    window. Of a source that the clock has left out, the other copies come late, too.
    """

    deadline: int  # by the log's clock
    appended: int  # when its first copy was appended, by the broker's clock
    ripe: int  # when it has stood a window, by the broker's clock; if that went back, nobody can tell, and it is ripe


@dataclass
class Partition:
    """What dedup keeps in memory of one partition: the deadlines of its holds, and the clock."""

    rule: Callable[[str], EventRule]
    route: Callable[[Event], Mapping[str, Route]]
    updating: frozenset[str] = frozenset()  # destinations that can take a revision
    prints: Callable[[Sequence[Event]], Sequence[str]] | None = None  # for `f` of the row
    secrets: Sequence[bytes] = ()  # for the marks of people in rows: the key in use, and those before it
    #: Does this copy deny any destination anything, but for these?
    denies: Callable[[Event, Container[str]], bool] = lambda _copy, _but: False
    #: Makes of each closing what the result has of it, at once, while the event is in the processor's caches.
    output: Callable[[Closing], Any] = lambda closing: closing
    #: Names events with the same consent and the same routes: one decision for all of them. None: this one may be the only one.
    alike: Callable[[Copy], Hashable | None] = lambda _event: None
    since: int | None = None  # Unix milliseconds: what was received before may have been sent, and nobody remembers
    open: dict[bytes, Hold] = field(default_factory=dict)
    deadlines: list[tuple[int, bytes]] = field(default_factory=list)  # a heap; entries of closed holds are stale
    ripening: list[tuple[int, bytes]] = field(default_factory=list)  # a heap, too: past their deadline, not ripe
    now: int | None = None  # the log's clock: unknown after a restart until heard again
    appended: int = 0  # when the last clock record was appended
    secret: bytes = field(init=False)  # the key in use, or an empty one
    decisions: dict[Hashable, Decision] = field(default_factory=dict, init=False)  # by kind of event

    def __post_init__(self) -> None:
        self.secret = self.secrets[0] if self.secrets else b""

    def decide(self, event: Copy) -> Decision:
        """What is to be done with a merged event."""
        kind = self.alike(event)
        if kind is not None and (known := self.decisions.get(kind)):
            return known
        denies = event.consent and consent.may_deny(event.consent)
        found = Decision(self.route(shape.as_event(event)), _checksum(event.consent) if denies else "")
        if kind is not None:
            if len(self.decisions) == MOST_KINDS:
                self.decisions.clear()
            self.decisions[kind] = found
        return found

    def recover(self, held: Iterable[tuple[bytes, bytes]]) -> None:
        """Find the holds again, from the recovered table."""
        for key, row in held:
            self.enter(key, _read_held(row), self.rule(keys.parts(key)[2]))

    def enter(self, key: bytes, hold: Held, rule: EventRule) -> None:
        """Remember when this hold ends."""
        window = 0 if hold.stage else int(rule.merge_window * 1000)
        self.open[key] = Hold(hold.deadline, hold.appended, hold.appended + window)
        heapq.heappush(self.deadlines, (hold.deadline, key))

    def hear(self, now: int, appended: int) -> None:
        """A clock record."""
        if appended < self.appended:  # the broker's own clock went back
            self._move_ripe(all_=True)
        self.now, self.appended = now, appended

    def due(self, most: float = math.inf) -> list[bytes]:
        """Holds that end now, in the order of their deadlines. Each is named once: end it or enter it again."""
        self._move_ripe()
        found: list[bytes] = []
        while len(found) < most and self.deadlines and self.now is not None and self.deadlines[0][0] < self.now:
            deadline, key = heapq.heappop(self.deadlines)
            hold = self.open.get(key)
            if hold is None or hold.deadline != deadline:
                continue
            if hold.ripe <= self.appended or hold.appended > self.appended:
                found.append(key)
            else:
                heapq.heappush(self.ripening, (hold.ripe, key))
        return list(dict.fromkeys(found))

    def tidy(self) -> None:
        """Forget the deadlines of closed holds, when they are most of all: while a backlog is read the clock stands still, and to
        a partition without holds nobody sends any.
        """
        if len(self.deadlines) + len(self.ripening) > 2 * len(self.open):
            holds = self.open
            self.deadlines = [one for one in self.deadlines if (hold := holds.get(one[1])) and hold.deadline == one[0]]
            self.ripening = [one for one in self.ripening if (hold := holds.get(one[1])) and hold.ripe == one[0]]
            heapq.heapify(self.deadlines)
            heapq.heapify(self.ripening)

    def _move_ripe(self, *, all_: bool = False) -> None:
        while self.ripening and (all_ or self.ripening[0][0] <= self.appended):
            _, key = heapq.heappop(self.ripening)
            if key in self.open:
                heapq.heappush(self.deadlines, (self.open[key].deadline, key))

    @property
    def waiting(self) -> int:
        """Open holds."""
        return len(self.open)

    def run(self, records: Iterable[Any], seen_get: Get, held_get: Get, most: float = math.inf) -> Result:
        """The records of one batch, in order. Records have `key`, `value`, `offset` and `timestamp` (of their append).

        No more than `most` holds end, and what is `left` then begins with the clock record that ends the others, too.
        """
        records = list(records)
        wanted = dict.fromkeys([record.key for record in records])
        wanted.pop(None, None)
        return _Run(self, seen_get, held_get, wanted, most).run(records)

    def erase(self, keys_: Sequence[bytes], gone: Callable[[Event], bool], seen_get: Get, held_get: Get) -> Result:
        """Take what is left of people out of these conversions. `gone`: is this copy of somebody who is erased?

        Not between the copies of a merge, which closes as ever: later, where a hold waits for long. A row stays, so that a
        copy that comes late counts as one, and says nothing of the person any more.
        """
        return _Run(self, seen_get, held_get, keys_).erase(keys_, gone)


class _Position(NamedTuple):
    """Of a record in the log."""

    offset: int
    timestamp: int


class _Run:
    """One batch: rows are read once, changed in memory, written once."""

    def __init__(
        self, partition: Partition, seen_get: Get, held_get: Get, wanted: Iterable[bytes], most: float = math.inf
    ) -> None:
        self.partition, self.seen_get, self.held_get = partition, seen_get, held_get
        self.most = most  # holds that may still end
        self.rows: dict[bytes, Row | bytes | None] = {}  # as they are stored, until somebody asks for them
        self.holds: dict[bytes, Held | bytes | None] = {}
        self.changed: dict[bytes, Row] = {}
        self.changed_holds: set[bytes] = set()
        self.stored: set[bytes] = set()  # keys with a row in `held`: only those need a deletion
        self.apart: dict[bytes, None] = {}  # keys of conversions that were set apart from others
        self.result = Result()
        self._load(list(wanted))

    def _load(self, keys_: Sequence[bytes]) -> None:
        """Read rows not read yet, and their holds."""
        new = [key for key in keys_ if key not in self.rows]
        self.rows.update(zip(new, self.seen_get(new), strict=True))
        # A crash may have come between the two changelog writes: a hold can stand without a row, and beside a closed one.
        holds = self.partition.open
        if open_ := [key for key in new if key in holds]:
            self.holds.update(zip(open_, self.held_get(open_), strict=True))
            self.stored.update(open_)

    def _row(self, key: bytes) -> Row | None:
        row = self.rows[key]
        if isinstance(row, bytes):
            row = self.rows[key] = _read_row(row)
        return row

    def _hold(self, key: bytes, row: Row | None) -> Held | None:
        """Unless it is of what the key meant before its horizon: a crash came between the two changelog writes."""
        hold = self.holds.get(key)
        if hold is None:
            return None
        if isinstance(hold, bytes):
            hold = self.holds[key] = _read_held(hold)
        if row is not None and row.arrivals[0].offset not in (hold.first, -1):
            self._drop_hold(key)
            return None
        return hold

    def run(self, records: Sequence[Any]) -> Result:
        for number, record in enumerate(records):
            self.record = record
            key = record.key
            if key is None:
                now = _clock(record.value)
                if now is not None:
                    self.partition.hear(now, record.timestamp)
                    self._close_due()  # here and nowhere else: the clock moves nowhere else
                    if self.most <= 0:
                        self.result.left = records[number:]
                        break
                    continue
            elif (copy := shape.read(key, record.value)) is not None:
                self._copy(key, copy)
                continue
            self.result.unreadable.append(record.offset)  # what somebody else wrote into our topic
        return self._done()

    def erase(self, keys_: Sequence[bytes], gone: Callable[[Event], bool]) -> Result:
        for key in keys_:
            row = self._row(key)
            hold = self._hold(key, row)
            if row is None or (hold is not None and not (hold.stage and self._erased(key, row, hold, gone))):
                continue
            if row.how is not None:
                row.who, row.visitors, row.prints, row.places, row.merged_denials = "", (), (), (), ""
                for arrival in row.arrivals:
                    arrival.origin = ""
                if row.denied is not None:  # strings speak of a person; so much says nothing, and takes nothing back
                    row.denied = dict.fromkeys(SIGNALS, "denied")
                self.changed[key] = row
        return self._done()

    def _erased(self, key: bytes, row: Row, hold: Held, gone: Callable[[Event], bool]) -> bool:
        """Take the copies out of a hold: all that dedup would give to one person, if any of them is `gone`. Is it empty now?"""
        kin = [copies for _, copies in _kin(hold.copies)]
        left = [copy for copies in kin if not any(gone(shape.as_event(copy)) for copy in copies) for copy in copies]
        if left:
            if len(left) < len(hold.copies):
                hold.copies = merge.distinct(left)
                self.changed_holds.add(key)
            return False
        if row.how in (None, "unconfirmed"):
            event = merge.merged(hold.copies, hold.consent)
            decision = self.partition.decide(event).instead("erased", "erasure")
            self._out(key, event, "erased", decision, (), row)
            row.how, row.when = "erased", self.partition.now or hold.deadline
            row.routes = decision.ended
        row.kept = 0
        self._drop_hold(key)
        return True

    def _done(self) -> Result:
        # who was set apart first: a crash may cut the write off, and a row that says "closed" must not stand without them
        changed = self.changed
        if self.apart:
            changed = {key: changed[key] for key in self.apart if key in changed} | changed
        seen = self.result.seen
        for key, row in changed.items():
            seen[key] = _json(row)
        for key in self.changed_holds:
            hold = self.holds.get(key)
            self.result.held[key] = None if hold is None else _json(hold)
        self.partition.tidy()
        return self.result

    # -- copies

    def _copy(self, key: bytes, copy: Copy) -> None:
        rule, offset, row = self.partition.rule(copy.event_name), self.record.offset, self.rows[key]
        if row is None and key not in self.holds:
            self._first(rule, key, copy)
            return
        if isinstance(row, bytes):
            row = self.rows[key] = _read_row(row)
        hold = self._hold(key, row) if key in self.holds else None
        open_ = hold is not None and (row is None or row.how is None)
        if row is None or (not open_ and copy.received - row.arrivals[0].received > rule.horizon * 1000):
            still = None if row is None else row.denied  # what it meant before may wait to be sent
            row = self.rows[key] = Row(ROW_VERSION, [], 0, -1, None, denied=still)
            if not open_:
                hold = None  # of what the key meant before its horizon
        if row.arrivals and offset < row.arrivals[0].offset:
            return  # read again after a crash: it belongs to what the key meant before its horizon
        new = self._enter(key, row, copy, offset)
        if row.who and row.how is not None and self._is_stranger(rule, row, copy):
            self._turn_away(row, copy)
        elif 0 <= row.hot_from < offset and not any(c.origin and c.origin == _origin(copy) for c in row.arrivals):
            self._alone(copy)
        elif row.how is not None:
            self._late(rule, key, row, hold, copy, new=new)
        else:
            self._join(rule, key, row, hold, copy, new=new)

    def _first(self, rule: EventRule, key: bytes, copy: Copy) -> None:
        """Nothing is known of this conversion, as most often."""
        arrival = _arrival(copy, self.record.offset)
        row = self.rows[key] = self.changed[key] = Row(ROW_VERSION, [arrival], 1, arrival.offset, None)
        if arrival.event_id:
            self._alias(key, copy)
        if rule.expect or rule.wait_for or rule.late == "update":
            self._join(rule, key, row, None, copy, new=True)
        else:  # neither held nor kept
            why = self._unproved(copy, self.record.timestamp, rule)
            self._conclude(key, row, why, merge.merged([copy]), [copy], "no_hold", copy.received)

    def _is_stranger(self, rule: EventRule, row: Row, copy: Copy) -> bool:
        """Of a conversion that has closed."""
        if not copy.user or copy.apart or rule.different_people == "merge":
            return False
        return people.stranger(row.who, _person(copy), self.partition.secrets)

    def _turn_away(self, row: Row, copy: Copy) -> None:
        """It is of somebody else than the conversion that closed: a conversion of its own."""
        if self._apart(copy, people.mark(_person(copy)), "several_people"):
            row.people += 1

    def _enter(self, key: bytes, row: Row, copy: Copy, offset: int) -> bool:
        """Count the copy in its row. False when it was before: it is read again after a crash."""
        if new := offset > row.last:
            row.received += 1
            row.last = offset
        arrival = _arrival(copy, offset)
        listed = not new and any(one.offset == offset for one in row.arrivals)
        if not listed and len(row.arrivals) < merge.MAX_COPIES:
            row.arrivals.append(arrival)
            listed = True
        if arrival.event_id and listed:  # also again: a crash may have come between the row and its alias
            self._alias(key, copy)
        if new and row.received > 2 and row.hot_from < 0 and not copy.apart:
            visitor = people.visitor(shape.as_event(copy), self.partition.secret)
            if visitor and visitor not in row.visitors:
                row.visitors = (*row.visitors, visitor)
            if len(row.visitors) >= HOT:
                row.hot_from = offset
        self.changed[key] = row
        return new

    def _alias(self, key: bytes, copy: Copy) -> None:
        if not copy.apart:
            alias = ALIAS + keys.joined(copy.event_id, copy.site, copy.event_name)
            self.result.seen[alias] = orjson.dumps({"=": keys.parts(key)[0], "t": copy.received})

    def _alone(self, copy: Copy) -> None:
        """A copy under an id that everybody has: a conversion of its own, known by what it says and when it happened."""
        said = f"{merge.content_hash(shape.as_event(copy))} {copy.time}"
        copy.pairs = False
        self._apart(copy, hashlib.sha256(said.encode()).hexdigest()[:8], "hot_id")

    def _apart(self, copy: Copy, mark: str, label: str) -> bool:
        """A copy that has the id, but is not of its conversion. Whether it is the first of its own."""
        key, its = _set_apart(copy, mark, label)
        self.apart[key] = None
        self._load([key])
        if new := self._row(key) is None:
            self.result.flags.append((copy.event_name, label))
        self._copy(key, its)
        return new

    def _join(self, rule: EventRule, key: bytes, row: Row, hold: Held | None, copy: Copy, *, new: bool) -> None:
        """A copy of a conversion that is still open."""
        record, first = self.record, hold is None
        if hold is None:
            # a first copy behind the clock, because its source was left out, gets a whole window, too
            start = max(copy.received, self.partition.now or 0)
            deadline = int(start + rule.merge_window * 1000)
            why = self._unproved(copy, record.timestamp, rule)
            hold = Held(ROW_VERSION, deadline, record.timestamp, record.offset, [copy], why=why)
        elif copy.received > hold.deadline and not rule.wait_for:
            # the hold closes with the next clock record, and this copy comes after that
            if copy not in (one[2] for one in hold.late):  # else it is told again, or read again after a crash
                if len(hold.late) == merge.MAX_COPIES:
                    self._deny(key, row, copy)
                else:
                    hold.late.append((record.offset, record.timestamp, copy))
            self.changed_holds.add(key)
            if new:
                self.result.duplicates.append((copy.event_name, "late"))
            return
        else:
            self._add(key, hold, copy, "repeat" if new else "")
        kin = _people(rule, hold.copies)
        if not hold.stage and _complete(rule, hold.copies, kin):
            how = "complete" if rule.expect or rule.wait_for else "no_hold"
            self._close(rule, key, row, hold, kin, _unconfirmed(rule, hold.copies) or how)
        elif first:
            self.holds[key] = hold
            self.changed_holds.add(key)
            self.partition.enter(key, hold, rule)
        elif hold.stage and _confirmed(rule, hold.copies):
            self._close(rule, key, row, hold, kin, "complete" if _complete(rule, hold.copies, kin) else "hold_ended")

    def _late(self, rule: EventRule, key: bytes, row: Row, hold: Held | None, copy: Copy, *, new: bool) -> None:
        """A copy of a conversion that has closed. Most often it only counts; a kept or parked hold may change by it."""
        unconfirmed = row.how == "unconfirmed"
        if copy.consent and copy.consent != GRANTED:
            self._deny(key, row, copy)
        if new:
            self.result.duplicates.append((copy.event_name, "late"))
        if not (unconfirmed or row.kept):
            return
        # after a crash between the two changelog writes the hold is of before its closing: what came since is read again
        hold = hold or Held(ROW_VERSION, 0, 0, row.arrivals[0].offset, [])
        self._keep(rule, key, row, hold, "parked" if unconfirmed else "kept")
        self._release(key, row, hold, again=True)
        changed = self._add(key, hold, copy, "")
        if unconfirmed:
            if _confirmed(rule, hold.copies):
                kin = _people(rule, hold.copies)
                how = "complete" if _complete(rule, hold.copies, kin) else "hold_ended"
                self._close(rule, key, row, hold, kin, how)
        elif changed and new:
            self._update(rule, key, row, hold)

    def _deny(self, key: bytes, row: Row, copy: Copy) -> None:
        """What a copy denies that comes too late for the merge is in the row, for deliver. What it grants is not."""
        said = copy.consent
        if not said or not consent.may_deny(said) or _checksum(said) == row.merged_denials:
            return
        if not self.partition.denies(shape.as_event(copy), row.routes or ()):
            return
        known, row.denied = row.denied, merge.denials([row.denied or {}, said])
        if row.denied != known:
            self.result.denied.append(key)
            self.result.flags.append((copy.event_name, "denied_later"))

    def _add(self, key: bytes, hold: Held, copy: Copy, repeated: str) -> bool:
        """Whether the copy says anything new; if not and `repeated`, that is counted."""
        copies = [*hold.copies, copy]
        known = merge.distinct(copies)
        if not (changed := len(known) == len(copies) or known != hold.copies) and repeated:
            self.result.duplicates.append((copy.event_name, repeated))
        hold.copies = known
        if len(known) == merge.MAX_COPIES:
            hold.consent = merge.merge_consent([hold.consent or {}, merge.decided(copies)])
        self.changed_holds.add(key)
        return changed

    def _unproved(self, copy: Copy, appended: int, rule: EventRule) -> str:
        """Why nobody can say that this first copy is the first, or an empty text."""
        received = copy.received
        if appended - received > rule.horizon * 1000:
            why = "beyond_horizon"
        elif received < (self.partition.since or 0):
            why = "before_memory"
        else:
            return ""
        return "" if "backfill" in (copy.labels or ()) else why

    # -- closing

    def _out(self, key: bytes, event: Copy, how: str, decision: Decision, copies: Sequence[Copy], row: Row) -> None:
        closing = Closing(key, event, how, decision, copies, row.received)
        self.result.closed.append(self.partition.output(closing))

    def _close(self, rule: EventRule, key: bytes, row: Row, hold: Held, kin: Kin, how: str) -> None:
        (_, its), *others = kin
        # when the last copy came, or for a hold that ended, what the log's clock said
        if how in ("hold_ended", "unconfirmed") and self.partition.now is not None:
            when = self.partition.now
        else:
            when = max([copy.received for copy in hold.copies])
        event = merge.merged(its, hold.consent)
        if others:
            row.people = 1 + len(others)
            event.labels = sorted({*(event.labels or ()), "several_people"})
            self.result.flags.append((event.event_name, "several_people"))
        self._conclude(key, row, hold.why or _unconfirmed(rule, its), event, its, how, when)
        for mark, its in others:
            its_key, event = _set_apart(merge.merged(its, hold.consent), mark, "several_people")
            self.apart[its_key] = None
            self.result.flags.append((event.event_name, "several_people"))
            arrivals = [_arrival(copy) for copy in its]
            one = self.rows[its_key] = Row(ROW_VERSION, arrivals, len(its), row.last, None)
            self._conclude(its_key, one, hold.why or _unconfirmed(rule, its), event, its, how, when)
        row.kept = 0
        if how == "unconfirmed" and hold.stage != "parked":
            self._keep(rule, key, row, hold, "parked")
        elif not others and not hold.why and (rule.late == "update" or (rule.expect and _held_back(row))):
            row.kept = 1
            self._keep(rule, key, row, hold, "kept")
        elif key in self.holds:  # else it closes with its first copy
            self._drop_hold(key)
        if hold.late:
            self._release(key, row, hold, again=False)

    def _conclude(
        self,
        key: bytes,
        row: Row,
        why: str,
        event: Copy,
        copies: Sequence[Copy],
        how: str,
        when: int,
    ) -> None:
        """One person's conversion goes out, or is parked if there is a reason `why`."""
        partition = self.partition
        decision = partition.decide(event)
        if decision.denials:
            row.merged_denials = decision.denials
        if why:
            self.result.flags.append((event.event_name, why))
            decision = decision.instead("parked", why)
        self._out(key, event, how, decision, copies, row)
        row.how, row.when, row.routes = how, when, decision.ended
        named = [_person(copy) for copy in copies if copy.user]
        if named and (who := people.marks(named, partition.secret)):
            row.who = who
        if partition.prints and (prints := partition.prints([shape.as_event(copy) for copy in copies])):
            row.prints = tuple(prints)
        self.changed[key] = row

    def _release(self, key: bytes, row: Row, hold: Held, *, again: bool) -> None:
        """The copies past the deadline that waited for the closing. `again`: after a crash, the outputs are there."""
        record = self.record
        late, hold.late = hold.late, []
        for offset, appended, copy in late:
            self.record = _Position(offset, appended)  # where it stands itself
            rule = self.partition.rule(copy.event_name)
            if self._is_stranger(rule, row, copy):
                self._turn_away(row, copy)
                continue
            self._deny(key, row, copy)
            if row.kept and self._add(key, hold, copy, "") and not again:
                self._update(rule, key, row, hold)
        self.record = record

    def _update(self, rule: EventRule, key: bytes, row: Row, hold: Held) -> None:
        """A late copy said something new: to whom does it matter?"""
        event = merge.merged(hold.copies, hold.consent)
        before, routes = row.routes or {}, self.partition.decide(event).routes
        queued = {name: route for name, route in routes.items() if route.state == "queued"}
        fresh = {n: r for n, r in queued.items() if before.get(n, ["", ""])[1] == "consent_absent"}
        revised = {
            n: r
            for n, r in queued.items()
            if rule.late == "update" and n not in before and n in self.partition.updating
        }
        if fresh:
            self._out(key, event, "updated", Decision(fresh), hold.copies, row)
            row.routes = {n: said for n, said in before.items() if n not in fresh} or None
        if revised:
            row.revisions += 1
            event = msgspec.structs.replace(event, revision=row.revisions)
            self._out(key, event, "updated", Decision(revised), hold.copies, row)

    def _keep(self, rule: EventRule, key: bytes, row: Row, hold: Held, stage: str) -> None:
        """The hold stays beyond closing, for late copies."""
        if hold.stage == stage:
            return
        span = int(rule.horizon * 1000)
        if stage == "kept" and rule.late == "drop":
            span = min(span, KEEP)
        self._enter_stage(rule, key, hold, stage, row.arrivals[0].received + span)

    def _enter_stage(self, rule: EventRule, key: bytes, hold: Held, stage: str, deadline: int) -> None:
        hold.stage, hold.deadline = stage, deadline
        self.holds[key] = hold
        self.partition.enter(key, hold, rule)
        self.changed_holds.add(key)

    def _drop_hold(self, key: bytes) -> None:
        self.holds[key] = None
        self.partition.open.pop(key, None)
        if key in self.stored:
            self.changed_holds.add(key)
        else:
            self.changed_holds.discard(key)

    def _close_due(self) -> None:
        # a stage may end at once, when the clock has passed the next one's end, too
        while due := self.partition.due(self.most):
            self.most -= len(due)
            self._load(due)
            for key in due:
                row = self._row(key)
                self._end(key, row, self._hold(key, row))

    def _end(self, key: bytes, row: Row | None, hold: Held | None) -> None:
        """The clock has passed the deadline of this hold."""
        if hold is None:
            self.partition.open.pop(key, None)
            return
        if row is None:  # a crash came between the two changelog writes: held written, seen not
            arrivals = [_arrival(copy) for copy in hold.copies]
            row = self.rows[key] = Row(ROW_VERSION, arrivals, len(arrivals), -1, None)
        rule = self.partition.rule(keys.parts(key)[2])
        if row.how is not None:
            kept = "parked" if row.how == "unconfirmed" else "kept" if row.kept else ""
            if not kept or hold.stage == kept:
                self._drop_hold(key)
            else:
                self._keep(rule, key, row, hold, kept)
            self._release(key, row, hold, again=True)  # if there are any, a crash came between the two changelog writes
        elif _confirmed(rule, hold.copies):
            self._close(rule, key, row, hold, _people(rule, hold.copies), "hold_ended")
        elif not hold.stage:
            wait = int((rule.confirm_within - rule.merge_window) * 1000)
            self._enter_stage(rule, key, hold, "confirm", hold.deadline + max(wait, 0))
        else:
            self._close(rule, key, row, hold, _people(rule, hold.copies), "unconfirmed")


def note_places(result: Result, offsets: Sequence[int]) -> None:
    """Write into the rows where their conversions stand in the log by now: how they are found again to be looked at."""
    for closed, offset in zip(result.closed, offsets, strict=False):
        if offset >= 0 and closed.how != "erased" and (value := result.seen.get(closed.key)):
            if b'"x":' not in value:  # most often; the same as below without reading the row again
                result.seen[closed.key] = b'%b,"x":[%d]}' % (value[:-1], offset)
                continue
            row = orjson.loads(value)
            row["x"] = [*row["x"], offset][-MOST_PLACES:]
            result.seen[closed.key] = orjson.dumps(row)


def _clock(value: Any) -> int | None:
    """Milliseconds, or None for what is no clock record."""
    try:
        return clock.decode(value)
    except (TypeError, ValueError, KeyError):
        return None


def denied_later(row: bytes | None) -> Json | None:
    """What copies of a conversion deny that came after it had closed, or nothing."""
    return orjson.loads(row).get("d") if row and b'"d":' in row else None  # most often not to be read


def forgotten(
    rule: Callable[[str], EventRule], now: int, keep: float = 0.0, waits: float = 0.0
) -> Callable[[bytes, bytes], bool]:
    """Which rows of `seen` nobody needs any more when the log's clock says `now`: (key, row) -> bool.

    `keep`: milliseconds for which a conversion can be looked up at least. Which copies are late does not depend on it. `waits`:
    for which one may wait to be sent, and what late copies deny is needed.
    """

    def test(key: bytes, value: bytes) -> bool:
        if key == MEMORY:
            return False
        row = orjson.loads(value)
        name = keys.parts(key.removeprefix(ALIAS))[2]
        first = row["t"] if "=" in row else row["c"][0][1]
        closed = "=" in row or row["s"] is not None
        return closed and bool(now - first > max(rule(name).horizon * 1000 + GRACE, keep, waits if "d" in row else 0))

    return test


#: Sources of what happened long after anybody's visit: nobody else reports it.
_AFTERWARDS = frozenset({"offline", "crm"})


def _person(copy: Copy) -> Event:
    """As much of it as tells who it is of."""
    return {"user": copy.user}  # type: ignore[typeddict-item]


def _set_apart(copy: Copy, mark: str, label: str) -> tuple[bytes, Copy]:
    """As `keys.set_apart`, with its key."""
    event = keys.set_apart(shape.as_event(copy), mark, label)
    return keys.key(event), shape.from_event(event)


def _made_up(copy: Copy) -> bool:
    """An id made up for one call pairs with nothing, unless the order number is what pairs."""
    return bool(copy.apart) or shape.conversion_id(copy) == copy.event_id


def _complete(rule: EventRule, copies: Sequence[Copy], kin: Kin) -> bool:
    """Nothing more is waited for: all expected sources are there, of each person, or no other copy can come."""
    if not rule.expect and rule.wait_for is None:
        return True
    there: set[str] = set()
    for copy in copies:
        source = copy.source
        if source in _AFTERWARDS or (copy.pairs is False and _made_up(copy)):
            return True
        there.add(source)
    if not there.issuperset(rule.expect) or not _confirmed(rule, copies):
        return False
    return len(kin) == 1 or all(_complete(rule, some, _people(rule, some)) for _, some in kin)


def _confirmed(rule: EventRule, copies: Sequence[Copy]) -> bool:
    if rule.wait_for is None:
        return True
    there = {copy.source for copy in copies}
    return rule.wait_for in there or not there.isdisjoint(_AFTERWARDS)


def _unconfirmed(rule: EventRule, copies: Sequence[Copy]) -> str:
    return "" if _confirmed(rule, copies) else "unconfirmed"


def _people(rule: EventRule, copies: Sequence[Copy]) -> Kin:
    return _kin(copies) if len(copies) > 1 and rule.different_people == "apart" else [("", copies)]


def _kin(copies: Sequence[Copy]) -> Kin:
    """As `people.groups`."""
    users = [copy.user for copy in copies if copy.user]
    if len(users) < 2 or users.count(users[0]) == len(users):  # most often
        return [("", copies)]
    events = [shape.as_event(copy) for copy in copies]
    copy_of = {id(event): copy for event, copy in zip(events, copies, strict=True)}
    return [(mark, [copy_of[id(event)] for event in some]) for mark, some in people.groups(events)]


def _checksum(said: Any) -> str:
    """Of what a consent denies."""
    return f"{zlib.crc32(orjson.dumps(merge.denials([said]))):x}"


def _held_back(row: Row) -> bool:
    """Does any destination not get it for want of consent?"""
    return row.routes is not None and any(reason == "consent_absent" for _, reason in row.routes.values())


def _origin(copy: Copy) -> str:
    """Where it was read."""
    origin = copy.origin
    if not origin:
        return ""
    return f"{origin.topic}/{origin.partition}/{origin.offset}" if origin.topic else origin.request or ""


def _arrival(copy: Copy, offset: int = -1) -> Arrival:
    event_id = copy.event_id
    its = "" if event_id == shape.conversion_id(copy) else event_id
    return Arrival(copy.source, copy.received, offset, its, _origin(copy))
