"""What is wrong in the configuration file, as people are told it: what pydantic found, and what to write instead."""

import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from app.fields import NAME

_TOLD = "setting"  # the type of a mistake whose text is for people already
_WORDS = {"extra_forbidden": "unknown setting", "missing": "missing", "model_type": "must be a table"}
Place = tuple[str, ...]


def mistake(place: Place, message: str) -> dict[str, Any]:
    """One for `ValidationError.from_exception_data`."""
    return {"type": PydanticCustomError(_TOLD, "{message}", {"message": message}), "loc": place, "input": None}


def below(part: type[BaseModel], exc: ValidationError, *above: str) -> list[Any]:
    """What is wrong in this part, as mistakes of the one that has it under these names."""
    return [mistake((*above, *place), text) for place, text in said(part, exc).items()]


def said(part: type[BaseModel], exc: ValidationError) -> dict[Place, str]:
    """Each place, and what is wrong there. A text of pydantic's ends with what the setting is for; ours say what to do."""
    found: dict[Place, list[Mapping[str, Any]]] = {}
    for error in exc.errors():
        found.setdefault(_place(error["loc"]), []).append(error)
    return {
        place: " or ".join(map(_message, errors)) + _advice(part, place, errors[0]) for place, errors in found.items()
    }


def _place(loc: Sequence[int | str]) -> Place:
    """As people write it: without pydantic's names for a key, and for the members of a union."""
    parts = [str(part) for part in loc if not re.match(r"\[key\]$|(literal|dict)\[", str(part))]
    return tuple(parts[:-1] if parts[-1:] == ["str"] else parts)


def _message(error: Mapping[str, Any]) -> str:
    message: str = error["msg"]
    return _WORDS.get(error["type"], message.removeprefix("Value error, "))


def _advice(part: type[BaseModel], place: Place, error: Mapping[str, Any]) -> str:
    match error["type"]:
        case "setting" | "value_error":
            return ""
        case "extra_forbidden":
            return _meant(part, place)
        case "string_pattern_mismatch" if error["ctx"]["pattern"] == NAME:
            return ": small letters, digits, - and _, at most 40"
    field = _field(part, place)
    first = re.split(r"(?<=[.?])\s", " ".join(((field and field.description) or "").split()))[0]
    return f". {first}" if first else ""


def _meant(part: type[BaseModel], place: Place) -> str:
    *above, name = place
    here: Any = part
    for key in above:
        here, _ = _inside(here, key)
    known = [field for one in _alternatives(here) if _is_part(one) for field in one.model_fields]
    near = get_close_matches(name, known, n=1)
    return f"; is {near[0]} meant?" if near else "; docs/settings.md has those that there are"


def _field(part: type[BaseModel], place: Place) -> FieldInfo | None:
    """The innermost setting that the place is in."""
    here, found = part, None
    for key in place:
        here, field = _inside(here, key)
        found = field or found
    return found


def _inside(kind: Any, key: str) -> tuple[Any, FieldInfo | None]:
    """(the type of what stands below this key, its setting where it has one of its own)"""
    for one in _alternatives(kind):
        if _is_part(one) and key in one.model_fields:
            field = one.model_fields[key]
            return field.annotation, field
        if get_origin(one) in (dict, list):
            return get_args(one)[-1], None
    return None, None


def _alternatives(kind: Any) -> Iterator[Any]:
    if get_origin(kind) is Annotated:
        yield from _alternatives(get_args(kind)[0])
    elif get_origin(kind) in (Union, UnionType):
        for one in get_args(kind):
            yield from _alternatives(one)
    else:
        yield kind


def _is_part(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)
