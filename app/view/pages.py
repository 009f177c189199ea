"""Routes of the worker's web server: every page and its JSON, and what probes and Prometheus ask."""

from functools import cache
from typing import TYPE_CHECKING

from aiohttp import web

from app import metrics, topics
from app.events import Json
from app.health import Trouble
from app.view import api, audit
from app.view.access import Access
from app.view.audit import Audit
from app.view.on_config import Config
from app.view.on_dedup import Dedup
from app.view.on_destinations import Destinations
from app.view.on_events import Events
from app.view.on_letters import DeadLetters
from app.view.on_live import Live
from app.view.on_match import MatchQuality
from app.view.on_reconcile import Reconcile
from app.view.site import Call, Page, Site, as_json

if TYPE_CHECKING:
    from app.main import Pipeline

NAV = [
    ("/", "Events"),
    ("/live", "Live"),
    ("/dedup", "Dedup"),
    ("/destinations", "Destinations"),
    ("/dead", "Dead letters"),
]
OPERATORS_NAV = [("/reconcile", "Reconcile"), ("/config", "Config"), ("/audit", "Audit")]


class Pages:
    def __init__(self, pipeline: "Pipeline", access: Access) -> None:
        self.pipeline = pipeline
        self.site = Site(access, Audit(pipeline.settings, pipeline.offer), NAV, OPERATORS_NAV)
        parts = (Events, Live, Dedup, Destinations, MatchQuality, DeadLetters, Reconcile, Config)
        self.parts: list[Events | Live | Dedup | Destinations | MatchQuality | DeadLetters | Reconcile | Config] = [
            part(pipeline, self.site) for part in parts
        ]

    def routes(self) -> list[web.RouteDef]:
        return [
            self.site.route("GET", "/", "viewer", self.index),
            self.site.route("GET", "/index.json", "viewer", self.index),
            *(route for part in self.parts for route in part.routes()),
            self.site.route("GET", "/audit{json:(\\.json)?}", "operator", self.audited),
            self.site.route("GET", "/openapi.json", "viewer", self.openapi),
            web.get("/healthz", self.livez),
            web.get("/livez", self.livez),
            web.get("/readyz", self.readyz),
            web.get("/metrics", self.metrics),
            *self.site.common(),
        ]

    async def index(self, _call: Call) -> Page:
        destinations = {
            name: {"platform": one.sink.title, "mode": one.settings.mode, "halted": one.halted}
            for name, one in self.pipeline.deliver.items()
        }
        return Page("index.html", {"destinations": destinations})

    async def audited(self, _call: Call) -> Page:
        found = await audit.newest(self.pipeline.settings)
        return Page("audit.html", {"topic": topics.names(self.pipeline.settings).audit, "records": found})

    async def openapi(self, _call: Call) -> web.StreamResponse:
        return as_json(_document())

    async def livez(self, _request: web.Request) -> web.Response:
        return _health(self.pipeline.health.dead(), "ok\n")

    async def readyz(self, _request: web.Request) -> web.Response:
        apart = self.pipeline.app.assignor.apart
        well = f"ready, but without work: {apart.told()}\n" if apart else "ready\n"
        return _health(self.pipeline.health.trouble(), well)

    async def metrics(self, request: web.Request) -> web.Response:
        metrics.NOT_READY.set(self.pipeline.health.trouble() is not None)  # now, also when nobody looks any more
        return await metrics.page(request)


@cache
def _document() -> Json:
    return api.document()


def _health(trouble: Trouble | None, well: str) -> web.Response:
    return web.Response(text=well) if trouble is None else as_json(trouble.told(), 503)
