"""The page Reconcile: what became of each order of the shop's own list at one destination."""

from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

from aiohttp import web

from app import destinations, exports
from app.errors import CapistreamError
from app.events import Json
from app.orders import COLUMNS
from app.reconcile import CLASSES, GROUPS, THRESHOLD
from app.view import looks, peers
from app.view.audit import Deed
from app.view.looks import Asked, Look, Looks
from app.view.site import HEADERS, Call, Page, Site, as_json, file_bytes

if TYPE_CHECKING:
    from app.main import Pipeline

MOST = 16 * 1024 * 1024  # bytes of a list: 10,000 orders in the widest of exports
WHICH = ("class", "day", "reason", "page")


class Reconcile:
    def __init__(self, pipeline: "Pipeline", site: Site) -> None:
        self.pipeline, self.site, self.audit = pipeline, site, site.audit
        self.looks = Looks(pipeline.settings, pipeline.aside)

    def routes(self) -> list[web.RouteDef]:
        return [
            self.site.route("GET", "/reconcile{json:(\\.json)?}", "operator", self.all),
            self.site.route("POST", "/reconcile", "operator", self.begin, MOST),
            self.site.route("GET", "/reconcile/{look:[0-9a-f]+}{json:(\\.json)?}", "operator", self.one),
            self.site.peers("/local/reconcile/{look:[0-9a-f]+}.json", self.local),
        ]

    async def all(self, _call: Call) -> Page:
        said = {
            "looks": [look.as_json() for look in self.looks.all()],
            "destinations": list(self.pipeline.settings.destinations),
        }
        return Page("reconcile.html", said, more={"threshold": THRESHOLD, "columns": COLUMNS, "most": MOST >> 20})

    async def begin(self, call: Call) -> Page | web.StreamResponse:
        asked = self._asked(call)
        listed = await self.looks.list_of(file_bytes(call.field("orders")), asked)
        await self.audit.must_note(call.who, call.address, Deed("reconciled", asked.to, {"orders": len(listed.orders)}))
        look = await self.looks.begin(listed, asked)
        if call.as_json:
            return Page("look.html", looks.told(look))
        raise web.HTTPSeeOther(f"/reconcile/{quote(look.id)}", headers=HEADERS)

    def _asked(self, call: Call) -> Asked:
        """Raises CapistreamError."""
        destinations.known(self.pipeline.settings, (call.field("to"),))
        try:
            threshold = float(call.field("threshold") or THRESHOLD)
        except ValueError:
            threshold = -1.0
        if not 0 <= threshold <= 100:
            raise CapistreamError("threshold: percent, from 0 to 100")
        if not call.field("orders").strip():
            raise CapistreamError("orders: choose the file with the list")
        columns = {name: named for name in COLUMNS if (named := call.field(f"column_{name}").strip())}
        zone = exports.zone(call.field("tz").strip(), "tz") or "UTC"
        return Asked(call.field("to"), zone, threshold, columns, call.who.name)

    async def one(self, call: Call) -> Page:
        name, query = call.request.match_info["look"], call.request.query
        which = {part: query[part] for part in WHICH if query.get(part)}
        if look := self.looks.get(name):
            said = _told(look, which)
        else:  # the worker that has it may be another one
            path = f"/local/reconcile/{name}.json" + (f"?{urlencode(which)}" if which else "")
            answers = await peers.ask(self.pipeline, self.site.access, path)
            found = next(filter(None, answers.values()), None)
            if found is None:
                why = "No worker has this look any more: they are kept for an hour, and in memory only. Upload the list again."
                return Page("problem.html", {"error": why}, 404)
            said = found
        return Page("look.html", said, more={"classes": CLASSES, "groups": GROUPS})

    async def local(self, request: web.Request) -> web.Response:
        """For the other workers."""
        look = self.looks.get(request.match_info["look"])
        if look is None:
            return as_json({"error": "no such look"}, 404)
        return as_json(_told(look, request.query))


def _told(look: Look, query: Mapping[str, str]) -> Json:
    page = query.get("page", "")
    number = int(page) if page.isascii() and page.isdigit() and len(page) < 8 else 1
    return looks.told(look, query.get("class", ""), query.get("day", ""), number, query.get("reason", ""))
