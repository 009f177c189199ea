"""Every topic of ours: its key, who writes it, how long it lives. docs/topics.md is generated from here.

All topics on an event's way have the same number of partitions and records are produced to an explicit one (app/keys.py), so
partition n of all of them, and of their tables, belongs to one worker.
"""

import asyncio
from dataclasses import dataclass, field
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code

from app.errors import SettingsError, Unavailable
from app.settings import Settings
from sinks._base import Limits

HOUR = 3_600_000  # milliseconds, as Kafka's topic settings want them
DAY = 24 * HOUR
HEARD_OF = 5.0  # seconds until every broker knows every topic
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
    horizon = int(max(rule.horizon for rule in settings.rules.values()) * 1000) + DAY
    # Kafka's clock: copied source timestamps would let retention delete a replay of old events before it is read
    log = {"message.timestamp.type": "LogAppendTime", "cleanup.policy": "delete"}
    state = {"segment.ms": str(HOUR), "min.cleanable.dirty.ratio": "0.1", "max.compaction.lag.ms": str(DAY)}
    state |= {"delete.retention.ms": str(DELETIONS_KEPT)}
    topics = [
        Topic(name.events, "conversion key; none for clock records", "collector, agents/normalize, agents/clock",
              "normalised copies, and the log's clock", n, log | {"retention.ms": str(3 * DAY)}),
        Topic(name.conversions, "conversion key", "agents/dedup", "merged events with the decision per destination, for your own "
              "consumers; at least once", n, log | {"retention.ms": str(3 * DAY)}),
        Topic(name.dead, "letter id: origin and destination", "collector, agents", "what could not be taken or delivered: reason, "
              "field, origin; no payload", n, log | {"retention.ms": str(30 * DAY)}),
        Topic(name.receipts, "conversion key", "agents/deliver, agents/dedup", "one row per final outcome of an event at a "
              "destination", n, log | {"retention.ms": str(90 * DAY)}),
        Topic(name.clock, "none", "agents/clock", "watermarks of the sources, each second", 1,
              log | {"retention.ms": str(HOUR), "segment.ms": str(HOUR)}),
        Topic(name.changelog("seen"), "conversion key; alias", "agents/dedup", "table seen: copies, decision, per key", n,
              state | {"cleanup.policy": "compact,delete", "retention.ms": str(horizon)}),
        Topic(name.changelog("held"), "conversion key", "agents/dedup", "table held: copies of conversions that wait", n,
              state | {"cleanup.policy": "compact"}),
    ]  # fmt: skip
    for destination, one in settings.destinations.items():
        limits = SINKS[one.sink](one).limits
        oldest = _oldest(limits)
        topics += [
            Topic(name.to(destination), "conversion key", "agents/dedup", f"what {destination} shall get", n,
                  log | {"retention.ms": str(oldest + DAY)}),
            Topic(name.changelog(outcomes_table(destination)), "conversion key", "agents/deliver",
                  f"table outcomes.{destination}: what became of each event there", n,
                  state | {"cleanup.policy": "compact,delete", "retention.ms": str(outcomes_kept(limits))}),
        ]  # fmt: skip
    return topics


def _oldest(limits: Limits) -> int:
    """The age of the oldest event that a platform takes, in milliseconds."""
    return int(max(limits.max_age, *limits.max_age_by_source.values(), 0) * 1000)


def outcomes_kept(limits: Limits) -> int:
    """For how long it is remembered what became of an event, in milliseconds: dead letters are replayed for 30 days."""
    return _oldest(limits) + 30 * DAY


async def _with_admin(settings: Settings, patience: float = 30.0) -> AIOKafkaAdminClient:
    """A started admin client; waits for a broker that is not there yet. Raises Unavailable."""
    until = asyncio.get_running_loop().time() + patience
    while True:
        admin = AIOKafkaAdminClient(bootstrap_servers=settings.brokers)
        try:
            await admin.start()
        except KafkaError as exc:
            await admin.close()
            if asyncio.get_running_loop().time() > until:
                raise Unavailable(f"no Kafka answers at {settings.brokers}: {exc!r}") from exc
            await asyncio.sleep(0.5)
        else:
            return admin


async def apply(settings: Settings) -> list[str]:
    """Create what is missing (when `create_topics` allows it) and check the rest. Returns the names created.

    Raises SettingsError for a missing topic that we may not create, or a partition count that differs.
    """
    admin = await _with_admin(settings)
    try:
        wanted = plan(settings)
        have = await _partitions(admin, settings, wanted)
        missing = [t for t in wanted if t.name not in have]
        mistakes = [
            f"topic {t.name} has {have[t.name]} partitions, the configuration says {t.partitions} (kafka.partitions); "
            "set that back, or choose another kafka.prefix"
            for t in wanted
            if t.name in have and have[t.name] != t.partitions
        ]
        mistakes += [
            f"sources.{name}.topic: there is no topic {source.topic}"
            for name, source in settings.sources.items()
            if source.topic not in have
        ]
        if missing and not settings.kafka.create_topics:
            mistakes += [f"topic {t.name} does not exist and kafka.create_topics is off" for t in missing]
        if mistakes:
            raise SettingsError(mistakes)
        if missing:
            await create(admin, missing, settings.kafka.replication)
        return [t.name for t in missing]
    finally:
        await admin.close()


async def _partitions(admin: Any, settings: Settings, wanted: list[Topic]) -> dict[str, int]:
    """Of those topics of ours and of the sources that there are.

    A broker that has just started may not know its topics yet, nor any broker one that another has just created. So what
    somebody else has to create is missing only when it is still missing after a while.
    """
    sources, ours = [source.topic for source in settings.sources.values()], [t.name for t in wanted]
    needed = sources if settings.kafka.create_topics else sources + ours
    until = asyncio.get_running_loop().time() + HEARD_OF
    while True:
        described = await admin.describe_topics(ours + sources)
        have = {d["topic"]: len(d["partitions"]) for d in described if not d["error_code"]}
        if have.keys() >= set(needed) or asyncio.get_running_loop().time() > until:
            return have
        await asyncio.sleep(0.2)


def config(topic: Topic, replication: int) -> dict[str, str]:
    """What Kafka is told of a topic that it keeps so many times.

    Acknowledged "by all" means by all that are in sync, and that may be the leader alone, which would take what it has
    acknowledged to its grave. So two of three; but of two, one has to do, or no broker could ever be away.
    """
    return ({"min.insync.replicas": "2"} if replication >= 3 else {}) | topic.config


async def create(admin: Any, topics: list[Topic], replication: int) -> None:
    """Raises KafkaError when the broker refuses one; one that exists by now is fine (another worker was faster)."""
    answer = await admin.create_topics(
        [NewTopic(t.name, t.partitions, replication, topic_configs=config(t, replication)) for t in topics]
    )
    for topic, code, *message in answer.topic_errors:
        error = for_code(code)
        if code and error is not TopicAlreadyExistsError:
            raise error(f"{topic}: {message}")


async def partition_counts(settings: Settings) -> dict[str, int]:
    """Of the source topics."""
    if not settings.sources:
        return {}
    admin = await _with_admin(settings)
    try:
        described = await admin.describe_topics([s.topic for s in settings.sources.values()])
        return {d["topic"]: len(d["partitions"]) for d in described if not d["error_code"]}
    finally:
        await admin.close()
