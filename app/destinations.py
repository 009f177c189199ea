"""What people ask of destinations: how they stand, one event as a test, events of the past. The commands `capistream destinations`.

Pausing and resuming are orders: app/control.py.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, quote_plus

import aiohttp
import orjson
from aiokafka import TopicPartition

from app import control, forget, intake, records, routing, sample, sending, shape, topics
from app.destination import Destination
from app.errors import CapistreamError
from app.events import Event, Json
from app.letters import printable, when
from app.prepare import Final, Masked, prepare, shown
from app.settings import Settings
from sinks import SINKS
from sinks._base import Accepted, Delivered, Outcome, Payload, Request, Retry, Sink

AT_ONCE = 500  # events of a backfill that are under way together
SHOWN = 4000  # bytes of an answer


def known(settings: Settings, names: tuple[str, ...]) -> None:
    """Raises CapistreamError for a name of no destination."""
    for name in names:
        if name not in settings.destinations:
            raise CapistreamError(
                f"no destination is called {name}; there are {', '.join(settings.destinations) or 'none'}"
            )


# How they stand


async def standing(settings: Settings) -> list[Json]:
    """One row for each destination, with what waits for it; then those that the configuration no longer has. Raises Unavailable."""
    orders, waiting = await control.standing(settings), await _waiting(settings)
    rows = [_row(name, one, orders.get(name), waiting.get(name, 0)) for name, one in settings.destinations.items()]
    return rows + [_left_row(name, count) for name, count in _left(settings, waiting).items()]


def _row(name: str, destination: Destination, order: control.Order | None, waiting: int) -> Json:
    limits = SINKS[destination.sink](destination).limits
    row: Json = {
        "name": name,
        "configured": True,
        "sink": destination.sink,
        "mode": destination.mode,
        "paused": bool(order and order.paused),
        "waiting": waiting,
        "api_version": limits.api_version,
        "sunset": limits.sunset.isoformat() if limits.sunset else "",
    }
    if order and order.paused:
        row |= {"reason": order.reason, "by": order.by, "since": when(order.at)}
    return row


def _left_row(name: str, waiting: int) -> Json:
    nothing = {"sink": "", "mode": "", "paused": False, "api_version": "", "sunset": ""}
    return {"name": name, "configured": False, "waiting": waiting, **nothing}


async def left(settings: Settings) -> dict[str, int]:
    """Destinations that the configuration no longer has, and whose topics are there: how many records wait in them.

    Raises Unavailable.
    """
    return _left(settings, await _waiting(settings))


def _left(settings: Settings, waiting: Mapping[str, int]) -> dict[str, int]:
    return {name: waiting[name] for name in sorted(waiting.keys() - settings.destinations.keys())}


async def _waiting(settings: Settings) -> Mapping[str, int]:
    """Destination -> records of its topic that the workers have not finished; of every such topic that there is."""
    to, waiting = topics.names(settings).to, Counter[str]()
    begin = to("")
    async with records.reader(settings) as consumer:
        have = await records.beginning(consumer, begin, [to(name) for name in settings.destinations])
        tps = [TopicPartition(topic, p) for topic, partitions in have.items() for p in partitions]
        consumer.assign(tps)
        begins, ends = await consumer.beginning_offsets(tps), await consumer.end_offsets(tps)
    committed = await records.committed(settings)
    for tp in tps:
        waiting[tp.topic.removeprefix(begin)] += max(0, ends[tp] - max(begins[tp], committed.get(tp, 0)))
    return waiting


def table(rows: list[Json]) -> list[str]:
    shown = [("NAME", "SINK", "MODE", "WAITING", "API", "STATE")]
    for row in rows:
        api = " ".join(filter(None, (row["api_version"], row["sunset"] and f"until {row['sunset']}"))) or "-"
        state = f"paused by {row['by']} since {row['since']}: {row['reason']}" if row["paused"] else "on"
        if not row["configured"]:
            state = "not in the configuration; its topic and its table are still there"
        shown.append((row["name"], row["sink"] or "-", row["mode"] or "-", str(row["waiting"]), api, state))
    widths = [max(len(row[column]) for row in shown) for column in range(5)]
    return [
        printable("  ".join([*(f"{text:{width}}" for text, width in zip(row, widths, strict=False)), row[5]]))
        for row in shown
    ]


# One event as a test


@dataclass(frozen=True)
class Trial:
    """A sample event on its way. `counts`: the platform will count it as a conversion."""

    name: str
    sink: Sink
    batch: list[Payload]
    has_test_mode: bool
    counts: bool

    def request(self, secrets: Mapping[str, str], now: float) -> Request:
        """Signed at `now`, in Unix seconds."""
        return self.sink.signed(self._unsigned(secrets), secrets, now)

    def shown(self, now: float) -> Request:
        """The same without any secret or signature."""
        return shown(self.sink, self._unsigned(Masked()), now)

    def _unsigned(self, secrets: Mapping[str, str]) -> Request:
        made = self.sink.test_request(self.batch, secrets) if self.has_test_mode else None
        return made or self.sink.request(self.batch, secrets)

    def announcement(self) -> str:
        if not self.has_test_mode:
            return f"{self.name} has no test mode: the platform counts this event like any other."
        if self.counts:
            return f"{self.name} shows this event as a test, and counts it like any other."
        return f"{self.name} takes this event as a test, and does not count it."


def trial(settings: Settings, name: str) -> Trial:
    """What would be sent. Raises CapistreamError where the destination has no use for the sample."""
    now = control.now()
    event = sample.purchase(settings, now)
    # only the platform is tried, so what keeps events from it does not matter
    tried = settings.destinations[name].model_copy(
        update={"mode": "live", "live_from": None, "live_until": None, "share": 1.0}
    )
    sink = SINKS[tried.sink](tried)
    _, (first, *_) = prepare(name, event, tried, sink, now / 1000)
    if isinstance(first.found, Final):
        raise CapistreamError(f"{name} does not get the sample purchase: {first.found.outcome}: {first.found.reason}")
    batch = [first.found]
    has_test_mode = sink.test_request(batch, Masked()) is not None
    return Trial(name, sink, batch, has_test_mode, sink.counts_tests or not has_test_mode)


async def send(trial: Trial) -> Json:
    """Send it and tell: the answer, without secrets, and what the sink makes of it. Raises CapistreamError."""
    secrets = await _secrets(trial.sink)
    request = trial.request(secrets, time.time())
    begun = time.monotonic()
    async with aiohttp.ClientSession() as session:
        response = await sending.send(session, request, trial.sink.limits.timeout)
    took = time.monotonic() - begun
    if isinstance(response, Retry):
        return {"ok": False, "outcome": "no_answer", "reason": response.reason, "seconds": round(took, 3)}
    (outcome,) = trial.sink.verdict(trial.batch, response)
    text = masked(response.body[:SHOWN].decode(errors="replace"), secrets.values())
    return {"ok": isinstance(outcome, Delivered | Accepted), **_said(outcome), "seconds": round(took, 3)} | {
        "status": response.status,
        "answer": text,
    }


def masked(text: str, secrets: Iterable[str]) -> str:
    """The text without these, as they are and as addresses and JSON write them."""
    for secret in secrets:
        for written in {
            secret,
            quote(secret),
            quote(secret, safe=""),
            quote_plus(secret),
            orjson.dumps(secret).decode()[1:-1],
        }:
            text = text.replace(written, "MASKED")
    return text


def _said(outcome: Outcome) -> Json:
    said = {"reason": getattr(outcome, "reason", ""), "detail": outcome.detail}
    return {"outcome": type(outcome).__name__.lower()} | {k: v for k, v in said.items() if v}


def as_json(request: Request) -> Json:
    """A request to print: one that `Trial.shown` made."""
    try:
        body = orjson.loads(request.body)
    except orjson.JSONDecodeError:
        body = request.body.decode(errors="replace")
    return {"method": request.method, "url": request.url, "headers": dict(request.headers), "body": body}


def for_people(request: Json) -> str:
    headers = "".join(f"\n  {name}: {value}" for name, value in request["headers"].items())
    body = orjson.dumps(request["body"], option=orjson.OPT_INDENT_2).decode().replace("\n", "\n  ")
    return f"{request['method']} {request['url']}{headers}\n  {body}"


def verdict(answer: Json) -> str:
    lines = [f"HTTP {answer['status']}", printable(answer["answer"])] if "status" in answer else []
    said = ": ".join(filter(None, (answer["outcome"], answer.get("reason"), answer.get("detail"))))
    return "\n".join([*lines, f"{said} ({answer['seconds']} s)"])


async def _secrets(sink: Sink) -> dict[str, str]:
    """Raises SettingsError where one is missing, Unavailable where no token is to be had."""
    found = sending.secrets_of(sink.settings)
    if sink.scopes:
        from app.tokens import GoogleTokens  # Google's library takes its time

        found["credentials"] = await GoogleTokens().get(found["credentials"], sink.scopes)
    return found


# Events of the past


@dataclass(frozen=True)
class Past:
    """Which merged events. Times are the events' own, in Unix milliseconds; `until` is the first that is too late."""

    since: int
    until: int | None = None
    event_name: str = ""

    def has(self, event: Event) -> bool:
        return (
            self.since <= event["time"]
            and (self.until is None or event["time"] < self.until)
            and self.event_name in ("", event["event_name"])
        )


async def backfill(
    settings: Settings, name: str, past: Past, *, dry_run: bool = False, progress: Callable[[], None] = lambda: None
) -> Counter[str]:
    """Give a destination what capistream.conversions still has of the past, each conversion as it was told last.

    Returns how many were `given`, `parked`, or are not for this destination, by the reason. deliver judges consent and age
    again, and knows what was delivered before. What may not go there now is left out here already: an outcome of its own would
    stand in the way of a consent that comes later. Raises Unavailable.
    """
    counts, names, destination = Counter[str](), topics.names(settings), settings.destinations[name]
    sink, forgotten = SINKS[destination.sink], await forget.standing(settings)
    async with records.reader(settings) as consumer, records.writer(settings, dry_run=dry_run) as write:
        for p in range(settings.kafka.partitions):
            # twice, so that a conversion's last record is known, and none is kept meanwhile
            last = {
                record.key: record.offset
                async for record in records.everything(consumer, names.conversions, [p])
                if _merged(record)
            }
            rows: intake.Rows = intake.new_rows()
            async for record in records.everything(consumer, names.conversions, [p]):
                said = _merged(record)
                if said is None or last.get(record.key) != record.offset or not past.has(said["event"]):
                    continue
                progress()
                if why := "forgotten" if forgotten.of(said["event"]) else _not_given(said, destination, sink):
                    counts[why] += 1
                    continue
                counts["given"] += 1
                event = said["event"] if sink.takes_revisions else _first(said["event"])
                value = orjson.dumps({"v": 1, "event": event, "basis": "", "replay": control.now()})
                rows[names.to(name), p].append((record.key, value, control.now()))
                if len(rows[names.to(name), p]) >= AT_ONCE:
                    await write(rows)
                    rows = intake.new_rows()
            await write(rows)
    return counts


def _merged(record: Any) -> Json | None:
    """A record of capistream.conversions; None for what somebody else wrote there."""
    try:
        said: Json = orjson.loads(record.value)
        known = shape.is_event_of(record.key, said["event"])
        return said if known and isinstance(said.get("routes", {}), dict) else None
    except (TypeError, ValueError, KeyError):
        return None


def _not_given(said: Json, destination: Destination, sink: type[Sink]) -> str:
    """Why this destination does not get it."""
    if said.get("closed") == "erased":
        return "erased"  # and its consent with it
    states = {route.get("state") for route in said.get("routes", {}).values() if isinstance(route, dict)}
    if "parked" in states or (said.get("closed") == "unconfirmed" and "queued" not in states):
        return "parked"
    route = routing.route(said["event"], destination, sink)
    return "" if route.state == "queued" else f"{route.state}: {route.reason}"


def _first(event: Event) -> Event:
    """For a platform that cannot restate an event: one that it has had is not sent again for a later change."""
    first = event.copy()
    first.pop("revision", None)
    return first
