"""The newest merged events, and the newest copies of which they are made, as Kafka has them: a sample for pages to count in."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from aiokafka import AIOKafkaConsumer, TopicPartition

from app import records, shape, topics
from app.erasure import Forgotten
from app.errors import Unavailable
from app.events import Event, Json
from app.settings import Settings
from app.view.lookup import iso

CONVERSIONS = 2000  # at most, of all partitions together
COPIES = 4000  # records, which the log's clock has a part of
FRESH = 30.0  # seconds for which they are not read again
PATIENCE = 20.0  # seconds to read them


@dataclass(frozen=True)
class Newest:
    conversions: Sequence[Event]  # the newest last
    copies: Sequence[Event]
    since: int = 0  # when the first of the conversions was merged, in Unix milliseconds
    until: int = 0  # and the last

    def window(self) -> Json:
        """What they are, for a page to say."""
        times = {"since": iso(self.since), "until": iso(self.until)} if self.conversions else {}
        return {"conversions": len(self.conversions), "copies": len(self.copies), **times}


class Sample:
    """Of one configuration; read when somebody asks."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._read = Newest((), ())
        self._read_at = float("-inf")
        self._reading = asyncio.Lock()

    async def newest(self, forgotten: Forgotten) -> Newest:
        """Without events of people who are `forgotten`. Raises Unavailable."""
        async with self._reading:
            if time.monotonic() - self._read_at > FRESH:
                try:
                    async with asyncio.timeout(PATIENCE):
                        self._read = await _read(self._settings)
                except TimeoutError:
                    raise Unavailable("Kafka did not give the newest events in time") from None
                self._read_at = time.monotonic()
            found = self._read
        kept = [event for event in found.conversions if not forgotten.of(event)]
        return Newest(kept, found.copies, found.since, found.until)


async def _read(settings: Settings) -> Newest:
    names = topics.names(settings)
    async with records.reader(settings) as consumer:
        merged = await _last(consumer, settings, names.conversions, CONVERSIONS)
        reported = await _last(consumer, settings, names.events, COPIES)
    latest = {key: (at, event) for at, key, value in merged if (event := _merged(value))}
    conversions = sorted(latest.values(), key=lambda one: one[0])
    copies: list[Any] = [value for _, key, value in reported if key is not None and shape.is_copy(key, value)]
    first, last = (conversions[0][0], conversions[-1][0]) if conversions else (0, 0)
    return Newest([event for _, event in conversions], copies, first, last)


async def _last(
    consumer: AIOKafkaConsumer, settings: Settings, topic: str, most: int
) -> list[tuple[int, bytes | None, Json]]:
    """(when it was written, key, JSON) of the newest records of each partition, as many of each. Raises Unavailable."""
    await records.must_exist(consumer._client, topic)
    tps = [TopicPartition(topic, p) for p in range(settings.kafka.partitions)]
    ends, each = await consumer.end_offsets(tps), max(1, most // len(tps))
    wanted = {tp: range(max(0, ends[tp] - each), ends[tp]) for tp in tps}
    found = []
    async for record in records.single(consumer, wanted):
        try:
            value = orjson.loads(record.value or b"")
        except orjson.JSONDecodeError:
            continue
        if isinstance(value, dict):
            found.append((record.timestamp, record.key, value))
    return found


def _merged(said: Json) -> Event | None:
    """The event of a record of capistream.conversions; None where it says nothing of a person any more, or is none of ours."""
    event: Event = said.get("event", {})
    return event if said.get("closed") != "erased" and shape.is_event(event) else None
