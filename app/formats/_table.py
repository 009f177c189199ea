"""Mapping tables: rows of (place in their format, place in ours), applied to parsed JSON."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from app.errors import BadEvent
from app.events import Json

#: (their place, our place in a Draft), dots between levels. The first place that has a value wins.
Table = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Ignored:
    """A message that reports nothing to deliver, such as Segment's identify."""

    kind: str


def at(body: Any, path: str) -> Any:
    """The value at a dotted path, or None."""
    for part in path.split("."):
        if not isinstance(body, Mapping):
            return None
        body = body.get(part)
    return body


def put(draft: Json, path: str, value: Any) -> None:
    *parts, last = path.split(".")
    for part in parts:
        draft = draft.setdefault(part, {})
    draft.setdefault(last, value)


def apply(table: Table, body: Any, draft: Json) -> None:
    for theirs, ours in table:
        value = at(body, theirs)
        if value is not None and value != "":
            put(draft, ours, value)


def items(value: Any, table: Table, field: str) -> list[Json]:
    """A list of products through a table. Raises BadEvent when it is no list of objects."""
    if not isinstance(value, list) or not all(isinstance(one, Mapping) for one in value):
        raise BadEvent("wrong_type", field, "must be a list of objects")
    result = []
    for one in value:
        item: Json = {}
        apply(table, one, item)
        result.append(item)
    return result


def rest(body: Any, used: Iterable[str]) -> Json:
    """What no row names, for `custom`."""
    if not isinstance(body, Mapping):
        return {}
    names = set(used)
    return {k: v for k, v in body.items() if k not in names}


def obj(body: Any, field: str) -> Mapping[str, Any]:
    """The body if it is an object. Raises BadEvent."""
    if not isinstance(body, Mapping):
        raise BadEvent("wrong_type", field, "must be an object")
    return body


def text(body: Mapping[str, Any], name: str) -> str:
    """A required text. Raises BadEvent naming the field."""
    value = body.get(name)
    if value is None or value == "":
        raise BadEvent("missing", name, "is missing")
    if not isinstance(value, str):
        raise BadEvent("wrong_type", name, "must be text")
    return value
