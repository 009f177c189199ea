"""app/collector/lanes.py: rows of many requests, in order and in few batches, and none for nothing."""

import asyncio
from collections.abc import AsyncIterator
from types import NoneType

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError

from app.collector import lanes as lanes_module
from app.collector.lanes import Lanes, Parcel
from app.intake import Row

SIZE = 16 * 1024  # bytes of a batch
PATIENCE = 30.0  # seconds


@pytest.fixture
async def topic(kafka, prefix) -> str:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.brokers)
    await admin.start()
    await admin.create_topics([NewTopic(prefix, 2, 1)])
    await admin.close()
    name: str = prefix
    return name


@pytest.fixture
async def lanes(kafka) -> AsyncIterator[Lanes]:
    async with AIOKafkaProducer(
        bootstrap_servers=kafka.brokers, acks="all", max_batch_size=SIZE, request_timeout_ms=3000
    ) as producer:
        yield Lanes(producer)


def rows(name: str, count: int, size: int = 10) -> list[Row]:
    return [(f"{name}-{n}".encode(), b"x" * size, 1_795_428_000_000 + n) for n in range(count)]


async def there(brokers: str, topic: str, partition: int) -> list[bytes]:
    where = TopicPartition(topic, partition)
    async with AIOKafkaConsumer(bootstrap_servers=brokers) as consumer:
        consumer.assign([where])
        await consumer.seek_to_beginning(where)
        end, found = (await consumer.end_offsets([where]))[where], list[bytes]()
        while len(found) < end:
            found += [record.key for batch in (await consumer.getmany(timeout_ms=1000)).values() for record in batch]
    return found


async def test_who_comes_first_is_served_first(kafka, topic, lanes):
    served: list[int] = []

    async def one(number: int) -> None:
        parcel = lanes.put((topic, 0), rows(f"r{number}", 5, size=2000), PATIENCE)
        assert await parcel.done is None
        served.append(number)

    await asyncio.gather(*(one(number) for number in range(40)))

    assert served == [*range(40)]
    assert await there(kafka.brokers, topic, 0) == [f"r{n}-{i}".encode() for n in range(40) for i in range(5)]


async def test_what_is_larger_than_a_batch_is_answered_for_when_all_of_it_is_there(kafka, topic, lanes):
    many = lanes.put((topic, 1), rows("many", 200, size=1000), PATIENCE)
    huge = lanes.put((topic, 1), rows("huge", 1, size=3 * SIZE), PATIENCE)

    assert await many.done is None
    assert len(await there(kafka.brokers, topic, 1)) >= 200
    assert await huge.done is None
    assert await there(kafka.brokers, topic, 1) == [*(f"many-{n}".encode() for n in range(200)), b"huge-0"]


async def test_what_nobody_waits_for_any_more_is_not_sent(kafka, topic, lanes):
    first = lanes.put((topic, 0), rows("first", 1), PATIENCE)
    given_up = lanes.put((topic, 0), rows("given_up", 1), PATIENCE)
    given_up.end(TimeoutError())
    last = lanes.put((topic, 0), rows("last", 1), PATIENCE)

    assert [await one.done for one in (first, last)] == [None, None]
    assert await there(kafka.brokers, topic, 0) == [b"first-0", b"last-0"]
    assert isinstance(await given_up.done, TimeoutError)


async def test_what_kafka_refuses_holds_up_nothing_else(kafka, topic, lanes):
    too_large: list[Parcel] = [lanes.put((topic, 0), rows("large", 1, size=2 << 20), PATIENCE) for _ in range(2)]
    fine = lanes.put((topic, 1), rows("fine", 1), PATIENCE)

    assert await fine.done is None
    assert all([isinstance(await one.done, KafkaError) for one in too_large])
    assert await lanes.put((topic, 0), rows("after", 1), PATIENCE).done is None
    assert await there(kafka.brokers, topic, 0) == [b"after-0"]


async def test_who_waited_long_enough_is_told_so(kafka, topic, lanes, monkeypatch):
    monkeypatch.setattr(lanes_module, "LOOK", 0.0)  # long before Kafka can have answered
    sent = lanes.put((topic, 0), rows("sent", 1), patience=0.0)
    await asyncio.sleep(0)
    waits = lanes.put((topic, 0), rows("waits", 1), patience=0.0)
    patient = lanes.put((topic, 0), rows("patient", 1), PATIENCE)

    assert [type(await one.done) for one in (sent, waits, patient)] == [TimeoutError, TimeoutError, NoneType]
    assert await there(kafka.brokers, topic, 0) == [b"sent-0", b"patient-0"]
