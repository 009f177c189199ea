"""The loop that every agent runs: the batches of one partition in order, partitions side by side.

What has come in while a lane was busy it takes as one batch: the busier, the fewer, and cheaper, turns.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import structlog
from faust.types import TP

from app import metrics
from app.lossless.batch import Batch, Lost, die

log = structlog.get_logger()

#: What an agent does with a batch. It may return a future: then the batch is finished when that is done, and not before,
#: while the next batch of the partition begins.
Work = Callable[[Batch], Awaitable[asyncio.Future[None] | None]]


class _Submitted(NamedTuple):
    batch: Batch
    work: Work


class Lanes:
    """Runs `work` on batches. A batch is finished when `work` returned, left open when it raised Lost; anything else ends
    the process, because an exception that nobody understood must not commit.
    """

    def __init__(self, most: int) -> None:
        self.most = most  # records of one turn
        self._queues: dict[TP, deque[_Submitted]] = {}
        self._running: dict[TP, asyncio.Task[None]] = {}
        self._broken: dict[TP, int] = {}  # partition -> generation in which a batch was left open
        self.also: list[Callable[[], Awaitable[None]]] = []  # what else `quiesce` waits for

    def submit(self, batch: Batch, work: Work) -> None:
        """It begins as soon as its lane is free."""
        self._queues.setdefault(batch.tp, deque()).append(_Submitted(batch, work))
        if batch.tp not in self._running:
            self._running[batch.tp] = asyncio.create_task(self._drain(batch.tp), name=f"lane {batch.tp}")

    async def quiesce(self) -> None:
        """Begin nothing more, and wait for what has begun to end (it may also give up: Lost)."""
        self._queues.clear()
        while self._running:
            await asyncio.wait(self._running.values())
        for ends in self.also:
            await ends()

    async def _drain(self, tp: TP) -> None:
        try:
            while queue := self._queues.get(tp):
                batch, work = self._next(queue)
                # After a Lost batch memory may be ahead of the tables. A lease that comes back in the same generation
                # must not let later batches build on that.
                if self._broken.get(tp) != batch.generation:
                    await self._one(batch, work)
        finally:
            del self._running[tp]

    def _next(self, queue: deque[_Submitted]) -> tuple[Batch, Work]:
        """All that waits, as one batch, as far as it may go together."""
        first, work = queue.popleft()
        batches, records = [first], len(first.records)
        while queue:
            batch, its = queue[0]
            records += len(batch.records)
            if records > self.most or batch.generation != first.generation or its != work:
                break
            batches.append(queue.popleft().batch)
        return Batch.joined(batches), work

    async def _one(self, batch: Batch, work: Work) -> None:
        begun = time.perf_counter()
        try:
            later = await work(batch)
        except Lost as exc:
            self._broken[batch.tp] = batch.generation
            log.info("batch.lost", batch=repr(batch), why=str(exc))
        except asyncio.CancelledError:
            self._broken[batch.tp] = batch.generation
            raise
        except BaseException as exc:
            log.exception("batch.failed", batch=repr(batch))
            die("an agent failed", batch=repr(batch), error=type(exc).__name__)
        else:
            if later is None:
                self._finish(batch, begun)
            else:
                later.add_done_callback(lambda _: self._finish(batch, begun))

    def _finish(self, batch: Batch, begun: float) -> None:
        batch.finish()
        metrics.RECORDS.labels(batch.tp.topic).inc(len(batch.records))
        metrics.BATCH_SECONDS.labels(batch.tp.topic).observe(time.perf_counter() - begun)


def agent(app: Any, topic: Any, work: Work, name: str, beat: float = 0.0) -> None:
    """Register `work` as the Faust agent of `topic`, which is fetched once in each `beat` (seconds), if it has one."""

    async def run(stream: Any) -> None:
        async for batches in stream:
            for batch in batches:
                app.lanes.submit(batch, work)

    if beat:
        app.beats[topic.get_topic_name()] = beat
    run.__name__ = run.__qualname__ = name
    app.agent(topic, name=name)(run)
