"""A Faust App that reads batches and loses nothing."""

import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

import faust
import structlog
from faust.topics import Topic
from faust.transport.drivers import aiokafka as stock
from faust.web.base import BlueprintManager

from app.lossless.batch import Batch, die
from app.lossless.consumer import Consumer
from app.lossless.lanes import Lanes
from app.lossless.producer import Producer

if TYPE_CHECKING:
    from app.lossless.rows import Rows

log = structlog.get_logger()

PROGRESS = 2.0  # seconds between progress lines of a recovery
STOP_MAX = 8.0  # seconds from the stop signal to a hard exit: nothing unfinished is ever committed, so it is safe


class BatchTopic(Topic):
    async def decode(self, message: Any, *, propagate: bool = False) -> Any:
        if isinstance(message.value, Batch):  # no codec: records keep their raw bytes
            return self._create_event(message.key, message.value, message.headers, message=message)
        return await super().decode(message, propagate=propagate)


class Transport(stock.Transport):
    Consumer = Consumer
    Producer = Producer


class App(faust.App):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("Topic", BatchTopic)
        self.lanes = Lanes()
        self.rows: dict[str, Rows] = {}  # by changelog topic
        self._told = 0.0  # when progress of a recovery was logged last
        self.from_end: set[str] = set()  # topics whose partitions start at their end when nothing was committed yet
        self.on_starting: list[Callable[[], Awaitable[None]]] = []  # awaited before anything connects
        self.on_ready: list[Callable[[int], None]] = []  # told the generation, after recovery and before any batch
        self.on_closing: list[Callable[[], Awaitable[None]]] = []  # awaited when the last batch has ended
        self.on_web: list[Callable[[Any], None]] = []  # given the aiohttp application before it serves
        super().__init__(*args, **kwargs)

    def recover(self, tp: Any, run: Sequence[Any]) -> None:
        """Changelog records of one partition, in bulk; stock Faust takes them one by one, 7,000 a second."""
        recovery = self.tables.recovery
        if not recovery.in_recovery or tp not in recovery.active_tps:
            return  # what we write ourselves comes back here, too
        self.rows[tp.topic].restore(tp.partition, run)
        recovery.active_offsets[tp] = run[-1].offset
        if time.monotonic() - self._told > PROGRESS:
            self._told = time.monotonic()
            log.info("tables.recovering", rows_left=recovery.active_remaining_total())
        if not recovery.need_recovery():
            recovery._set_recovery_ended()
            recovery.signal_recovery_end.set()

    async def on_first_start(self) -> None:
        for start in self.on_starting:
            await start()
        await super().on_first_start()

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
        for close in self.on_closing:
            await close()
        await super().on_stop()
