"""The customer's own topics -> capistream.events; and how far each source partition has come."""

import asyncio
import time
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

import structlog
from faust.types import TP

from app import clock, intake, metrics, reading, schemas
from app.errors import Unavailable
from app.events import Origin
from app.lossless import Batch, Lost
from app.normalize import Inlet, Refused, Result, inlet_of, normalize_bytes

if TYPE_CHECKING:
    from app.main import Pipeline


log = structlog.get_logger()

T = TypeVar("T")

AT_ONCE = 100  # records, until everything else has its turn: answers of Kafka and of platforms, other partitions
BEAT = 0.1  # seconds between two fetches, see app/lossless/fetcher.py; the first record after a pause waits for none
LOOK_EVERY = 0.2  # seconds between looks whether the partition is still ours, while the schema registry is away
WAIT_MAX = 15.0  # seconds between two questions to it


def record_time(record: Any, now: int) -> int:
    """When the record was received, in Unix milliseconds: its own timestamp, but nobody's future."""
    return min(record.timestamp, now) if record.timestamp and record.timestamp > 0 else now


def lowest(batch: Batch, now: int) -> int:
    """A batch has the time of its oldest record: one clock that runs ahead must not speak for a backlog."""
    return min(record_time(record, now) for record in batch.records)


def results_of(record: Any, inlet: Inlet, received: int, origin: Origin, known: schemas.Schemas) -> list[Result]:
    """Of a record with a value. A mistake of ours must not hold up the partition: it is a letter, too, and can be replayed."""
    try:
        return normalize_bytes(record.value, inlet, received, origin, reading.carried(record), known)
    except Exception:
        log.exception("normalize.failed", origin=origin)
        return [Refused("failed", "", "an error of ours; it is in the log")]


class Normalize:
    def __init__(self, pipeline: "Pipeline") -> None:
        self.pipeline = pipeline
        settings = pipeline.settings
        self.inlets: dict[str, Inlet] = {
            source.topic: inlet_of(settings, name, source) for name, source in settings.sources.items()
        }
        # partitions that a schema registry holds up: for Health, which must not restart us for it
        self.waiting: set[TP] = set()
        self._write = pipeline.in_groups()
        self._generation = -1
        self._reached: dict[TP, int] = {}  # lowest record time of the batch finished last
        self._asked: dict[TP, list[tuple[int, int]]] = {}  # (end offset, when it was asked for), not yet reached
        self._ended: dict[TP, int] = {}  # when the last end that was reached had been asked for

    async def batch(self, batch: Batch) -> None:
        pipeline, now, rows = self.pipeline, int(time.time() * 1000), intake.new_rows()
        (topic, partition), names = batch.tp, pipeline.names
        inlet = self.inlets[topic]
        known = await self._schemas(batch) if inlet.encoding == "registry" else {}
        for number, record in enumerate(batch.records, 1):
            if number % AT_ONCE == 0:
                await asyncio.sleep(0)
            if record.value is None:
                metrics.IGNORED.labels("tombstone").inc()
                continue
            origin: Origin = {"topic": topic, "partition": partition, "offset": record.offset}
            results = results_of(record, inlet, record_time(record, now), origin, known)
            intake.collect(rows, results, origin, "normalize", names, pipeline.partitions, now)
        await self._write(rows, batch.generation)
        self._enter(batch.generation)
        self._reached[batch.tp] = lowest(batch, now)

    async def _schemas(self, batch: Batch) -> schemas.Schemas:
        """The schemas that the batch names. A registry that is away holds it: that is no fault of the records. Raises Lost."""
        numbers, pause = schemas.numbers(record.value for record in batch.records), LOOK_EVERY
        registry = await self.pipeline.registry()
        try:
            while True:
                try:
                    return await self._while_ours(batch, registry.schemas(numbers))
                except Unavailable as exc:
                    metrics.REGISTRY_AWAY.labels(batch.tp.topic).inc()
                    log.warning("registry.away", topic=batch.tp.topic, partition=batch.tp.partition, error=str(exc))
                self.waiting.add(batch.tp)
                pause = min(2 * pause, WAIT_MAX)
                await self._while_ours(batch, asyncio.sleep(pause))
        finally:
            self.waiting.discard(batch.tp)

    async def _while_ours(self, batch: Batch, work: Coroutine[Any, Any, T]) -> T:
        """What the work returns or raises; raises Lost as soon as the partition is wanted elsewhere, however long that takes."""
        consumer, task = self.pipeline.app.consumer, asyncio.ensure_future(work)
        try:
            while not (await asyncio.wait({task}, timeout=LOOK_EVERY))[0]:
                await consumer.own(batch.generation)
                if consumer.leaving:
                    raise Lost("the schema registry is away")
            return task.result()
        finally:
            task.cancel()

    def _enter(self, generation: int) -> None:
        if self._generation != generation:
            self._generation = generation
            self._reached, self._asked, self._ended = {}, {}, {}

    def watermarks(self, generation: int, ends: dict[TP, int], asked: int) -> dict[str, int]:
        """Per source partition of ours, the record time in Unix milliseconds before which every copy is acknowledged.

        `ends` are log ends that were true at `asked` (or later), with the records of open transactions: those have their
        times already and come to us only when they are committed. Nothing here awaits: the picture is of one moment.
        """
        self._enter(generation)
        consumer = self.pipeline.app.consumer
        now = int(time.time() * 1000)
        for tp, end in ends.items():
            earlier = self._asked.setdefault(tp, [])
            while earlier and earlier[-1][0] >= end:  # this says more: no further away, and asked for later
                earlier.pop()
            earlier.append((end, asked))
        marks = {}
        for tp in consumer.sources():
            if tp.topic not in self.inlets:
                continue
            done, waiting = consumer.unfinished_from(tp) or 0, self._asked.setdefault(tp, [])
            while waiting and waiting[0][0] <= done:
                self._ended[tp] = waiting.pop(0)[1]
            # an open batch bounds what records say, not what a reached end says: that end lies before it
            batches = consumer.open.get(tp)
            by_record = min(lowest(b, now) for b in batches) if batches else self._reached.get(tp, 0)
            if mark := max(min(asked, by_record), self._ended.get(tp, 0)):
                marks[f"{tp.topic}-{tp.partition}"] = mark - clock.SLACK
        return marks
