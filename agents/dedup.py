"""capistream.events -> hold, merge, once per conversion; decide per destination -> capistream.to.<destination>.

What it decides is in app/dedup.py; this file reads and writes. It is the one writer of the tables `seen` and `held`.
"""

import time
from typing import TYPE_CHECKING

import orjson
import structlog

from app import clock, dedup, intake, metrics, receipts, routing
from app.dead_letter import DeadLetter
from app.intake import label
from app.lossless import Batch
from sinks import SINKS

if TYPE_CHECKING:
    from app.main import Pipeline

log = structlog.get_logger()

CLOCK_AT_LEAST = 10.0  # seconds between clock records of a partition without holds
SWEEP = 500  # rows looked at with each clock record


class Dedup:
    def __init__(self, pipeline: "Pipeline") -> None:
        self.pipeline = pipeline
        self.partitions: dict[int, dedup.Partition] = {}
        self._updating = frozenset(
            name for name, one in pipeline.settings.destinations.items() if SINKS[one.sink].takes_revisions
        )
        self._generation = -1
        self._heard: dict[int, float] = {}  # partition -> when it had a clock record last, by our monotonic clock

    def recovered(self, generation: int) -> None:
        """After recovery, before any batch of this generation: find the holds again. The clock starts unknown."""
        settings, app = self.pipeline.settings, self.pipeline.app
        self.partitions = {}
        for tp in app.consumer.sources():
            if tp.topic == self.pipeline.names.events:
                partition = dedup.Partition(
                    settings.rule, lambda event: routing.routes(event, settings), self._updating
                )
                partition.recover(self.pipeline.held.items(tp.partition))
                self.partitions[tp.partition] = partition
        self._generation = generation
        held = {p: one.waiting for p, one in self.partitions.items() if one.waiting}
        log.info("dedup.recovered", generation=generation, partitions=sorted(self.partitions), held=held)

    def waiting(self, generation: int) -> list[int]:
        """Our partitions that need the clock: always those with open holds, now and then the others, too, to forget."""
        if self._generation != generation:
            return []
        silent = time.monotonic() - CLOCK_AT_LEAST
        return [p for p, one in self.partitions.items() if one.waiting or self._heard.get(p, 0.0) < silent]

    async def batch(self, batch: Batch) -> None:
        pipeline, p = self.pipeline, batch.tp.partition
        await pipeline.app.consumer.own(batch.generation)
        # from the reads to the result nothing awaits
        memory, partition = self._memory(batch), self.partitions[p]
        result = partition.run(
            batch.records, lambda keys: pipeline.seen.get(p, keys), lambda keys: pipeline.held.get(p, keys)
        )
        result.seen |= memory
        if partition.now is not None and any(record.key is None for record in batch.records):
            self._heard[p] = time.monotonic()
            self._forget(p, partition, partition.now, result)
        await pipeline.write(self._outputs(p, result), batch.generation)
        # One after the other: were the hold deleted and the row not written, nobody would remember that it closed, and a
        # later copy would make a second conversion of fewer copies.
        await pipeline.seen.write(p, result.seen, batch.generation)
        await pipeline.held.write(p, result.held, batch.generation)
        self._count(p, result)

    def _memory(self, batch: Batch) -> dedup.Rows:
        """Learn since when the table remembers; and write it down, the first time of all."""
        p, seen = batch.tp.partition, self.pipeline.seen
        partition = self.partitions[p]
        if partition.since is not None:
            return {}
        (row,) = seen.get(p, [dedup.MEMORY])
        if row is not None:
            partition.since = int(orjson.loads(row)["since"])
            return {}
        # Who reads the log from its first record has missed nothing. Else the table was lost: what was received before the
        # first record that is read now may have been sent.
        partition.since = 0 if batch.first == 0 else batch.records[0].timestamp - clock.SLACK
        if partition.since:
            log.warning("dedup.memory_begins_anew", partition=p, first_offset=batch.first)
        return {dedup.MEMORY: orjson.dumps({"since": partition.since})}

    def _forget(self, p: int, partition: dedup.Partition, now: int, result: dedup.Result) -> None:
        """A few rows with each clock record, so that the whole table is gone over in hours and no batch is held up."""
        gone = self.pipeline.seen.sweep(p, SWEEP, dedup.forgotten(partition.rule, now))
        result.seen.update((key, None) for key in gone if key not in result.seen)

    def _outputs(self, p: int, result: dedup.Result) -> intake.Rows:
        rows, names, now = intake.new_rows(), self.pipeline.names, int(time.time() * 1000)
        for offset in result.unreadable:
            letter = DeadLetter("dedup", "not_an_event", {"topic": names.events, "partition": p, "offset": offset})
            intake.refuse(rows, letter, names, self.pipeline.partitions)
        for closed in result.closed:
            rows[names.conversions, p].append((closed.key, orjson.dumps(closed.record()), now))
            for name, route in closed.routes.items():
                if route.state == "queued":
                    value = orjson.dumps({"v": 1, "event": closed.event, "basis": route.basis})
                    rows[names.to(name), p].append((closed.key, value, now))
                else:
                    rows[names.receipts, p].append(
                        receipts.row(
                            closed.event,
                            name,
                            route.state,
                            now=now,
                            config=self.pipeline.settings.hash,
                            reason=route.reason,
                            basis=route.basis,
                        )
                    )
        return rows

    def _count(self, p: int, result: dedup.Result) -> None:
        metrics.HELD.labels(str(p)).set(self.partitions[p].waiting)
        for closed in result.closed:
            metrics.CONVERSIONS.labels(label(closed.event["event_name"]), closed.how).inc()
            for name, route in closed.routes.items():
                if route.state != "queued":
                    metrics.OUTCOMES.labels(name, route.state).inc()
        for event_name, flag in result.flags:
            metrics.FLAGGED.labels(label(event_name), flag).inc()
        for event_name, kind in result.duplicates:
            metrics.DUPLICATES.labels(label(event_name), kind).inc()
