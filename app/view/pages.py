"""Routes of the worker's web server."""

from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import jinja2
import orjson
from aiohttp import web

from app import metrics
from app.health import Trouble
from app.view import lookup

if TYPE_CHECKING:
    from app.main import Pipeline

_FOLDER = Path(__file__).parent
_templates = jinja2.Environment(loader=jinja2.FileSystemLoader(_FOLDER / "templates"), autoescape=True)

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class Pages:
    def __init__(self, pipeline: "Pipeline") -> None:
        self.pipeline = pipeline

    def routes(self) -> list[web.RouteDef | web.StaticDef]:
        return [
            web.get("/", self.index),
            web.get("/events", self.search),
            web.get("/events/{id:.+}", self.event),
            web.get("/local.json", self.local),
            web.get("/healthz", self.livez),
            web.get("/livez", self.livez),
            web.get("/readyz", self.readyz),
            web.get("/metrics", metrics.page),
            web.static("/static", _FOLDER / "static"),
        ]

    async def index(self, _request: web.Request) -> web.Response:
        return _html("index.html", destinations=self.pipeline.deliver)

    async def search(self, request: web.Request) -> web.StreamResponse:
        wanted = request.query.get("id", "").strip()
        if not wanted:
            raise web.HTTPSeeOther("/")
        raise web.HTTPSeeOther(f"/events/{quote(wanted, safe='')}")

    async def event(self, request: web.Request) -> web.Response:
        wanted = request.match_info["id"]
        as_json = wanted.endswith(".json") or "text/html" not in request.headers.get("Accept", "")
        wanted = wanted.removesuffix(".json")
        if not self._ready():
            return _problem(503, "this worker is still recovering its state", as_json=as_json)
        found = await lookup.everywhere(self.pipeline, wanted)
        status = 200 if found["conversions"] else 404
        return _json(found, status) if as_json else _html("event.html", status, **found)

    async def local(self, request: web.Request) -> web.Response:
        """For the other workers."""
        if not self._ready():
            return _problem(503, "recovering", as_json=True)
        return _json(lookup.here(self.pipeline, request.query.get("id", "")))

    async def livez(self, _request: web.Request) -> web.Response:
        return _health(self.pipeline.health.dead(), "ok\n")

    async def readyz(self, _request: web.Request) -> web.Response:
        return _health(self.pipeline.health.trouble(), "ready\n")

    def _ready(self) -> bool:
        app = self.pipeline.app
        return bool(app.consumer.ready == app.consumer_generation_id and not app.should_stop)


def _json(value: Any, status: int = 200) -> web.Response:
    return web.Response(
        body=orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE),
        status=status,
        content_type="application/json",
        headers=_HEADERS,
    )


def _health(trouble: Trouble | None, well: str) -> web.Response:
    return web.Response(text=well) if trouble is None else _json(trouble.told(), 503)


def _html(template: str, status: int = 200, **values: Any) -> web.Response:
    text = _templates.get_template(template).render(**values)
    return web.Response(text=text, status=status, content_type="text/html", headers=_HEADERS)


def _problem(status: int, what: str, *, as_json: bool) -> web.Response:
    return _json({"error": what}, status) if as_json else _html("problem.html", status, what=what)
