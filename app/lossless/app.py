"""A Faust App that reads batches and loses nothing."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import faust
import structlog
from faust.topics import Topic
from faust.transport.drivers import aiokafka as stock
from faust.web.base import BlueprintManager

from app import loop
from app.bus import Bus
from app.lossless.assignor import Assignor
from app.lossless.batch import die
from app.lossless.consumer import Consumer
from app.lossless.foreign import Watch
from app.lossless.lanes import Lanes
from app.lossless.producer import Producer
from app.lossless.runs import Run
from app.lossless.store import Table, Tables

if TYPE_CHECKING:
    from app.lossless.rows import Rows

log = structlog.get_logger()

PROGRESS = 2.0  # seconds between progress lines of a recovery
STOP_MAX = 8.0  # seconds from the stop signal to a hard exit: nothing unfinished is ever committed, so it is safe


class BatchTopic(Topic):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # Of what it acknowledges stock keeps each offset until a commit of its own, which never comes.
        super().__init__(*args, **{**kwargs, "acks": False})

    async def decode(self, message: Any, *, propagate: bool = False) -> Any:
        if isinstance(message.value, list):  # of batches: no codec, records keep their raw bytes
            return self._create_event(message.key, message.value, message.headers, message=message)
        return await super().decode(message, propagate=propagate)


class Transport(stock.Transport):
    Consumer = Consumer
    Producer = Producer


class App(faust.App):
    def __init__(self, name: str, bus: Bus, **kwargs: Any) -> None:
        self.bus = bus
        kwargs.setdefault("PartitionAssignor", Assignor)
        kwargs.setdefault("Topic", BatchTopic)
        kwargs.setdefault("Table", Table)
        kwargs.setdefault("TableManager", Tables)
        #: seconds for which changelogs keep a deletion that compaction may drop (`delete.retention.ms`)
        self.deletions_kept = 86_400.0
        self.lanes = Lanes(kwargs.get("broker_max_poll_records", 500))
        self.rows: dict[str, Rows] = {}  # by changelog topic
        self._told = 0.0  # when progress of a recovery was logged last
        self.from_end: set[str] = set()  # topics whose partitions start at their end when nothing was committed yet
        self.from_time: dict[str, int] = {}  # topics whose partitions start at a time then, in Unix milliseconds
        self.beats: dict[str, float] = {}  # topics that are fetched in beats, and theirs in seconds
        self.on_starting: list[Callable[[], Awaitable[None]]] = []  # awaited before anything connects
        self.on_ready: list[Callable[[int], None]] = []  # told the generation, after recovery and before any batch
        self.on_closing: list[Callable[[], Awaitable[None]]] = []  # awaited when the last batch has ended
        self.on_web: list[Callable[[Any], None]] = []  # given the aiohttp application before it serves
        self.watch = Watch(self)
        super().__init__(name, **bus.faust(), **kwargs)

    def recovers_from(self, tp: Any) -> int | None:
        """The offset that the recovery of this changelog needs next, if one is under way."""
        recovery = self.tables.recovery
        if not recovery.in_recovery or tp not in recovery.active_tps:
            return None  # what we write ourselves comes back here, too
        return int(recovery.active_offsets[tp]) + 1

    def recover(self, tp: Any, run: Run) -> None:
        """Changelog records of one partition, in bulk; stock Faust takes them one by one, 7,000 a second."""
        self.rows[tp.topic].recognise(tp.partition, run.records)
        # a second recovery goes on from an offset of its own: rows of an earlier fetch must not overwrite later ones
        records = [record for record in run.records if record.offset > self.tables.recovery.active_offsets[tp]]
        if records:
            self.rows[tp.topic].restore(tp.partition, records)
        self.recovered_to(tp, run.end)
        recovery = self.tables.recovery
        if time.monotonic() - self._told > PROGRESS:
            self._told = time.monotonic()
            log.info("tables.recovering", rows_left=recovery.active_remaining_total())
        if not recovery.need_recovery():
            recovery._set_recovery_ended()
            recovery.signal_recovery_end.set()

    def recovered_to(self, tp: Any, end: int) -> None:
        """Everything before `end` is restored, or gone."""
        offsets = self.tables.recovery.active_offsets
        offsets[tp] = max(offsets[tp], end - 1)

    async def on_first_start(self) -> None:
        for start in self.on_starting:
            await start()
        # Stock collects garbage at each rebalance, once for each table, while everything waits; over all that was ever imported
        # it would take 64 ms each time.
        loop.collect_garbage_less()
        await super().on_first_start()
        self.add_future(self.watch.run())

    async def _on_partitions_revoked(self, revoked: set[Any]) -> None:
        # No batch runs any more, and nobody else has the partitions yet: the last moment to say again what we have.
        try:
            async with asyncio.timeout(self.conf.broker_rebalance_timeout / 4):
                await self.watch.look()
        except TimeoutError:
            die("foreign rows were not overwritten in time for the rebalance")
        await super()._on_partitions_revoked(revoked)

    def _new_web(self) -> Any:
        web = super()._new_web()
        web.blueprints = BlueprintManager([])  # Faust's own pages show rows and routes to anybody
        return web

    def on_webserver_init(self, web: Any) -> None:
        for add in self.on_web:
            add(web.web_app)

    def _new_transport(self) -> Transport:
        return Transport(self.conf.broker_consumer, self)

    async def on_stop(self) -> None:
        timer = threading.Timer(STOP_MAX, die, ["stopping took too long"])
        timer.daemon = True
        timer.start()
        consumer = self.consumer
        if consumer is not None and consumer.ready != -1:
            consumer.stop_flow()
            self.flow_control.suspend()
            self.flow_control.clear()
            await self.lanes.quiesce()
            await consumer.force_commit()
            await self.watch.look()
        for close in self.on_closing:
            await close()
        await super().on_stop()
