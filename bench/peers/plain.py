"""The ceiling in Python: aiokafka alone, whole batches, a dict in memory. Nothing survives the process; changelog and outputs are
written and awaited, and offsets committed each second after that, as whoever wants to lose nothing would do it.

Environment: BROKER, SOURCE, OUTPUT, FOLDER
"""

import asyncio
import os
import time
from typing import Any

import orjson
import uvloop
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

COMMIT_INTERVAL = 1.0  # seconds, as capistream


async def main() -> None:
    broker, name = os.environ["BROKER"], os.environ["SOURCE"]
    changelog = f"{name}-plain-changelog"
    admin = AIOKafkaAdminClient(bootstrap_servers=broker)
    await admin.start()
    await admin.create_topics([NewTopic(changelog, 4, 1)])
    await admin.close()
    consumer = AIOKafkaConsumer(
        name, bootstrap_servers=broker, group_id=f"plain-{name}", auto_offset_reset="earliest",
        enable_auto_commit=False, max_partition_fetch_bytes=4 << 20,
    )  # fmt: skip
    producer = AIOKafkaProducer(bootstrap_servers=broker, acks="all", enable_idempotence=True, max_batch_size=512 << 10)
    await consumer.start()
    await producer.start()
    seen: dict[int, set[str]] = {p: set() for p in range(4)}
    done: dict[TopicPartition, int] = {}
    committed = time.monotonic()
    while True:
        found = await consumer.getmany(timeout_ms=500, max_records=8_000)
        waiting: list[Any] = []
        for tp, records in found.items():
            rows = []
            for record in records:
                event_id = orjson.loads(record.value)["event_id"]
                if event_id not in seen[tp.partition]:
                    seen[tp.partition].add(event_id)
                    rows.append((event_id.encode(), record.value))
            waiting += await ship(producer, os.environ["OUTPUT"], tp.partition, rows)
            waiting += await ship(producer, changelog, tp.partition, [(key, b"1") for key, _ in rows])
        await asyncio.gather(*waiting)
        done |= {tp: records[-1].offset + 1 for tp, records in found.items()}
        if done and time.monotonic() - committed >= COMMIT_INTERVAL:
            await consumer.commit(done)
            done, committed = {}, time.monotonic()


async def ship(producer: AIOKafkaProducer, topic: str, p: int, rows: list[tuple[bytes, bytes]]) -> list[Any]:
    waiting, builder = [], producer.create_batch()
    for key, value in rows:
        if builder.append(key=key, value=value, timestamp=None) is None:
            builder.close()
            waiting.append(await producer.send_batch(builder, topic, partition=p))
            builder = producer.create_batch()
            builder.append(key=key, value=value, timestamp=None)
    if builder.record_count():
        builder.close()
        waiting.append(await producer.send_batch(builder, topic, partition=p))
    return waiting


if __name__ == "__main__":
    uvloop.run(main())
