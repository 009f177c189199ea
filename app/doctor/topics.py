"""The topics: are they there, has each partition its leader and copies, and is everything as `capistream topics plan` wants it?

What they have to be, and what to do about a difference, is in app/topics.py and app/topic_plan.py.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence

from app import topic_plan
from app.doctor.finding import Finding, listed, ok, problem, together, warning
from app.doctor.place import Cluster, Config, Partition, Place, Refused
from app.privacy import span
from app.settings import Settings
from app.topics import There, plan

DAY = 86_400.0
_OF_DESTINATIONS = r"\.to\.|-outcomes\..*-changelog$"  # what follows the prefix in names of topics that come and go


async def check(place: Place) -> list[Finding]:
    cluster = await place.cluster()
    configs = await place.topic_configs()
    return [
        *judge_existence(place.settings, cluster),
        *judge_plan(place.settings, cluster, configs),
        *judge_copies(place.settings, cluster, configs),
        *judge_sources(place.settings, configs),
        *judge_strangers(place.settings, cluster),
    ]


def judge_existence(settings: Settings, cluster: Cluster) -> Iterator[Finding]:
    wanted = plan(settings)
    missing = [topic.name for topic in wanted if not cluster.has(topic.name) and topic.name not in cluster.refused]
    if not missing:
        yield ok("our topics", f"{len(wanted) - len(cluster.refused)} of {len(wanted)} are there")
    elif not settings.kafka.create_topics:
        yield problem(
            "our topics",
            f"{len(missing)} of {len(wanted)} are missing, and kafka.create_topics is off: {listed(missing)}",
            "`capistream topics apply` makes them, with a log-in that may",
        )
    elif len(missing) == len(wanted):
        yield ok("our topics", f"none is there yet: the first worker makes {len(wanted)}")
    else:
        yield warning(
            "our topics",
            f"{len(missing)} of {len(wanted)} are missing: {listed(missing)}",
            "a destination that is new: start the workers anew. Else somebody deleted them: the next start makes them, empty",
            "docs/operations.md#a-new-or-a-removed-destination-or-source",
        )
    for name, source in settings.sources.items():
        if not cluster.has(source.topic) and source.topic not in cluster.refused:
            yield problem(
                f"sources.{name}.topic",
                f"there is no topic {source.topic}, so no worker starts",
                "correct its name, or make it: it is yours, we never do",
            )


def judge_plan(settings: Settings, cluster: Cluster, configs: Mapping[str, Config | Refused]) -> Iterator[Finding]:
    """Partitions, copies and settings of the topics that there are."""
    found: list[tuple[str, Finding]] = []
    there = [topic for topic in plan(settings) if cluster.has(topic.name)]
    for topic in there:
        partitions, config = cluster.topics[topic.name], configs.get(topic.name)
        seen = There(len(partitions), min((len(one.replicas) for one in partitions), default=0), None)
        todo = topic_plan.of_ours(topic, seen, None if isinstance(config, Refused) else config, settings)
        for one in todo:
            judged = warning if one.note or one is topic_plan.UNSEEN else problem
            found.append((topic.name, judged("", one.what, one.remedy)))
    yield from together("topic", found)
    if there and not found:
        yield ok("the plan", f"partitions, copies, cleanup and retention of {len(there)} topics are as they should be")


def judge_copies(settings: Settings, cluster: Cluster, configs: Mapping[str, Config | Refused]) -> Iterator[Finding]:
    """What is not as it should be for now: brokers that are away, copies that lag behind."""
    found: list[tuple[str, Finding]] = []
    ours = [topic.name for topic in plan(settings) if cluster.has(topic.name)]
    for name in ours:
        config = configs.get(name, {})
        needed = 1 if isinstance(config, Refused) else int(config.get("min.insync.replicas", 1))
        found += [(name, finding) for finding in _copies(cluster.topics[name], needed)]
    yield from together("topic", found)
    if ours and not found:
        yield ok("copies", "every partition has a leader, and all its copies in sync")


def _copies(partitions: Sequence[Partition], needed: int) -> Iterator[Finding]:
    led = [one for one in partitions if one.leader >= 0]
    if len(led) < len(partitions):
        yield problem("", "partitions have no leader: nothing is read or written there", "start their brokers")
    if any(len(one.in_sync) < needed for one in led):
        yield problem(
            "",
            f"partitions have fewer than {needed} copies in sync (`min.insync.replicas`): nothing can be written there",
            "start their brokers, or give them time to catch up; with fewer copies than that, lower the setting",
        )
    elif any(len(one.in_sync) < len(one.replicas) for one in led):
        yield warning("", "partitions have copies that lag behind", "is a broker down, or new and catching up?")


def judge_sources(settings: Settings, configs: Mapping[str, Config | Refused]) -> Iterator[Finding]:
    """A source's retention is how long an outage of ours may last."""
    for name, source in settings.sources.items():
        config = configs.get(source.topic)
        if config is None or isinstance(config, Refused):
            continue
        compacted = "delete" not in config.get("cleanup.policy", "delete")
        keeps = math.inf if compacted else _seconds(config.get("retention.ms", "-1"))
        if keeps >= DAY:
            kept = "for ever" if math.isinf(keeps) else span(keeps)
            yield ok(f"sources.{name}", f"topic {source.topic} is there, and kept {kept}")
        else:
            yield warning(
                f"sources.{name}",
                f"topic {source.topic} keeps records for {span(keeps)}: what no worker has read by then is lost",
                f"raise its `retention.ms` to more than {span(DAY)}",
                "docs/runbook.md#capistreamunread",
            )
        for one in topic_plan.of_source(There(1, 1, None), config, name):
            yield warning(f"sources.{name}", f"topic {source.topic} {one.what}", one.remedy)


def judge_strangers(settings: Settings, cluster: Cluster) -> Iterator[Finding]:
    """Topics by our name that are not in the plan: of a destination that is gone, or of another installation."""
    known, prefix = {topic.name for topic in plan(settings)}, re.escape(settings.kafka.prefix)
    left = [name for name in cluster.topics if name not in known and re.match(rf"{prefix}({_OF_DESTINATIONS})", name)]
    if left:
        yield warning(
            "other topics",
            f"{len(left)} begin with our prefix and are not of this configuration: {listed(sorted(left))}",
            "of a destination that was taken out: delete them, as they hold people's data. Of another installation: give one of "
            "the two another kafka.prefix",
            "docs/operations.md#a-new-or-a-removed-destination-or-source",
        )


def _seconds(milliseconds: str) -> float:
    """Kafka's -1 is for ever."""
    number = int(milliseconds)
    return math.inf if number < 0 else number / 1000
