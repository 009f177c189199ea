"""app/dedup.py: a log of copies and clock records against a few dicts for tables, batched and killed in every way.

`oracle` tells once more, without batches, rows or restarts, what a log comes to.
"""

import math
import re
from collections import defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from random import Random
from types import SimpleNamespace
from typing import Any, NamedTuple

import msgspec
import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app import clock, dedup, erasure, keys, merge
from app.dedup import ALIAS, Closing, Partition, Result
from app.erasure import Forgotten, Prints
from app.events import SIGNALS, Event, Json
from app.normalize import MAX_BYTES
from app.routing import Route
from app.settings import EventRule
from app.shape import from_event
from tests.factories import make_event

DAY = 86_400
END = 10_000_000  # milliseconds: later than everything here
RULES = {
    "purchase": EventRule(expect=["pixel", "server"], merge_window=10, horizon=30 * DAY),
    "generate_lead": EventRule(expect=["pixel", "server"], merge_window=3, horizon=100),
    "app_order": EventRule(expect=["pixel", "server", "app"], merge_window=20),
    "page_view": EventRule(),
}
#: Rules whose conversions live on after closing; `oracle` does not know them.
LONG_RULES = {
    "confirmed": EventRule(
        expect=["pixel", "server"], wait_for="server", merge_window=5, confirm_within=20, horizon=60
    ),
    "updated": EventRule(expect=["pixel", "server"], late="update", merge_window=5, horizon=60),
    "sign_up": EventRule(expect=["pixel", "server"], merge_window=5, horizon=60),
}


def rule(event_name: str) -> EventRule:
    return RULES.get(event_name) or LONG_RULES.get(event_name) or EventRule()


def route(event: Event) -> Mapping[str, Route]:
    """`ads` wants no denial, `strict` a consent, `stats` takes everything."""
    said = event.get("consent", {}).get("ad_storage")
    routes = {"ads": Route("held_back", "consent_denied", "x") if said == "denied" else Route("queued")}
    if event["event_name"] in LONG_RULES:
        routes["strict"] = Route("queued") if said == "granted" else Route("held_back", f"consent_{said or 'absent'}")
    return routes | {"stats": Route("queued")}


def denies(copy: Event, but: Container[str]) -> bool:
    minding = ("ads", "strict") if copy["event_name"] in LONG_RULES else ("ads",)
    return copy["consent"].get("ad_storage") == "denied" and any(name not in but for name in minding)


class Closed(NamedTuple):
    """A conversion that closed, as its record tells it."""

    key: bytes
    event: Event
    how: str
    routes: Mapping[str, Route]
    copies: Sequence[Json]
    received: int
    record: bytes


def closed(closing: Closing) -> Closed:
    record = msgspec.json.encode(closing.record())
    said, routes = orjson.loads(record), closing.decision.routes
    return Closed(closing.key, said["event"], said["closed"], routes, said["copies"], said["received"], record)


def new_partition() -> Partition:
    return Partition(rule, route, updating=frozenset({"ads"}), denies=denies, output=closed)


class Record(NamedTuple):
    offset: int
    key: bytes | None
    value: bytes
    timestamp: int  # of its append


def make_copy(source: str, received: int, event_id: str = "1", event_name: str = "purchase", **parts: Any) -> Event:
    copy: Json = {
        "v": 1,
        "event_id": event_id,
        "event_name": event_name,
        "site": "shop",
        "source": source,
        "time": received,
        "received": received,
        "custom": {"from": source},
    }
    return copy | parts  # type: ignore[return-value]


def log_of(*entries: Event | int, first: int = 0, appended: int | None = None) -> list[Record]:
    """Records of copies, and of the clock where there is a number. Appended when they say, unless told otherwise."""
    return [
        Record(offset, None, clock.encode(one), one if appended is None else appended)
        if isinstance(one, int)
        else Record(offset, keys.key(one), orjson.dumps(one), one["received"] if appended is None else appended)
        for offset, one in enumerate(entries, first)
    ]


@dataclass
class Worker:
    """Dedup with its tables, as agents/dedup.py and app/lossless make them."""

    seen: dict[bytes, bytes] = field(default_factory=dict)
    held: dict[bytes, bytes] = field(default_factory=dict)
    outputs: list[Closed] = field(default_factory=list)
    duplicates: list[tuple[str, str]] = field(default_factory=list)
    flags: list[tuple[str, str]] = field(default_factory=list)
    partition: Partition = field(default_factory=new_partition)
    reads: list[tuple[str, Sequence[bytes]]] = field(default_factory=list)
    next: int = 0  # offset of the next record

    def __post_init__(self) -> None:
        self.partition.output = closed

    def run(self, records: Sequence[Record], most: float = math.inf) -> Result:
        """Decide, and write nothing."""
        return self.partition.run(records, self._reader("seen"), self._reader("held"), most)

    def _reader(self, name: str) -> dedup.Get:
        def get(wanted: Sequence[bytes]) -> list[bytes | None]:
            self.reads.append((name, wanted))
            return [getattr(self, name).get(key) for key in wanted]

        return get

    def write(self, name: str, rows: dedup.Rows) -> None:
        table: dict[bytes, bytes] = getattr(self, name)
        for key, row in rows.items():
            if row is None:
                assert key in table, "a deletion of what was never there"
                del table[key]
            else:
                table[key] = row

    def take(self, *entries: Event | int | Record, first: int | None = None) -> Result:
        """One batch, from decision to the last write."""
        self.next = self.next if first is None else first
        records: list[Record] = []
        for entry in entries:
            records += [entry] if isinstance(entry, Record) else log_of(entry, first=self.next)
            self.next = records[-1].offset + 1
        result = self.run(records)
        self.outputs += result.closed
        self.duplicates += result.duplicates
        self.flags += result.flags
        self.write("seen", result.seen)
        self.write("held", result.held)
        return result

    def restart(self) -> None:
        self.partition = new_partition()
        self.partition.recover(self.held.items())

    def row(self, event: Event) -> Json:
        row: Json = orjson.loads(self.seen[keys.key(event)])
        return row


# what a log comes to


@dataclass
class Life:
    """A key from its first copy until its horizon."""

    copies: list[tuple[int, Event]]
    deadline: float
    ripe: float
    joined: list[Event] = field(default_factory=list)
    how: str = ""


def oracle(log: Iterable[Record]) -> tuple[list[tuple[bytes, str, Event]], dict[bytes, list[Life]]]:
    """(key, how, event) in the order of closing; and every life of every key."""
    lives: dict[bytes, list[Life]] = defaultdict(list)
    closed: list[tuple[bytes, str, Event]] = []
    now: int | None = None

    def close(key: bytes, life: Life, how: str) -> None:
        life.how = how
        closed.append((key, how, merge.merge(life.joined)))

    for record in log:
        if record.key is None:
            now = clock.decode(record.value)
            due = [(life.deadline, key, life) for key, of_key in lives.items() for life in of_key if not life.how]
            for deadline, key, life in sorted(due, key=lambda one: one[:2]):
                if deadline < now and life.ripe <= record.timestamp:
                    close(key, life, "hold_ended")
            continue
        copy = orjson.loads(record.value)
        known, want = lives[record.key], rule(copy["event_name"])
        if not known or (known[-1].how and copy["received"] - known[-1].copies[0][1]["received"] > want.horizon * 1000):
            window = want.merge_window * 1000
            known.append(Life([], max(copy["received"], now or 0) + window, record.timestamp + window))
        life = known[-1]
        life.copies.append((record.offset, copy))
        if life.how or copy["received"] > life.deadline:
            continue
        life.joined.append(copy)
        made_up = any(c.get("pairs") is False and keys.conversion_id(c) == c["event_id"] for c in life.joined)
        alone = made_up or any(c["source"] in ("offline", "crm") for c in life.joined)
        if alone or {c["source"] for c in life.joined} >= set(want.expect):
            close(record.key, life, "complete" if want.expect else "no_hold")
    return closed, lives


def random_log(
    random: Random,
    *,
    honest: bool = True,
    again: bool = False,
    conversions: int = 12,
    names: Sequence[str] = (*RULES, "purchase", "generate_lead"),
) -> list[Record]:
    """Copies in the order of their arrival, with clock records between.

    `honest`: the clock keeps its promise, and no copy comes with a time that lies before it. `again`: some keys come
    once more after their horizon.
    """
    arrivals: list[tuple[float, Event]] = []
    for n in range(conversions):
        name = random.choice(names)
        starts = [random.randint(1_000, 60_000)]
        if again and random.random() < 0.5:
            starts.append(starts[0] + 250_000)
        for start in starts:
            for _ in range(random.choice((1, 2, 2, 2, 3, 4, 12))):
                received = start + random.choice((0, 1, 500, 3_000, 9_999, 10_000, 10_001, 15_000, 25_000))
                copy = make_copy(
                    random.choice(("pixel", "server", "pixel", "server", "app", "crm", "offline")),
                    received,
                    event_id=f"e{n}-{random.randint(0, 2)}" if name == "purchase" else f"e{n}",
                    event_name=name,
                    custom={"n": random.choice((0, 0, 0, random.randint(1, 9)))},
                )
                if name == "purchase":
                    copy["commerce"] = {"transaction_id": f"t{n}"}
                if name in LONG_RULES and random.random() < 0.3:
                    copy["user"] = {"email": {"plain": random.choice(("a" * 64, "b" * 64))}}
                if random.random() < 0.05:
                    copy["pairs"] = False
                if random.random() < 0.5:
                    copy["consent"] = {"ad_storage": random.choice(("granted", "denied"))}
                arrivals.append((received + random.choice((0, 10, 100, 2_000, 20_000)), copy))
    arrivals.sort(key=lambda one: one[0])
    records: list[Record] = []
    for n, (arrival, copy) in enumerate(arrivals):
        records += log_of(copy, appended=int(arrival))
        if random.random() < 0.3:
            promise = min([arrival, *(later["received"] for _, later in arrivals[n + 1 :])])
            now = int(promise - random.choice((0, 0, 300))) if honest else random.randint(0, 90_000)
            records += log_of(now, appended=int(arrival))
        if (
            honest and n + 1 < len(arrivals) and arrivals[n + 1][0] - arrival > 100_000
        ):  # clocks do not stop for so long
            now = min(later["received"] for _, later in arrivals[n + 1 :])
            records += log_of(now, appended=int(arrivals[n + 1][0]))
    records += log_of(END, END + 1, 2 * END)
    return [record._replace(offset=n * 2 + 7) for n, record in enumerate(records)]  # Kafka leaves holes


def play(
    log: Sequence[Record], random: Random, *, kills: float = 0.0, order: Sequence[str] = ("seen", "held")
) -> Worker:
    """The log in random batches, in parts where many holds end at once. A kill comes before, in or after any of a part's writes;
    then everything begins at the last commit, with the tables as they are.
    """
    worker, at, commit = Worker(), 0, 0
    most, ending = random.choice((1, 3, 10, len(log))), random.choice((1, 2, math.inf))
    left: Sequence[Record] = ()
    while left or at < len(log):
        batch = left or log[at : at + random.randint(1, most)]
        result = worker.run(batch, ending)
        killed = random.randint(0, 6) if random.random() < kills else 6
        # 0, 2, 4: in the middle of a write; 1, 3, 5: after it
        worker.outputs += result.closed[: random.randint(0, len(result.closed)) if killed == 0 else None]
        for n, name in enumerate(order):
            rows: dedup.Rows = getattr(result, name)
            if killed == 2 * n + 2:
                rows = dict([*rows.items()][: random.randint(0, len(rows))])  # Kafka keeps the order
            if killed > 2 * n + 1:
                worker.write(name, rows)
        if killed < 6:
            at, left = commit, ()
            worker.restart()
            continue
        worker.duplicates += result.duplicates
        left = result.left
        at += len(batch) - len(left)
        if not left and random.random() < 0.4:
            commit = at
    return worker


def first_of(outputs: Iterable[Closed]) -> dict[bytes, Closed]:
    first: dict[bytes, Closed] = {}
    for closed in outputs:
        first.setdefault(closed.key, closed)
    return first


def conversions(seen: Mapping[bytes, bytes]) -> dict[bytes, Json]:
    return {key: orjson.loads(row) for key, row in seen.items() if not key.startswith(ALIAS)}


SEEDS = st.integers(0, 2**32)
LOGS = st.builds(
    lambda seed, honest, again, size: random_log(Random(seed), honest=honest, again=again, conversions=size),
    SEEDS,
    st.booleans(),
    st.booleans(),
    st.integers(1, 12),
)
#: Logs for kills: the clock forgets in a restart how far it was, so only one that keeps its promise closes the same.
HONEST = st.builds(lambda seed, size: random_log(Random(seed), conversions=size), SEEDS, st.integers(1, 12))
#: Logs of conversions that wait to be confirmed, are parked, updated, of several people.
LONG_LOGS = st.builds(
    lambda seed, again, size: random_log(Random(seed), again=again, conversions=size, names=(*LONG_RULES,)),
    SEEDS,
    st.booleans(),
    st.integers(1, 12),
)
ORDERS = pytest.mark.parametrize("order", [("seen", "held"), ("held", "seen")], ids=["seen_first", "held_first"])
fast = settings(max_examples=settings().max_examples * 4 // 5)


# P7: same log, same result


@fast
@given(LOGS, SEEDS)
def test_what_closes_is_what_the_rules_say_in_their_order(log, seed):
    worker = play(log, Random(seed))

    assert [(closed.key, closed.how, closed.event) for closed in worker.outputs] == oracle(log)[0]


@fast
@given(st.one_of(LOGS, LONG_LOGS), SEEDS)
def test_any_batching_gives_the_same_outputs_rows_and_counts(log, seed):
    one_by_one, other = Worker(), play(log, Random(seed))
    for record in log:
        one_by_one.take(record)

    # of each key: where many end at once, the second stage of some may end before the first of others
    assert sorted(other.outputs, key=attrgetter("key")) == sorted(one_by_one.outputs, key=attrgetter("key"))
    assert other.seen == one_by_one.seen
    assert other.held == one_by_one.held == {}
    assert other.duplicates == one_by_one.duplicates


@fast
@given(LOGS, SEEDS)
def test_every_copy_is_counted_in_its_row(log, seed):
    rows = conversions(play(log, Random(seed)).seen)

    for key, lives in oracle(log)[1].items():
        copies, row = lives[-1].copies, rows[key]
        assert row["n"] == len(copies)
        assert row["o"] == copies[-1][0]
        assert [(source, received, offset) for source, received, offset, _, _ in row["c"]] == [
            (copy["source"], copy["received"], offset) for offset, copy in copies[: merge.MAX_COPIES]
        ]


# kills


@ORDERS
@fast
@given(log=HONEST, seed=SEEDS)
def test_after_kills_the_first_output_of_each_key_is_as_if_there_had_been_none(order, log, seed):
    expected = first_of(play(log, Random(0)).outputs)

    worker = play(log, Random(seed), kills=0.3, order=order)

    first = first_of(worker.outputs)
    assert first.keys() == expected.keys()
    for key, closed in first.items():
        assert (closed.how, closed.event, closed.routes) == (
            expected[key].how,
            expected[key].event,
            expected[key].routes,
        )


@ORDERS
@fast
@given(log=HONEST, seed=SEEDS)
def test_after_kills_nothing_is_held_for_ever_and_every_copy_is_counted_once(order, log, seed):
    expected = conversions(play(log, Random(0)).seen)

    worker = play(log, Random(seed), kills=0.3, order=order)

    assert worker.held == {}
    assert worker.partition.waiting == 0
    rows = conversions(worker.seen)
    assert {key: (row["n"], row["o"], row["c"]) for key, row in rows.items()} == {
        key: (row["n"], row["o"], row["c"]) for key, row in expected.items()
    }


@fast
@given(log=HONEST, seed=SEEDS)
def test_with_seen_written_before_held_what_a_kill_repeats_is_the_same_event_with_the_same_decision(log, seed):
    # the other way round a hold can be gone whose closing nobody remembers: a late copy, or the one read again, then makes
    # a second conversion of less, without a denial that was in the first
    expected = play(log, Random(0))

    worker = play(log, Random(seed), kills=0.3, order=("seen", "held"))

    first = first_of(worker.outputs)
    for closed in worker.outputs:
        assert (closed.event, closed.routes) == (first[closed.key].event, first[closed.key].routes)
    assert _without_clock(worker.seen) == _without_clock(expected.seen)


@fast
@given(log=LONG_LOGS, seed=SEEDS)
def test_conversions_that_live_on_after_closing_survive_kills(log, seed):
    # a kill may tell something once more; what it tells is nothing new, and nobody misses anything
    expected = play(log, Random(0))

    worker = play(log, Random(seed), kills=0.3)

    def told(outputs: Iterable[Closed]) -> set[tuple[bytes, str, str, bytes]]:
        return {
            (one.key, name, route.state, orjson.dumps(one.event, option=orjson.OPT_SORT_KEYS))
            for one in outputs
            for name, route in one.routes.items()
        }

    assert told(worker.outputs) == told(expected.outputs)
    assert worker.held == expected.held == {}
    assert worker.partition.waiting == 0


def _without_clock(seen: Mapping[bytes, bytes]) -> dict[bytes, Json]:
    return {key: {k: v for k, v in orjson.loads(row).items() if k != "t"} for key, row in seen.items()}


@ORDERS
@fast
@given(seed=SEEDS, size=st.integers(1, 12))
def test_no_clock_however_wrong_and_no_kill_loses_a_conversion(order, seed, size):
    log = random_log(Random(seed), honest=False, conversions=size)

    worker = play(log, Random(seed), kills=0.3, order=order)

    assert {closed.key for closed in worker.outputs} == {record.key for record in log} - {None}
    assert worker.held == {}


# closing


def test_a_pair_closes_when_both_are_there():
    worker = Worker()
    worker.take(make_copy("pixel", 1_000))
    assert worker.outputs == []

    worker.take(make_copy("server", 3_000))

    (closed,) = worker.outputs
    assert closed.how == "complete"
    assert closed.event == merge.merge([make_copy("pixel", 1_000), make_copy("server", 3_000)])
    assert [copy["source"] for copy in closed.copies] == ["pixel", "server"]
    assert worker.held == {}


def test_a_lonely_copy_closes_with_the_first_clock_record_past_its_window():
    worker = Worker()
    worker.take(make_copy("pixel", 1_000), 2_000, 10_999, 11_000)
    assert worker.outputs == []

    worker.take(11_001)

    (closed,) = worker.outputs
    assert (closed.how, closed.event["source"]) == ("hold_ended", "pixel")
    assert worker.row(closed.event)["t"] == 11_001


@pytest.mark.parametrize("source", ["pixel", "server", "app"])
def test_a_name_that_expects_nobody_closes_at_once_and_leaves_nothing_in_held(source):
    worker = Worker()

    result = worker.take(make_copy(source, 1_000, event_name="page_view"))

    assert [closed.how for closed in worker.outputs] == ["no_hold"]
    assert result.held == {}
    assert worker.partition.waiting == 0
    assert worker.partition.deadlines == []


def test_names_without_a_rule_are_not_held():
    worker = Worker()

    worker.take(make_copy("pixel", 1_000, event_name="my_own_event"))

    assert [closed.how for closed in worker.outputs] == ["no_hold"]


@pytest.mark.parametrize(
    "copy",
    [make_copy("pixel", 1_000, pairs=False), make_copy("crm", 1_000), make_copy("offline", 1_000)],
    ids=["pairs_false", "crm", "offline"],
)
def test_a_copy_that_meets_no_other_closes_at_once(copy):
    worker = Worker()

    result = worker.take(copy)

    assert [closed.how for closed in worker.outputs] == ["complete"]
    assert result.held == {}


def test_a_pair_within_one_batch_writes_nothing_to_held():
    worker = Worker()

    result = worker.take(make_copy("pixel", 1_000), make_copy("server", 1_001))

    assert (len(result.closed), result.held) == (1, {})


def test_a_deletion_is_written_only_for_what_was_stored():
    worker = Worker()
    worker.take(make_copy("pixel", 1_000))

    result = worker.take(make_copy("server", 1_000))

    assert result.held == {keys.key(make_copy("pixel", 0)): None}


def test_all_that_a_name_expects_is_waited_for():
    worker = Worker()
    worker.take(*(make_copy(source, 1_000, event_name="app_order") for source in ("pixel", "server", "pixel")))
    assert worker.outputs == []

    worker.take(make_copy("app", 1_000, event_name="app_order"))

    assert [closed.how for closed in worker.outputs] == ["complete"]


@pytest.mark.parametrize(("name", "window"), [("purchase", 10_000), ("generate_lead", 3_000), ("app_order", 20_000)])
def test_every_name_has_its_own_window(name, window):
    worker = Worker()
    worker.take(make_copy("pixel", 1_000, event_name=name), 1_000 + window)
    assert worker.outputs == []

    worker.take(1_001 + window)

    assert len(worker.outputs) == 1


def test_holds_close_in_the_order_of_their_deadlines():
    worker = Worker()

    worker.take(*(make_copy("pixel", received, event_id=str(received)) for received in (3_000, 1_000, 2_000)), END)

    assert [closed.event["event_id"] for closed in worker.outputs] == ["1000", "2000", "3000"]


# late and again


def test_a_copy_at_the_deadline_joins_and_one_after_it_is_late():
    worker = Worker()
    worker.take(make_copy("pixel", 1_000), make_copy("pixel", 11_000, custom={"n": 1}))

    worker.take(make_copy("server", 11_001))  # before any clock record says so
    assert worker.outputs == []
    worker.take(11_002)

    (closed,) = worker.outputs
    assert [copy["source"] for copy in closed.copies] == ["pixel", "pixel"]
    assert worker.duplicates == [("purchase", "late")]
    assert worker.row(closed.event)["n"] == closed.received == 3


def test_late_copies_are_counted_and_open_nothing():
    worker = Worker()
    worker.take(make_copy("pixel", 1_000), make_copy("server", 1_000))

    result = worker.take(make_copy("server", 2_000), make_copy("pixel", 500_000, custom={"n": 1}), END)

    assert len(worker.outputs) == 1
    assert worker.row(make_copy("pixel", 0))["n"] == 4
    assert worker.duplicates == [("purchase", "late")] * 2
    assert result.held == {}
    assert worker.partition.waiting == 0


def test_a_repeated_copy_is_counted_and_merged_once():
    worker = Worker()
    worker.take(make_copy("pixel", 1_000), make_copy("pixel", 1_500, time=1_000), make_copy("pixel", 1_500, time=1_000))
    assert worker.duplicates == [("purchase", "repeat")] * 2

    worker.take(make_copy("server", 2_000))

    (closed,) = worker.outputs
    assert (len(closed.copies), closed.received) == (2, 4)


def test_what_is_read_again_after_a_restart_is_no_second_copy():
    worker = Worker()
    log = log_of(
        *(make_copy("pixel", received) for received in (1_000, 1_000, 90_000)),
        *(make_copy("server", received) for received in (2_000, 2_000)),
    )
    for read in (log[:3], log, log):
        worker.take(*read)
        worker.restart()

    assert worker.row(make_copy("pixel", 0))["n"] == 5
    assert worker.duplicates == [("purchase", "repeat"), ("purchase", "late"), ("purchase", "late")]
    assert len(worker.outputs) == 1


def test_a_key_within_its_horizon_is_known_and_after_it_is_new():
    worker = Worker()
    name = "generate_lead"  # 100 s
    worker.take(make_copy("pixel", 1_000, event_name=name), make_copy("server", 1_000, event_name=name))
    worker.take(make_copy("pixel", 101_000, event_name=name), END)
    assert len(worker.outputs) == 1

    worker.take(make_copy("pixel", 101_001, event_name=name), make_copy("server", 101_002, event_name=name))

    assert [closed.received for closed in worker.outputs] == [2, 2]
    row = worker.row(make_copy("pixel", 0, event_name=name))
    assert (row["n"], [copy[1] for copy in row["c"]]) == (2, [101_001, 101_002])


def test_a_hold_of_what_the_key_meant_before_is_not_joined():
    # a kill came between the two writes: `seen` says closed, the hold is still there
    worker = Worker()
    worker.take(make_copy("pixel", 1_000, event_name="generate_lead"))
    result = worker.run(log_of(END - 200_000, first=1))
    worker.write("seen", result.seen)
    worker.restart()

    worker.take(make_copy("server", END, event_name="generate_lead"), END + 3_000, END + 3_001, first=2)

    (closed,) = worker.outputs
    assert [copy["source"] for copy in closed.copies] == ["server"]
    assert worker.held == {}


def test_a_deadline_of_what_the_key_meant_before_does_not_close_its_new_hold():
    worker = Worker()
    worker.take(make_copy("pixel", 90_000, "keeps the deadlines"))
    worker.take(*(make_copy(source, 1_000, event_name="generate_lead") for source in ("pixel", "server")))

    worker.take(make_copy("pixel", 200_000, event_name="generate_lead"), 50_000)

    assert [closed.how for closed in worker.outputs] == ["complete"]
    assert worker.partition.waiting == 2


def test_a_hold_whose_row_a_kill_prevented_closes_and_makes_the_row():
    worker = Worker()
    copies = [make_copy("pixel", 1_000, origin={"request": "r"}), make_copy("pixel", 1_000, custom={"n": 1})]
    worker.write("held", worker.run(log_of(*copies)).held)
    worker.restart()

    worker.take(END, first=2)

    (closed,) = worker.outputs
    assert (closed.how, closed.event, closed.received) == ("hold_ended", merge.merge(copies), 2)
    row = worker.row(closed.event)
    assert (row["n"], row["s"], sorted(copy[4] for copy in row["c"])) == (2, "hold_ended", ["", "r"])
    assert worker.held == {}


def test_an_open_hold_does_not_expire():
    # no clock for longer than the horizon: a source stood still
    worker = Worker()
    worker.take(make_copy("pixel", 1_000, event_name="generate_lead"))

    worker.take(make_copy("server", 500_000, event_name="generate_lead"), END)

    (closed,) = worker.outputs
    assert [copy["source"] for copy in closed.copies] == ["pixel"]
    assert worker.row(closed.event)["n"] == 2


# the clock


def test_an_unknown_clock_closes_nothing_after_a_restart():
    worker = Worker()
    worker.take(5_000, make_copy("pixel", 5_000))
    worker.restart()

    worker.take(*(make_copy("pixel", 900_000 + n, event_id=f"other{n}") for n in range(5)))
    assert worker.outputs == []
    worker.take(15_001)

    assert [closed.event["event_id"] for closed in worker.outputs] == ["1"]


def test_a_first_copy_behind_the_clock_gets_a_whole_window():
    worker = Worker()
    worker.take(50_000, make_copy("server", 1_000), 60_000)
    assert worker.outputs == []

    worker.take(make_copy("pixel", 60_000))

    assert [closed.how for closed in worker.outputs] == ["complete"]


def test_a_clock_that_goes_back_closes_nothing_and_opens_nothing_again():
    worker = Worker()
    worker.take(make_copy("pixel", 1_000, "a"), 20_000)
    worker.take(5_000, make_copy("pixel", 6_000, "b"), 16_000, make_copy("server", 7_000, "a"))
    assert [closed.event["event_id"] for closed in worker.outputs] == ["a"]

    worker.take(16_001)

    assert [closed.event["event_id"] for closed in worker.outputs] == ["a", "b"]


def test_clock_records_alone_write_nothing():
    worker = Worker()

    result = worker.take(1_000, 2_000, 1_500)

    assert (result.closed, result.seen, result.held) == ([], {}, {})
    assert [wanted for _, wanted in worker.reads if wanted] == []


def test_a_restart_finds_the_holds_again():
    worker = Worker()
    times = [1_000 + 7 * n % 40 for n in range(40)]
    worker.take(*(make_copy("pixel", when, event_id=f"{when}") for when in times))

    worker.restart()
    waiting = worker.partition.waiting
    worker.take(END)

    assert waiting == 40
    assert [closed.event["received"] for closed in worker.outputs] == sorted(times)


# what it keeps and reads


def test_waiting_counts_the_open_holds_and_no_closed_ones():
    worker = Worker()
    worker.take(*(make_copy("pixel", 1_000, str(n)) for n in range(10)))
    worker.take(*(make_copy("server", 1_000, str(n)) for n in range(7)))

    assert worker.partition.waiting == 3


def test_deadlines_of_closed_holds_are_forgotten_when_no_clock_comes():
    worker = Worker()
    for n in range(50):
        worker.take(make_copy("pixel", 1_000 + n, str(n)), make_copy("server", 1_000 + n, str(n)))

    assert worker.partition.deadlines == []


def test_deadlines_of_closed_holds_do_not_pile_up_while_the_clock_stands_still():
    worker = Worker()
    worker.take(*(make_copy("pixel", 1_000, f"open {n}") for n in range(5)))
    for n in range(50):
        worker.take(make_copy("pixel", 1_000 + n, str(n)), make_copy("server", 1_000 + n, str(n)))

    assert len(worker.partition.deadlines) <= 10
    assert worker.partition.open.keys() <= {key for _, key in worker.partition.deadlines}


def test_deadlines_of_closed_holds_cost_no_reading():
    worker = Worker()
    worker.take(*(make_copy("pixel", 1_000, str(n)) for n in range(10)), make_copy("pixel", 900_000, "open"))
    worker.take(*(make_copy("server", 1_000, str(n)) for n in range(10)))
    worker.reads.clear()

    worker.take(END // 20)

    assert {key for _, wanted in worker.reads for key in wanted} == set()


def test_holds_are_read_only_where_there_is_one():
    worker = Worker()
    worker.take(make_copy("pixel", 1_000))
    worker.reads.clear()

    worker.take(make_copy("server", 1_000), *(make_copy("pixel", 1_000, str(n)) for n in range(2, 9)))

    assert [key for name, wanted in worker.reads if name == "held" for key in wanted] == [
        keys.key(make_copy("pixel", 0))
    ]


def test_of_very_many_holds_that_end_at_once_some_are_ended_and_written_and_then_the_others():
    worker, at_once = Worker(), Worker()
    copies = [make_copy("pixel", 1_000, str(n)) for n in range(5)]
    for one in (worker, at_once):
        one.take(*copies)
    # in the same batch, but behind the clock record that has not ended all of them yet: it is late for all
    log, ended = log_of(END, make_copy("server", 1_000, "4"), first=5), list[int]()
    expected = at_once.run(log)

    left: Sequence[Record] = log
    while left:
        worker.reads.clear()
        result = worker.run(left, most=2)
        ended.append(len(result.closed))
        assert all(len(wanted) <= 3 for _, wanted in worker.reads)
        worker.outputs += result.closed
        worker.write("seen", result.seen)
        worker.write("held", result.held)
        left = result.left

    assert ended == [2, 2, 1]
    assert worker.outputs == expected.closed
    at_once.write("seen", expected.seen)
    assert worker.seen == at_once.seen
    assert worker.held == {}


def test_rows_are_read_once_a_batch():
    worker = Worker()
    copies = [make_copy(source, 1_000, str(n % 3)) for n in range(9) for source in ("pixel", "server")]

    worker.run(log_of(*copies, END))

    read = [key for name, wanted in worker.reads if name == "seen" for key in wanted]
    assert len(read) == len(set(read)) == 3


# rows


def test_rows_have_the_fields_that_the_module_tells_of_and_no_others():
    worker = Worker()
    worker.take(make_copy("pixel", 1_000, consent={"ad_storage": "denied"}))
    key = keys.key(make_copy("pixel", 0))

    assert orjson.loads(worker.held[key]) == {
        "v": 1,
        "d": 11_000,
        "o": 0,
        "a": 1_000,
        "x": [make_copy("pixel", 1_000, consent={"ad_storage": "denied"})],
    }
    assert orjson.loads(worker.seen[key]) == {"v": 1, "c": [["pixel", 1_000, 0, "", ""]], "n": 1, "o": 0, "s": None}
    worker.take(20_000)
    assert orjson.loads(worker.seen[key]) == {
        "v": 1,
        "c": [["pixel", 1_000, 0, "", ""]],
        "n": 1,
        "o": 0,
        "s": "hold_ended",
        "t": 20_000,
        "r": {"ads": ["held_back", "consent_denied"]},
        "e": "37d4b80b",
    }


@fast
@given(st.one_of(LOGS, LONG_LOGS), SEEDS)
def test_no_row_has_a_field_that_the_module_does_not_tell_of(log, seed):
    of_seen, of_held = (set(re.findall(r"    (\w)  ", text)) for text in (dedup.__doc__ or "").split("Table `held`"))

    assert of_seen == {"v", "n", "c", "o", "s", "t", "r", "k", "u", "w", "g", "p", "h", "f", "x", "e", "d"}
    assert of_held == {"v", "d", "o", "a", "x", "c", "l", "p", "k"}
    worker = play(log[: Random(seed).randint(1, len(log))], Random(seed))
    for key, row in worker.seen.items():
        assert set(orjson.loads(row)) <= (of_seen if not key.startswith(ALIAS) else {"=", "t"})
    for row in worker.held.values():
        assert set(orjson.loads(row)) <= of_held


def test_rows_with_empty_parts_of_an_earlier_release_are_read():
    copies = [make_copy("pixel", 1_000), make_copy("server", 2_000)]
    key = keys.key(copies[0])
    closed = {
        "v": 1,
        "c": [["pixel", 1_000, 0, "", ""]],
        "n": 3,
        "o": 2,
        "s": "hold_ended",
        "t": 9_000,
        "r": {},
        "p": [],
        "x": [5],
    }
    worker = Worker(seen={key: orjson.dumps(closed)}, next=3)

    worker.take(copies[1])

    assert worker.outputs == []
    row = worker.row(copies[0])
    assert (row["n"], row["o"], row["s"], row["t"], row["x"]) == (4, 3, "hold_ended", 9_000, [5])
    assert row["c"] == [["pixel", 1_000, 0, "", ""], ["server", 2_000, 3, "", ""]]


def test_what_is_made_of_a_conversion_when_it_closes_is_what_the_result_has():
    worker = Worker()
    worker.partition.output = lambda closing: (closing.key, closing.how)

    result = worker.take(make_copy("crm", 1_000))

    assert result.closed == [(keys.key(make_copy("crm", 0)), "complete")]


def test_records_with_keys_of_other_rows_are_not_read_as_conversions():
    worker = Worker(seen={dedup.MEMORY: b'{"since":0}', ALIAS + b"a\x1fshop\x1fpage_view": b'{"=":"1","t":1}'})
    alias = make_copy("pixel", 1_000, event_id="\x1ea", event_name="page_view")

    result = worker.take(Record(0, dedup.MEMORY, b"{}", 1_000), alias)

    assert result.unreadable == [0, 1]
    assert (result.closed, result.seen) == ([], {})


def test_routes_of_what_is_queued_take_no_room_in_the_row():
    worker = Worker()

    worker.take(make_copy("crm", 1_000))

    assert "r" not in worker.row(make_copy("crm", 0))


@pytest.mark.parametrize(
    ("origin", "where"),
    [({"topic": "orders", "partition": 3, "offset": 4711}, "orders/3/4711"), ({"request": "r-1"}, "r-1"), ({}, "")],
)
def test_rows_tell_where_each_copy_was_read(origin, where):
    worker = Worker()

    worker.take(make_copy("pixel", 1_000, origin=origin))

    assert worker.row(make_copy("pixel", 0))["c"][0][4] == where


def test_another_event_id_is_in_the_row_and_has_an_alias():
    worker = Worker()
    pixel = make_copy("pixel", 1_000, "browser-id", commerce={"transaction_id": "T1"})

    worker.take(make_copy("server", 1_000, "T1", commerce={"transaction_id": "T1"}), pixel)

    assert [copy[3] for copy in worker.row(pixel)["c"]] == ["", "browser-id"]
    aliases = {key: row for key, row in worker.seen.items() if key.startswith(ALIAS)}
    assert aliases == {b"\x1ebrowser-id\x1fshop\x1fpurchase": b'{"=":"T1","t":1000}'}
    assert worker.outputs[0].event["event_id"] == "browser-id"


def test_the_row_of_a_pair_is_small():
    worker = Worker()
    pixel = make_event(source="pixel", event_id="5f2c1c1e-9a53-4d0a-9f0a-2c1f3f9b7c55", origin={"request": "0" * 26})
    server = make_event(source="server", event_id="1001")

    worker.take(pixel, server, first=1_000_000_000)

    (closed,) = worker.outputs
    assert closed.how == "complete"
    assert sum(len(key) + len(row) for key, row in worker.seen.items()) <= 400


# confirmation


def confirmed(source: str, received: int, **parts: Any) -> Event:
    return make_copy(source, received, event_name="confirmed", **parts)


def states(closed: Closed) -> dict[str, tuple[str, str]]:
    return {name: (one.state, one.reason) for name, one in closed.routes.items()}


PARKED = {
    "ads": ("parked", "unconfirmed"),
    "stats": ("parked", "unconfirmed"),
    "strict": ("held_back", "consent_absent"),
}


def test_without_the_copy_that_confirms_nothing_is_sent_until_it_comes():
    worker = Worker()
    worker.take(confirmed("pixel", 1_000), 6_001, 20_000)
    assert worker.outputs == []

    worker.take(confirmed("server", 19_000))

    (closed,) = worker.outputs
    assert (closed.how, states(closed)["ads"]) == ("complete", ("queued", ""))


def test_what_nobody_confirms_in_time_is_parked_and_a_later_copy_still_sends_it():
    worker = Worker()
    worker.take(confirmed("pixel", 1_000), 21_000)
    assert worker.outputs == []
    worker.take(21_001)
    assert [(closed.how, states(closed)) for closed in worker.outputs] == [("unconfirmed", PARKED)]
    assert worker.row(worker.outputs[0].event)["s"] == "unconfirmed"

    worker.take(confirmed("server", 50_000))

    assert states(worker.outputs[1])["ads"] == ("queued", "")
    assert worker.outputs[1].event == merge.merge([confirmed("pixel", 1_000), confirmed("server", 50_000)])
    assert worker.row(worker.outputs[1].event)["s"] == "complete"


def test_what_was_parked_is_given_up_at_its_horizon():
    worker = Worker()

    worker.take(confirmed("pixel", 1_000), 21_001, 61_000)
    assert worker.partition.waiting == 1
    worker.take(61_001)

    assert worker.held == {}
    assert worker.flags == [("confirmed", "unconfirmed")]


@pytest.mark.parametrize("source", ["server", "crm", "offline"])
def test_a_back_end_confirms_itself(source):
    worker = Worker()

    worker.take(confirmed(source, 1_000), 6_001)

    assert [states(closed)["ads"] for closed in worker.outputs] == [("queued", "")]


def test_a_pixel_with_a_made_up_id_that_must_be_confirmed_is_parked_at_once():
    worker = Worker()

    worker.take(confirmed("pixel", 1_000, pairs=False))

    assert [states(closed) for closed in worker.outputs] == [PARKED]


# late copies that change something


def test_a_late_copy_revises_what_can_be_revised():
    worker = Worker()
    pixel, server = make_copy("pixel", 1_000, event_name="updated"), make_copy("server", 9_000, event_name="updated")
    worker.take(pixel, 6_001)

    worker.take(server)

    first, second = worker.outputs
    assert "revision" not in first.event
    assert (second.how, list(second.routes), second.event["revision"]) == ("updated", ["ads"], 1)
    assert second.event == merge.merge([pixel, server]) | {"revision": 1}
    assert worker.row(first.event)["u"] == 1


def test_a_late_copy_that_says_nothing_new_revises_nothing():
    worker = Worker()
    pixel = make_copy("pixel", 1_000, event_name="updated")
    worker.take(pixel, 6_001)

    worker.take(pixel | {"received": 2_000}, pixel | {"received": 9_000})

    assert len(worker.outputs) == 1
    assert worker.duplicates == [("updated", "late")] * 2


def test_a_late_copy_past_the_deadline_but_ahead_of_the_clock_revises_after_closing():
    worker = Worker()
    worker.take(*(make_copy(source, at, event_name="updated") for source, at in (("pixel", 1_000), ("server", 9_000))))
    assert worker.outputs == []

    worker.take(9_500)

    assert [(one.how, list(one.routes)) for one in worker.outputs] == [
        ("hold_ended", ["ads", "strict", "stats"]),
        ("updated", ["ads"]),
    ]


def test_by_default_a_late_copy_revises_nothing():
    worker = Worker()
    worker.take(make_copy("pixel", 1_000), 11_001)

    worker.take(make_copy("server", 20_000))

    assert len(worker.outputs) == 1


def test_who_was_held_back_for_want_of_consent_gets_the_event_when_a_late_copy_brings_it():
    worker = Worker()
    worker.take(make_copy("pixel", 1_000, event_name="sign_up"), 6_001)
    assert states(worker.outputs[0])["strict"] == ("held_back", "consent_absent")

    worker.take(make_copy("pixel", 9_000, event_name="sign_up", consent={"ad_storage": "granted"}))
    worker.take(make_copy("server", 9_500, event_name="sign_up"))

    first, second = worker.outputs
    assert {name: one.state for name, one in second.routes.items()} == {"strict": "queued"}
    assert "revision" not in second.event
    assert "r" not in worker.row(first.event)


def test_a_late_denial_is_remembered_against_a_later_grant():
    worker = Worker()
    worker.take(make_copy("pixel", 1_000, event_name="sign_up"), 6_001)

    for answer in ("denied", "granted"):
        worker.take(make_copy("pixel", 9_000, event_name="sign_up", consent={"ad_storage": answer}))

    assert len(worker.outputs) == 1


# late copies that take something away


def granting(source: str, received: int, answer: str = "granted", name: str = "purchase", **more: Any) -> Event:
    return make_copy(source, received, event_name=name, consent={"ad_storage": answer, **more})


def test_what_a_late_copy_denies_is_in_the_row_and_no_later_grant_takes_it_out():
    worker = Worker()
    worker.take(granting("pixel", 1_000), granting("server", 1_000))

    denial = worker.take(granting("pixel", 20_000, "denied", ad_user_data="granted", region="DE"))
    grant = worker.take(granting("pixel", 21_000), granting("server", 22_000))

    assert denial.denied == [keys.key(granting("pixel", 0))]
    assert denial.closed == grant.closed == []
    assert grant.denied == []
    assert dedup.denied_later(worker.seen[keys.key(granting("pixel", 0))]) == {"ad_storage": "denied"}
    assert worker.flags == [("purchase", "denied_later")]


@pytest.mark.parametrize(
    ("first", "late"),
    [
        ({"ad_storage": "granted"}, {"ad_storage": "granted", "gpc": False}),
        ({"ad_storage": "granted"}, {"ad_storage": "granted", "ad_user_data": "granted"}),
        ({"ad_storage": "granted"}, None),
        ({"ad_storage": "denied"}, {"ad_storage": "denied", "gpc": True}),  # nobody gets it who minds
        ({"tcf": "x", "ad_storage": "denied"}, {"ad_storage": "denied", "tcf": "x"}),
    ],
)
@pytest.mark.parametrize("name", ["purchase", "page_view"])
def test_late_copies_that_deny_nothing_or_only_what_was_denied_leave_nothing(name, first, late):
    worker = Worker()
    worker.take(make_copy("pixel", 1_000, event_name=name, consent=first), 12_000)

    result = worker.take(make_copy("server", 20_000, event_name=name, **({"consent": late} if late else {})))

    assert result.duplicates == [(name, "late")]
    assert (result.denied, worker.flags) == ([], [])
    assert "d" not in worker.row(make_copy("pixel", 0, event_name=name))


def test_what_several_late_copies_deny_adds_up():
    worker = Worker()
    worker.take(granting("pixel", 1_000, name="page_view"))

    for copy in (
        granting("pixel", 2_000, "denied", "page_view", tcf="a"),
        granting("app", 3_000, "denied", "page_view", tcf="b"),
    ):
        worker.take(copy)

    assert worker.row(granting("pixel", 0, name="page_view"))["d"] == {"ad_storage": "denied", "tcf": "contradictory"}


@pytest.mark.parametrize("late", [1, merge.MAX_COPIES + 1])
def test_a_denial_past_the_deadline_that_comes_before_the_clock_counts(late):
    worker = Worker()
    copies = [granting("pixel", 12_000 + n, n=n) for n in range(late - 1)]

    worker.take(granting("pixel", 1_000), *copies, granting("server", 13_000, "denied"), 14_000)

    (closed,) = worker.outputs
    assert states(closed)["ads"] == ("queued", "")
    assert worker.row(closed.event)["d"] == {"ad_storage": "denied"}


def test_a_late_denial_of_somebody_else_takes_nothing_away():
    worker = Worker()
    worker.take(of("a", "pixel"), of("a", "server"))

    worker.take(of("b", "pixel", 20_000, consent={"ad_storage": "denied"}))

    assert all(dedup.denied_later(row) is None for row in worker.seen.values())


def test_a_denial_stays_while_its_conversion_may_wait_to_be_sent():
    worker = Worker()
    worker.take(granting("pixel", 1_000, name="generate_lead"), 5_000)
    worker.take(granting("pixel", 90_000, "denied", "generate_lead"))
    key = keys.key(granting("pixel", 0, name="generate_lead"))
    over = 100_000 + dedup.GRACE + 2_000

    assert not dedup.forgotten(rule, over, waits=over)(key, worker.seen[key])
    assert dedup.forgotten(rule, over, waits=over - 2_000)(key, worker.seen[key])

    worker.take(granting("pixel", 200_000, name="generate_lead"))  # beyond its horizon the key means something new
    assert dedup.denied_later(worker.seen[key]) == {"ad_storage": "denied"}


def test_after_an_erasure_a_denial_stays_and_says_nothing_of_the_person():
    worker = Worker()
    ada = of("a", "pixel"), of("a", "server")
    worker.take(*ada, of("a", "pixel", 20_000, consent={"ad_storage": "denied", "tcf": "a string"}))

    erase(worker, ada[0])

    assert worker.row(ada[0])["d"] == dict.fromkeys(SIGNALS, "denied")


@fast
@given(log=LOGS, seed=SEEDS, kills=st.sampled_from((0.0, 0.3)))
def test_who_was_denied_late_is_known_however_the_log_is_batched_and_whatever_is_killed(log, seed, kills):
    worker = play(log, Random(seed), kills=kills)
    rows = conversions(worker.seen)

    for key, lives in oracle(log)[1].items():
        copies = [copy for life in lives for _, copy in life.copies]
        late = [copy for life in lives for _, copy in life.copies if copy not in life.joined]
        denied = [copy for copy in late if copy.get("consent", {}).get("ad_storage") == "denied"]
        if "d" in rows[key]:
            assert rows[key]["d"] == {"ad_storage": "denied"}
            assert denied or kills
        elif denied and not kills and len(lives) == 1:
            assert "ads" in rows[key]["r"], copies


#: As many copies past the deadline as wait for the closing at most, each of which denies what the merge denies, too.
CROWDED = log_of(
    granting("pixel", 1_000, "denied"),
    *(granting("pixel", 12_000 + n, "denied") for n in range(merge.MAX_COPIES)),
    END,
)


@fast
@given(log=HONEST, seed=SEEDS)
@example(log=CROWDED, seed=14)
def test_no_kill_swallows_a_late_denial_or_makes_one(log, seed):
    usual, killed = conversions(play(log, Random(seed)).seen), conversions(play(log, Random(seed), kills=0.4).seen)

    assert {key: row.get("d") for key, row in usual.items()} == {key: row.get("d") for key, row in killed.items()}


def test_copies_past_the_deadline_that_are_read_again_are_not_taken_for_more():
    worker = Worker()
    worker.take(*CROWDED[:-1])
    before = dict(worker.seen), dict(worker.held)

    worker.restart()
    worker.take(*CROWDED[:-1])
    assert (worker.seen, worker.held) == before
    worker.take(CROWDED[-1])

    (row,) = conversions(worker.seen).values()
    assert "d" not in row, "nobody denied more than the merge did"


# what cannot be proved to be the first


def test_a_first_copy_older_than_its_horizon_is_merged_and_parked():
    worker = Worker()
    old = [make_copy(source, 1_000, event_name="sign_up") for source in ("pixel", "server")]

    worker.take(*log_of(*old, appended=61_001))

    (closed,) = worker.outputs
    assert (closed.how, states(closed)["ads"]) == ("complete", ("parked", "beyond_horizon"))
    assert closed.event == merge.merge(old)
    assert worker.flags == [("sign_up", "beyond_horizon")]
    worker.take(*log_of(*old, appended=61_002, first=2))
    assert len(worker.outputs) == 1


def test_a_first_copy_of_before_our_memory_is_parked():
    worker = Worker()
    worker.partition.since = 5_000

    worker.take(make_copy("crm", 4_999, "a"), make_copy("crm", 5_000, "b"))

    assert [states(closed)["ads"] for closed in worker.outputs] == [("parked", "before_memory"), ("queued", "")]


@pytest.mark.parametrize("event_name", ["page_view", "purchase"])
def test_a_backfill_is_sent_however_old(event_name):
    worker = Worker()
    worker.partition.since = END
    copy = make_copy("crm", 1_000, event_name=event_name, labels=["backfill"])

    worker.take(*log_of(copy, appended=100 * DAY * 1000))

    assert states(worker.outputs[0])["ads"] == ("queued", "")


# several conversions under one id


def of(person: str, source: str, received: int = 1_000, **parts: Any) -> Event:
    return make_copy(source, received, user={"email": {"plain": person * 64}}, **parts)


def test_different_people_under_one_id_are_deliveries_of_their_own_flagged_and_known():
    worker = Worker()

    worker.take(of("b", "pixel"), of("a", "pixel"), of("a", "server"))
    assert worker.outputs == []  # not complete: b has a pixel only
    worker.take(of("b", "server"))

    first, second = worker.outputs
    assert {one.event["user"]["email"]["plain"][0] for one in (first, second)} == {"a", "b"}
    assert [sorted(copy["source"] for copy in one.copies) for one in (first, second)] == [["pixel", "server"]] * 2
    assert first.event["event_id"] == "1"
    assert second.event["event_id"] == f"1.{second.event['apart']}"
    assert [one.event["labels"] for one in (first, second)] == [["several_people"]] * 2
    assert first.key == keys.key(of("a", "pixel"))
    assert second.key == keys.key(second.event) != first.key
    assert worker.row(first.event)["g"] == 2
    assert worker.row(second.event)["s"] == "complete"
    assert worker.flags == [("purchase", "several_people")] * 2


def test_somebody_else_who_comes_after_closing_gets_a_conversion_of_his_own():
    worker = Worker()
    worker.take(of("a", "pixel"), of("a", "server"))

    worker.take(of("b", "pixel", 5_000), of("a", "pixel", 6_000))
    worker.take(of("b", "server", 7_000))

    first, second = worker.outputs
    assert [one.how for one in worker.outputs] == ["complete", "complete"]
    assert second.event["user"]["email"]["plain"][0] == "b"
    assert second.event["event_id"] == f"1.{second.event['apart']}"
    assert worker.row(first.event)["g"] == 2
    assert worker.row(first.event)["n"] == 5
    assert worker.flags == [("purchase", "several_people")]


@given(st.permutations([of("a", "pixel"), of("a", "server"), of("b", "pixel"), of("b", "server")]))
def test_everybody_gets_one_delivery_in_any_order(copies):
    worker = Worker()

    worker.take(*copies, END)

    people = [one.event["user"]["email"]["plain"][0] for one in worker.outputs]
    assert sorted(people) == ["a", "b"]
    assert len({one.event["event_id"] for one in worker.outputs}) == 2
    assert [one.how for one in worker.outputs] == ["complete", "complete"]


def test_different_people_can_be_merged_if_one_wants():
    worker = Worker(
        partition=Partition(lambda _: EventRule(different_people="merge", expect=["pixel", "server"]), route)
    )

    worker.take(of("a", "pixel"), of("b", "server"), of("c", "server"))

    assert [one.event["user"]["email"]["plain"][0] for one in worker.outputs] == ["b"]


def crowd(n: int, source: str = "pixel", first: int = 0) -> list[Event]:
    return [
        make_copy(source, 1_000 + i, "static", "page_view", ids={"ga_client_id": f"{i}"}, origin={"request": f"r{i}"})
        for i in range(first, n)
    ]


def test_an_id_that_everybody_has_stops_being_a_key():
    worker = Worker()

    worker.take(*crowd(100))

    hot = 2 + dedup.HOT  # people are counted from the third copy on
    assert len(worker.outputs) == 1 + 100 - hot
    assert len({one.event["event_id"] for one in worker.outputs}) == len(worker.outputs)
    assert all(one.event["labels"] == ["hot_id"] for one in worker.outputs[1:])
    assert worker.flags == [("page_view", "hot_id")] * (100 - hot)


def test_what_stood_alone_under_a_hot_id_is_still_sent_once():
    worker = Worker()
    worker.take(*crowd(100))
    sent = len(worker.outputs)

    worker.take(*crowd(100)[-50:])  # from a topic read again: other offsets
    worker.take(*crowd(100)[:5])

    assert len(worker.outputs) == sent


def test_one_person_who_repeats_makes_no_id_hot():
    worker = Worker()

    worker.take(*(of("a", "pixel", 1_000 + n, custom={"n": n}) for n in range(100)), make_copy("server", 1_000))

    assert [one.how for one in worker.outputs] == ["complete"]
    assert worker.flags == []


# the hold and the log's own time


def test_of_a_source_that_the_clock_has_left_out_the_second_copy_is_waited_for_after_a_restart_too():
    worker = Worker()
    worker.take(make_copy("pixel", 0, "other"), 400_000)
    worker.restart()  # and the clock is unknown

    worker.take(*log_of(make_copy("pixel", 1_000), appended=400_500, first=2))
    worker.take(401_000, 410_499)
    assert [one.event["event_id"] for one in worker.outputs] == ["other"]
    worker.take(*log_of(make_copy("server", 1_500), appended=410_499, first=10))

    assert worker.outputs[-1].how == "complete"


def test_a_broker_whose_clock_goes_back_holds_up_nothing():
    worker = Worker()
    worker.take(*log_of(make_copy("pixel", 1_000), 20_000, appended=10_000_000))
    assert worker.outputs == []

    worker.take(*log_of(20_001, appended=5_000, first=2))

    assert [one.how for one in worker.outputs] == ["hold_ended"]


# forgetting


def test_rows_are_forgotten_a_day_after_their_horizon_and_open_ones_never():
    worker = Worker()
    worker.take(
        *(make_copy("crm", 0, "x", name, commerce={"transaction_id": "T"}) for name in ("purchase", "generate_lead")),
        make_copy("pixel", 0, "open", "generate_lead"),
    )

    def left(now: int) -> int:
        gone = dedup.forgotten(rule, now)
        return sum(not gone(key, row) for key, row in worker.seen.items())

    assert len(worker.seen) == 4  # and an alias
    assert [left(at * 1000) for at in (100 + DAY, 101 + DAY, 31 * DAY, 31 * DAY + 1)] == [4, 3, 3, 1]
    assert not dedup.forgotten(rule, END * DAY)(dedup.MEMORY, b'{"since":0}')


def test_rows_can_be_kept_for_longer_than_their_horizon_to_be_looked_up():
    worker = Worker()
    worker.take(make_copy("server", 0, event_name="page_view"), make_copy("crm", 0, "x"))

    def left(now: int) -> int:
        gone = dedup.forgotten(rule, now, 7 * DAY * 1000)
        return sum(not gone(key, row) for key, row in worker.seen.items())

    assert [left(at * 1000) for at in (3 * DAY, 7 * DAY, 7 * DAY + 1, 31 * DAY, 31 * DAY + 1)] == [2, 2, 1, 1, 0]


# where its conversion stands


def test_a_row_says_where_its_conversion_stands_and_where_what_came_after_it():
    worker = Worker()
    result = worker.take(make_copy("crm", 0, event_name="updated"), make_copy("crm", 0, "other", "updated"))
    dedup.note_places(result, [7, 8])
    worker.write("seen", result.seen)
    assert [worker.row(make_copy("crm", 0, one, "updated"))["x"] for one in ("1", "other")] == [[7], [8]]

    for n in range(dedup.MOST_PLACES):
        result = worker.take(make_copy("server", n + 1, event_name="updated", custom={"n": n}))
        dedup.note_places(result, [20 + n])
        worker.write("seen", result.seen)
    assert worker.row(make_copy("crm", 0, event_name="updated"))["x"] == [20, 21, 22, 23]
    assert worker.row(make_copy("crm", 0, event_name="updated"))["n"] == 5


def test_a_place_that_kafka_does_not_tell_is_not_noted_nor_that_of_somebody_erased():
    worker = Worker()
    result = worker.take(make_copy("crm", 0))
    before = dict(result.seen)
    dedup.note_places(result, [-1])
    dedup.note_places(result, [])
    assert result.seen == before

    dedup.note_places(result, [3])
    worker.write("seen", result.seen)
    worker.write("seen", erase(worker, make_copy("crm", 0)).seen)
    assert "x" not in worker.row(make_copy("crm", 0))


# too much of it


def test_a_denial_in_a_copy_that_no_longer_fits_holds_the_conversion_back():
    def states(denies: int) -> list[str]:
        worker = Worker()
        copies = [
            make_copy("pixel", 1_000, custom={"n": n}, consent={"ad_storage": "denied" if n == denies else "granted"})
            for n in range(40)
        ]
        worker.take(*copies[:10])
        worker.take(*copies[10:])
        worker.take(make_copy("server", 1_000, consent={"ad_storage": "granted"}))
        return [closed.routes["ads"].state for closed in worker.outputs]

    assert [states(n) for n in range(40)] == [["held_back"]] * 40


def test_the_server_joins_however_many_pixels_there_are():
    worker = Worker()

    worker.take(*(make_copy("pixel", 1_000, custom={"n": n}) for n in range(40)), make_copy("server", 1_000))

    assert [closed.how for closed in worker.outputs] == ["complete"]


def test_rows_and_outputs_of_the_largest_copies_fit_into_a_record_of_kafka():
    worker = Worker()
    big = [
        make_copy(
            "pixel",
            received,
            custom={who: "x" * 32_000},
            consent={"tcf": who * 10_000, "gpp": who * 10_000, "categories": {f"{who}{i}": True for i in range(600)}},
        )
        for received in (1_000, 60_000)  # the second half comes after the deadline, and before the clock says so
        for who in "abcdefghijklmnopqrstuvwxyz"
    ]
    assert all(0.97 < len(orjson.dumps(copy)) / MAX_BYTES < 1 for copy in big)

    worker.take(*big)
    held = len(worker.held[keys.key(big[0])])
    worker.take(END)

    assert 0.9 * 16 * MAX_BYTES < held < 1_000_000
    assert len(worker.outputs[0].record) < 1_000_000


def test_the_record_of_a_conversion_tells_how_it_came_to_be():
    worker = Worker()
    pixel = make_copy("pixel", 1_000, origin={"request": "r"}, consent={"ad_storage": "denied"})

    worker.take(pixel, pixel, make_copy("server", 2_000))

    (closed,) = worker.outputs
    assert orjson.loads(closed.record) == {
        "v": 1,
        "event": closed.event,
        "closed": "complete",
        "copies": [
            {"source": "pixel", "received": 1_000, "event_id": "1", "origin": {"request": "r"}},
            {"source": "server", "received": 2_000, "event_id": "1", "origin": {}},
        ],
        "received": 3,
        "routes": {
            "ads": {"state": "held_back", "reason": "consent_denied", "basis": "x"},
            "stats": {"state": "queued"},
        },
    }


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (None, b"not json"),
        (None, b'{"clock": "soon"}'),
        (None, None),
        (b"k", b"not json"),
        (b"k", None),
        (b"k", b"[]"),
        (b"k", b'{"event_id": "x"}'),
        (b"other\x1fshop\x1fpurchase", None),
    ],
)
def test_what_somebody_else_wrote_into_the_topic_is_named_and_harms_nothing(key, value):
    good = make_copy("pixel", 1_000)
    records = [
        SimpleNamespace(key=key, value=value, offset=7, timestamp=1_000),
        SimpleNamespace(key=keys.key(good), value=orjson.dumps(good), offset=8, timestamp=1_000),
    ]

    result = Partition(rule, route).run(records, lambda k: [None] * len(k), lambda k: [None] * len(k))

    assert result.unreadable == [7]
    assert keys.key(good) in result.seen


# erasure


ADA, GRACE = ({"email": {"plain": letter * 64}} for letter in "ab")


def of_ada(event: Event) -> bool:
    return event.get("user") == ADA


def erase(worker: Worker, *wanted: Event) -> Result:
    """As a pass over the tables does it for these conversions."""
    result = worker.partition.erase(
        [keys.key(one) for one in wanted], of_ada, worker._reader("seen"), worker._reader("held")
    )
    worker.write("seen", result.seen)
    worker.write("held", result.held)
    return result


def test_a_conversion_that_waits_for_a_confirmation_closes_as_erased_and_leaves_nothing_of_the_person():
    worker, copy = Worker(), make_copy("pixel", 1_000, event_name="confirmed", user=ADA, origin={"request": "r"})
    worker.take(copy, 7_000)

    (closed,) = erase(worker, copy).closed

    assert (closed.key, closed.how, states(closed)["stats"]) == (keys.key(copy), "erased", ("erased", "erasure"))
    assert worker.held == {}
    assert worker.partition.waiting == 0
    assert worker.row(copy) == {
        "v": 1,
        "c": [["pixel", 1_000, 0, "", ""]],
        "n": 1,
        "o": 0,
        "s": "erased",
        "t": 7_000,
        "r": {"ads": ["erased", "erasure"], "strict": ["held_back", "consent_absent"], "stats": ["erased", "erasure"]},
    }


@pytest.mark.parametrize("name", ["confirmed", "sign_up", "updated"])
def test_after_an_erasure_a_copy_that_comes_late_counts_and_sends_nothing(name):
    worker, copy = Worker(), make_copy("pixel", 1_000, event_name=name, user=ADA)
    worker.take(copy, 30_000)
    erase(worker, copy)
    before = len(worker.outputs)

    late = make_copy("server", 31_000, event_name=name, user=ADA, consent={"ad_storage": "granted"})
    worker.take(late, 40_000)

    assert len(worker.outputs) == before
    assert worker.duplicates[-1] == (name, "late")
    assert worker.held == {}
    assert not worker.row(copy).keys() & {"w", "p", "f", "k"}


def test_a_delivered_conversion_is_not_closed_a_second_time_when_its_kept_copies_are_erased():
    worker, copy = Worker(), make_copy("pixel", 1_000, event_name="updated", user=ADA)
    worker.take(copy, 30_000)
    assert worker.row(copy)["s"] == "hold_ended"

    assert erase(worker, copy).closed == []

    assert worker.row(copy)["s"] == "hold_ended"
    assert worker.held == {}


def test_a_merge_that_is_under_way_closes_as_if_nobody_was_erased():
    worker, copy = Worker(), make_copy("pixel", 1_000, user=ADA)
    worker.take(copy)

    result = erase(worker, copy)

    assert (result.seen, result.held, result.closed) == ({}, {}, [])
    worker.take(make_copy("server", 2_000, user=ADA))
    assert [(closed.how, closed.event["user"]) for closed in worker.outputs] == [("complete", ADA)]


def test_of_several_people_under_one_id_only_the_copies_of_one_go():
    worker = Worker()
    hers, anothers = (
        make_copy("pixel", 1_000, event_name="confirmed", user=user, custom={"of": n})
        for n, user in enumerate((ADA, GRACE))
    )
    worker.take(hers, anothers, 7_000)

    assert erase(worker, hers).closed == []

    (row,) = worker.held.values()
    assert orjson.loads(row)["x"] == [anothers]


def test_a_copy_without_a_name_goes_with_the_person_it_would_be_merged_with():
    worker = Worker()
    nameless = make_copy("pixel", 1_000, event_name="confirmed")
    hers = make_copy("pixel", 1_001, event_name="confirmed", user=ADA)
    worker.take(nameless, hers, 7_000)

    assert len(erase(worker, hers).closed) == 1
    assert worker.held == {}


@fast
@given(LONG_LOGS, SEEDS)
def test_an_erasure_at_any_moment_and_through_any_kill_leaves_no_copy_of_the_person_that_waits(log, seed):
    random, worker = Random(seed), Worker()
    at = random.randint(0, len(log))
    worker.take(*log[:at])
    wanted = [key for key, row in worker.held.items() if b"a" * 64 in row]
    result = worker.partition.erase(wanted, of_ada, worker._reader("seen"), worker._reader("held"))
    worker.write("seen", result.seen)
    if random.random() < 0.5:  # a kill between the two writes
        worker.restart()
        if at:
            worker.take(log[at - 1])
        result = worker.partition.erase(wanted, of_ada, worker._reader("seen"), worker._reader("held"))
        worker.write("seen", result.seen)
    worker.write("held", result.held)

    for row in worker.held.values():
        hold = orjson.loads(row)
        assert "k" not in hold or not any(map(of_ada, hold["x"]))
    worker.take(*log[at:])  # and life goes on


# keys, and people who are forgotten


def keyed_worker() -> Worker:
    prints = Prints("a-key-of-some-length")
    return Worker(partition=Partition(rule, route, prints=prints.of_copies, secrets=prints.keys))


def test_with_a_key_a_row_says_of_the_person_nothing_that_is_known_without_it():
    worker, copy = keyed_worker(), make_copy("crm", 1_000, user=ADA)

    worker.take(copy)

    row = worker.row(copy)
    assert len(row["f"]) == 1
    assert "aaaa" not in orjson.dumps(row).decode()
    assert row["w"][0] == "k"


def test_with_a_key_a_late_copy_of_somebody_else_is_a_conversion_of_its_own_as_ever():
    plain, keyed = Worker(), keyed_worker()
    log = [make_copy(source, 1_000 + n, user=user) for n, (source, user) in enumerate((("crm", ADA), ("crm", GRACE)))]

    for worker in (plain, keyed):
        worker.take(*log)

    assert [closed.key for closed in keyed.outputs] == [closed.key for closed in plain.outputs]
    assert len(keyed.outputs) == 2


@fast
@given(LOGS, SEEDS)
def test_who_is_forgotten_changes_no_merge(log, seed):
    usual, known = play(log, Random(seed)), Forgotten()
    copies = [orjson.loads(record.value) for record in log if record.key is not None]
    for copy in Random(seed).sample(copies, len(copies) // 2):
        for one in erasure.read({"event_id": copy["event_id"]}).entries(END, ""):
            known.hear(*one.row()[:2], END)
    worker = Worker(partition=Partition(rule, lambda event: erasure.routes(route(event), known.of(event))))

    worker.take(*log)

    assert [(one.key, one.how, one.event) for one in worker.outputs] == [
        (one.key, one.how, one.event) for one in usual.outputs
    ]
    assert not any(
        one.state == "queued" for out in worker.outputs for one in out.routes.values() if known.of(out.event)
    )


# what a collector's disk kept while Kafka was away


@given(
    st.lists(st.tuples(st.integers(0, 60_000), st.integers(-9_000, 9_000)), min_size=1, max_size=8),
    st.randoms(use_true_random=False),
    st.booleans(),
)
def test_copies_that_come_from_a_collectors_disk_meet_as_if_they_had_come_in_time(pairs, random, clock_is_known):
    """They have the times of their receipt. The log's clock is far past those, and goes on while they come."""
    copies = []
    for n, (received, apart) in enumerate(pairs):
        copies += [make_copy("pixel", received, str(n)), make_copy("server", max(0, received + apart), str(n))]
    random.shuffle(copies)
    worker, now = Worker(), 100_000
    if clock_is_known:
        worker.take(now)
    for copy in copies:  # all of it within a window: as fast as a spool drains, by far
        now += 9_000 // len(copies)
        worker.take(log_of(copy, first=worker.next, appended=now)[0], now)
    worker.take(now + 30_000)

    assert sorted(one.event["event_id"] for one in worker.outputs) == sorted(str(n) for n in range(len(pairs)))
    assert all({copy["source"] for copy in one.copies} == {"pixel", "server"} for one in worker.outputs)
    assert worker.duplicates == []
    assert worker.flags == []


def test_a_copy_from_a_collectors_disk_joins_the_hold_that_another_opened_meanwhile():
    worker = Worker()
    worker.take(100_000, make_copy("server", 100_500), 104_000)
    late = log_of(make_copy("pixel", 100_200), first=worker.next, appended=109_000)[0]

    worker.take(late)

    (closed,) = worker.outputs
    assert {copy["source"] for copy in closed.copies} == {"pixel", "server"}


def test_a_copy_that_was_on_a_disk_for_days_is_still_the_first_within_its_horizon():
    worker = Worker()
    worker.take(log_of(make_copy("pixel", 0, event_name="purchase"), appended=3 * DAY * 1000)[0], 3 * DAY * 1000)
    worker.take(3 * DAY * 1000 + 30_000)

    assert [one.how for one in worker.outputs] == ["hold_ended"]
    assert worker.flags == []


# what of this is remembered


@fast
@given(st.one_of(LOGS, LONG_LOGS), SEEDS)
def test_deciding_once_for_events_that_are_alike_changes_nothing(log, seed):
    alike = lambda event: (event.event_name, str(event.consent))  # noqa: E731
    worker = Worker(partition=Partition(rule, route, updating=frozenset({"ads"}), denies=denies, alike=alike))
    usual = play(log, Random(seed))

    worker.take(*log)

    assert worker.outputs == usual.outputs
    assert worker.seen == usual.seen


def test_decisions_are_forgotten_when_there_are_too_many():
    partition = Partition(rule, route, alike=lambda event: event.event_name)

    for n in range(dedup.MOST_KINDS + 1):
        partition.decide(from_event(make_copy("crm", 0, event_name=f"name{n}")))

    assert len(partition.decisions) == 1


# in one go


def test_a_name_that_expects_nobody_is_kept_for_what_late_copies_change_if_its_rule_says_so():
    updated = EventRule(late="update")
    worker = Worker(partition=Partition(lambda _name: updated, route, updating=frozenset({"ads"})))

    worker.take(make_copy("pixel", 1_000, event_name="page_view"))
    worker.take(make_copy("server", 2_000, event_name="page_view"))

    assert [(one.how, [*one.routes]) for one in worker.outputs] == [("no_hold", ["ads", "stats"]), ("updated", ["ads"])]


def test_rows_of_who_was_set_apart_are_written_before_the_row_that_says_closed():
    worker = Worker()
    worker.take(make_copy("pixel", 1_000, event_name="sign_up", user=ADA))

    closing = worker.take(make_copy("server", 1_000, event_name="sign_up", user=GRACE), 9_000)
    late = worker.take(
        make_copy("app", 9_500, event_name="sign_up", user={"email": {"plain": "c" * 64}}, custom={"n": 1})
    )

    for result in (closing, late):
        first, last = result.seen
        assert keys.apart(first)
        assert not keys.apart(last)
