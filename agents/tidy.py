"""What goes sooner than Kafka and RocksDB would let it go: what is finished, and what was deleted.

Every owner does it for its own partitions. What Kafka does not allow is tried again later, and retention ends it in any case.

    trim     records that are finished and older than `kafka.replay_window` are deleted
    nudge    Kafka compacts or deletes no segment that still takes records, and begins a new one only with a record. So each of
             these topics gets one now and then, and what was deleted is gone in time in a quiet partition, too
    scrub    after an erasure the local files are rewritten, without the rows that were deleted in them
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import structlog
from aiokafka import TopicPartition
from aiokafka.admin import RecordsToDelete
from aiokafka.errors import KafkaError

from app import bus, erasure, intake, records
from app.errors import Unavailable
from app.lossless import Lost
from app.outcome_rows import NUDGE
from app.settings import Settings

if TYPE_CHECKING:
    from app.main import Pipeline

log = structlog.get_logger()

PATIENCE = 60.0  # seconds for Kafka's answers


class Tidy:
    def __init__(self, pipeline: "Pipeline") -> None:
        self.pipeline = pipeline
        self._every = erasure.pace(pipeline.settings)
        self._trim_at = 0.0  # monotonic time
        self._nudge_at = time.monotonic() + self._every.nudges
        self._scrub_at = 0.0
        self._scrubs = 0  # still to do: at once, and when the pass over the tables is through
        self._erasures = 0  # for which that was begun

    async def run(self) -> None:
        """For as long as the worker runs."""
        app = self.pipeline.app
        while not app.should_stop:
            await asyncio.sleep(min(60.0, self._every.trims, self._every.nudges))
            now, generation = time.monotonic(), app.consumer_generation_id
            if app.consumer.ready != generation or app.consumer.yielding:
                continue
            try:
                if now > self._trim_at:
                    self._trim_at = now + self._every.trims
                    await self._trim()
                if now > self._nudge_at:
                    self._nudge_at = now + self._every.nudges
                    await self._nudge(generation)
                if self._erasures != (known := self.pipeline.people.known.erasures):
                    self._erasures, self._scrubs = known, 2
                if self._scrubs and now > self._scrub_at:
                    self._scrub_at, self._scrubs = now + self._every.passes, self._scrubs - 1
                    await self._scrub()
            except (Lost, Unavailable, TimeoutError, KafkaError) as exc:
                log.warning("tidy.not_done", why=repr(exc))

    async def _trim(self) -> None:
        """Delete what is older than the replay window, and committed: nobody reads it again but a replay."""
        settings = self.pipeline.settings
        mine = {one.topic for one in self.pipeline.deliver.values()}
        done = {
            TopicPartition(tp.topic, tp.partition): offset
            for tp, offset in self.pipeline.app.consumer.committed_to().items()
            if tp.topic in mine
        }
        if done:
            async with asyncio.timeout(PATIENCE):
                young = await _since(settings, list(done), time.time() - settings.kafka.replay_window)
                await _delete(settings, trimmed(done, young))

    async def _nudge(self, generation: int) -> None:
        pipeline, consumer, now = self.pipeline, self.pipeline.app.consumer, int(time.time() * 1000)
        mine = {tp.partition for tp in consumer.sources() if tp.topic == pipeline.names.events}
        for rows in list(pipeline.app.rows.values()):
            for p in mine.intersection(rows.partitions()):
                await rows.write(p, {NUDGE: None}, generation)
        nudges: intake.Rows = {(one.topic, p): [(NUDGE, None, now)] for one in pipeline.deliver.values() for p in mine}
        await pipeline.write(nudges, generation)

    async def _scrub(self) -> None:
        app = self.pipeline.app
        for rows in list(app.rows.values()):
            for p in rows.partitions():
                if app.consumer.leaving:
                    return
                await asyncio.to_thread(rows.scrub, p)


def trimmed(done: Mapping[TopicPartition, int], young: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
    """Before which offset to delete, by what is finished and by the first record inside the window, else the end."""
    before = {tp: min(done[tp], first) for tp, first in young.items()}
    return {tp: offset for tp, offset in before.items() if offset > 0}


async def _since(settings: Settings, tps: Sequence[TopicPartition], moment: float) -> dict[TopicPartition, int]:
    """Where the first record of that Unix time or later stands, else the end."""
    async with records.reader(settings) as consumer:
        return await records.written_since(consumer, int(moment * 1000), await consumer.end_offsets(tps))


async def _delete(settings: Settings, before: Mapping[TopicPartition, int]) -> None:
    if not before:
        return
    admin = bus.of(settings).admin()
    try:
        await admin.start()
        await admin.delete_records({tp: RecordsToDelete(offset) for tp, offset in before.items()})
    finally:
        await admin.close()
