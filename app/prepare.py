"""One event for one destination: judged, and put in the platform's words. Pure; deliver and preview both ask here."""

from dataclasses import dataclass
from typing import Any

import structlog

from app import routing
from app.events import Event
from app.settings import Destination
from sinks._base import Payload, Sink, Skip

log = structlog.get_logger()


@dataclass(frozen=True)
class Final:
    """What became of an event, for good."""

    outcome: str
    reason: str = ""
    detail: str = ""


def prepare(name: str, event: Event, settings: Destination, sink: Sink, now: float) -> tuple[str, Payload | Final]:
    """(basis in consent, what to send or why it is not sent). `now` is in Unix seconds."""
    route = routing.route(event, settings, sink.purpose)
    if route.state != "queued":
        return route.basis, Final(route.state, route.reason)
    if too_old(event, sink, now):
        return route.basis, Final("rejected", "too_old")
    encoded: Any
    try:
        encoded = sink.encode(event)
    except Exception as exc:  # a mistake of the sink, for one event: it must not hold up the others
        log.exception("sink.failed", destination=name, event_id=event["event_id"])
        return route.basis, Final("rejected", "sink_failed", type(exc).__name__)
    return route.basis, Final("skipped", encoded.reason) if isinstance(encoded, Skip) else encoded


def too_old(event: Event, sink: Sink, now: float) -> bool:
    """Would the platform refuse it for its age?"""
    return now - event["time"] / 1000 > sink.limits.age_limit(event["source"])
