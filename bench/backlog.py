"""Backlog: events wait in a source topic while no worker runs; then workers start and drain it. How fast, in how much memory, and
is everything there, in order?

python bench/backlog.py [--events 1000000] [--workers 1] [--quick] [--off] [--json] [--write]     its own embedded Kafka

The events are purchases, each as a pixel's and a server's copy that stand far apart, and some quotes, which change once
(`late = "update"`). They go all the way: normalise, merge, route, and to a webhook that a process beside the workers takes. With
`--off` they end in capistream.conversions. Exits 0 only when nothing is missing or there twice, no worker took more memory than
caches and buffers explain, and the order of each key was kept: its copies in capistream.events, its revisions in
capistream.conversions and at the webhook.
"""

import argparse
import asyncio
import os
import secrets
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import orjson
import race
import report
from aiohttp import web
from aiokafka import AIOKafkaConsumer, TopicPartition

from app import keys, processes, records, settings, topics

APART = 2_000  # orders between the two copies of one
QUOTED = 10  # every so manieth order has a quote, too
PROGRAM = 150  # MiB of a worker that has nothing to do
#: MiB of cache and buffers of a database, of which there is one for each table and partition: they fill slowly.
DATABASE = 24
BATCHES = 128  # MiB of records that are worked on: MAX_BYTES in app/lossless/consumer.py

CONFIG = """
[kafka]
brokers = "{brokers}"
prefix = "bench"
partitions = 4
replication = 1

[sites.shop]
write_key = "wk_bench_bench"
secret_key = {{ env = "BENCH_SECRET" }}

[sources.orders]
topic = "shop.orders"
site = "shop"
start = "earliest"

[events.quote]
late = "update"

[destinations.hook]
sink = "webhook"
mode = "{mode}"
endpoint = "http://127.0.0.1:{platform}/"
secret = {{ env = "BENCH_SECRET" }}
custom_events = true
browser_tag = "none"
most_events = 500

[worker]
data_dir = "{folder}/state"
"""

Key = tuple[str, str]  # event name, order


# The events


def plan(orders: int) -> Iterator[tuple[Key, int]]:
    """(key, which of its copies), in the order of the topic."""
    for n in range(orders + APART):
        if n < orders:
            yield ("purchase", race.order(n)), 0
            if n % QUOTED == 0:
                yield ("quote", race.order(n)), 0
                yield ("quote", race.order(n)), 1
        if n >= APART:
            yield ("purchase", race.order(n - APART)), 1


def body(key: Key, number: int) -> bytes:
    name, order = key
    pixel = name == "purchase" and number == 0
    said: dict[str, Any] = {
        "event_name": name,
        "event_id": f"{name}-{order}",
        "source": "pixel" if pixel else "server",
        "time": int(time.time() * 1000),
        "ids": {"ga_client_id": f"1{order}.1795420000"},
        "commerce": {"value": 10 + number, "currency": "EUR"},
        "consent": race.GRANTED,
        "custom": {"number": number},
    }
    if name == "purchase":
        said["commerce"]["transaction_id"] = order
    if pixel:
        said["context"] = {"url": f"https://shop.example/{order}", "ip": "203.0.113.9", "user_agent": "Mozilla/5.0"}
    else:
        said["user"] = {"email": f"{order}@example.com", "phone": f"+4930{order}", "first_name": "Ada"}
    return orjson.dumps(said)


async def fill(config: settings.Settings, orders: int) -> int:
    """The source topic, by order, as a shop's producer would; returns how many events."""
    source, n = config.sources["orders"].topic, config.kafka.partitions
    await race.create(config.brokers, [source], n)
    await topics.apply(config)
    records = ((keys.partition(key[1], n), key[1].encode(), body(key, number)) for key, number in plan(orders))
    return await race.fill(config.brokers, source, records)


# The platform: a process of its own that takes everything at once


def platform(port: int) -> None:
    got: dict[str, list[int]] = defaultdict(list)

    async def take(request: web.Request) -> web.Response:
        for event in orjson.loads(await request.read())["events"]:
            got[f"{event['event_name']} {event['event_id']}"].append(event.get("revision", 0))
        return web.Response(status=204)

    async def told(_: web.Request) -> web.Response:
        return web.Response(body=orjson.dumps(got))

    site = web.Application(client_max_size=16 << 20)
    site.add_routes([web.post("/", take), web.get("/", told)])
    web.run_app(site, host="127.0.0.1", port=port, print=None, access_log=None)


# The measurement


@dataclass
class Worker:
    process: Any
    sizes: list[int] = field(default_factory=list)  # MiB, one a look
    cpu: float = 0.0  # seconds of processor so far

    def look(self) -> None:
        if self.process.poll() is not None:
            raise SystemExit("a worker ended")
        self.sizes.append(race.rss(self.process.pid))
        self.cpu = race.cpu(self.process.pid)


@dataclass(frozen=True)
class Look:
    at: float  # seconds since the workers were started
    read: int  # source records that are finished
    left: int  # records of all topics that are not


async def drain(config: settings.Settings, workers: Sequence[Worker]) -> list[Look]:
    """One look a second, until nothing is left."""
    begun, looks = time.monotonic(), list[Look]()
    source, name = config.sources["orders"].topic, topics.names(config)
    ours = [source, name.events, *map(name.to, config.destinations)]
    tps = [TopicPartition(topic, p) for topic in ours for p in range(config.kafka.partitions)]
    consumer = AIOKafkaConsumer(bootstrap_servers=config.brokers)
    await consumer.start()
    try:
        while True:
            await asyncio.sleep(1)
            for worker in workers:
                worker.look()
            done, ends = await records.committed(config), await consumer.end_offsets(tps)
            lag = {tp: end - max(0, done.get(tp, 0)) for tp, end in ends.items()}
            read = sum(end - lag[tp] for tp, end in ends.items() if tp.topic == source)
            looks.append(Look(time.monotonic() - begun, read, sum(lag.values())))
            # clock records keep coming: what counts is that the copies are through
            rest = {topic: sum(left for tp, left in lag.items() if tp.topic == topic) for topic in ours}
            if (
                read
                and not rest[source]
                and rest[name.events] < 20
                and not any(rest[name.to(d)] for d in config.destinations)
            ):
                return looks
            if len(looks) % 10 == 0:
                print(f"{looks[-1].at:6.0f} s  {rest}  {[worker.sizes[-1] for worker in workers]} MiB", file=sys.stderr)
    finally:
        await consumer.stop()


async def check(config: settings.Settings, orders: int, address: str) -> dict[str, int]:
    """What is missing, there twice, or out of order: events by copy, conversions by revision, at the webhook."""
    wanted: dict[Key, list[int]] = defaultdict(list)
    for key, number in plan(orders):
        wanted[key].append(number)
    name, n = topics.names(config), range(config.kafka.partitions)
    copies: dict[Key, list[int]] = defaultdict(list)
    merged: dict[Key, list[int]] = defaultdict(list)
    async with records.reader(config) as consumer:
        async for record in records.everything(consumer, name.events, n):
            if record.key is not None:
                event = orjson.loads(record.value)
                copies[_key(event)].append(event["custom"]["number"])
        async for record in records.everything(consumer, name.conversions, n):
            event = orjson.loads(record.value)["event"]
            merged[_key(event)].append(event.get("revision", 0))
    live = config.destinations["hook"].mode == "live"  # for nobody nothing is revised
    revisions = {key: [0, 1] if live and key[0] == "quote" else [0] for key in wanted}
    found = _compare("copies", wanted, copies) | _compare("conversions", revisions, merged)
    if live:
        async with aiohttp.ClientSession() as http, http.get(address) as answer:
            got = orjson.loads(await answer.read())
        at_hook = {_named(said): its for said, its in got.items()}
        # of two revisions that wait together, only the newer goes out
        latest = {key: its[-1:] if at_hook.get(key) == its[-1:] else its for key, its in revisions.items()}
        found |= _compare("webhook", latest, at_hook)
    return found


def _key(event: Mapping[str, Any]) -> Key:
    return _named(f"{event['event_name']} {event['event_id']}")


def _named(said: str) -> Key:
    name, event_id = said.split(" ")
    return name, event_id.removeprefix(f"{name}-")


def _compare(what: str, wanted: Mapping[Key, list[int]], found: Mapping[Key, list[int]]) -> dict[str, int]:
    return {
        f"{what}_missing": sum(not set(its) <= set(found.get(key, ())) for key, its in wanted.items()),
        f"{what}_twice": sum(len(its) != len(set(its)) for its in found.values()),
        f"{what}_out_of_order": sum(list(its) != sorted(its) for its in found.values()),
        f"{what}_strange": len(found.keys() - wanted.keys()),
    }


def growth(looks: Sequence[Look], sizes: Sequence[int]) -> tuple[float, float]:
    """In the second half of the time: MiB a minute, and how much of the mean size that came to."""
    half = [(one.at / 60, size) for one, size in zip(looks, sizes, strict=True) if one.at > looks[-1].at / 2]
    if len(half) < 3:
        return 0.0, 0.0
    minutes, mib = zip(*half, strict=True)
    slope = statistics.linear_regression(minutes, mib).slope
    return slope, slope * (minutes[-1] - minutes[0]) / statistics.mean(mib)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    os.environ["BENCH_SECRET"] = secrets.token_hex(16)
    port, workers = processes.free_port(), list[Worker]()
    with race.kafka() as (kafka, folder), ExitStack() as stack:
        path = folder / "capistream.toml"
        mode = "off" if options.off else "live"
        path.write_text(CONFIG.format(brokers=kafka.brokers, platform=port, folder=folder, mode=mode))
        config = settings.load(path)
        orders = round(options.events / (2 + 2 / QUOTED))
        begun = time.monotonic()
        events = asyncio.run(fill(config, orders))
        print(f"{events:,} events wait, after {time.monotonic() - begun:.0f} s", file=sys.stderr)
        load = report.load()
        taker = processes.spawn([sys.executable, __file__, "--platform", str(port)], folder / "platform.log")
        stack.callback(processes.stop, taker, 20)
        for number in range(options.workers):
            process, _ = race.worker(path, folder / f"worker-{number}.log", "--backfill")
            stack.callback(processes.stop, process, 20)
            workers.append(Worker(process))
        looks = asyncio.run(drain(config, workers))
        print(f"drained after {looks[-1].at:.0f} s; reading what came of it", file=sys.stderr)
        begin = next(one.at for one in looks if one.read)
        wrong = asyncio.run(check(config, orders, f"http://127.0.0.1:{port}/"))
        return {
            "events": events,
            "workers": options.workers,
            "destination": mode,
            "load_before": round(load, 1),
            "first_s": round(begin, 1),
            "drained_s": round(looks[-1].at, 1),
            "events_per_s": round(events / looks[-1].at),
            "events_per_cpu_s": round(events / sum(worker.cpu for worker in workers)),
            "bound_mib": bound(config, options.workers),
            "memory": [_memory(looks, worker.sizes) for worker in workers],
            "wrong": {name: count for name, count in wrong.items() if count},
        }


def _memory(looks: Sequence[Look], sizes: Sequence[int]) -> dict[str, Any]:
    quarters = [sizes[min(len(sizes) - 1, round(part * (len(sizes) - 1) / 4))] for part in range(5)]
    slope, share = growth(looks, sizes)
    return {"mib": quarters, "most_mib": max(sizes), "mib_per_minute": round(slope, 1), "growth": round(share, 3)}


def bound(config: settings.Settings, workers: int) -> int:
    """MiB that a worker may take, however long the backlog is."""
    partitions, tables = -(-config.kafka.partitions // workers), 2 + len(config.destinations)
    return PROGRAM + DATABASE * partitions * tables + BATCHES


def too_large(result: Mapping[str, Any]) -> bool:
    return any(one["most_mib"] > result["bound_mib"] for one in result["memory"])


def told(result: dict[str, Any]) -> str:
    to = "to a webhook" if result["destination"] == "live" else "to capistream.conversions"
    most = result["bound_mib"]
    rows = [
        [
            f"{number} of {result['workers']}",
            f"{memory['most_mib']:,} MiB",
            " ".join(f"{size:,}" for size in memory["mib"]),
            f"{memory['mib_per_minute']} MiB",
            report.goal(memory["most_mib"] <= most, f"≤ {most} MiB"),
        ]
        for number, memory in enumerate(result["memory"], 1)
    ]
    return (
        f"{result['events']:,} events drained {to} in {result['drained_s']} s from the start of the workers: "
        f"{result['events_per_s']:,} events/s, {result['events_per_cpu_s']:,} a second of the workers' processor time. "
        f"Missing, there twice or out of order: {result['wrong'] or 'none'}.\n\n"
        + report.table(["worker", "most memory", "at each quarter", "more a minute, second half", "goal"], rows)
    )


def main() -> int:
    parser = report.parser(__doc__, "50,000 events")
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--off", action="store_true", help="to capistream.conversions only")
    parser.add_argument("--platform", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.platform:
        platform(options.platform)
        return 0
    if options.quick:
        options.events = 50_000
    load = report.load()
    result = measure(options)
    report.finish(options, told(result), result, load)
    return 1 if result["wrong"] or too_large(result) else 0


if __name__ == "__main__":
    sys.exit(main())
