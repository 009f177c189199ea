"""The page about match quality: by which identifiers a platform can find the people of our events."""

import asyncio
from typing import TYPE_CHECKING

from aiohttp import web

from app import destinations, match
from app.view.newest import Sample
from app.view.site import Call, Page, Site

if TYPE_CHECKING:
    from app.main import Pipeline


class MatchQuality:
    def __init__(self, pipeline: "Pipeline", site: Site) -> None:
        self.pipeline, self.site = pipeline, site
        self.sample = Sample(pipeline.settings)

    def routes(self) -> list[web.RouteDef]:
        return [self.site.route("GET", "/destinations/{name}/match{json:(\\.json)?}", "viewer", self.one)]

    async def one(self, call: Call) -> Page:
        name, query = call.request.match_info["name"], call.request.query
        destinations.known(self.pipeline.settings, (name,))
        one = self.pipeline.deliver[name]
        newest = await self.sample.newest(self.pipeline.people.known)
        # in a thread: it is each event's way to the platform once more
        found = await asyncio.to_thread(match.quality, name, one.settings, one.sink, newest.conversions, newest.copies)
        event, key, why = (query.get(name, "") for name in ("event", "without", "skipped"))
        listed = found.skipped(event, why) if why else found.without(event, key) if key else found.of(event)[::-1]
        said = {
            "destination": name,
            "platform": one.sink.title,
            "window": newest.window(),
            **found.as_json(),
            "event": event,
            "without": key,
            "skipped": why,
            "total": len(listed),
            "ids": [one.event_id for one in listed[: match.SHOWN]],
        }
        return Page("match.html", said, more={"enough": match.LEAST, "lint": match.together(said["lint"])})
