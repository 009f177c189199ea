"""The clocks: ours against Kafka's and the platforms', and the times of the sources' records.

Copies meet by their times, so clocks that differ by as much as a merge window part them. Nothing is written to find out:

    Kafka       wire.Quorum, which answers with the controller's time; and the newest record of `<prefix>.clock`, which a
                worker writes each second, and which a broker stamps
    platforms   the header Date of their answers
    sources     the timestamps of the newest records
"""

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from app import records, wire
from app.doctor.finding import Finding, listed, ok, problem, warning
from app.doctor.place import Place
from app.doctor.web import Answer, answers
from app.errors import Unavailable
from app.letters import when
from app.privacy import span
from app.settings import Settings

OFF = 2.0  # seconds that a clock may be off: a watermark allows for 0.5, and a copy must still find the other
LAST = 5  # records of a partition that are looked at
AGES = 946_684_800_000  # the year 2000 in milliseconds: what is before it was not written as milliseconds
TAIL = 3.0  # seconds to read the last records of a topic


@dataclass(frozen=True)
class Reading:
    """Another clock, as seen from here: it shows `ahead` seconds more than ours, and is known to within `within`."""

    whose: str
    ahead: float
    within: float

    @property
    def off(self) -> float:
        """By how much it certainly is."""
        return max(0.0, abs(self.ahead) - self.within)


@dataclass(frozen=True)
class Newest:
    """Of a topic."""

    stamp: int | None  # Unix milliseconds; None: it has no records, or none could be read
    records: int = 0  # that it has


async def check(place: Place) -> list[Finding]:
    try:
        readings = await _kafka(place)
    except Unavailable:  # the platforms' clocks will do
        readings = []
    return list(judge_clocks(place.settings, [*readings, *platforms(await answers(place))]))


async def check_sources(place: Place) -> list[Finding]:
    found = {name: await _newest(place, one.topic) for name, one in place.settings.sources.items()}
    return list(judge_sources(found, time.time() * 1000))


async def _kafka(place: Place) -> list[Reading]:
    found = []
    await place.cluster()  # so that a connection is there, and the time to make it does not count
    begun = time.time()
    with suppress(KafkaError, NotImplementedError):
        answer = await place.ask(wire.Quorum())
        if stamp := leaders_time(answer):
            found.append(reading("Kafka's controller", stamp / 1000, begun, time.time()))
    newest = await _newest(place, place.names.clock)
    if newest.stamp and (ahead := newest.stamp / 1000 - time.time()) > 0:  # it was stamped before we looked
        found.append(Reading(f"the broker of {place.names.clock}", ahead, 0.0))
    return found


async def _newest(place: Place, topic: str) -> Newest:
    """Raises Unavailable."""
    partitions = (await place.cluster()).topics.get(topic, ())
    tps = [TopicPartition(topic, p) for p, one in enumerate(partitions) if one.leader >= 0]
    if not tps:
        return Newest(None)
    async with records.reader(place.settings) as consumer:
        begins, ends = await asyncio.gather(consumer.beginning_offsets(tps), consumer.end_offsets(tps))
        count = sum(ends[tp] - begins[tp] for tp in tps)
        full = [tp for tp in tps if ends[tp] > begins[tp]]
        consumer.assign(full)
        for tp in full:
            consumer.seek(tp, max(begins[tp], ends[tp] - LAST))
        stamps: list[int] = []
        until = time.monotonic() + TAIL
        # the last ones may be marks of transactions, which nobody gets to see
        while (left := [tp for tp in full if await consumer.position(tp) < ends[tp]]) and time.monotonic() < until:
            for some in (await consumer.getmany(*left, timeout_ms=500)).values():
                stamps += [record.timestamp for record in some]
    return Newest(max(stamps, default=None), count)


def leaders_time(answer: Any) -> int | None:
    """The time at which the leader answered, in Unix milliseconds: it gives that as the time up to which it is caught up itself."""
    if answer.error_code:
        return None
    for topic in answer.topics:
        for _, code, leader, _, _, voters, *_ in topic[1]:
            times = [one[3] for one in voters if one[0] == leader and one[3] > 0]
            if times and not code:
                return int(times[0])
    return None


def reading(whose: str, theirs: float, asked: float, answered: float, rounded: float = 0.0) -> Reading:
    """A clock that showed `theirs`, rounded down to `rounded` seconds, at some time between our `asked` and `answered`."""
    ours = (asked + answered) / 2
    return Reading(whose, theirs + rounded / 2 - ours, (answered - asked) / 2 + rounded / 2)


def platforms(seen: Mapping[str, Answer]) -> list[Reading]:
    """Of the servers that told a date; each host once."""
    return list(
        {
            one.host: reading(one.host, one.date, one.asked, one.answered, rounded=1.0)
            for one in seen.values()
            if one.date is not None and one.public
        }.values()
    )


def judge_clocks(settings: Settings, readings: Sequence[Reading]) -> Iterator[Finding]:
    if not readings:
        yield warning(
            "our clock",
            "not compared: neither Kafka nor a platform told the time",
            "look at it yourself: timedatectl, or chronyc tracking",
        )
        return
    window = min((rule.merge_window for rule in settings.rules.values() if rule.expect), default=10.0)
    off = [one for one in readings if one.off > OFF]
    if not off:
        most = max(readings, key=lambda one: abs(one.ahead))
        yield ok("our clock", f"{_off(most)}; {len(readings)} clocks asked")
        return
    for one in off:
        tell = problem if one.off >= window else warning
        yield tell(
            "our clock" if len(off) == len(readings) else one.whose,
            f"{_off(one)}; copies wait {span(window)} for each other, by the times of different machines",
            "keep all machines on time: timedatectl, chronyc tracking"
            + ("" if len(off) < len(readings) else "; every clock asked says so, so it is this machine's"),
            "docs/runbook.md#capistreamclockbehind",
        )
        if len(off) == len(readings):
            return


def _off(one: Reading) -> str:
    if abs(one.ahead) <= one.within:
        return f"{one.whose} shows the same, within {one.within:.1f} s"
    return f"{one.whose} is {abs(one.ahead):.1f} s {'ahead of' if one.ahead > 0 else 'behind'} this machine"


def judge_sources(newest: Mapping[str, Newest], now: float) -> Iterator[Finding]:
    """`now` is in Unix milliseconds."""
    fine = []
    for name, one in newest.items():
        what = f"sources.{name}"
        if one.stamp is None:
            fine.append(f"{name} {'has no records' if not one.records else 'tells no time'}")
        elif one.stamp - now > OFF * 1000:
            ahead = (one.stamp - now) / 1000
            yield warning(
                what,
                f"its newest record is stamped {ahead:,.0f} s in the future ({when(one.stamp)}); such a record counts as of now",
                "set the clock of its producer; are its timestamps milliseconds of UTC?",
                "docs/runbook.md#capistreamclockbehind",
            )
        elif one.stamp < AGES:
            yield problem(
                what,
                f"its newest record is stamped {when(one.stamp)}: its conversions are older than their horizon, and are not sent",
                "let its producer give milliseconds since 1970, or none at all",
            )
        else:
            fine.append(f"{name} {_ago(now - one.stamp)} ago")
    if fine:
        yield ok("newest records", listed(fine))


def _ago(milliseconds: float) -> str:
    seconds = max(0.0, milliseconds / 1000)
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
