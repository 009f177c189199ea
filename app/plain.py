"""Drafts as programs write them, read and checked at once: known fields of the very types, no nulls, amounts in their bounds.

Nothing is to be corrected in such a draft, and nothing to be complained of; all others `app.normalize` reads step by step, and
tells what is wrong. A field that is not known makes a draft none of these, so the fields are those of app/events.py.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Union

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType
from typing_extensions import get_type_hints

from app.events import Commerce, Context, Draft, DraftConsent, DraftTag, DraftUser, Ids, Item, Json, Scalar, Whole

MOST = 1e15  # of an amount: more is a mistake, and its cents are lost in a float
AMOUNTS = ("value", "tax", "shipping", "discount")
ITEM_NUMBERS = ("price", "discount", "quantity")


class Plain(Struct):
    """An event that was read so, or several: `drafts` tells them."""


def _only(fields: type, instead: Mapping[str, Any], base: type[Struct] = Struct) -> Any:
    """With the fields of a part, any of which may be missing, and no others."""
    types = {**get_type_hints(fields, include_extras=True), **instead}
    required = fields.__required_keys__  # type: ignore[attr-defined]
    return msgspec.defstruct(
        fields.__name__,
        [
            (name, one) if name in required else (name, Union[one, UnsetType], UNSET)  # noqa: UP007 (it may be annotated)
            for name, one in types.items()
        ],
        bases=(base,),
        forbid_unknown_fields=True,
    )


_number = Meta(gt=-int(MOST), lt=int(MOST))
_amount = Annotated[float, _number]
_item = _only(Item, {"price": _amount, "discount": _amount, "quantity": Annotated[int, _number]})
_parts: dict[str, Any] = {
    "event_name": str,
    "event_id": str | Whole,
    "user": _only(DraftUser, {"user_id": str | Whole}),
    "context": _only(Context, {}),
    "ids": _only(Ids, {}),
    "commerce": _only(Commerce, {**dict.fromkeys(AMOUNTS, _amount), "items": list[_item]}),  # type: ignore[valid-type]
    "consent": _only(DraftConsent, {}),
    "tags": dict[str, _only(DraftTag, {})],  # type: ignore[misc]
}
_Draft = _only(Draft, _parts, Plain)
#: Of bytes: numbers of any size, and what is nested, are read as everywhere else.
_One = _only(Draft, {**_parts, "custom": dict[str, Scalar]}, Plain)


class _Batch(Plain, forbid_unknown_fields=True):
    batch: list[_One]  # type: ignore[valid-type]


_DECODERS = msgspec.json.Decoder(_One), msgspec.json.Decoder(_Batch)


def read(value: bytes) -> Plain | None:
    """JSON of an event, or of several as a batch; None for all other bytes."""
    for decoder in _DECODERS:
        try:
            return decoder.decode(value)
        except (msgspec.MsgspecError, RecursionError):
            continue
    return None


def drafts(plain: Plain) -> list[Draft]:
    """Copies."""
    ones = plain.batch if isinstance(plain, _Batch) else [plain]
    found: list[Draft] = msgspec.to_builtins(ones)
    return found


def draft(raw: Json) -> Draft | None:
    """A copy of parsed JSON that is an event; None for anything else."""
    try:
        found: Draft = msgspec.to_builtins(msgspec.convert(raw, _Draft))
    except msgspec.ValidationError:
        return None
    return found
