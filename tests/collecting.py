"""A collector in this process, on the session's Kafka: what clients are pointed at, and what it wrote. A proxy that fails
first, and a stand-in for Google.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import orjson
from aiohttp import web

from app import keys, records
from app.collector import limits
from app.collector.server import Collector
from app.events import Event
from app.settings import Settings, parse

WRITE_KEY = "wk_12345678"
SECRET_KEY = "sk_87654321"
_CONFIG = """
[kafka]
brokers = "{brokers}"
prefix = "{prefix}"
partitions = 2
replication = 1

[sites.shop]
write_key = "{write_key}"
secret_key = {{ env = "SHOP_SECRET_KEY" }}

[collector]
{more}
"""


def config(brokers: str, prefix: str, more: str = "") -> str:
    """TOML; `more` stands behind the table [collector]. SHOP_SECRET_KEY must be in the environment."""
    return _CONFIG.format(brokers=brokers, prefix=prefix, write_key=WRITE_KEY, more=more)


@dataclass
class Place:
    url: str
    settings: Settings

    async def events(self) -> list[Event]:
        """All that it wrote so far, by time of receipt, and of one moment by id."""
        topic = f"{self.settings.kafka.prefix}.events"
        async with records.reader(self.settings) as reader:
            found = [orjson.loads(one.value) async for one in records.everything(reader, topic, range(2))]
        return sorted(found, key=lambda event: (event["received"], event["event_id"]))

    async def letters(self) -> list[Any]:
        topic = f"{self.settings.kafka.prefix}.dead"
        async with records.reader(self.settings) as reader:
            return [orjson.loads(one.value) async for one in records.everything(reader, topic, range(2))]


@contextlib.asynccontextmanager
async def collecting(brokers: str, prefix: str, more: str = "") -> AsyncIterator[Place]:
    """`more` as for `config`."""
    settings = parse(config(brokers, prefix, f'trusted_proxies = ["127.0.0.0/8"]\n\n{more}'))
    async with serving(Collector(settings).application(), limits.runner) as url:
        yield Place(url, settings)


@contextlib.asynccontextmanager
async def serving(
    app: web.Application, runner_of: Callable[[web.Application], Awaitable[web.AppRunner]] | None = None
) -> AsyncIterator[str]:
    """Its address."""
    if runner_of is not None:
        runner = await runner_of(app)
    else:
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@dataclass
class Failing:
    """A reverse proxy that answers the first requests to be counted by itself, and hands on the others."""

    target: str
    first: Iterator[tuple[int, dict[str, str]]]
    seen: list[tuple[str, int, dict[str, str]]] = field(default_factory=list)  # path, status, headers of the request

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        failure = next(self.first, None) if request.method == "POST" else None
        if failure is not None:
            status, headers = failure
            # a browser may read status and Retry-After of such an answer
            headers = {"Access-Control-Allow-Origin": "*", "Access-Control-Expose-Headers": "Retry-After", **headers}
            self.seen.append((request.path, status, dict(request.headers)))
            return web.Response(status=status, headers=headers, text="not now")
        passed = {k: v for k, v in request.headers.items() if k.lower() not in ("host", "content-length")}
        if "Content-Encoding" in request.headers:  # aiohttp has unpacked it
            passed.pop("Content-Encoding")
        async with (
            aiohttp.ClientSession(auto_decompress=False) as session,
            session.request(
                request.method, self.target + request.raw_path, data=body, headers=passed, allow_redirects=False
            ) as answer,
        ):
            if request.method != "OPTIONS":  # by which a browser asks leave
                self.seen.append((request.path, answer.status, dict(request.headers)))
            kept = {k: v for k, v in answer.headers.items() if k.lower() not in ("transfer-encoding", "content-length")}
            return web.Response(status=answer.status, headers=kept, body=await answer.read())


@contextlib.asynccontextmanager
async def failing_first(target: str, *first: int | tuple[int, dict[str, str]]) -> AsyncIterator[tuple[str, Failing]]:
    failures: Iterable[tuple[int, dict[str, str]]] = [one if isinstance(one, tuple) else (one, {}) for one in first]
    proxy = Failing(target, iter(failures))
    app = web.Application(client_max_size=8 << 20)
    app.router.add_route("*", "/{path:.*}", proxy.handle)
    async with serving(app) as url:
        yield url, proxy


def pairs(one: Event, other: Event) -> bool:
    """Are they copies of one conversion?"""
    return keys.key(one) == keys.key(other)


@dataclass
class Google:
    """Stands in for GA4: keeps what it gets, and answers as told."""

    url: str = ""
    got: list[tuple[str, str, bytes, dict[str, str]]] = field(default_factory=list)  # method, raw path, body, headers
    answers: list[int] = field(default_factory=list)  # then 204
    slow: asyncio.Event | None = None

    async def handle(self, request: web.Request) -> web.Response:
        self.got.append((request.method, request.raw_path, await request.read(), dict(request.headers)))
        if self.slow is not None:
            await self.slow.wait()
        return web.Response(status=self.answers.pop(0) if self.answers else 204)


@contextlib.asynccontextmanager
async def google() -> AsyncIterator[Google]:
    one = Google()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", one.handle)
    async with serving(app) as url:
        one.url = url
        yield one


async def until(true: Callable[[], Any], patience: float = 10.0) -> None:
    """Fails when it does not come true."""
    end = asyncio.get_running_loop().time() + patience
    while not true():
        assert asyncio.get_running_loop().time() < end, f"not within {patience} s"
        await asyncio.sleep(0.01)
