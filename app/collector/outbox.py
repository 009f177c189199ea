"""Rows on their way out of the collector: to Kafka, or, while that does not take them, to the spool, and from there to Kafka.

    write    True when Kafka, or this machine's disk, has them for good

With a spool, who asks waits for Kafka for SPOOL_AFTER only, and not at all while it is known to be away. The spool drains by
itself, oldest first; meanwhile new rows go straight to Kafka, as soon as that has taken one from there.

Drained rows carry the time of their receipt, in the event and as the record's timestamp: a copy joins every hold that it would
have joined in time, and one that comes first gets a whole window from the log's clock on (app/dedup.py).
"""

import asyncio
import contextlib
import time
from collections.abc import Iterable

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from app import acls, bus, clock, metrics, topics
from app.collector.lanes import Lanes
from app.collector.spool import Entry, Spool
from app.errors import CapistreamError, Unavailable
from app.intake import Rows, new_rows
from app.settings import Settings

log = structlog.get_logger()

KAFKA_PATIENCE = 10.0  # seconds for Kafka's acknowledgement; then 503, and the client sends again
SPOOL_AFTER = 2.0  # seconds for it where there is a spool: a change of leaders takes less, as a rule
START_PATIENCE = 5.0  # seconds for Kafka at the start, where there is a spool; then we begin without it
LAST_WORDS = 5.0  # seconds for the producer to stop: what is in it was answered for by nobody, or is in the spool
#: Seconds between tries. With that a spool is on its way again before the log's clock goes on (clock.SETTLE).
AGAIN = 0.2
TELL = 1.0  # seconds between two words to the log's clock
#: Milliseconds by which rows in the spool are out of order: some waited for Kafka before, and for the disk.
BEHIND = 3_000
FIRST, MANY = 100, 2_000  # rows that are tried at once while Kafka is away, and after it took some


class Outbox:
    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        collector = settings.collector
        self._spool = Spool(collector.spool, collector.spool_size) if collector.spool else None
        self._producer: AIOKafkaProducer | None = None
        self._lanes: Lanes | None = None
        self._away = False  # Kafka did not take what the spool has
        self._begun = False
        self._filled = asyncio.Event()
        self._oldest: int | None = None  # receipt of the oldest row in the file that drains, about
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Raises CapistreamError. With a spool a Kafka that does not answer is none; one that does not let us in is."""
        if self._spool is None:
            await self._connect()
            return
        await self._spool.start()
        if not self._spool.empty:
            self._filled.set()
        connecting = asyncio.create_task(self._connect_at_last())
        await asyncio.wait({connecting}, timeout=START_PATIENCE)
        if connecting.done():
            connecting.result()
        else:
            log.warning("collector.started_without_kafka")
        self._begun = True
        self._tasks = [connecting, asyncio.create_task(self._drain()), asyncio.create_task(self._tell())]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._producer is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._producer.stop(), LAST_WORDS)
        if self._spool is not None:
            await self._spool.stop()

    async def write(self, rows: Rows) -> bool:
        """Has Kafka all of it, or the disk?"""
        if not any(rows.values()):
            return True
        if self._spool is None:
            return not await self._send(rows, KAFKA_PATIENCE)
        if not self._known_away and not await self._send(rows, SPOOL_AFTER):
            return True
        if not self._away:
            log.warning("collector.spools")
        self._away = True
        refusal = await self._spool.put(rows)
        self._filled.set()
        return refusal is None

    async def trouble(self) -> str:
        """Why nothing can be taken now; empty when it can."""
        producer = self._producer
        try:
            if producer is not None and not self._known_away:
                await asyncio.wait_for(producer.client.fetch_all_metadata(), 3)
                return ""
        except (KafkaError, TimeoutError):
            pass
        if self._spool is None:
            return "Kafka does not answer"
        return "Kafka does not answer, and the spool is full" if self._spool.full else ""

    @property
    def _known_away(self) -> bool:
        # an empty spool has nothing to find out with that Kafka is back
        return self._away and self._spool is not None and not self._spool.empty

    # -- Kafka

    async def _connect(self) -> None:
        await acls.prepare(self._settings, "collector")
        # Not idempotent: a repeated or reordered copy changes nothing after dedup, and such a producer survives an outage.
        producer = bus.of(self._settings).producer(
            acks="all",
            max_batch_size=256 * 1024,
            request_timeout_ms=int(KAFKA_PATIENCE * 1000),
            # longer than this between two looks for a lost broker, and copies would come later than the log's clock allows for
            retry_backoff_ms=200,
        )
        try:
            await producer.start()
        except BaseException:
            await producer.stop()
            raise
        self._producer, self._lanes = producer, Lanes(producer)

    async def _connect_at_last(self) -> None:
        while self._producer is None:
            try:
                await self._connect()
            except (CapistreamError, KafkaError) as exc:
                if not self._begun and not isinstance(exc, Unavailable | KafkaError):
                    raise  # somebody looks on, and can correct it
                log.warning("kafka.awaited", why=str(exc))
                await asyncio.sleep(AGAIN)

    async def _send(self, rows: Rows, patience: float) -> Rows:
        """Those that Kafka did not acknowledge in time. Some of them may arrive nevertheless."""
        if self._lanes is None:
            return rows
        parcels = {place: self._lanes.put(place, some, patience) for place, some in rows.items() if some}
        refused: Rows = {}
        for place, parcel in parcels.items():
            if (why := await parcel.done) is not None:
                if not (refused or self._away):
                    log.warning("collector.kafka_unavailable", error=repr(why))
                refused[place] = rows[place]
        return refused

    # -- from the spool to Kafka

    async def _drain(self) -> None:
        assert self._spool is not None
        while True:
            await self._filled.wait()
            try:
                found = await self._spool.oldest()
                if found is None:
                    self._filled.clear()
                    continue
                segment, entries = found
                self._oldest = min((row[2] for _, _, row in entries), default=0) - BEHIND
                await self._drain_all(entries)
                await self._spool.done(segment)
            except OSError as exc:
                log.warning("spool.not_read", error=str(exc))
                await asyncio.sleep(1)
            else:
                if self._spool.empty:
                    self._oldest = None
                    log.warning("collector.drained")

    async def _drain_all(self, entries: list[Entry]) -> None:
        while entries:
            some = FIRST if self._away else MANY
            refused = await self._send(_of(entries[:some]), KAFKA_PATIENCE)
            left = [(*place, row) for place, rows in refused.items() for row in rows]
            taken = min(some, len(entries)) - len(left)
            metrics.SPOOLED.labels("drained").inc(taken)
            entries = left + entries[some:]
            if taken:
                self._away = False
            if left:
                await asyncio.sleep(AGAIN)

    async def _tell(self) -> None:
        """How the spool is, to the metrics, and to the log's clock as long as that has to wait for us."""
        assert self._spool is not None
        topic, told = topics.names(self._settings).clock, False
        while True:
            self._spool.tell()
            if not self._away and (told or self._oldest is not None):
                now, told = int(time.time() * 1000), self._oldest is not None
                row = (None, clock.told_by_spool(self._spool.name, self._oldest, now), now)
                await self._send({(topic, 0): [row]}, SPOOL_AFTER)
            await asyncio.sleep(TELL)


def _of(entries: Iterable[Entry]) -> Rows:
    rows = new_rows()
    for topic, partition, row in entries:
        rows[topic, partition].append(row)
    return rows
