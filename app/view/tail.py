"""The newest copies of `<prefix>.events`, in brief. Any worker reads them for all.

Where there are more than are read, whole partitions are left out: all copies of a conversion are in one, so what is read is a fair
sample, and no pair is torn.
"""

import asyncio
import time
from dataclasses import dataclass
from typing import Any

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from app import bus, records, shape, topics
from app.errors import Unavailable
from app.settings import Settings
from app.view.pairs import Copy

MOST = 20_000  # records: a second of a worker, in small pieces
LEAST = 1800.0  # seconds back to which a partition that is read is read, if it fits
PATIENCE = 15.0  # seconds for Kafka to give them


@dataclass(frozen=True)
class Tail:
    copies: list[Copy]
    since: int  # record time from which all copies of these partitions are in it; 0: all there are
    until: int
    read: int  # partitions
    partitions: int


def plan(begins: list[int], recent: list[int], ends: list[int], most: int = MOST) -> dict[int, int]:
    """Partition -> offset from which to read it. `recent`: from where its last half an hour begins."""
    lately = [end - offset for offset, end in zip(recent, ends, strict=True)]
    count = len(ends) if sum(lately) <= most else max(1, most // max(lately))
    return {p: max(begins[p], ends[p] - most // count) for p in range(count)}


async def read(settings: Settings) -> Tail:
    """Raises Unavailable."""
    topic, count, now = topics.names(settings).events, settings.kafka.partitions, int(time.time() * 1000)
    tps = [TopicPartition(topic, p) for p in range(count)]
    # not `records.reader`: what is read is judged by every record that there is
    consumer = bus.of(settings).consumer(group_id=None, enable_auto_commit=False, fetch_max_wait_ms=200)
    try:
        async with asyncio.timeout(PATIENCE):
            await consumer.start()
            await records.must_exist(consumer._client, topic)
            begins, ends = await consumer.beginning_offsets(tps), await consumer.end_offsets(tps)
            recent = await records.written_since(consumer, now - int(LEAST * 1000), ends)
            wanted = plan([begins[tp] for tp in tps], [recent[tp] for tp in tps], [ends[tp] for tp in tps])
            first = {tps[p]: offset for p, offset in wanted.items()}
            return await _read(consumer, first, {tp: ends[tp] for tp in first}, begins, now, count)
    except (TimeoutError, KafkaError) as exc:
        raise Unavailable("Kafka does not give the newest copies in time") from exc
    finally:
        await consumer.stop()


async def _read(
    consumer: Any,
    first: dict[TopicPartition, int],
    ends: dict[TopicPartition, int],
    begins: dict[TopicPartition, int],
    now: int,
    count: int,
) -> Tail:
    copies: list[Copy] = []
    since = 0
    consumer.assign(list(first))
    for tp, offset in first.items():
        consumer.seek(tp, offset)
    left = set(first)
    while left:
        found = await consumer.getmany(timeout_ms=300, max_records=500)
        for tp, some in found.items():
            if some[0].offset == first[tp] > begins[tp]:
                since = max(since, some[0].timestamp)
            copies += filter(None, (_brief(record) for record in some if record.offset < ends[tp]))
        left = {tp for tp in left if await consumer.position(tp) < ends[tp]}
    return Tail(copies, since, now, len(first), count)


def _brief(record: Any) -> Copy | None:
    """None for the clock, and for what is no copy."""
    copy = None if record.key is None else shape.copy(record.key, record.value)
    if copy is None:
        return None
    return Copy(record.key, copy["source"], copy["received"], copy["event_id"], copy.get("pairs", True) is not False)
