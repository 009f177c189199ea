"""Each second: what we know of our source partitions to everyone, and the clock to our partitions that hold something."""

import asyncio
import time
from typing import TYPE_CHECKING

import orjson
import structlog
from aiokafka.errors import KafkaError
from faust.types import TP

from app import bus, clock, metrics, topics
from app.errors import Unavailable
from app.lossless import Lost, die

if TYPE_CHECKING:
    from app.main import Pipeline

log = structlog.get_logger()

RECOUNT = 60.0  # seconds


class Clock:
    def __init__(self, pipeline: "Pipeline") -> None:
        self.pipeline = pipeline
        self.watermarks = clock.Watermarks(max_lag=int(pipeline.settings.worker.max_lag_wait * 1000))
        self._needed: tuple[str, ...] = ()
        self._recount = 0.0  # when the partitions of the source topics are counted again
        self._question: tuple[int, asyncio.Future[dict[TP, int]]] | None = None
        self.turned = 0.0  # monotonic time at which the rounds turned last

    async def listen(self) -> None:
        """Read everybody's watermarks. Whoever misses some knows less, and closes later."""
        pipeline = self.pipeline
        while not pipeline.app.should_stop:
            reader = bus.of(pipeline.settings).consumer(
                pipeline.names.clock, group_id=None, auto_offset_reset="latest", fetch_max_wait_ms=100
            )
            try:
                await reader.start()
                async for record in reader:
                    self.watermarks.read(record.value)
            except KafkaError as exc:
                log.warning("clock.unheard", error=repr(exc))
                await asyncio.sleep(0.5)
            finally:
                await reader.stop()

    async def tick(self) -> None:
        """The rounds, for as long as the worker runs."""
        app = self.pipeline.app
        last, settled_from = time.monotonic(), 0.0
        while not app.should_stop:
            await asyncio.sleep(clock.INTERVAL - time.time() % clock.INTERVAL)
            self.turned = time.monotonic()
            generation = app.consumer_generation_id
            if app.consumer.ready != generation or app.consumer.yielding:
                continue
            # Kafka or we stood still: copies with older times may be on their way. Claim nothing newer for a while.
            if time.monotonic() - last > clock.INTERRUPTED:
                settled_from = time.monotonic() + clock.SETTLE
                log.info("clock.settling", silent=round(time.monotonic() - last, 1))
            begun = time.monotonic()
            try:
                await self._round(generation, settled=begun >= settled_from)
            except (Lost, Unavailable, TimeoutError, KafkaError) as exc:
                log.info("clock.round_missed", why=repr(exc))
            except asyncio.CancelledError:
                raise
            except BaseException as exc:
                if app.should_stop:
                    return  # its consumer stopped in the middle of the round
                log.exception("clock.failed")
                die("the clock failed", error=type(exc).__name__)
            else:
                last = begun  # its begin: a round that hung in a write was an interruption, too

    async def _round(self, generation: int, *, settled: bool) -> None:
        pipeline = self.pipeline
        consumer, now = pipeline.app.consumer, int(time.time() * 1000)
        if time.monotonic() > self._recount:  # a topic may have been given more partitions
            counts = await topics.partition_counts(pipeline.settings)
            if len(counts) < len(pipeline.settings.sources):
                raise Unavailable("a broker that has just come back does not know all source topics yet")
            # only now: a clock that waits for no source would split pairs
            self._recount = time.monotonic() + RECOUNT
            self._needed = tuple(f"{topic}-{n}" for topic, count in counts.items() for n in range(count))
        if self._needed:
            asked, ends = await self._ends(now) if settled else (now, {})
            if consumer.ready != generation or pipeline.app.consumer_generation_id != generation or consumer.yielding:
                raise Lost("partitions are on the move")
            if marks := pipeline.normalize.watermarks(generation, ends, asked):
                row = (None, orjson.dumps({"marks": marks}), now)
                await pipeline.write({(pipeline.names.clock, 0): [row]}, generation)
            await asyncio.sleep(0.2)  # the others write theirs now
        moment = self.watermarks.clock(now - clock.SLACK, self._needed)
        metrics.SOURCES_LEFT_OUT.set(len(self.watermarks.left_out))
        if moment is None or not settled:
            return
        metrics.CLOCK_LAG.set((now - moment) / 1000)
        row = (None, clock.encode(moment), now)
        waiting = pipeline.dedup.waiting(generation)
        await pipeline.write({(pipeline.names.events, p): [row] for p in waiting}, generation)

    async def _ends(self, now: int) -> tuple[int, dict[TP, int]]:
        """(when it was asked, log ends of our source partitions). Raises TimeoutError when Kafka does not answer."""
        mine = [tp for tp in self.pipeline.app.consumer.sources() if tp.topic in self.pipeline.normalize.inlets]
        if not mine:
            return now, {}
        if self._question is None:
            self._question = now, asyncio.ensure_future(self.pipeline.app.consumer.end_offsets(mine))
        # never two at a time: they would pile up while the broker is away
        await asyncio.wait({self._question[1]}, timeout=5)
        if not self._question[1].done():
            raise TimeoutError("ListOffsets")
        (asked, answer), self._question = self._question, None
        return asked, answer.result()
