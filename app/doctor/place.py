"""What the checks share: the settings, the moment, one client of Kafka, and what several of them ask.

Whoever asks has a time limit. An answer that others wait for, too, is asked for once, and outlives whoever gave up first.
"""

import asyncio
import logging
import os
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.conn import collect_hosts
from aiokafka.errors import KafkaError, for_code
from aiokafka.protocol.admin import DescribeConfigsRequest
from aiokafka.protocol.metadata import MetadataRequest

from app import bus, topics
from app.errors import SettingsError, Unavailable
from app.settings import Settings

_TOPIC = 2  # Kafka's number for this kind of thing that has settings
ANSWER = 5.0  # seconds that anything outside has for one answer, to connect included


Address = tuple[str, int]
Config = Mapping[str, str]


@dataclass(frozen=True)
class Partition:
    leader: int  # -1: there is none now
    replicas: tuple[int, ...]
    in_sync: tuple[int, ...]


@dataclass(frozen=True)
class Cluster:
    """What Kafka says of itself."""

    brokers: Mapping[int, Address]  # node -> the address that it advertises
    topics: Mapping[str, tuple[Partition, ...]]  # all that we may see
    refused: frozenset[str] = frozenset()  # topics of ours that an ACL hides

    def has(self, topic: str) -> bool:
        return topic in self.topics


@dataclass(frozen=True)
class Refused:
    """An answer that Kafka did not give, and why."""

    why: str


class Place:
    def __init__(self, settings: Settings, now: float) -> None:
        """`now` is in Unix seconds."""
        self.settings, self.now = settings, now
        self.names = topics.names(settings)
        self.plan = topics.plan(settings)
        self._asked: dict[str, asyncio.Task[Any]] = {}
        self._admin: AIOKafkaAdminClient | None = None
        self.silent: set[int] = set()  # brokers that did not answer; they are not asked again
        self._asking = asyncio.Lock()

    async def once(self, question: str, ask: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        if question not in self._asked:
            task = self._asked[question] = asyncio.create_task(ask())
            task.add_done_callback(lambda done: done.cancelled() or done.exception())  # everybody may have left
        return await asyncio.shield(self._asked[question])

    async def addresses(self) -> Mapping[Address, str]:
        """Of the settings, and why each cannot be reached; an empty text where it can."""

        async def ask() -> Mapping[Address, str]:
            hosts = collect_hosts(self.settings.brokers, randomize=False)
            asked = [(str(host), int(port)) for host, port, _ in hosts]
            return dict(zip(asked, await asyncio.gather(*(reach(*address) for address in asked)), strict=True))

        found: Mapping[Address, str] = await self.once("addresses", ask)
        return found

    async def connect(self) -> Any:
        """A client that has found a broker. Raises Unavailable, and SettingsError where these settings do not let us in."""
        return await self.once("admin", self._connect)

    async def admin(self) -> Any:
        """The same for who has not to tell why not. Raises Unavailable."""
        try:
            return await self.connect()
        except SettingsError:
            raise Unavailable("Kafka does not let us in") from None

    async def _connect(self) -> AIOKafkaAdminClient:
        if all((await self.addresses()).values()):
            raise Unavailable(f"no Kafka can be reached at {self.settings.brokers}")
        self._admin = bus.of(self.settings).admin(request_timeout_ms=int(ANSWER * 1000))
        try:
            await self._admin.start()
        except KafkaError as exc:
            raise bus.problem(exc, f"Kafka does not answer at {self.settings.brokers}") from exc
        return self._admin

    async def ask(self, request: Any) -> Any:
        """What any broker answers: one that stands still must not keep the others from their word.

        Raises Unavailable, and KafkaError or NotImplementedError for a question that they do not know.
        """
        client = (await self.admin())._client
        async with self._asking:  # one after the other, so that who stands still is waited for once
            for broker in client.cluster.brokers():
                if broker.nodeId in self.silent:
                    continue
                try:
                    return await client.send(broker.nodeId, request)
                except KafkaError as exc:
                    if not exc.retriable:  # it answers, and does not know this question
                        raise
                    self.silent.add(broker.nodeId)
        raise Unavailable("no broker answers as Kafka")

    async def cluster(self) -> Cluster:
        """Raises Unavailable."""
        found: Cluster = await self.once("cluster", self._cluster)
        return found

    async def _cluster(self) -> Cluster:
        everything = await self.ask(MetadataRequest(None))
        ours = [*(topic.name for topic in self.plan), *(one.topic for one in self.settings.sources.values())]
        named = await self.ask(MetadataRequest(ours))
        return Cluster(
            {node: (host, port) for node, host, port, _ in everything.brokers},
            {name: _partitions(partitions) for code, name, _, partitions in everything.topics if not code},
            frozenset(name for code, name, _, _ in named.topics if "Authorization" in for_code(code).__name__),
        )

    async def topic_configs(self) -> Mapping[str, Config | Refused]:
        """Of the topics of ours and of the sources that there are. Raises Unavailable."""

        async def ask() -> Mapping[str, Config | Refused]:
            have = (await self.cluster()).topics
            ours = {topic.name for topic in self.plan} | {one.topic for one in self.settings.sources.values()}
            names = sorted(ours & have.keys())
            return (
                configs_of(await self.ask(DescribeConfigsRequest([(_TOPIC, name, None) for name in names])))
                if names
                else {}
            )

        found: Mapping[str, Config | Refused] = await self.once("topic configs", ask)
        return found

    async def close(self) -> None:
        for task in self._asked.values():
            task.cancel()
        with suppress(TimeoutError, KafkaError, OSError):
            async with asyncio.timeout(ANSWER):
                await asyncio.gather(*self._asked.values(), return_exceptions=True)
                if self._admin is not None:
                    await self._admin.close()


def configs_of(answer: Any) -> dict[str, Config | Refused]:
    """Name -> settings, defaults included; what Kafka hides is left out."""
    return {
        name: Refused(for_code(code).__name__)
        if code
        else {entry[0]: entry[1] for entry in entries if entry[1] is not None}
        for code, _, _, name, entries in answer.resources
    }


def _partitions(answer: Any) -> tuple[Partition, ...]:
    """In the order of their numbers."""
    return tuple(
        Partition(leader, tuple(all_), tuple(good)) for _, _, leader, all_, good, *_ in sorted(answer, key=_nth)
    )


def _nth(partition: Any) -> int:
    number: int = partition[1]
    return number


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Place]:
    place = Place(settings, time.time())
    try:
        yield place
    finally:
        await place.close()


async def reach(host: str, port: int) -> str:
    """Connect, and say why that does not work; an empty text when it does."""
    try:
        async with asyncio.timeout(ANSWER):
            _, writer = await asyncio.open_connection(host, port)
            writer.close()
    except TimeoutError:
        return f"no answer within {ANSWER:g} s"
    except socket.gaierror:
        return "its name cannot be resolved"
    except OSError as exc:
        return os.strerror(exc.errno) if exc.errno else "no connection"
    return ""


class Threads(ThreadPoolExecutor):
    """A thread for each call, which nobody waits for at the end: a file system that is gone may keep it for ever."""

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_running_or_notify_cancel()

        def run() -> None:
            try:
                result = fn(*args, **kwargs)
            except BaseException as exc:  # noqa: BLE001 (whoever waits gets it)
                future.set_exception(exc)
            else:
                future.set_result(result)

        threading.Thread(target=run, daemon=True).start()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """At once."""


@contextmanager
def quiet() -> Iterator[None]:
    """Aiokafka logs what it cannot reach; here that is what is looked for."""
    logger = logging.getLogger("aiokafka")
    before = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(before)
