"""What does a consent string say, and what may each destination get by it? For `capistream consent explain`."""

from collections.abc import Mapping
from typing import Any

from app import consent, signals
from app.events import SIGNALS, Json
from app.settings import Settings
from app.signals import Unreadable, google
from sinks import SINKS

_MOST_SHOWN = 40  # ids on a line; more are only counted


def explain(
    text: str, settings: Settings | None = None, kind: str | None = None, place: str = "", site: str = ""
) -> Json:
    """One string: its kind, what it says in the standard's own names, and the verdict for each configured destination.

    The verdicts are those of an event whose consent is this string alone. Raises nothing; the string itself is not repeated.
    """
    told: Json = {"kind": kind or "unknown", "readable": False}
    try:
        told["kind"] = kind = kind or signals.kind_of(text)
        told |= {"readable": True, **signals.told(kind, text)}
    except Unreadable as exc:
        told |= {"readable": False, "segment": exc.segment, "why": exc.why}
    if settings is not None:
        told["destinations"] = _verdicts(_consent(kind, text), settings, place, site)
    return told


def _consent(kind: str | None, text: str) -> Json:
    """As an event carries it: Google's parameters are signals by then, which an unreadable one denies.

    Nobody knows what a string of no kind was meant for: it denies all.
    """
    if kind is None:
        return dict.fromkeys(SIGNALS, "denied")
    if kind not in ("gcs", "gcd"):
        return {kind: text}
    try:
        return dict(google.gcs(text) if kind == "gcs" else google.gcd(text))
    except Unreadable:
        return dict.fromkeys(SIGNALS, "denied")


def _verdicts(said: Mapping[str, Any], settings: Settings, place: str, site: str) -> Json:
    found = {}
    for name, destination in settings.destinations.items():
        sink = SINKS[destination.sink]
        verdict = consent.judge(
            said, sink.purpose, destination.consent, vendor=sink.vendor, flags=sink.flags, place=place, site=site
        )
        outcome = {"": "whole", "strip": "without_identifiers", "flag": "restricted"}[verdict.part]
        found[name] = {
            "gets": outcome if verdict.allowed else "nothing",
            **({"reason": verdict.reason} if verdict.reason else {}),
            "basis": verdict.basis,
        }
    return found


def for_people(told: Json) -> str:
    """The same, to read: a line for each thing that is said."""
    if not told["readable"]:
        lines = [f"{told['kind']}: unreadable: {told['segment']} {told['why']}"]
    else:
        said = {name: value for name, value in told.items() if name not in ("kind", "readable", "destinations")}
        lines = [told["kind"], *(f"  {name} {value}" for name, value in _flat(said))]
    for name, verdict in told.get("destinations", {}).items():
        why = f" ({verdict['reason']})" if "reason" in verdict else ""
        lines.append(f"  {name} gets {verdict['gets'].replace('_', ' ')}{why}: {verdict['basis']}")
    return "\n".join(lines)


def _flat(said: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    lines: list[tuple[str, str]] = []
    for name, value in said.items():
        if isinstance(value, Mapping):
            lines += _flat(value, f"{prefix}{name}.")
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            for one in value:
                lines += _flat(one, f"{prefix}{name}.")
        else:
            lines.append((f"{prefix}{name}", _written(value)))
    return lines


def _written(value: Any) -> str:
    if isinstance(value, list):
        more = f" and {len(value) - _MOST_SHOWN} more" if len(value) > _MOST_SHOWN else ""
        return " ".join(map(str, value[:_MOST_SHOWN])) + more or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "not told" if value is None else str(value)
