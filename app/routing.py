"""May this destination have this event? A pure function, asked when an event closes and again before it is sent."""

from collections.abc import Mapping
from dataclasses import dataclass

from app import consent
from app.events import Event
from app.settings import Destination, Settings


@dataclass(frozen=True)
class Route:
    """`state` is `queued`, `held_back` (consent), or `filtered` (not for this destination); `reason` a fixed code."""

    state: str
    reason: str = ""
    basis: str = ""


#: Labels whose events no platform gets.
_NO_PERSON = ("bot", "prefetch", "internal")


def route(event: Event, destination: Destination, purpose: str) -> Route:
    if destination.mode == "off":
        return Route("filtered", "destination_off")
    if destination.events.get(event["event_name"]) is False:
        return Route("filtered", "event_off")
    for label in _NO_PERSON:
        if label in event.get("labels", ()):
            return Route("filtered", f"label_{label}")
    verdict = consent.judge(event.get("consent", {}), purpose, destination.consent)
    if not verdict.allowed:
        return Route("held_back", verdict.reason, verdict.basis)
    return Route("queued", basis=verdict.basis)


def routes(event: Event, settings: Settings) -> Mapping[str, Route]:
    """For every configured destination."""
    from sinks import SINKS

    return {name: route(event, one, SINKS[one.sink].purpose) for name, one in settings.destinations.items()}
