"""Rows to the partitions of a topic, in order; each call ends when all replicas have them."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from aiokafka import AIOKafkaProducer
from faust.transport.drivers import aiokafka as stock

from app.bus import START_MAX
from app.lossless.batch import die

OFFER_MAX = 5.0  # seconds until Kafka has taken, or refused, what it is offered; a rebalance waits for no more than 15
REFUSED_FOR = 15.0  # seconds for which a topic that refuses is left alone

#: (key, value, timestamp in Unix milliseconds)
Row = tuple[bytes | None, bytes | None, int]
#: Partition -> the offset of each of its rows, -1 where nobody says it.
Offsets = dict[int, list[int]]
#: Partition -> (offset, count) of the batches that its rows went in.
Shipped = dict[int, list[tuple[int, int]]]


class Producer(stock.Producer):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._turns: dict[tuple[str, int], asyncio.Lock] = defaultdict(asyncio.Lock)
        self._second: AIOKafkaProducer | None = None
        # topic -> (monotonic time of the next try, why it takes nothing)
        self._refusing: dict[str, tuple[float, str]] = {}
        super().__init__(*args, **kwargs)

    def _settings_extra(self) -> dict[str, Any]:
        # Faust switches idempotence on for transactions only; without it a retry can repeat or reorder rows
        return {"acks": "all", "enable_idempotence": True}

    def _new_producer(self, transactional_id: str | None = None) -> AIOKafkaProducer:
        made = super()._new_producer(transactional_id)
        self.app.bus.attend(made.client, START_MAX)
        return made

    async def create_topic(self, *args: Any, **more: Any) -> None:
        if self.app.conf.topic_allow_declare:  # stock warns of each that it may not make
            await super().create_topic(*args, **more)

    async def write(self, topic: str, partition: int, rows: Iterable[Row]) -> tuple[int, int]:
        """Produce rows in order and wait until Kafka has acknowledged them all.

        Returns (offset of the first, offset after the last). Both are -1 when nothing was written, when somebody else's
        rows came in between, or when a retry was answered "duplicate": written, but nobody says where. A failed produce
        ends the process: an idempotent producer that gave up has a gap in its sequence and cannot go on.
        """
        return _range((await self._written(topic, {partition: rows}))[partition])

    async def place(self, topic: str, rows: Mapping[int, Iterable[Row]]) -> Offsets:
        """The same with rows by partition; returns the offset of each row, -1 where nobody says it."""
        return _offsets(await self._written(topic, rows))

    async def _written(self, topic: str, rows: Mapping[int, Iterable[Row]]) -> Shipped:
        try:
            return await self._ship(self._producer, topic, rows)
        except asyncio.CancelledError:
            raise
        except Exception as exc:  # noqa: BLE001 (whatever it is, see `write`)
            die(f"produce to {topic} failed", partitions=list(rows), error=repr(exc))

    async def offer(self, topic: str, rows: Mapping[int, Iterable[Row]]) -> tuple[str, Offsets]:
        """Produce rows by partition to a topic that all other work must not hang on; returns an empty text and the offset of each
        row, -1 where nobody says it, or why Kafka did not take them.

        By a producer of its own, which is not idempotent and so may give up: rows may be there twice, in another order, and
        although they were said to be refused. A topic that refuses is left alone for a while.
        """
        again, reason = self._refusing.get(topic, (0.0, ""))
        if time.monotonic() < again:
            return reason, {}
        if reason:
            self._refusing[topic] = time.monotonic() + REFUSED_FOR, reason  # one try is enough
        try:
            async with asyncio.timeout(OFFER_MAX):
                producer = await self._other()
                if reason and not await self._is_there(producer, topic):
                    return reason, {}
                shipped = await self._ship(producer, topic, rows)
        except Exception as exc:  # noqa: BLE001 (whatever it is, it concerns one topic)
            reason = f"{topic} takes nothing: {type(exc).__name__}"
            self._refusing[topic] = time.monotonic() + REFUSED_FOR, reason
            return reason, {}
        self._refusing.pop(topic, None)
        return "", _offsets(shipped)

    async def _other(self) -> AIOKafkaProducer:
        async with self._turns["", 0]:
            if self._second is None:
                wanted = {"acks": "all", "request_timeout_ms": int(OFFER_MAX * 1000)}
                second = self.app.bus.producer(**{**self._settings_default(), **self._settings_auth(), **wanted})
                await second.start()
                self._second = second
        return self._second

    async def _is_there(self, producer: AIOKafkaProducer, topic: str) -> bool:
        await producer.client.force_metadata_update()
        return producer.client.cluster.partitions_for_topic(topic) is not None

    async def on_stop(self) -> None:
        if self._second is not None:
            await self._second.stop()
        await super().on_stop()

    async def _ship(self, producer: AIOKafkaProducer, topic: str, rows: Mapping[int, Iterable[Row]]) -> Shipped:
        """When all of it is acknowledged."""
        sent: list[tuple[int, Any, int]] = []
        try:
            for partition, some in rows.items():
                for full in _batches(producer, some):
                    count = full.record_count()
                    full.close()
                    # One at a time: aiokafka takes its time-out from all that wait for the same partition, and takes the whole
                    # wait off again each time that another was faster. Eight of them gave up after an outage of 13 s, with 60 s
                    # to wait.
                    async with self._turns[topic, partition]:
                        sent.append((partition, await producer.send_batch(full, topic, partition=partition), count))
            shipped: Shipped = {partition: [] for partition in rows}
            for partition, acknowledged, count in sent:
                shipped[partition].append(((await acknowledged).offset, count))
        except BaseException:
            for _, acknowledged, _ in sent:
                acknowledged.add_done_callback(lambda one: one.cancelled() or one.exception())  # nobody asks any more
            raise
        return shipped


def _batches(producer: AIOKafkaProducer, rows: Iterable[Row]) -> Iterator[Any]:
    """Builders with these rows in their order, none of them empty."""
    builder = None
    for key, value, timestamp in rows:
        if builder is None:
            builder = producer.create_batch()
        if builder.append(key=key, value=value, timestamp=timestamp) is None:
            yield builder
            builder = producer.create_batch()
            builder.append(key=key, value=value, timestamp=timestamp)  # an empty one takes a row of any size
    if builder is not None:
        yield builder


def _range(batches: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """(first, after the last) of (offset, count) pairs that follow each other without a gap, else (-1, -1)."""
    if not batches:
        return -1, -1
    first = end = batches[0][0]
    for offset, count in batches:
        if offset < 0 or offset != end:
            return -1, -1
        end += count
    return first, end


def _offsets(shipped: Shipped) -> Offsets:
    """Of each row."""
    return {
        partition: [offset + n if offset >= 0 else -1 for offset, count in batches for n in range(count)]
        for partition, batches in shipped.items()
    }
