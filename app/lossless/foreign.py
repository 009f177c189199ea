"""Rows that somebody else wrote into the changelogs of our partitions.

A worker that sleeps through its session and wakes may have a write under way, from the time in which it was the owner.
Nothing fences that: the row lands behind the new owner's rows, and the next recovery would believe it. So the owner looks
where its changelogs end, and where they go on after its own last row it says again what it has of those keys. It does
so with each write (rows.py), now and then, and once more before it gives partitions up: that is when sleepers wake.

What is left: an owner that dies after such a row landed and before it looked. Its successor believes the row.
"""

import asyncio
import time
from typing import TYPE_CHECKING, Any

import structlog
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError
from faust.types import TP

from app.lossless.batch import Lost, die

if TYPE_CHECKING:
    from app.lossless.app import App

log = structlog.get_logger()

ANSWER_MAX = 3.0  # seconds to wait for log ends


class Watch:
    """Looks where our changelogs end."""

    def __init__(self, app: "App") -> None:
        self.every = 10.0  # seconds
        self._app = app
        self._generation = -1  # the one that has recovered
        self._turn = asyncio.Lock()  # one question at a time: unanswered ones must not pile up
        app.on_ready.append(self._recovered)

    def _recovered(self, generation: int) -> None:
        self._generation = generation

    async def run(self) -> None:
        try:
            while not self._app.should_stop:
                await asyncio.sleep(self.every)
                await self.look()
        except Exception as exc:
            log.exception("foreign.failed")
            die("nobody would see foreign rows any more", error=type(exc).__name__)

    async def look(self) -> None:
        """Once, at all that we own. What cannot be asked now is asked the next time."""
        async with self._turn:
            generation, now = self._generation, time.time()
            if generation != self._app.consumer_generation_id:
                return  # not recovered yet
            owned = [(rows, p) for rows in self._app.rows.values() for p in rows.partitions()]
            try:
                ends = await self._ends([TP(rows.changelog, p) for rows, p in owned])
                for rows, p in owned:
                    await rows.agree(p, ends[TP(rows.changelog, p)], generation)
                    rows.in_step(p, now)
                    await asyncio.sleep(0)  # that wrote a file, and there may be very many of them
            except Lost:
                return  # the partitions go, or have gone
            except (KafkaError, TimeoutError) as exc:
                log.warning("foreign.not_asked", error=repr(exc))

    async def _ends(self, tps: list[TP]) -> dict[TP, int]:
        async with asyncio.timeout(ANSWER_MAX):
            ends: dict[TP, int] = await self._app.consumer.readable_ends(tps) if tps else {}
            return ends


async def read(app: Any, tp: TP, begin: int, end: int) -> list[bytes]:
    """The keys of the rows from `begin` up to before `end`, repeated ones included. Raises KafkaError.

    A consumer of its own, without group: the group's would have to be sent to and fro under Faust's eyes.
    """
    theirs, found = TopicPartition(*tp), list[bytes]()
    consumer = app.bus.consumer(
        client_id=app.conf.broker_client_id,
        group_id=None,
        auto_offset_reset="earliest",  # retention may have taken the first of them
    )
    try:
        await consumer.start()
        consumer.assign([theirs])
        consumer.seek(theirs, begin)
        while await consumer.position(theirs) < end:
            for record in (await consumer.getmany(timeout_ms=200)).get(theirs, ()):
                if begin <= record.offset < end and record.key is not None:
                    found.append(record.key)
    finally:
        await consumer.stop()
    return found
