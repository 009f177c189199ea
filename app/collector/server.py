"""The collector: parse, normalise, hash, and write straight to capistream.events.

    own                 our own JSON: one event, a list, or {"batch": [...]}
    segment, servers    the Segment spec, as its SDKs and Jitsu's send it; `servers` with the secret key alone
    segment_settings    for Segment's SDK in the browser
    gtag                and `measurement_protocol`: GA4's own hits (tee.py)
    forget              with the secret key: forget a person, as `capistream forget`
    script              the pixel (pixel.py), whose requests get first-party cookies (cookies.py)
    openapi             what openapi.py tells of all this
    healthz readyz metrics

routes.py has their paths. The key comes as basic-auth user name, as bearer token, as `X-Write-Key`, or as `writeKey` in the body. A
site's write key is public and good for pixel events only; its secret key is for servers. The answer is 200 when Kafka, or the spool
(outbox.py), has every event that could be taken, 400 when none could, 401 without a key, 403 for a page that may not report, 413
and 429 for too much (limits.py), 503 with Retry-After when neither has it.
"""

import asyncio
import base64
import hmac
import ipaddress
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import structlog
from aiohttp import HttpVersion11, web

from app import erasure, forget, formats, intake, loop, metrics, plain, proxies, topics, traffic
from app.collector import clients, cookies, cors, limits, openapi, routes
from app.collector.door import Ready, Taken, as_json, problem
from app.collector.outbox import Outbox
from app.collector.pixel import Script
from app.collector.tee import Tee
from app.errors import BadEvent
from app.events import Event, Json, Origin
from app.normalize import Inlet, Normalized, Refused, Result, normalize, parse, wanted_variants
from app.renewed import Renewed
from app.settings import Settings
from sinks import ga4

log = structlog.get_logger()

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

RETRY_AFTER = "5"  # seconds
_OURS = "an error of ours; it is in the log"
_CLIENT = web.RequestKey("client", str)  # the address that a request comes from


@dataclass(frozen=True)
class _Key:
    read: Callable[[], bytes]
    site: str
    secret: bool


class Collector:
    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.names = topics.names(settings)
        self.partitions = settings.kafka.partitions
        self._keep = wanted_variants(settings)
        # by what they differ in: to make one takes longer than to parse an event
        self._inlets: dict[tuple[Any, ...], Inlet] = {}
        self._trusted = [ipaddress.ip_network(network) for network in settings.collector.trusted_proxies]
        self._keys = [
            key
            for site, one in settings.sites.items()
            for key in (
                _Key(one.write_key.encode, site, secret=False),
                _Key(Renewed(one.secret_key).read, site, secret=True),
            )
        ]
        # what made-up ids are made with, the same ones for as long as this process runs
        self._secrets = {key.site: key.read() for key in self._keys if key.secret}
        self._streams = [
            str(one.measurement_id) for one in settings.destinations.values() if isinstance(one, ga4.Settings)
        ]
        self._buckets = limits.Buckets(settings.collector.rate, settings.collector.burst)
        self._outbox = Outbox(settings)

    def application(self) -> web.Application:
        app = web.Application(
            client_max_size=self.settings.collector.max_body, middlewares=[self._cors, self._answered]
        )
        tee, script = Tee(self), Script.of(self.settings.collector)
        handlers: dict[routes.Does, Handler] = {
            "own": self.own,
            "segment": self.segment,
            "servers": self.servers,
            "segment_settings": self.segment_settings,
            "gtag": tee.gtag,
            "measurement_protocol": tee.measurement_protocol,
            "forget": self.forget,
            "script": script.serve,
            "openapi": self.openapi,
            "healthz": self.healthz,
            "readyz": self.readyz,
            "metrics": metrics.page,
        }
        for method, path, does in routes.of(self.settings.collector):
            if method == "GET":
                app.router.add_get(path, handlers[does], allow_head=does != "gtag")
            else:
                app.router.add_post(path, handlers[does])
        app[limits.DIRECTLY] = self._directly
        app.cleanup_ctx.append(self._kafka)
        app.cleanup_ctx.append(tee.run)
        return app

    async def _kafka(self, _app: web.Application) -> Any:
        await self._outbox.start()
        yield
        await self._outbox.stop()

    # -- routes

    async def own(self, request: web.Request) -> web.Response:
        return await self._take(request, "capistream", None)

    async def segment(self, request: web.Request) -> web.Response:
        return await self._take(request, "segment", clients.call_of(request.path))

    async def servers(self, request: web.Request) -> web.Response:
        return await self._take(request, "segment", clients.call_of(request.path), servers_only=True)

    async def segment_settings(self, request: web.Request) -> web.Response:
        key = self._known(request.match_info["key"])
        if key is None or key.secret:
            return self.refuse(request, 404, "no_key", "", "no site has this write key")
        found = clients.analytics_next(request.match_info["key"], self.settings.collector.address)
        return as_json(found, headers={"Cache-Control": "max-age=300"})

    async def forget(self, request: web.Request) -> web.Response:
        """Entries for the key's site. What is clear is hashed here, and nothing of it is in the answer, nor in any log."""
        if (answer := self.too_fast(request)) is not None:
            return answer
        try:
            body = parse(await request.read())
            key = self._key(request, body)
            if key is None or not key.secret:
                return self.refuse(request, 401 if key is None else 403, "no_key", "", "needs the site's secret key")
            if isinstance(body, dict):
                body.pop("writeKey", None)
            asked = erasure.read(body, self.settings.sites[key.site].country)
        except BadEvent as exc:
            return self.refuse(request, 400, exc.reason, exc.field, exc.detail)
        entries = asked.entries(int(time.time() * 1000), f"collector {key.site}", key.site)
        rows = intake.new_rows()
        rows[self.names.people, 0] = [entry.row() for entry in entries]
        if not asked.dry_run and not await self._outbox.write(rows):
            return _not_taken()
        return as_json({"success": True, **forget.answer(asked, entries, self.settings)})

    async def openapi(self, _request: web.Request) -> web.Response:
        return as_json(openapi.document(self.settings.collector), headers={"Cache-Control": "max-age=300"})

    async def healthz(self, _request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(self, _request: web.Request) -> web.Response:
        """Ready when events can be taken."""
        if why := await self._outbox.trouble():
            return web.Response(status=503, text=f"{why}\n")
        return web.Response(text="ready\n")

    # -- one request

    async def _directly(self, request: web.BaseRequest) -> web.StreamResponse | None:
        """To a server's plain events (app/plain.py) with its key in a header: the answer of our own route, without the way there.
        None for all other requests.
        """
        content, headers = request.content, request.headers
        if request.raw_path != self.settings.collector.routes.own or request.method != "POST":
            return None
        if request.version != HttpVersion11 or not request.keep_alive:
            return None
        if "Origin" in headers or "Expect" in headers or not content.is_eof() or content.exception() is not None:
            return None
        key = self._key(request, None)
        if key is None or not key.secret or content.total_bytes > self.settings.collector.max_body:
            return None
        try:
            # all of it is here; `read` copies it twice, and has it then for whoever asks next
            request._read_bytes = content.read_nowait()
            body = plain.read(request._read_bytes)
            if body is None:
                return None
            rows, said = self._rows(self.take(body, key.site, "capistream", None))
            del body  # as below
            return await self._not_written(rows, said) or Ready(said)
        except ConnectionError:
            raise
        except Exception:
            log.exception("collector.failed", route="own")
            return problem(500, "failed", "", _OURS)

    async def _take(
        self, request: web.Request, format_name: str, call: str | None, *, servers_only: bool = False
    ) -> web.Response:
        key = self._key(request, None)
        if (answer := self._too_fast(request, key)) is not None:
            return answer
        try:
            body = parse(await request.read())
        except BadEvent as exc:
            return self.refuse(request, 400, exc.reason, exc.field, exc.detail)
        key = key or self._key(request, body)
        if key is None:
            return self.refuse(request, 401, "no_key", "writeKey", "is missing or not known")
        if servers_only and not key.secret:
            return self.refuse(request, 403, "no_key", "writeKey", "must be the site's secret key for server events")
        if not key.secret and (answer := self.stranger(request)) is not None:
            return answer
        if isinstance(body, dict):
            body.pop("writeKey", None)
            if key.secret:
                body.pop("decided", None)  # of a browser's cookies; a server has none
            if call not in (None, "batch"):
                body.setdefault("type", call)
        if key.secret:
            rows, said = self._rows(self.take(body, key.site, format_name, None))
            # Kafka is waited for with bytes alone: the next request's events are made in the memory of these
            del body
            return await self._written(rows, said)
        visit = cookies.visit(request.headers, request.cookies, body, int(time.time() * 1000))
        taken = self.take(body, key.site, format_name, request)
        self.charge(request, len(taken.results))
        results, given = self._with_cookies(taken.results, visit, key.site)
        response = await self.keep(taken._replace(results=results))
        if response.status == 200:
            response.headers.extend(("Set-Cookie", one) for one in given)
        return response

    def too_fast(self, request: web.Request) -> web.Response | None:
        return self._too_fast(request, self._key(request, None))

    def _too_fast(self, request: web.Request, key: _Key | None) -> web.Response | None:
        if (key and key.secret) or not (wait := self._buckets.wait(self._client(request))):
            return None
        metrics.REFUSED.labels("too_fast").inc()
        return problem(429, "too_fast", "", "too many events from this address", {"Retry-After": str(wait)})

    def stranger(self, request: web.Request) -> web.Response | None:
        if not cors.stranger(request.headers, self.settings.collector.origins):
            return None
        return self.refuse(
            request, 403, "origin_not_allowed", "", "this page's origin is none of those that may report"
        )

    def refuse(self, request: web.Request, status: int, reason: str, field: str, detail: str) -> web.Response:
        metrics.REFUSED.labels(reason).inc()
        self.charge(request, 1)
        return problem(status, reason, field, detail)

    def charge(self, request: web.Request, events: int) -> None:
        self._buckets.charge(self._client(request), events)

    def take(self, body: Any, site: str, format_name: str, browser: web.Request | None) -> Taken:
        received, request = int(time.time() * 1000), secrets.token_hex(16)
        visitor = None
        if browser is None:
            inlet = self._inlet(site, format_name)
        else:
            inlet, visitor = self._of_browser(site, format_name, browser), self.visitor(browser)
        return Taken(normalize(body, inlet, received, Origin(request=request), visitor), received, request)

    async def keep(self, taken: Taken) -> web.Response:
        return await self._written(*self._rows(taken))

    def _rows(self, taken: Taken) -> tuple[intake.Rows, Json]:
        """What is to be written, and what can be answered then."""
        results, rows = taken.results, intake.new_rows()
        origin = Origin(request=taken.request)
        intake.collect(rows, results, origin, "collector", self.names, self.partitions, taken.received)
        refused = [
            {"index": r.index, "reason": r.reason, "field": r.field, "detail": r.detail}
            for r in results
            if isinstance(r, Refused)
        ]
        ignored = sum(isinstance(r, formats.Ignored) for r in results)
        accepted = len(results) - len(refused) - ignored
        answer: Json = {"success": not refused, "accepted": accepted, "request": taken.request}
        if ignored:
            answer["ignored"] = ignored
        if refused:
            answer["refused"] = refused
        if len(refused) == len(results):
            # by these names the SDKs of Segment and RudderStack tell their log what was wrong
            answer |= {"code": refused[0]["reason"], "message": f"{refused[0]['field']} {refused[0]['detail']}".strip()}
        return rows, answer

    async def _written(self, rows: intake.Rows, answer: Json) -> web.Response:
        return await self._not_written(rows, answer) or as_json(answer)

    async def _not_written(self, rows: intake.Rows, answer: Json) -> web.Response | None:
        """Write it. What to answer instead when nobody has it, or all of it is refused."""
        if not await self._outbox.write(rows):
            return _not_taken()
        return as_json(answer, 400) if "code" in answer else None

    def _with_cookies(
        self, results: Sequence[Result], visit: cookies.Visit, site: str
    ) -> tuple[list[Result], list[str]]:
        """What a browser's cookies add to its events, and the cookies that it is given."""
        events, found = cookies.applied(
            [one.event for one in results if isinstance(one, Normalized)],
            visit,
            self.settings.cookies,
            self._secrets[site],
            self._streams,
        )
        with_ids = iter(events)
        return [_of(one, next(with_ids)) if isinstance(one, Normalized) else one for one in results], found

    def _key(self, request: web.BaseRequest, body: Any) -> _Key | None:
        scheme, _, credentials = request.headers.get("Authorization", "").partition(" ")
        given = ""
        if scheme.lower() == "basic":
            try:
                given = base64.b64decode(credentials, validate=True).decode().partition(":")[0]
            except ValueError:  # no base64, or no text in it
                return None
        elif scheme.lower() == "bearer":
            given = credentials.strip()
        elif "X-Write-Key" in request.headers:
            name, given = clients.named_key(request.headers["X-Write-Key"])
            key = self._known(given)
            return key if key is not None and name in ("", key.site) else None
        elif isinstance(body, Mapping) and isinstance(body.get("writeKey"), str):
            given = body["writeKey"]
        return self._known(given)

    def _known(self, given: str) -> _Key | None:
        found, asked = None, given.encode(errors="replace")
        for key in self._keys:  # all of them, in constant time each: the time must not tell which was close
            if hmac.compare_digest(key.read(), asked):
                found = key
        return found

    def _inlet(self, site_name: str, format_name: str) -> Inlet:
        """Of a server."""
        name = site_name, format_name
        if name not in self._inlets:
            site = self.settings.sites[site_name]
            self._inlets[name] = Inlet(
                name="collector",
                format=format_name,
                site=site_name,
                source="server",
                sources=frozenset({"server", "app", "offline", "crm"}),
                country=site.country,
                categories=site.categories,
                keep=self._keep,
                redact=site.redact,
                url=site.url,
                internal=self.settings.traffic.networks,
            )
        return self._inlets[name]

    def _of_browser(self, site: str, format_name: str, request: web.Request) -> Inlet:
        gpc, prefetch = request.headers.get("Sec-GPC") == "1", traffic.is_prefetch(request.headers)
        # by the whole address, of which the event may get less
        ours = traffic.is_internal(self._client(request), self.settings.traffic.networks)
        name = site, format_name, gpc, prefetch, ours
        if name not in self._inlets:
            self._inlets[name] = replace(
                self._inlet(site, format_name),
                source="pixel",
                sources=frozenset({"pixel"}),  # whoever has only the public key cannot claim to be a server
                gpc=gpc,
                prefetch=prefetch,
                ours=ours,
            )
        return self._inlets[name]

    def visitor(self, request: web.Request) -> Json:
        """What the connection says of the browser: it wins over the body, which anybody can write."""
        ip = clients.at_most(self._client(request), request.headers.get("X-IP-Policy", ""))
        found = {"ip": ip, "user_agent": request.headers.get("User-Agent", "")}
        return {name: value for name, value in found.items() if value}

    def _client(self, request: web.Request) -> str:
        if _CLIENT not in request:  # asked several times of each
            forwarded = request.headers.getall("X-Forwarded-For", [])
            request[_CLIENT] = proxies.client(request.remote or "", forwarded, self._trusted)
        return request[_CLIENT]

    @web.middleware
    async def _cors(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        headers = cors.headers(request.headers, self.settings.collector.origins)
        if request.method == "OPTIONS":
            preflight = {
                "Access-Control-Allow-Methods": "POST, GET",
                "Access-Control-Allow-Headers": ", ".join(clients.ASKED_FOR),
                "Access-Control-Max-Age": "86400",
            }
            return web.Response(status=204, headers=headers | (preflight if headers else {}))
        response = await handler(request)
        if headers and "Access-Control-Allow-Origin" not in response.headers:  # the script's own is for everybody
            response.headers.update(headers)
        return response

    @web.middleware
    async def _answered(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Whatever goes wrong, in the form that clients understand; nothing of what was asked is repeated."""
        try:
            if (refusal := await limits.read(request)) is not None:
                answer = self.refuse(request, refusal.status, refusal.reason, "", refusal.detail)
                answer.force_close()
                return answer
            return await handler(request)
        except web.HTTPException as exc:  # no such route, or not with this method
            self.charge(request, 1)
            allow = {name: exc.headers[name] for name in ("Allow",) if name in exc.headers}
            return problem(exc.status, "no_route", "", "nothing is here, or not for this method", allow)
        except ConnectionError:
            raise  # whoever asked is gone
        except Exception:
            log.exception("collector.failed", route=request.match_info.route.name)
            return problem(500, "failed", "", _OURS)


def _not_taken() -> web.Response:
    return problem(503, "kafka_unavailable", "", "try again", {"Retry-After": RETRY_AFTER})


def _of(result: Normalized, event: Event) -> Normalized:
    return result if event is result.event else replace(result, event=event)


async def serve(settings: Settings, *, share_port: bool = False) -> None:
    """Run until cancelled."""
    runner = await limits.runner(Collector(settings).application())
    try:
        site = web.TCPSite(runner, settings.collector.host, settings.collector.port, reuse_port=share_port or None)
        await site.start()
        loop.collect_garbage_less()
        log.info("collector.started", address=f"http://{settings.collector.host}:{settings.collector.port}")
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()
