"""The worker: settings to a Faust app with every agent, table and page."""

import asyncio
import fcntl
import os
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp
import faust
import structlog

from agents.clock import Clock
from agents.dedup import Dedup
from agents.deliver import Deliver
from agents.normalize import Normalize
from app import intake, processes, topics
from app.errors import CapistreamError
from app.health import Health
from app.lossless import App, Rows
from app.lossless.lanes import agent
from app.settings import Settings, View
from app.view.pages import Pages
from sinks import SINKS

log = structlog.get_logger()


class Pipeline:
    """The stages and what they share."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.names = topics.names(settings)
        self.partitions = settings.kafka.partitions
        self.app = _faust_app(settings)
        self.app.deletions_kept = topics.DELETIONS_KEPT / 1000
        self.seen = Rows(self.app, "seen", "What is known of each conversion; written by dedup")
        self.held = Rows(self.app, "held", "Copies of conversions that wait for more; written by dedup")
        self.normalize = Normalize(self)
        self.clock = Clock(self)
        self.dedup = Dedup(self)
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
        self.health = Health(self)
        self._http: aiohttp.ClientSession | None = None
        self._declare_agents()
        self.app.on_starting.append(self._apply_topics)
        self.app.on_starting.append(self._watch)
        self.app.on_ready.append(self.dedup.recovered)
        self.app.on_closing.append(self._close)
        self.app.on_web.append(lambda site: site.add_routes(Pages(self).routes()))

    def _declare_agents(self) -> None:
        for name, source in self.settings.sources.items():
            if source.start == "latest":
                self.app.from_end.add(source.topic)
            # the customer's topics have their own number of partitions
            agent(self.app, self._topic(source.topic, None), self.normalize.batch, f"normalize.{name}")
        agent(self.app, self._topic(self.names.events, self.partitions), self.dedup.batch, "dedup")
        for name, one in self.deliver.items():
            agent(self.app, self._topic(one.topic, self.partitions), one.batch, f"deliver.{name}")
        self.app.task(self._on_started)

    def _topic(self, name: str, partitions: int | None) -> Any:
        return self.app.topic(
            name, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw", partitions=partitions
        )

    async def _apply_topics(self) -> None:
        try:
            created = await topics.apply(self.settings)
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

    async def write(self, rows: Mapping[tuple[str, int], list[intake.Row]], generation: int) -> None:
        """Produce rows by (topic, partition) and wait for Kafka. Raises Lost when the partitions are no longer ours."""
        if not rows:
            return
        await self.app.consumer.own(generation)
        await asyncio.gather(*(self.app.producer.write(topic, p, some) for (topic, p), some in rows.items()))

    async def http(self) -> aiohttp.ClientSession:
        if self._http is None:
            self._http = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0), cookie_jar=aiohttp.DummyCookieJar()
            )
        return self._http

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
        broker=[f"aiokafka://{broker.strip()}" for broker in settings.brokers.split(",")],
        store="rocksdb://",
        datadir=str(claim_folder(settings.worker.data_dir)),
        topic_partitions=kafka.partitions,
        topic_replication_factor=kafka.replication,
        topic_allow_declare=kafka.create_topics,
        topic_disable_leader=True,  # nothing of ours runs on a leader
        # A standby would write every row a second time to save a takeover 24 s per million keys, and how recovery and the
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
        broker_max_poll_records=2_000,  # bounds what one batch holds
        producer_linger=0.0,  # batches are made by us
        producer_max_batch_size=512 * 1024,
        producer_request_timeout=60,
    )


def run_worker(settings: Settings, web_port: int | None = None) -> None:
    """Until SIGTERM. Ends with EXIT_ANEW when it has to be started again."""
    import uvloop

    uvloop.install()
    if web_port is not None:
        settings = settings.model_copy(update={"view": settings.view.model_copy(update={"port": web_port})})
    faust.Worker(Pipeline(settings).app, override_logging=False, loglevel="INFO").execute_from_commandline()


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
