"""capistream.events -> hold, merge, once per conversion; decide per destination -> capistream.to.<destination>.

What it decides is in app/dedup.py; this file reads and writes. It is the one writer of the tables `seen` and `held`.
"""

import time
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
import orjson
import structlog

from app import clock, dedup, erasure, intake, metrics, receipts, routing, shape, topics
from app.dead_letter import DeadLetter
from app.events import Event
from app.intake import label
from app.lossless import Batch, Lost
from app.shape import Copy
from sinks import SINKS

if TYPE_CHECKING:
    from app.main import Pipeline

log = structlog.get_logger()

CLOCK_AT_LEAST = 10.0  # seconds between clock records of a partition without holds
SWEEP = 500  # rows looked at with each clock record
PAGE = {"held": 1000, "seen": 4000}  # the same while somebody is to be erased: all of a large table within minutes


@dataclass
class Pass:
    """Of an erasure over the tables of one partition."""

    held: bytes | None = b""  # where it goes on; None: it is through
    seen: bytes | None = b""
    erasures: int = 0  # that were known when it began
    again: float = 0.0  # our monotonic clock

    @property
    def over(self) -> bool:
        return self.held is None and self.seen is None


@dataclass
class Counts:
    """Of one batch."""

    closings: Counter[tuple[str, str]] = field(default_factory=Counter)  # by event name and how
    ended: Counter[tuple[str, str]] = field(default_factory=Counter)  # by destination and how it ended there


class Output(msgspec.Struct, gc=False):
    """What comes of a conversion that closed."""

    key: bytes
    how: str
    event_name: str
    value: bytes  # its row in capistream.conversions
    queued: Sequence[tuple[str, bytes]] = ()  # (destination, its row)
    ended: Sequence[tuple[str, str]] = ()  # (destination, how it ended there)
    receipts: Sequence[intake.Row] = ()


class Queued(msgspec.Struct, gc=False):
    """A record of a destination's topic."""

    v: int
    event: msgspec.Raw
    basis: str


_json = msgspec.json.Encoder().encode


class Dedup:
    def __init__(self, pipeline: "Pipeline") -> None:
        self.pipeline = pipeline
        self.partitions: dict[int, dedup.Partition] = {}
        self._updating = frozenset(
            name for name, one in pipeline.settings.destinations.items() if SINKS[one.sink].takes_revisions
        )
        self._alike = erasure.alike(routing.alike(pipeline.settings), pipeline.people.known)
        self.denials = 0  # times that late copies denied something so far
        self._waits = max(
            [topics.oldest(pipeline.settings, name) for name in pipeline.settings.destinations], default=0
        )
        self._write = pipeline.in_groups()
        self._generation = -1
        self._passes: dict[int, Pass] = {}
        self._heard: dict[int, float] = {}  # partition -> when it had a clock record last, by our monotonic clock

    def recovered(self, generation: int) -> None:
        """After recovery, before any batch of this generation: find the holds again. The clock starts unknown."""
        app = self.pipeline.app
        self.partitions = {}
        for tp in app.consumer.sources():
            if tp.topic == self.pipeline.names.events:
                partition = self._new_partition()
                partition.recover(self.pipeline.held.items(tp.partition))
                self.partitions[tp.partition] = partition
        self._passes = {}
        self._generation = generation
        held = {p: one.waiting for p, one in self.partitions.items() if one.waiting}
        log.info("dedup.recovered", generation=generation, partitions=sorted(self.partitions), held=held)

    def _new_partition(self) -> dedup.Partition:
        prints = self.pipeline.people.prints
        return dedup.Partition(
            rule=self.pipeline.settings.rule,
            route=self._routes,
            updating=self._updating,
            prints=prints.of_copies if prints.keys else None,
            secrets=prints.keys,
            denies=self._denies,
            output=self._output,
            alike=self._alike,
        )

    def waiting(self, generation: int) -> list[int]:
        """Our partitions that need the clock: always those with open holds, now and then the others, too, to forget."""
        if self._generation != generation:
            return []
        silent = time.monotonic() - CLOCK_AT_LEAST
        return [
            p for p, one in self.partitions.items() if one.waiting or self._heard.get(p, 0.0) < silent or self._owes(p)
        ]

    def _routes(self, event: Event) -> Mapping[str, routing.Route]:
        """Merging does not depend on who is forgotten; what goes out does, here and once more at deliver."""
        return erasure.routes(routing.routes(event, self.pipeline.settings), self.pipeline.people.known.of(event))

    def _denies(self, copy: Event, but: Container[str]) -> bool:
        return routing.denies(copy, self.pipeline.settings, but)

    async def batch(self, batch: Batch) -> None:
        left = await self._part(batch, batch.records)
        while left:
            if self.pipeline.app.consumer.leaving:
                raise Lost("the next owner ends the rest of the holds")
            left = await self._part(batch, left)

    async def _part(self, batch: Batch, records: Sequence[Any]) -> Sequence[Any]:
        """Returns the records that are left, where very many holds end at once: others have their turn between."""
        pipeline, p = self.pipeline, batch.tp.partition
        await pipeline.app.consumer.own(batch.generation)
        # from the reads to the result nothing awaits
        memory, partition = self._memory(batch), self.partitions[p]
        result = partition.run(
            records,
            lambda keys: pipeline.seen.get(p, keys),
            lambda keys: pipeline.held.get(p, keys),
            dedup.MOST_ENDING,
        )
        result.seen |= memory
        if not result.left and partition.now is not None and any(record.key is None for record in records):
            self._heard[p] = time.monotonic()
            self._forget(p, partition, partition.now, result)
            self._erase(p, partition, result)
        counts = Counts()
        places = await self._write(self._outputs(p, result, counts), batch.generation)
        dedup.note_places(result, places.get((pipeline.names.conversions, p), ()))
        # One after the other: were the hold deleted and the row not written, nobody would remember that it closed, and a
        # later copy would make a second conversion of fewer copies.
        await pipeline.seen.write(p, result.seen, batch.generation)
        await pipeline.held.write(p, result.held, batch.generation)
        if result.denied:  # now that deliver can read it
            self.denials += 1
            for one in pipeline.deliver.values():
                one.denied(result.denied)
        self._count(p, result, counts)
        return result.left

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
        keep = self.pipeline.settings.view.journey_retention * 1000
        gone = self.pipeline.seen.sweep(p, SWEEP, dedup.forgotten(partition.rule, now, keep, self._waits + topics.DAY))
        result.seen.update((key, None) for key in gone if key not in result.seen)

    # -- erasure

    def _owes(self, p: int) -> bool:
        """Is there to be a look at its rows for people who are erased? After each entry, and each hour for late copies."""
        known = self.pipeline.people.known
        if not known.erasures:
            return False
        one = self._passes.setdefault(p, Pass(erasures=known.erasures))
        if one.over and (one.erasures < known.erasures or time.monotonic() > one.again):
            one = self._passes[p] = Pass(erasures=known.erasures)
        return not one.over

    def _erase(self, p: int, partition: dedup.Partition, result: dedup.Result) -> None:
        """Some more rows of the pass; what comes of it joins what the batch writes. Nothing awaits before that."""
        if not self._owes(p):
            return
        one, known, pipeline = self._passes[p], self.pipeline.people.known, self.pipeline
        wanted: list[bytes] = []
        if one.held is not None:
            rows, one.held = pipeline.held.page(p, one.held, PAGE["held"])
            wanted += [key for key, row in rows if key in partition.open and _has_copy_of(known, row)]
        if one.seen is not None:
            rows, one.seen = pipeline.seen.page(p, one.seen, PAGE["seen"])
            wanted += [key for key, row in rows if known.erases_row(key, row)]
        more = partition.erase(
            list(dict.fromkeys(wanted)),
            known.erases,
            lambda keys: _newest(keys, result.seen, pipeline.seen.get(p, keys)),
            lambda keys: _newest(keys, result.held, pipeline.held.get(p, keys)),
        )
        result.closed += more.closed
        result.seen |= more.seen
        result.held |= more.held
        if one.over:
            one.again = time.monotonic() + erasure.pace(pipeline.settings).passes
            log.info("dedup.erased", partition=p, erasures=one.erasures)

    def _outputs(self, p: int, result: dedup.Result, counts: Counts) -> intake.Rows:
        rows, names, now = intake.new_rows(), self.pipeline.names, int(time.time() * 1000)
        for offset in result.unreadable:
            letter = DeadLetter("dedup", "not_an_event", {"topic": names.events, "partition": p, "offset": offset})
            intake.refuse(rows, letter, names, self.pipeline.partitions)
        conversions = rows[names.conversions, p] if result.closed else []
        for out in result.closed:
            conversions.append((out.key, out.value, now))
            counts.closings[out.event_name, out.how] += 1
            for name, value in out.queued:
                rows[names.to(name), p].append((out.key, value, now))
            for one in out.ended:
                counts.ended[one] += 1
            if out.receipts:
                rows[names.receipts, p] += out.receipts
        return rows

    def _output(self, closing: dedup.Closing) -> Output:
        """What goes out, as others may see it."""
        key, how, event_name, known = closing.key, closing.how, closing.event.event_name, self.pipeline.people.known
        if how == "erased" or (known.changes and known.erases(shape.as_event(closing.event))):
            closing = erasure.bare(closing)
        event, routes = closing.event, closing.decision.routes
        if not routes:
            return Output(key, how, event_name, _json(closing.record()))
        queued, ended = [], []
        said = msgspec.Raw(_json(event))  # once, however many destinations get it
        for name, route in routes.items():
            if route.state == "queued":
                queued.append((name, _json(Queued(1, said, route.basis))))
            else:
                ended.append((name, route.state))
        told = self._receipts(event, routes) if ended else ()
        return Output(key, how, event_name, _json(closing.record(said)), queued, ended, told)

    def _receipts(self, event: Copy, routes: Mapping[str, routing.Route]) -> list[intake.Row]:
        """Of the destinations that do not get it."""
        row = partial(
            receipts.row, shape.as_event(event), now=int(time.time() * 1000), config=self.pipeline.settings.hash
        )
        return [
            row(name, route.state, reason=route.reason, basis=route.basis)
            for name, route in routes.items()
            if route.state != "queued"
        ]

    def _count(self, p: int, result: dedup.Result, counts: Counts) -> None:
        metrics.HELD.labels(str(p)).set(self.partitions[p].waiting)
        for (event_name, how), count in counts.closings.items():
            metrics.CONVERSIONS.labels(label(event_name), how).inc(count)
        for (name, state), count in counts.ended.items():
            metrics.OUTCOMES.labels(name, state).inc(count)
        for (event_name, flag), count in Counter(result.flags).items():
            metrics.FLAGGED.labels(label(event_name), flag).inc(count)
        for (event_name, kind), count in Counter(result.duplicates).items():
            metrics.DUPLICATES.labels(label(event_name), kind).inc(count)


def _has_copy_of(known: erasure.Forgotten, row: bytes) -> bool:
    """Holds that a merge will end soon are left to it."""
    hold = orjson.loads(row)
    return "k" in hold and any(map(known.erases, hold["x"]))


def _newest(keys: Sequence[bytes], written: dedup.Rows, stored: Sequence[bytes | None]) -> list[bytes | None]:
    """Rows as they are with what is about to be written."""
    return [written.get(key, row) for key, row in zip(keys, stored, strict=True)]
