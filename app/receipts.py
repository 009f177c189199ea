"""One row per conversion and destination in capistream.receipts: what became of it and on which consent.

It holds ids, amounts and reasons, no identifier of a person: for an analyst's warehouse and for a data-protection officer. At
least once: the same (destination, key, outcome) may come twice after a crash.
"""

from typing import Any

import msgspec

from app import keys
from app.events import Commerce, Event

OUTCOMES = ("delivered", "accepted", "shadowed", "rejected", "skipped", "held_back", "filtered", "parked", "erased")


def brief(event: Event) -> Event:
    """What a row needs of an event, and its key; nothing about the person."""
    told: Any = event
    kept: Any = {name: told[name] for name in _KEPT if name in told}
    money = {name: told["commerce"][name] for name in _MONEY if name in told.get("commerce", {})}
    if money:
        kept["commerce"] = money
    brief: Event = kept
    return brief


_KEPT = ("v", "event_id", "event_name", "site", "source", "time", "received", "revision", "apart")
_MONEY = ("transaction_id", "refund_id", "value", "currency")


class _Row(msgspec.Struct, omit_defaults=True, gc=False):
    """What is not known, or an empty text, is left out."""

    v: int
    time: int
    destination: str = ""
    outcome: str = ""
    reason: str = ""
    site: str = ""
    event_name: str = ""
    event_id: str = ""
    name: str = ""
    event_time: int | None = None
    transaction_id: str | None = None
    value: float | None = None
    currency: str | None = None
    consent_basis: str = ""
    detail: str = ""
    attempts: int | None = None
    config: str = ""


_JSON = msgspec.json.Encoder()


def row(
    event: Event,
    destination: str,
    outcome: str,
    *,
    now: int,
    config: str,
    name: str = "",
    reason: str = "",
    basis: str = "",
    detail: str = "",
    attempts: int = 0,
    key: bytes | None = None,
) -> tuple[bytes, bytes, int]:
    """(key, value, timestamp) as the producer wants it. `config` is the hash of the configuration that decided.

    `key`: of the conversion, where it is known already.
    """
    commerce: Commerce = event.get("commerce", {})
    value = _Row(
        1,
        now,
        destination,
        outcome,
        reason,
        event["site"],
        event["event_name"],
        event["event_id"],
        name,
        event["time"],
        commerce.get("transaction_id") or None,
        commerce.get("value"),
        commerce.get("currency") or None,
        basis,
        detail,
        attempts,
        config,
    )
    return keys.key(event) if key is None else key, _JSON.encode(value), now
