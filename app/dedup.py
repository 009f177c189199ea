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
import zlib
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import orjson

from app import clock, consent, keys, merge, people, shape
from app.events import SIGNALS, Event, Json
from app.routing import Route
from app.settings import EventRule

ROW_VERSION = 1
ALIAS = b"\x1e"
MEMORY = b"\x1d"
#: People or browsers under one id from which on it is taken for a placeholder and each copy for a conversion of its own.
HOT = 16
#: Milliseconds beyond the horizon for which a row stays: a copy from within the horizon may be read so much later.
GRACE = 86_400_000
KEEP = (
    7 * 86_400_000
)  # milliseconds for which a conversion held back for want of consent waits for a copy that brings it

MOST_PLACES = 4  # offsets in a row's "x"

Get = Callable[[Sequence[bytes]], Sequence[bytes | None]]
Rows = dict[bytes, bytes | None]


class Closed(NamedTuple):
    """A conversion that is ready to go, or parked."""

    key: bytes
    event: Event
    how: str  # complete, no_hold, hold_ended, unconfirmed; updated: a late copy changed something; erased
    routes: Mapping[str, Route]
    copies: Sequence[Json]  # what is known of each copy: source, received, origin, event_id
    received: int  # copies received so far, repeats included

    def record(self, event: orjson.Fragment | None = None) -> Json:
        """As it stands in capistream.conversions. `event`: where that is JSON already."""
        return {
            "v": ROW_VERSION,
            "event": event or self.event,
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
    denied: list[bytes] = field(default_factory=list)  # keys of which a late copy denies more than was known
    flags: list[tuple[str, str]] = field(default_factory=list)  # (event name, what is odd about it: metrics.FLAGGED)
    unreadable: list[int] = field(default_factory=list)  # offsets of records that are nothing of ours


class Hold(NamedTuple):
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
    prints: Callable[[Sequence[Event]], Sequence[str]] = lambda _copies: ()  # for `f` of the row
    secrets: Sequence[bytes] = ()  # for the marks of people in rows: the key in use, and those before it
    denies: Callable[[Event, Container[str]], bool] = lambda _copy, _but: (
        False
    )  # any destination anything, but for these
    since: int | None = None  # Unix milliseconds: what was received before may have been sent, and nobody remembers
    open: dict[bytes, Hold] = field(default_factory=dict)
    deadlines: list[tuple[int, bytes]] = field(default_factory=list)  # a heap; entries of closed holds are stale
    ripening: list[tuple[int, bytes]] = field(default_factory=list)  # a heap, too: past their deadline, not ripe
    now: int | None = None  # the log's clock: unknown after a restart until heard again
    appended: int = 0  # when the last clock record was appended

    def recover(self, held: Iterable[tuple[bytes, bytes]]) -> None:
        """Find the holds again, from the recovered table."""
        for key, row in held:
            self.enter(key, orjson.loads(row))

    def enter(self, key: bytes, hold: Json) -> None:
        """Remember when this hold ends."""
        window = 0 if "k" in hold else int(self.rule(keys.parts(key)[2]).merge_window * 1000)
        self.open[key] = Hold(hold["d"], hold["a"], hold["a"] + window)
        heapq.heappush(self.deadlines, (hold["d"], key))

    def hear(self, now: int, appended: int) -> None:
        """A clock record."""
        if appended < self.appended:  # the broker's own clock went back
            self._move_ripe(all_=True)
        self.now, self.appended = now, appended

    def due(self) -> list[bytes]:
        """Holds that end now, in the order of their deadlines. Each is named once: end it or enter it again."""
        self._move_ripe()
        found: list[bytes] = []
        while self.deadlines and self.now is not None and self.deadlines[0][0] < self.now:
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
    def secret(self) -> bytes:
        """The key in use, or an empty one."""
        return self.secrets[0] if self.secrets else b""

    @property
    def waiting(self) -> int:
        """Open holds."""
        return len(self.open)

    def run(self, records: Iterable[Any], seen_get: Get, held_get: Get) -> Result:
        """All records of one batch, in order. Records have `key`, `value`, `offset` and `timestamp` (of their append)."""
        records = list(records)
        return _Run(self, seen_get, held_get, dict.fromkeys(r.key for r in records if r.key is not None)).run(records)

    def erase(self, keys_: Sequence[bytes], gone: Callable[[Event], bool], seen_get: Get, held_get: Get) -> Result:
        """Take what is left of people out of these conversions. `gone`: is this copy of somebody who is erased?

        Not between the copies of a merge, which closes as ever: later, where a hold waits for long. A row stays, so that a
        copy that comes late counts as one, and says nothing of the person any more.
        """
        return _Run(self, seen_get, held_get, keys_).erase(keys_, gone)


class _Place(NamedTuple):
    """Of a record in the log."""

    offset: int
    timestamp: int


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
        self.rows.update(_loads(new, self.seen_get(new)))
        # A crash may have come between the two changelog writes: a hold can stand without a row, and beside a closed one.
        open_ = [key for key in new if key in self.partition.open]
        self.holds.update(_loads(open_, self.held_get(open_)))
        self.stored.update(open_)

    def run(self, records: Sequence[Any]) -> Result:
        for record in records:
            self.record = record
            if record.key is None:
                now = _clock(record.value)
                if now is not None:
                    self.partition.hear(now, record.timestamp)
                    self._close_due()  # here and nowhere else: the clock moves nowhere else
                    continue
            elif (copy := shape.copy(record.key, record.value)) is not None:
                self._copy(record.key, copy)
                continue
            self.result.unreadable.append(record.offset)  # what somebody else wrote into our topic
        return self._done()

    def erase(self, keys_: Sequence[bytes], gone: Callable[[Event], bool]) -> Result:
        for key in keys_:
            row, hold = self.rows[key], self._hold(key)
            if row is None or (hold is not None and ("k" not in hold or not self._erased(key, row, hold, gone))):
                continue
            if row["s"] is not None:
                for name in ("w", "p", "f", "x", "e"):
                    row.pop(name, None)
                row["c"] = [[*copy[:4], ""] for copy in row["c"]]
                if "d" in row:  # strings speak of a person; so much says nothing, and takes nothing back
                    row["d"] = dict.fromkeys(SIGNALS, "denied")
                self.dirty_rows.add(key)
        return self._done()

    def _erased(self, key: bytes, row: Json, hold: Json, gone: Callable[[Event], bool]) -> bool:
        """Take the copies out of a hold: all that dedup would give to one person, if any of them is `gone`. Is it empty now?"""
        kin = [copies for _, copies in people.groups(hold["x"])]
        left = [copy for copies in kin if not any(map(gone, copies)) for copy in copies]
        if left:
            if len(left) < len(hold["x"]):
                hold["x"] = merge.distinct(left)
                self.dirty_holds.add(key)
            return False
        if row["s"] in (None, "unconfirmed"):
            event = merge.merge(hold["x"], hold.get("c"))
            found = self.partition.route(event)
            routes = {n: Route("erased", "erasure", r.basis) if r.state == "queued" else r for n, r in found.items()}
            self.result.closed.append(Closed(key, event, "erased", routes, (), row["n"]))
            row["s"], row["t"] = "erased", self.partition.now or hold["d"]
            _note_routes(row, routes)
        row.pop("k", None)
        self._drop_hold(key)
        return True

    def _done(self) -> Result:
        # who was set apart first: a crash may cut the write off, and a row that says "closed" must not stand without them
        apart = [key for key in self.dirty_rows if keys.apart(key)]
        for key in apart + [key for key in self.dirty_rows if not keys.apart(key)] if apart else self.dirty_rows:
            self.result.seen[key] = _dumps(self.rows[key])
        self.result.held.update((key, _dumps(self.holds.get(key))) for key in self.dirty_holds)
        self.partition.tidy()
        return self.result

    def _hold(self, key: bytes) -> Json | None:
        """Unless it is of what the key meant before its horizon: a crash came between the two changelog writes."""
        row, hold = self.rows[key], self.holds.get(key)
        if hold is not None and row is not None and row["c"][0][2] not in (hold["o"], -1):
            self._drop_hold(key)
            return None
        return hold

    # -- copies

    def _copy(self, key: bytes, copy: Event) -> None:
        rule, offset = self.partition.rule(copy["event_name"]), self.record.offset
        row, hold = self.rows[key], self._hold(key)
        open_ = hold is not None and (row is None or row["s"] is None)
        if row is None or (not open_ and copy["received"] - row["c"][0][1] > rule.horizon * 1000):
            still = {} if row is None or "d" not in row else {"d": row["d"]}  # what it meant before may wait to be sent
            row = self.rows[key] = {"v": ROW_VERSION, "c": [], "n": 0, "o": -1, "s": None, **still}
            if not open_:
                hold = None  # of what the key meant before its horizon
        if row["c"] and offset < row["c"][0][2]:
            return  # read again after a crash: it belongs to what the key meant before its horizon
        new = self._enter(key, row, copy, offset)
        if row["s"] is not None and self._is_stranger(rule, row, copy):
            self._turn_away(row, copy)
        elif "h" in row and offset > row["h"] and not any(c[4] and c[4] == _place(copy) for c in row["c"]):
            self._alone(copy)
        elif row["s"] is not None:
            self._late(key, row, hold, copy, new=new)
        else:
            self._join(key, row, hold, copy, new=new)

    def _is_stranger(self, rule: EventRule, row: Json, copy: Event) -> bool:
        """Of a conversion that has closed."""
        if "apart" in copy or rule.different_people == "merge":
            return False
        return people.stranger(str(row.get("w", "")), copy, self.partition.secrets)

    def _turn_away(self, row: Json, copy: Event) -> None:
        """It is of somebody else than the conversion that closed: a conversion of its own."""
        if self._apart(copy, people.mark(copy), "several_people"):
            row["g"] = row.get("g", 1) + 1

    def _enter(self, key: bytes, row: Json, copy: Event, offset: int) -> bool:
        """Count the copy in its row. False when it was before: it is read again after a crash."""
        if new := offset > row["o"]:
            row["n"] += 1
            row["o"] = offset
        brief = _brief(key, copy, offset)
        listed = not new and any(c[2] == offset for c in row["c"])
        if not listed and len(row["c"]) < merge.MAX_COPIES:
            row["c"].append(brief)
            listed = True
        if brief[3] and listed:  # also again: a crash may have come between the row and its alias
            self._alias(key, copy)
        if new and row["n"] > 2 and "h" not in row and "apart" not in copy:
            who = row.setdefault("p", [])
            if (visitor := people.visitor(copy, self.partition.secret)) and visitor not in who:
                who.append(visitor)
            if len(who) >= HOT:
                row["h"] = offset
        self.dirty_rows.add(key)
        return bool(new)

    def _alias(self, key: bytes, copy: Event) -> None:
        if "apart" not in copy:
            conversion, site, name = keys.parts(key)
            alias = ALIAS + keys.SEPARATOR.join((copy["event_id"], site, name)).encode()
            self.result.seen[alias] = orjson.dumps({"=": conversion, "t": copy["received"]})

    def _alone(self, copy: Event) -> None:
        """A copy under an id that everybody has: a conversion of its own, known by what it says and when it happened."""
        said = f"{merge.content_hash(copy)} {copy['time']}"
        copy = {**copy, "pairs": False}
        self._apart(copy, hashlib.sha256(said.encode()).hexdigest()[:8], "hot_id")

    def _apart(self, copy: Event, mark: str, label: str) -> bool:
        """A copy that has the id, but is not of its conversion. Whether it is the first of its own."""
        copy = keys.set_apart(copy, mark, label)
        key = keys.key(copy)
        self._load([key])
        if new := self.rows[key] is None:
            self.result.flags.append((copy["event_name"], label))
        self._copy(key, copy)
        return bool(new)

    def _join(self, key: bytes, row: Json, hold: Json | None, copy: Event, *, new: bool) -> None:
        """A copy of a conversion that is still open."""
        record, rule, first = self.record, self.partition.rule(copy["event_name"]), hold is None
        if hold is None:
            # a first copy behind the clock, because its source was left out, gets a whole window, too
            start = max(copy["received"], self.partition.now or 0)
            deadline = int(start + rule.merge_window * 1000)
            hold = self.holds[key] = {"v": 1, "d": deadline, "a": record.timestamp, "o": record.offset, "x": [copy]}
            if why := self._unproved(copy, record.timestamp, rule):
                hold["p"] = why
            self.dirty_holds.add(key)
        elif copy["received"] > hold["d"] and not rule.wait_for:
            # the hold closes with the next clock record, and this copy comes after that
            waiting = hold.setdefault("l", [])
            if len(waiting) == merge.MAX_COPIES:
                self._deny(key, row, copy)
            elif copy not in (one[2] for one in waiting):
                waiting.append([record.offset, record.timestamp, copy])
            self.dirty_holds.add(key)
            if new:
                self.result.duplicates.append((copy["event_name"], "late"))
            return
        if not first:
            self._add(key, hold, copy, "repeat" if new else "")
        if "k" not in hold and _complete(rule, hold["x"]):
            how = "complete" if rule.expect or rule.wait_for else "no_hold"
            self._close(rule, key, row, hold, how if _confirmed(rule, hold["x"]) else "unconfirmed")
        elif first:
            self.partition.enter(key, hold)
        elif "k" in hold and _confirmed(rule, hold["x"]):
            self._close(rule, key, row, hold, "complete" if _complete(rule, hold["x"]) else "hold_ended")

    def _late(self, key: bytes, row: Json, hold: Json | None, copy: Event, *, new: bool) -> None:
        """A copy of a conversion that has closed. Most often it only counts; a kept or parked hold may change by it."""
        rule, name = self.partition.rule(copy["event_name"]), copy["event_name"]
        unconfirmed = row["s"] == "unconfirmed"
        self._deny(key, row, copy)
        if not (unconfirmed or "k" in row):
            if new:
                self.result.duplicates.append((name, "late"))
            return
        # after a crash between the two changelog writes the hold is of before its closing: what came since is read again
        hold = self._keep(
            key, row, hold or {"v": 1, "a": 0, "o": row["c"][0][2], "x": []}, "parked" if unconfirmed else "kept"
        )
        self._release(key, row, hold, told=True)
        changed = self._add(key, hold, copy, "")
        if new:
            self.result.duplicates.append((name, "late"))
        if unconfirmed:
            if _confirmed(rule, hold["x"]):
                self._close(rule, key, row, hold, "complete" if _complete(rule, hold["x"]) else "hold_ended")
        elif changed and new:
            self._update(key, row, hold)

    def _deny(self, key: bytes, row: Json, copy: Event) -> None:
        """What a copy denies that comes too late for the merge is in the row, for deliver. What it grants is not."""
        said = copy.get("consent")
        if not said or not consent.may_deny(said):
            return
        if _checksum(said) == row.get("e") or not self.partition.denies(copy, row.get("r", ())):
            return
        known, row["d"] = row.get("d"), merge.denials([row.get("d", {}), said])
        if row["d"] != known:
            self.result.denied.append(key)
            self.result.flags.append((copy["event_name"], "denied_later"))

    def _add(self, key: bytes, hold: Json, copy: Event, repeated: str) -> bool:
        """Whether the copy says anything new; if not and `repeated`, that is counted."""
        copies = [*hold["x"], copy]
        hold["x"] = merge.distinct(copies)
        if not (changed := len(hold["x"]) == len(copies) or hold["x"] != copies[:-1]) and repeated:
            self.result.duplicates.append((copy["event_name"], repeated))
        if len(hold["x"]) == merge.MAX_COPIES:
            hold["c"] = merge.merge_consent([hold.get("c", {}), merge.decided(copies)])
        self.dirty_holds.add(key)
        return changed

    def _unproved(self, copy: Event, appended: int, rule: EventRule) -> str:
        """Why nobody can say that this first copy is the first, or an empty text."""
        if "backfill" in copy.get("labels", ()):
            return ""
        if appended - copy["received"] > rule.horizon * 1000:
            return "beyond_horizon"
        return "before_memory" if copy["received"] < (self.partition.since or 0) else ""

    # -- closing

    def _close(self, rule: EventRule, key: bytes, row: Json, hold: Json, how: str) -> None:
        copies = hold["x"]
        # when the last copy came, or for a hold that ended, what the log's clock said
        if how in ("hold_ended", "unconfirmed") and self.partition.now is not None:
            when = self.partition.now
        else:
            when = copies[0]["received"] if len(copies) == 1 else max(c["received"] for c in copies)
        kin = _people(rule, copies)
        (mark, its), *others = kin
        event = merge.merge(its, hold.get("c"))
        if others:
            row["g"] = len(kin)
            event = {**event, "labels": sorted({*event.get("labels", ()), "several_people"})}
            self.result.flags.append((event["event_name"], "several_people"))
        held_back = self._conclude(rule, key, row, hold, event, its, how, when)
        for mark, its in others:
            event = keys.set_apart(merge.merge(its, hold.get("c")), mark, "several_people")
            self.result.flags.append((event["event_name"], "several_people"))
            its_key = keys.key(event)
            one = self.rows[its_key] = {"v": ROW_VERSION, "n": len(its), "o": row["o"]}
            one["c"] = [_brief(its_key, copy, -1) for copy in its]
            self._conclude(rule, its_key, one, hold, event, its, how, when)
        row.pop("k", None)
        if how == "unconfirmed" and hold.get("k") != "parked":
            self._keep(key, row, hold, "parked")
        elif not others and "p" not in hold and (rule.late == "update" or (held_back and rule.expect)):
            row["k"] = 1
            self._keep(key, row, hold, "kept")
        else:
            self._drop_hold(key)
        if "l" in hold:
            self._release(key, row, hold, told=False)

    def _conclude(
        self,
        rule: EventRule,
        key: bytes,
        row: Json,
        hold: Json,
        event: Event,
        copies: Sequence[Event],
        how: str,
        when: int,
    ) -> bool:
        """One person's conversion goes out. Whether any destination does not get it for want of consent."""
        partition, name = self.partition, event["event_name"]
        if why := hold.get("p", "") or ("" if _confirmed(rule, copies) else "unconfirmed"):
            self.result.flags.append((name, why))
        routes = self._routes(event, why)
        self.result.closed.append(Closed(key, event, how, routes, _copies(copies), row["n"]))
        row["s"], row["t"] = how, when
        if (said := event.get("consent")) and consent.may_deny(said):
            row["e"] = _checksum(said)
        if who := people.marks(copies, partition.secret):
            row["w"] = who
        if prints := partition.prints(copies):
            row["f"] = list(prints)
        _note_routes(row, routes)
        self.dirty_rows.add(key)
        return any(route.reason == "consent_absent" for route in routes.values())

    def _release(self, key: bytes, row: Json, hold: Json, *, told: bool) -> None:
        """The copies past the deadline that waited for the closing. `told`: after a crash, when the outputs were written."""
        record = self.record
        for offset, appended, late in hold.pop("l", ()):
            self.record = _Place(offset, appended)  # where it stands itself
            if self._is_stranger(self.partition.rule(late["event_name"]), row, late):
                self._turn_away(row, late)
                continue
            self._deny(key, row, late)
            if "k" in row and self._add(key, hold, late, "") and not told:
                self._update(key, row, hold)
        self.record = record

    def _routes(self, event: Event, parked: str) -> Mapping[str, Route]:
        routes = self.partition.route(event)
        if not parked:
            return routes
        return {n: Route("parked", parked, r.basis) if r.state == "queued" else r for n, r in routes.items()}

    def _update(self, key: bytes, row: Json, hold: Json) -> None:
        """A late copy said something new: to whom does it matter?"""
        event = merge.merge(hold["x"], hold.get("c"))
        revise = self.partition.rule(event["event_name"]).late == "update"
        before, routes = row.get("r", {}), self.partition.route(event)
        queued = {name: route for name, route in routes.items() if route.state == "queued"}
        fresh = {n: r for n, r in queued.items() if before.get(n, ["", ""])[1] == "consent_absent"}
        revised = {n: r for n, r in queued.items() if revise and n not in before and n in self.partition.updating}
        copies = _copies(hold["x"])
        if fresh:
            self.result.closed.append(Closed(key, event, "updated", fresh, copies, row["n"]))
            row["r"] = {n: said for n, said in before.items() if n not in fresh}
        if revised:
            row["u"] = row.get("u", 0) + 1
            event = {**event, "revision": row["u"]}
            self.result.closed.append(Closed(key, event, "updated", revised, copies, row["n"]))

    def _keep(self, key: bytes, row: Json, hold: Json, stage: str) -> Json:
        """The hold stays beyond closing, for late copies."""
        if hold.get("k") == stage:
            return hold
        span = int(self.partition.rule(keys.parts(key)[2]).horizon * 1000)
        if stage == "kept" and self.partition.rule(keys.parts(key)[2]).late == "drop":
            span = min(span, KEEP)
        return self._enter_stage(key, hold, stage, row["c"][0][1] + span)

    def _enter_stage(self, key: bytes, hold: Json, stage: str, deadline: int) -> Json:
        hold["k"], hold["d"] = stage, deadline
        self.holds[key] = hold
        self.partition.enter(key, hold)
        self.dirty_holds.add(key)
        return hold

    def _drop_hold(self, key: bytes) -> None:
        self.holds[key] = None
        self.partition.open.pop(key, None)
        if key in self.stored:
            self.dirty_holds.add(key)
        else:
            self.dirty_holds.discard(key)

    def _close_due(self) -> None:
        while due := self.partition.due():  # a stage may end at once, when the clock has passed the next one's end, too
            self._load(due)
            for key in due:
                self._end(key, self.rows[key], self._hold(key))

    def _end(self, key: bytes, row: Json | None, hold: Json | None) -> None:
        """The clock has passed the deadline of this hold."""
        if hold is None:
            self.partition.open.pop(key, None)
            return
        if row is None:  # a crash came between the two changelog writes: held written, seen not
            row = self.rows[key] = {"v": ROW_VERSION, "c": [], "n": 0, "o": -1, "s": None}
            row["c"] = [_brief(key, copy, -1) for copy in hold["x"]]
            row["n"] = len(hold["x"])
        rule, stage = self.partition.rule(keys.parts(key)[2]), hold.get("k", "")
        if row["s"] is not None:
            kept = {"unconfirmed": "parked"}.get(row["s"]) or ("kept" if "k" in row else None)
            if kept is None or stage == kept:
                self._drop_hold(key)
            else:
                self._keep(key, row, hold, kept)
            self._release(key, row, hold, told=True)  # if there are any, a crash came between the two changelog writes
        elif _confirmed(rule, hold["x"]):
            self._close(rule, key, row, hold, "hold_ended")
        elif stage == "":
            wait = int((rule.confirm_within - rule.merge_window) * 1000)
            self._enter_stage(key, hold, "confirm", hold["d"] + max(wait, 0))
        else:
            self._close(rule, key, row, hold, "unconfirmed")


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


def _hopeless(copies: Sequence[Event]) -> bool:
    """No other copy can come: an id made up for one call pairs with nothing, unless the order number is what pairs."""
    alone = [c for c in copies if c.get("pairs") is False]
    return any("apart" in c or keys.conversion_id(c) == c["event_id"] for c in alone)


def _complete(rule: EventRule, copies: Sequence[Event]) -> bool:
    """Nothing more is waited for: all expected sources are there, of each person, or no other copy can come."""
    if not rule.expect and rule.wait_for is None:
        return True
    there = {copy["source"] for copy in copies}
    if not there.isdisjoint(_AFTERWARDS) or _hopeless(copies):
        return True
    if not there.issuperset(rule.expect) or not _confirmed(rule, copies):
        return False
    kin = _people(rule, copies)
    return len(kin) == 1 or all(_complete(rule, some) for _, some in kin)


def _confirmed(rule: EventRule, copies: Sequence[Event]) -> bool:
    if rule.wait_for is None:
        return True
    there = {copy["source"] for copy in copies}
    return rule.wait_for in there or not there.isdisjoint(_AFTERWARDS)


def _people(rule: EventRule, copies: Sequence[Event]) -> list[tuple[str, list[Event]]]:
    return people.groups(copies) if len(copies) > 1 and rule.different_people == "apart" else [("", list(copies))]


def _checksum(said: Any) -> str:
    """Of what a consent denies."""
    return f"{zlib.crc32(orjson.dumps(merge.denials([said]))):x}"


def _copies(copies: Sequence[Event]) -> list[Json]:
    return [
        {"source": c["source"], "received": c["received"], "event_id": c["event_id"], "origin": c.get("origin", {})}
        for c in (copies if len(copies) == 1 else sorted(copies, key=lambda c: c["received"]))
    ]


def _note_routes(row: Json, routes: Mapping[str, Route]) -> None:
    row.pop("r", None)
    if others := {name: [r.state, r.reason] for name, r in routes.items() if r.state != "queued"}:
        row["r"] = others


def _place(copy: Event) -> str:
    """Where it was read."""
    origin = copy.get("origin", {})
    if "topic" in origin:
        return f"{origin['topic']}/{origin['partition']}/{origin['offset']}"
    return origin.get("request", "")


def _brief(key: bytes, copy: Event, offset: int) -> list[Any]:
    event_id = copy["event_id"]
    its = "" if key.startswith(f"{event_id}{keys.SEPARATOR}".encode()) else event_id
    return [copy["source"], copy["received"], offset, its, _place(copy)]


def _loads(keys_: Sequence[bytes], rows: Sequence[bytes | None]) -> dict[bytes, Json | None]:
    return {key: orjson.loads(row) if row else None for key, row in zip(keys_, rows, strict=True)}


def _dumps(row: Json | None) -> bytes | None:
    return orjson.dumps(row) if row else None
