"""When topics with a beat are fetched, by a clock that stands still until the test moves it."""

import asyncio

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from app.lossless import fetcher

BEAT = 10.0  # seconds of the test's clock
LARGE = 3000  # bytes of a record, more than half of what a fetch takes of a partition
FETCH = 5000


class Bench:
    """A consumer of two topics, `calm` with a beat and `quick` without, of two partitions each."""

    def __init__(self, brokers, prefix):
        self.calm, self.quick, self.now = f"{prefix}.calm", f"{prefix}.quick", 105.0
        self.consumer = AIOKafkaConsumer(
            bootstrap_servers=brokers,
            max_partition_fetch_bytes=FETCH,
            fetch_max_wait_ms=60_000,  # each is answered with a record
            auto_offset_reset="earliest",
        )
        self.producer = AIOKafkaProducer(bootstrap_servers=brokers)
        self.got = []  # values of the records of each fetch that brought any

    async def __aenter__(self):
        await self.producer.start()
        return self

    async def __aexit__(self, *_):
        await self.consumer.stop()
        await self.producer.stop()

    async def begin(self):
        """Read, from the first record."""
        await self.consumer.start()
        fetcher.pace(self.consumer._fetcher, {self.calm: BEAT}, lambda: self.now)
        tps = [TopicPartition(topic, p) for topic in (self.calm, self.quick) for p in (0, 1)]
        self.consumer.assign(tps)
        for tp in tps:
            await self.consumer.position(tp)

    async def write(self, topic, value, partition=0):
        await self.producer.send_and_wait(topic, value, partition=partition)

    async def arrives(self, *values):
        """Wait for these, and return what each fetch brought until then."""
        async with asyncio.timeout(30):
            while not set(values) <= {value for some in self.got for value in some}:
                found = await self.consumer.getmany(timeout_ms=100)
                if found:
                    self.got.append(sorted(record.value for records in found.values() for record in records))
        return self.got


@pytest.fixture
async def bench(kafka, prefix):
    one = Bench(kafka.brokers, prefix)
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.brokers)
    await admin.start()
    await admin.create_topics([NewTopic(topic, 2, 1) for topic in (one.calm, one.quick)])
    await admin.close()
    async with one:
        yield one


async def test_the_first_record_after_a_pause_waits_for_no_beat(bench):
    await bench.begin()
    await bench.write(bench.calm, b"first")
    assert await bench.arrives(b"first") == [[b"first"]]


async def test_what_comes_later_waits_for_the_next_beat_and_other_topics_do_not(bench):
    await bench.begin()
    await bench.write(bench.calm, b"first")
    await bench.arrives(b"first")
    await bench.write(bench.calm, b"second")
    for number in range(5):
        await bench.write(bench.quick, b"quick %d" % number)
        await bench.arrives(b"quick %d" % number)
    assert not any(b"second" in some for some in bench.got)


async def test_in_the_next_beat_all_partitions_come_together(bench):
    await bench.begin()
    await bench.write(bench.calm, b"first")
    await bench.arrives(b"first")
    await bench.write(bench.calm, b"second")
    await bench.write(bench.calm, b"third")
    await bench.write(bench.calm, b"fourth", partition=1)
    bench.now += BEAT
    assert (await bench.arrives(b"second"))[-1] == [b"fourth", b"second", b"third"]


async def test_who_is_behind_waits_for_no_beat(bench):
    values = [b"%d" % number * LARGE for number in range(8)]
    for value in values:
        await bench.write(bench.calm, value)
    await bench.begin()
    assert len(await bench.arrives(*values)) > 3  # fetches: each takes one or two of them
