"""One row per conversion and destination in capistream.receipts: what became of it and on which consent.

It holds ids, amounts and reasons, no identifier of a person: for an analyst's warehouse and for a data-protection officer. At
least once: the same (destination, key, outcome) may come twice after a crash.
"""

from typing import Any

import msgspec

from app import keys
from app.events import Event

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
) -> tuple[bytes, bytes, int]:
    """(key, value, timestamp) as the producer wants it. `config` is the hash of the configuration that decided."""
    commerce = event.get("commerce", {})
    receipt = _Receipt(
        v=1,
        time=now,
        destination=destination,
        outcome=outcome,
        reason=reason,
        site=event["site"],
        event_name=event["event_name"],
        event_id=event["event_id"],
        name=name,
        event_time=event["time"],
        transaction_id=commerce.get("transaction_id", ""),
        value=commerce.get("value"),
        currency=commerce.get("currency", ""),
        consent_basis=basis,
        detail=detail,
        attempts=attempts,
        config=config,
    )
    return keys.key(event), _json(receipt), now


class _Receipt(msgspec.Struct, omit_defaults=True, kw_only=True, gc=False):
    """A row without what it has nothing to say of."""

    v: int
    time: int
    destination: str = ""
    outcome: str = ""
    reason: str = ""
    site: str = ""
    event_name: str = ""
    event_id: str = ""
    name: str = ""
    event_time: int
    transaction_id: str = ""
    value: float | None = None
    currency: str = ""
    consent_basis: str = ""
    detail: str = ""
    attempts: int
    config: str = ""


_json = msgspec.json.Encoder().encode
