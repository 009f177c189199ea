"""The books: what came in, and what became of each conversion at each destination, read from our own topics."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import orjson
from aiokafka import AIOKafkaConsumer, TopicPartition

from app import clock, keys, shape, topics
from app.events import Json
from app.settings import Settings

#: Outcomes after which it may still be sent: confirmed late, replayed, backfilled.
NOT_SENT = ("parked", "rejected", "filtered", "held_back")


@dataclass
class Books:
    """Counts conversions by key, so what is in a topic twice (after a crash) counts once."""

    destinations: tuple[str, ...]
    received: Counter[str] = field(default_factory=Counter)  # copies by source
    copies: Counter[bytes] = field(default_factory=Counter)  # by conversion key
    merged: dict[bytes, int] = field(default_factory=dict)  # key -> copies received at closing
    outcomes: dict[str, dict[bytes, str]] = field(default_factory=lambda: defaultdict(dict))
    letters: dict[bytes, str] = field(default_factory=dict)  # letter id -> reason
    strangers: int = 0  # records in our topics that are nothing of ours; each becomes a dead letter

    def enter(self, kind: str, key: bytes | None, value: bytes | None) -> None:
        try:
            if key is None:
                clock.decode(value or b"")
            else:
                self._enter(kind, key, orjson.loads(value or b""))
        except (TypeError, ValueError, KeyError):
            self.strangers += 1

    def _enter(self, kind: str, key: bytes, row: Json) -> None:
        if kind == "events":
            if not shape.is_copy(key, row):
                raise ValueError("not a copy")
            self.received[row["source"]] += 1
            self.copies[key] += 1
        elif kind == "conversions":
            self.merged.setdefault(key, row["received"])
            self.copies[key] += 0  # one set apart from others under its id has no copies under its own key
        elif kind == "receipts":
            there = self.outcomes[row["destination"]]
            if there.get(key, "parked") in NOT_SENT:
                there[key] = row["outcome"]
        else:
            self.letters[key] = row["reason"]

    def late(self) -> int:
        """Copies that came after their conversion had closed."""
        return sum(self.copies[key] - at_closing for key, at_closing in self.merged.items() if not keys.apart(key))

    def pending(self, destination: str) -> int:
        """Conversions that have no outcome there yet."""
        return len(self.copies) - len(self.outcomes[destination])

    def balanced(self) -> bool:
        """Every unique conversion is merged, and has exactly one outcome at every destination."""
        return set(self.copies) == set(self.merged) and all(
            set(self.outcomes[name]) == set(self.copies) for name in self.destinations
        )

    def report(self) -> Json:
        by_destination = {name: Counter(self.outcomes[name].values()) for name in self.destinations}
        return {
            "received": dict(sorted(self.received.items())),
            "unique": len(self.copies),
            "merged": len(self.merged),
            "late_duplicates": self.late(),
            "held_back_by_consent": {name: one["held_back"] for name, one in by_destination.items()},
            "destinations": {
                name: {
                    **{
                        state: one[state]
                        for state in (
                            "delivered",
                            "accepted",
                            "shadowed",
                            "rejected",
                            "held_back",
                            "skipped",
                            "filtered",
                            "parked",
                            "erased",
                        )
                    },
                    "pending": self.pending(name),
                }
                for name, one in by_destination.items()
            },
            "strangers": self.strangers,
            "dead_letters": dict(sorted(Counter(self.letters.values()).items())),
            "balanced": self.balanced(),
        }


class Reader:
    """Follows the topics from their beginning, without a group."""

    def __init__(self, settings: Settings) -> None:
        self.books = Books(tuple(settings.destinations))
        self._settings = settings
        name = topics.names(settings)
        self._kinds = {
            name.events: "events",
            name.conversions: "conversions",
            name.receipts: "receipts",
            name.dead: "dead",
        }

    async def follow(self, changed: Any = lambda: None) -> None:
        """Until cancelled. `changed` is called after each batch of records."""
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self._settings.brokers, group_id=None, auto_offset_reset="earliest", fetch_max_wait_ms=200
        )
        await consumer.start()
        try:
            partitions = range(self._settings.kafka.partitions)
            consumer.assign([TopicPartition(topic, p) for topic in self._kinds for p in partitions])
            while True:
                for tp, records in (await consumer.getmany(timeout_ms=500)).items():
                    self._enter(self._kinds[tp.topic], records)
                changed()
        finally:
            await consumer.stop()

    def _enter(self, kind: str, records: Iterable[Any]) -> None:
        for record in records:
            self.books.enter(kind, record.key, record.value)
