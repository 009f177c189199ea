"""What our principals have to be allowed to do on Kafka: `capistream topics acls` prints it, a start checks it.

    collector   takes events in: it can write three topics, four with a spool, and read nothing
    worker      does the work, and may create topics where the settings let it
    view        looks, and changes nothing: `destinations list`, `dead list`, `compare`, `reconcile`
    operator    gives the commands that change something; plans and makes topics

Kafka's operations and what they imply: https://kafka.apache.org/documentation/#security_authz. Write and Read imply Describe. An
idempotent producer needs nothing more since Kafka 2.8.
"""

import asyncio
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import structlog
from aiokafka.errors import GroupAuthorizationFailedError, KafkaError, for_code
from cryptography import x509

from app import bus, topics, wire
from app.errors import SettingsError, Unavailable
from app.settings import Settings

log = structlog.get_logger()

Role = Literal["collector", "worker", "view", "operator"]
ROLES: tuple[Role, ...] = get_args(Role)
PLACEHOLDER = "User:NAME"  # of a principal that only Kafka knows
PATIENCE = 30.0  # seconds for a broker that comes and goes while we start
GROUP_MAX = 5.0  # seconds for what a new Kafka may need until it knows of groups


@dataclass(frozen=True)
class Acl:
    """One thing that has to be allowed."""

    resource: Literal["topic", "group"]
    name: str
    prefixed: bool  # every name that begins so
    operations: tuple[str, ...]


def wanted(settings: Settings, role: Role) -> dict[str, frozenset[str]]:
    """Topic -> what this role does with it. Not what it can do without: to create topics, to delete finished records."""
    name = topics.names(settings)
    to = [name.to(destination) for destination in settings.destinations]
    ours = [topic.name for topic in topics.plan(settings)]
    tables = [topic for topic in ours if topic.startswith(f"{name.prefix}-")]
    sources = [source.topic for source in settings.sources.values()]
    rows: Mapping[Role, list[tuple[Iterable[str], str]]] = {
        # with a spool it tells the log's clock to wait
        "collector": [
            ([name.events, name.dead, name.people, *([name.clock] if settings.collector.spool else [])], "Write")
        ],
        "worker": [
            ([*sources, name.people], "Read"),
            ([name.events, name.clock, name.control, *to, *tables], "Read Write"),
            ([name.conversions, name.receipts, name.dead, name.trace, name.audit], "Read Write"),  # its pages show them
        ],
        "view": [
            ([name.conversions, name.dead, name.control, name.receipts, name.trace, *to, *sources], "Read"),
            ([name.changelog("seen")], "Read"),
        ],
        "operator": [
            ([name.conversions, *sources], "Read"),
            ([name.events, name.dead, name.control, name.people, *to], "Read Write"),
            (ours, "Describe DescribeConfigs AlterConfigs Create"),
            (sources, "DescribeConfigs"),
        ],
    }
    found: dict[str, set[str]] = {}
    for some, operations in rows[role]:
        for topic in some:
            found.setdefault(topic, set()).update(operations.split())
    return {topic: frozenset(operations) for topic, operations in found.items()}


def needed(settings: Settings, role: Role = "worker") -> list[Acl]:
    """What to grant. All that is ours goes by its prefix, so that a destination more needs no new grant; the collector's
    three topics are named.
    """
    name, does = topics.names(settings), wanted(settings, role)
    more = {"Create"} if settings.kafka.create_topics and role in ("collector", "worker") else set()
    sources = {source.topic for source in settings.sources.values()}
    grants: dict[tuple[str, bool], set[str]] = {}  # by name, and whether it is the begin of one
    for topic, operations in does.items():
        if topic in sources:
            grants[topic, False] = set(operations)
        elif role == "collector":
            grants[topic, False] = {*operations, *more}
        else:
            grants.setdefault((topic[: len(name.prefix) + 1], True), set()).update(operations, more)
    if role == "worker" and settings.destinations:
        # of records that are finished; without it they stay for the topic's retention
        grants[name.to(""), True] = {"Delete"}
    acls = [Acl("topic", topic, prefixed, _in_order(grants[topic, prefixed])) for topic, prefixed in sorted(grants)]
    if role != "collector":
        acls.append(Acl("group", name.prefix, False, ("Read",) if role == "worker" else ("Describe",)))
    return acls


def _in_order(operations: Iterable[str]) -> tuple[str, ...]:
    return tuple(name for name in wire.OPERATIONS.values() if name in operations)


def principal(settings: Settings) -> str:
    """Who we are to Kafka by these settings, where it maps no names; PLACEHOLDER, where only a token tells."""
    sasl, tls = settings.kafka.sasl, settings.kafka.tls
    if sasl is not None:
        return f"User:{sasl.user}" if sasl.user else PLACEHOLDER
    if tls is None or tls.certificate is None:
        return "User:ANONYMOUS"
    try:
        return f"User:{x509.load_pem_x509_certificate(tls.certificate.read_bytes()).subject.rfc4514_string()}"
    except (OSError, ValueError):
        return PLACEHOLDER


def commands(acls: Iterable[Acl], who: str, brokers: str) -> list[str]:
    """For the shell, with Kafka's own tool; admin.properties is how an administrator connects."""
    lines = []
    for acl in acls:
        words = ["kafka-acls.sh", "--bootstrap-server", brokers, "--command-config", "admin.properties", "--add"]
        words += ["--allow-principal", who]
        words += [word for operation in acl.operations for word in ("--operation", operation)]
        words += [f"--{acl.resource}", acl.name]
        words += ["--resource-pattern-type", "prefixed"] if acl.prefixed else []
        lines.append(shlex.join(words))
    return lines


async def missing(settings: Settings, role: Role) -> list[Acl]:
    """What Kafka says that we may not do, of topics that there are; nothing, where it does not say. Raises CapistreamError."""
    does = wanted(settings, role)
    async with topics.administrator(settings) as admin:
        try:
            there, hidden = await topics.look(admin, does)
            lacks = {topic: does[topic] for topic in hidden}
            lacks |= {
                topic: does[topic] - one.may
                for topic, one in there.items()
                if one.may is not None and not does[topic] <= one.may
            }
            found = [Acl("topic", topic, False, _in_order(lacks[topic])) for topic in sorted(lacks)]
            if role == "worker" and not await _may_join(admin, settings.kafka.prefix):
                found.append(Acl("group", settings.kafka.prefix, False, ("Read",)))
        except KafkaError as exc:
            raise bus.problem(exc, "Kafka does not say what we may do") from exc
    return found


async def _may_join(admin: Any, group: str) -> bool:
    """False only where Kafka says so."""
    until = asyncio.get_running_loop().time() + GROUP_MAX
    while True:
        try:
            answer = await admin._send_request(wire.Group(group), await admin.find_coordinator(group))
            (said,) = answer.to_object()["groups"]
            if said["error_code"]:
                raise for_code(said["error_code"])
        except GroupAuthorizationFailedError:
            return False
        except NotImplementedError:  # a broker before Kafka 2.3
            return True
        except KafkaError as exc:
            if not exc.retriable or asyncio.get_running_loop().time() > until:
                return True
            await asyncio.sleep(0.2)
        else:
            may = wire.operations(said.get("authorized_operations"))
            return may is None or "Read" in may


async def must_suffice(settings: Settings, role: Role) -> None:
    """Raises SettingsError, in one line, for what Kafka does not allow us. Else as `missing`."""
    by_operations: dict[str, list[str]] = {}
    for one in await missing(settings, role):
        by_operations.setdefault(f"{', '.join(one.operations)} {one.resource}", []).append(one.name)
    if by_operations:
        said = "; ".join(f"{what} {', '.join(names)}" for what, names in by_operations.items())
        us = principal(settings).replace(PLACEHOLDER, "us")
        raise SettingsError([f"Kafka does not let {us} do what a {role} does: {said}. {bus.GRANT}"])


async def prepare(settings: Settings, role: Literal["collector", "worker"]) -> list[str]:
    """Before this role begins: may we do our work, are our topics there? Returns the topics created. Raises CapistreamError.

    A broker that goes away between two questions is asked anew for a while.
    """
    until = asyncio.get_running_loop().time() + PATIENCE
    while True:
        try:
            await must_suffice(settings, role)
            created = await topics.apply(settings, wanted(settings, role) if role == "collector" else None)
            if created:
                await must_suffice(settings, role)  # of what was not there Kafka did not say it
        except Unavailable as exc:
            if asyncio.get_running_loop().time() > until:
                raise
            log.warning("kafka.awaited", why=str(exc))
            await asyncio.sleep(0.5)
        else:
            return created
