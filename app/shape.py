"""Is this an event of ours? Asked of every record of our own topics: anybody may write there, and what is an event but for
one part would end every worker that reads it.
"""

from typing import Any

from pydantic import TypeAdapter, ValidationError

from app import keys
from app.events import Event

_EVENT = TypeAdapter(Event)


def is_event(value: Any) -> bool:
    """By the types of its fields; what they say was judged by normalize. A field not known here is of a later version."""
    try:
        _EVENT.validate_python(value, strict=True, extra="ignore")
    except ValidationError:
        return False
    return True


def is_copy(key: bytes, value: Any) -> bool:
    """Whether this key and value stand for one copy of a conversion in capistream.events."""
    if not is_event(value) or value["received"] < 0 or value["time"] < 0:
        return False
    return "apart" not in value and keys.key(value) == key and key.count(keys.SEPARATOR.encode()) == 2
