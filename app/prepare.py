"""One event for one destination: judged, and put in the platform's words. Pure; deliver and preview both ask here."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import structlog

from app import consent, mapping, merge, routing
from app.destination import Destination
from app.events import Event, Json
from app.fields import BadExpression
from sinks._base import Payload, Request, Sink, Skip
from sinks._kinds import misfit

log = structlog.get_logger()


@dataclass(frozen=True)
class Final:
    """What became of an event, for good."""

    outcome: str
    reason: str = ""
    detail: str = ""


class Prepared(NamedTuple):
    """`name` is the platform's name for the event; empty where the event as a whole is not for this destination."""

    name: str
    found: Payload | Final
    size: int = 0  # bytes of its JSON in a request


class Masked(dict[str, str]):
    """Instead of a destination's secrets, which are not even read, where a request is shown and not sent."""

    def __init__(self, mask: str = "MASKED") -> None:
        super().__init__()
        self._mask = mask

    def __missing__(self, _name: str) -> str:
        return self._mask


def shown(sink: Sink, request: Request, now: float) -> Request:
    """A request made with `Masked` secrets as it would be sent at this moment, in Unix seconds.

    What the secrets sign is masked, too: the signature of a mask would look like one and prove nothing.
    """
    one, other = (sink.signed(request, Masked(mask), now).headers for mask in ("MASKED", "OTHER"))
    return replace(request, headers={name: text if other[name] == text else "MASKED" for name, text in one.items()})


NO_NAME = "this destination has no such event; name one in `events`, or set custom_events"


def prepare(
    name: str, event: Event, settings: Destination, sink: Sink, now: float, denied: Json | None = None
) -> tuple[str, Sequence[Prepared]]:
    """(basis in consent, what to send or why it is not sent: one for each name that the platform has for the event).

    `now` is in Unix seconds. `denied`: what copies deny that came after the event had closed.
    """
    names = settings.platform_names(sink.names, event["event_name"])
    if reason := routing.filtered(event, settings, sink):
        return "", [Prepared("", Final("filtered", reason))]
    verdict = routing.judged(event, settings, sink)
    if not verdict.allowed:
        return verdict.basis, [Prepared("", Final("held_back", verdict.reason))]
    if denied:
        event = merge.narrowed(event, denied)
        verdict = routing.judged(event, settings, sink)
        if not verdict.allowed:  # under its names, as what was delivered before stays so
            return verdict.basis, [Prepared(one, Final("held_back", "denied_later")) for one in names or [""]]
    basis = verdict.basis
    if too_old(event, sink, now):
        return basis, [Prepared("", Final("rejected", "too_old"))]
    if not names:
        return basis, [Prepared("", Final("skipped", NO_NAME))]
    # the last that reads consent: a sink and the settings' expressions see only what it lets them
    event = consent.applied(event, verdict, settings.consent, sink.vendor)
    event = mapping.chosen(event, settings.fields)
    try:
        event = mapping.valued(event, settings.value)
    except BadExpression as exc:
        return basis, [Prepared(one, Final("rejected", "bad_value", str(exc))) for one in names]
    return basis, [_encoded(name, event, settings, sink, one) for one in names]


def _encoded(name: str, event: Event, settings: Destination, sink: Sink, platform_name: str) -> Prepared:
    try:
        found = sink.encode(event, platform_name)
        if isinstance(found, Skip):
            return Prepared(platform_name, Final("skipped", found.reason))
        if settings.map:
            body = mapping.mapped(found.body, event, settings.map)
            if wrong := misfit(body, sink.fields):
                # the platform could refuse all events of its request for it
                return Prepared(platform_name, Final("rejected", "map_misfit", wrong))
            found = found.with_body(body)
        return Prepared(platform_name, found, len(found.json) + 1)
    except BadExpression as exc:
        return Prepared(platform_name, Final("rejected", "bad_map", str(exc)))
    except Exception as exc:  # a mistake of the sink, for one event: it must not hold up the others
        log.exception("sink.failed", destination=name, event_id=event["event_id"])
        return Prepared(platform_name, Final("rejected", "sink_failed", type(exc).__name__))


def too_old(event: Event, sink: Sink, now: float) -> bool:
    """Would the platform refuse it for its age?"""
    return now - event["time"] / 1000 > sink.limits.age_limit(event["source"])
