"""Topics with offsets that never arrive: transactions, compaction, deletion. And fetches that never arrive."""

import asyncio
import contextlib
import json
import time
from collections import Counter

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import NewTopic
from aiokafka.admin.records_to_delete import RecordsToDelete
from aiokafka.structs import OffsetAndMetadata

from app.demo.run import Demo
from app.kafka import Kafka
from tests.app.lossless.test_ledger import VALUES, Bench, ended, finished, until
from tests.system.conftest import running
from tests.system.test_main_job import BROWSER, pixel, server

AGAIN = "reading again"  # what the consumer logs when records were fetched and dropped
SECOND = 1000  # milliseconds


@pytest.fixture
async def bench(kafka, prefix, tmp_path):
    async with Bench(kafka.brokers, prefix, tmp_path) as one:
        yield one


@contextlib.asynccontextmanager
async def transactional(broker, name):
    producer = AIOKafkaProducer(bootstrap_servers=broker, transactional_id=name, transaction_timeout_ms=60_000)
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


async def write(producer, topic, values):
    for value in values:
        await producer.send(topic, value, partition=0)
    await producer.flush()


async def transaction(bench, values, *, commit, topic="in"):
    async with transactional(bench.broker, f"{bench.prefix}-tx") as producer:
        await producer.begin_transaction()
        await write(producer, f"{bench.prefix}.{topic}" if topic == "in" else topic, values)
        await (producer.commit_transaction() if commit else producer.abort_transaction())


async def end(bench, topic=None, **options):
    """The log's end, of partition 0."""
    tp = TopicPartition(topic or f"{bench.prefix}.in", 0)
    async with AIOKafkaConsumer(bootstrap_servers=bench.broker, **options) as consumer:
        return (await consumer.end_offsets([tp]))[tp]


async def log(broker, topic):
    """(offset, key, value) of all that is in partition 0."""
    tp = TopicPartition(topic, 0)
    async with AIOKafkaConsumer(bootstrap_servers=broker, auto_offset_reset="earliest") as consumer:
        consumer.assign([tp])
        last, found = (await consumer.end_offsets([tp]))[tp], []
        while await consumer.position(tp) < last:
            for records in (await consumer.getmany(timeout_ms=200)).values():
                found += [(record.offset, record.key, record.value) for record in records]
        return found


# -- transactions


@pytest.mark.fault
async def test_committed_records_arrive_once_aborted_ones_never_and_commits_reach_the_end(bench):
    await bench.fill([b"plain-1"])
    await transaction(bench, VALUES[:30], commit=True)
    await transaction(bench, [b"aborted-1"] * 30, commit=False)
    await bench.fill([b"plain-2"])
    await transaction(bench, VALUES[30:], commit=True)
    await transaction(bench, [b"aborted-2"] * 30, commit=False)  # the last offsets: nothing to deliver, and a marker

    bench.start(1)
    await finished(bench, await end(bench))

    assert await bench.out() == Counter([b"plain-1", b"plain-2", *VALUES])
    assert AGAIN not in bench.log(1)


@pytest.mark.fault
async def test_an_open_transaction_is_waited_for_and_nothing_behind_it_is_taken_before(bench):
    bench.start(1)
    await bench.fill([b"before"])
    async with transactional(bench.broker, f"{bench.prefix}-tx") as producer:
        await producer.begin_transaction()
        await write(producer, f"{bench.prefix}.in", VALUES)
        await bench.fill([b"behind"])
        await bench.fill([b"elsewhere"], partition=1)
        await finished(bench, 1, partition=1)
        await finished(bench, 1)
        assert await bench.out() == Counter([b"before", b"elsewhere"])

        await producer.commit_transaction()
    await finished(bench, await end(bench))

    assert await bench.out() == Counter([b"before", b"elsewhere", b"behind", *VALUES])
    assert await end(bench) == len(VALUES) + 3  # and the marker
    assert AGAIN not in bench.log(1)


@pytest.mark.fault
async def test_a_worker_killed_among_transactions_loses_nothing_and_takes_nothing_that_was_aborted(bench):
    for n in range(0, 100, 10):
        await transaction(bench, VALUES[n : n + 10], commit=True)
        await transaction(bench, [b"aborted"] * 15, commit=False)
    assert await ended(bench.start(1, "die-before-state", "v055")) == 9

    bench.start(1)
    await finished(bench, await end(bench))

    out = await bench.out()
    assert set(out) == set(VALUES)
    assert {value for value, times in out.items() if times > 1} <= set(VALUES[:60])  # not what came after the crash


@pytest.mark.fault
async def test_a_changelog_that_ends_in_transaction_markers_is_recovered_to_its_end(bench):
    """Not by us: but whoever copies clusters may leave such things behind."""
    await bench.fill(VALUES[:20])
    worker = bench.start(1)
    await finished(bench, 20)
    worker.kill()
    await transaction(bench, [b"never"], commit=False, topic=f"{bench.prefix}-count-changelog")

    bench.start(2)  # another folder
    await bench.fill(VALUES[:20])
    await finished(bench, 40)

    rows = {key: value for _, key, value in await log(bench.broker, f"{bench.prefix}-count-changelog") if key}
    assert rows == dict.fromkeys(VALUES[:20], b"2")


# -- fetches that get lost


@pytest.mark.fault
async def test_records_that_were_fetched_and_dropped_are_fetched_again(bench):
    await transaction(bench, VALUES[:50], commit=True)
    await transaction(bench, [b"aborted"] * 10, commit=False)
    await bench.fill(VALUES[50:])

    bench.start(1, "lose-fetches")
    await finished(bench, await end(bench))

    assert await bench.out() == Counter(VALUES)
    assert AGAIN in bench.log(1)


@pytest.mark.fault
async def test_changelog_rows_that_were_fetched_and_dropped_are_fetched_again(bench):
    await bench.fill(VALUES)
    worker = bench.start(1)
    await finished(bench, len(VALUES))
    worker.kill()

    bench.start(2, "lose-fetches")  # another folder
    await bench.fill(VALUES)
    await finished(bench, 2 * len(VALUES))

    rows = {key: value for _, key, value in await log(bench.broker, f"{bench.prefix}-count-changelog")}
    assert rows == dict.fromkeys(VALUES, b"2")
    assert f"count-changelog', partition=0): expected 0, got 10: {AGAIN}" in bench.log(2)


# -- offsets that are gone


@pytest.mark.fault
async def test_what_was_deleted_unread_is_told_and_commits_reach_the_end_though_nothing_follows(bench):
    await bench.fill(VALUES[:20])
    worker = bench.start(1)
    await finished(bench, 20)
    worker.kill()
    await bench.fill(VALUES[20:])
    tp = TopicPartition(f"{bench.prefix}.in", 0)
    await bench.admin.delete_records({tp: RecordsToDelete(before_offset=len(VALUES))})

    bench.start(1)
    await finished(bench, len(VALUES))

    assert set(await bench.out()) == set(VALUES[:20])
    assert "lost offsets 20 to 99 unread" in bench.log(1)
    await bench.fill([b"next"])
    await finished(bench, len(VALUES) + 1)
    assert (await bench.out())[b"next"] == 1


@pytest.mark.fault
async def test_a_topic_shorter_than_what_was_committed_is_a_new_one_and_read_from_its_start(bench):
    await bench.fill(VALUES)
    tp = TopicPartition(f"{bench.prefix}.in", 0)
    async with AIOKafkaConsumer(bootstrap_servers=bench.broker, group_id=bench.prefix) as consumer:
        consumer.assign([tp])
        await consumer.commit({tp: OffsetAndMetadata(5000, "")})
    assert await bench.committed() == 5000

    bench.start(1)
    await finished(bench, len(VALUES))

    assert await bench.out() == Counter(VALUES)


@pytest.mark.fault
async def test_a_topic_that_is_deleted_while_its_batches_are_under_way_ends_no_worker_and_is_read_when_made_again(
    bench,
):
    await bench.fill(VALUES)
    worker = bench.start(1, "slow", "3")

    async def begun() -> bool:
        return "READY" in bench.log(1) and bool(await bench.admin.list_consumer_group_offsets(bench.prefix))

    await until(begun)
    await bench.admin.delete_topics([f"{bench.prefix}.in"])

    async def revoked() -> bool:
        return "revoked 4 partitions" in bench.log(1)  # with those of the changelog

    await until(revoked)
    await bench.admin.create_topics([NewTopic(f"{bench.prefix}.in", 2, 1)])
    await bench.fill([b"again"])

    async def read() -> bool:
        return b"again" in await bench.out()

    await until(read)
    assert worker.poll() is None


# -- compaction


@pytest.fixture(scope="module")
def eager(tmp_path_factory):
    """A Kafka whose cleaner looks for work five times a second."""
    with Kafka(tmp_path_factory.mktemp("eager"), properties={"log.cleaner.backoff.ms": "200"}) as kafka:
        yield kafka


ROUNDS, KEYS = 20, 50


async def compacting(bench):
    topic = NewTopic(
        f"{bench.prefix}.in",
        2,
        1,
        topic_configs={
            "cleanup.policy": "compact",
            "segment.ms": "100",
            "min.cleanable.dirty.ratio": "0.01",
            "delete.retention.ms": "0",
            "max.compaction.lag.ms": "1000",
        },
    )
    await bench.admin.delete_topics([topic.name])

    async def gone():
        return topic.name not in await bench.admin.list_topics()

    await until(gone)
    await bench.admin.create_topics([topic])


async def rounds(bench, first, last):
    """Rounds of the same keys, each in a segment of its own: records' times decide when the next one begins."""
    producer = AIOKafkaProducer(bootstrap_servers=bench.broker, acks="all", enable_idempotence=True)
    await producer.start()
    begin = int(time.time() * 1000) - 3600 * SECOND
    for n in range(first, last):
        for key in range(KEYS):
            # every second key of every fifth round is deleted
            value = None if n % 5 == 4 and key % 2 else b"r%02d-%02d" % (n, key)
            await producer.send(
                f"{bench.prefix}.in", value, b"k%02d" % key, partition=0, timestamp_ms=begin + n * SECOND
            )
        await producer.flush()
    await producer.stop()


async def compacted(bench, rows):
    """What is left, once it is at most so many records."""

    async def small():
        found = await log(bench.broker, f"{bench.prefix}.in")
        return found if len(found) <= rows else None

    return await until(small)


async def values_left(bench):
    """Asked after the worker: the cleaner goes on."""
    return {value for _, _, value in await log(bench.broker, f"{bench.prefix}.in") if value is not None}


@pytest.mark.fault
async def test_a_compacted_topic_is_read_to_its_end_once_and_nothing_that_is_left_is_missed(eager, prefix, tmp_path):
    async with Bench(eager.brokers, prefix, tmp_path) as bench:
        await compacting(bench)
        await rounds(bench, 0, ROUNDS)
        left = await compacted(bench, 3 * KEYS)
        offsets = [offset for offset, _, _ in left]
        assert offsets[-1] == ROUNDS * KEYS - 1
        assert len(offsets) < ROUNDS * KEYS / 3  # holes everywhere
        assert any(value is None for _, _, value in left)

        worker = bench.start(1)
        await finished(bench, ROUNDS * KEYS)

        out = await bench.out()
        assert set(out) >= await values_left(bench)
        assert set(out.values()) == {1}
        assert AGAIN not in bench.log(1)

        # the committed offset lies in a hole when the worker comes back
        worker.kill()
        await rounds(bench, ROUNDS, 2 * ROUNDS)
        left = await compacted(bench, 3 * KEYS)
        assert min(offset for offset, _, _ in left) > ROUNDS * KEYS
        bench.start(1)
        await finished(bench, 2 * ROUNDS * KEYS)

        out = await bench.out()
        assert set(out) >= await values_left(bench)
        assert set(out.values()) == {1}
        assert AGAIN not in bench.log(1)


# -- the whole system


@pytest.mark.fault
async def test_a_copy_in_a_transaction_committed_after_the_window_is_merged_not_split(kafka, tmp_path, monkeypatch):
    async with running(kafka, tmp_path / "system", monkeypatch) as system:
        assert isinstance(system.demo, Demo)
        broker, topic = system.addresses["broker"], system.addresses["topic"]
        async with transactional(broker, f"{topic}-1") as good, transactional(broker, f"{topic}-2") as bad:
            for producer, order in ((good, "TX-1"), (bad, "TX-2")):
                await producer.begin_transaction()
                await producer.send_and_wait(topic, json.dumps(server(order, source="server")).encode(), partition=0)
                status, _ = await system.post(pixel(order), **BROWSER)
                assert status == 200
            await good.send_and_wait(topic, None, b"a tombstone", partition=0)
            await asyncio.sleep(8)  # a window of 3 s, and more than enough for a clock that does not wait
            states = [
                there["state"]
                for order in ("TX-1", "TX-2")
                for one in (await system.journey(order))["conversions"]
                for there in one["destinations"].values()
            ]
            assert set(states) <= {"held"}
            assert not await system.accepted("meta")
            await good.commit_transaction()
            await bad.abort_transaction()

        await system.settled("TX-1")
        await system.settled("TX-2")

        accepted = {entry["event_id"]: entry["event"]["user_data"] for entry in await system.accepted("meta")}
        assert {order: set(user) & {"em", "fbp"} for order, user in accepted.items()} == {
            "ev-TX-1": {"em", "fbp"},  # both copies
            "ev-TX-2": {"fbp"},  # the aborted one never was
        }
        assert len(await system.accepted("meta")) == 2
