"""The collector: parse, normalise, hash, and write straight to capistream.events.

    POST /v1/events                             our own JSON: one event, a list, or {"batch": [...]}
    POST /v1/track /v1/page /v1/batch ... /v1/t the Segment spec, as its SDKs send it
    GET  /healthz /readyz /metrics

The key comes as basic-auth user name, as bearer token, or as `writeKey` in the body. A site's write key is public and good
for pixel events only; its secret key is for servers. The answer is 200 when Kafka has acknowledged every event that could be
taken, 400 when none could, 413 for too much, 401 without a key, 503 with Retry-After when Kafka does not answer.
"""

import asyncio
import base64
import binascii
import hmac
import ipaddress
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson
import structlog
from aiohttp import web
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from app import formats, intake, metrics, topics
from app.errors import BadEvent
from app.events import Json, Origin
from app.normalize import Inlet, Refused, normalize, parse, wanted_variants
from app.settings import Settings

log = structlog.get_logger()

KAFKA_PATIENCE = 10.0  # seconds for Kafka's acknowledgement; then 503, and the client sends again
RETRY_AFTER = "5"  # seconds

_SEGMENT = ("batch", "track", "page", "screen", "identify", "group", "alias")
_SHORT = {"b": "batch", "t": "track", "p": "page", "s": "screen", "i": "identify", "g": "group", "a": "alias"}


@dataclass(frozen=True)
class _Key:
    value: bytes
    site: str
    secret: bool


class Collector:
    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.names = topics.names(settings)
        self.partitions = settings.kafka.partitions
        self._keep = wanted_variants(settings)
        self._trusted = [ipaddress.ip_network(network) for network in settings.collector.trusted_proxies]
        self._keys = [
            key
            for site, one in settings.sites.items()
            for key in (
                _Key(one.write_key.encode(), site, secret=False),
                _Key(one.secret_key.read().encode(), site, secret=True),
            )
        ]
        self._producer: AIOKafkaProducer | None = None

    def application(self) -> web.Application:
        app = web.Application(client_max_size=self.settings.collector.max_body, middlewares=[self._cors])
        app.router.add_post("/v1/events", self.own)
        for name in _SEGMENT:
            app.router.add_post(f"/v1/{name}", self.segment)
        for short in _SHORT:
            app.router.add_post(f"/v1/{short}", self.segment)
        app.router.add_get("/healthz", self.healthz)
        app.router.add_get("/readyz", self.readyz)
        app.router.add_get("/metrics", metrics.page)
        app.cleanup_ctx.append(self._kafka)
        return app

    async def _kafka(self, _app: web.Application) -> Any:
        # Not idempotent: a repeated or reordered copy changes nothing after dedup, and such a producer survives an outage.
        self._producer = AIOKafkaProducer(
            bootstrap_servers=self.settings.brokers,
            acks="all",
            linger_ms=2,
            max_batch_size=256 * 1024,
            request_timeout_ms=int(KAFKA_PATIENCE * 1000),
            # longer than this between two looks for a lost broker, and copies would come later than the log's clock allows for
            retry_backoff_ms=200,
        )
        await topics.apply(self.settings)
        await self._producer.start()
        yield
        await self._producer.stop()

    # -- routes

    async def own(self, request: web.Request) -> web.Response:
        return await self._take(request, "capistream", None)

    async def segment(self, request: web.Request) -> web.Response:
        call = request.path.rsplit("/", 1)[1]
        return await self._take(request, "segment", _SHORT.get(call, call))

    async def healthz(self, _request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(self, _request: web.Request) -> web.Response:
        """Ready when Kafka answers."""
        assert self._producer is not None
        try:
            await asyncio.wait_for(self._producer.client.fetch_all_metadata(), 3)
        except (KafkaError, TimeoutError):
            return web.Response(status=503, text="Kafka does not answer\n")
        return web.Response(text="ready\n")

    # -- one request

    async def _take(self, request: web.Request, format_name: str, call: str | None) -> web.Response:
        received, origin = int(time.time() * 1000), Origin(request=uuid.uuid4().hex)
        try:
            raw = await request.read()
        except web.HTTPRequestEntityTooLarge:
            metrics.REFUSED.labels("too_large").inc()
            return _problem(413, "too_large", "", f"larger than {self.settings.collector.max_body} bytes")
        try:
            body = parse(raw)
        except BadEvent as exc:
            metrics.REFUSED.labels(exc.reason).inc()
            return _problem(400, exc.reason, exc.field, exc.detail)
        key = self._key(request, body)
        if key is None:
            metrics.REFUSED.labels("no_key").inc()
            return _problem(401, "no_key", "writeKey", "is missing or not known")
        if isinstance(body, dict):
            body.pop("writeKey", None)
            if call not in (None, "batch"):
                body.setdefault("type", call)
        results = normalize(
            body, self._inlet(key, format_name), received, origin, None if key.secret else self._connection(request)
        )
        rows = intake.new_rows()
        intake.collect(rows, results, origin, "collector", self.names, self.partitions, received)
        if not await self._write(rows):
            return _problem(503, "kafka_unavailable", "", "try again", {"Retry-After": RETRY_AFTER})
        refused = [
            {"index": r.index, "reason": r.reason, "field": r.field, "detail": r.detail}
            for r in results
            if isinstance(r, Refused)
        ]
        ignored = sum(isinstance(r, formats.Ignored) for r in results)
        accepted = len(results) - len(refused) - ignored
        answer: Json = {"success": not refused, "accepted": accepted, "request": origin["request"]}
        if ignored:
            answer["ignored"] = ignored
        if refused:
            answer["refused"] = refused
        return _json(answer, 400 if len(refused) == len(results) else 200)

    def _key(self, request: web.Request, body: Any) -> _Key | None:
        scheme, _, credentials = request.headers.get("Authorization", "").partition(" ")
        given = ""
        if scheme.lower() == "basic":
            try:
                given = base64.b64decode(credentials, validate=True).decode().partition(":")[0]
            except (binascii.Error, UnicodeDecodeError):
                return None
        elif scheme.lower() == "bearer":
            given = credentials.strip()
        elif isinstance(body, Mapping) and isinstance(body.get("writeKey"), str):
            given = body["writeKey"]
        found = None
        for key in self._keys:  # all of them, in constant time each: the time must not tell which was close
            if hmac.compare_digest(key.value, given.encode()):
                found = key
        return found

    def _inlet(self, key: _Key, format_name: str) -> Inlet:
        return Inlet(
            name="collector",
            format=format_name,
            site=key.site,
            source="server" if key.secret else "pixel",
            # whoever has only the public key cannot claim to be a server
            sources=frozenset({"server", "app", "offline", "crm"}) if key.secret else frozenset({"pixel"}),
            country=self.settings.sites[key.site].country,
            keep=self._keep,
        )

    def _connection(self, request: web.Request) -> Json:
        """What the connection says of the browser: it wins over the body, which anybody can write."""
        found = {"ip": self._client(request), "user_agent": request.headers.get("User-Agent", "")}
        return {name: value for name, value in found.items() if value}

    def _client(self, request: web.Request) -> str:
        """The first address, from our side, that is no trusted proxy."""
        hops = [
            hop.strip() for hop in ",".join(request.headers.getall("X-Forwarded-For", [])).split(",") if hop.strip()
        ]
        for hop in [request.remote or "", *reversed(hops)]:
            try:
                address = ipaddress.ip_address(hop)
            except ValueError:
                return ""
            if not any(address in network for network in self._trusted):
                return str(address)
        return hops[0] if hops else ""

    async def _write(self, rows: intake.Rows) -> bool:
        """True when Kafka has all of it."""
        assert self._producer is not None
        producer = self._producer

        async def send() -> None:
            # enqueued in order and then awaited together: the producer makes batches of what is there
            waiting = [
                await producer.send(topic, partition=p, key=key, value=value, timestamp_ms=timestamp)
                for (topic, p), some in rows.items()
                for key, value, timestamp in some
            ]
            for one in waiting:
                await one

        try:
            await asyncio.wait_for(send(), KAFKA_PATIENCE)
        except (KafkaError, TimeoutError) as exc:
            log.warning("collector.kafka_unavailable", error=repr(exc))
            return False
        return True

    @web.middleware
    async def _cors(self, request: web.Request, handler: Any) -> web.StreamResponse:
        origin = request.headers.get("Origin")
        allowed = self.settings.collector.origins
        headers = {}
        if origin and ("*" in allowed or origin in allowed):
            headers = {"Access-Control-Allow-Origin": "*" if "*" in allowed else origin, "Vary": "Origin"}
        if request.method == "OPTIONS":
            preflight = {
                "Access-Control-Allow-Methods": "POST, GET",
                "Access-Control-Allow-Headers": "Authorization, Content-Type, Content-Encoding",
                "Access-Control-Max-Age": "86400",
            }
            return web.Response(status=204, headers=headers | (preflight if headers else {}))
        try:
            response: web.StreamResponse = await handler(request)
        except web.HTTPRequestEntityTooLarge:
            response = _problem(413, "too_large", "", f"larger than {self.settings.collector.max_body} bytes")
        response.headers.update(headers)
        return response


def _json(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.Response(body=orjson.dumps(value), status=status, content_type="application/json", headers=headers)


def _problem(
    status: int, reason: str, field: str, detail: str, headers: Mapping[str, str] | None = None
) -> web.Response:
    error = {"reason": reason, "field": field, "detail": detail}
    return _json({"success": False, "error": {k: v for k, v in error.items() if v}}, status, headers)


async def serve(settings: Settings, started: Any = None) -> None:
    """Run until cancelled."""
    # no access log: keys can be in it; idle connections do not hold up the stop
    runner = web.AppRunner(Collector(settings).application(), access_log=None, shutdown_timeout=5)
    await runner.setup()
    try:
        site = web.TCPSite(runner, settings.collector.host, settings.collector.port)
        await site.start()
        log.info("collector.started", address=f"http://{settings.collector.host}:{settings.collector.port}")
        if started is not None:
            started()
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()
