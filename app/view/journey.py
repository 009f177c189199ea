"""A conversion's whole life, from what the tables know of it and what was read in Kafka. Pure.

copies        what each said, side by side, and which of them were merged
fields        of the copies and of the merged event, and which copy each field of that is from
destinations  the verdict on consent, whether it was routed there, the platform's own tag in the browser, each attempt
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from app import merge, people
from app.destination import Destination
from app.events import Event, Json
from app.settings import Settings
from app.shape import from_event
from app.view import shown
from app.view.lookup import DONE, iso
from app.view.payloads import Found

MOST_FIELDS = 400

#: Names under which pixels report that a platform's own tag ran, where it is not the sink's alone.
_TAGS: Mapping[str, tuple[str, ...]] = {"ga4": ("ga4", "gtag")}

#: State of a route -> what became of the question for consent, which is asked last.
_CONSENT = {"queued": "allowed", "parked": "allowed", "held_back": "denied"}

#: A dead letter that a replay cannot help.
_HOPELESS = ("too_old",)


def told(conversion: Json, found: Found, settings: Settings, mark: shown.Mark) -> Json:
    """The conversion with everything that is known of it."""
    said = {**conversion, "copies": _copies(conversion, found)}
    if found.why_not:
        said["why_not"] = found.why_not
    for n, copy in enumerate(said["copies"]):
        if n in found.copies and (unusable := found.copies[n].event.get("unusable")):
            copy["unusable"] = [{"field": path, "reason": why} for path, why in unusable.items()]
    event = _merged(conversion, found)
    used = {n: found.copies[n].event for n, copy in enumerate(said["copies"]) if _is_used(copy) and n in found.copies}
    said["fields"] = _fields(event, {n: one.event for n, one in found.copies.items()}, used, len(said["copies"]), mark)
    said["preview"] = bool(event) and not found.conversions
    routes = _routes(found.conversions)
    said["destinations"] = {
        name: _destination(
            there, settings.destinations.get(name), routes.get(name), found.bases.get(name), event, found.traces
        )
        for name, there in conversion["destinations"].items()
    }
    return said


# -- copies


def _copies(conversion: Json, found: Found) -> list[Json]:
    merged = {_place(copy) for record in found.conversions for copy in record["copies"]}
    contents = {
        merge.content_hash(found.copies[n].event)
        for n, copy in enumerate(conversion["copies"])
        if _place(copy) in merged and n in found.copies
    }
    first = min((copy["received"] for copy in conversion["copies"]), default="")
    return [
        {**copy, "part": _part_of(conversion, copy, n, found, merged, contents), "gap": _gap(first, copy["received"])}
        | ({"arrived": iso(found.copies[n].arrived)} if n in found.copies else {})
        for n, copy in enumerate(conversion["copies"])
    ]


def _part_of(
    conversion: Json, copy: Json, n: int, found: Found, merged: set[tuple[Any, ...]], contents: set[str]
) -> str:
    """What part the copy has in it: held, merged, repeat (says the same as a merged one), late; empty where nobody can tell."""
    if conversion["state"] == "held":
        return "held"
    if not found.conversions:
        return ""
    if _place(copy) in merged:
        return "merged"
    if n in found.copies and merge.content_hash(found.copies[n].event) in contents:
        return "repeat"
    return "late"


def _is_used(copy: Json) -> bool:
    return copy["part"] in ("held", "merged")


def _place(copy: Json) -> tuple[Any, ...]:
    """What tells a copy from others, in a row and in a record alike."""
    origin = copy.get("origin", {})
    received = copy["received"] if isinstance(copy["received"], str) else iso(copy["received"])
    return copy["source"], received, *(origin.get(name) for name in ("topic", "partition", "offset", "request"))


def _gap(first: str, received: str) -> float:
    """Seconds after the first copy."""
    return round((datetime.fromisoformat(received) - datetime.fromisoformat(first)).total_seconds(), 3)


# -- the event


def _merged(conversion: Json, found: Found) -> Event | None:
    """As it was sent last; of one that is held, as it would be by now."""
    if found.conversions:
        event: Event = found.conversions[-1]["event"]
        return event
    copies = [one.event for one in found.copies.values()]
    if conversion["state"] != "held" or not copies or len(people.groups(copies)) > 1:
        return None
    return merge.merge(copies)


def _fields(
    event: Event | None, copies: Mapping[int, Event], used: Mapping[int, Event], count: int, mark: shown.Mark
) -> list[Json]:
    """A row for each field that any of them has. Copies are counted from 1."""
    values = {n: shown.fields(copy, mark) for n, copy in copies.items()}
    of_event = shown.fields(event, mark) if event else {}
    paths = dict.fromkeys(path for some in (of_event, *values.values()) for path in some)
    ordered = sorted(paths, key=_order)
    sources = _sources(event, used) if event else {}
    rows = []
    for path in ordered[:MOST_FIELDS]:
        of_copies = [values.get(n, {}).get(path) for n in range(count)]
        row: Json = {"field": path, "copies": of_copies, "differ": len({*of_copies} - {None}) > 1}
        if path in of_event:
            row |= {"merged": of_event[path], "taken_from": [n + 1 for n in sources.get(shown.field_of(path), ())]}
        rows.append(row)
    return rows


def _order(path: str) -> int:
    """By the parts, as people read them; within a part as it came."""
    part = path.partition(".")[0]
    return shown.PARTS.index(part) + 1 if part in shown.PARTS else 0


def _sources(event: Event, used: Mapping[int, Event]) -> dict[str, list[int]]:
    """Field -> the copies that it is from. Nothing for a field whose copies have something else: not all of them were read."""
    if not used:
        return {}
    whole: Any = event
    copies = {n: from_event(copy) for n, copy in used.items()}
    numbers = {id(copy): n for n, copy in copies.items()}
    found: dict[str, list[int]] = {}
    for path, of_path in merge.origins([*copies.values()]).items():
        part, _, name = path.partition(".")
        told = sorted(numbers[id(copy)] for copy in of_path)
        if part in ("consent", "labels") or all(_at(used[n], part, name) == _at(whole, part, name) for n in told):
            found[path] = told
    return found


def _at(event: Any, part: str, name: str) -> Any:
    found = event.get(part)
    return found.get(name) if name and isinstance(found, dict) else found


# -- destinations


def _routes(conversions: Sequence[Json]) -> dict[str, Json]:
    """Destination -> the newest word on it."""
    found: dict[str, Json] = {}
    for record in conversions:
        found |= record["routes"]
    return found


def _destination(
    there: Json,
    settings: Destination | None,
    route: Json | None,
    basis: str | None,
    event: Event | None,
    traces: Mapping[int, Json],
) -> Json:
    said = {name: value for name, value in there.items() if name not in ("traces", "names")}
    if names := there.get("names"):
        said["names"] = [{k: v for k, v in one.items() if k != "traces"} for one in names]
    if route is not None:
        said["route"] = {name: route[name] for name in ("state", "reason") if name in route}
        said["consent"] = {"verdict": _CONSENT.get(route["state"], "not asked"), "basis": route.get("basis", "")}
    elif basis:
        said["consent"] = {"verdict": "denied" if there["state"] == "held_back" else "allowed", "basis": basis}
    if settings is not None and event is not None:
        said["browser_tag"] = _browser_tag(settings, event)
    offsets = dict.fromkeys(offset for one in (there, *there.get("names", ())) for offset in one.get("traces", ()))
    said["attempts_kept"] = [_attempt(traces[offset], event) for offset in sorted(offsets) if offset in traces]
    said["replay"] = there["state"] == "rejected" and there.get("reason") not in _HOPELESS
    return said


def _browser_tag(settings: Destination, event: Event) -> Json:
    """The third sender: did the platform's own tag report it, and can the platform tell that it is the same?"""
    wanted = settings.tag_for(event["event_name"])
    names = _TAGS.get(settings.sink, (settings.sink,))
    tags: list[Any] = [event["tags"][name] for name in names if name in event.get("tags", {})]
    said: Json = {"expected": wanted}
    for tag in tags[:1]:
        said |= {name: tag[name] for name in ("ran", "event_id") if name in tag}
    if not tags or "ran" not in said:
        return said | {"verdict": "not reported"}
    if not said["ran"]:
        return said | {"verdict": "did not run"}
    if said.get("event_id") == event["event_id"]:
        return said | {"verdict": "same id"}
    return said | {"verdict": "another id" if "event_id" in said else "id not reported"}


def _attempt(row: Json, event: Event | None) -> Json:
    """A row of the topic of traces, as it is shown. Strangers' rows have what they have."""
    said = {
        "at": iso(row["time"]) if isinstance(row.get("time"), int) else "",
        **{name: row[name] for name in _OF_ATTEMPTS if isinstance(row.get(name), str | int | float)},
    }
    if isinstance(body := row.get("body"), str):
        said["request"] = {"method": str(row.get("method", "")), "url": str(row.get("url", ""))}
        said["request"] |= {"body": shown.request_body(body, event), "cut": bool(row.get("cut"))}
    return said


_OF_ATTEMPTS = ("name", "attempt", "events", "seconds", "status", "answer", "outcome", "reason")


def summary(conversions: Iterable[Json]) -> list[Json]:
    """One line for each of several conversions that an id leads to."""
    return [
        {
            **{name: one[name] for name in ("id", "site", "event_name", "apart", "state", "received")},
            "done": sum(there["state"] in DONE for there in one["destinations"].values()),
            "of": len(one["destinations"]),
        }
        for one in conversions
    ]
