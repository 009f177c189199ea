"""May this destination have this event? A pure function, asked when an event closes and again before it is sent."""

from collections.abc import Callable, Container, Hashable, Mapping
from dataclasses import dataclass
from typing import Any

from app import consent, keys
from app.destination import Destination
from app.events import Event, Json
from app.settings import Settings
from app.shape import GRANTED, Copy
from app.traffic import LABELS
from sinks import SINKS
from sinks._base import Sink, is_test


@dataclass(frozen=True)
class Route:
    """`state` is `queued`, `held_back` (consent), `filtered` (not for this destination), or later `parked` or `erased`; `reason` a
    fixed code.
    """

    state: str
    reason: str = ""
    basis: str = ""

    @property
    def told(self) -> Json:
        """What is told of it in capistream.conversions."""
        return {name: said for name in ("state", "reason", "basis") if (said := getattr(self, name))}


def route(event: Event, destination: Destination, sink: Sink | type[Sink]) -> Route:
    if reason := filtered(event, destination, sink):
        return Route("filtered", reason)
    verdict = judged(event, destination, sink)
    return Route("queued" if verdict.allowed else "held_back", verdict.reason, verdict.basis)


def filtered(event: Event, destination: Destination, sink: Sink | type[Sink]) -> str:
    """Why this event is not for this destination, whatever the person said; an empty text where it is."""
    if destination.mode == "off":
        return "destination_off"
    if destination.events.get(event["event_name"]) is False:
        return "event_off"
    if destination.live_from is not None and event["time"] < destination.live_from.timestamp() * 1000:
        return "before_live_from"
    if destination.live_until is not None and event["time"] >= destination.live_until.timestamp() * 1000:
        return "after_live_until"
    if destination.share < 1 and not keys.chosen(keys.conversion_id(event), destination.share):
        return "not_in_share"
    if labels := event.get("labels"):
        for label in LABELS:
            if label in labels and label in destination.dropped:
                return f"label_{label}"
        if is_test(event) and not sink.marks_tests(destination):
            return "label_test"  # it would count as a sale
    return ""


def judged(event: Event, destination: Destination, sink: Sink | type[Sink]) -> consent.Verdict:
    """What the person's consent allows this destination."""
    return consent.judge(
        event.get("consent", {}),
        sink.purpose,
        destination.consent,
        vendor=sink.vendor,
        flags=sink.flags,
        place=consent.place_of(event) if destination.consent.regions else "",  # nothing else is told by place
        site=event["site"],
    )


def denies(copy: Event, settings: Settings, but: Container[str] = ()) -> bool:
    """Does this copy by itself deny anything that a destination, `but` for these, needs or is told?"""
    said = copy.get("consent", {})
    sinks = ((SINKS[one.sink], one) for name, one in settings.destinations.items() if name not in but)
    return any(
        consent.denies(said, sink.purpose, one.consent, vendor=sink.vendor, flags=sink.flags) for sink, one in sinks
    )


def routes(event: Event, settings: Settings) -> Mapping[str, Route]:
    """For every configured destination."""
    return {name: route(event, one, SINKS[one.sink]) for name, one in settings.destinations.items()}


def alike(settings: Settings) -> Callable[[Copy], Hashable | None]:
    """Names a kind of events that all have the same routes; None: no other is known to have those of this one.

    There are few: of names, sites and what is said of the four signals, where nothing else decides.
    """
    if any(
        one.live_from or one.live_until or one.share < 1 or one.consent.regions
        for one in settings.destinations.values()
    ):
        return lambda _event: None

    def kind(event: Copy) -> Hashable | None:
        said: Any = event.consent or {}
        if event.labels or not said.keys() <= GRANTED.keys():
            return None
        return event.event_name, event.site, "granted" if said == GRANTED else tuple(said.items())

    return kind
