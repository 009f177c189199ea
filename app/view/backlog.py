"""What a destination's topic has that is not finished yet, as Kafka has it: in requests, in the worker's queue, or not read at all.

A worker reads no further than a few batches ahead, so while a platform is away most of what is for it stands only there.
"""

import asyncio
from typing import Any

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from app import records, topics
from app.errors import Unavailable
from app.events import Json
from app.settings import Settings
from app.view import standing

PATIENCE = 10.0  # seconds for Kafka to give them


async def read(settings: Settings, name: str, most: int) -> Json:
    """How many records there are, and those written first: at most so many. Raises Unavailable."""
    topic, found = topics.names(settings).to(name), list[Any]()
    try:
        async with asyncio.timeout(PATIENCE), records.reader(settings) as consumer:
            await records.must_exist(consumer._client, topic)
            tps = [TopicPartition(topic, p) for p in range(settings.kafka.partitions)]
            done = await records.committed(settings)
            begins, ends = await consumer.beginning_offsets(tps), await consumer.end_offsets(tps)
            left = {tp: range(max(done.get(tp, 0), begins[tp]), ends[tp]) for tp in tps}
            behind = {tp: offsets for tp, offsets in left.items() if offsets}
            each = -(-most // max(1, len(behind)))
            async for record in records.single(consumer, {tp: offsets[:each] for tp, offsets in behind.items()}):
                if record.value is not None:
                    found.append((record.timestamp, record.key))
    except (TimeoutError, KafkaError) as exc:
        raise Unavailable("Kafka does not give the records of its topic in time") from exc
    total = sum(len(offsets) for offsets in left.values())
    return {"total": total, "events": [one for at, key in sorted(found)[:most] if (one := standing.brief(key, at))]}
