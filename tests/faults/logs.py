"""What our own topics say at the end: copies, receipts, and when outcomes were recorded. And of the group: who has which
partitions, when they go on, and its offsets, set back."""

import asyncio
import time
import zlib
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import orjson
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.coordinator.protocol import ConsumerProtocol
from aiokafka.errors import KafkaError

from app import topics
from app.settings import Settings
from tests.faults.oracle import Logged


async def records(settings: Settings, topic: str) -> list[Any]:
    """All records of a topic of ours, those of one partition in order."""
    consumer = AIOKafkaConsumer(bootstrap_servers=settings.brokers, group_id=None)
    await consumer.start()
    try:
        tps = [TopicPartition(topic, p) for p in range(settings.kafka.partitions)]
        consumer.assign(tps)
        await consumer.seek_to_beginning(*tps)
        ends = await consumer.end_offsets(tps)
        found: list[Any] = []
        while any([await consumer.position(tp) < end for tp, end in ends.items()]):
            for run in (await consumer.getmany(timeout_ms=500)).values():
                found += run
        return found
    finally:
        await consumer.stop()


async def copies(settings: Settings) -> dict[str, list[Logged]]:
    """By conversion; each where it stands first: a topic that was read twice gave it twice."""
    found: dict[str, dict[str, Logged]] = defaultdict(dict)
    for record in await records(settings, topics.names(settings).events):
        row = _object(record.value)
        custom = row.get("custom")
        conversion = custom.get("conversion", "") if isinstance(custom, dict) and record.key else ""
        if conversion and not conversion.startswith("stranger"):
            where = row["origin"]
            origin = where.get("request") or f"{where['topic']}/{where['partition']}/{where['offset']}"
            one = Logged(row["source"], origin, row["received"] / 1000, record.timestamp / 1000)
            found[conversion].setdefault(origin, one)
    return {conversion: list(by_origin.values()) for conversion, by_origin in found.items()}


async def receipts(settings: Settings) -> dict[tuple[str, str], set[str]]:
    """(conversion, destination) -> outcomes."""
    found: dict[tuple[str, str], set[str]] = defaultdict(set)
    for record in await records(settings, topics.names(settings).receipts):
        row = _object(record.value)
        conversion = row.get("transaction_id", "").removeprefix("T-") or row.get("event_id", "")
        found[conversion, row.get("destination", "")].add(row.get("outcome", ""))
    return found


async def stamp_outcomes(settings: Settings) -> None:
    """From now on Kafka's own clock says when an outcome was recorded; else it is the clock of whoever wrote it."""
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.brokers)
    await admin.start()
    try:
        wanted = [one for one in topics.plan(settings) if one.name in _changelogs(settings).values()]
        stamped = {"message.timestamp.type": "LogAppendTime"}
        await admin.alter_configs(
            [ConfigResource(ConfigResourceType.TOPIC, one.name, one.config | stamped) for one in wanted]
        )
    finally:
        await admin.close()


async def recorded(settings: Settings) -> dict[tuple[str, str], list[float]]:
    """(conversion, destination) -> when Kafka had a row that tells its outcome."""
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    for destination, changelog in _changelogs(settings).items():
        for record in await records(settings, changelog):
            if record.key and record.value:
                meeting_id = record.key.decode(errors="replace").split("\x1f")[0]
                found[meeting_id.removeprefix("T-"), destination].append(record.timestamp / 1000)
    return found


def _changelogs(settings: Settings) -> dict[str, str]:
    """Destination -> where its outcomes are recorded."""
    names = topics.names(settings)
    return {name: names.changelog(topics.outcomes_table(name)) for name in settings.destinations}


def _object(value: bytes | None) -> dict[str, Any]:
    try:
        row = orjson.loads(value or b"")
    except orjson.JSONDecodeError:
        return {}
    return row if isinstance(row, dict) else {}


async def holders(settings: Settings, patience: float = 20.0) -> dict[str, set[TopicPartition]]:
    """Which partitions, without those of changelogs, each worker has, by its address; once no rebalance is under way."""
    until = time.monotonic() + patience
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.brokers)
    await admin.start()
    try:
        while True:
            (answer,) = await admin.describe_consumer_groups([settings.kafka.prefix])
            (group,) = answer.to_object()["groups"]
            if group["state"] == "Stable" or time.monotonic() > until:
                return dict(map(_holding, group["members"]))
            await asyncio.sleep(0.1)
    finally:
        await admin.close()


def _holding(member: dict[str, Any]) -> tuple[str, set[TopicPartition]]:
    assignment = ConsumerProtocol.ASSIGNMENT.decode(member["member_assignment"])
    said = orjson.loads(zlib.decompress(assignment.user_data)) if assignment.user_data else {}
    held = {tp for tp in assignment.partitions() if not tp.topic.endswith("-changelog")}
    return str(said.get("url", "")).rstrip("/"), {TopicPartition(*tp) for tp in held}


async def went_on(settings: Settings, tps: set[TopicPartition], patience: float = 60.0) -> dict[TopicPartition, float]:
    """When the group's offset of each was seen to move, by our monotonic clock; of those in which something is to be done."""
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.brokers)
    await admin.start()
    try:
        before, until = await _committed(admin, settings, tps), time.monotonic() + patience
        moved: dict[TopicPartition, float] = {}
        while len(moved) < len(tps) and time.monotonic() < until:
            await asyncio.sleep(0.1)
            now = await _committed(admin, settings, tps)
            moved |= {tp: time.monotonic() for tp in tps - moved.keys() if now[tp] > before[tp]}
        return moved | dict.fromkeys(tps - moved.keys(), time.monotonic())
    finally:
        await admin.close()


async def _committed(admin: Any, settings: Settings, tps: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
    found = await admin.list_consumer_group_offsets(settings.kafka.prefix)
    return {tp: found[tp].offset if tp in found else -1 for tp in tps}


async def set_back(settings: Settings, counts: dict[str, int], seconds: float | None, patience: float = 40.0) -> int:
    """Set the workers' group back by so many seconds, or to the beginning, in all partitions of these topics; never forward.

    Returns how many records will be read again. Raises TimeoutError while the group has members.
    """
    consumer = AIOKafkaConsumer(
        bootstrap_servers=settings.brokers, group_id=settings.kafka.prefix, enable_auto_commit=False
    )
    await consumer.start()
    try:
        tps = [TopicPartition(topic, p) for topic, count in counts.items() for p in range(count)]
        consumer.assign(tps)
        committed = {tp: await consumer.committed(tp) or 0 for tp in tps}
        wanted = {tp: min(offset, committed[tp]) for tp, offset in (await _offsets(consumer, tps, seconds)).items()}
        until = time.monotonic() + patience
        while True:
            try:
                await consumer.commit(wanted)
                break
            except KafkaError:  # killed members are expelled when their session is over
                if time.monotonic() > until:
                    raise TimeoutError("the group is not empty") from None
                await asyncio.sleep(0.5)
        if {tp: await consumer.committed(tp) for tp in tps} != wanted:
            raise RuntimeError("the offsets are not where they were set")
        return sum(committed[tp] - offset for tp, offset in wanted.items())
    finally:
        await consumer.stop()


async def _offsets(consumer: Any, tps: Iterable[TopicPartition], seconds: float | None) -> dict[TopicPartition, int]:
    beginning: dict[TopicPartition, int] = await consumer.beginning_offsets(list(tps))
    if seconds is None:
        return beginning
    moment = int((time.time() - seconds) * 1000)
    found = await consumer.offsets_for_times(dict.fromkeys(tps, moment))
    return {tp: one.offset if one else 2**62 for tp, one in found.items()}
