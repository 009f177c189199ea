"""The customer's own topics -> capistream.events; and how far each source partition has come."""

import time
from typing import TYPE_CHECKING, Any

from faust.types import TP

from app import clock, intake, metrics
from app.events import Origin
from app.lossless import Batch
from app.normalize import Inlet, inlet_of, normalize_bytes

if TYPE_CHECKING:
    from app.main import Pipeline


def record_time(record: Any, now: int) -> int:
    """When the record was received, in Unix milliseconds: its own timestamp, but nobody's future."""
    return min(record.timestamp, now) if record.timestamp and record.timestamp > 0 else now


def lowest(batch: Batch, now: int) -> int:
    """A batch has the time of its oldest record: one clock that runs ahead must not speak for a backlog."""
    return min(record_time(record, now) for record in batch.records)


class Normalize:
    def __init__(self, pipeline: "Pipeline") -> None:
        self.pipeline = pipeline
        settings = pipeline.settings
        self.inlets: dict[str, Inlet] = {
            source.topic: inlet_of(settings, name, source) for name, source in settings.sources.items()
        }
        self._generation = -1
        self._reached: dict[TP, int] = {}  # lowest record time of the batch finished last
        self._asked: dict[TP, list[tuple[int, int]]] = {}  # (end offset, when it was asked for), not yet reached
        self._ended: dict[TP, int] = {}  # when the last end that was reached had been asked for

    async def batch(self, batch: Batch) -> None:
        pipeline, now, rows = self.pipeline, int(time.time() * 1000), intake.new_rows()
        inlet = self.inlets[batch.tp.topic]
        for record in batch.records:
            if record.value is None:
                metrics.IGNORED.labels("tombstone").inc()
                continue
            origin: Origin = {"topic": batch.tp.topic, "partition": batch.tp.partition, "offset": record.offset}
            results = normalize_bytes(record.value, inlet, record_time(record, now), origin)
            intake.collect(rows, results, origin, "normalize", pipeline.names, pipeline.partitions, now)
        await pipeline.write(rows, batch.generation)
        self._enter(batch.generation)
        self._reached[batch.tp] = lowest(batch, now)

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
