"""What was read before is read again, in every way that happens to people: nothing is sent twice."""

import asyncio
import contextlib
import json
import os
import shutil
import time
from collections import Counter
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from aiokafka.protocol.admin import DeleteGroupsRequest

from app import topics
from tests.faults import logs
from tests.system.conftest import System, eventually
from tests.system.test_main_job import BROWSER, GRANTED, pixel, server


@contextlib.asynccontextmanager
async def worker_away(system: System) -> Any:
    """Stopped by SIGTERM, and started again afterwards."""
    child = system.child("worker-1")
    assert child.process is not None
    child.process.terminate()
    await asyncio.to_thread(child.process.wait, 30)
    yield
    system.demo._spawn(child)


async def sell(system: System, order: str) -> None:
    await system.post(pixel(order), **BROWSER)
    await system.produce(json.dumps(server(order) | {"source": "server"}).encode())


async def set_back(system: System) -> None:
    config = system.demo.config
    names, n = topics.names(config), config.kafka.partitions
    ours = dict.fromkeys([names.events, *(names.to(name) for name in config.destinations)], n)
    assert await logs.set_back(config, await topics.partition_counts(config) | ours, None) > 0


async def without_group(system: System) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=system.demo.config.brokers)
    await admin.start()
    try:
        answer = await admin._send_request(
            DeleteGroupsRequest([system.demo.config.kafka.prefix])
        )  # no public method yet
        assert [code for _, code in answer.results] == [0]
    finally:
        await admin.close()


async def without_memory(system: System) -> None:
    """Nobody knows any more what dedup has seen."""
    config = system.demo.config
    gone = [topics.names(config).changelog(table) for table in ("seen", "held")]
    admin = AIOKafkaAdminClient(bootstrap_servers=config.brokers)
    await admin.start()
    try:
        await admin.delete_topics(gone)
        await eventually(lambda: _absent(admin, gone), "the deletion of the changelogs")
    finally:
        await admin.close()
    for folder in (system.demo.folder / "state").glob("worker-*"):
        shutil.rmtree(folder)


async def _absent(admin: Any, names: list[str]) -> bool:
    with contextlib.suppress(KafkaError):
        return not set(names) & set(await admin.list_topics())
    return False


@pytest.mark.fault
async def test_nothing_is_sent_twice_whatever_is_read_again(system: System) -> None:
    orders = [f"A-{n}" for n in range(8)]
    for order in orders:
        await sell(system, order)
    for order in orders:
        await system.settled(order)

    disasters = [[set_back], [without_group], [without_memory], [without_memory, set_back]]
    for n, disaster in enumerate(disasters):
        async with worker_away(system):
            for happens in disaster:
                await happens(system)
        orders.append(f"B-{n}")
        await sell(system, orders[-1])
        await system.settled(orders[-1])
        # the last of what is read again has been read, too, when what came after it in every partition is through
        await eventually(lambda: _lag_free(system), "the end of reading again")

        sent = Counter(str(one["event_id"]) for one in await system.accepted("meta"))
        assert sent == {f"ev-{order}": 1 for order in orders}, disaster
        assert len(await system.accepted("ga4")) == len(orders), disaster


async def _lag_free(system: System) -> bool:
    """The group has committed the end of every topic; of capistream.events there is none, with the clock in it."""
    config = system.demo.config
    names, admin = topics.names(config), AIOKafkaAdminClient(bootstrap_servers=config.brokers)
    await admin.start()
    try:
        committed = await admin.list_consumer_group_offsets(config.kafka.prefix)
    finally:
        await admin.close()
    read = {config.sources["orders"].topic, *(names.to(name) for name in config.destinations)}
    read_by_us = [tp for tp in committed if tp.topic in read]
    if not read_by_us:
        return False
    ends = await _ends(config.brokers, read_by_us)
    return all(committed[tp].offset >= end for tp, end in ends.items())


async def _ends(brokers: str, tps: list[Any]) -> dict[Any, int]:
    consumer = AIOKafkaConsumer(bootstrap_servers=brokers, group_id=None)
    await consumer.start()
    try:
        consumer.assign(tps)
        return dict(await consumer.end_offsets(tps))
    finally:
        await consumer.stop()


@pytest.mark.parametrize(("days", "state"), [(1, "delivered"), (3, "parked")])
async def test_a_first_copy_older_than_its_horizon_is_parked_with_the_reason(
    shared_system: System, days: int, state: str
) -> None:
    event_id, then = f"old-{days}-{os.getpid()}", int((time.time() - days * 86_400) * 1000)
    event = {"event_name": "add_to_cart", "event_id": event_id, "time": then, "consent": GRANTED, "source": "pixel"}
    event |= {"context": {"ip": "203.0.113.9", "user_agent": "Mozilla/5.0", "url": "https://shop.example/"}}
    event |= {"user": {"email": "anna@example.com"}, "ids": {"ga_client_id": "1.2", "ga_session_id": "3"}}
    producer = AIOKafkaProducer(bootstrap_servers=shared_system.addresses["broker"], acks="all")
    await producer.start()
    try:
        value = json.dumps(event).encode()
        await producer.send_and_wait(shared_system.addresses["topic"], value, timestamp_ms=then)
    finally:
        await producer.stop()

    (one,) = (await shared_system.settled(event_id))["conversions"]

    assert one["destinations"]["meta"]["state"] == state
    if state == "parked":
        assert one["destinations"]["meta"]["reason"] == "beyond_horizon"
        assert await shared_system.accepted("meta", event_id=event_id) == []
