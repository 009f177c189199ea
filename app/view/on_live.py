"""The page of the newest conversions, and the stream that keeps it new."""

import asyncio
import time
from itertools import islice
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import orjson
from aiohttp import web

from app.events import Json
from app.view import charts, live
from app.view.access import Denied, Who
from app.view.feed import Feed
from app.view.live import Filter, Line, Window
from app.view.lookup import iso
from app.view.site import HEADERS, Call, Page, Site, asked_of

if TYPE_CHECKING:
    from app.main import Pipeline

FIRST = 1.5  # seconds that the page waits for the newest; a stream brings them later
MOST = 10  # streams of one worker
EVERY = 1.0  # seconds between two messages of a stream
SUMS_EVERY = 2.0  # seconds between two of its funnels
HEARTBEAT = 15.0  # seconds after which it says that it lives, and asks whether it still may
LIFE = 60.0  # seconds of a stream; the browser asks for a new one, which somebody who logged out elsewhere does not get
SLOW = 10.0  # seconds that a browser has to take a message


class Live:
    def __init__(self, pipeline: "Pipeline", site: Site) -> None:
        self.pipeline, self.site = pipeline, site
        self.feed = Feed(pipeline.settings, pipeline.aside, lambda: bool(pipeline.app.should_stop))
        self._streams: dict[int, Who] = {}  # who looks, by the number of their stream
        self._number = 0
        self._counted: Window | None = None  # which `_sums` are of
        self._sums: dict[Filter, tuple[int, int, Json]] = {}  # (version, minute, what they are)
        site.on_logout.append(self._logged_out)

    def routes(self) -> list[web.RouteDef]:
        return [
            self.site.route("GET", "/live{json:(\\.json)?}", "viewer", self.page),
            self.site.route("GET", "/live/stream", "viewer", self.stream),
        ]

    async def page(self, call: Call) -> Page:
        chosen = live.parse(call.request.query)
        self.feed.look()
        await self.feed.begun(5 * FIRST if call.as_json else FIRST)
        window = self.feed.window  # the one that was begun
        lines = list(islice(filter(chosen.takes, window.lines()), live.SHOWN))
        said = {"reading": self.feed.reading, "why_not": self.feed.why_not, **self._told(chosen)}
        said["conversions"] = [line.as_json() for line in lines]
        query = urlencode(live.link(chosen))
        more = {
            "lines": lines,
            "most": live.SHOWN,
            "chosen": chosen,
            "choices": self._choices(chosen),
            "stream": f"/live/stream?{query}",
            "here": f"/live?{query}" if query else "/live",
            **_for_template(said, chosen),
        }
        return Page("live.html", said, 503 if self.feed.why_not else 200, more)

    def _choices(self, chosen: Filter) -> dict[str, list[str]]:
        """What each field of the filter offers; what is chosen is always among it."""
        found = self.feed.window.choices() | {
            "destination": list(self.pipeline.deliver),
            "copies": ["single", "joined", "repeated"],
            "reached": list(live.STEPS),
        }
        return {
            name: values if getattr(chosen, name) in ("", *values) else [*values, getattr(chosen, name)]
            for name, values in found.items()
        }

    def _told(self, chosen: Filter) -> Json:
        """Funnel and rates; of the same window they are counted once, however many look."""
        window, now = self.feed.window, int(time.time() * 1000)
        if self._counted is not window or len(self._sums) >= 2 * MOST:
            self._counted, self._sums = window, {}
        known = self._sums.get(chosen)
        if known is None or known[:2] != (window.version, now // live.MINUTE):
            names = [chosen.destination] if chosen.destination in self.pipeline.deliver else list(self.pipeline.deliver)
            said = {
                "since": iso(window.since) if window.since else None,
                "full": window.full,
                "partitions": self.pipeline.partitions,
                "followed": len(self.feed.partitions),
                "funnel": live.funnel(filter(chosen.takes, window.lines()), names),
                "minutes": window.rates(now, self.feed.since),
            }
            known = self._sums[chosen] = window.version, now // live.MINUTE, said
        return known[2]

    # -- the stream

    def _logged_out(self, who: Who) -> None:
        for number, one in list(self._streams.items()):
            if who.form_token and one.form_token == who.form_token:  # each session has its own
                del self._streams[number]

    async def stream(self, call: Call) -> web.StreamResponse:
        """Server-sent events: `rows`, new or changed ones; `sums`, the funnel and the charts; `problem`.

        What a browser has not taken is not kept for it: the next message has what changed since the last one that it took.
        """
        if len(self._streams) >= MOST:
            answer = self.site.problem(call.request, 503, "Too many look at this worker at the same time.", call.who)
            answer.headers["Retry-After"] = "30"
            return answer
        self._number += 1
        number, self._streams[self._number] = self._number, call.who
        response = web.StreamResponse(headers=HEADERS | {"X-Accel-Buffering": "no"})
        response.content_type, response.charset = "text/event-stream", "utf-8"
        try:
            await response.prepare(call.request)
            await self._write(response, b"retry: 2000\n\n")
            await self._follow(call, response, number)
            await response.write_eof()
        except (ConnectionError, TimeoutError):
            if call.request.transport is not None:
                call.request.transport.abort()  # what it did not take is not kept
        finally:
            self._streams.pop(number, None)
        return response

    async def _follow(self, call: Call, response: web.StreamResponse, number: int) -> None:
        chosen, end = live.parse(call.request.query), time.monotonic() + LIFE
        window, version, summed, problem = None, 0, (-1, -1), ""
        heard = counted = time.monotonic()
        while number in self._streams and time.monotonic() < end and not self._is_over(call):
            self.feed.look()
            await self.feed.begun(EVERY)
            message = b""
            if self.feed.why_not != problem:
                problem = self.feed.why_not
                message += _event("problem", {"why": problem})
            if self.feed.reading and not problem:
                if window is not self.feed.window:  # it began anew
                    window, version, counted = self.feed.window, 0, 0.0
                if changed := self._changed(chosen, version):
                    message += _event("rows", {"rows": changed})
                version = window.version
                now = (version, int(time.time() // 60))
                if now != summed and time.monotonic() - counted >= SUMS_EVERY:
                    summed, counted = now, time.monotonic()
                    message += _event("sums", {"html": self._sums_html(chosen)})
            if time.monotonic() - heard >= HEARTBEAT:
                message += b": still here\n\n"
                if isinstance(self.site.access.who(asked_of(call.request)), Denied):
                    return
            if message:
                heard = time.monotonic()
                await self._write(response, message)
            await asyncio.sleep(EVERY)

    def _is_over(self, call: Call) -> bool:
        transport = call.request.transport
        return bool(self.pipeline.app.should_stop or transport is None or transport.is_closing())

    def _changed(self, chosen: Filter, version: int) -> list[Json]:
        """Rows for the page that changed since that version, the oldest first. One that the filter no longer takes is taken out."""
        window, found = self.feed.window, []
        taken = 0
        for line in window.lines():
            if (takes := chosen.takes(line)) and taken == live.SHOWN:
                break
            taken += takes
            if line.version > version and (takes or version):  # at the begin there is nothing to take out
                html = self.site.part("live_row.html", line=line, there=_states(line)) if takes else ""
                found.append({"id": line.row, "html": html})
        return found[::-1]

    def _sums_html(self, chosen: Filter) -> str:
        return self.site.part("live_sums.html", **_for_template(self._told(chosen), chosen))

    @staticmethod
    async def _write(response: web.StreamResponse, message: bytes) -> None:
        async with asyncio.timeout(SLOW):
            await response.write(message)


def _event(name: str, said: Json) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (name.encode(), orjson.dumps(said))


def _for_template(told: Json, chosen: Filter) -> dict[str, Any]:
    return {
        **told,
        "filtered": any(chosen),
        "states": _states,
        "link": lambda **more: "/live?" + urlencode(live.link(chosen, **more)),
        "charts": [
            charts.bars(title, [minute[kind] for minute in told["minutes"]], [minute["at"][11:16] for minute in told["minutes"]])
            for kind, title in CHARTED.items()
        ],
    }  # fmt: skip


CHARTED = {
    "copies": "Copies received",
    "conversions": "Conversions",
    "delivered": "Delivered",
    "not_delivered": "Not delivered",
}


def _states(line: Line) -> list[tuple[list[str], str, str]]:
    """(destinations, state, reason), those with the same together."""
    found: dict[tuple[str, str], list[str]] = {}
    for name, there in line.there.items():
        found.setdefault(there.state, []).append(name)
    return [(names, *state) for state, names in found.items()]
