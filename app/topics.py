"""Every topic of ours: its key, who writes it, how long it lives. docs/topics.md is generated from here.

All topics on an event's way have the same number of partitions and records are produced to an explicit one (app/keys.py), so
partition n of all of them, and of their tables, belongs to one worker.
"""

import asyncio
from collections.abc import AsyncIterator, Collection, Container, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import structlog
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, TopicAuthorizationFailedError, for_code

from app import bus, wire
from app.errors import SettingsError, Unavailable
from app.settings import Settings
from app.why_not import NotLetIn
from sinks._base import Limits

log = structlog.get_logger()

HOUR = 3_600_000  # milliseconds, as Kafka's topic settings want them
DAY = 24 * HOUR
HEARD_OF = 10.0  # seconds until every broker knows every topic, also on a machine that has too much to do
PACKED = {"compression.type": "gzip"}  # by the brokers: to a seventh, for 3 s of processor a million rows
DELETIONS_KEPT = DAY  # in changelogs: state that is older than half of this may hold rows that were deleted since


@dataclass(frozen=True)
class Topic:
    name: str
    key: str
    writer: str
    holds: str
    partitions: int
    config: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Names:
    """Topic names under one prefix."""

    prefix: str

    @property
    def events(self) -> str:
        return f"{self.prefix}.events"

    @property
    def conversions(self) -> str:
        return f"{self.prefix}.conversions"

    @property
    def dead(self) -> str:
        return f"{self.prefix}.dead"

    @property
    def receipts(self) -> str:
        return f"{self.prefix}.receipts"

    @property
    def clock(self) -> str:
        return f"{self.prefix}.clock"

    @property
    def control(self) -> str:
        return f"{self.prefix}.control"

    @property
    def people(self) -> str:
        return f"{self.prefix}.people"

    @property
    def trace(self) -> str:
        return f"{self.prefix}.trace"

    @property
    def audit(self) -> str:
        return f"{self.prefix}.audit"

    def to(self, destination: str) -> str:
        return f"{self.prefix}.to.{destination}"

    def changelog(self, table: str) -> str:
        """As Faust names it."""
        return f"{self.prefix}-{table}-changelog"


def outcomes_table(destination: str) -> str:
    return f"outcomes.{destination}"


def names(settings: Settings) -> Names:
    return Names(settings.kafka.prefix)


def plan(settings: Settings) -> list[Topic]:
    """All topics and changelogs that these settings need."""
    from sinks import SINKS

    name, n = names(settings), settings.kafka.partitions
    longest = max(settings.view.journey_retention, *(rule.horizon for rule in settings.rules.values()))
    waits = [oldest(settings, destination) for destination in settings.destinations]  # late denials count for so long
    horizon = max(int(longest * 1000), *waits, 0) + DAY
    # Kafka's clock: copied source timestamps would let retention delete a replay of old events before it is read
    log = {"message.timestamp.type": "LogAppendTime", "cleanup.policy": "delete"}
    keep, window, lag = (
        int(seconds * 1000)
        for seconds in (settings.kafka.keep_events, settings.kafka.replay_window, settings.kafka.compact_within)
    )
    traced = int(settings.trace.keep * 1000)
    payload = log | {"retention.ms": str(keep), "segment.ms": _roll(keep)}
    state = {"segment.ms": str(min(HOUR, lag)), "min.cleanable.dirty.ratio": "0.1", "max.compaction.lag.ms": str(lag)}
    state |= {"delete.retention.ms": str(DELETIONS_KEPT)}
    topics = [
        Topic(name.events, "conversion key; none for clock records", "collector, agents/normalize, agents/clock",
              "normalised copies, and the log's clock", n, payload),
        Topic(name.conversions, "conversion key", "agents/dedup", "merged events with the decision per destination, for your own "
              "consumers; at least once", n, payload),
        Topic(name.dead, "letter id: origin and destination", "collector, agents, capistream dead", "what could not be taken or "
              "delivered: reason, field, origin, and whether it was replayed or dropped; no payload", n,
              log | {"cleanup.policy": "compact,delete", "retention.ms": str(30 * DAY)}),
        Topic(name.receipts, "conversion key", "agents/deliver, agents/dedup", "one row per final outcome of an event at a "
              "destination", n, log | {"retention.ms": str(90 * DAY)} | PACKED),
        Topic(name.clock, "none", "agents/clock, collector", "watermarks of the sources, each second", 1,
              log | {"retention.ms": str(HOUR), "segment.ms": str(HOUR)}),
        Topic(name.control, "destination", "capistream destinations, agents/deliver", "which destinations are paused, and why", 1,
              {"cleanup.policy": "compact"}),
        Topic(name.people, "what, kind, digest", "capistream forget, collector", "who is forgotten: digests of identifiers, since "
              "when, whether withdrawn or erased", 1, {"cleanup.policy": "compact", "message.timestamp.type": "LogAppendTime"}),
        Topic(name.audit, "who", "app/view", "who looked at what on the pages, and did what", 1,
              log | {"retention.ms": str(400 * DAY)}),
        Topic(name.trace, "conversion key", "agents/deliver", "what was said to a platform and what it answered, for one event; of "
              "destinations in shadow what would have been said", n,
              log | {"retention.ms": str(traced), "segment.ms": _roll(traced)}),
        Topic(name.changelog("seen"), "conversion key; alias", "agents/dedup", "table seen: copies, decision, per key", n,
              state | {"cleanup.policy": "compact,delete", "retention.ms": str(horizon)}),
        Topic(name.changelog("held"), "conversion key", "agents/dedup", "table held: copies of conversions that wait", n,
              state | {"cleanup.policy": "compact"}),
    ]  # fmt: skip
    for destination, one in settings.destinations.items():
        limits = SINKS[one.sink](one).limits
        topics += [
            Topic(name.to(destination), "conversion key", "agents/dedup", f"what {destination} shall get", n,
                  log | {"retention.ms": str(_oldest(limits) + DAY), "segment.ms": _roll(window)}),
            Topic(name.changelog(outcomes_table(destination)), "conversion key", "agents/deliver",
                  f"table outcomes.{destination}: what became of each event there", n,
                  state | {"cleanup.policy": "compact,delete", "retention.ms": str(outcomes_kept(limits))}),
        ]  # fmt: skip
    return topics


def _roll(kept: int) -> str:
    """Kafka deletes whole segments: after how many milliseconds one ends that holds people's data, kept for so many."""
    return str(min(6 * HOUR, max(kept // 4, 15_000)))


def _oldest(limits: Limits) -> int:
    """The age of the oldest event that a platform takes, in milliseconds."""
    return int(max(limits.max_age, *limits.max_age_by_source.values(), 0) * 1000)


def oldest(settings: Settings, destination: str) -> int:
    """The age of the oldest event that this destination takes, in milliseconds."""
    from sinks import SINKS

    one = settings.destinations[destination]
    return _oldest(SINKS[one.sink](one).limits)


def outcomes_kept(limits: Limits) -> int:
    """For how long it is remembered what became of an event, in milliseconds: dead letters are replayed for 30 days."""
    return _oldest(limits) + 30 * DAY


@asynccontextmanager
async def administrator(settings: Settings, patience: float = 30.0) -> AsyncIterator[AIOKafkaAdminClient]:
    """A started admin client; waits for a broker that is not there yet. Raises Unavailable, NotLetIn."""
    loop = asyncio.get_running_loop()
    until, told = loop.time() + patience, False
    while True:
        admin = bus.of(settings).admin()
        try:
            await admin.start()
        except KafkaError as exc:
            await admin.close()
            if isinstance(exc, NotLetIn) or loop.time() > until:
                raise bus.problem(exc, f"kafka.brokers: no Kafka answers at {settings.brokers}") from exc
            if not told:
                log.warning("kafka.awaited", why=str(exc))
                told = True
            await asyncio.sleep(0.5)
        else:
            break
    try:
        yield admin
    finally:
        await admin.close()


@dataclass(frozen=True)
class There:
    """A topic as Kafka has it."""

    partitions: int
    copies: int  # of the partition that has the fewest
    may: frozenset[str] | None  # operations that are ours to do, where Kafka says it


async def look(admin: Any, names: Iterable[str]) -> tuple[dict[str, There], set[str]]:
    """(those that there are, those that we are not told of); makes none by asking. Raises KafkaError."""
    found, hidden = {}, set()
    answer = await admin._send_request(wire.Look(sorted(set(names))))
    for one in answer.to_object()["topics"]:
        error = for_code(one["error_code"])
        if error is TopicAuthorizationFailedError:
            hidden.add(one["topic"])
        elif not one["error_code"]:
            copies = min((len(partition["replicas"]) for partition in one["partitions"]), default=0)
            found[one["topic"]] = There(len(one["partitions"]), copies, wire.operations(one.get("operations")))
    return found, hidden


async def apply(settings: Settings, only: Container[str] | None = None) -> list[str]:
    """Create what is missing (when `create_topics` allows it) and check the rest. Returns the names created.

    Of all topics, with those of sources, or `only` of these. Raises SettingsError for a missing topic that we may not create, or a
    partition count that differs, and Unavailable.
    """
    wanted = [topic for topic in plan(settings) if only is None or topic.name in only]
    sources = {} if only is not None else {name: source.topic for name, source in settings.sources.items()}
    async with administrator(settings) as admin:
        try:
            ours, theirs = {t.name for t in wanted}, set(sources.values())
            needed = theirs if settings.kafka.create_topics else theirs | ours
            have, hidden = await heard_of(admin, needed, HEARD_OF, more=ours)
        except KafkaError as exc:
            raise bus.problem(exc, "Kafka does not say which topics there are") from exc
        if hidden:
            raise SettingsError([f"Kafka does not let us see {', '.join(sorted(hidden))}: {bus.GRANT}"])
        missing = [t for t in wanted if t.name not in have]
        mistakes = [
            f"topic {t.name} has {have[t.name].partitions} partitions, the configuration says {t.partitions} (kafka.partitions); "
            "set that back, or choose another kafka.prefix"
            for t in wanted
            if t.name in have and have[t.name].partitions != t.partitions
        ]
        mistakes += [
            f"sources.{name}.topic: there is no topic {topic}" for name, topic in sources.items() if topic not in have
        ]
        if missing and not settings.kafka.create_topics:
            mistakes.append(
                f"kafka.create_topics is off, and there is no topic {', '.join(t.name for t in missing)}: `capistream topics plan` "
                "shows what there has to be, `capistream topics apply` makes it"
            )
        if mistakes:
            raise SettingsError(mistakes)
        if missing:
            await create(admin, missing, settings.kafka.replication)
        return [t.name for t in missing]


async def heard_of(
    admin: Any, needed: Collection[str], patience: float, more: Collection[str] = ()
) -> tuple[dict[str, There], set[str]]:
    """As `look`, at all of these.

    A broker that has just started may not know its topics yet, nor any broker one that another has just created. So a needed
    one is missing only when it is still missing after a while.
    """
    until = asyncio.get_running_loop().time() + patience
    while True:
        have, hidden = await look(admin, {*needed, *more})
        if set(needed) <= have.keys() | hidden or asyncio.get_running_loop().time() > until:
            return have, hidden
        await asyncio.sleep(0.2)


def config(topic: Topic, replication: int) -> dict[str, str]:
    """What Kafka is told of a topic that it keeps so many times.

    Acknowledged "by all" means by all that are in sync, and that may be the leader alone, which would take what it has
    acknowledged to its grave. So two of three; but of two, one has to do, or no broker could ever be away.
    """
    return ({"min.insync.replicas": "2"} if replication >= 3 else {}) | topic.config


async def create(admin: Any, topics: list[Topic], replication: int) -> None:
    """One that exists by now is fine: another worker was faster. Raises SettingsError where Kafka refuses one, or Unavailable."""
    wanted = [NewTopic(t.name, t.partitions, replication, topic_configs=config(t, replication)) for t in topics]
    try:
        answer = await admin.create_topics(wanted)
    except (KafkaError, TimeoutError) as exc:
        raise Unavailable(f"Kafka does not make topics: {exc!r}") from exc
    refused: dict[tuple[Any, str], list[str]] = {}
    for topic, code, *message in answer.topic_errors:
        if code and for_code(code) is not TopicAlreadyExistsError:
            refused.setdefault((for_code(code), str(message[0] or "") if message else ""), []).append(topic)
    lines = []
    for (error, said), names in refused.items():
        why = (
            f"{bus.GRANT}, or another log-in may make it"
            if error in bus.FORBIDDEN
            else f"{error.__name__} {said}".rstrip()
        )
        lines.append(f"Kafka does not make {', '.join(names)}: {why}")
    if any(not error.retriable for error, _ in refused):
        raise SettingsError(lines)
    if lines:
        raise Unavailable("\n".join(lines))


async def partition_counts(settings: Settings) -> dict[str, int]:
    """Of the source topics."""
    if not settings.sources:
        return {}
    async with administrator(settings) as admin:
        found, _ = await look(admin, [source.topic for source in settings.sources.values()])
        return {name: topic.partitions for name, topic in found.items()}
