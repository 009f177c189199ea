"""Is this an event of ours? Asked of every record of our own topics: anybody may write there, and what is an event but for
one part would end every worker that reads it.

Judged by the types of its fields; what they say was judged by normalize. A field not known here is of a later version: workers
of two versions beside each other may drop it.
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from app import keys
from app.events import SIGNALS, Commerce, Consent, Context, Event, Ids, Scalar, Source, Tag, User, Whole


class Origin(msgspec.Struct, omit_defaults=True, gc=False):
    """As in app/events.py, of a Copy."""

    topic: str | UnsetType = UNSET
    partition: Whole | UnsetType = UNSET
    offset: Whole | UnsetType = UNSET
    request: str | UnsetType = UNSET
    headers: dict[str, str] | UnsetType = UNSET


class Copy(msgspec.Struct, omit_defaults=True, gc=False):
    """An Event as dedup has it in hand, and in JSON the same: reading, changing and writing it takes half of what a dictionary
    takes. Its parts are dictionaries. What it does not have is UNSET, which counts as false.
    """

    v: Literal[1]
    event_id: str
    event_name: str
    site: str
    source: Source
    time: Whole
    received: Whole
    origin: Origin | UnsetType = UNSET
    pairs: Literal[False] | UnsetType = UNSET
    revision: Whole | UnsetType = UNSET
    apart: str | UnsetType = UNSET
    user: User | UnsetType = UNSET
    context: Context | UnsetType = UNSET
    ids: Ids | UnsetType = UNSET
    commerce: Commerce | UnsetType = UNSET
    consent: Consent | UnsetType = UNSET
    tags: dict[str, Tag] | UnsetType = UNSET
    labels: list[str] | UnsetType = UNSET
    custom: dict[str, Scalar] | UnsetType = UNSET
    unusable: dict[str, str] | UnsetType = UNSET


#: What is most often said of the signals.
GRANTED: Consent = dict.fromkeys(SIGNALS, "granted")  # type: ignore[assignment]

_FIELDS = Copy.__struct_fields__


def as_event(copy: Copy) -> Event:
    """The same as a dictionary, for whoever wants all of it; its parts are those of the copy."""
    told = zip(_FIELDS, msgspec.structs.astuple(copy), strict=True)
    event: Any = {name: said for name, said in told if said is not UNSET}
    if copy.origin:
        event["origin"] = msgspec.to_builtins(copy.origin)
    return event  # type: ignore[no-any-return]


def from_event(event: Event) -> Copy:
    """The other way round."""
    return msgspec.convert(event, Copy)


class Routed(msgspec.Struct):
    """A record of a destination's topic, as far as it is read. `replay`: when a replay was asked for, in Unix milliseconds."""

    event: Event
    replay: Annotated[int, msgspec.Meta(ge=0, lt=2**53)] = 0


_COPY = msgspec.json.Decoder(Copy)
_ROUTED = msgspec.json.Decoder(Routed)
_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


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


def read(key: bytes, value: bytes | None) -> Copy | None:
    """The copy of a conversion that this record of capistream.events is, or None."""
    try:
        found = _COPY.decode(value or b"")
    except _UNREADABLE:
        return None
    # three parts; and no key of rows in table `seen` that are no conversion's: those have smaller ones
    its = keys.joined(conversion_id(found), found.site, found.event_name)
    if its != key or key.count(b"\x1f") != 2 or key <= b"\x1f":
        return None
    return found if found.received >= 0 and found.time >= 0 and found.apart is UNSET else None


def conversion_id(copy: Copy) -> str:
    """As `keys.conversion_id`."""
    if copy.event_name in keys.ORDERS and (order := keys.order(copy.event_name, copy.commerce or {})):
        return order
    return copy.event_id.removesuffix(f".{copy.apart}") if copy.apart else copy.event_id


def copy(key: bytes, value: bytes | None) -> Event | None:
    """The same as a dictionary."""
    found = read(key, value)
    return None if found is None else as_event(found)


def is_copy(key: bytes, value: Any) -> bool:
    """The same of what was read already."""
    if not is_event_of(key, value) or value["received"] < 0 or value["time"] < 0 or "apart" in value:
        return False
    return key > b"\x1f" and key.count(b"\x1f") == 2
