"""What a destination's settings `fields`, `value` and `map` make of an event: pure, and the same for every sink."""

import copy
import math
from collections.abc import Iterable, Mapping
from decimal import Decimal
from functools import lru_cache
from typing import Any

from app.events import Event, Json
from app.fields import find

#: What an event is about. `fields` chooses among these; the rest tells which event it is and how it may be sent.
_CONTENT = ("user", "context", "ids", "commerce", "custom")


def chosen(event: Event, fields: tuple[str, ...] | None) -> Event:
    """The event with what a destination may see of it (`Destination.fields`)."""
    if fields is None:
        return event
    wanted = _by_part(fields)
    kept: Json = {}
    for name, part in event.items():
        if name not in _CONTENT or wanted.get(name) is _WHOLE:
            kept[name] = part
        elif isinstance(part, dict) and name in wanted and (some := {k: part[k] for k in part if k in wanted[name]}):
            kept[name] = some
    return kept  # type: ignore[return-value]


_WHOLE = frozenset({"*"})


@lru_cache(maxsize=256)  # as many as destinations
def _by_part(fields: tuple[str, ...]) -> Mapping[str, frozenset[str]]:
    """Part of an event -> which of its fields are wanted."""
    found: dict[str, frozenset[str]] = {}
    for path in fields:
        name, _, field = path.partition(".")
        known = found.get(name, frozenset())
        found[name] = _WHOLE if field in ("", "*") or known is _WHOLE else known | {field}
    return found


def valued(event: Event, how: str) -> Event:
    """The event with the value that is to be reported (`Destination.value`); without one where there is none to find.

    Raises BadExpression.
    """
    commerce = event.get("commerce")
    if how == "gross" or not commerce:
        return event
    if how == "net":
        found = _sum((commerce.get("value"), 1), (commerce.get("tax", 0), -1), (commerce.get("shipping", 0), -1))
    elif how == "items":
        found = _sum(*((item.get("price"), item.get("quantity", 1)) for item in commerce.get("items", ())))
    else:
        found = _sum((find(how, event), 1))
    told: Any = {name: field for name, field in commerce.items() if name != "value"}
    if found is not None:
        told["value"] = found
    return {**event, "commerce": told}


def _sum(*terms: tuple[Any, int]) -> float | None:
    """The sum of numbers, each times another; None when one is missing or no number, or there is none."""
    total = Decimal(0)
    for number, times in terms:
        if isinstance(number, bool) or not isinstance(number, int | float | str):
            return None
        try:
            total += Decimal(str(number)) * times
        except ArithmeticError:
            return None
    found = float(total)
    return found if terms and math.isfinite(found) else None


def mapped(body: Json, event: Event, fields: Mapping[str, str]) -> Json:
    """The platform's event with the fields that the settings fill (`Destination.map`). Where an expression finds nothing, or an
    empty text or list, there stays what the sink says. Raises BadExpression.
    """
    if not fields:
        return body
    body = copy.deepcopy(body)
    for path, expression in fields.items():
        found = find(expression, event)
        if found not in (None, "", [], {}):
            _put(body, path.split("."), found)
    return body


def _put(place: Json, path: Iterable[str], value: Any) -> None:
    """Objects on the way are made; a list is filled member by member, and must be there."""
    name, *rest = path
    if name.endswith("[]"):
        members = place.get(name[:-2])
        if isinstance(members, list) and isinstance(value, list) and rest:
            for member, one in zip(members, value, strict=False):
                if isinstance(member, dict) and one is not None:
                    _put(member, rest, one)
        elif not rest:
            place[name[:-2]] = value if isinstance(value, list) else [value]
        return
    if not rest:
        place[name] = value
        return
    inner = place.setdefault(name, {})
    if isinstance(inner, dict):
        _put(inner, rest, value)
