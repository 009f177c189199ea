"""Settings and facts for the judges: all is well, but for what a test is about."""

from collections.abc import Iterable
from typing import Any

from app.doctor.brokers import Broker
from app.doctor.finding import Finding
from app.doctor.place import Cluster, Partition
from app.settings import Settings, parse
from app.topics import Topic, config, plan

TOML = """
[kafka]
partitions = 4
replication = 3

[sites.shop]
write_key = "wk_12345678"
secret_key = { env = "SHOP_SECRET" }

[sources.orders]
topic = "shop.orders"
site = "shop"

[privacy]
key = { env = "PRIVACY_KEY" }

[alerts]
webhook = { env = "CHAT" }

[destinations.ads]
sink = "meta"
dataset_id = "1234567890"
access_token = { env = "ADS_TOKEN" }
browser_tag = "none"
"""


def settings(more: str = "", **changed: str) -> Settings:
    """`changed` are lines of [kafka] or of [destinations.ads] by their name, `more` is added at the end."""
    text = TOML
    for name, value in changed.items():
        lines = [line for line in text.splitlines() if not line.startswith(f"{name} =")]
        part = (
            "[kafka]"
            if name in ("partitions", "replication", "session_timeout", "create_topics", "keep_events")
            else None
        )
        lines.insert(lines.index(part or "[destinations.ads]") + 1, f"{name} = {value}")
        text = "\n".join(lines) + "\n"
    return parse(text + more)


def partition(copies: int = 3, in_sync: int | None = None, leader: int = 1) -> Partition:
    return Partition(leader, tuple(range(1, copies + 1)), tuple(range(1, (copies if in_sync is None else in_sync) + 1)))


def cluster(loaded: Settings, **more: Any) -> Cluster:
    """All topics as they should be, on three brokers."""
    topics = {topic.name: (partition(),) * topic.partitions for topic in plan(loaded)}
    topics |= {one.topic: (partition(),) * 3 for one in loaded.sources.values()}
    brokers = {node: (f"kafka-{node}", 9092) for node in (1, 2, 3)}
    return Cluster(brokers, **{"topics": topics, **more})


def configs(loaded: Settings) -> dict[str, dict[str, str]]:
    """Of all topics, as they should be."""
    found = {topic.name: {"max.message.bytes": "1048588", **_as_kafka_says(topic)} for topic in plan(loaded)}
    return found | {
        one.topic: {"retention.ms": "604800000", "cleanup.policy": "delete"} for one in loaded.sources.values()
    }


def _as_kafka_says(topic: Topic) -> dict[str, str]:
    return {"retention.bytes": "-1", **config(topic, 3)}


def broker(node: int = 1, **more: Any) -> Broker:
    return Broker(node, (f"kafka-{node}", 9092), **more)


def states(found: Iterable[Finding]) -> list[tuple[str, str]]:
    """(state, what) of each that is not ok."""
    return [(one.state, one.what) for one in found if one.state != "ok"]


def only(found: Iterable[Finding]) -> Finding:
    """The one that is not ok."""
    (one,) = (finding for finding in found if finding.state != "ok")
    assert one.remedy, "what to do about it"
    return one
