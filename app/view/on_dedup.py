"""The page about dedup: how copies meet, what it did with them, its clocks, and its state at all workers."""

import asyncio
import heapq
import time
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from aiohttp import web

from app import metrics
from app.events import Json
from app.keys import apart, parts
from app.lossless import Lost
from app.settings import EventRule
from app.view import charts, pairs, peers, tail
from app.view.fresh import Fresh
from app.view.lookup import iso
from app.view.pairs import Meeting
from app.view.site import Call, Page, Site, as_json
from app.view.words import span

if TYPE_CHECKING:
    from app.main import Pipeline

FRESH = 20.0  # seconds for which the newest copies are not read again
MOST = 50  # event names, on a page
LISTED = 200  # conversions, in a list

#: By event name, what became of which conversion.
Judged = dict[str, list[tuple[str, Meeting]]]


class Dedup:
    def __init__(self, pipeline: "Pipeline", site: Site) -> None:
        self.pipeline, self.site = pipeline, site
        self._began = int(time.time() * 1000)
        self._newest = Fresh(self._read, FRESH, what="the newest copies")

    def routes(self) -> list[web.RouteDef]:
        return [
            self.site.route("GET", "/dedup{json:(\\.json)?}", "viewer", self.page),
            self.site.route("GET", "/dedup/list{json:(\\.json)?}", "viewer", self.listed),
            self.site.route("GET", "/dedup/held{json:(\\.json)?}", "viewer", self.held),
            self.site.peers("/local/dedup.json", self.local),
            self.site.peers("/local/dedup/held.json", self.local_held),
        ]

    # -- pages

    async def page(self, call: Call) -> Page:
        asked = _seconds(call.request.query.get("hold", ""))
        (judged, window), rule = await self._newest.get(), self.pipeline.settings.rule
        names = sorted(judged, key=lambda name: (not rule(name).expect, -len(judged[name])))
        # in a thread, as the worker has other work meanwhile
        events = await asyncio.to_thread(
            lambda: [pairs.health(name, judged[name], rule(name), asked) for name in names[:MOST]]
        )
        answers = await peers.ask(self.pipeline, self.site.access, "/local/dedup.json")
        told = [(peers.address(self.pipeline), self._here())]
        told += [(worker, answer) for worker, answer in answers.items() if answer is not None]
        said: Json = {
            "window": window,
            "events": events,
            "events_left_out": max(0, len(names) - MOST),
            "counted": self._counted([one for _, one in told]),
            "clocks": self._clocks(told),
            "partitions": _partitions(told),
            "workers_asked": 1 + len(answers),
            "workers_silent": sum(answer is None for answer in answers.values()),
        }
        settings = self.pipeline.settings
        more = {
            "asked": asked,
            "charts": [_chart(one) for one in events],
            "max_lag": settings.worker.max_lag_wait,
            "kept": settings.view.journey_retention,
        }
        return Page("dedup.html", said, more=more)

    async def listed(self, call: Call) -> Page:
        """The conversions behind a number: of this event name, in this class, or pairs further apart than so many seconds."""
        query = {name: call.request.query.get(name, "").strip()[:200] for name in ("event", "what", "longer")}
        longer = _seconds(query["longer"])
        rule = self.pipeline.settings.rule(query["event"])
        expect = rule.expect
        judged, window = await self._newest.get()
        found = [
            (what, one)
            for what, one in judged.get(query["event"], ())
            if _is_meant(what, one, query["what"], rule) and (longer is None or _longer(what, one.gap(expect), longer))
        ]
        said = {
            "window": window,
            "event": query["event"],
            "what": query["what"],
            "longer": longer,
            "total": len(found),
            "conversions": [_told(what, one, expect) for what, one in found[: -LISTED - 1 : -1]],
        }
        return Page("dedup_list.html", said)

    async def _read(self) -> tuple[Judged, Json]:
        """The newest copies, and what they are. Raises Unavailable."""
        found = await tail.read(self.pipeline.settings)
        # in a thread, as the worker has other work meanwhile
        judged = await asyncio.to_thread(
            lambda: pairs.judged(pairs.meetings(found.copies), self.pipeline.settings.rule, found.since, found.until)
        )
        return judged, {
            "copies": len(found.copies),
            "conversions": sum(map(len, judged.values())),
            "since": iso(min((copy.received for copy in found.copies), default=found.until)),
            "until": iso(found.until),
            "whole": found.since == 0,
            "read": found.read,
            "partitions": found.partitions,
        }

    async def held(self, call: Call) -> Page:
        """What waits for copies now, at all workers, or of one partition; what ends first is first."""
        asked = call.request.query.get("partition", "")
        partition = int(asked) if asked.isascii() and asked.isdigit() and len(asked) < 6 else None
        path = "/local/dedup/held.json" + ("" if partition is None else f"?partition={partition}")
        answers = await peers.ask(self.pipeline, self.site.access, path)
        told = [self._held(partition), *filter(None, answers.values())]
        holds = sorted((one for some in told for one in some["holds"]), key=itemgetter("until"))
        said: Json = {
            "partition": partition,
            "total": sum(one["total"] for one in told),
            "holds": holds[:LISTED],
            "workers_asked": 1 + len(answers),
            "workers_silent": sum(answer is None for answer in answers.values()),
        }
        return Page("held.html", said)

    # -- what workers know

    async def local_held(self, request: web.Request) -> web.Response:
        """For the other workers."""
        asked = request.query.get("partition", "")
        return as_json(self._held(int(asked) if asked else None))

    def _held(self, partition: int | None) -> Json:
        open_ = [
            (hold.deadline, key, p)
            for p, one in self.pipeline.dedup.partitions.items()
            if partition in (None, p)
            for key, hold in one.open.items()
        ]
        return {"total": len(open_), "holds": [_hold(*one) for one in heapq.nsmallest(LISTED, open_)]}

    async def local(self, _request: web.Request) -> web.Response:
        """For the other workers."""
        return as_json(self._here())

    def _here(self) -> Json:
        pipeline, found = self.pipeline, {}
        for p, one in pipeline.dedup.partitions.items():
            try:
                rows, size = pipeline.seen.size(p)
            except Lost:
                continue  # just moved away: its new owner tells
            found[str(p)] = {"open": one.waiting, "clock": one.now, "since": one.since, "keys": rows, "bytes": size}
        return {
            "began": self._began,
            "conversions": _samples(metrics.CONVERSIONS, "closed"),
            "duplicates": _samples(metrics.DUPLICATES, "kind"),
            "flagged": _samples(metrics.FLAGGED, "flag"),
            "sources": sorted(
                f"{tp.topic}-{tp.partition}"
                for tp in pipeline.app.consumer.sources()
                if tp.topic in pipeline.normalize.inlets
            ),
            "partitions": found,
        }

    def _counted(self, told: list[Json]) -> Json:
        """Since the workers began, of all of them."""
        conversions, duplicates, flagged = (
            pairs.summed(one[part] for one in told) for part in ("conversions", "duplicates", "flagged")
        )
        names = sorted({*conversions, *duplicates, *flagged})
        rows = [_row(name, *(some.get(name, {}) for some in (conversions, duplicates, flagged))) for name in names]
        return {
            "since": iso(max(one["began"] for one in told)),
            "oldest": iso(min(one["began"] for one in told)),
            "events": rows,
        }

    def _clocks(self, told: list[tuple[str, Json]]) -> list[Json]:
        """Each source partition: until when all of it is known. Any worker hears of all of them."""
        marks, now = self.pipeline.clock.watermarks, int(time.time() * 1000)
        owners = {source: worker for worker, one in told for source in one["sources"]}
        return [
            {
                "source": name,
                "mark": iso(marks.marks[name]) if name in marks.marks else None,
                "behind": pairs.seconds(max(0, now - marks.marks[name])) if name in marks.marks else None,
                "left_out": name in marks.left_out,
                "worker": owners.get(name, ""),
            }
            for name in sorted({*owners, *marks.marks})
        ]


def _partitions(told: list[tuple[str, Json]]) -> list[Json]:
    found = [
        {
            "partition": int(p),
            "worker": worker,
            "open": one["open"],
            "keys": one["keys"],
            "bytes": one["bytes"],
            "clock": iso(one["clock"]) if one["clock"] else None,
            "since": iso(one["since"]) if one["since"] else None,
        }
        for worker, some in told
        for p, one in some["partitions"].items()
    ]
    return sorted(found, key=lambda one: one["partition"])


def _row(name: str, closed: Json, duplicates: Json, flagged: Json) -> Json:
    held = closed.get("complete", 0) + closed.get("hold_ended", 0)
    return {
        "event": name,
        "closed": closed,
        "hold_ended_share": round(closed.get("hold_ended", 0) / held, 4) if held else None,
        "duplicates": duplicates,
        "flagged": flagged,
    }


def _samples(metric: Any, kind: str) -> dict[str, dict[str, int]]:
    """Of a counter: event name -> kind -> count."""
    found: dict[str, dict[str, int]] = {}
    for family in metric.collect():
        for sample in family.samples:
            if sample.name.endswith("_total"):
                found.setdefault(sample.labels["event"], {})[sample.labels[kind]] = int(sample.value)
    return found


def _is_meant(what: str, one: Meeting, wanted: str, rule: EventRule) -> bool:
    if wanted == "repeats":
        return one.copies > len(one.after)
    if wanted == "several":
        return what == "not_held" and len(one.after) > 1
    if wanted == "after_closing":
        return one.came_after_closing(rule)
    return wanted in ("", what)


def _longer(what: str, gap: int | None, seconds: float) -> bool:
    return what in ("together", "late") and gap is not None and gap > seconds * 1000


def _told(what: str, one: Meeting, expect: Any) -> Json:
    id_, site, name = parts(one.key)
    gap = one.gap(expect)
    return {
        "id": id_,
        "site": site,
        "event_name": name,
        "first": iso(one.first),
        "sources": list(one.after),
        "copies": one.copies,
        "what": what,
        "gap": pairs.seconds(gap) if gap is not None and expect else None,
    }


def _chart(one: Json) -> charts.Bars:
    values, edges = [row["pairs"] for row in one["histogram"]], [row["up_to"] for row in one["histogram"]]
    return charts.bars(
        "Pairs by the time between their copies", values, [span(edge) if edge else "longer" for edge in edges]
    )


def _hold(deadline: int, key: bytes, partition: int) -> Json:
    id_, site, name = parts(key)
    said = {"id": id_, "site": site, "event_name": name, "apart": apart(key)}
    return said | {"partition": partition, "until": iso(deadline)}


def _seconds(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return round(value, 3) if 0 <= value <= 3600 else None
