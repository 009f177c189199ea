"""No format of its own: an event is what the source's `map` says of the value (app/reading.py). A list is several events."""

from typing import Any

from app.events import Json
from app.formats._table import Ignored, Table

EVENT_NAMES: dict[str, str] = {}
FIELDS: Table = ()
ITEM_FIELDS: Table = ()


def split(body: Any) -> list[Any]:
    return body if isinstance(body, list) else [body]


def draft(_one: Any) -> Json | Ignored:
    return {}
