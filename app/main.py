"""The worker: settings to a Faust app with every agent, table and page."""

import asyncio
import fcntl
import os
import socket
import sys
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import faust
import structlog
from aiokafka.errors import KafkaError

from agents import deliver, normalize
from agents.clock import Clock
from agents.dedup import Dedup
from agents.deliver import Deliver
from agents.normalize import Normalize
from agents.tidy import Tidy
from app import acls, bus, destinations, history, intake, processes, topics
from app.control import Control, Order
from app.errors import CapistreamError
from app.forget import People
from app.health import Health
from app.log import for_faust
from app.lossless import App, Rows
from app.lossless.lanes import agent
from app.registry import Registry
from app.settings import Settings, View
from app.together import Together
from app.tokens import GoogleTokens
from app.view.access import Access
from app.view.pages import Pages
from sinks import SINKS

log = structlog.get_logger()

MEND_EVERY = 15.0  # seconds between tries to create a topic that is gone

#: Given rows and the generation of the group, returns where they are written; see `Pipeline.write`.
Write = Callable[[intake.Rows, int], Awaitable[intake.Places]]


class Pipeline:
    """The stages and what they share."""

    def __init__(self, settings: Settings, *, backfill: bool = False) -> None:
        self.settings = settings
        self.backfill = backfill  # history may go to live destinations
        self.names = topics.names(settings)
        self.partitions = settings.kafka.partitions
        self.app = _faust_app(settings)
        self.app.deletions_kept = topics.DELETIONS_KEPT / 1000
        self.seen = Rows(self.app, "seen", "What is known of each conversion; written by dedup")
        self.held = Rows(self.app, "held", "Copies of conversions that wait for more; written by dedup")
        self.people = People(settings, self._forgotten)
        self.tokens = GoogleTokens()
        self.normalize = Normalize(self)
        self.clock = Clock(self)
        self.tidy = Tidy(self)
        self.dedup = Dedup(self)
        self.write_results = self.in_groups()  # what became of events, at all destinations
        self.deliver = {
            name: Deliver(
                self,
                name,
                one,
                SINKS[one.sink](one),
                Rows(self.app, topics.outcomes_table(name), f"What became of each event at {name}; written by deliver"),
            )
            for name, one in settings.destinations.items()
        }
        self.control = Control(settings, self._obey)
        self.health = Health(self)
        self._of_topic = {one.topic: one for one in self.deliver.values()}
        self._mend_at = 0.0  # monotonic time
        self._no_traces = ""  # why their topic takes none, while it does not
        self._aside: set[asyncio.Task[None]] = set()
        self._http: aiohttp.ClientSession | None = None
        self._registry: Registry | None = None
        self._declare_agents()
        self.app.on_starting.append(self._apply_topics)
        self.app.on_starting.append(self._watch)
        self.app.on_ready.append(self.dedup.recovered)
        for one in self.deliver.values():
            self.app.on_ready.append(one.recovered)
            self.app.lanes.also.append(one.quiesce)
        self.app.on_closing.append(self._close)
        access = Access(settings.view)
        self.app.on_web.append(lambda site: site.add_routes(Pages(self, access).routes()))

    def _declare_agents(self) -> None:
        for name, source in self.settings.sources.items():
            if source.start == "latest":
                self.app.from_end.add(source.topic)
            elif (since := source.start_time) is not None:
                self.app.from_time[source.topic] = since
            # the customer's topics have their own number of partitions
            agent(self.app, self._topic(source.topic, None), self.normalize.batch, f"normalize.{name}", normalize.BEAT)
        agent(self.app, self._topic(self.names.events, self.partitions), self.dedup.batch, "dedup")
        for name, one in self.deliver.items():
            agent(self.app, self._topic(one.topic, self.partitions), one.batch, f"deliver.{name}", deliver.BEAT)
        self.app.task(self._on_started)

    def _topic(self, name: str, partitions: int | None) -> Any:
        return self.app.topic(
            name, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw", partitions=partitions
        )

    async def _apply_topics(self) -> None:
        try:
            created = await acls.prepare(self.settings, "worker")
            if not self.backfill:
                await history.must_be_wanted(self.settings)
        except CapistreamError as exc:
            print(exc, file=sys.stderr, flush=True)
            os._exit(1)  # nothing has begun; Faust's own way out would bury the line under a traceback
        if created:
            log.info("topics.created", topics=created)

    async def _watch(self) -> None:
        self.app.add_future(self.health.watch())  # not with the clock: the first recovery is watched, too

    async def _on_started(self) -> None:
        self.app.add_future(self.clock.listen())
        self.app.add_future(self.clock.tick())
        self.app.add_future(self.control.listen(lambda: self.app.should_stop))
        self.app.add_future(self.people.listen(lambda: self.app.should_stop))
        self.app.add_future(self.tidy.run())
        for one in self.deliver.values():
            self.app.add_future(one.run())
        self.aside(self._name_left())

    async def _name_left(self) -> None:
        """Events of a destination that was taken out of the configuration wait for it to come back: somebody should know."""
        try:
            left = await destinations.left(self.settings)
        except CapistreamError as exc:
            log.warning("destinations.not_asked", error=str(exc))
            return
        for name, waiting in left.items():
            log.warning("destination.not_configured", destination=name, waiting=waiting, topic=self.names.to(name))

    def _obey(self, order: Order) -> None:
        if order.destination in self.deliver:
            self.deliver[order.destination].obey(order)

    def _forgotten(self) -> None:
        log.info("people.forgotten", entries=len(self.people.known))
        for one in self.deliver.values():
            one.forget()

    async def write(self, rows: Mapping[tuple[str, int], list[intake.Row]], generation: int) -> intake.Places:
        """Produce rows by (topic, partition) and wait for Kafka. Returns their offsets, as far as it tells them.

        Raises Lost when the partitions are no longer ours.
        """
        if not rows:
            return {}
        await self.app.consumer.own(generation)
        by_topic = defaultdict[str, dict[int, list[intake.Row]]](dict)
        for (topic, p), some in rows.items():
            by_topic[topic][p] = some
        found = await asyncio.gather(*(self._put(topic, some, generation) for topic, some in by_topic.items()))
        return {
            (topic, p): offsets for topic, places in zip(by_topic, found, strict=True) for p, offsets in places.items()
        }

    def in_groups(self) -> Write:
        """`write` for all that a stage does: what comes while something is being written goes with the next write."""
        together = Together(self._write_all)

        async def write(rows: intake.Rows, generation: int) -> intake.Places:
            return await together.add(rows, generation) if rows else {}  # who has nothing to write waits for nobody

        return write

    async def _write_all(self, several: Sequence[intake.Rows], generation: int) -> Sequence[intake.Places]:
        return intake.of_each(await self.write(intake.joined(several), generation), several)

    async def _put(self, topic: str, rows: Mapping[int, list[intake.Row]], generation: int) -> Mapping[int, list[int]]:
        producer, one = self.app.producer, self._of_topic.get(topic)
        found: Mapping[int, list[int]]
        if topic == self.names.trace:  # it is for looking at, and stops nothing
            refused, found = await producer.offer(topic, rows)
            if refused != self._no_traces:
                self._no_traces = refused
                log.warning("trace.refused" if refused else "trace.again", reason=refused)
            return found
        if one is None:
            found = await producer.place(topic, rows)
            return found
        # A topic that is gone, or refuses, stops neither the worker nor the other destinations.
        refused, found = await producer.offer(topic, rows)
        if refused:
            await asyncio.gather(*(one.take_over(p, some, refused, generation) for p, some in rows.items()))
            self._mend_topics()
        one.topic_refuses(refused)
        return found

    @property
    def has_state(self) -> bool:
        """Are the tables those of the partitions that it has?"""
        return bool(self.app.consumer.ready == self.app.consumer_generation_id and not self.app.should_stop)

    async def offer(self, topic: str, p: int, rows: list[intake.Row]) -> str:
        """Produce rows that nothing of an event hangs on. Returns why Kafka did not take them, or an empty text."""
        refused, _ = await self.app.producer.offer(topic, {p: rows})
        return str(refused)

    def _mend_topics(self) -> None:
        """Create again what somebody deleted, if we may."""
        if self.settings.kafka.create_topics and time.monotonic() > self._mend_at:
            self._mend_at = time.monotonic() + MEND_EVERY
            self.aside(self._create_topics())

    async def _create_topics(self) -> None:
        try:
            created = await topics.apply(self.settings)
        except (CapistreamError, KafkaError) as exc:
            log.warning("topics.not_created", error=str(exc))
        else:
            log.warning("topics.created", topics=created)

    def aside(self, work: Coroutine[Any, Any, None]) -> None:
        """Let this run beside everything else; nothing waits for it."""
        task = asyncio.create_task(work)
        self._aside.add(task)
        task.add_done_callback(self._aside.discard)

    async def http(self) -> aiohttp.ClientSession:
        if self._http is None:
            self._http = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0), cookie_jar=aiohttp.DummyCookieJar()
            )
        return self._http

    async def registry(self) -> Registry:
        """Of a configuration that names one."""
        assert self.settings.registry is not None
        if self._registry is None:
            self._registry = Registry(self.settings.registry, await self.http())
        return self._registry

    async def _close(self) -> None:
        if self._http is not None:
            await self._http.close()


def _view_address(view: View) -> tuple[int, str]:
    """(port, address for the other workers): another port when the wanted one is taken."""
    port = processes.free_port(view.port)
    if port != view.port:
        log.warning("view.port_taken", wanted=view.port, port=port)
    host = socket.gethostname() if view.host in ("0.0.0.0", "::") else view.host
    return port, view.advertise or f"http://{host}:{port}"


def _faust_app(settings: Settings) -> App:
    kafka, view = settings.kafka, settings.view
    port, address = _view_address(view)
    return App(
        kafka.prefix,
        bus.of(settings),
        store="rocksdb://",
        datadir=str(claim_folder(settings.worker.data_dir)),
        topic_partitions=kafka.partitions,
        topic_replication_factor=kafka.replication,
        topic_allow_declare=False,  # they are made, or missed, before Faust starts, and not by settings of Faust's (topics.py)
        topic_disable_leader=True,  # nothing of ours runs on a leader
        # A standby would write every row a second time to save a takeover 10 s per million keys, and how recovery and the
        # cure of foreign rows go with one is not tested: refused until it is.
        table_standby_replicas=0,
        web_host=view.host,
        web_port=port,
        web_bind=view.host,
        canonical_url=address,
        worker_redirect_stdouts=False,
        stream_wait_empty=True,
        stream_recovery_delay=0.0,
        consumer_auto_offset_reset="earliest",
        broker_session_timeout=kafka.session_timeout,
        broker_heartbeat_interval=1.0,
        broker_rebalance_timeout=30,
        broker_request_timeout=20,  # a coordinator that does not answer after a broker's restart is given up in time
        broker_commit_interval=1.0,
        broker_max_poll_interval=86_400,  # longer than any outage of a platform: waiting is no reason to leave the group
        broker_max_poll_records=1_000,  # bounds what one batch holds
        producer_linger=0.0,  # batches are made by us
        producer_max_batch_size=512 * 1024,
        producer_request_timeout=60,
        logging_config=for_faust(),
    )


def run_worker(settings: Settings, web_port: int | None = None, *, backfill: bool = False) -> None:
    """Until SIGTERM. Ends with EXIT_ANEW when it has to be started again."""
    import uvloop

    uvloop.install()
    if web_port is not None:
        settings = settings.model_copy(update={"view": settings.view.model_copy(update={"port": web_port})})
    faust.Worker(
        Pipeline(settings, backfill=backfill).app, override_logging=False, loglevel="INFO"
    ).execute_from_commandline()


def claim_folder(data_dir: Path) -> Path:
    """A folder below `data_dir` that no other worker process uses: two on one RocksDB would wait for its lock."""
    for number in range(1, 1000):
        folder = data_dir / f"worker-{number}"
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(handle)
            continue
        return folder  # the lock lives as long as the process
    raise RuntimeError(f"{data_dir} has 999 busy worker folders")
