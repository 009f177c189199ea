"""State: bytes per seen key on disk and in memory, how long a worker with an empty disk needs to recover them from the changelog,
and what an event costs with few and with many keys seen.

python bench/state.py [--keys 1000000] [--most 5000000] [--quick] [--json] [--write]     its own embedded Kafka

Rows are those of a purchase's two copies. Recovered, the worker is stopped, and its disk looked at. Then the sizes take turns, five
times: the worker is started again with what is there, and gets events, of which four of five are of new keys, and one is a late
copy of a key that it has, from anywhere among them. Their cost is the worker's processor time, without the first ones after a
start: the median of its starts, as one differs from the next. Bytes in memory: how much larger the worker is with most keys than
with fewest, for each key more.
"""

import argparse
import asyncio
import os
import random
import statistics
import sys
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from itertools import cycle, islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import race
import report
from aiokafka import TopicPartition

from app import dedup, keys, records, settings, topics
from app.events import Origin
from app.kafka import Kafka
from app.normalize import Inlet, Normalized, normalize

GOALS = {"bytes_per_key": 200, "restore_s": 60}
GROWTH = 1.3  # × the cost of an event with the fewest keys
FEWEST = 10_000  # keys
LATE = 5  # every so manieth event is a copy of a key that is there
STARTS = 5  # of the worker, with each number of keys
BEFORE = 20_000  # events after a start that are not measured
DAY = 86_400_000  # milliseconds
THEN = 1_795_420_800_000  # stands in the templates for a time

CONFIG = """
[kafka]
brokers = "{brokers}"
prefix = "{prefix}"
partitions = 4
replication = 1

[sites.shop]
write_key = "wk_bench_bench"
secret_key = {{ env = "BENCH_SECRET" }}

[events.purchase]
expect = []

[worker]
data_dir = "{folder}/state"
"""

DRAFT = {"event_name": "purchase", "event_id": "EVENT", "commerce": {"transaction_id": "ORDER"}}
ORIGIN: Origin = {"topic": "shop.orders", "partition": 2, "offset": 4_711_000}


def ids(count: int, seed: int = 1) -> Iterator[tuple[str, str]]:
    """(order number, event id), at random: they do not compress."""
    rnd = random.Random(seed)
    for _ in range(count):
        yield f"{rnd.getrandbits(40):010d}", str(uuid.UUID(int=rnd.getrandbits(128)))


def copy(source: Any) -> race.Record:
    """(0, key, value) of a purchase's copy, with words where its ids and times are."""
    (found,) = normalize(DRAFT, Inlet("bench", "capistream", "shop", source), THEN, ORIGIN)
    assert isinstance(found, Normalized)
    return 0, keys.key(found.event), orjson.dumps(found.event)


def rows(count: int) -> Iterator[tuple[str, bytes, bytes]]:
    """(id, key, row) as dedup writes them for purchases of two copies, keyed by order number: with the alias row that leads from
    the event id to the order. They were received in the last three days.
    """
    partition = dedup.Partition(settings.Settings().rule, lambda _: {})
    copies = []
    for offset, source in enumerate(("pixel", "server")):
        _, key, value = copy(source)
        copies.append(SimpleNamespace(key=key, value=value, offset=1_000_000 + offset, timestamp=THEN))
    result = partition.run(copies, lambda k: [None] * len(k), lambda k: [None] * len(k))
    dedup.note_places(result, [2_000_000])
    begin, step = int(time.time() * 1000) - 3 * DAY, min(37, 2 * DAY / count)
    for n, (order_, event_) in enumerate(ids(count)):
        order, event = order_.encode(), event_.encode()
        received, place = b"%d" % (begin + step * n), b"%d" % (1_000_000 + 2 * n)
        for key, row in result.seen.items():
            assert row
            filled = row.replace(b"EVENT", event).replace(b"ORDER", order)
            filled = filled.replace(b"%d" % THEN, received).replace(b"1000000", place)
            filled = filled.replace(b"2000000", b"%d" % (2_000_000 + n))
            yield order_, key.replace(b"EVENT", event).replace(b"ORDER", order), filled


def events(count: int, of: int, partitions: int) -> list[race.Record]:
    """So many for a worker that has `of` keys."""
    late = count // LATE
    spread = islice(ids(of), 0, None, max(1, of // late))
    chosen = [*ids(count - late, seed=2), *islice(cycle(spread), late)]
    random.Random(3).shuffle(chosen)
    _, key, value = copy("pixel")
    now = b"%d" % int(time.time() * 1000)
    return [
        (
            keys.partition(order, partitions),
            key.replace(b"ORDER", order.encode()),
            value.replace(b"EVENT", event.encode()).replace(b"ORDER", order.encode()).replace(b"%d" % THEN, now),
        )
        for order, event in chosen
    ]


async def fill(config: settings.Settings, count: int) -> int:
    """The changelog of `seen`. Returns the bytes of keys and values."""
    await topics.apply(config)
    n, size = config.kafka.partitions, 0

    def records() -> Iterator[race.Record]:
        nonlocal size
        for order, key, row in rows(count):
            size += len(key) + len(row)
            yield keys.partition(order, n), key, row

    await race.fill(config.brokers, topics.names(config).changelog("seen"), records())
    return size


async def cost(config: settings.Settings, pid: int, given: Iterable[race.Record]) -> float:
    """Seconds of the worker's processor until it has finished these events."""
    before, topic = race.cpu(pid), topics.names(config).events
    await race.fill(config.brokers, topic, given)
    tps = [TopicPartition(topic, p) for p in range(config.kafka.partitions)]
    async with records.reader(config) as consumer:
        ends = await consumer.end_offsets(tps)
        while True:
            done = await records.committed(config)
            if all(done.get(tp, 0) >= end for tp, end in ends.items()):
                return race.cpu(pid) - before
            await asyncio.sleep(0.1)


class State:
    """With so many keys; `each`: events of a start that are measured."""

    def __init__(self, kafka: Kafka, folder: Path, count: int, each: int) -> None:
        folder.mkdir()
        self.count, self.each, self._folder = count, each, folder
        self._path = folder / "capistream.toml"
        self._path.write_text(CONFIG.format(brokers=kafka.brokers, prefix=f"bench{count}", folder=folder))
        self._config = settings.load(self._path)
        self._given = iter(events(STARTS * (BEFORE + each), count, self._config.kafka.partitions))
        self._costs: list[float] = []
        self._mib: list[float] = []

    def recover(self) -> None:
        print(f"filling the changelog with {self.count:,} keys", file=sys.stderr)
        self._size = asyncio.run(fill(self._config, self.count))
        print("starting a worker with an empty disk", file=sys.stderr)
        begun = time.monotonic()
        with race.running(self._path, self._folder / "worker.log"):
            self._restore = time.monotonic() - begun
        self._disk = sum(f.stat().st_size for f in (self._folder / "state").rglob("*seen*/**/*") if f.is_file())

    def work(self) -> None:
        """One start."""
        with race.running(self._path, self._folder / "worker.log") as (worker, _):
            pid = worker.pid
            asyncio.run(cost(self._config, pid, islice(self._given, BEFORE)))
            spent = asyncio.run(cost(self._config, pid, islice(self._given, self.each)))
            self._costs.append(1e6 * spent / self.each)
            self._mib.append(race.rss(pid))

    def result(self) -> dict[str, float]:
        # one key is one conversion: its row and its alias row
        count = self.count
        return {"keys": count, "restore_s": round(self._restore, 1), "bytes_per_key": round(self._disk / count, 1),
                "row_bytes": round(self._size / count, 1), "rows_per_s": round(count / self._restore),
                "us_per_event": round(statistics.median(self._costs), 1), "mib": statistics.median(self._mib)}  # fmt: skip


def told(results: Sequence[dict[str, float]], keys_: int) -> str:
    """`keys_`: with so many, restoring is told."""
    result = next(one for one in results if one["keys"] == keys_)
    rows = []
    for name, what in {"bytes_per_key": "bytes on disk per key", "restore_s": "restored, s"}.items():
        rows.append([what, f"{result[name]:,}", report.goal(result[name] <= GOALS[name], f"≤ {GOALS[name]}")])
    rows.append(["keys restored a second", f"{result['rows_per_s']:,}", ""])
    rows.append(["bytes in memory per key", f"{in_memory(results):,.1f}", ""])
    return f"{report.table([f'{keys_:,} keys', 'measured', 'goal'], rows)}\n\n{_growth(results)}"


def _growth(results: Sequence[dict[str, float]]) -> str:
    rows = []
    for one in results:
        ratio = one["us_per_event"] / results[0]["us_per_event"]
        said = "" if one is results[0] else report.goal(ratio <= GROWTH, f"≤ {GROWTH}")
        rows.append([f"{one['keys']:,}", f"{one['us_per_event']:,}", f"{ratio:.2f}", f"{one['mib']:,}", said])
    return report.table(["keys seen", "CPU µs an event", "×", "worker, MiB", "goal"], rows)


def in_memory(results: Sequence[dict[str, float]]) -> float:
    """Bytes for each key more."""
    few, many = results[0], results[-1]
    return (many["mib"] - few["mib"]) * (1 << 20) / (many["keys"] - few["keys"])


def main() -> None:
    parser = report.parser(__doc__, "10,000 and 100,000 keys, short rounds")
    parser.add_argument("--keys", type=int, default=1_000_000, help="with which restoring is measured")
    parser.add_argument("--most", type=int, default=5_000_000, help="with which the cost of an event is")
    parser.add_argument("--each", type=int, default=60_000, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.quick:
        options.keys, options.most, options.each = 100_000, 100_000, 20_000
    os.environ["BENCH_SECRET"] = uuid.uuid4().hex
    load = report.load()
    with race.kafka() as (kafka, folder):
        counts = sorted({FEWEST, options.keys, options.most})
        states = [State(kafka, folder / str(count), count, options.each) for count in counts]
        for state in states:
            state.recover()
        for _ in range(STARTS):
            for state in states:
                state.work()
    results = [state.result() for state in states]
    result = next(one for one in results if one["keys"] == options.keys)
    whole = {**result, "bytes_in_memory_per_key": round(in_memory(results), 1), "growth": results}
    report.finish(options, told(results, options.keys), whole, load)


if __name__ == "__main__":
    main()
