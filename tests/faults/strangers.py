"""Records that somebody else wrote into our own topics: garbage under real keys, and what is an event but for one part.

None of them may end a worker, hold up or change an event of ours, or take its place.
"""

import json
import random
import time
from collections.abc import Iterator
from typing import Any

from app import keys
from tests.faults.conversions import Conversion

GARBAGE: tuple[bytes | None, ...] = (
    None, b"", b"\xff\x00", b"null", b"[]", b"7", b'"text"', b"{}", b"[[[[", b'{"event": 7}', b'{"clock": "noon"}',
    b'{"v": 1}', b'{"event_id": 1e999}', b'{"received": NaN}', b"{" * 3000,
)  # fmt: skip

#: part of an event -> what should never be there
WRONG: dict[str, tuple[Any, ...]] = {
    "v": (99, None),
    "event_id": (None, 5, [], "x" * 100_000),
    "event_name": (None, 7, []),
    "site": (None, 7, {}),
    "source": (None, 7, "nobody", []),
    "time": (None, "noon", -1, 1e30, True, []),
    "received": (None, "noon", -1, 1e30, True, []),
    "origin": (None, 7, "somewhere", {"topic": 1}),
    "pairs": ("no", 7),
    "revision": (-1, "two", []),
    "user": (None, 7, "ada", [], {"email": 7}, {"email": {"plain": 7}}, {"email": ["a"]}, {"city": 7}, {"user_id": 7}),
    "context": (None, 7, [], {"ip": 7}, {"url": 7}, {"user_agent": []}),
    "ids": (None, 7, [], {"fbp": 7}, {"ga_client_id": 7}, {"fbclid": []}),
    "commerce": (
        None, 7, [], {"value": "much"}, {"value": 1e400}, {"currency": 7}, {"items": 7}, {"items": [7]},
        {"items": [{"item_id": 7}]}, {"items": [{"item_id": "a", "quantity": "two"}]}, {"transaction_id": 7},
        {"transaction_id": []},
    ),
    "consent": (None, 7, [], "yes", {"ad_storage": 7}, {"gpc": "no"}, {"us_privacy": 7}, {"categories": 7}, {"tcf": []}),
    "tags": (None, 7, [], {"meta": 7}, {"gtag": []}),
    "labels": (None, 7, [7], {"bot": 1}),
    "custom": (None, 7, [], {"a": {"b": 1}}, {"a": []}),
}  # fmt: skip

Record = tuple[bytes | None, bytes | None]


def event(identity: str) -> dict[str, Any]:
    """A good one, as it stands in capistream.events."""
    granted = dict.fromkeys(("ad_storage", "analytics_storage", "ad_user_data", "ad_personalization"), "granted")
    now = int(time.time() * 1000)
    return {
        "v": 1, "event_id": identity, "event_name": "add_to_cart", "site": "shop", "source": "server", "time": now,
        "received": now, "origin": {"request": identity}, "user": {"email": {"plain": "0" * 64, "gmail": "0" * 64}},
        "context": {"url": "https://stranger.example/"}, "custom": {"conversion": identity}, "ids": {"ga_client_id": "1.2"},
        "commerce": {"value": 1.5, "currency": "EUR", "items": [{"item_id": "stranger"}]}, "consent": granted,
    }  # fmt: skip


def nearly() -> Iterator[tuple[str, dict[str, Any]]]:
    """(what is wrong, event)."""
    for part, values in WRONG.items():
        for value in values:
            identity = f"stranger-{part}-{values.index(value)}"
            yield f"{part}={str(value)[:40]!r}", event(identity) | {part: value}


def records(rnd: random.Random, real: list[Conversion], count: int) -> tuple[list[Record], list[Record]]:
    """(for capistream.events, for a topic of a destination), a few of each kind."""
    all_nearly = [one for _, one in nearly()]
    to_events: list[Record] = []
    to_destination: list[Record] = []
    for _ in range(count):
        key = rnd.choice(real).key if real and rnd.random() < 0.7 else rnd.choice((None, b"", b"\xff", b"a\x1fb", b"k"))
        # without a key, a number is what the log's clock says: that cannot be told from ours, and is no garbage
        for there in (to_events, to_destination):
            value = rnd.choice(GARBAGE)
            there.append((b"" if key is None and value is None else key, value))  # aiokafka sends no empty record
        one = rnd.choice(all_nearly)
        to_events.append((key_of(one), json.dumps(one).encode()))
        one = rnd.choice(all_nearly)
        to_destination.append((key_of(one), json.dumps({"v": 1, "event": one, "basis": 7}).encode()))
    return to_events, to_destination


def key_of(one: dict[str, Any]) -> bytes:
    """The key that such an event would have, as far as one can tell."""
    try:
        return keys.key(one)  # type: ignore[arg-type]
    except (TypeError, AttributeError, KeyError):
        return f"{one['event_id']}\x1fshop\x1fadd_to_cart".encode()
