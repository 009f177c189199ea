"""The formats events arrive in, one file each: name tables, field tables, and `draft`, which makes our own shape of it.

docs/mapping.md is generated from the tables. A CloudEvents envelope (structured mode) around any of them is taken off first.
"""

from collections.abc import Mapping
from types import ModuleType
from typing import Any

from app.events import Json
from app.formats import capistream, ga4, meta, segment
from app.formats._table import NOT_AN_ID, Ignored

__all__ = ["FORMATS", "NOT_AN_ID", "Ignored", "draft", "split"]

FORMATS: dict[str, ModuleType] = {
    "capistream": capistream,
    "segment": segment,
    "meta": meta,
    "ga4": ga4,
}


def split(format_name: str, body: Any) -> list[Any]:
    """The single events of one body, not yet looked at. Raises BadEvent."""
    if isinstance(body, Mapping) and "specversion" in body and "data" in body:  # CloudEvents 1.0
        body = body["data"]
    result: list[Any] = FORMATS[format_name].split(body)
    return result


def draft(format_name: str, one: Any) -> Json | Ignored:
    """One event in our own shape, unchecked. Raises BadEvent."""
    result: Json | Ignored = FORMATS[format_name].draft(one)
    return result
