"""One process, all platforms: each under its name as prefix, and beside them the listings and the fault switches.

POST   /<platform>/...   what the platform takes; set `endpoint = "http://127.0.0.1:PORT/<platform>"`
GET    /                 for people
GET    /accepted.json    ?destination= &event_id= &event_name= &after= &limit=
GET    /refused.json     the same filters
GET    /balance.json     ?destination=
POST   /faults           set the switches of a destination; GET shows them, DELETE clears them
"""

import asyncio
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from typing import Any

import orjson
from aiohttp import web

from app.sandbox import load, pages
from app.sandbox._base import Answer, Call, Platform, Problem, Route, Ruling, json_answer, read_json
from app.sandbox.faults import Faults
from app.sandbox.store import KEEP, Filter, Sent, Store

MOST_BYTES = 16 * 2**20
ON_PAGE = 50
FOREVER = 365 * 86_400

Tokens = Mapping[str, Collection[str]]


def create_app(
    *,
    platforms: Iterable[Platform] | None = None,
    now: Callable[[], float] = time.time,
    keep: int = KEEP,
    tokens: Tokens | None = None,
) -> web.Application:
    """The sandbox. `tokens` says which secrets are good for a destination ("meta", "ga4:G-123"); without: any."""
    sandbox = Sandbox(tuple(platforms) if platforms is not None else load(), now, keep, tokens or {})
    app = web.Application(client_max_size=MOST_BYTES)
    app.add_routes(
        [
            web.get("/", sandbox.page),
            web.get("/accepted.json", partial(sandbox.listing, "accepted")),
            web.get("/refused.json", partial(sandbox.listing, "refused")),
            web.get("/balance.json", sandbox.balance),
            web.get("/faults", sandbox.show_faults),
            web.post("/faults", sandbox.set_faults),
            web.delete("/faults", sandbox.clear_faults),
        ]
    )
    for platform in sandbox.platforms:
        for route in (*platform.routes, *_NO_ROUTE):
            app.router.add_route(
                route.method, f"/{platform.name}{route.path}", partial(sandbox.receive, platform, route)
            )
    return app


async def start(host: str, port: int, **options: Any) -> tuple[web.AppRunner, int]:
    """Serve in the background; port 0 takes a free one. Call `cleanup()` of the runner to stop."""
    runner = web.AppRunner(create_app(**options), access_log=None)  # URLs carry secrets
    await runner.setup()
    await web.TCPSite(runner, host, port).start()
    return runner, int(runner.addresses[0][1])


async def serve(host: str, port: int, **options: Any) -> None:
    """Serve until cancelled. Options are those of `create_app`."""
    runner, _ = await start(host, port, **options)
    try:
        await asyncio.sleep(FOREVER)
    finally:
        await runner.cleanup()


def _not_found(_call: Call) -> Ruling:
    answer = json_answer(404, {"error": "no such path or method"})
    return Ruling("(none)", answer, problems=(Problem("path", "does not exist, or not with this method"),))


_NO_ROUTE = (Route("/{tail:.*}", _not_found, method="*"),)


class Sandbox:
    """Store, switches and clock of one running sandbox, and the handlers around them."""

    def __init__(self, platforms: tuple[Platform, ...], now: Callable[[], float], keep: int, tokens: Tokens) -> None:
        self.platforms = platforms
        self.store = Store(keep)
        self.faults = Faults(platforms)
        self._now = now
        self._tokens = tokens

    async def receive(self, platform: Platform, route: Route, request: web.Request) -> web.StreamResponse:
        """A request to a platform: judge, perhaps fail on request, keep, answer."""
        call = self._call(platform, request, await request.read())
        ruling = route.handle(call)
        strike = self.faults.strike(platform.name, ruling.account)
        await asyncio.sleep(strike.latency)
        counts = self.store.shelf(platform, ruling.account).counts
        counts.requests += 1
        if strike.refusal:
            counts.faults[strike.refusal] = counts.faults.get(strike.refusal, 0) + 1
            return _respond(request, self.faults.answer(platform.name, strike))
        self.store.book(platform, ruling, _sent(request), call.now)
        if strike.reset_after:
            counts.faults["reset_after"] = counts.faults.get("reset_after", 0) + 1
            return _respond(request, None)
        return _respond(request, ruling.answer)

    def _call(self, platform: Platform, request: web.Request, body: bytes) -> Call:
        return Call(
            path=request.match_info,
            query=request.query,
            raw_query=request.rel_url.raw_query_string,
            headers=request.headers,
            body=body,
            now=self._now(),
            admits=partial(self._admits, platform.name),
            tokens=partial(self._good, platform.name),
            spoils=partial(self.faults.spoils, platform.name),
            queue=partial(self.faults.queue, platform.name),
        )

    def _admits(self, platform: str, account: str, token: str) -> bool:
        good = self._good(platform, account)
        return good is None or token in good

    def _good(self, platform: str, account: str) -> Collection[str] | None:
        if self.faults.expired(platform, account):
            return ()
        return self._tokens.get(f"{platform}:{account}", self._tokens.get(platform))

    async def page(self, _request: web.Request) -> web.Response:
        html = pages.overview(
            {platform.name: platform.title for platform in self.platforms},
            self.store.balance(Filter()),
            self.faults.show(),
            self.store.latest("accepted", ON_PAGE),
            self.store.latest("refused", ON_PAGE),
        )
        headers = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}
        return web.Response(text=html, content_type="text/html", headers=headers)

    async def listing(self, kind: str, request: web.Request) -> web.Response:
        wanted, problems = _filter(request.query, {"destination", "event_id", "event_name", "after", "limit"})
        return _mistakes(problems) if problems else _json(self.store.listing(kind, wanted))

    async def balance(self, request: web.Request) -> web.Response:
        wanted, problems = _filter(request.query, {"destination"})
        return _mistakes(problems) if problems else _json({"destinations": self.store.balance(wanted)})

    async def show_faults(self, _request: web.Request) -> web.Response:
        return _json({"platforms": [platform.name for platform in self.platforms], "faults": self.faults.show()})

    async def set_faults(self, request: web.Request) -> web.Response:
        try:
            body = read_json(await request.read())
        except ValueError:
            return _mistakes([Problem("body", "cannot be read as JSON")])
        problems = self.faults.set(body)
        return _mistakes(problems) if problems else await self.show_faults(request)

    async def clear_faults(self, request: web.Request) -> web.Response:
        self.faults.clear(request.query.get("destination"))
        return await self.show_faults(request)


def _sent(request: web.Request) -> Sent:
    return Sent(request.method, request.path, dict(request.query), _headers(request))


def _headers(request: web.Request) -> dict[str, str]:
    return {str(name): value for name, value in request.headers.items()}  # orjson takes no subclass of str as a key


def _respond(request: web.Request, answer: Answer | None) -> web.Response:
    """The answer; None hangs up instead, and what is returned then reaches nobody."""
    if answer is None:
        if request.transport is not None:
            request.transport.abort()
        return web.Response()
    headers = dict(answer.headers)
    if answer.body:
        headers["Content-Type"] = answer.content_type
    return web.Response(status=answer.status, body=answer.body or None, headers=headers)


def _filter(query: Mapping[str, str], known: set[str]) -> tuple[Filter, list[Problem]]:
    problems = [Problem(key, "is an unknown filter") for key in query if key not in known]
    problems += [Problem(key, "must be a number") for key in ("after", "limit") if not query.get(key, "0").isdecimal()]
    if problems:
        return Filter(), problems
    words = {key: query[key] for key in ("destination", "event_id", "event_name") if key in query}
    limit = int(query["limit"]) if "limit" in query else None
    return Filter(**words, after=int(query.get("after", "0")), limit=limit), []


def _mistakes(problems: Iterable[Problem]) -> web.Response:
    return _json({"errors": [{"field": problem.field, "reason": problem.reason} for problem in problems]}, status=400)


def _json(body: Any, status: int = 200) -> web.Response:
    return web.Response(status=status, body=orjson.dumps(body), content_type="application/json")
