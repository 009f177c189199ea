"""What Kafka has, what these settings need, and what to do about each difference: `capistream topics plan` and `apply`.

`apply` makes what is missing and sets what cannot hurt. It deletes nothing, shortens nothing that is kept, and leaves the numbers
of partitions and copies alone: for these a line says what to do.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, for_code

from app import bus, topics, wire
from app.errors import Unavailable
from app.events import Json
from app.privacy import span
from app.settings import Settings
from app.topics import There, Topic

HEARD_OF = 2.0
LARGEST = 1_000_000  # bytes of the largest record that a worker writes
APPLY = "`capistream topics apply` {}"
Config = Mapping[str, str]


@dataclass(frozen=True)
class Todo:
    what: str
    remedy: str
    config: tuple[str, str] | None = None  # what `apply` sets
    make: bool = False  # `apply` makes the topic
    note: bool = False  # works as it is, and is not as well as it could be

    @property
    def by_apply(self) -> bool:
        return self.make or self.config is not None


@dataclass(frozen=True)
class Row:
    """A topic as it has to be, and as it is."""

    topic: Topic
    there: There | None
    config: Config | None  # None: Kafka does not say
    copies: int | None = None  # that there should be of each partition
    source: str = ""  # the source that it is of: not ours to make
    todo: tuple[Todo, ...] = ()

    def as_json(self) -> Json:
        should, is_ = self.topic.config, self.config or {}
        return {
            "topic": self.topic.name,
            "source": self.source or None,
            "exists": self.there is not None,
            "ok": not any(not one.note for one in self.todo),
            "partitions": {
                "is": self.there and self.there.partitions,
                "should": None if self.source else self.topic.partitions,
            },
            "replication": {"is": self.there and self.there.copies, "should": self.copies},
            "config": {
                name: {"is": is_.get(name), "should": should.get(name)}
                for name in sorted({*should, *(name for name in SHOWN if name in is_)})
            },
            "todo": [
                {"what": one.what, "remedy": one.remedy, "apply": one.by_apply, "note": one.note} for one in self.todo
            ],
        }


#: Who works needs to see none; who makes topics does.
UNSEEN = Todo("does not show us its settings", "`capistream topics acls --role operator` prints what grants it")


# Pure


@dataclass(frozen=True)
class _Rule:
    """Of one setting: (as it is, as it should be) -> is that good; may `apply` set it."""

    good: Callable[[str, str], bool]
    safe: Callable[[str, str], bool] = lambda _is, _should: True
    note: bool = False


def _policies(value: str) -> set[str]:
    return {one.strip() for one in value.split(",")}


def _longer(one: str, other: str) -> bool:
    """Of times to keep something, where -1 is for ever."""
    return other != "-1" and (one == "-1" or int(one) > int(other))


_RULES = {
    # what is deleted by age from then on may be what somebody counts on
    "cleanup.policy": _Rule(
        lambda is_, should: _policies(is_) == _policies(should),
        lambda is_, should: "delete" not in _policies(should) - _policies(is_),
    ),
    "retention.ms": _Rule(lambda is_, should: is_ == should, lambda is_, should: _longer(should, is_)),
    "message.timestamp.type": _Rule(lambda is_, should: is_ == should),
    "max.compaction.lag.ms": _Rule(lambda is_, should: int(is_) <= int(should)),
    "delete.retention.ms": _Rule(lambda is_, should: int(is_) >= int(should)),
    "min.insync.replicas": _Rule(lambda is_, should: int(is_) >= int(should)),
    "max.message.bytes": _Rule(lambda is_, should: int(is_) >= int(should)),
    "segment.ms": _Rule(lambda is_, should: int(is_) <= int(should), note=True),
    # another codec is somebody's choice
    "compression.type": _Rule(lambda is_, _: is_ not in ("producer", "uncompressed"), note=True),
    "min.cleanable.dirty.ratio": _Rule(lambda is_, should: float(is_) <= float(should), note=True),
}
SHOWN = (*_RULES, "retention.bytes")


def of_ours(topic: Topic, there: There | None, config: Config | None, settings: Settings) -> list[Todo]:
    """What is to be done about a topic of ours that Kafka has so, or (None) has not."""
    if there is None:
        return [Todo("does not exist", APPLY.format("makes it"), make=True)]
    found = []
    if there.partitions != topic.partitions:
        found.append(_of_partitions(topic, there, settings))
    if there.copies < settings.kafka.replication:
        found.append(
            Todo(
                f"is kept {there.copies} times, kafka.replication is {settings.kafka.replication}",
                f"kafka-reassign-partitions.sh gives it more copies; or set kafka.replication = {there.copies}",
            )
        )
    if config is None:
        return [*found, UNSEEN]
    for name, should in (topics.config(topic, there.copies) | {"max.message.bytes": str(LARGEST)}).items():
        found += _of_setting(topic, name, config.get(name), should, settings)
    if "delete" in _policies(config.get("cleanup.policy", "")) and config.get("retention.bytes", "-1") != "-1":
        found.append(
            Todo(
                f"deletes what is beyond retention.bytes = {config['retention.bytes']}, however young",
                _by_hand(topic, "retention.bytes", "-1", settings),
            )
        )
    if there.copies > 1 and int(config.get("min.insync.replicas", "1")) >= there.copies:
        found.append(
            Todo(
                f"takes nothing while one of {there.copies} brokers is away: min.insync.replicas",
                _by_hand(topic, "min.insync.replicas", str(max(1, there.copies - 1)), settings),
            )
        )
    return found


def _of_partitions(topic: Topic, there: There, settings: Settings) -> Todo:
    what = f"has {there.partitions} partitions, should have {topic.partitions}"
    if topic.partitions != settings.kafka.partitions:  # every worker reads all of it
        return Todo(what, "choose another kafka.prefix, or make it anew")
    return Todo(
        f"{what} (kafka.partitions)",
        f"set kafka.partitions = {there.partitions} back, or choose another kafka.prefix: with another number an event and its "
        "state would be in different partitions",
    )


def _of_setting(topic: Topic, name: str, is_: str | None, should: str, settings: Settings) -> list[Todo]:
    rule = _RULES[name]
    if is_ is None or rule.good(is_, should):
        return []
    what = f"{name} is {_said(name, is_)}, should be {_said(name, should)}"
    if name == "retention.ms":
        what += _meaning(topic, is_, should, settings)
    if rule.safe(is_, should):
        return [Todo(what, APPLY.format("sets it"), (name, should), note=rule.note)]
    return [Todo(what, _by_hand(topic, name, should, settings), note=rule.note)]


def _meaning(topic: Topic, is_: str, should: str, settings: Settings) -> str:
    if _longer(is_, should):
        return ": it keeps people's data for longer than `capistream config privacy` says"
    for destination, oldest in _ages(settings).items():
        if topic.name == topics.names(settings).to(destination) and _longer(str(oldest), is_):
            return f": {destination} takes events until they are {_time(oldest)} old, and what waits longer than here is lost"
    return ": what is older is lost"


def of_events(settings: Settings) -> list[Todo]:
    """Of the topic that workers read first: what a long outage of theirs would cost."""
    kept = int(settings.kafka.keep_events * 1000)
    longer = [f"{name} ({_time(oldest)})" for name, oldest in _ages(settings).items() if oldest > kept]
    if not longer:
        return []
    what = f"what no worker reads for {_time(kept)} is lost, and would still be taken by {', '.join(longer)}"
    return [Todo(what, "kafka.keep_events, where workers may be away for so long", note=True)]


def of_source(there: There | None, config: Config | None, source: str) -> list[Todo]:
    if there is None:
        return [Todo("does not exist", f"make it, or correct sources.{source}.topic: it is yours, so we do not")]
    if config and "compact" in _policies(config.get("cleanup.policy", "")):
        what = "is compacted: of two events with the same key the first may be gone before it is read"
        return [Todo(what, "give each event a key of its own", note=True)]
    return []


def _ages(settings: Settings) -> dict[str, int]:
    """Destination -> the age of the oldest event that it takes, in milliseconds."""
    return {name: topics.oldest(settings, name) for name in settings.destinations}


def _by_hand(topic: Topic, name: str, value: str, settings: Settings) -> str:
    return (
        f"if that is meant: kafka-configs.sh --bootstrap-server {settings.brokers} --command-config admin.properties --alter "
        f"--topic {topic.name} --add-config '{name}={f'[{value}]' if ',' in value else value}'"
    )


def _said(name: str, value: str) -> str:
    return _time(int(value)) if name.endswith(".ms") else value


def _time(milliseconds: int) -> str:
    return "for ever" if milliseconds < 0 or milliseconds >= 2**62 else span(milliseconds / 1000)


# Kafka


async def look(settings: Settings) -> list[Row]:
    """Every topic of ours and of the sources. Raises Unavailable, or SettingsError where Kafka does not let us look.

    A broker may hear of a topic a moment after it was created, so one is missing only if it still is after HEARD_OF seconds.
    """
    wanted = topics.plan(settings)
    sources = {source.topic: name for name, source in settings.sources.items()}
    async with topics.administrator(settings, patience=0) as admin:
        try:
            there, hidden = await topics.heard_of(admin, {*(t.name for t in wanted), *sources}, HEARD_OF)
            configs = await _configs(admin, there)
        except KafkaError as exc:
            raise bus.problem(exc, "Kafka does not say which topics there are") from exc
    rows = []
    for topic in wanted:
        row = Row(topic, there.get(topic.name), configs.get(topic.name), settings.kafka.replication)
        todo = of_ours(topic, row.there, row.config, settings)
        if topic.name == topics.names(settings).events:
            todo += of_events(settings)
        rows.append(replace(row, todo=tuple(todo)))
    for name, source in sources.items():
        row = Row(Topic(name, "", "", "", 0), there.get(name), configs.get(name), source=source)
        rows.append(replace(row, todo=tuple(of_source(row.there, row.config, source))))
    unseen = Todo("may be there or not: Kafka does not let us see it", bus.GRANT)
    return [replace(row, todo=(unseen,)) if row.topic.name in hidden else row for row in rows]


async def _configs(admin: Any, names: Iterable[str]) -> dict[str, dict[str, str]]:
    """Of those that we may look at."""
    asked = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
    found = {}
    for answer in await admin.describe_configs(asked) if asked else ():
        for code, _message, _kind, name, entries, *_ in answer.resources:
            if not code:
                found[name] = {entry[0]: entry[1] for entry in entries}
    return found


async def apply(settings: Settings, rows: Sequence[Row]) -> list[str]:
    """Do what is ours to do of these. Returns a line for each thing that Kafka refused. Raises as `look`, and for topics."""
    missing = [row.topic for row in rows if any(one.make for one in row.todo)]
    refused = []
    async with topics.administrator(settings, patience=0) as admin:
        if missing:
            await topics.create(admin, missing, settings.kafka.replication)
        for note in (False, True):  # what is only nice to have must not keep the rest from being set
            wanted = {row.topic.name: _settings(row, note=note) for row in rows if _settings(row, note=note)}
            if not wanted:
                continue
            try:
                answer = await admin._send_request(wire.Change(wanted))
            except (KafkaError, TimeoutError) as exc:
                raise Unavailable(f"Kafka does not change topics: {exc!r}") from exc
            for code, message, _kind, name in answer.responses:
                if code:
                    error = for_code(code)
                    why = bus.GRANT if error in bus.FORBIDDEN else message or error.__name__
                    refused.append(f"Kafka does not change {name}: {why}")
    return refused


def _settings(row: Row, *, note: bool) -> dict[str, str]:
    return dict(one.config for one in row.todo if one.config and one.note == note)


# For people


def table(rows: Sequence[Row]) -> list[str]:
    """Where something is not as it has to be: as it is, an arrow, as it should be."""
    shown = [("TOPIC", "PARTITIONS", "COPIES", "CLEANUP", "KEPT", "STATE")]
    for row in rows:
        has, should = row.config or {}, row.topic.config
        must = sum(not one.note for one in row.todo)
        shown.append(
            (
                row.topic.name,
                _arrow(row.there and row.there.partitions, None if row.source else row.topic.partitions),
                _arrow(row.there and row.there.copies, row.copies),
                _arrow(has.get("cleanup.policy"), should.get("cleanup.policy")),
                _arrow(_kept(has), _kept(should) if should else None),
                f"{must} to do" if must else "ok",
            )
        )
    widths = [max(len(line[column]) for line in shown) for column in range(5)]
    lines = [
        "  ".join([*(f"{text:{width}}" for text, width in zip(line, widths, strict=False)), line[5]]) for line in shown
    ]
    for row in rows:
        for one in row.todo:
            lines += ["", f"{row.topic.name}: {one.what}", f"  {'note: ' if one.note else ''}{one.remedy}"]
    return lines


def summary(rows: Sequence[Row]) -> str:
    """A line: how much there is to do, and who does it."""
    todo = [one for row in rows for one in row.todo if not one.note]
    ours = sum(one.by_apply for one in todo)
    if not todo:
        return f"{len(rows)} topics, nothing to do"
    return f"{len(todo)} to do: {ours} by `capistream topics apply`, {len(todo) - ours} by you"


def _arrow(is_: object, should: object) -> str:
    if should is None or is_ == should:
        return str(is_ or "-")
    return f"{is_} -> {should}" if is_ else str(should)


def _kept(config: Config) -> str:
    if "delete" not in _policies(config.get("cleanup.policy", "delete")):
        return "newest"
    return _time(int(config["retention.ms"])) if "retention.ms" in config else ""
