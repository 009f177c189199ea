"""Our own JSON: one event (a Draft, see app/events.py), a list of them, or {"batch": [...]}."""

from collections.abc import Mapping
from typing import Any

from app.events import Json
from app.formats._table import Ignored, Table, obj, spread

EVENT_NAMES: dict[str, str] = {}
FIELDS: Table = ()
ITEM_FIELDS: Table = ()


def split(body: Any) -> list[Any]:
    """The single events of a body."""
    if isinstance(body, list):
        return body
    if isinstance(body, Mapping) and isinstance(body.get("batch"), list):
        return spread({k: v for k, v in body.items() if k != "batch"}, body["batch"])
    return [body]


def draft(one: Any) -> Json | Ignored:
    return dict(obj(one, ""))
