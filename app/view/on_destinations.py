"""The pages about destinations: how each does at all workers, what waits and what was answered, pause and resume."""

from operator import itemgetter
from typing import TYPE_CHECKING
from urllib.parse import quote

from aiohttp import web

from app import control, destinations
from app.control import Order
from app.errors import CapistreamError
from app.events import Json
from app.view import answers, backlog, peers, standing
from app.view.answers import Lately
from app.view.audit import Deed
from app.view.lookup import iso
from app.view.site import HEADERS, Call, Page, Site, as_json

if TYPE_CHECKING:
    from agents.deliver import Deliver
    from app.main import Pipeline

LONGEST = 200  # characters of a reason
SHOWN = 200  # waiting events, on a page


class Destinations:
    def __init__(self, pipeline: "Pipeline", site: Site) -> None:
        self.pipeline, self.site, self.audit = pipeline, site, site.audit
        self.lately = Lately(pipeline.settings)

    def routes(self) -> list[web.RouteDef]:
        return [
            self.site.route("GET", "/destinations{json:(\\.json)?}", "viewer", self.all),
            self.site.route("POST", "/destinations/{name}/{do:pause|resume}", "operator", self.order),
            self.site.route("GET", "/destinations/{name}/waiting{json:(\\.json)?}", "viewer", self.waiting),
            self.site.route("GET", "/destinations/{name}/answers{json:(\\.json)?}", "viewer", self.answered),
            self.site.peers("/local/destinations.json", self.local),
            self.site.peers("/local/destinations/{name}/waiting.json", self.local_waiting),
        ]

    async def all(self, call: Call) -> Page:
        others = await peers.ask(self.pipeline, self.site.access, "/local/destinations.json")
        told = [(peers.address(self.pipeline), standing.here(self.pipeline))]
        told += [(worker, answer) for worker, answer in others.items() if answer is not None]
        said: Json = {
            "destinations": {
                name: _configured(one) | standing.together(told, name) | self._ordered(name)
                for name, one in self.pipeline.deliver.items()
            },
            "workers_asked": 1 + len(others),
            "workers_silent": sum(answer is None for answer in others.values()),
        }
        done = {"pause": "is paused", "resume": "goes on"}.get(call.request.query.get("done", ""), "")
        name = call.request.query.get("name", "")
        return Page(
            "destinations.html", said, more={"done": f"{name} {done}" if done and name in self.pipeline.deliver else ""}
        )

    def _ordered(self, name: str) -> Json:
        """Who paused it, if somebody did."""
        order = self.pipeline.control.last(name)
        if order is None or not order.paused:
            return {"paused": False}
        return {
            "paused": True,
            "state": "paused",
            "reason": order.reason or "paused",
            "by": order.by,
            "since": iso(order.at),
        }

    async def waiting(self, call: Call) -> Page:
        """What is on its way there, the oldest first: what waits at all workers, what is in requests, or its topic has."""
        name, which = call.request.match_info["name"], call.request.query.get("which", "")
        destinations.known(self.pipeline.settings, (name,))
        if which == "unfinished":
            found = await backlog.read(self.pipeline.settings, name, SHOWN)
            asked = {"workers_asked": 0, "workers_silent": 0}
            return Page("waiting.html", {"destination": name, "which": which, **found, **asked})
        which = which if which == "under_way" else "waiting"
        path = f"/local/destinations/{quote(name, safe='')}/waiting.json?which={which}"
        others = await peers.ask(self.pipeline, self.site.access, path)
        here = standing.waiting(self.pipeline, name, SHOWN, under_way=which == "under_way")
        told = [here, *filter(None, others.values())]
        said: Json = {
            "destination": name,
            "which": which,
            "total": sum(one["total"] for one in told),
            "events": sorted((one for some in told for one in some["events"]), key=itemgetter("time"))[:SHOWN],
            "workers_asked": 1 + len(others),
            "workers_silent": sum(answer is None for answer in others.values()),
        }
        return Page("waiting.html", said)

    async def answered(self, call: Call) -> Page:
        """What it answered lately, to anything or with one status."""
        name, status = call.request.match_info["name"], call.request.query.get("status", "")
        destinations.known(self.pipeline.settings, (name,))
        if status and not (status.isascii() and status.isdigit() and len(status) <= 3):
            raise CapistreamError("status: a number as HTTP has it, or 0 for no answer")
        slowest = call.request.query.get("slowest") == "yes"
        said = answers.told(await self.lately.answers(), name, int(status) if status else None, slowest=slowest)
        return Page("answers.html", said, more={"trace": self.pipeline.settings.trace, "read": answers.MOST})

    async def order(self, call: Call) -> Page | web.StreamResponse:
        name, do = call.request.match_info["name"], call.request.match_info["do"]
        if name not in self.pipeline.deliver:
            raise CapistreamError(
                f"no destination is called so; there are {', '.join(self.pipeline.deliver) or 'none'}"
            )
        reason, accept = call.field("reason").strip()[:LONGEST], call.field("accept") == "yes"
        if do == "pause" and not reason:
            raise CapistreamError("reason: say why, for whoever finds it paused")
        more = {"reason": reason} if do == "pause" else {"accept": accept} if accept else {}
        await self.audit.must_note(call.who, call.address, Deed(f"{do} of a destination", name, more))
        order = Order(name, paused=do == "pause", reason=reason, by=call.who.name, at=control.now(), accept=accept)
        await control.give(self.pipeline.settings, [order])
        if call.as_json:
            return as_json({"destination": name, "paused": order.paused})
        raise web.HTTPSeeOther(f"/destinations?done={do}&name={quote(name)}", headers=HEADERS)

    async def local(self, _request: web.Request) -> web.Response:
        """For the other workers."""
        return as_json(standing.here(self.pipeline))

    async def local_waiting(self, request: web.Request) -> web.Response:
        """For the other workers, which may have another configuration."""
        name = request.match_info["name"]
        if name not in self.pipeline.deliver:
            return as_json({"total": 0, "events": []})
        under_way = request.query.get("which") == "under_way"
        return as_json(standing.waiting(self.pipeline, name, SHOWN, under_way=under_way))


def _configured(one: "Deliver") -> Json:
    limits, guard = one.sink.limits, one.settings.guard
    return {
        "platform": one.sink.title,
        "mode": one.settings.mode,
        "max_age": limits.max_age,
        "api_version": limits.api_version,
        "sunset": limits.sunset.isoformat() if limits.sunset else "",
        "rate": one.settings.rate or limits.rate or 0,
        "guard": [name for name, on in (("highest", guard.highest), ("rate", guard.rate), ("mean", guard.mean)) if on],
    }
