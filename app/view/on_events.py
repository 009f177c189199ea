"""The pages about events: the search, and the journey of one."""

from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

from aiohttp import web

from app import letters
from app.errors import CapistreamError
from app.events import Json
from app.view import journey, lookup, payloads
from app.view.audit import Deed
from app.view.site import HEADERS, Call, Page, Site, as_json

if TYPE_CHECKING:
    from app.main import Pipeline


AGAIN = 3  # seconds after which a page that cannot answer yet asks again


class Events:
    def __init__(self, pipeline: "Pipeline", site: Site) -> None:
        self.pipeline, self.site, self.access, self.audit = pipeline, site, site.access, site.audit

    def routes(self) -> list[web.RouteDef]:
        return [
            self.site.route("GET", "/events", "viewer", self.search),
            self.site.route("GET", "/events/{id:.+}", "viewer", self.event),
            self.site.route("POST", "/events/{id:.+}/replay", "operator", self.replay),
            self.site.peers("/local.json", self.local),
        ]

    async def search(self, call: Call) -> web.StreamResponse:
        wanted = call.request.query.get("id", "").strip()
        raise web.HTTPSeeOther(f"/events/{quote(wanted, safe='')}" if wanted else "/", headers=HEADERS)

    async def event(self, call: Call) -> Page:
        wanted, query = call.request.match_info["id"].removesuffix(".json"), call.request.query
        if not self.pipeline.has_state:
            why = "This worker takes over the state of another one, or has just begun. It answers in some seconds."
            return Page("problem.html", {"error": why}, 503, {"again": AGAIN})
        found = await lookup.everywhere(self.pipeline, self.access, wanted)
        found["conversions"] = [one for one in found["conversions"] if _is_meant(one, query)]
        # what was typed may be anything: only what we have is written down
        named = [_named(one) for one in found["conversions"]]
        await self.audit.looked(call.who, call.address, Deed("looked", ", ".join(named[:5]), {"found": len(named)}))
        if not named:
            kept = self.pipeline.settings.view.journey_retention
            return Page("unknown.html", found, 404, {"kept": kept})
        if len(named) > 1 and not call.as_json:
            return Page(
                "matches.html", found, more={"matches": journey.summary(found["conversions"]), "most": lookup.MOST}
            )
        if query.get("payloads") != "false":
            found["conversions"] = await self._with_payloads(found["conversions"])
        done = query.get("replayed", "")
        more = {"one": found["conversions"][0], "done": done if done in self.pipeline.deliver else ""}
        return Page("event.html", found, more=more)

    async def _with_payloads(self, conversions: list[Json]) -> list[Json]:
        settings, first = self.pipeline.settings, conversions[: payloads.MOST]
        found = await payloads.read(settings, first, self.pipeline.people.known)
        told = [journey.told(one, its, settings, self.access.mark) for one, its in zip(first, found, strict=True)]
        return [*told, *conversions[payloads.MOST :]]

    async def replay(self, call: Call) -> Page | web.StreamResponse:
        """Send again what a destination rejected."""
        wanted, settings, destination = call.request.match_info["id"], self.pipeline.settings, call.field("destination")
        if destination not in settings.destinations:
            raise CapistreamError(f"destination: one of {', '.join(settings.destinations)}")
        found = await lookup.everywhere(self.pipeline, self.access, wanted)
        which = {"site": call.field("site"), "name": call.field("event_name"), "apart": call.field("apart")}
        meant = [one for one in found["conversions"] if _is_meant(one, which)]
        if len(meant) != 1:
            raise CapistreamError(f"site, event_name, apart: {len(meant)} conversions are meant by them")
        letters_, known = await letters.of_event(settings, payloads.key_of(meant[0]), destination)
        if not letters_:
            raise CapistreamError("there is no dead letter of it that can be sent again")
        deed = Deed("replayed", _named(meant[0]), {"destination": destination, "letters": len(letters_)})
        await self.audit.must_note(call.who, call.address, deed)
        told = [one async for one in letters.replay(settings, letters_, known, call.who.name)]
        why_not = sorted({one.why for one in told if one.why})
        said = {"destination": destination, "replayed": sum(not one.why for one in told), "not_replayed": why_not}
        if call.as_json or why_not:
            return Page("replayed.html", said, more={"back": _path(meant[0])})
        raise web.HTTPSeeOther(f"{_path(meant[0])}&replayed={quote(destination)}", headers=HEADERS)

    async def local(self, request: web.Request) -> web.Response:
        """For the other workers."""
        if not self.pipeline.has_state:
            return as_json({"error": "recovering"}, 503)
        return as_json(lookup.here(self.pipeline, request.query.get("id", "")))


def _named(conversion: Json) -> str:
    """For the audit: no more of it than its key."""
    return " ".join(filter(None, (conversion[name] for name in ("event_name", "id", "apart", "site"))))


def _is_meant(conversion: Json, query: Mapping[str, str | None]) -> bool:
    """Is it the one, of several with an id?"""
    wanted = {"site": query.get("site"), "event_name": query.get("name"), "apart": query.get("apart")}
    return all(value is None or conversion[name] == value for name, value in wanted.items())


def _path(conversion: Json) -> str:
    """Where its own page is."""
    which = urlencode({"site": conversion["site"], "name": conversion["event_name"], "apart": conversion["apart"]})
    return f"/events/{quote(conversion['id'], safe='')}?{which}"
