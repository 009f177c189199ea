"""What a journey is told from, beside the tables: the copies, the merged event and the requests, read where they stand in Kafka.

Any worker can do that for any event, as the rows of the tables say where everything stands. What is no longer retained is missing,
and so is what is of somebody who was erased.
"""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

import orjson
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from app import keys, records, shape, topics
from app.erasure import Forgotten
from app.errors import Unavailable
from app.events import Event, Json
from app.settings import Settings

PATIENCE = 5.0  # seconds for Kafka to give all of it
MOST = 5  # conversions of one id whose payloads are read
BEFORE = 10_000  # milliseconds by which Kafka's clock may be behind the time that a receipt tells
RECEIPTS = 2000  # that are read from there on, of all conversions of the partition: a few seconds of them


class Copy(NamedTuple):
    event: Event
    arrived: int  # when it was appended to the log, Unix milliseconds


@dataclass
class Found:
    """Of one conversion."""

    copies: dict[int, Copy] = field(default_factory=dict)  # by its place in the list of copies
    conversions: list[Json] = field(default_factory=list)  # as it stands in `<prefix>.conversions`, the oldest first
    traces: dict[int, Json] = field(default_factory=dict)  # by offset
    bases: dict[str, str] = field(
        default_factory=dict
    )  # destination -> consent, of receipts, where no conversion is retained
    why_not: str = ""  # where nothing could be read


def key_of(conversion: Json) -> bytes:
    parts = (conversion["id"], conversion["site"], conversion["event_name"], conversion["apart"])
    return keys.SEPARATOR.join(filter(None, parts)).encode()


async def read(settings: Settings, conversions: Sequence[Json], forgotten: Forgotten) -> list[Found]:
    """Of each of these; with a reason and nothing else, where Kafka does not answer."""
    names = topics.names(settings)
    wanted: dict[TopicPartition, set[int]] = defaultdict(set)
    places = [_offsets(one, conversions) for one in conversions]
    for one, of_copies in zip(conversions, places, strict=True):
        p = one["partition"]
        wanted[TopicPartition(names.events, p)] |= set(of_copies.values())
        wanted[TopicPartition(names.conversions, p)] |= set(one["records"])
        wanted[TopicPartition(names.trace, p)] |= set(traces_of(one))
    try:
        found = await _records(settings, {tp: offsets for tp, offsets in wanted.items() if offsets})
    except Unavailable:
        return [Found(why_not="Kafka does not answer, so what is in topics is not shown") for _ in conversions]
    told = [
        _sorted(one, of_copies, _Log(found, names, one["partition"]), forgotten)
        for one, of_copies in zip(conversions, places, strict=True)
    ]
    for one, its in zip(conversions, told, strict=True):
        if one["state"] == "closed" and not its.conversions:
            with contextlib.suppress(Unavailable):
                its.bases = await _bases(settings, one)
    return told


async def _bases(settings: Settings, conversion: Json) -> dict[str, str]:
    """Destination -> the consent that it was judged by. Receipts tell it longer than conversions are retained. Raises Unavailable.

    They are looked for where they were written, at the time of the outcome: a topic has no index by key.
    """
    tp, key = TopicPartition(topics.names(settings).receipts, conversion["partition"]), key_of(conversion)
    there, decided = conversion["destinations"], conversion["decision"]["at"]
    times = {_milliseconds(one.get("at") or decided) for one in there.values() if one["state"] != "queued"}
    found: dict[str, str] = {}
    try:
        async with asyncio.timeout(PATIENCE), records.reader(settings) as consumer:
            await records.must_exist(consumer._client, tp.topic)
            for at in sorted(times):
                async for record in records.some_from(consumer, tp, at - BEFORE, RECEIPTS):
                    if record.key == key and (said := _receipt(record.value)) and said["outcome"] != "parked":
                        found[said["destination"]] = str(said.get("consent_basis", ""))
                if found.keys() >= there.keys():
                    break
    except (TimeoutError, KafkaError) as exc:
        raise Unavailable(f"Kafka does not answer: {type(exc).__name__}") from exc
    return found


def _milliseconds(moment: str) -> int:
    return int(datetime.fromisoformat(moment).timestamp() * 1000)


def _receipt(value: bytes | None) -> Json | None:
    """None for what somebody else wrote there."""
    try:
        said: Json = orjson.loads(value or b"")
        return said if isinstance(said["destination"], str) and isinstance(said["outcome"], str) else None
    except (ValueError, TypeError, KeyError):
        return None


async def _records(
    settings: Settings, wanted: Mapping[TopicPartition, Iterable[int]]
) -> dict[tuple[str, int, int], Any]:
    """By topic, partition and offset. Raises Unavailable."""
    if not wanted:
        return {}
    try:
        async with asyncio.timeout(PATIENCE), records.reader(settings) as consumer:
            return {(one.topic, one.partition, one.offset): one async for one in records.single(consumer, wanted)}
    except (TimeoutError, KafkaError) as exc:
        raise Unavailable(f"Kafka does not answer: {type(exc).__name__}") from exc


def traces_of(conversion: Json) -> list[int]:
    there = conversion["destinations"].values()
    return [offset for one in there for some in (one, *one.get("names", ())) for offset in some.get("traces", ())]


def _offsets(conversion: Json, all_: Sequence[Json]) -> dict[int, int]:
    """Place in the list of copies -> offset in `<prefix>.events`.

    A conversion that was set apart does not know it itself; the one that has the id does.
    """
    known = {
        _place(copy): copy["offset"]
        for one in all_
        if one["partition"] == conversion["partition"]
        for copy in one["copies"]
        if copy["offset"] >= 0
    }
    offsets = ((n, known.get(_place(copy), -1)) for n, copy in enumerate(conversion["copies"]))
    return {n: offset for n, offset in offsets if offset >= 0}


def _place(copy: Json) -> tuple[Any, ...]:
    return copy["source"], copy["received"], tuple(sorted(copy["origin"].items()))


class _Log(NamedTuple):
    """What was read, of one partition."""

    found: Mapping[tuple[str, int, int], Any]
    names: topics.Names
    partition: int

    def value(self, topic: str, offset: int) -> tuple[bytes | None, Any, int] | None:
        """(key, value, when it was appended) of a record with JSON in it."""
        record = self.found.get((topic, self.partition, offset))
        if record is None:
            return None
        try:
            return record.key, orjson.loads(record.value or b""), record.timestamp
        except orjson.JSONDecodeError:
            return None


def _sorted(conversion: Json, of_copies: Mapping[int, int], log: _Log, forgotten: Forgotten) -> Found:
    """What of the log is of this conversion, unless it is of somebody who was erased."""
    key, found = key_of(conversion), Found()
    shared = key_of({**conversion, "apart": ""})
    for n, offset in of_copies.items():
        record = log.value(log.names.events, offset)
        if (
            record
            and record[0] in (key, shared)
            and shape.is_copy(record[0], record[1])
            and not forgotten.erases(record[1])
        ):
            found.copies[n] = Copy(record[1], record[2])
    for offset in conversion["records"]:
        record = log.value(log.names.conversions, offset)
        if record and record[0] == key and _is_conversion(record[1]) and not forgotten.erases(record[1]["event"]):
            found.conversions.append(record[1])
    for offset in traces_of(conversion):
        record = log.value(log.names.trace, offset)
        if record and record[0] == key and isinstance(record[1], dict):
            found.traces[offset] = record[1]
    if conversion["state"] != "held" and not found.conversions and not found.copies:
        found.traces = {}  # nobody can tell whose they are
    return found


def _is_conversion(said: Any) -> bool:
    try:
        return shape.is_event(said["event"]) and isinstance(said["routes"], dict) and isinstance(said["copies"], list)
    except (TypeError, KeyError):
        return False
