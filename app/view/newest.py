"""The newest merged events, and the newest copies of which they are made, as Kafka has them: a sample for pages to count in."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from aiokafka import AIOKafkaConsumer

from app import records, shape, topics
from app.erasure import Forgotten
from app.events import Event, Json
from app.settings import Settings
from app.view.fresh import Fresh
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
        self._fresh = Fresh(lambda: _read(settings), FRESH, what="the newest events", patience=PATIENCE)

    async def newest(self, forgotten: Forgotten) -> Newest:
        """Without events of people who are `forgotten`. Raises Unavailable."""
        found = await self._fresh.get()
        kept = [event for event in found.conversions if not forgotten.of(event)]
        return Newest(kept, found.copies, found.since, found.until)


async def _read(settings: Settings) -> Newest:
    names = topics.names(settings)
    async with records.reader(settings) as consumer:
        merged = [one async for one in last(consumer, settings, names.conversions, CONVERSIONS)]
        reported = [one async for one in last(consumer, settings, names.events, COPIES)]
    latest = {key: (at, event) for at, key, value in merged if (event := _merged(value))}
    conversions = sorted(latest.values(), key=lambda one: one[0])
    copies: list[Any] = [value for _, key, value in reported if key is not None and shape.is_copy(key, value)]
    since, until = (conversions[0][0], conversions[-1][0]) if conversions else (0, 0)
    return Newest([event for _, event in conversions], copies, since, until)


async def last(
    consumer: AIOKafkaConsumer, settings: Settings, topic: str, most: int
) -> AsyncIterator[tuple[int, bytes | None, Json]]:
    """(when it was written, key, JSON object) of the newest records of each partition, as many of each. Raises Unavailable."""
    count = settings.kafka.partitions
    async for record in records.everything(consumer, topic, range(count), newest=max(1, most // count)):
        try:
            value = orjson.loads(record.value or b"")
        except orjson.JSONDecodeError:
            continue
        if isinstance(value, dict):
            yield record.timestamp, record.key, value


def _merged(said: Json) -> Event | None:
    """The event of a record of capistream.conversions; None where it says nothing of a person any more, or is none of ours."""
    event: Event = said.get("event", {})
    return event if said.get("closed") != "erased" and shape.is_event(event) else None
