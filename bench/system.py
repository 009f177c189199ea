"""What benches of the whole way share: a shop's orders on its Kafka topic, workers, and platforms that take what comes of them."""

import asyncio
import os
import secrets
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import aiohttp
import orjson
import platforms
import race
from aiokafka.admin import AIOKafkaAdminClient

from app import keys, processes, settings, topics
from app.events import Json
from app.kafka import Kafka

APART = 2_000  # orders between the two copies of one
PATIENCE = 120.0  # seconds without anything new at the platforms
LOOK = 0.1  # seconds

CONFIG = """
[kafka]
brokers = "{brokers}"
prefix = "{prefix}"
partitions = {partitions}
replication = 1

[sites.shop]
write_key = "wk_bench_bench"
secret_key = {{ env = "BENCH_SECRET" }}
country = "DE"

[sources.orders]
topic = "shop-{prefix}.orders"
site = "shop"
start = "earliest"

[worker]
data_dir = "{folder}/state"
"""

DESTINATIONS = {
    "meta": 'dataset_id = "1234567890"\naccess_token = { env = "BENCH_SECRET" }',
    "tiktok": 'pixel_code = "C4DEMO1234567890ABCD"\naccess_token = { env = "BENCH_SECRET" }',
    "pinterest": 'ad_account_id = "549755885175"\naccess_token = { env = "BENCH_SECRET" }',
    # a request for each person, so many of them at once
    "ga4": 'measurement_id = "G-DEMO123456"\napi_secret = { env = "BENCH_SECRET" }\nconcurrency = 64',
}


# The orders: a browser's and a server's copy of each, about 900 and 700 bytes, everybody another person


def pixel(order: str, name: str = "purchase") -> Json:
    return {
        "event_name": name,
        "event_id": f"{name}-{order}",
        "source": "pixel",
        "time": int(time.time() * 1000),
        "context": {
            "url": f"https://shop.example/thanks?order={order}",
            "referrer": "https://shop.example/checkout",
            "title": "Thank you",
            "language": "de-DE",
            "ip": f"2001:db8:{order[-8:-4]}:{order[-4:]}::1",
            "user_agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
        },
        "ids": {
            "ga_client_id": f"1{order}.1795420000",
            "ga_session_id": "1795420000",
            "fbp": f"fb.1.1795420000000.{order}",
            "ttp": f"2J3K-{order}",
        },
        "commerce": {"transaction_id": order, "value": 59.98, "currency": "EUR"},
        "consent": race.GRANTED,
    }


def server(order: str, name: str = "purchase") -> Json:
    return {
        "event_name": name,
        "event_id": f"{name}-{order}",
        "source": "server",
        "time": int(time.time() * 1000),
        "user": {
            "email": f"ada.{order}@example.com",
            "phone": f"+4930{order}",
            "first_name": "Ada",
            "last_name": "Lovelace",
            "city": "Berlin",
            "postal_code": "10115",
            "country": "DE",
        },
        "commerce": {
            "transaction_id": order,
            "value": 59.98,
            "currency": "EUR",
            "tax": 9.58,
            "shipping": 4.9,
            "items": [
                {"item_id": "SKU-1", "item_name": "Shirt", "brand": "Acme", "quantity": 2, "price": 24.99},
                {"item_id": "SKU-2", "item_name": "Socks", "category": "Clothing", "quantity": 1, "price": 10.0},
            ],
        },
    }


def backlog(conversions: int, partitions: int) -> Iterator[race.Record]:
    """Both copies of each, the server's APART orders behind the browser's."""
    for number in range(conversions + APART):
        if number < conversions:
            yield _record(race.order(number), pixel, partitions)
        if number >= APART:
            yield _record(race.order(number - APART), server, partitions)


def _record(order: str, copy: Any, partitions: int) -> race.Record:
    return keys.partition(order, partitions), order.encode(), orjson.dumps(copy(order))


# What runs


@dataclass(frozen=True)
class Drained:
    """What it took until every platform had every conversion."""

    seconds: float  # from the first record written
    second_half: float  # conversions a second
    cpu: Mapping[str, float]  # process -> seconds of processor


class System:
    """Platforms and workers, each a process of its own, beside a Kafka that is there. Its folder goes with it."""

    def __init__(
        self,
        kafka: Kafka,
        folder: Path,
        *,
        destinations: Sequence[str] = platforms.BATCHING,
        workers: int = 1,
        partitions: int = race.PARTITIONS,
        more: str = "",
    ) -> None:
        os.environ.setdefault("BENCH_SECRET", secrets.token_hex(16))
        self.kafka, self.folder, self.count, self.more = kafka, folder, workers, more
        self.destinations, self.partitions = destinations, partitions
        self.prefix = f"bench-{secrets.token_hex(3)}"
        self.port = processes.free_port()
        self.children: dict[str, Any] = {}

    @property
    def topic(self) -> str:
        return f"shop-{self.prefix}.orders"

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True)
        path = self.folder / "capistream.toml"
        path.write_text(self._configuration())
        self.config = settings.load(path)
        try:
            asyncio.run(self._topics())
            program = [sys.executable, platforms.__file__, str(self.port)]
            self.children["platforms"] = processes.spawn(program, self.folder / "platforms.log")
            addresses = [self._worker(number, path) for number in range(1, self.count + 1)]
            asyncio.run(self._ready(addresses))
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for child in self.children.values():
            child.terminate()
        for child in self.children.values():
            processes.stop(child, 20)
        asyncio.run(self._clear())
        shutil.rmtree(self.folder, ignore_errors=True)

    def _configuration(self) -> str:
        text = CONFIG.format(
            brokers=self.kafka.brokers, prefix=self.prefix, partitions=self.partitions, folder=self.folder
        )
        for name in self.destinations:
            text += f'\n[destinations.{name}]\nsink = "{name}"\nbrowser_tag = "none"\n'
            text += f'endpoint = "http://127.0.0.1:{self.port}/{name}"\n{DESTINATIONS[name]}\n'
        return text + self.more

    async def _topics(self) -> None:
        await race.create(self.kafka.brokers, [self.topic], self.partitions)
        await topics.apply(self.config)

    async def _clear(self) -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.kafka.brokers)
        await admin.start()
        await admin.delete_topics([name for name in await admin.list_topics() if self.prefix in name])
        await admin.close()

    def _worker(self, number: int, path: Path) -> str:
        process, address = race.worker(path, self.folder / f"worker-{number}.log")
        self.children[f"worker {number}"] = process
        return f"{address}/readyz"

    async def _ready(self, addresses: Iterable[str]) -> None:
        """All of them at once: while one joins, the others are not."""
        until = time.monotonic() + PATIENCE
        async with aiohttp.ClientSession() as http:
            while not all([await _is_ready(http, address) for address in addresses]):
                self.look()
                if time.monotonic() > until:
                    raise SystemExit("the workers do not get ready")
                await asyncio.sleep(0.2)

    def look(self) -> None:
        """Raises SystemExit when a process has ended."""
        for name, child in self.children.items():
            if child.poll() is not None:
                log = self.folder / f"{name.replace(' ', '-')}.log"
                raise SystemExit(f"{name} ended:\n{log.read_text()[-2000:]}")

    def cpu(self) -> dict[str, float]:
        """Process -> seconds of processor so far."""
        assert self.kafka.pid
        pids = {"kafka": self.kafka.pid} | {name: child.pid for name, child in self.children.items()}
        return {name: race.cpu(pid) for name, pid in pids.items()}

    async def drain(self, conversions: int) -> Drained:
        """Write so many orders at once, and wait until each platform has each, once. Only once in the life of a system."""
        records = list(backlog(conversions, self.partitions))  # made before, as making them is not what is measured
        looks: list[tuple[float, int]] = []
        async with aiohttp.ClientSession() as http:
            client = platforms.Client(http, self.port)
            before, begun = self.cpu(), time.monotonic()
            await race.fill(self.kafka.brokers, self.topic, records)
            moved = begun
            while not looks or looks[-1][1] < conversions:
                await asyncio.sleep(LOOK)
                self.look()
                counts = await client.counts()
                now, least = time.monotonic(), min(counts[name]["events"] for name in self.destinations)
                moved = moved if looks and looks[-1][1] == least else now
                looks.append((now, least))
                if now - moved > PATIENCE:
                    raise SystemExit(f"{counts} of {conversions} conversions, and no more come")
            cpu = {name: seconds - before[name] for name, seconds in self.cpu().items()}
            if any(counts[name]["twice"] for name in self.destinations):
                raise SystemExit(f"some came twice: {counts}")
        end = looks[-1]
        middle = next(look for look in looks if look[1] >= conversions / 2)
        rate = (end[1] - middle[1]) / max(end[0] - middle[0], LOOK)
        return Drained(end[0] - begun, rate, cpu)


async def _is_ready(http: aiohttp.ClientSession, address: str) -> bool:
    try:
        async with http.get(address) as answer:
            return answer.status == 200
    except aiohttp.ClientError:
        return False


C = TypeVar("C")


def rounds(cases: Mapping[C, Mapping[str, Any]], conversions: int, count: int) -> dict[C, list[Drained]]:
    """Systems made with these options drain so many conversions, in turns."""
    found: dict[C, list[Drained]] = {case: [] for case in cases}
    with race.kafka() as (kafka, folder):
        for number in range(count):
            for case in cases if number % 2 == 0 else reversed([*cases]):
                with System(kafka, folder / "system", **cases[case]) as one:
                    found[case].append(asyncio.run(one.drain(conversions)))
                rate = conversions / found[case][-1].seconds
                print(f"  round {number + 1}, {case}: {rate:,.0f} conversions/s", file=sys.stderr)
    return found


@contextmanager
def with_capacity(conversions: int, more: str) -> Iterator[tuple[System, float]]:
    """(a system with `more` in its configuration, how many conversions a second it takes), measured with so many."""
    with race.kafka() as (kafka, folder), System(kafka, folder / "system", more=more) as one:
        capacity = conversions / asyncio.run(one.drain(conversions)).seconds
        print(f"  capacity: {capacity:,.0f} conversions/s", file=sys.stderr)
        yield one, capacity


def workers(figures: Mapping[str, float]) -> float:
    """The sum of those of the workers."""
    return sum(value for name, value in figures.items() if name.startswith("worker"))
