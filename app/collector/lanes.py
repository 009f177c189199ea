"""Rows to Kafka from many requests: those that come while a batch is under way share the next one.

Each partition has a lane of its own, so that one without a leader holds up no other. Who comes first is served first.
"""

import asyncio
from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass

from aiokafka import AIOKafkaProducer
from aiokafka.producer.message_accumulator import BatchBuilder

from app.intake import Row

Place = tuple[str, int]  # topic and partition


@dataclass(slots=True, eq=False)
class Parcel:
    """What one request has for one place. `done` tells why Kafka did not take it; nothing: it has all of it."""

    rows: Sequence[Row]
    done: "asyncio.Future[BaseException | None]"

    def end(self, why: BaseException | None) -> None:
        """What is not on its way yet is not sent any more."""
        self.rows = ()
        if not self.done.done():
            self.done.set_result(why)


class Lanes:
    def __init__(self, producer: AIOKafkaProducer) -> None:
        self._producer, self._loop = producer, asyncio.get_running_loop()
        self._waiting: dict[Place, deque[Parcel]] = defaultdict(deque)
        self._under_way: dict[Place, asyncio.Task[None]] = {}

    def put(self, place: Place, rows: Sequence[Row]) -> Parcel:
        parcel = Parcel(rows, self._loop.create_future())
        self._waiting[place].append(parcel)
        if place not in self._under_way:
            self._under_way[place] = asyncio.create_task(self._run(place))
        return parcel

    async def _run(self, place: Place) -> None:
        waiting = self._waiting[place]
        try:
            while waiting:
                await self._send(place, waiting)
        finally:
            del self._under_way[place]

    async def _send(self, place: Place, waiting: deque[Parcel]) -> None:
        """One batch of what has waited longest, until Kafka has it or refuses it."""
        topic, partition = place
        batch = self._producer.create_batch()
        whole, begun = _fill(batch, waiting)
        if not batch.record_count():
            return
        batch.close()
        why = None
        try:
            await (await self._producer.send_batch(batch, topic, partition=partition))
        except Exception as exc:  # noqa: BLE001 (whatever it is, it is told to those who wait)
            why = exc
            if begun is not None:
                begun.end(why)
        for parcel in whole:
            parcel.end(why)


def _fill(batch: BatchBuilder, waiting: deque[Parcel]) -> tuple[list[Parcel], Parcel | None]:
    """Move rows into the batch until it is full; returns the parcels whose last ones are in it, and one that has more."""
    whole: list[Parcel] = []
    while waiting:
        parcel = waiting[0]
        for number, (key, value, timestamp) in enumerate(parcel.rows):
            # an empty batch takes a row of any size
            if batch.append(key=key, value=value, timestamp=timestamp) is None:
                parcel.rows = parcel.rows[number:]
                return whole, parcel
        whole.append(waiting.popleft())
    return whole, None
