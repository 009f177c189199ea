"""Follows the ends of `<prefix>.conversions` and `<prefix>.receipts` into a window (live.py), for as long as somebody looks.

One reader a worker, however many look. Where there is more than a worker should read beside its work, it follows fewer partitions.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine
from typing import Any

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from app import records, topics
from app.errors import CapistreamError
from app.settings import Settings
from app.view.live import MINUTE, MINUTES, MOST, Window

log = structlog.get_logger()

IDLE = 30.0  # seconds without anybody who looks, after which nothing is read any more
BUDGET = 2000.0  # records a second that are read
POLL = 300  # milliseconds
BEFORE = 10_000  # milliseconds by which a receipt may stand before its conversion: dedup writes both at once
#: Receipts that are read to begin with, the newest ones. While a long backlog drains there are more, and some events look as if
#: they waited still.
RECEIPTS = 100_000
PATIENCE = 10.0  # seconds until reading has begun
AGAIN = 5.0  # seconds after a failure, before it is tried again


def share(rate: float, partitions: int, budget: float = BUDGET) -> int:
    """How many partitions to follow where all of them get so many records a second."""
    return partitions if rate <= budget else max(1, int(partitions * budget / rate))


class Feed:
    def __init__(
        self,
        settings: Settings,
        aside: Callable[[Coroutine[Any, Any, None]], None],
        stopping: Callable[[], bool],
    ) -> None:
        """`aside` lets a coroutine run beside everything else; the reading ends when `stopping` says so."""
        self._settings, self._aside, self._stopping = settings, aside, stopping
        self._wanted = 0.0  # monotonic time at which somebody looked last
        self._running = False
        self._not_before = 0.0  # monotonic time
        self._begun = asyncio.Event()  # caught up, or failed
        self.window = Window()
        self.partitions: tuple[int, ...] = ()  # that are followed
        self.since = 0  # Unix milliseconds from which all that was appended there was read
        self.why_not = ""  # why nothing is read; empty: it is

    @property
    def reading(self) -> bool:
        """Has it caught up?"""
        return self._begun.is_set()

    def look(self) -> Window:
        """Somebody looks: read on, or begin to."""
        self._wanted = time.monotonic()
        if not self._running and time.monotonic() >= self._not_before:
            self._running = True
            self._begun.clear()
            self._aside(self._run())
        return self.window

    async def begun(self, patience: float) -> None:
        """Wait until it has caught up, or failed; not longer than `patience`."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._begun.wait(), patience)

    def _goes_on(self) -> bool:
        return time.monotonic() - self._wanted < IDLE and not self._stopping()

    async def _run(self) -> None:
        ended = False
        try:
            async with records.reader(self._settings) as consumer:
                why_not = await _why_not(self._follow(consumer))
                self._over(why_not)  # not later: a consumer takes its time to end, and somebody may look meanwhile
                ended = True
        except CapistreamError as exc:
            if not ended:
                self._over(str(exc))

    def _over(self, why_not: str) -> None:
        """Nothing of what was read is kept."""
        self._running, self.why_not = False, why_not
        self.window, self.partitions = Window(), ()
        if why_not:
            log.warning("view.feed_failed", error=why_not)
            self._not_before = time.monotonic() + AGAIN
        self._begun.set()

    async def _follow(self, consumer: AIOKafkaConsumer) -> None:
        async with asyncio.timeout(PATIENCE):
            await self._begin(consumer)
            # aiokafka: a consumer that is stopped between being assigned something and being asked for it never stops
            taken, counted = await self._take_more(consumer), time.monotonic()
        self.why_not = ""
        self._begun.set()
        while self._goes_on():
            taken += await self._take_more(consumer)
            if time.monotonic() - counted > MINUTE / 1000:
                if taken > BUDGET * MINUTE / 1000 and len(self.partitions) > 1:
                    break  # more than there was at the begin: anew, with fewer partitions
                taken, counted = 0, time.monotonic()

    async def _begin(self, consumer: AIOKafkaConsumer) -> None:
        """Read the newest conversions, and then go on with their receipts and what comes."""
        names, count, now = topics.names(self._settings), self._settings.kafka.partitions, int(time.time() * 1000)
        await records.must_exist(consumer._client, names.conversions)
        await records.must_exist(consumer._client, names.receipts)
        all_ = [TopicPartition(topic, p) for topic in (names.conversions, names.receipts) for p in range(count)]
        ends = await consumer.end_offsets(all_)
        rate = sum(ends[tp] - at for tp, at in (await records.written_since(consumer, now - MINUTE, ends)).items()) / 60
        self.window, self.partitions = Window(), tuple(range(share(rate, count)))
        tps = [TopicPartition(names.conversions, p) for p in self.partitions]
        begins = await consumer.beginning_offsets(tps)
        charted = await records.written_since(consumer, now - MINUTES * MINUTE, {tp: ends[tp] for tp in tps})
        start = {tp: max(begins[tp], ends[tp] - MOST // len(tps)) for tp in tps}
        oldest: dict[TopicPartition, int] = {}
        consumer.assign(tps)
        for tp in tps:
            consumer.seek(tp, start[tp])
        newest: list[Any] = []
        while any([await consumer.position(tp) < ends[tp] for tp in tps]):
            for tp, some in (await consumer.getmany(timeout_ms=POLL, max_records=500)).items():
                oldest.setdefault(tp, some[0].timestamp)
                newest += some
        await self._take(newest)
        # a chart begins where all partitions were read from
        self.since = max((oldest[tp] for tp in oldest if start[tp] > charted[tp]), default=0)
        at = {tp: await consumer.position(tp) for tp in tps}
        answers = {TopicPartition(names.receipts, tp.partition): oldest.get(tp, now) - BEFORE for tp in tps}
        for tp, when in answers.items():
            first = (await records.written_since(consumer, when, {tp: ends[tp]}))[tp]
            at[tp] = max(first, ends[tp] - RECEIPTS // len(answers))
        consumer.assign(list(at))
        for tp, offset in at.items():
            consumer.seek(tp, offset)
        while any([await consumer.position(tp) < ends[tp] for tp in answers]):
            await self._take_more(consumer)

    async def _take_more(self, consumer: AIOKafkaConsumer) -> int:
        """How many records there were."""
        found = await consumer.getmany(timeout_ms=POLL, max_records=500)
        await self._take(some := [record for of in found.values() for record in of])
        return len(some)

    async def _take(self, found: list[Any]) -> None:
        """In the order of their time, whatever partition they are of."""
        conversions = topics.names(self._settings).conversions
        for n, record in enumerate(sorted(found, key=lambda one: one.timestamp)):
            take = self.window.conversion if record.topic == conversions else self.window.receipt
            take(record.key or b"", record.value, record.timestamp)
            if n % 500 == 499:
                await asyncio.sleep(0)  # the worker has other work


async def _why_not(work: Coroutine[Any, Any, None]) -> str:
    """Why it did not come to its end; empty: it did."""
    try:
        await work
    except (CapistreamError, KafkaError, TimeoutError) as exc:
        return str(exc) or "Kafka does not answer"
    except Exception as exc:
        log.exception("view.feed_failed")
        return type(exc).__name__
    return ""
