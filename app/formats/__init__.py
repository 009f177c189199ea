"""The formats events arrive in, one file each: name tables, field tables, and `draft`, which makes our own shape of it.

docs/mapping.md is generated from the tables. A CloudEvents envelope around any of them is taken off first: app/reading.py.
"""

from types import ModuleType
from typing import Any

from app.events import Json
from app.formats import capistream, ga4, gtag, mapped, meta, segment
from app.formats._table import NOT_AN_ID, Ignored, as_json, order_id

__all__ = ["FORMATS", "NOT_AN_ID", "Ignored", "as_json", "draft", "order_id", "split"]

FORMATS: dict[str, ModuleType] = {
    "capistream": capistream,
    "segment": segment,
    "meta": meta,
    "ga4": ga4,
    "gtag": gtag,
    "map": mapped,
}


def split(format_name: str, body: Any) -> list[Any]:
    """The single events of one body, not yet looked at. Raises BadEvent."""
    result: list[Any] = FORMATS[format_name].split(body)
    return result


def draft(format_name: str, one: Any) -> Json | Ignored:
    """One event in our own shape, unchecked. Raises BadEvent."""
    result: Json | Ignored = FORMATS[format_name].draft(one)
    return result
