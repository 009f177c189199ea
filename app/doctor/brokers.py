"""The brokers: can they be reached from here, are they of an age that we understand, and do their limits fit what we do?"""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any

from aiokafka.errors import KafkaError
from aiokafka.protocol.admin import (
    CreateTopicsRequest,
    DeleteRecordsRequest,
    DescribeConfigsRequest,
    DescribeGroupsRequest,
)
from aiokafka.protocol.commit import OffsetCommitRequest, OffsetFetchRequest
from aiokafka.protocol.coordination import FindCoordinatorRequest
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.protocol.group import HeartbeatRequest, JoinGroupRequest, LeaveGroupRequest, SyncGroupRequest
from aiokafka.protocol.metadata import MetadataRequest
from aiokafka.protocol.offset import OffsetRequest
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.protocol.transaction import InitProducerIdRequest

from app import merge, normalize, topic_plan
from app.doctor.finding import Finding, listed, ok, problem, together, warning
from app.doctor.place import Address, Cluster, Config, Partition, Place, Refused, configs_of, reach
from app.errors import SettingsError, Unavailable
from app.privacy import span
from app.settings import Settings

#: What a worker and the collector ask of a broker.
USED = (
    *(ProduceRequest, FetchRequest, OffsetRequest, MetadataRequest, InitProducerIdRequest),
    *(FindCoordinatorRequest, JoinGroupRequest, SyncGroupRequest, HeartbeatRequest, LeaveGroupRequest),
    *(OffsetCommitRequest, OffsetFetchRequest, DescribeGroupsRequest),
    *(CreateTopicsRequest, DescribeConfigsRequest, DeleteRecordsRequest),
)

#: Release of Apache Kafka -> a request (by its number) and the version of it that came with that release; newest first. From the
#: message definitions, https://github.com/apache/kafka/tree/trunk/clients/src/main/resources/common/message
RELEASES: Mapping[str, tuple[int, int]] = {
    "4.0": (ProduceRequest.API_KEY, 12),
    "3.9": (FetchRequest.API_KEY, 17),
    "3.7": (FetchRequest.API_KEY, 16),
    "3.5": (FetchRequest.API_KEY, 15),
    "3.0": (OffsetRequest.API_KEY, 7),
    "2.8": (ProduceRequest.API_KEY, 9),
    "2.3": (FetchRequest.API_KEY, 11),
}
_BROKER = 4  # Kafka's number for this kind of thing that has settings
_SILENT = "it does not answer as Kafka"
TRIED = ("4.0", "3.9", "3.7", "3.5", "3.0")  # releases that we mean to work with


@dataclass(frozen=True)
class Broker:
    node: int
    address: Address  # as it advertises itself
    trouble: str = ""  # why it cannot be reached there
    versions: Mapping[int, tuple[int, int]] = field(default_factory=dict)  # request -> oldest and newest version
    config: Config | Refused | None = None  # None: it was not asked


async def check(place: Place) -> list[Finding]:
    addresses = await place.addresses()
    found = list(judge_addresses(addresses))
    if all(addresses.values()):
        return found
    try:
        await place.connect()
        cluster = await place.cluster()
    except Unavailable as exc:
        return [*found, _no_kafka(str(exc))]
    except SettingsError as exc:
        return [
            *found,
            *(problem("kafka", line, "correct the setting", "docs/kafka.md#connect") for line in exc.mistakes),
        ]
    brokers = await _look(place, cluster)
    return [
        *found,
        *judge_advertised(brokers, [host for host, _ in addresses]),
        *judge_versions(brokers),
        *judge_size(place.settings, cluster),
        *judge_limits(place.settings, brokers),
    ]


async def _look(place: Place, cluster: Cluster) -> list[Broker]:
    admin = await place.admin()

    async def one(node: int, address: Address) -> Broker:
        if trouble := await reach(*address):
            return Broker(node, address, trouble)
        if node in place.silent:
            return Broker(node, address, _SILENT)
        try:
            answer = await admin._client.send(node, DescribeConfigsRequest([(_BROKER, str(node), None)]))
        except KafkaError:
            return Broker(node, address, _SILENT)
        return Broker(node, address, "", _versions(admin._client, node), configs_of(answer).get(str(node)))

    return list(await asyncio.gather(*(one(*item) for item in sorted(cluster.brokers.items()))))


def _versions(client: Any, node: int) -> Mapping[int, tuple[int, int]]:
    """What the broker said when the connection was made."""
    found: Mapping[int, tuple[int, int]] = next(
        (connection._versions for (of, _), connection in client._conns.items() if of == node), {}
    )
    return found


def _no_kafka(why: str) -> Finding:
    return problem(
        "kafka.brokers",
        f"something listens there, but {why}",
        "is it Kafka, and its listener for clients?",
        "docs/kafka.md#connect",
    )


def judge_addresses(troubles: Mapping[Address, str]) -> Iterator[Finding]:
    """Those that the settings name: any of them will do."""
    bad = [f"{_written(address)}: {trouble}" for address, trouble in troubles.items() if trouble]
    if not bad:
        yield ok("kafka.brokers", f"{len(troubles)} of {len(troubles)} addresses can be reached")
    elif len(bad) == len(troubles):
        yield problem(
            "kafka.brokers",
            f"no Kafka can be reached: {'; '.join(bad)}",
            "does it run, is the address right, does a firewall let this machine through? kafka.brokers, CAPISTREAM_BROKER",
        )
    else:
        yield warning(
            "kafka.brokers",
            f"{len(bad)} of {len(troubles)} addresses cannot be reached: {'; '.join(bad)}",
            "correct or take out these: a worker that starts while the others are away does not find Kafka",
        )


def judge_advertised(brokers: Sequence[Broker], asked: Sequence[str]) -> Iterator[Finding]:
    """Clients find a broker at the address that it advertises, wherever they first asked."""
    away = [one for one in brokers if one.trouble]
    for one in away:
        yield problem(
            f"broker {one.node}",
            f"advertises itself as {_written(one.address)}: {one.trouble}",
            "it has to run, and its `advertised.listeners` must name an address that collectors and workers reach",
        )
    here = [one for one in brokers if _loopback(one.address[0])]
    if here and not any(map(_loopback, asked)):
        yield problem(
            f"broker {here[0].node}",
            f"advertises itself as {_written(here[0].address)}, which is each client's own machine",
            "set `advertised.listeners` on the broker to an address that collectors and workers reach",
        )
    elif not away:
        yield ok("advertised listeners", f"{len(brokers)} of {len(brokers)} brokers can be reached where they say")


def judge_versions(brokers: Sequence[Broker]) -> Iterator[Finding]:
    asked = [one for one in brokers if one.versions]
    for one in asked:
        foreign = [request.__name__ for request in USED if not _shared(request, one.versions)]
        if foreign:
            yield problem(
                f"broker {one.node}",
                f"speaks no version that we know of {listed(foreign)}",
                "use Apache Kafka 3.0 or newer, or a server that speaks its protocol; the newest may need a newer capistream",
            )
            return
    if not asked:
        return
    releases = {release(one.versions) for one in asked}
    said = f"as Apache Kafka {' and '.join(sorted(releases))} or newer"
    if releases <= set(TRIED):
        yield ok("version", f"the brokers speak {said}")
    else:
        yield warning("version", f"the brokers speak {said}; older than 3.0 is not tried", "update them")


def release(versions: Mapping[int, tuple[int, int]]) -> str:
    """The newest release of Apache Kafka that a broker with these requests can be, as far as we tell them apart."""
    for name, (request, version) in RELEASES.items():
        if versions.get(request, (0, -1))[1] >= version:
            return name
    return "0.10"


def _shared(request: Any, versions: Mapping[int, tuple[int, int]]) -> bool:
    least, most = versions.get(request.API_KEY, (0, -1))
    return any(least <= one.API_VERSION <= most for one in request._CLASSES)


def judge_size(settings: Settings, cluster: Cluster) -> Iterator[Finding]:
    known = set(cluster.brokers) | {node for some in cluster.topics.values() for one in some for node in one.replicas}
    if away := sorted(known - set(cluster.brokers)):
        yield warning(
            "brokers",
            f"{len(away)} of {len(known)} are away (node {', '.join(map(str, away))}): what has copies there has fewer now",
            "start them again, or move their copies to others: kafka-reassign-partitions.sh",
        )
    size, copies = len(known), settings.kafka.replication
    if size < copies:
        yield problem(
            "kafka.replication",
            f"{copies} copies are wanted, and there are {size} brokers: Kafka makes no such topic",
            f"start more brokers, or set kafka.replication = {min(size, 3)}",
        )
    elif copies < 3:
        yield warning(
            "kafka.replication",
            f"{copies} of 3 copies, on {size} brokers: "
            + (
                "a lost disk loses events" if copies == 1 else "with one broker away an acknowledged event has one copy"
            ),
            "for what must not be lost: three brokers or more, and kafka.replication = 3 before the topics are made",
            "docs/deploy.md#back-up",
        )
    else:
        yield ok("kafka.replication", f"{copies} copies on {size} brokers")
    offsets: Sequence[Partition] = cluster.topics.get("__consumer_offsets", ())
    fewest = min((len(one.replicas) for one in offsets), default=size)
    if fewest < min(size, 3):
        yield warning(
            "__consumer_offsets",
            f"{fewest} of {min(size, 3)} copies: when a broker is lost, our group does not know where it was",
            "give it more: kafka-reassign-partitions.sh; and set `offsets.topic.replication.factor` on the brokers",
        )


def judge_limits(settings: Settings, brokers: Sequence[Broker]) -> Iterator[Finding]:
    """What brokers allow, against what we do. A setting that a server does not tell of is passed over."""
    known = {one.node: one.config for one in brokers if one.config is not None and not isinstance(one.config, Refused)}
    hidden = [one.config.why for one in brokers if isinstance(one.config, Refused)]
    if hidden and not known:
        yield warning(
            "brokers' settings",
            f"they do not tell them: {hidden[0]}",
            "to have them checked, allow this principal DescribeConfigs on the cluster",
        )
    found: list[tuple[str, Finding]] = []
    for node, config in known.items():
        found += [(str(node), finding) for finding in _limits(settings, config)]
    yield from together("broker", found)
    if known and not found:
        yield ok("brokers' settings", f"of {len(known)} brokers: sessions, offsets, sizes and topics as we need them")


def _limits(settings: Settings, config: Config) -> Iterator[Finding]:
    kafka = settings.kafka
    session, least, most = (
        kafka.session_timeout,
        _number(config, "group.min.session.timeout.ms", 0) / 1000,
        _number(config, "group.max.session.timeout.ms", 10**12) / 1000,
    )
    if not least <= session <= most:
        yield problem(
            "",
            f"takes sessions of {span(least)} to {span(most)}, and kafka.session_timeout is {span(session)}: no worker can join",
            "change kafka.session_timeout, or `group.min.session.timeout.ms` and `group.max.session.timeout.ms` there",
        )
    keeps = _number(config, "offsets.retention.minutes", 10**9) * 60
    if keeps < kafka.keep_events:
        yield warning(
            "",
            f"forgets where a group was {span(keeps)} after its last worker ended; events are kept for {span(kafka.keep_events)}: "
            "after a longer outage each source begins at its `start` again",
            f"set `offsets.retention.minutes` there to {int(kafka.keep_events / 60)} or more",
        )
    if (largest := _number(config, "message.max.bytes", 10**9)) < topic_plan.LARGEST:
        yield warning(
            "",
            f"takes {largest:,} bytes at once where a topic does not say otherwise, and we write up to {topic_plan.LARGEST:,} "
            f"({normalize.MAX_BYTES:,} an event, {2 * merge.MAX_COPIES} copies in a hold)",
            "`capistream topics apply` says it for our topics, when they are there",
            "docs/kafka.md#topics",
        )
    if config.get("auto.create.topics.enable") == "true":
        yield warning(
            "",
            "makes a topic of any name that it is asked for: a misspelt one, too",
            "set `auto.create.topics.enable=false` there",
        )
    if config.get("unclean.leader.election.enable") == "true":
        yield warning(
            "",
            "may elect a leader that lacks acknowledged records, which are then lost",
            "set `unclean.leader.election.enable=false` there",
        )


def _number(config: Config, name: str, otherwise: int) -> int:
    try:
        return int(config[name])
    except (KeyError, ValueError):
        return otherwise


def _loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _written(address: Address) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
