"""Dead letters, and what people do about them: look, replay, drop. The commands `capistream dead`.

A letter holds no payload, so a replay reads its origin again while Kafka retains it:

    deliver     the record of capistream.to.<destination> is appended to its own partition once more, marked as a replay. The
                worker sends it to that destination alone, unless it was delivered since, and judges consent and age anew.
    normalize   the record of your topic goes through app/normalize.py again, with the configuration as it is now. What it
                yields goes to capistream.events. What is still refused stays a letter.
    collector   nothing was kept: the sender was told, and sends again.

A letter is marked as replayed after Kafka has what came of it. A crash in between makes a second replay, and deliver and dedup
know what they have had.
"""

from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import orjson
from aiokafka import AIOKafkaConsumer, TopicPartition

from agents.normalize import record_time
from app import control, dead_letter, forget, intake, keys, reading, records, registry, schemas, shape, topics
from app.dead_letter import DeadLetter, Filed
from app.erasure import Forgotten
from app.errors import CapistreamError
from app.events import Json
from app.formats import Ignored
from app.normalize import Normalized, Refused, Result, inlet_of, normalize_bytes
from app.settings import Settings

FORGOTTEN = "it is of somebody who is forgotten"
AT_ONCE = 200  # letters whose replays are under way together

Letters = Mapping[str, Filed]  # by id


@dataclass(frozen=True)
class Wanted:
    """Which letters somebody means. `ids` may be cut short."""

    ids: tuple[str, ...] = ()
    destination: str = ""
    reason: str = ""
    event_id: str = ""
    since: int = 0  # Unix milliseconds
    until: int | None = None
    settled: bool = False  # those too that were replayed or dropped; one that is named is meant anyway

    def fits(self, letter: Filed) -> bool:
        return (
            (letter.id.startswith(self.ids) if self.ids else self.settled or not letter.state)
            and self.destination in ("", letter.destination)
            and self.reason in ("", letter.reason)
            and self.event_id in ("", letter.event_id)
            and self.since <= letter.time
            and (self.until is None or letter.time < self.until)
        )

    def of(self, letters: Letters) -> list[Filed]:
        """In the order of their time. Raises CapistreamError for an id of none, or of several."""
        for start in self.ids:
            if (found := sum(one.startswith(start) for one in letters)) != 1:
                raise CapistreamError(f"{found or 'no'} letters have an id that begins with {start}")
        return sorted(filter(self.fits, letters.values()), key=lambda letter: (letter.time, letter.id))


@dataclass(frozen=True)
class Told:
    """What became of a letter, or would. `why` where it stays one."""

    letter: Filed
    why: str = ""

    def as_json(self) -> Json:
        said = {"id": self.letter.id, "destination": self.letter.destination, "event_id": self.letter.event_id}
        return {k: v for k, v in said.items() if v} | {"replayed": not self.why, "why": self.why}


async def load(settings: Settings, wanted: Callable[[Filed], bool] = lambda _: True) -> Letters:
    """Every letter, or those that are wanted, by its newest record. Raises Unavailable."""
    async with records.reader(settings) as consumer:
        return await _load(settings, consumer, wanted, None)


async def newest(settings: Settings, most: int) -> tuple[Letters, bool]:
    """(the letters of so many records, the last ones; are these all records?). Raises Unavailable."""
    topic, count = topics.names(settings).dead, settings.kafka.partitions
    tps = [TopicPartition(topic, p) for p in range(count)]
    each = max(1, most // count)
    async with records.reader(settings) as consumer:
        found = await _load(settings, consumer, lambda _: True, each)
        begins, ends = await consumer.beginning_offsets(tps), await consumer.end_offsets(tps)
    return found, all(ends[tp] - begins[tp] <= each for tp in tps)


async def _load(
    settings: Settings, consumer: AIOKafkaConsumer, wanted: Callable[[Filed], bool], each: int | None
) -> Letters:
    found: dict[str, Filed] = {}
    partitions = range(settings.kafka.partitions)
    async for record in records.everything(consumer, topics.names(settings).dead, partitions, newest=each):
        letter = dead_letter.read(record.key, record.value)
        if letter and wanted(letter):
            found[letter.id] = letter
    return found


async def of_event(settings: Settings, key: bytes, destination: str) -> tuple[list[Filed], Letters]:
    """(letters that wait of this conversion at a destination, all that wait of its partition there). Those whose record is gone
    are left out. Raises Unavailable.
    """
    topic, p = topics.names(settings).to(destination), keys.partition(keys.parts(key)[0], settings.kafka.partitions)

    def maybe(letter: Filed) -> bool:
        place = letter.origin.get("topic"), letter.origin.get("partition")
        return letter.stage == "deliver" and letter.destination == destination and place == (topic, p)

    known = {name: letter for name, letter in (await load(settings, maybe)).items() if not letter.state}
    offsets = {letter.origin["offset"] for letter in known.values()}
    async with records.reader(settings) as consumer:
        wanted = {TopicPartition(topic, p): offsets} if offsets else {}
        its = {record.offset async for record in records.single(consumer, wanted) if record.key == key}
    return [letter for letter in known.values() if letter.origin["offset"] in its], known


async def drop(settings: Settings, letters: Iterable[Filed], by: str) -> None:
    """They are nobody's business any more. Raises Unavailable."""
    async with records.writer(settings) as write:
        await write(_settled(settings, letters, "dropped", by))


async def retained(settings: Settings, letter: Filed) -> str:
    """Why it cannot be replayed; empty when it can. Raises Unavailable."""
    (told,) = [one async for one in replay(settings, [letter], {letter.id: letter}, by="", dry_run=True)]
    return told.why


async def replay(
    settings: Settings, chosen: Sequence[Filed], known: Letters, by: str, *, dry_run: bool = False
) -> AsyncIterator[Told]:
    """Each letter and what came of it. `known` are all letters. Raises Unavailable."""
    origins: dict[TopicPartition, dict[int, list[Filed]]] = defaultdict(lambda: defaultdict(list))
    for letter in chosen:
        if why := _not_replayable(settings, letter):
            yield Told(letter, why)
        else:
            origin = letter.origin
            origins[TopicPartition(origin["topic"], origin["partition"])][origin["offset"]].append(letter)
    forgotten = await forget.standing(settings)
    async with (
        registry.connected(settings) as schemas_of,
        records.reader(settings) as consumer,
        records.writer(settings, dry_run=dry_run) as write,
    ):
        work = _Work(settings, known, {letter.id for letter in chosen}, control.now(), forgotten, schemas_of)
        async for record in records.single(consumer, origins):
            await work.add(record, origins[TopicPartition(record.topic, record.partition)].pop(record.offset))
            if len(work.told) >= AT_ONCE:
                for told in await _finish(settings, work, write, by):
                    yield told
        for told in await _finish(settings, work, write, by):
            yield told
    for offsets in origins.values():
        for letter in (letter for letters in offsets.values() for letter in letters):
            yield Told(letter, "its record is no longer retained")


def _not_replayable(settings: Settings, letter: Filed) -> str:
    """Why not, as far as the letter alone says it."""
    topic = letter.origin.get("topic", "")
    if letter.stage == "deliver":
        if letter.destination not in settings.destinations:
            return "the configuration has no such destination"
        if topic != topics.names(settings).to(letter.destination):
            return "it went without its destination's topic: `capistream destinations backfill` can send it again"
        return ""
    if not {"topic", "partition", "offset"} <= letter.origin.keys():
        return "the collector keeps no payload: its sender was told, and may send it again"
    if letter.stage == "normalize":
        known = any(source.topic == topic for source in settings.sources.values())
        return "" if known else "no source of the configuration reads its topic"
    return "its record is no event of ours"


class _Work:
    """What the replays read so far come to."""

    def __init__(
        self,
        settings: Settings,
        known: Letters,
        chosen: set[str],
        now: int,
        forgotten: Forgotten,
        schemas_of: registry.Registry | None,
    ) -> None:
        self._schemas_of = schemas_of
        self.settings, self.known, self.chosen, self.now = settings, known, chosen, now
        self.forgotten = forgotten
        self.names, self.partitions = topics.names(settings), settings.kafka.partitions
        self.inlets = {one.topic: inlet_of(settings, name, one) for name, one in settings.sources.items()}
        self.rows, self.told = intake.new_rows(), list[Told]()
        self._waiting: dict[tuple[str, bytes], list[Filed]] = defaultdict(list)
        for letter in known.values():
            if letter.stage == "deliver" and not letter.state:
                place = letter.destination, orjson.dumps(letter.origin, option=orjson.OPT_SORT_KEYS)
                self._waiting[place].append(letter)

    async def add(self, record: Any, letters: Sequence[Filed]) -> None:
        """Raises Unavailable when the schema registry does not answer."""
        if inlet := self.inlets.get(record.topic):
            known: schemas.Schemas = {}
            if inlet.encoding == "registry" and self._schemas_of is not None:
                known = await self._schemas_of.schemas(schemas.numbers([record.value]))
            self._normalize(record, letters, known)
        else:
            self._deliver(record, letters)

    def _deliver(self, record: Any, letters: Sequence[Filed]) -> None:
        value = _carried(record)
        if value is None:
            self.told += [Told(letter, "its record is no event of ours") for letter in letters]
            return
        letters = [*letters, *self._beside(letters)]
        of_it = [letter for letter in letters if letter.event_id == value["event"]["event_id"]]
        self.told += [Told(one, "another event stands in its place") for one in letters if one not in of_it]
        if of_it and self.forgotten.of(value["event"]):
            self.told += [Told(letter, FORGOTTEN) for letter in of_it]
        elif of_it:
            again = orjson.dumps(value | {"replay": self.now})
            self.rows[record.topic, record.partition].append((record.key, again, self.now))
            self.told += map(Told, of_it)

    def _beside(self, letters: Sequence[Filed]) -> list[Filed]:
        """Those that wait for the same record under the platform's other names: it goes again under all of them."""
        ids = {letter.id for letter in letters}
        places = {(letter.destination, orjson.dumps(letter.origin, option=orjson.OPT_SORT_KEYS)) for letter in letters}
        found = [letter for place in places for letter in self._waiting.get(place, ())]
        return [letter for letter in found if letter.id not in ids]

    def _normalize(self, record: Any, letters: Sequence[Filed], known: schemas.Schemas) -> None:
        """A letter names one event of the record, or its first when the record as a whole was refused. So whatever no other
        letter speaks for goes out, too: what had been taken the first time is a repeat to dedup.
        """
        origin = letters[0].origin
        received = record_time(record, self.now)
        inlet, carried = self.inlets[record.topic], reading.carried(record)
        results = normalize_bytes(record.value, inlet, received, origin, carried=carried, known=known)
        for index, result in enumerate(results):
            one = DeadLetter("normalize", "", origin, index).id
            if one in self.known and (one not in self.chosen or isinstance(result, Refused)):
                continue  # it is for another day, or stays the letter that it is
            if isinstance(result, Refused):
                fresh = DeadLetter("normalize", result.reason, origin, index, result.field, result.detail)
                self.rows[self.names.dead, fresh.partition(self.partitions)].append(fresh.row())
            elif not self._is_forgotten(result):
                intake.collect(self.rows, [result], origin, "normalize", self.names, self.partitions, self.now)
        for letter in letters:
            found = results[letter.index] if letter.index < len(results) else None
            if isinstance(found, Refused):
                self.told.append(Told(letter, f"still refused: {found.reason}"))
            elif found is None or isinstance(found, Ignored):
                self.told.append(Told(letter, "there is no event to deliver in it"))
            elif self._is_forgotten(found):
                self.told.append(Told(letter, FORGOTTEN))
            else:
                self.told.append(Told(letter))

    def _is_forgotten(self, result: Result) -> bool:
        return isinstance(result, Normalized) and self.forgotten.of(result.event) is not None

    def take(self) -> tuple[intake.Rows, list[Told]]:
        rows, told = self.rows, self.told
        self.rows, self.told = intake.new_rows(), []
        return rows, told


async def _finish(settings: Settings, work: _Work, write: records.Write, by: str) -> list[Told]:
    """The replays first, and only then that they were."""
    rows, told = work.take()
    await write(rows)
    await write(_settled(settings, [one.letter for one in told if not one.why], "replayed", by))
    return told


def _settled(settings: Settings, letters: Iterable[Filed], state: str, by: str) -> intake.Rows:
    rows, now = intake.new_rows(), control.now()
    for letter in letters:
        where = topics.names(settings).dead, letter.partition(settings.kafka.partitions)
        rows[where].append(replace(letter, state=state, at=now, by=by).row())
    return rows


def _carried(record: Any) -> Json | None:
    """The value of a record of a destination's topic; None for what somebody else wrote there."""
    try:
        value = orjson.loads(record.value)
        return value if shape.is_event_of(record.key, value["event"]) else None
    except (TypeError, ValueError, KeyError):
        return None


# For people


def table(letters: Sequence[Filed]) -> list[str]:
    """A line for each letter, and below them how many have which reason."""
    rows = [("ID", "TIME", "FROM", "REASON", "EVENT")]
    for letter in letters:
        place = letter.destination or letter.origin.get("topic") or letter.stage
        state = f" ({letter.state})" if letter.state else ""
        about = " ".join(filter(None, (letter.event_name, letter.event_id))) or letter.field
        rows.append((letter.id[:12], when(letter.time), place, letter.reason + state, about))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = [
        "  ".join([*(f"{text:{width}}" for text, width in zip(row, widths, strict=False)), row[4]]) for row in rows
    ]
    counts = Counter(letter.reason for letter in letters).most_common()
    return [*map(printable, lines), "", *(printable(f"{count:7} {reason}") for reason, count in counts)]


def page(letter: Filed, why_not: str) -> list[str]:
    """All that a letter says."""
    said = orjson.loads(letter.row()[1]) | {"replay": why_not or "its record is retained"}
    said |= {name: when(said[name]) for name in ("time", "at") if name in said}
    said |= {"origin": " ".join(f"{name} {value}" for name, value in letter.origin.items())}
    return [printable(f"{name:12} {value}") for name, value in said.items() if name != "v"]


def when(milliseconds: int) -> str:
    try:
        return datetime.fromtimestamp(milliseconds // 1000, UTC).isoformat().replace("+00:00", "Z")
    except (ValueError, OverflowError, OSError):
        return str(milliseconds)


def printable(text: str) -> str:
    """Anybody may write into a topic, and a terminal obeys what it is shown."""
    return "".join(c if c.isprintable() else "?" for c in text)
