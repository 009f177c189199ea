"""Kafka for commands: a topic from its beginning to the end it has now, single records, and rows to append.

Nothing here is in a group or commits an offset.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from app import bus, intake
from app.errors import Unavailable
from app.settings import Settings

POLL = 0.5  # seconds
SILENCE = 30.0  # seconds without a record that is there: Kafka is away (its client says nothing, it tries again)
HEARD_OF = 2.0  # seconds after which a topic that no broker knows is none
NEAR = 1000  # records that are rather read than jumped over
TURN = 500  # records after which whatever else runs in this process has its turn

Write = Callable[[intake.Rows], Awaitable[None]]


@asynccontextmanager
async def reader(settings: Settings) -> AsyncIterator[AIOKafkaConsumer]:
    """A consumer that is assigned nothing yet. Raises Unavailable, also for what Kafka refuses while it is used."""
    consumer = bus.of(settings).consumer(
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
        fetch_max_wait_ms=200,
    )
    try:
        await consumer.start()
        yield consumer
    except KafkaError as exc:
        raise bus.problem(exc, f"Kafka at {settings.brokers} does not answer") from exc
    finally:
        await consumer.stop()


async def must_exist(client: Any, topic: str) -> None:
    """Raises Unavailable; to ask for a record of a topic that is none takes a client its whole time-out."""
    if topic not in (await _cluster(client, [topic])).topics():
        raise Unavailable(f"there is no topic {topic} yet: the first worker makes it, or `capistream topics apply`")


async def beginning(consumer: AIOKafkaConsumer, begin: str, among: Iterable[str]) -> dict[str, set[int]]:
    """The partitions of every topic whose name begins so; `among` them should be these."""
    cluster = await _cluster(consumer._client, among)
    return {name: cluster.partitions_for_topic(name) or set() for name in cluster.topics() if name.startswith(begin)}


async def committed(settings: Settings) -> Mapping[TopicPartition, int]:
    """The offsets that our group has committed. Raises Unavailable."""
    admin = bus.of(settings).admin()
    until = asyncio.get_running_loop().time() + SILENCE
    try:
        await admin.start()
        while True:
            try:
                found = await admin.list_consumer_group_offsets(settings.kafka.prefix)
                return {tp: one.offset for tp, one in found.items()}
            except KafkaError as exc:  # a new broker makes the topic of the groups when it is first asked for one
                if not exc.retriable or asyncio.get_running_loop().time() > until:
                    raise
            await asyncio.sleep(0.2)
    except KafkaError as exc:
        raise bus.problem(exc, "Kafka does not say what is finished") from exc
    finally:
        await admin.close()


async def _cluster(client: Any, topics: Iterable[str]) -> Any:
    """What the brokers know of topics. One that has just started, or has just heard of a topic, may need a moment."""
    until = asyncio.get_running_loop().time() + HEARD_OF
    while True:
        cluster = await client.fetch_all_metadata()
        if cluster.topics() >= set(topics) or asyncio.get_running_loop().time() > until:
            return cluster
        await asyncio.sleep(0.1)


async def written_since(
    consumer: AIOKafkaConsumer, since: int, ends: Mapping[TopicPartition, int]
) -> dict[TopicPartition, int]:
    """Where the first record stands that was written at that time, in Unix milliseconds, or later; where there is none, the end.

    `ends` are to be asked first: what is written in between is not older.
    """
    found = await consumer.offsets_for_times(dict.fromkeys(ends, max(0, since)))
    return {tp: found[tp].offset if found.get(tp) else end for tp, end in ends.items()}


async def everything(
    consumer: AIOKafkaConsumer,
    topic: str,
    partitions: Iterable[int],
    since: int | None = None,
    newest: int | None = None,
) -> AsyncIterator[Any]:
    """Every record that these partitions have now, in order within each. Raises Unavailable when there is no such topic.

    With `since` from the first one on that was written at that time, in Unix milliseconds, or later; with `newest` no more than
    so many of the offsets of each partition, the last ones.
    """
    await must_exist(consumer._client, topic)
    tps = [TopicPartition(topic, p) for p in partitions]
    consumer.assign(tps)
    await consumer.seek_to_beginning(*tps)
    ends = await consumer.end_offsets(tps)
    if since is not None:
        for tp, first in (await written_since(consumer, since, ends)).items():
            consumer.seek(tp, first)
    if newest is not None:
        for tp in tps:
            if await consumer.position(tp) < ends[tp] - newest:
                consumer.seek(tp, ends[tp] - newest)
    left = [tp for tp in tps if await consumer.position(tp) < ends[tp]]
    while left:
        for tp, records in (await _some(consumer, left)).items():
            for number, record in enumerate(records, 1):
                if record.offset < ends[tp]:
                    yield record
                if number % TURN == 0:
                    await asyncio.sleep(0)
        left = [tp for tp in left if await consumer.position(tp) < ends[tp]]


async def one_for_all(
    settings: Settings, topic: str, *, follow: bool, at_end: Callable[[], Any] = lambda: None
) -> AsyncIterator[Any]:
    """Every record of a topic with one partition, which all workers read, and with `follow` those to come.

    Calls `at_end` when all that were there are read, and again whenever more of them are. Raises KafkaError; without `follow`
    Unavailable, too, when there is no such topic.
    """
    tp = TopicPartition(topic, 0)
    reader = bus.of(settings).consumer(group_id=None, auto_offset_reset="earliest", fetch_max_wait_ms=200)
    try:
        await reader.start()
        if not follow:
            await must_exist(reader._client, topic)
        reader.assign([tp])
        await reader.seek_to_beginning(tp)
        end = (await reader.end_offsets([tp]))[tp]
        while True:
            if await reader.position(tp) >= end:
                at_end()
                if not follow:
                    return
            for record in (await reader.getmany(timeout_ms=500)).get(tp, ()):
                yield record
    finally:
        await reader.stop()


async def single(consumer: AIOKafkaConsumer, wanted: Mapping[TopicPartition, Iterable[int]]) -> AsyncIterator[Any]:
    """The records at these offsets; those that are no longer retained are left out."""
    cluster = await _cluster(consumer._client, {tp.topic for tp in wanted})
    for tp, offsets in wanted.items():
        if tp.partition in (cluster.partitions_for_topic(tp.topic) or ()):
            async for record in _of_partition(consumer, tp, offsets):
                yield record


async def some_from(consumer: AIOKafkaConsumer, tp: TopicPartition, since: int, most: int) -> AsyncIterator[Any]:
    """The records written at that time, in Unix milliseconds, or later: at most so many, and none that comes meanwhile."""
    consumer.assign([tp])
    ends = await consumer.end_offsets([tp])
    first = (await written_since(consumer, since, ends))[tp]
    consumer.seek(tp, first)
    end = min(ends[tp], first + most)
    while await consumer.position(tp) < end:
        for record in (await _some(consumer, [tp])).get(tp, ()):
            if record.offset < end:
                yield record


async def _of_partition(consumer: AIOKafkaConsumer, tp: TopicPartition, offsets: Iterable[int]) -> AsyncIterator[Any]:
    consumer.assign([tp])
    begin, end = (await consumer.beginning_offsets([tp]))[tp], (await consumer.end_offsets([tp]))[tp]
    due = deque(offset for offset in sorted(set(offsets)) if begin <= offset < end)
    if due:
        consumer.seek(tp, due[0])
    while due:
        for record in (await _some(consumer, [tp])).get(tp, ()):
            if due and due[0] == record.offset:
                due.popleft()
                yield record
            while due and due[0] <= record.offset:
                due.popleft()  # compacted away, or of a transaction that was given up
        reached = await consumer.position(tp)
        while due and due[0] < reached:
            due.popleft()
        if due and due[0] - reached > NEAR:
            consumer.seek(tp, due[0])


async def _some(consumer: AIOKafkaConsumer, tps: list[TopicPartition]) -> Mapping[TopicPartition, list[Any]]:
    """The next records, or none where only the position went on. Raises Unavailable after SILENCE."""
    before = [await consumer.position(tp) for tp in tps]
    until = asyncio.get_running_loop().time() + SILENCE
    while True:
        found: Mapping[TopicPartition, list[Any]] = await consumer.getmany(*tps, timeout_ms=int(POLL * 1000))
        if found or [await consumer.position(tp) for tp in tps] != before:
            return found
        if asyncio.get_running_loop().time() > until:
            raise Unavailable(f"Kafka gives no records of {tps[0].topic}")


@asynccontextmanager
async def writer(settings: Settings, *, dry_run: bool = False) -> AsyncIterator[Write]:
    """A function that appends rows and waits until Kafka has them all; with `dry_run` one that does nothing.

    Raises Unavailable.
    """
    if dry_run:
        yield _nothing
        return
    try:
        async with bus.of(settings).producer(acks="all", enable_idempotence=True) as producer:

            async def write(rows: intake.Rows) -> None:
                sent = [
                    await producer.send(topic, value, key=key, partition=p, timestamp_ms=at)
                    for (topic, p), some in rows.items()
                    for key, value, at in some
                ]
                await asyncio.gather(*sent)

            yield write
    except KafkaError as exc:
        raise bus.problem(exc, f"Kafka at {settings.brokers} does not take records") from exc


async def _nothing(_rows: intake.Rows) -> None:
    pass
