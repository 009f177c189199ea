"""One row per conversion and destination in capistream.receipts: what became of it and on which consent.

It holds ids, amounts and reasons, no identifier of a person: for an analyst's warehouse and for a data-protection officer. At
least once: the same (destination, key, outcome) may come twice after a crash.
"""

from typing import Any

import orjson

from app import keys
from app.events import Event

OUTCOMES = ("delivered", "rejected", "skipped", "held_back", "filtered", "parked")


def row(
    event: Event,
    destination: str,
    outcome: str,
    *,
    now: int,
    config: str,
    reason: str = "",
    basis: str = "",
    detail: str = "",
    attempts: int = 0,
) -> tuple[bytes, bytes, int]:
    """(key, value, timestamp) as the producer wants it. `config` is the hash of the configuration that decided."""
    commerce = event.get("commerce", {})
    value: dict[str, Any] = {
        "v": 1,
        "time": now,
        "destination": destination,
        "outcome": outcome,
        "reason": reason,
        "site": event["site"],
        "event_name": event["event_name"],
        "event_id": event["event_id"],
        "event_time": event["time"],
        "transaction_id": commerce.get("transaction_id"),
        "value": commerce.get("value"),
        "currency": commerce.get("currency"),
        "consent_basis": basis,
        "detail": detail,
        "attempts": attempts,
        "config": config,
    }
    return keys.key(event), orjson.dumps({k: v for k, v in value.items() if v not in (None, "")}), now
