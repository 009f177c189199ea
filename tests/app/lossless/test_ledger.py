"""What is committed, and what comes again: app.lossless on the real Kafka, in processes that fail."""

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any, Self

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import GroupCoordinatorNotAvailableError

from app import processes

WORKER = Path(__file__).parent / "worker.py"
VALUES = [b"v%03d" % n for n in range(100)]


class Bench:
    """Topics of one test, its workers, and what they did."""

    def __init__(self, broker: str, prefix: str, folder: Path) -> None:
        self.broker, self.prefix, self.folder = broker, prefix, folder
        self.workers: list[Any] = []

    async def __aenter__(self) -> Self:
        self.admin = AIOKafkaAdminClient(bootstrap_servers=self.broker)
        await self.admin.start()
        await self.admin.create_topics([NewTopic(f"{self.prefix}.in", 2, 1), NewTopic(f"{self.prefix}.out", 2, 1)])
        return self

    async def __aexit__(self, *_: object) -> None:
        for worker in self.workers:
            if worker.poll() is None:
                worker.kill()
            worker.wait()
        await self.admin.close()

    def start(self, number: int, *fault: str) -> Any:
        command = [sys.executable, str(WORKER), self.broker, self.prefix, str(self.folder / f"w{number}"), *fault]
        worker = processes.spawn(command, self.folder / f"w{number}.log")
        self.workers.append(worker)
        return worker

    def log(self, number: int) -> str:
        path = self.folder / f"w{number}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    async def fill(self, values: list[bytes], partition: int = 0) -> None:
        producer = AIOKafkaProducer(bootstrap_servers=self.broker, acks="all")
        await producer.start()
        for value in values:
            await producer.send(f"{self.prefix}.in", value, partition=partition)
        await producer.stop()

    async def out(self) -> Counter[bytes]:
        consumer = AIOKafkaConsumer(bootstrap_servers=self.broker, auto_offset_reset="earliest")
        await consumer.start()
        try:
            tps = [TopicPartition(f"{self.prefix}.out", p) for p in (0, 1)]
            consumer.assign(tps)
            ends = await consumer.end_offsets(tps)
            found: Counter[bytes] = Counter()
            while sum(found.values()) < sum(ends.values()):
                for records in (await consumer.getmany(timeout_ms=500)).values():
                    found.update(record.value for record in records)
            return found
        finally:
            await consumer.stop()

    async def committed(self, partition: int = 0) -> int:
        try:
            offsets = await self.admin.list_consumer_group_offsets(self.prefix)
        except GroupCoordinatorNotAvailableError:
            return 0  # a new broker, and the first group
        found = offsets.get(TopicPartition(f"{self.prefix}.in", partition))
        return found.offset if found else 0


async def until(check: Any, patience: float = 60.0) -> Any:
    end = time.monotonic() + patience
    while not (found := await check()):
        assert time.monotonic() < end
        await asyncio.sleep(0.1)
    return found


@pytest.fixture
async def bench(kafka, prefix, tmp_path):
    async with Bench(kafka.brokers, prefix, tmp_path) as one:
        yield one


async def finished(bench: Bench, offset: int, partition: int = 0) -> None:
    async def done() -> bool:
        return await bench.committed(partition) == offset

    await until(done)


async def ended(worker: Any) -> int:
    async def done() -> bool:
        return worker.poll() is not None

    await until(done)
    return int(worker.returncode)


async def test_an_exception_ends_the_worker_and_commits_nothing_of_its_batch(bench):
    await bench.fill(VALUES)

    worker = bench.start(1, "fail-on", "v055")

    assert await ended(worker) == 70
    assert await bench.committed() <= 55
    assert (await bench.out())[b"v055"] == 0
    assert "told to fail" in bench.log(1)


async def test_after_an_exception_everything_comes_again_and_nothing_is_lost(bench):
    await bench.fill(VALUES)
    await ended(bench.start(1, "fail-on", "v055"))

    bench.start(1)
    await finished(bench, len(VALUES))

    assert set(await bench.out()) == set(VALUES)


async def test_a_crash_between_output_and_state_repeats_the_output_and_swallows_nothing(bench):
    await bench.fill(VALUES)
    assert await ended(bench.start(1, "die-before-state", "v033")) == 9

    bench.start(1)
    await finished(bench, len(VALUES))

    out = await bench.out()
    assert set(out) == set(VALUES)
    assert out[b"v033"] == 2


async def test_nothing_is_kept_of_what_is_finished(bench):
    worker = bench.start(1)
    for p in (0, 1):
        await bench.fill(VALUES, p)
        await finished(bench, len(VALUES), p)

    worker.send_signal(signal.SIGTERM)

    assert await ended(worker) == 0
    assert "KEPT 0 0\n" in bench.log(1)


@pytest.mark.fault
async def test_sigterm_commits_what_is_finished_and_leaves_the_rest_to_the_next(bench):
    await bench.fill(VALUES)
    worker = bench.start(1, "slow", "0.5")

    async def begun() -> bool:
        return bool(await bench.out())

    await until(begun)
    begun_at = time.monotonic()
    worker.send_signal(signal.SIGTERM)
    status = await ended(worker)
    committed, out = await bench.committed(), await bench.out()

    assert status == 0
    assert time.monotonic() - begun_at < 10
    assert 0 < committed < len(VALUES)
    assert set(out) >= set(VALUES[:committed])
    bench.start(1)
    await finished(bench, len(VALUES))
    assert set(await bench.out()) == set(VALUES)


@pytest.mark.fault
async def test_a_stuck_batch_does_not_keep_a_worker_from_stopping(bench):
    await bench.fill(VALUES[:5])
    worker = bench.start(1, "slow", "600")

    async def ready() -> bool:
        return "READY" in bench.log(1)

    await until(ready)
    worker.send_signal(signal.SIGTERM)

    assert await ended(worker) in (0, 70)
    assert await bench.committed() == 0


@pytest.mark.fault
@pytest.mark.timeout(240)
@pytest.mark.fault
async def test_a_worker_that_slept_through_its_session_writes_nothing_after_it_wakes(bench):
    first = bench.start(1, "slow", "0.3")
    await bench.fill(VALUES, 0)
    await bench.fill([b"w" + value for value in VALUES], 1)

    async def begun() -> bool:
        return bool(await bench.out())

    await until(begun)
    os.kill(first.pid, signal.SIGSTOP)
    try:
        bench.start(2)
        await finished(bench, len(VALUES), 0)
        await finished(bench, len(VALUES), 1)
        before = await bench.out()
    finally:
        os.kill(first.pid, signal.SIGCONT)

    async def rejoined() -> bool:
        return bench.log(1).count("READY") > 1 or first.poll() is not None

    await until(rejoined)
    assert set(before) == {*VALUES, *(b"w" + value for value in VALUES)}
    doubled = {value for value, times in (await bench.out()).items() if times > 1}
    # at most what was on its way to Kafka when the worker was stopped: one batch a partition
    assert len(doubled) <= 20


async def test_a_second_worker_joins_and_nothing_is_lost(bench):
    bench.start(1, "slow", "0.4")
    await bench.fill(VALUES, 0)
    await bench.fill([b"w" + value for value in VALUES], 1)

    async def begun() -> bool:
        return bool(await bench.out())

    await until(begun)
    bench.start(2, "slow", "0.4")

    async def ready() -> bool:
        return "READY" in bench.log(2)

    await until(ready)
    await bench.fill([b"x" + value for value in VALUES], 0)  # the first may have done all by now
    await bench.fill([b"y" + value for value in VALUES], 1)
    await finished(bench, 2 * len(VALUES), 0)
    await finished(bench, 2 * len(VALUES), 1)

    assert set(await bench.out()) == {prefix + value for value in VALUES for prefix in (b"", b"w", b"x", b"y")}


@pytest.mark.fault
async def test_state_comes_back_from_the_changelog_when_the_folder_is_gone(bench):
    await bench.fill(VALUES[:20])
    worker = bench.start(1)
    await finished(bench, 20)
    worker.send_signal(signal.SIGTERM)
    await ended(worker)

    bench.start(2)  # another folder
    await bench.fill(VALUES[:20])
    await finished(bench, 40)

    # the table said 1 for each, and says 2 now: its last rows are in the changelog
    consumer = AIOKafkaConsumer(bootstrap_servers=bench.broker, auto_offset_reset="earliest")
    await consumer.start()
    with contextlib.suppress(TimeoutError):
        consumer.assign([TopicPartition(f"{bench.prefix}-count-changelog", 0)])
        rows: dict[bytes, bytes] = {}
        while len(rows) < 20 or set(rows.values()) != {b"2"}:
            found = await asyncio.wait_for(consumer.getmany(timeout_ms=1000), 30)
            assert found, rows
            for records in found.values():
                rows.update((record.key, record.value) for record in records)
    await consumer.stop()
    assert set(rows.values()) == {b"2"}
