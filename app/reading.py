"""How a source's own settings read a record: its envelope, its `filter`, its `map`. Pure.

An expression (JMESPath) is asked of one event of the value, with the places that docs/mapping.md names, and of what the record
carries beside the value:

    _key        the record's key as text; null when there is none, or it is no text
    _headers    the record's headers by name; the attributes of a CloudEvents envelope are among them, as `ce_*`
    _timestamp  the record's timestamp, Unix milliseconds
    _value      the event itself: for one that is no object, and for expressions of a list's members

`"commerce.items[]"` names the list, `"commerce.items[].item_id"` is asked of each of its members. A projection such as
`lines[].sku` would leave out the lines without one, and the others would move up.
"""

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, get_type_hints

import orjson

from app import formats, identity, redaction
from app.errors import BadEvent
from app.events import Commerce, Context, Draft, DraftConsent, DraftTag, DraftUser, Ids, Item, Json
from app.fields import BadExpression, find
from app.formats import Ignored

#: Headers that events keep, in `origin.headers`: CloudEvents attributes and W3C trace context.
#: https://github.com/cloudevents/spec/blob/main/cloudevents/bindings/kafka-protocol-binding.md
#: https://www.w3.org/TR/trace-context/
_KEPT = re.compile(r"ce_[a-z0-9]{1,40}|traceparent|tracestate")
_LONGEST_HEADER = 512  # characters, as W3C asks for tracestate
_MOST_HEADERS = 2_000  # characters of all names and values that are kept: each copy carries them

_PARTS: dict[str, Any] = {
    "user": DraftUser,
    "context": Context,
    "ids": Ids,
    "commerce": Commerce,
    "consent": DraftConsent,
    "tags": DraftTag,
}
_FREE = ("custom", "consent.categories")  # names below these are the sender's own


@dataclass(frozen=True)
class Carried:
    """What a record carries beside its value."""

    key: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    timestamp: int | None = None  # Unix milliseconds


@dataclass(frozen=True)
class Rules:
    """`filter` and `map` of a source, taken apart."""

    filter: str | None = None
    fields: Sequence[tuple[str, str]] = ()  # (place in a Draft, expression)
    # (place, expression, (name, expression) of a member)
    lists: Sequence[tuple[str, str, Sequence[tuple[str, str]]]] = ()


NOTHING = Carried()
AS_IT_IS = Rules()


def rules(mapping: Mapping[str, str], keep: str | None) -> Rules:
    """Of a source's `map` and `filter`, both of which have passed `mistakes`."""
    if not mapping and keep is None:
        return AS_IT_IS
    fields = [(place, expression) for place, expression in mapping.items() if "[]" not in place]
    members: dict[str, list[tuple[str, str]]] = {}
    for place, expression in mapping.items():
        name, inside, rest = place.partition("[].")
        if inside:
            members.setdefault(name, []).append((rest, expression))
    lists = [
        (place[:-2], expression, tuple(members.get(place[:-2], ())))
        for place, expression in mapping.items()
        if place.endswith("[]")
    ]
    return Rules(keep, tuple(fields), tuple(lists))


def carried(record: Any) -> Carried:
    """Of a Kafka record. Of headers with the same name the last one counts; one that is no UTF-8 is not there."""
    headers = {}
    for name, value in record.headers or ():
        if value is not None and (text := _text(value)) is not None:
            headers[name] = text
    return Carried(_text(record.key), headers, record.timestamp)


def _text(value: bytes | None) -> str | None:
    if value is None or b"\0" in value:  # a number in binary, or something by a schema
        return None
    try:
        return value.decode()
    except UnicodeDecodeError:
        return None


def opened(body: Any, carried: Carried) -> tuple[Any, Carried]:
    """The body without its CloudEvents envelope, whose attributes become headers, as they are in binary mode.

    https://github.com/cloudevents/spec/blob/main/cloudevents/formats/json-format.md. Raises BadEvent.
    """
    if not isinstance(body, Mapping) or "specversion" not in body or not body.keys() & {"data", "data_base64"}:
        return body, carried
    said = {
        f"ce_{name}": str(value).lower() if isinstance(value, bool) else str(value)
        for name, value in body.items()
        if name not in ("data", "data_base64") and isinstance(value, str | int)
    }
    carried = replace(carried, headers={**carried.headers, **said})
    if "data" in body:
        return body["data"], carried
    try:
        return orjson.loads(base64.b64decode(str(body["data_base64"]), validate=True)), carried
    except (binascii.Error, ValueError):
        raise BadEvent("not_json", "data_base64", "is not JSON in base64") from None


def draft(one: Any, format_name: str, rules: Rules, carried: Carried) -> Json | Ignored:
    """One event in our own shape, unchecked. Raises BadEvent."""
    if rules is AS_IT_IS:
        return formats.draft(format_name, one)
    said = {"_key": carried.key, "_headers": carried.headers, "_timestamp": carried.timestamp, "_value": one}
    scope = {**one, **said} if isinstance(one, Mapping) else said
    if rules.filter is not None and _is_false(_found(rules.filter, scope, "filter")):
        return Ignored("filtered")
    result = formats.draft(format_name, one)
    if isinstance(result, Ignored):
        return result
    for place, expression in rules.fields:
        _put(result, place, _found(expression, scope, f"map.{place}"))
    for place, expression, members in rules.lists:
        _put(result, place, _members(scope, said, place, expression, members))
    if result.get("pairs") is False and any(place == "event_id" for place, _ in rules.fields):
        del result["pairs"]  # that was said of the id which the format had to make up
    return result


def _members(
    scope: Json, said: Json, place: str, expression: str, fields: Sequence[tuple[str, str]]
) -> list[Any] | None:
    found = _found(expression, scope, f"map.{place}[]")
    if found is None or not fields:
        return found if found is None or isinstance(found, list) else [found]
    if not isinstance(found, list):
        raise BadEvent("wrong_type", f"map.{place}[]", "must find a list")
    result = []
    for member in found:
        inner = {**member, **said} if isinstance(member, dict) else member
        one: Json = {}
        for name, of_member in fields:
            _put(one, name, _found(of_member, inner, f"map.{place}[].{name}"))
        result.append(one)
    return result


def _found(expression: str, value: Any, place: str) -> Any:
    """A copy of what the expression finds, as JSON holds it. Raises BadEvent."""
    try:
        return find(expression, value)
    except BadExpression as exc:
        detail = f"cannot be worked out: {exc.error}"
        if exc.found:
            detail = "finds what no JSON can hold, or what is nested too deeply"
        raise BadEvent("bad_mapping", place, detail) from None


def _is_false(value: Any) -> bool:
    """As JMESPath has it: 0 is a value."""
    return value is None or value is False or value in ("", [], {})


def _put(draft: Json, place: str, value: Any) -> None:
    """Replaces what is there; nothing found leaves it. The draft's own objects may be the sender's: they are copied."""
    if value is None or value == "":
        return
    *parts, last = place.split(".")
    for part in parts:
        inner = draft.get(part)
        draft[part] = draft = dict(inner) if isinstance(inner, dict) else {}
    draft[last] = value


def kept(headers: Mapping[str, str]) -> tuple[dict[str, str], bool]:
    """The headers that an event keeps, and whether one of them had no room. Free of clear addresses and numbers."""
    result: dict[str, str] = {}
    room, cut = _MOST_HEADERS, False
    for name in sorted(headers):
        if not _KEPT.fullmatch(name):
            continue
        value = identity.REDACTED if redaction.named(name, headers[name]) else redaction.masked(headers[name])
        if len(value) > _LONGEST_HEADER or len(name) + len(value) > room:
            cut = True
            continue
        room -= len(name) + len(value)
        result[name] = value
    return result, cut


# what `config check` says of a map


def a_place(path: str) -> str:
    """The path, when it is a field of a Draft that an expression may fill. Raises ValueError."""
    name, *rest = path.split(".")
    if path.startswith(tuple(f"{free}." for free in _FREE)) and all(rest):
        return path
    known = get_type_hints(Draft).keys()
    if not rest and name.removesuffix("[]") == "labels":
        return path
    if name not in known:
        raise ValueError(f"no field of ours: one of {', '.join(known)}")
    if not rest:
        return path
    if name == "tags" and len(rest) == 2:
        rest = rest[1:]
    elif name == "commerce" and rest[0] in ("items", "items[]") and (len(rest) == 1 or rest[0] == "items[]"):
        if len(rest) == 1:
            return path
        return _one_of(path, rest[1:], Item, "commerce.items[]")
    return _one_of(path, rest, _PARTS.get(name), name)


def _one_of(path: str, rest: Sequence[str], part: Any, name: str) -> str:
    known = get_type_hints(part).keys() if part else ()
    if len(rest) != 1 or rest[0] not in known:
        raise ValueError(f"no field of ours: {name} has {', '.join(known) or 'none'}")
    return path


def mistakes(format_name: str, mapping: Mapping[str, str]) -> list[str]:
    """What is missing from a source's `map`."""
    found = []
    inside = any(place.startswith("commerce.items[].") for place in mapping)
    if inside and "commerce.items[]" not in mapping:
        found.append('"commerce.items[]" is missing: the list whose members "commerce.items[].…" reads')
    if "commerce.items" in mapping and "commerce.items[]" in mapping:
        found.append('"commerce.items" and "commerce.items[]" name the same field')
    if format_name == "map":
        if "event_name" not in mapping:
            found.append(
                "event_name is missing: nothing else says it when format is map; a fixed one is \"'purchase'\""
            )
        if not mapping.keys() & {"event_id", "commerce.transaction_id", "commerce"}:
            found.append("event_id is missing, or commerce.transaction_id for purchases and refunds")
    return found
