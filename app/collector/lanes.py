"""Rows to Kafka from many requests: those that come while a batch is under way share the next one.

Each partition has a lane of its own, so that one without a leader holds up no other. Who comes first is served first. Time is kept
for all of them at once: a timer for each would cost a request more than its row does.
"""

import asyncio
from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass

from aiokafka import AIOKafkaProducer
from aiokafka.producer.message_accumulator import BatchBuilder

from app.intake import Row

Place = tuple[str, int]  # topic and partition

LOOK = 0.1  # seconds between two looks for what has waited long enough


@dataclass(slots=True, eq=False)
class Parcel:
    """What one request has for one place. `done` tells why Kafka did not take it; nothing: it has all of it."""

    rows: Sequence[Row]
    until: float  # by the clock of the loop: then it is ended
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
        self._sent: dict[Place, list[Parcel]] = {}  # all of which is in the batch that is under way
        self._under_way: dict[Place, asyncio.Task[None]] = {}
        self._looking: asyncio.TimerHandle | None = None

    def put(self, place: Place, rows: Sequence[Row], patience: float) -> Parcel:
        """To be ended with TimeoutError after so many seconds, or up to LOOK later. It may arrive nevertheless."""
        parcel = Parcel(rows, self._loop.time() + patience, self._loop.create_future())
        self._waiting[place].append(parcel)
        if place not in self._under_way:
            self._sent[place] = []
            self._under_way[place] = asyncio.create_task(self._run(place))
            if self._looking is None:
                self._looking = self._loop.call_later(LOOK, self._look)
        return parcel

    def _look(self) -> None:
        now = self._loop.time()
        for place in self._under_way:
            for parcel in (*self._sent[place], *self._waiting[place]):
                if parcel.until <= now:
                    parcel.end(TimeoutError())
        self._looking = self._loop.call_later(LOOK, self._look) if self._under_way else None

    async def _run(self, place: Place) -> None:
        waiting = self._waiting[place]
        try:
            while waiting:
                await self._send(place, waiting)
        finally:
            del self._under_way[place], self._sent[place]

    async def _send(self, place: Place, waiting: deque[Parcel]) -> None:
        """One batch of what has waited longest, until Kafka has it or refuses it."""
        topic, partition = place
        batch = self._producer.create_batch()
        whole, begun = _fill(batch, waiting)
        self._sent[place] = whole
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
