"""What the benches of sinks share: events, an emulated platform, and two ways to send to it. Each way is a process of its own, so
that its processor time is its own; they take turns.

    ours    agents/deliver.py with the real sink, from records of its topic on: decode, judge, encode, batch, send, read the answer,
            make the rows of outcomes, receipts and traces. Instead of Kafka and RocksDB there are dicts: no other way has those
    alone   the sink, and app/sending.py, which sends for it, without the rest of a worker: events become requests, requests are
            sent, answers become an outcome for each event. That is what an SDK does
    bare    a loop over aiohttp with ready JSON, which looks at the status: the limit in Python
"""

import argparse
import asyncio
import contextlib
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any
from urllib.request import urlopen

import aiohttp
import orjson
import race
import uvloop
from aiokafka import TopicPartition

from agents.deliver import Deliver
from app import keys, loop, processes, topics
from app.delivery import Clock
from app.events import Event
from app.forget import People
from app.lossless import Batch
from app.lossless.lanes import Lanes
from app.sending import Sender
from app.settings import Settings
from sinks._base import Delivered, Payload, Sink
from sinks.samples import encode, make_event, sha

PARTITIONS = 4
OPEN = 3  # batches of a partition that a worker has under way, most often
RECORDS = 1_000  # in a batch
EMULATOR = Path(__file__).parent / "peers" / "emulator.py"


@dataclasses.dataclass(frozen=True)
class Time:
    events_per_s: float
    cpu: float  # milliseconds of processor time for an event, all threads


def events(count: int) -> Iterator[Event]:
    """Purchases as dedup hands them on, each of another person."""
    now = int(time.time() * 1000)
    for n in range(count):
        order = race.order(n)
        person = {"email": {"plain": sha(f"{order}@example.com")}, "phone": {"digits": sha(f"1555{order}")}}
        yield make_event(
            event_id=f"order-{order}",
            time=now,
            received=now,
            user={**person, "user_id": f"customer-{order}"},
            context={"ip": f"203.0.{n // 250 % 250}.{n % 250}"},
            ids={"ga_client_id": f"{order}.1795420000"},
            commerce={"transaction_id": order},
        )


@contextlib.contextmanager
def platform(milliseconds: float, *, empty: bool = False) -> Iterator[str]:
    """The address of one that answers after so long."""
    port = processes.free_port()
    process = processes.spawn([sys.executable, str(EMULATOR), str(port), str(milliseconds), str(int(empty))], None)
    try:
        address = f"http://127.0.0.1:{port}"
        until = time.monotonic() + 30
        while time.monotonic() < until:
            with contextlib.suppress(OSError):
                taken(address)
                break
            time.sleep(0.1)
        yield address
    finally:
        processes.stop(process, 5)


def taken(address: str) -> int:
    """How many events it has got."""
    with urlopen(address, timeout=5) as answer:  # noqa: S310 (our own)
        return int(answer.read())


def rounds(ways: Mapping[str, Sequence[str]], address: str, events: Mapping[str, int], count: int) -> dict[str, Time]:
    """Medians. `ways`: what the script is to be called with to be one of them."""
    found: dict[str, list[Time]] = defaultdict(list)
    for number in range(count):
        order = list(ways.items())
        for name, arguments in order[number % len(order) :] + order[: number % len(order)]:
            before = taken(address)
            command = [sys.executable, sys.argv[0], "--way", *arguments, "--address", address]
            done = subprocess.run([*command, "--events", str(events[name])], check=True, stdout=subprocess.PIPE)
            said = json.loads(done.stdout)
            if taken(address) - before != events[name]:
                raise SystemExit(f"{name}: the platform got {taken(address) - before} events of {events[name]}")
            found[name].append(Time(events[name] / said["seconds"], said["cpu_s"] / events[name] * 1000))
    return {
        name: Time(statistics.median(t.events_per_s for t in times), statistics.median(t.cpu for t in times))
        for name, times in found.items()
    }


def options(parser: argparse.ArgumentParser, concurrency: int) -> None:
    parser.add_argument("--concurrency", type=int, default=concurrency, help="requests in flight")
    for name in ("way", "address"):
        parser.add_argument(f"--{name}", help=argparse.SUPPRESS)  # for the processes that `rounds` starts
    for name in ("batch", "events"):
        parser.add_argument(f"--{name}", type=int, help=argparse.SUPPRESS)


def cells(time: Time) -> list[str]:
    return [f"{time.events_per_s:,.0f}", f"{time.cpu:.3f}"]


def result(times: Mapping[Any, Mapping[str, Time]]) -> dict[str, Any]:
    """Way and what is different for it -> events_per_s, cpu_s for 1,000 events."""
    return {
        f"{name}, {which}": {"events_per_s": round(one.events_per_s), "cpu_s_per_1000": round(one.cpu, 4)}
        for which, ways in times.items()
        for name, one in ways.items()
    }


# in the process that sends


def run(way: Coroutine[Any, Any, None]) -> None:
    os.environ["BENCH_SECRET"] = "x" * 20
    uvloop.run(way)


@contextlib.contextmanager
def measured() -> Iterator[None]:
    """Tells the parent how long the body takes. Garbage is collected as in a worker, for all ways."""
    loop.collect_garbage_less()
    begun, cpu = time.perf_counter(), time.process_time()
    yield
    said = {"seconds": time.perf_counter() - begun, "cpu_s": time.process_time() - cpu}
    print(json.dumps(said))


# bare


def ready(sink: Sink, count: int, batch: int) -> list[Any]:
    """The requests that `bare` sends: those of the sink itself, made beforehand."""
    payloads = [found for event in events(count) if isinstance(found := encode(sink, event), Payload)]
    secrets = {"access_token": "secret", "api_secret": "secret"}
    return [sink.request(payloads[n : n + batch], secrets) for n in range(0, count, batch)]


async def bare(requests: Sequence[Any], concurrency: int) -> None:
    left = iter(requests)

    async def send(http: aiohttp.ClientSession) -> None:
        for one in left:
            async with http.post(one.url, data=one.body, headers=one.headers) as answer:
                answer.raise_for_status()
                await answer.read()

    with measured():
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
            await asyncio.gather(*(send(http) for _ in range(concurrency)))


# ours


class Table:
    """As app/lossless/rows.py, in memory."""

    def __init__(self) -> None:
        self._rows: dict[int, dict[bytes, bytes | None]] = defaultdict(dict)

    def get(self, partition: int, wanted: Sequence[bytes]) -> list[bytes | None]:
        rows = self._rows[partition]
        return [rows.get(key) for key in wanted]

    def items(self, _partition: int, _prefix: bytes) -> Sequence[tuple[bytes, bytes]]:
        return ()

    def sweep(self, *_: Any) -> Sequence[bytes]:
        return ()

    async def write(self, partition: int, rows: Mapping[bytes, bytes | None], _generation: int) -> None:
        self._rows[partition].update(rows)


class Pipeline:
    """What agents/deliver.py asks of the worker that it is in: partitions that stay, and rows that go nowhere."""

    partitions = PARTITIONS

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.names = topics.names(settings)
        self.people = People(settings, lambda: None)
        self.people.heard.set()
        self.control = SimpleNamespace(heard=self.people.heard)
        self.dedup = SimpleNamespace(denials=0)
        self.seen, self.tokens = Table(), None
        mine = [TopicPartition(self.names.events, p) for p in range(PARTITIONS)]
        consumer = SimpleNamespace(own=_nothing, ready=1, yielding=False, sources=lambda: mine)
        self.app = SimpleNamespace(consumer=consumer, consumer_generation_id=1, should_stop=False)
        self.http_session: aiohttp.ClientSession | None = None

    async def http(self) -> aiohttp.ClientSession:
        if self.http_session is None:  # as app/main.py makes it
            self.http_session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0), cookie_jar=aiohttp.DummyCookieJar()
            )
        return self.http_session

    async def write(self, _rows: Any, _generation: int) -> Mapping[tuple[str, int], Sequence[int]]:
        return {}


async def _nothing(*_: Any) -> None:
    pass


def batches(count: int) -> dict[int, list[list[Any]]]:
    """The destination's topic: by partition, what is fetched at once."""
    records: dict[int, list[Any]] = defaultdict(list)
    for event in events(count):
        some = records[keys.partition(keys.conversion_id(event), PARTITIONS)]
        key, value = keys.key(event), orjson.dumps({"event": event})
        some.append(SimpleNamespace(key=key, value=value, offset=len(some), timestamp=event["time"]))
    return {p: [some[n : n + RECORDS] for n in range(0, len(some), RECORDS)] for p, some in records.items()}


def configured(destination: str, made: Mapping[str, Any]) -> tuple[Settings, Sink]:
    with TemporaryDirectory() as folder:
        settings = Settings.model_validate(
            {
                "sites": {"shop": {"write_key": "wk_bench_bench", "secret_key": {"env": "BENCH_SECRET"}}},
                "destinations": {destination: made},
                "worker": {"data_dir": folder},
            }
        )
    from sinks import SINKS

    one = settings.destinations[destination]
    return settings, SINKS[one.sink](one)


async def alone(destination: str, made: Mapping[str, Any], count: int, batch: int, concurrency: int) -> None:
    settings, sink = configured(destination, made)
    pipeline = Pipeline(settings)
    one, tokens = settings.destinations[destination], pipeline.tokens
    sender = Sender(destination, one, sink, tokens, pipeline.http, Clock())  # type: ignore[arg-type]  # no sink of Google's
    ready = list(events(count))
    parts = (ready[n : n + batch] for n in range(0, count, batch))

    async def send() -> None:
        for part in parts:
            payloads = [found for event in part if isinstance(found := encode(sink, event), Payload)]
            exchange = await sender.attempt(payloads, _nothing)
            if not all(isinstance(outcome, Delivered) for outcome in exchange.outcomes):
                raise SystemExit(f"not delivered: {exchange.outcomes}")

    with measured():
        await asyncio.gather(*(send() for _ in range(concurrency)))
    await (await pipeline.http()).close()


async def ours(destination: str, made: Mapping[str, Any], count: int, batch: int | None = None) -> None:
    """`batch`: events a request, where it is to be less than the platform takes."""
    settings, sink = configured(destination, made)
    one = settings.destinations[destination]
    sink.limits = dataclasses.replace(sink.limits, events=batch or sink.limits.events)
    pipeline: Any = Pipeline(settings)
    table: Any = Table()
    deliver = Deliver(pipeline, destination, one, sink, table)
    deliver.recovered(1)
    waiting = batches(count)
    lanes = Lanes(RECORDS)
    free = {p: asyncio.Semaphore(OPEN) for p in waiting}

    async def read(p: int) -> None:
        for records in waiting[p]:
            await free[p].acquire()
            tp = TopicPartition(deliver.topic, p)
            lanes.submit(Batch(tp, records, 1, lambda _: free[p].release()), deliver.batch)
        for _ in range(OPEN):  # all of them are finished
            await free[p].acquire()

    with measured():
        run = asyncio.create_task(deliver.run())
        await asyncio.gather(*map(read, waiting))
    pipeline.app.should_stop = True
    await run
    await (await pipeline.http()).close()
