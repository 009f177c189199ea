"""What a field of a platform's event holds, for what users fill by the setting `map`: a wrong type often fails a whole request.

A sink names its fields as `map` does, `[]` for the members of a list and `*` for all other fields of an object.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from app.identity import is_sha256


@dataclass(frozen=True)
class Kind:
    words: str  # "a text": after "is not"
    fits: Callable[[Any], bool]


Kinds = Mapping[str, Kind]


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _number(value: Any) -> bool:
    return _whole(value) or (isinstance(value, float) and math.isfinite(value))


def _scalar(value: Any) -> bool:
    return isinstance(value, str | bool) or _number(value)


def _digest(value: Any) -> bool:
    return isinstance(value, str) and is_sha256(value)


def _list_of(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(map(fits, value))


TEXT = Kind("a text", _text)
WHOLE = Kind("a whole number", _whole)
NUMBER = Kind("a number", _number)
FLAG = Kind("true or false", lambda value: isinstance(value, bool))
SCALAR = Kind("a text, a number, true or false", _scalar)
ID = Kind("a text or a whole number", lambda value: _text(value) or _whole(value))
OBJECT = Kind("an object", lambda value: isinstance(value, dict))
TEXTS = Kind("a list of texts", _list_of(_text))
IDS = Kind("a list of texts or whole numbers", _list_of(ID.fits))
OBJECTS = Kind("a list of objects", _list_of(OBJECT.fits))
DIGEST = Kind("a SHA-256", _digest)
DIGESTS = Kind("a list of SHA-256", _list_of(_digest))
#: Where the platform takes one or several.
DIGEST_OR_DIGESTS = Kind("a SHA-256 or a list of them", lambda value: _digest(value) or _list_of(_digest)(value))
TEXT_OR_TEXTS = Kind("a text or a list of texts", lambda value: _text(value) or _list_of(_text)(value))


def kinds(prefix: str, **names: Kind) -> dict[str, Kind]:
    """Fields of one object, its path before their names: `value=NUMBER` below `custom_data.`."""
    return {f"{prefix}{name}": kind for name, kind in names.items()}


def each(kind: Kind, prefix: str, names: str) -> dict[str, Kind]:
    """Several of one kind, their names between spaces."""
    return {f"{prefix}{name}": kind for name in names.split()}


def misfit(body: Any, fields: Kinds) -> str:
    """The first field that holds something else than the platform takes, in words of ours; empty where all fit."""
    return next(_misfits(body, fields, "", "the event"), "")


def _misfits(value: Any, fields: Kinds, path: str, named: str) -> Iterator[str]:
    """`named` is how the place is told: a name that a user's expression made could be of the event."""
    kind = fields.get(path)
    named = path if kind else named
    if value is None:
        yield f"{named} holds a null"
    elif kind and not kind.fits(value):
        yield f"{named} is not {kind.words}"
    elif isinstance(value, list):
        for inner in value:
            yield from _misfits(inner, fields, f"{path}[]", named)
    elif isinstance(value, dict):
        for name, inner in value.items():
            own, any_other = (f"{path}.{one}".removeprefix(".") for one in (name, "*"))
            yield from _misfits(inner, fields, any_other if own not in fields and any_other in fields else own, named)
