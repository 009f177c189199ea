"""The pages about dead letters: all of them, one, and what is done about many."""

import asyncio
from typing import TYPE_CHECKING
from urllib.parse import quote

from aiohttp import web

from app import letters
from app.errors import CapistreamError
from app.view import dead
from app.view.audit import Deed
from app.view.dead import Desk, Do
from app.view.site import HEADERS, Call, Page, Site

if TYPE_CHECKING:
    from app.main import Pipeline

WHICH = ("reason", "destination", "event_id")
FILTERS = (*WHICH, "state")  # of what is shown: what is replayed or dropped already is not to be so again


class DeadLetters:
    def __init__(self, pipeline: "Pipeline", site: Site) -> None:
        self.pipeline, self.site, self.audit = pipeline, site, site.audit
        self.desk = Desk(pipeline.settings, pipeline.aside)

    def routes(self) -> list[web.RouteDef]:
        return [
            self.site.route("GET", "/dead{json:(\\.json)?}", "viewer", self.all),
            self.site.route("GET", "/dead/confirm", "operator", self.confirm),
            self.site.route("POST", "/dead/{do:replay|drop}", "operator", self.do),
            self.site.route("GET", "/dead/work/{work:[0-9a-f]+}{json:(\\.json)?}", "operator", self.work),
            self.site.route("GET", "/dead/{letter:[0-9a-f]{8,24}}{json:(\\.json)?}", "viewer", self.one),
        ]

    async def all(self, call: Call) -> Page:
        query = {name: call.request.query.get(name, "").strip() for name in FILTERS}
        said = await self.desk.overview(dead.wanted(query))
        return Page("dead.html", said, more={"query": query, "filtered": any(query.values()), "read": dead.READ})

    async def one(self, call: Call) -> Page:
        settings, wanted = self.pipeline.settings, call.request.match_info["letter"]
        known, _ = await self.desk.newest([wanted])
        found = [one for one in known.values() if one.id.startswith(wanted)]
        if len(found) != 1:
            return Page("problem.html", {"error": "There is no such dead letter."}, 404)
        why_not = await letters.retained(settings, found[0])
        return Page("letter.html", {"letter": dead.as_json(found[0]), "why_not": why_not})

    async def confirm(self, call: Call) -> Page:
        """What a click would do, before it is done."""
        query, chosen = call.request.query, call.request.query.getall("letter", [])
        do = "drop" if query.get("do") == "drop" else "replay"
        filters = {name: query[name] for name in WHICH if query.get(name)}
        if query.get("of") == "chosen" and not chosen:  # else nothing chosen would mean all of them
            return Page("confirm.html", {"do": do, "total": 0, "groups": []}, more={"chosen": [], "filters": {}})
        said = await self.desk.overview(dead.wanted(filters, chosen))
        return Page("confirm.html", {"do": do, **said}, more={"chosen": chosen, "filters": filters})

    async def do(self, call: Call) -> Page | web.StreamResponse:
        """Replay or drop those that are named, or all that a filter leaves."""
        what: Do = "drop" if call.request.match_info["do"] == "drop" else "replay"
        named, filters = call.fields("letter"), {name: call.field(name) for name in WHICH if call.field(name)}
        known, _ = await self.desk.newest(named, anew=True)
        chosen = await asyncio.to_thread(dead.wanted(filters, named).of, known)
        if not chosen:
            raise CapistreamError("no letter is meant by that")
        more = {"letters": len(chosen), **filters}
        deed = Deed(f"{what} of letters", chosen[0].id if len(chosen) == 1 else "", more)
        await self.audit.must_note(call.who, call.address, deed)
        work = await self.desk.begin(what, chosen, known, call.who.name)
        if call.as_json:
            return Page("work.html", work.as_json())
        raise web.HTTPSeeOther(f"/dead/work/{quote(work.id)}", headers=HEADERS)

    async def work(self, call: Call) -> Page:
        work = self.desk.work(call.request.match_info["work"])
        if work is None:
            return Page(
                "problem.html",
                {"error": "This worker knows of no such work: another does it, or it is long over."},
                404,
            )
        return Page("work.html", work.as_json())
