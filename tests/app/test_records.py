"""app/records.py on the real Kafka: what is there is read, once, and reading ends."""

import asyncio
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition

from app import records
from app.errors import Unavailable


async def transaction(brokers: str, topic: str, *values: bytes, commit: bool) -> None:
    async with AIOKafkaProducer(bootstrap_servers=brokers, transactional_id=f"{topic}-writer") as producer:
        await producer.begin_transaction()
        for value in values:
            await producer.send_and_wait(topic, value, partition=0)
        await (producer.commit_transaction() if commit else producer.abort_transaction())


def single(place, *offsets: int, topic: str = "orders", partition: int = 0) -> list[Any]:
    async def run() -> list[Any]:
        wanted = {TopicPartition(f"{place.prefix}-{topic}", partition): offsets}
        async with records.reader(place.config) as reader:
            return [(one.offset, one.value) async for one in records.single(reader, wanted)]

    return asyncio.run(run())


def put(place, count: int) -> None:
    place.write(f"{place.prefix}-orders", [(None, b"%d" % n, 0) for n in range(count)])


def test_an_empty_topic_ends_at_once(place):
    assert place.read(f"{place.prefix}-orders") == []


def test_single_records_are_found_near_and_far(place):
    put(place, 2500)

    assert single(place, 2400, 3, 1, 2499, 3) == [(1, b"1"), (3, b"3"), (2400, b"2400"), (2499, b"2499")]


@pytest.mark.parametrize(
    ("topic", "partition", "offset"), [("orders", 0, 3), ("orders", 7, 0), ("nobodys", 0, 0), ("orders", 1, 0)]
)
def test_a_record_that_is_not_there_is_left_out(place, topic, partition, offset):
    put(place, 3)

    assert single(place, offset, topic=topic, partition=partition) == []


def test_what_a_transaction_gave_up_is_not_read_and_its_markers_are_no_end(place):
    topic = f"{place.prefix}-orders"
    asyncio.run(transaction(place.brokers, topic, b"good", commit=True))
    asyncio.run(transaction(place.brokers, topic, b"bad", b"bad", commit=False))

    assert [one.value for one in place.read(topic)] == [b"good"]
    assert single(place, 0, 1, 2, 3, 4) == [(0, b"good")]


def test_a_topic_that_is_none_is_named(place):
    with pytest.raises(Unavailable, match="there is no topic nobodys yet"):
        place.read("nobodys")


def test_a_dry_run_writes_nothing(place):
    async def run() -> None:
        async with records.writer(place.config, dry_run=True) as write:
            await write({(f"{place.prefix}-orders", 0): [(None, b"value", 0)]})

    asyncio.run(run())

    assert place.read(f"{place.prefix}-orders") == []
