"""The workers, as Kafka sees them: who is in the group, what waits, and whether it stands where the log still is."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import orjson
from aiokafka import TopicPartition
from aiokafka.coordinator.protocol import ConsumerProtocolMemberMetadata
from aiokafka.errors import KafkaError, for_code
from aiokafka.protocol.coordination import FindCoordinatorRequest

from app import control, records
from app.doctor.finding import Finding, listed, ok, problem, warning
from app.doctor.place import ANSWER, Place
from app.errors import Unavailable
from app.letters import when
from app.settings import Settings
from app.topics import names

LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class Member:
    host: str
    topics: frozenset[str] = frozenset()  # that it reads
    url: str = ""  # where the other workers ask it
    ours: bool = True  # does it speak as our workers do?


@dataclass(frozen=True)
class Position:
    """Of the group in one partition."""

    begin: int
    end: int
    committed: int | None = None

    @property
    def waiting(self) -> int:
        return max(0, self.end - max(self.begin, self.committed or 0))


async def check(place: Place) -> list[Finding]:
    (_, _, state, protocol_type, _, members, *_), _ = await _asked(place)
    ours = protocol_type in ("", "consumer")
    return list(judge_members(place.settings, state, [_member(one, ours=ours) for one in members]))


async def check_waiting(place: Place) -> list[Finding]:
    (_, _, _, _, _, members, *_), committed = await _asked(place)
    return list(judge_positions(await _positions(place, committed), workers=len(members)))


async def check_orders(place: Place) -> list[Finding]:
    if not (await place.cluster()).has(place.names.control):
        return []
    return list(judge_orders(place.settings, await control.standing(place.settings)))


async def _asked(place: Place) -> tuple[Any, Mapping[Any, Any]]:
    """What Kafka says of the group, and what that has committed. Raises Unavailable."""
    found: tuple[Any, Mapping[Any, Any]] = await place.once("group", lambda: _ask(place, place.settings.kafka.prefix))
    return found


async def _ask(place: Place, group: str) -> tuple[Any, Mapping[Any, Any]]:
    admin, until = await place.admin(), asyncio.get_running_loop().time() + ANSWER
    while True:
        try:
            found = await place.ask(FindCoordinatorRequest(group, 0))
            _must_be_fine(found.error_code)
            (answer,) = await admin.describe_consumer_groups([group], found.coordinator_id)
            _must_be_fine(answer.groups[0][0])
            return answer.groups[0], await admin.list_consumer_group_offsets(group, found.coordinator_id)
        except KafkaError as exc:  # a cluster that no group has used yet needs a moment
            if not exc.retriable or asyncio.get_running_loop().time() > until:
                raise Unavailable(f"Kafka does not tell of the group {group}: {exc!r}") from exc
        await asyncio.sleep(0.2)


def _must_be_fine(code: int) -> None:
    if code:
        raise for_code(code)


def _member(answer: Any, *, ours: bool) -> Member:
    """One whose words we do not understand is no worker of ours."""
    _, _, host, metadata, *_ = answer
    try:
        said = ConsumerProtocolMemberMetadata.decode(metadata)
        url = orjson.loads(said.user_data).get("url", "")
        return Member(host.lstrip("/"), frozenset(said.subscription), str(url), ours)
    except (ValueError, TypeError, AttributeError):
        return Member(host.lstrip("/"), ours=ours and not metadata)  # one that just joins has not said anything yet


async def _positions(place: Place, committed: Mapping[Any, Any]) -> dict[tuple[str, int], Position]:
    cluster = await place.cluster()
    latest = {one.topic for one in place.settings.sources.values() if one.start == "latest"}
    tps = [
        TopicPartition(topic, p)
        for topic in sorted(_read(place.settings))
        for p, one in enumerate(cluster.topics.get(topic, ()))
        if one.leader >= 0  # nobody else knows its offsets
    ]
    if not tps:
        return {}
    async with records.reader(place.settings) as consumer:
        begins, ends = await asyncio.gather(consumer.beginning_offsets(tps), consumer.end_offsets(tps))
    known = {tp: one.offset for tp, one in committed.items() if one.offset >= 0}
    for tp in tps:
        if tp.topic in latest:  # what was there before is not for us
            known.setdefault(tp, ends[tp])
    return {(tp.topic, tp.partition): Position(begins[tp], ends[tp], known.get(tp)) for tp in tps}


def _read(settings: Settings) -> set[str]:
    """The topics whose offsets our group commits."""
    name = names(settings)
    return {name.events, *(one.topic for one in settings.sources.values()), *map(name.to, settings.destinations)}


def judge_members(settings: Settings, state: str, members: Sequence[Member]) -> Iterator[Finding]:
    """`state` is the group's, as Kafka says it."""
    name = f"group {settings.kafka.prefix}"
    if any(not one.ours for one in members):
        hosts = sorted({one.host for one in members if not one.ours})
        yield problem(
            name,
            f"another program is in it, at {listed(hosts)}: it takes partitions that no worker then reads",
            "give that program another group id, or choose another kafka.prefix",
        )
        return
    if not members:
        yield ok(name, "no worker runs now")
        return
    yield from _readers(settings, name, members)
    yield from _addresses(name, members)
    most = settings.kafka.partitions
    if len(members) > most:
        yield warning(
            name,
            f"{len(members)} workers share {most} partitions: {len(members) - most} have nothing to do",
            f"{most} workers are enough (kafka.partitions)",
        )
    if state == "Stable":
        yield ok(name, f"{len(members)} workers on {len({one.host for one in members})} hosts")
    else:
        yield warning(
            name,
            f"its {len(members)} workers are sharing the partitions out ({state}): nothing is read meanwhile",
            "it ends within seconds; if it comes again and again, look at the workers' logs",
            "docs/runbook.md#capistreamforeignrows",
        )


def _readers(settings: Settings, name: str, members: Sequence[Member]) -> Iterator[Finding]:
    """One group has one set of topics: who has another gets no partitions."""
    wanted, told = _read(settings), [one for one in members if one.topics]
    more = sorted({topic for one in told for topic in one.topics if not _may_read(settings, topic)})
    less = sorted({topic for one in told for topic in wanted - one.topics})
    odd = sum(bool(wanted - one.topics) or any(not _may_read(settings, t) for t in one.topics) for one in told)
    if odd:
        parts = [f"not {listed(less)}"] if less else []
        parts += [f"also {listed(more)}"] if more else []
        yield warning(
            name,
            f"{odd} of {len(members)} workers have other sources or destinations than this configuration ({', '.join(parts)}): one "
            "party has the work, the other waits until those are stopped",
            "if this configuration is meant: stop the others one after the other, and start them with it. If they are of another "
            "installation: give one of the two another kafka.prefix",
            "docs/runbook.md#capistreamworkerapart",
        )


def _may_read(settings: Settings, topic: str) -> bool:
    """Is it of this configuration, tables included?"""
    name = names(settings)
    tables = ("seen", "held", *(f"outcomes.{one}" for one in settings.destinations))
    return topic in _read(settings) or topic in map(name.changelog, tables)


def _addresses(name: str, members: Sequence[Member]) -> Iterator[Finding]:
    """Workers find each other's part of an event by these."""
    urls = Counter(one.url for one in members if one.url)
    if twice := sorted(url for url, count in urls.items() if count > 1):
        yield problem(
            name,
            f"several workers say that they are {listed(twice)}: they overwrite each other where work is shared out",
            "give each its own view.advertise, or its own host or port",
        )
    alone = sorted(url for url in urls if urlsplit(url).hostname in LOOPBACK)
    if alone and len({one.host for one in members}) > 1:
        yield warning(
            name,
            f"workers on several hosts, and some say that they are {listed(alone)}: a look-up at another one lacks their part",
            "set view.host to an address that the other workers reach, or view.advertise",
        )


def judge_positions(positions: Mapping[tuple[str, int], Position], workers: int) -> Iterator[Finding]:
    """Of the group in each partition of each topic."""
    lost, ahead, waiting = defaultdict[str, int](int), defaultdict[str, int](int), Counter[str]()
    for (topic, _), one in positions.items():
        waiting[topic] += one.waiting
        if one.committed is not None and one.committed < one.begin:
            lost[topic] += one.begin - one.committed
        if one.committed is not None and one.committed > one.end:
            ahead[topic] += one.committed - one.end
    for topic, count in lost.items():
        yield problem(
            f"topic {topic}",
            f"{count:,} records were deleted before they were read",
            "raise its retention, then start more workers; send what is missing again from its source",
            "docs/runbook.md#capistreamunread",
        )
    for topic, count in ahead.items():
        yield problem(
            f"topic {topic}",
            f"the group stands {count:,} records past its end: it was made anew, or a broker lost records",
            "workers read it from its beginning again; was it deleted, or did a broker come back without its disk?",
        )
    said = ", ".join(f"{topic} {count:,}" for topic, count in waiting.most_common() if count)
    if said and not workers:
        yield warning("waiting", f"no worker runs, and records wait: {said}", "start a worker: capistream worker")
    else:
        yield ok("waiting", said or "nothing")


def judge_orders(settings: Settings, orders: Mapping[str, control.Order]) -> Iterator[Finding]:
    paused = [orders[name] for name in settings.destinations if name in orders and orders[name].paused]
    for one in paused:
        yield warning(
            f"destinations.{one.destination}",
            f"paused by {one.by} since {when(one.at)}" + (f": {one.reason}" if one.reason else ""),
            f"its events wait; capistream destinations resume {one.destination}",
            "docs/runbook.md#capistreamdestinationpaused",
        )
    if not paused:
        yield ok("orders", "no destination is paused")
