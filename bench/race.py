"""What the benches share: topics that are filled in batches, and programs that race to read one, each after the other."""

import asyncio
import logging
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import aiohttp
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from app import processes
from app.kafka import Kafka

LOOK = 0.05  # seconds between two looks at what came out
PATIENCE = 240.0  # seconds without any output; then the race is void
PARTITIONS = 4
WARM_UP = 10.0  # seconds; most of what a broker's JVM compiles for produce and fetch requests, it compiles in these
WARM_BATCH = 5  # records: many requests, not many bytes

GRANTED = dict.fromkeys(("ad_storage", "analytics_storage", "ad_user_data", "ad_personalization"), "granted")

TICK = 1 / os.sysconf("SC_CLK_TCK")  # seconds: the kernel counts processor time in these

#: (partition, key, value)
Record = tuple[int, bytes, bytes]
#: (seconds, outputs, processor seconds)
Look = tuple[float, int, float]


@dataclass(frozen=True)
class Time:
    """Of one race. The start of the program does not count: it is measured from the first outputs that were seen to the last."""

    events_per_s: float
    cpu_s: float  # of processor time, all threads
    second_half: float  # events/s
    per_cpu: float  # events a second of processor time
    second_half_per_cpu: float
    outputs: int


def order(number: int) -> str:
    """A shop's number of an order; neighbours are not beside each other."""
    return f"{number * 7_919 % 99_999_989:08d}"


@contextmanager
def kafka() -> Iterator[tuple[Kafka, Path]]:
    """An embedded one that has warmed up, and a folder to work in; both are gone afterwards."""
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # it complains of each process that is ended
    with TemporaryDirectory(prefix="capistream-bench-", ignore_cleanup_errors=True) as made:
        folder = Path(made)
        with Kafka(folder / "kafka", heap="1g") as one:
            asyncio.run(_warm_up(one.brokers))
            yield one, folder


async def _warm_up(brokers: str) -> None:
    """Else its compiler takes half a core from whoever is measured first, as long as a short race takes."""
    topic = "warm-up"
    await create(brokers, [topic])
    records = [(p, b"key", b"x" * 500) for p in range(PARTITIONS) for _ in range(WARM_BATCH)]
    until = time.monotonic() + WARM_UP
    async with AIOKafkaConsumer(topic, bootstrap_servers=brokers, auto_offset_reset="earliest") as consumer:

        async def read() -> None:
            while time.monotonic() < until:
                await consumer.getmany(timeout_ms=100)

        reading = asyncio.create_task(read())
        async with AIOKafkaProducer(bootstrap_servers=brokers, acks="all") as producer:
            while time.monotonic() < until:
                sent = [await producer.send(topic, value, key, partition=p) for p, key, value in records]
                await asyncio.gather(*sent)
        await reading


async def create(brokers: str, names: Iterable[str], partitions: int = PARTITIONS) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=brokers)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(name, partitions, 1) for name in names])
    finally:
        await admin.close()


async def fill(brokers: str, topic: str, records: Iterable[Record]) -> int:
    """Returns the number of records."""
    return await fill_all(brokers, ((topic, record) for record in records))


async def fill_all(brokers: str, records: Iterable[tuple[str, Record]]) -> int:
    """The same of several topics: (topic, record)."""
    count, builders, sent = 0, dict[tuple[str, int], Any](), list[Any]()
    async with AIOKafkaProducer(bootstrap_servers=brokers, acks="all", max_batch_size=512 * 1024) as producer:

        async def ship(topic: str, p: int) -> None:
            builder = builders.pop((topic, p))
            builder.close()
            sent.append(await producer.send_batch(builder, topic, partition=p))

        for count, (topic, (p, key, value)) in enumerate(records, 1):  # noqa: B007
            now = int(time.time() * 1000)
            if (topic, p) not in builders:
                builders[topic, p] = producer.create_batch()
            if builders[topic, p].append(key=key, value=value, timestamp=now) is None:
                await ship(topic, p)
                builders[topic, p] = producer.create_batch()
                builders[topic, p].append(key=key, value=value, timestamp=now)
        for place in list(builders):
            await ship(*place)
        await asyncio.gather(*sent)
    return count


async def race(
    brokers: str,
    command: Sequence[str],
    env: Mapping[str, str],
    log: Path,
    output: str,
    *,
    events: int,
    outputs: int,
    apart: int = 0,
) -> Time:
    """Start a program and see how long it takes to write `outputs` records to the topic `output`.

    `apart`: outputs that come before the first repeated event is read. From there on each output stands for as many events
    as every other, to the last one; timed from the start, who passes on first copies would get for nothing as many events.
    """
    consumer = AIOKafkaConsumer(bootstrap_servers=brokers)
    await consumer.start()
    tps = [TopicPartition(output, p) for p in range(PARTITIONS)]
    process = processes.spawn(command, log, env)
    looks: list[Look] = []  # once there are any outputs that count
    first = min(max(apart, 1), outputs // 2)
    try:
        last, moved = 0, time.monotonic()
        while last < outputs:
            await asyncio.sleep(LOOK)
            now, found = time.monotonic(), sum((await consumer.end_offsets(tps)).values())
            if process.poll() is not None or now - moved > PATIENCE:
                raise SystemExit(f"{command}: {found} of {outputs} outputs; see {log}:\n{log.read_text()[-2000:]}")
            if found > last:
                last, moved = found, now
                if found >= first:
                    looks.append((now, found, cpu(process.pid)))
        await asyncio.sleep(0.5)
        found = sum((await consumer.end_offsets(tps)).values())
    finally:
        await consumer.stop()
        processes.stop(process, 20)
    each = events / outputs  # records that one output stands for
    begin, end = looks[0], looks[-1]
    middle = next(look for look in looks if look[1] >= outputs / 2)
    return Time(
        _rate(begin, end) * each,
        end[2] - begin[2],
        _rate(middle, end) * each,
        _per_cpu(begin, end) * each,
        _per_cpu(middle, end) * each,
        found,
    )


def _rate(one: Look, other: Look) -> float:
    return (other[1] - one[1]) / max(other[0] - one[0], LOOK)


def _per_cpu(one: Look, other: Look) -> float:
    return (other[1] - one[1]) / max(other[2] - one[2], TICK)


def worker(config: Path, log: Path, *more: str) -> tuple[subprocess.Popen[bytes], str]:
    """A worker, and the address of its pages."""
    port = processes.free_port()
    command = [sys.executable, "-m", "app.cli", "worker", "--config", str(config), "--web-port", str(port), *more]
    return processes.spawn(command, log), f"http://127.0.0.1:{port}"


async def ready(worker: subprocess.Popen[bytes], address: str) -> None:
    """Wait until it is."""
    async with aiohttp.ClientSession() as http:
        while worker.poll() is None:
            try:
                async with http.get(f"{address}/readyz") as answer:
                    if answer.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.1)
    raise SystemExit("the worker ended")


@contextmanager
def running(config: Path, log: Path, *more: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """The same, when it is ready; it is stopped afterwards."""
    process, address = worker(config, log, *more)
    try:
        asyncio.run(ready(process, address))
        yield process, address
    finally:
        processes.stop(process, 20)


def cpu(pid: int) -> float:
    """Seconds of processor time of a process so far, all its threads."""
    ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return sum(map(int, ticks)) * TICK


def rss(pid: int) -> int:
    """MiB that a process has in memory."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) >> 10


def medians(rounds: Sequence[Mapping[str, Time]]) -> dict[str, Time]:
    """Of each contestant, over all rounds."""

    def median(name: str, of: Callable[[Time], float]) -> float:
        return statistics.median(of(one[name]) for one in rounds)

    return {
        name: Time(
            median(name, lambda t: t.events_per_s),
            median(name, lambda t: t.cpu_s),
            median(name, lambda t: t.second_half),
            median(name, lambda t: t.per_cpu),
            median(name, lambda t: t.second_half_per_cpu),
            rounds[0][name].outputs,
        )
        for name in rounds[0]
    }


def told(times: Mapping[str, Time]) -> dict[str, Any]:
    """Contestant -> events_per_s, cpu_s."""
    return {name: {"events_per_s": round(t.events_per_s), "cpu_s": round(t.cpu_s, 2)} for name, t in times.items()}
