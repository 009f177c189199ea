"""How much one client may ask of the collector: how fast, how slowly, how large.

    body       the size of a body after decompression (`max_body`), and PATIENCE for all of it
    head       8 kB for a line, 128 headers, IDLE for all of them: aiohttp's own limits
    rate       events a second of one address, by a bucket of tokens (`rate`, `burst`); requests that are refused cost one each

Whoever has a site's secret key sends as fast as Kafka takes it. Nor is an address limited that is nobody's on the internet: it is a
proxy's that `trusted_proxies` does not name, and many people are behind it.
"""

import asyncio
import logging
import math
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from app import proxies
from app.collector.door import problem

PATIENCE = 30.0  # seconds for a body
IDLE = 75.0  # seconds in which a connection has to send a request
LINGER = 1.0  # seconds in which what still comes of a refused body is thrown away: it costs, if it is compressed
KEPT = 50_000  # addresses


class Refusal(NamedTuple):
    status: int
    reason: str
    detail: str


async def read(request: web.Request) -> Refusal | None:
    """Read the body: the request keeps it. None when all of it is there."""
    try:
        async with asyncio.timeout(PATIENCE):
            await request.read()
    except web.HTTPRequestEntityTooLarge:
        return Refusal(413, "too_large", f"larger than {request.client_max_size} bytes")
    except TimeoutError:
        return Refusal(408, "too_slow", f"the body did not come within {PATIENCE:.0f} s")
    except web.RequestPayloadError:
        return Refusal(400, "unreadable", "the body is not encoded as its headers say")
    return None


class Buckets:
    """Tokens by address: `burst` at first, `rate` more each second. Bounded; who was not heard of for longest is forgotten."""

    def __init__(self, rate: float, burst: int, clock: Callable[[], float] = time.monotonic, most: int = KEPT) -> None:
        self._rate, self._burst, self._clock, self._most = rate, burst, clock, most
        self._known: OrderedDict[str, tuple[float, float]] = OrderedDict()  # (tokens, when)

    def wait(self, client: str) -> int:
        """Seconds until this client may send again; 0: now."""
        tokens = self._tokens(proxies.neighbourhood(client)) if self._counts(client) else 1.0
        return 0 if tokens >= 1 else math.ceil((1 - tokens) / self._rate)

    def charge(self, client: str, events: int) -> None:
        if not self._counts(client):
            return
        name = proxies.neighbourhood(client)
        # a debt, but none that takes longer to pay than the bucket takes to fill
        self._known[name] = max(self._tokens(name) - events, -float(self._burst)), self._clock()
        self._known.move_to_end(name)
        if len(self._known) > self._most:
            self._known.popitem(last=False)

    def _counts(self, client: str) -> bool:
        return self._rate > 0 and proxies.of_a_person(client)

    def _tokens(self, name: str) -> float:
        tokens, since = self._known.get(name, (float(self._burst), self._clock()))
        return min(float(self._burst), tokens + (self._clock() - since) * self._rate)


Handle = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
Directly = Callable[[web.BaseRequest], Awaitable[web.StreamResponse | None]]
#: What an application answers before it looks for a route; None: look for one.
DIRECTLY: web.AppKey[Directly] = web.AppKey("directly")


async def runner(app: web.Application) -> web.AppRunner:
    """Set up, for a site to be started. No access log: keys can be in it. Idle connections do not hold up the stop."""
    quiet = logging.getLogger("app.collector.http")  # of requests that are none it would tell in many lines, each time
    quiet.setLevel(logging.CRITICAL)
    made = web.AppRunner(
        app, access_log=None, shutdown_timeout=5, keepalive_timeout=IDLE, lingering_time=LINGER, logger=quiet
    )
    await made.setup()
    assert made.server is not None
    made.server.__class__ = _Server
    if DIRECTLY in app:
        made.server.request_handler = _first(app[DIRECTLY], made.server.request_handler)
    return made


def _first(directly: Directly, handle: Handle) -> Handle:
    async def one(request: web.BaseRequest) -> web.StreamResponse:
        answer = await directly(request)
        return await handle(request) if answer is None else answer

    return one


class _Server(web.Server):
    def __call__(self) -> RequestHandler:
        return _Handler(self, loop=self._loop, **self._kwargs)


class _Handler(RequestHandler):
    def handle_error(self, *_what: Any, **_more: Any) -> web.StreamResponse:
        """To what is no HTTP. aiohttp's own answer quotes it."""
        answer = problem(400, "not_http", "", "no request that could be read")
        answer.force_close()
        return answer
