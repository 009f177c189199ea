"""Conversions as app/view/lookup.py tells of them, and what Kafka has of them, made up for tests of pages."""

import hashlib
from typing import Any

import msgspec
import orjson

from app import dedup, keys, merge
from app.events import Event, Json
from app.routing import Route
from app.shape import from_event
from app.view.lookup import iso
from app.view.payloads import Copy, Found
from tests.factories import make_event

START = 1_795_420_800_000  # Unix milliseconds


def make_copy(source: str, after: float = 0.0, **overrides: Any) -> Event:
    """A copy of an order that was received so many seconds after the first."""
    received = START + int(after * 1000)
    return make_event(
        **{"source": source, "received": received, "time": START, "origin": {"request": f"r{received}"}} | overrides
    )


def conversion(copies: list[Event], **more: Any) -> Json:
    """As the tables have it: closed, and nothing known of any destination."""
    first = copies[0]
    return {
        "id": keys.conversion_id(first),
        "site": first["site"],
        "event_name": first["event_name"],
        "apart": first.get("apart", ""),
        "partition": 0,
        "state": "closed",
        "copies": [
            {
                "source": copy["source"],
                "received": iso(copy["received"]),
                "event_id": copy["event_id"],
                "offset": 10 + n,
                "origin": {k: v for k, v in copy.get("origin", {}).items() if k != "headers"},
            }
            for n, copy in enumerate(copies)
        ],
        "received": len(copies),
        "people": 1,
        "hot": False,
        "revisions": 0,
        "records": [5],
        "decision": {"how": "complete", "at": iso(START)},
        "destinations": {},
    } | more


def record(copies: list[Event], **routes: Route) -> Json:
    """As it stands in capistream.conversions."""
    event = merge.merge(copies)
    its = [from_event(copy) for copy in copies]
    closing = dedup.Closing(keys.key(event), from_event(event), "complete", dedup.Decision(routes), its, len(copies))
    said: Json = orjson.loads(msgspec.json.encode(closing.record()))
    return said


def found(copies: list[Event], *conversions: Json, traces: dict[int, Json] | None = None) -> Found:
    read = {n: Copy(copy, copy["received"] + 5) for n, copy in enumerate(copies)}
    return Found(read, list(conversions), traces or {})


def attempt(**more: Any) -> Json:
    """A row of the topic of traces."""
    said = {
        "v": 1, "time": START + 900, "destination": "ads", "event_name": "purchase", "event_id": "order-1001", "name": "Purchase",
        "method": "POST", "url": "https://ads.example/events?token=MASKED", "body": '{"data": [{"a": 1}]}', "attempt": 1,
        "events": 1, "seconds": 0.25, "status": 200, "answer": '{"ok": true}', "outcome": "delivered",
    }  # fmt: skip
    assert set(more) <= {*said, "reason", "cut"}
    return said | more


def mark(value: str) -> str:
    return hashlib.sha256(value.encode()).hexdigest()[:6]
