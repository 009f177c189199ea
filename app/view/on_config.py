"""The page Config: what runs, at each worker, and one event as a test for a destination."""

import asyncio
import platform
import time
from importlib import metadata
from typing import TYPE_CHECKING

from aiohttp import web

from app import control, destinations
from app.destinations import Trial
from app.errors import CapistreamError
from app.events import Json
from app.view import config, peers
from app.view.audit import Deed
from app.view.lookup import iso
from app.view.site import Call, Page, Site, as_json

if TYPE_CHECKING:
    from app.main import Pipeline

STARTED = time.time()  # this is loaded when a worker starts


class Config:
    def __init__(self, pipeline: "Pipeline", site: Site) -> None:
        self.pipeline, self.site, self.audit = pipeline, site, site.audit
        self._prints = config.prints(pipeline.settings)
        self._sending = asyncio.Lock()

    def routes(self) -> list[web.RouteDef]:
        return [
            self.site.route("GET", "/config{json:(\\.json)?}", "operator", self.all),
            self.site.route("GET", "/config/test/{name:[^/.]+}{json:(\\.json)?}", "operator", self.test),
            self.site.route("POST", "/config/test/{name:[^/.]+}", "operator", self.send),
            self.site.peers("/local/config.json", self.local),
        ]

    def _here(self) -> Json:
        return {
            "version": _version(),
            "python": platform.python_version(),
            "since": iso(STARTED * 1000),
            "configuration": self.pipeline.settings.hash,
            "fingerprint": config.whole(self._prints),
            "prints": self._prints,
        }

    async def local(self, _request: web.Request) -> web.Response:
        """For the other workers."""
        return as_json(self._here())

    async def all(self, _call: Call) -> Page:
        answers = await peers.ask(self.pipeline, self.site.access, "/local/config.json")
        here = peers.address(self.pipeline)
        told = {here: self._here(), **{worker: answer for worker, answer in answers.items() if answer is not None}}
        said = {
            "worker": here,
            **{name: value for name, value in told[here].items() if name != "prints"},
            "workers": [
                {"worker": worker, **{k: v for k, v in one.items() if k != "prints"}} for worker, one in told.items()
            ],
            "differ": config.differences(told),
            "workers_asked": len(told) + sum(answer is None for answer in answers.values()),
            "workers_silent": sum(answer is None for answer in answers.values()),
            "destinations": list(self.pipeline.settings.destinations),
            "settings": config.rows(self.pipeline.settings),
        }
        return Page("config.html", said)

    async def test(self, call: Call) -> Page:
        """What would be sent, and whether it would count, before anything is."""
        return Page("trial.html", _said(self._trial(call)))

    def _trial(self, call: Call) -> Trial:
        name = call.request.match_info["name"]
        destinations.known(self.pipeline.settings, (name,))
        return destinations.trial(self.pipeline.settings, name)

    async def send(self, call: Call) -> Page:
        trial = self._trial(call)
        if trial.counts and call.field("counts") != "yes":
            raise CapistreamError(
                "counts: the platform counts this event like any other; say yes to send it all the same"
            )
        if self._sending.locked():
            raise CapistreamError("another test is under way; wait for its answer")
        async with self._sending:
            deed = Deed("tested a destination", trial.name, {"counts": trial.counts})
            await self.audit.must_note(call.who, call.address, deed)
            said = _said(trial)
            return Page("trial.html", said | {"answer": await destinations.send(trial)})


def _version() -> str:
    try:
        return metadata.version("capistream")
    except metadata.PackageNotFoundError:  # a checkout that nobody installed
        return "not installed"


def _said(trial: Trial) -> Json:
    return {
        "destination": trial.name,
        "platform": trial.sink.title,
        "announcement": trial.announcement(),
        "counts": trial.counts,
        "has_test_mode": trial.has_test_mode,
        "request": destinations.as_json(trial.shown(control.now() / 1000)),
    }
