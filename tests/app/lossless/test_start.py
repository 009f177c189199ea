"""Where a partition begins of which nothing was committed yet: at its end, at a time, and there again after a crash."""

import time

import pytest
from aiokafka import AIOKafkaProducer

from tests.app.lossless.test_ledger import Bench, ended, finished, until

NEW = int(time.time() * 1000)  # what is a week old, Kafka deletes
OLD, SINCE = NEW - 3_600_000, NEW - 1


@pytest.fixture
async def bench(kafka, prefix, tmp_path):
    async with Bench(kafka.brokers, prefix, tmp_path) as one:
        yield one


async def fill(bench, rows, partition=0):
    async with AIOKafkaProducer(bootstrap_servers=bench.broker, acks="all") as producer:
        for value, at in rows:
            await producer.send_and_wait(f"{bench.prefix}.in", value, partition=partition, timestamp_ms=at)


async def test_a_topic_that_starts_at_a_time_is_read_from_its_first_record_that_is_not_older(bench):
    await fill(bench, [(b"old-1", OLD), (b"old-2", SINCE - 1), (b"at", SINCE), (b"new", NEW), (b"late", OLD)])
    await fill(bench, [(b"old-3", OLD)], 1)

    bench.start(1, "from-time", str(SINCE))
    await finished(bench, 5)
    await fill(bench, [(b"comes", OLD)], 1)  # where nothing is younger, reading begins at the end
    await finished(bench, 2, 1)

    assert set(await bench.out()) == {b"at", b"new", b"late", b"comes"}


async def test_who_begins_at_the_end_of_an_empty_topic_begins_there_again_after_a_crash(bench):
    """Else what came meanwhile would lie before the new end, and nobody would read it."""
    worker = bench.start(1, "from-end")
    await until(lambda: _begun(bench))
    worker.kill()
    await ended(worker)
    await fill(bench, [(b"meanwhile", NEW)])

    bench.start(2, "from-end")
    await finished(bench, 1)

    assert set(await bench.out()) == {b"meanwhile"}


async def _begun(bench):
    offsets = await bench.admin.list_consumer_group_offsets(bench.prefix)
    mine = {tp.partition: found.offset for tp, found in offsets.items() if tp.topic == f"{bench.prefix}.in"}
    return mine == {0: 0, 1: 0}


@pytest.mark.fault
async def test_a_worker_for_whom_no_partition_is_left_is_ready_all_the_same(bench):
    workers = [bench.start(number) for number in (1, 2, 3)]

    async def all_joined() -> bool:
        assert all(worker.poll() is None for worker in workers)
        told = [bench.log(number).rpartition("READY ")[2].partition("\n")[0] for number in (1, 2, 3)]
        return len(set(told)) == 1 and told[0].isdigit()

    await until(all_joined)
