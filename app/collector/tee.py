"""GA4's own hits: each goes on to Google as it came, and a copy of it into the pipeline.

    GET, POST /g/collect     what gtag.js sends where its `server_container_url` is the collector's address
    POST      /mp/collect    the Measurement Protocol, as a back end sends it

Only GA4 itself can make sessions and models of what its tag reports, so the tag's report must reach it whole. A hit names its
data stream; only streams of the configuration are known, and the configuration says where the hits of each go: this is no open
relay. Events of a hit that was handed on are marked with the stream's measurement id, and sinks/ga4.py does not send them again.

A hit waits in memory alone: it holds clear page addresses and the visitor's IP address, which are written nowhere. It is sent
beside the write to Kafka, so neither a slow Google holds up the pipeline, nor an outage of Kafka GA4. What Google refuses, or
cannot be reached for, is tried again for a while. A hit without an answer is not: GA4 cannot tell a repetition from a second
event. Where too many wait, a further hit is not taken on and not marked, and a `ga4` destination sends what it can of it.

What is handed on: the query and the body byte for byte, content type, and the browser's user agent. Never cookies. The visitor's IP
address goes as `_uip`, which GA4 reads although no page of Google's names it: github.com/br33f/php-GA4-Measurement-Protocol, pull
request 4, and github.com/kubestellar/console, pull request 1291. The Measurement Protocol has `ip_override` in its body.
"""

import asyncio
import hmac
import math
import random
import re
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote

import aiohttp
import structlog
from aiohttp import web
from yarl import URL

from app import consent, metrics
from app.collector.door import Door, Taken
from app.destination import ConsentPolicy
from app.errors import BadEvent
from app.events import SIGNALS, Event, Json, Tag
from app.formats import Ignored, gtag
from app.normalize import Normalized, Result, parse
from app.renewed import Renewed
from app.settings import Ga4Stream
from sinks.ga4 import Ga4

log = structlog.get_logger()

AT_ONCE = 32  # hits of one stream under way
MOST_WAITING = 10_000  # hits of one stream
MOST_BYTES = 32 << 20  # of those
TIMEOUT = 10.0  # seconds for one attempt
PATIENCE = 300.0  # seconds for which a hit is tried
LAST_WORDS = 5.0  # seconds for those still waiting when the collector stops
SAY_EVERY = 60.0  # seconds between two lines of the log about the same outcome
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0  # seconds between attempts

_UIP = re.compile(r"(^|&)_uip=[^&]*")


@dataclass(frozen=True)
class Hit:
    """One request to Google."""

    method: str
    url: str  # as it goes out, nothing in it is quoted again
    headers: Mapping[str, str]
    body: bytes

    @property
    def size(self) -> int:
        return len(self.url) + len(self.body)


# what goes out


def from_browser(stream: Ga4Stream, method: str, query: str, body: bytes, content_type: str, visitor: Json) -> Hit:
    """A hit of gtag as Google gets it: unchanged, and with what Google would have seen of the visitor itself."""
    query = _UIP.sub("", query).lstrip("&")
    if stream.visitor_ip and visitor.get("ip"):
        query += f"&_uip={quote(visitor['ip'], safe='')}"
    headers = {"User-Agent": visitor.get("user_agent", ""), "Content-Type": content_type if body else ""}
    return Hit(method, f"{stream.endpoint}/g/collect?{query}", _told(headers), body)


def from_server(stream: Ga4Stream, query: str, body: bytes, content_type: str, user_agent: str) -> Hit:
    """A request of the Measurement Protocol, unchanged. Whose address it came from is nobody's business: it is a server."""
    headers = {"User-Agent": user_agent, "Content-Type": content_type}
    return Hit("POST", f"{stream.endpoint}/mp/collect?{query}", _told(headers), body)


def _told(headers: Mapping[str, str]) -> dict[str, str]:
    # a header that came in may be no UTF-8
    return {name: value.encode(errors="replace").decode() for name, value in headers.items() if value}


def may_go(said: Mapping[str, Any], stream: Ga4Stream, policy: ConsentPolicy) -> bool:
    """Does this consent allow GA4 to have the hit, which can only go whole?"""
    place = str(said.get("region", ""))
    verdict = consent.judge(
        said,
        "analytics",
        policy,
        vendor=Ga4.vendor,
        flags=Ga4.flags,
        place=place if consent.is_place(place) else "",
        site=stream.site,
    )
    if verdict.allowed:
        return verdict.part != "strip"
    return stream.cookieless and said.get("analytics_storage") == "denied"


def marked(results: Sequence[Result], measurement_id: str) -> list[Result]:
    """The same events, saying that GA4 has them."""
    return [
        replace(one, event=_with_mark(one.event, measurement_id)) if isinstance(one, Normalized) else one
        for one in results
    ]


def _with_mark(event: Event, measurement_id: str) -> Event:
    tags = event.get("tags", {})
    mark: Tag = {**tags.get(measurement_id, {}), "relayed": True}
    return {**event, "tags": {**tags, measurement_id: mark}}


def chosen(results: Sequence[Result], copies: str) -> list[Result]:
    """What of a hit enters the pipeline, by the setting `copies`. What cannot be read is told in any case."""
    return [
        Ignored("only_relayed") if isinstance(one, Normalized) and not _wanted(one.event, copies) else one
        for one in results
    ]


def _wanted(event: Event, copies: str) -> bool:
    return copies == "all" or (copies == "with_id" and "pairs" not in event)


def said_by_server(body: Any) -> Json:
    """The consent of a Measurement Protocol's body, which knows two signals. What cannot be read denies."""
    given = body.get("consent") if isinstance(body, Mapping) else None
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        return dict.fromkeys(SIGNALS, "denied")
    return {name: str(given[name]).strip().lower() for name in SIGNALS if given.get(name) is not None}


# sending


class Relay:
    """Hands on the hits of one data stream. Hits wait here while Google is slow or away."""

    def __init__(
        self,
        measurement_id: str,
        session: aiohttp.ClientSession,
        *,
        most_waiting: int = MOST_WAITING,
        timeout: float = TIMEOUT,
        patience: float = PATIENCE,
    ) -> None:
        self.measurement_id, self._session = measurement_id, session
        self._most_waiting, self._timeout, self._patience = most_waiting, timeout, patience
        self._waiting: asyncio.Queue[tuple[float, Hit]] = asyncio.Queue()
        self._bytes, self._open = 0, 0
        self._senders: set[asyncio.Task[None]] = set()
        self._said: dict[str, float] = {}  # outcome -> when the log was told of it

    def offer(self, hit: Hit) -> bool:
        """Take the hit on; False when too many wait already."""
        if self._open >= self._most_waiting or self._bytes + hit.size > MOST_BYTES:
            self._count("full")
            return False
        self._waiting.put_nowait((time.monotonic(), hit))
        self._open += 1
        self._bytes += hit.size
        metrics.RELAY_WAITING.labels(self.measurement_id).set(self._open)
        if len(self._senders) < min(AT_ONCE, self._open):
            sender = asyncio.create_task(self._send_waiting())
            self._senders.add(sender)
            sender.add_done_callback(self._senders.discard)
        return True

    async def stop(self, seconds: float = LAST_WORDS) -> None:
        """Give those that wait a last while; the others are counted as lost."""
        if self._senders:
            await asyncio.wait(self._senders, timeout=seconds)
        for sender in self._senders:
            sender.cancel()
        await asyncio.gather(*self._senders, return_exceptions=True)
        for _ in range(self._open):
            self._count("stopped")

    async def _send_waiting(self) -> None:
        """Until nothing waits any more."""
        while not self._waiting.empty():
            since, hit = self._waiting.get_nowait()
            outcome = await self._send(hit, since)
            self._open -= 1
            self._bytes -= hit.size
            metrics.RELAY_WAITING.labels(self.measurement_id).set(self._open)
            self._count(outcome)

    async def _send(self, hit: Hit, since: float) -> str:
        pause = _FIRST_PAUSE
        while True:
            outcome = await self._attempt(hit)
            if outcome != "again":
                return outcome
            # full jitter: what waited together must not come back together
            await asyncio.sleep(random.uniform(0, pause))  # noqa: S311 (no secret)
            pause = min(2 * pause, _LONGEST_PAUSE)
            if time.monotonic() - since > self._patience:
                return "given_up"

    async def _attempt(self, hit: Hit) -> str:
        """`again` only where GA4 cannot have it."""
        try:
            async with self._session.request(
                hit.method,
                URL(hit.url, encoded=hit.url.isascii()),
                data=hit.body or None,
                headers=hit.headers,
                skip_auto_headers=("User-Agent", "Content-Type", "Accept", "Accept-Encoding"),
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=self._timeout, connect=self._timeout / 2),
            ) as response:
                if response.status < 300:
                    return "relayed"
                return "again" if response.status in (408, 429) or response.status >= 500 else "refused"
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
            return "again"  # it was never sent
        except Exception as exc:  # noqa: BLE001 (whatever goes wrong is an outcome)
            if not isinstance(exc, aiohttp.ClientError | TimeoutError | OSError):
                log.warning("tee.failed", error=type(exc).__name__)  # its text may hold the address
            return "unknown"

    def _count(self, outcome: str) -> None:
        metrics.RELAYED.labels(self.measurement_id, outcome).inc()
        now = time.monotonic()
        if outcome != "relayed" and now - self._said.get(outcome, -math.inf) > SAY_EVERY:
            log.warning("tee.not_relayed", measurement_id=self.measurement_id, outcome=outcome)
            self._said[outcome] = now


# the routes


class Tee:
    def __init__(self, door: Door) -> None:
        self._door = door
        self._streams = door.settings.collector.ga4
        self._policies = {name: door.settings.stream_policy(name) for name in self._streams}
        self._secrets = {
            name: Renewed(stream.api_secret) for name, stream in self._streams.items() if stream.api_secret is not None
        }
        self._relays: dict[str, Relay] = {}

    async def run(self, _app: web.Application) -> AsyncIterator[None]:
        """The relays, for as long as the application runs."""
        if not self._streams:
            yield
            return
        async with aiohttp.ClientSession(
            cookie_jar=aiohttp.DummyCookieJar(), connector=aiohttp.TCPConnector(limit=0)
        ) as session:
            self._relays = {name: Relay(name, session) for name in self._streams}
            yield
            await asyncio.gather(*(relay.stop() for relay in self._relays.values()))

    async def gtag(self, request: web.Request) -> web.Response:
        if (answer := self._door.too_fast(request) or self._door.stranger(request)) is not None:
            return answer
        query, body = _query(request), await request.read()
        hit = {"query": query, "lines": body.decode(errors="replace")}
        try:
            events = gtag.split(hit)
        except BadEvent as exc:
            return self._door.refuse(request, 400, exc.reason, exc.field, exc.detail)
        # every word that it says of its stream: Google might heed another than we do
        name = _only([*request.query.getall("tid", []), *(one.get("tid", "") for one in events)])
        stream = self._streams.get(name)
        if stream is None:
            return self._unknown(request, "tid")
        visitor, headers = self._door.visitor(request), request.headers
        allowed = all(may_go(gtag.consent(one), stream, self._policies[name]) for one in events)
        out = from_browser(stream, request.method, query, body, headers.get("Content-Type", ""), visitor)
        relayed = self._hand_on(name, out, allowed=allowed)
        taken = self._door.take(hit, stream.site, "gtag", request)
        self._door.charge(request, len(taken.results))
        return await self._keep(taken, name, stream.copies, relayed=relayed)

    async def measurement_protocol(self, request: web.Request) -> web.Response:
        if (answer := self._door.too_fast(request)) is not None:
            return answer
        query, body, headers = _query(request), await request.read(), request.headers
        given = request.query
        name = _only([*given.getall("measurement_id", []), *given.getall("firebase_app_id", [])])
        stream = self._streams.get(name)
        if stream is None:
            return self._unknown(request, "measurement_id")
        secret = self._secrets.get(name)
        if secret is None or not hmac.compare_digest(secret.read(), _only(given.getall("api_secret", [])).encode()):
            return self._door.refuse(request, 401, "no_key", "api_secret", "is missing or not known")
        try:
            parsed = parse(body)
        except BadEvent as exc:
            return self._door.refuse(request, 400, exc.reason, exc.field, exc.detail)
        allowed = may_go(said_by_server(parsed), stream, self._policies[name])
        out = from_server(stream, query, body, headers.get("Content-Type", ""), headers.get("User-Agent", ""))
        relayed = self._hand_on(name, out, allowed=allowed)
        taken = self._door.take(parsed, stream.site, "ga4", None)
        return await self._keep(taken, name, "all", relayed=relayed)

    def _unknown(self, request: web.Request, field: str) -> web.Response:
        detail = "is none of the data streams that this collector knows"
        return self._door.refuse(request, 404, "unknown_stream", field, detail)

    def _hand_on(self, name: str, hit: Hit, *, allowed: bool) -> bool:
        if not self._streams[name].relay:
            return False
        if not allowed:
            metrics.RELAYED.labels(name, "no_consent").inc()
            return False
        return self._relays[name].offer(hit)

    async def _keep(self, taken: Taken, name: str, copies: str, *, relayed: bool) -> web.Response:
        results = chosen(taken.results, copies)
        answer = await self._door.keep(taken._replace(results=marked(results, name) if relayed else results))
        # as Google answers; a refusal is told, to whoever looks into the browser's network
        return web.Response(status=204) if answer.status == 200 else answer


def _query(request: web.Request) -> str:
    """As it came: parsed and written again it would be another one."""
    return request.raw_path.partition("?")[2]


def _only(values: Sequence[str]) -> str:
    """The one that all of them are, else an empty text."""
    return values[0] if len(set(values)) == 1 else ""
