"""Mapping tables: rows of (place in their format, place in ours), applied to parsed JSON."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from app.errors import BadEvent
from app.events import Json

#: (their place, our place in a Draft), dots between levels. The first place that has a value wins.
Table = tuple[tuple[str, str], ...]

#: What broken clients send instead of nothing.
NOT_AN_ID = frozenset({"", "undefined", "null", "none", "nan", "0", "[object object]", "true", "false"})

MAX_SPREAD = 16_000_000  # bytes of JSON that one body may become


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


class Reader:
    """A table taken apart, once: most of its places are in objects that a body does not have."""

    def __init__(self, table: Table) -> None:
        places = [(*theirs.rpartition("."), ours) for theirs, ours in table]
        self._parents = [*dict.fromkeys(parent for parent, _, _, _ in places)]
        self._rows = [(self._parents.index(parent), name, ours) for parent, _, name, ours in places]

    def apply(self, body: Any, draft: Json) -> None:
        parents = [at(body, parent) if parent else body for parent in self._parents]
        parents = [one if isinstance(one, Mapping) else {} for one in parents]
        for number, name, ours in self._rows:
            value = parents[number].get(name)
            if value is not None and value != "":
                put(draft, ours, value)


def spread(shared: Json, ones: list[Any]) -> list[Any]:
    """Each event with what the body says once for all of them. Raises BadEvent where that is far more than was sent."""
    if shared and len(as_json(shared)) * len(ones) > MAX_SPREAD:
        raise BadEvent("too_large", "", "too much is said once for too many events")
    return [{**shared, **one} if isinstance(one, Mapping) else one for one in ones]


def as_json(value: Any, option: int = 0) -> bytes:
    """JSON of an event or a part of it. Raises BadEvent."""
    try:
        return orjson.dumps(value, option=option)
    except orjson.JSONEncodeError as exc:  # which is TypeError itself: around nothing but this
        if str(exc).startswith("Recursion"):
            raise BadEvent("too_deep", "", "nested too deeply") from None
        raise BadEvent(
            "not_json", "", "holds what JSON cannot say, such as a whole number of more than 64 bits"
        ) from None


def an_id(value: Any) -> bool:
    """Whether there is something that can be an id."""
    return isinstance(value, str | int | float) and str(value).strip().lower() not in NOT_AN_ID


def order_id(event_name: str, commerce: Mapping[str, Any]) -> str:
    """What serves as the event id of an order that was given none, or nothing. Partial refunds of one order differ."""
    order, refund = commerce.get("transaction_id"), commerce.get("refund_id")
    if event_name not in ("purchase", "refund") or not an_id(order):
        return ""
    return f"{order}.{refund}" if event_name == "refund" and an_id(refund) else str(order)


def items(value: Any, reader: Reader, field: str) -> list[Json]:
    """A list of products through their table. Raises BadEvent when it is no list of objects."""
    if not isinstance(value, list) or not all(isinstance(one, Mapping) for one in value):
        raise BadEvent("wrong_type", field, "must be a list of objects")
    result = []
    for one in value:
        item: Json = {}
        reader.apply(one, item)
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
