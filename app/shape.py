"""Is this an event of ours? Asked of every record of our own topics: anybody may write there, and what is an event but for
one part would end every worker that reads it.

Judged by the types of its fields; what they say was judged by normalize. A field not known here is of a later version: workers
of two versions beside each other may drop it.
"""

from typing import Annotated, Any

import msgspec

from app import keys
from app.events import Event


class Routed(msgspec.Struct):
    """A record of a destination's topic, as far as it is read. `replay`: when a replay was asked for, in Unix milliseconds."""

    event: Event
    replay: Annotated[int, msgspec.Meta(ge=0, lt=2**53)] = 0


_READER = msgspec.json.Decoder(Event)
_ROUTED = msgspec.json.Decoder(Routed)
_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


def event(value: bytes | None) -> Event | None:
    """The event that this JSON is, or None."""
    try:
        return _READER.decode(value or b"")
    except _UNREADABLE:
        return None


def routed(key: bytes, value: bytes | None) -> Routed | None:
    """The record that this JSON is, of the conversion that this key names, or None. Read and judged in one go."""
    try:
        found = _ROUTED.decode(value or b"")
    except _UNREADABLE:
        return None
    return found if keys.key(found.event) == key and found.event["time"] >= 0 else None


def is_event(value: Any) -> bool:
    """The same of what was read already."""
    try:
        msgspec.convert(value, Event, strict=True)
    except msgspec.ValidationError:
        return False
    return True


def is_event_of(key: bytes, value: Any) -> bool:
    """Is it one, and the conversion that this key names?"""
    return is_event(value) and keys.key(value) == key


def copy(key: bytes, value: bytes | None) -> Event | None:
    """The copy of a conversion that this record of capistream.events is, or None."""
    found = event(value)
    return found if found is not None and _is_copy(key, found) else None


def is_copy(key: bytes, value: Any) -> bool:
    """The same of what was read already."""
    return is_event(value) and _is_copy(key, value)


def _is_copy(key: bytes, found: Event) -> bool:
    if found["received"] < 0 or found["time"] < 0 or "apart" in found:
        return False
    # three parts; and no key of the rows in table `seen` that are no conversion's, which begin with smaller characters
    return keys.key(found) == key > b"\x1f" and key.count(b"\x1f") == 2
