"""What would be sent? Events of a file through normalize, merge, consent and encode, without Kafka and without sending.

It runs the pipeline's own functions on a log in memory: all copies are received at one moment, and after them the clock
passes every deadline. So the answer depends on the file, the configuration and the moment alone.
"""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, NamedTuple

import orjson

from app import clock, dedup, keys, routing
from app.errors import BadEvent, CapistreamError
from app.events import Event, Json
from app.formats import FORMATS, Ignored
from app.normalize import Inlet, Normalized, inlet_of, normalize, parse, wanted_variants
from app.prepare import Final, Masked, prepare, shown
from app.settings import Settings
from app.shape import as_event
from sinks import SINKS

_SOURCE = "preview"  # the topic that origins name


@dataclass(frozen=True)
class Refused:
    """An event of the file that cannot be taken."""

    line: int
    reason: str
    field: str
    detail: str

    def __str__(self) -> str:
        place = f"{self.field} {self.detail}".strip()
        return f"line {self.line}: {self.reason}: {place}"


class _Record(NamedTuple):
    key: bytes | None
    value: bytes
    offset: int
    timestamp: int


def moment(text: str | None, option: str = "--now") -> int:
    """Unix milliseconds; of nothing, now. Raises CapistreamError."""
    if text is None:
        return int(time.time() * 1000)
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        raise CapistreamError(f"{option}: ISO 8601 with a zone, for example 2026-01-31T12:00:00Z")
    return int(at.timestamp() * 1000)


def inlet(settings: Settings, source: str | None, format_name: str | None) -> Inlet:
    """How a file is read: as a source of the configuration, or as the first site's. Raises CapistreamError."""
    if format_name is not None and format_name not in FORMATS:
        raise CapistreamError(f"--format: one of {', '.join(FORMATS)}")
    if source is not None:
        if source not in settings.sources:
            raise CapistreamError(
                f"--source: no source is called {source}; there are {', '.join(settings.sources) or 'none'}"
            )
        found = inlet_of(settings, source, settings.sources[source])
        return replace(found, format=format_name) if format_name else found
    if not settings.sites:
        raise CapistreamError("sites: the configuration has none")
    site = next(iter(settings.sites))
    return Inlet(
        _SOURCE,
        format_name or "capistream",
        site,
        "server",
        country=settings.sites[site].country,
        categories=settings.sites[site].categories,
        keep=wanted_variants(settings),
        internal=settings.traffic.networks,
        redact=settings.sites[site].redact,
        url=settings.sites[site].url,
    )


def read(text: bytes, inlet: Inlet, now: int, made_up: str = "") -> tuple[list[Event], list[Refused]]:
    """The copies in a file: one JSON document, or one a line. `now` is their receipt in Unix milliseconds.

    `made_up` is the id of events that carry none; from the second line on, the line's number is added.
    """
    copies: list[Event] = []
    refused: list[Refused] = []
    for line, value in documents(text):
        inlet = replace(inlet, made_up_id=f"{made_up}-{line}" if made_up and line > 1 else made_up)
        try:
            results = normalize(parse(value), inlet, now, {"topic": _SOURCE, "partition": 0, "offset": line})
        except BadEvent as exc:
            refused.append(Refused(line, exc.reason, exc.field, exc.detail))
            continue
        for result in results:
            if isinstance(result, Normalized):
                copies.append(result.event)
            elif isinstance(result, Ignored):
                refused.append(Refused(line, "ignored", "", result.kind))
            else:
                refused.append(Refused(line, result.reason, result.field, result.detail))
    return copies, refused


def conversions(copies: Iterable[Event], settings: Settings, now: int) -> list[dedup.Closing]:
    """The conversions that these copies are, as dedup closes them; in the order of their closing."""
    return merged(copies, settings, now).closed


def merged(copies: Iterable[Event], settings: Settings, now: int) -> dedup.Result:
    """All that dedup makes of them, with the rows that it would write."""
    partition = dedup.Partition(settings.rule, lambda event: routing.routes(event, settings), since=0)
    log = [_Record(keys.key(copy), orjson.dumps(copy), n, now) for n, copy in enumerate(copies)]
    later = now + 1 + int(max((_longest(settings, copy["event_name"]) for copy in _events(log)), default=0) * 1000)
    ends = [_Record(None, clock.encode(at), len(log) + n, at) for n, at in enumerate((later, later + 1))]
    return partition.run([*log, *ends], _nothing, _nothing)


def requests(
    closed: Iterable[dedup.Closing], settings: Settings, now: int, only: Iterable[str] = ()
) -> Iterator[dict[str, Any]]:
    """Per conversion and destination: the request, or the outcome and its reason. Raises nothing; reads no secret."""
    wanted = set(only)
    for conversion in closed:
        for name, destination in settings.destinations.items():
            if wanted and name not in wanted:
                continue
            route, sink = conversion.decision.routes[name], SINKS[destination.sink](destination)
            event = as_event(conversion.event)
            told: Json = {"destination": name, "event_name": event["event_name"], "event_id": event["event_id"]}
            if order := event.get("commerce", {}).get("transaction_id"):
                told["transaction_id"] = order
            if route.state == "parked":
                yield told | {"outcome": "parked", "reason": route.reason}
                continue
            basis, prepared = prepare(name, event, destination, sink, now / 1000)
            for one in prepared:
                named = told | ({"name": one.name} if one.name else {})
                if isinstance(one.found, Final):
                    said = {"outcome": one.found.outcome, "reason": one.found.reason, "basis": basis}
                    yield named | {key: value for key, value in said.items() if value}
                    continue
                request = shown(sink, sink.request([one.found], Masked()), now / 1000)
                yield named | {
                    "method": request.method,
                    "url": request.url,
                    "headers": dict(request.headers),
                    "body": orjson.loads(request.body),
                }


def for_people(told: Json) -> str:
    """The same, to read: a line, and what is sent below it."""
    head = f"{told['destination']}  {told['event_name']} {told['event_id']}"
    if "url" not in told:
        return f"{head}  {told['outcome']}: {told['reason']}"
    headers = "".join(f"\n  {name}: {value}" for name, value in told["headers"].items())
    body = orjson.dumps(told["body"], option=orjson.OPT_INDENT_2).decode().replace("\n", "\n  ")
    return f"{head}\n  {told['method']} {told['url']}{headers}\n  {body}"


def documents(text: bytes) -> list[tuple[int, bytes]]:
    """(number of its first line, one JSON document)."""
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return [(n, line) for n, line in enumerate(text.splitlines(), 1) if line.strip()]
    return [(1, text)]


def _events(log: Iterable[_Record]) -> Iterator[Event]:
    return (orjson.loads(record.value) for record in log)


def _longest(settings: Settings, event_name: str) -> float:
    """Seconds after which nothing more is waited for."""
    rule = settings.rule(event_name)
    return rule.merge_window + (rule.confirm_within if rule.wait_for else 0.0)


def _nothing(wanted: Any) -> list[None]:
    return [None] * len(wanted)
