"""Outcomes that are too old are forgotten: here, and in the changelog."""

import json
import os
import signal
import time

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from app import topics
from sinks import SINKS
from tests.system.conftest import eventually
from tests.system.test_delivery import subscribed

DAY = 86_400_000  # milliseconds


def aged(milliseconds):
    return json.dumps({"v": 1, "o": "delivered", "t": int(time.time() * 1000) - milliseconds, "n": 1, "r": "", "d": ""})


async def rows(broker, topic, partitions):
    """What a recovery would make of it."""
    found: dict[bytes, bytes | None] = {}
    tps = [TopicPartition(topic, p) for p in range(partitions)]
    async with AIOKafkaConsumer(bootstrap_servers=broker, auto_offset_reset="earliest") as consumer:
        consumer.assign(tps)
        ends = await consumer.end_offsets(tps)
        while any([await consumer.position(tp) < ends[tp] for tp in tps]):
            for records in (await consumer.getmany(timeout_ms=500)).values():
                found.update((record.key, record.value) for record in records)
    return {key for key, value in found.items() if value is not None}


@pytest.mark.fault
async def test_outcomes_older_than_any_event_that_could_ask_for_them_are_forgotten(system):
    config, broker = system.demo.config, system.addresses["broker"]
    topic, n = topics.names(config).changelog(topics.outcomes_table("meta")), config.kafka.partitions
    kept = topics.outcomes_kept(SINKS["meta"](config.destinations["meta"]).limits)
    worker = system.child("worker-1")
    os.kill(worker.process.pid, signal.SIGKILL)  # else it would overwrite rows that are not its own
    worker.process.wait()
    async with AIOKafkaProducer(bootstrap_servers=broker, acks="all") as producer:
        for p in range(n):
            for name, age in (("old", kept + DAY), ("older", 2 * kept), ("young", kept - DAY)):
                await producer.send_and_wait(topic, aged(age).encode(), key=f"{name}-{p}".encode(), partition=p)
    old = {f"{name}-{p}".encode() for name in ("old", "older") for p in range(n)}
    young = {f"young-{p}".encode() for p in range(n)}

    system.demo._spawn(worker)
    posted = 0

    async def forgotten():
        nonlocal posted
        for _ in range(10):  # outcomes are swept by batches
            assert (await system.post(subscribed(f"expiry-{posted}"), key="secret_key"))[0] == 200
            posted += 1
        return not old & await rows(broker, topic, n)

    await eventually(forgotten, "old outcomes forgotten")

    left = await rows(broker, topic, n)
    assert young <= left
    assert (await system.settled("expiry-0"))["conversions"][0]["destinations"]["meta"]["state"] == "delivered"
