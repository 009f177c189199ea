"""Match quality: which part of the events that go to a platform carries each of the identifiers by which it finds people. Pure.

Judged are the newest merged events, put in the platform's words by the same functions as if they were sent now. What sources told
and could not be used is in the newest copies (`unusable`). Which identifiers a platform has is told by its sink (`match`).
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from app.destination import Destination
from app.events import Event, Json
from app.prepare import Final, prepare
from sinks._base import MatchKey, Sink

LEAST = 20  # events of a name from which on something is said about it
GAP = 0.05  # part of the events that had an identifier and could not use it, from which on that is said
SHOWN = 100  # events that are named

#: Reasons of normalize, in words.
UNUSABLE: Mapping[str, str] = {
    "no_country_code": "no country code, and the event names no country",
    "not_a_phone": "no phone number",
    "not_an_email": "no e-mail address",
    "another_hash": "hashed, but not by SHA-256",
    "empty": "nothing, hashed or not",
    "private": "an address of a network of yours",
    "not_an_address": "no address",
    "personal": "something of a person where an id belongs",
    "malformed": "not as the platform writes it",
    "hashed": "hashed, where it is needed in clear",
}


class One(NamedTuple):
    """A merged event, as it would be sent."""

    event_id: str
    event_name: str
    carried: frozenset[str]  # names of match keys
    given: frozenset[str]  # names of those of which our event has a field
    skipped: str = ""  # why the platform does not get it


class Lost(NamedTuple):
    """Of the copies of an event name and source."""

    copies: int
    unusable: Mapping[tuple[str, str], int]  # (field, reason) -> copies


@dataclass
class Quality:
    """Of one destination."""

    keys: Sequence[MatchKey]
    events: list[One] = field(default_factory=list)  # the newest last
    lost: dict[tuple[str, str], Lost] = field(default_factory=dict)  # by event name and source

    def names(self) -> list[str]:
        return [name for name, _ in Counter(one.event_name for one in self.events).most_common()]

    def of(self, name: str) -> list[One]:
        """The events of this name that the platform gets."""
        return [one for one in self.events if one.event_name == name and not one.skipped]

    def without(self, name: str, key: str) -> list[One]:
        """The events of this name that do not carry the key; the newest first."""
        return [one for one in self.of(name) if key not in one.carried][::-1]

    def skipped(self, name: str, why: str) -> list[One]:
        """The events of this name that the platform does not get for this reason; the newest first."""
        return [one for one in self.events if one.event_name == name and one.skipped == why][::-1]

    def as_json(self) -> Json:
        return {
            "keys": [key.name for key in self.keys],
            "events": [self._row(name) for name in self.names()],
            "lint": lint(self),
        }

    def _row(self, name: str) -> Json:
        its = self.of(name)
        skipped = Counter(one.skipped for one in self.events if one.event_name == name and one.skipped)
        return {
            "event": name,
            "events": len(its),
            "skipped": dict(skipped.most_common()),
            "carried": {key.name: sum(key.name in one.carried for one in its) for key in self.keys},
            "given": {key.name: sum(key.name in one.given for one in its) for key in self.keys},
        }


def quality(name: str, settings: Destination, sink: Sink, events: Iterable[Event], copies: Iterable[Event]) -> Quality:
    """Of the destination of this name: `events` are merged ones, `copies` those that sources reported; the newest last."""
    found = Quality(sink.match)
    for event in events:
        # judged as on the day on which it came, so that none is too old
        for one in prepare(name, event, settings, sink, event["received"] / 1000)[1]:
            given = frozenset(key.name for key in sink.match if any(_at(event, path) for path in key.fields))
            if not isinstance(one.found, Final):
                told = sink.told(one.found)
                carried = frozenset(
                    key.name for key in sink.match if any(_has_all(told, place) for place in key.places)
                )
                found.events.append(One(event["event_id"], event["event_name"], carried, given))
            elif one.found.outcome == "skipped" and one.name:
                found.events.append(
                    One(event["event_id"], event["event_name"], frozenset(), given, one.found.reason or "skipped")
                )
            break  # under another of the platform's names it has the same identifiers
    found.lost = lost(copies)
    return found


def lost(copies: Iterable[Event]) -> dict[tuple[str, str], Lost]:
    counts, reasons = Counter[tuple[str, str]](), defaultdict[tuple[str, str], Counter[tuple[str, str]]](Counter)
    for copy in copies:
        where = copy["event_name"], copy["source"]
        counts[where] += 1
        reasons[where].update(copy.get("unusable", {}).items())
    return {where: Lost(count, reasons[where]) for where, count in counts.items()}


def _has_all(told: Any, place: str) -> bool:
    return all(_at(told, path) for path in place.split("+"))


def _at(value: Any, path: str) -> bool:
    """Does something stand there? In a list, in any of its members."""
    if isinstance(value, list):
        return any(_at(one, path) for one in value)
    if not path:
        return value not in (None, "", {}, [])
    first, _, rest = path.partition(".")
    return isinstance(value, dict) and first in value and _at(value[first], rest)


# What is odd


def lint(found: Quality) -> list[Json]:
    """What could be better, and where: the most frequent event first."""
    said: list[Json] = []
    for name in found.names():
        its = found.of(name)
        if len(its) < LEAST:
            continue
        for key in found.keys:
            carried = sum(key.name in one.carried for one in its)
            given = sum(key.name in one.given for one in its)
            unused = sum(key.name in one.given and key.name not in one.carried for one in its)
            told = _unusable(found, name, key)
            said += [_says(name, key, text) for text in told]
            if key.of_click and not given and not carried:
                said.append(
                    _says(
                        name, key, "never there: does the landing page keep it from the ad's address until the order?"
                    )
                )
            elif unused > GAP * len(its):
                part = _percent(unused, len(its))
                said.append(_says(name, key, f"present in {part}, but not as this platform takes it, and so left out"))
            elif not carried and not told and not key.of_click and key.fields[0].startswith("user."):
                said.append(_says(name, key, "never there: can the server's event tell it?"))
    return said


def together(lint_: Iterable[Json]) -> list[tuple[list[str], list[str], str]]:
    """(events, identifiers, text): what is the same of several is said once."""
    keys: dict[tuple[str, str], list[str]] = defaultdict(list)
    for one in lint_:
        keys[one["event"], one["text"]].append(one["key"])
    events: dict[tuple[str, tuple[str, ...]], list[str]] = defaultdict(list)
    for (event, text), its in keys.items():
        events[text, tuple(its)].append(event)
    return [(names, list(its), text) for (text, its), names in events.items()]


def _says(name: str, key: MatchKey, text: str) -> Json:
    return {"event": name, "key": key.name, "text": text}


def _unusable(found: Quality, name: str, key: MatchKey) -> list[str]:
    """What sources told of it in vain: who has to change that is told by the source."""
    said = []
    for (event_name, source), lost_ in found.lost.items():
        if event_name != name or lost_.copies < LEAST:
            continue
        for (path, why), number in Counter(lost_.unusable).most_common():
            if path in key.fields and number > GAP * lost_.copies:
                part = _percent(number, lost_.copies)
                said.append(
                    f"told in {part} of the copies from {source}, but unusable: {UNUSABLE.get(why, why.replace('_', ' '))}"
                )
    return said


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.0f} %"
