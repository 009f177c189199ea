"""Latency: how long after its last copy is in the shop's topic does a conversion reach the platforms?

python bench/latency.py [--seconds 20] [--conversions 20000] [--rounds 5] [--quick] [--json] [--write]     its own embedded Kafka

First the capacity: how many orders a second, all written at once. Then a steady flow at 10 %, 50 % and 80 % of it, each order's
second copy half a second behind its first one, to Meta, TikTok and Pinterest (bench/platforms.py).

    merged    from the moment before the second copy is produced to the first request with the conversion at a platform
    held      one order in ten has a lead, whose second copy never comes: from the end of its hold (2 s after its first copy)
    of a core the worker's processor time meanwhile

Each round starts a Kafka and a worker anew and measures its capacity; what is shown is the median of all rounds.

A hold ends with the log's clock, which goes once a second and half a second behind the time: docs/reliability.md.
"""

import asyncio
import statistics
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import orjson
import platforms
import race
import report
import system
from aiokafka import AIOKafkaProducer
from system import System

from app import keys

GOALS = {"50 %": 250}  # milliseconds, p99
SHARES = {"10 %": 0.1, "50 %": 0.5, "80 %": 0.8}
GAP = 0.5  # seconds between the two copies
HELD = 10  # every so manieth order has a lead, which waits for its hold's end
WINDOW = 2.0  # seconds of that hold
TICK = 0.002  # seconds between two looks whether something is due
LINGER = 5  # milliseconds of the producer: what Kafka's own client has by default since 4.0
CATCH_UP = 180.0  # seconds without anything new at a platform: longer than the longest pause between attempts
FIRST = 10_000_000  # order: those before are of the backlog
MORE = f'\n[events.generate_lead]\nmerge_window = "{WINDOW:g}s"\n'


class Flow:
    """Orders at a steady pace, when each was sent, and when it arrived where."""

    def __init__(self, one: System, producer: AIOKafkaProducer, client: platforms.Client) -> None:
        self.system, self.client = one, client
        self.merged: dict[str, float] = {}  # order -> Unix time just before its second copy was produced
        self.held: dict[str, float] = {}  # the same of a lead's only copy
        self.arrived: dict[str, dict[str, float]] = {name: {} for name in one.destinations}
        self._producer = producer
        self._issued = FIRST
        self._after: dict[str, int] = {}

    @classmethod
    @asynccontextmanager
    async def of(cls, one: System) -> AsyncIterator["Flow"]:
        async with (
            AIOKafkaProducer(bootstrap_servers=one.kafka.brokers, acks="all", linger_ms=LINGER) as producer,
            aiohttp.ClientSession() as http,
        ):
            client = platforms.Client(http, one.port)
            flow = cls(one, producer, client)
            flow._after = {name: its["events"] for name, its in (await client.counts()).items()}
            yield flow

    async def run(self, rate: float, seconds: float) -> float:
        """So many orders a second; returns how many it came to."""
        first, begun, behind = self._issued, time.monotonic(), deque[tuple[float, str]]()
        while True:
            now = time.monotonic() - begun
            while (due := (self._issued - first) / rate) <= min(now, seconds):
                order = race.order(self._issued)
                self._issued += 1
                await self._send(order, system.pixel(order))
                behind.append((due + GAP, order))
                if self._issued % HELD == 0:
                    lead = f"L{order}"
                    self.held[lead] = time.time()
                    await self._send(lead, system.pixel(lead, "generate_lead"))
            while behind and behind[0][0] <= now:
                _, order = behind.popleft()
                self.merged[order] = time.time()
                await self._send(order, system.server(order))
            if now > seconds and not behind:
                return (self._issued - first) / max(seconds, time.monotonic() - begun - GAP)
            await asyncio.sleep(TICK)

    async def _send(self, order: str, copy: Any) -> None:
        where = keys.partition(order, self.system.partitions)
        await self._producer.send(self.system.topic, orjson.dumps(copy), order.encode(), partition=where)

    async def look(self) -> None:
        """What arrived since the last look."""
        self.system.look()
        for name, known in self.arrived.items():
            found = await self.client.arrivals(name, self._after[name])
            self._after[name] += len(found)
            known.update(found)

    async def caught_up(self) -> None:
        """Wait until everything is everywhere."""
        last, moved = -1, time.monotonic()
        while missing := max(map(self.missing, self.arrived)):
            if missing != last:
                last, moved = missing, time.monotonic()
            elif time.monotonic() - moved > CATCH_UP:
                raise SystemExit(f"missing: { {name: self.missing(name) for name in self.arrived} }")
            await asyncio.sleep(0.2)
            await self.look()
        if any(its["twice"] for its in (await self.client.counts()).values()):
            raise SystemExit(f"some came twice: {await self.client.counts()}")

    def merged_in(self) -> list[float]:
        """Milliseconds, at each platform, of those that have arrived there."""
        return [
            1000 * (at - self.merged[o]) for its in self.arrived.values() for o, at in its.items() if o in self.merged
        ]

    def held_for(self) -> list[float]:
        """The same of the others, without the hold."""
        ends = {order: at + WINDOW for order, at in self.held.items()}
        return [1000 * (at - ends[o]) for its in self.arrived.values() for o, at in its.items() if o in ends]

    def missing(self, platform: str) -> int:
        return len(self.merged) + len(self.held) - len(self.arrived[platform])

    def forget(self) -> None:
        """What has been sent so far; all of it has arrived."""
        self.merged, self.held = {}, {}
        self.arrived = {name: {} for name in self.arrived}


def percentiles(values: Sequence[float]) -> dict[str, int]:
    cuts = statistics.quantiles(values, n=1000)
    return {"p50": round(cuts[499]), "p99": round(cuts[989]), "p999": round(cuts[998])}


def measure(conversions: int, seconds: float) -> dict[str, Any]:
    with system.with_capacity(conversions, MORE) as (one, capacity):
        return {"capacity": round(capacity), "shares": asyncio.run(_flows(one, capacity, seconds))}


def median(rounds: Sequence[Any]) -> Any:
    """Of each figure."""
    if isinstance(rounds[0], dict):
        return {name: median([one[name] for one in rounds]) for name in rounds[0]}
    return round(statistics.median(rounds))


async def _flows(one: System, capacity: float, seconds: float) -> dict[str, Any]:
    found = {}
    async with Flow.of(one) as flow:
        await flow.run(capacity * SHARES["10 %"], min(5.0, seconds))  # code and connections get warm
        await flow.caught_up()
        for name, share in SHARES.items():
            flow.forget()
            before, begun = system.workers(one.cpu()), time.monotonic()
            rate = await flow.run(capacity * share, seconds)
            cpu = 100 * (system.workers(one.cpu()) - before) / (time.monotonic() - begun)
            await flow.caught_up()
            merged, held = percentiles(flow.merged_in()), percentiles(flow.held_for())
            found[name] = {"rate": round(rate), "cpu": round(cpu), "merged": merged, "held": held}
            print(f"  at {name} of it: {found[name]}", file=sys.stderr)
    return found


def told(result: dict[str, Any]) -> str:
    rows = []
    for name, its in result["shares"].items():
        goal = GOALS.get(name)
        said = "" if goal is None else report.goal(its["merged"]["p99"] < goal, f"p99 < {goal} ms")
        figures = [f"{its[kind][p]:,}" for kind in ("merged", "held") for p in ("p50", "p99", "p999")]
        rows.append([name, f"{its['rate']:,}", f"{its['cpu']} %", *figures, said])
    merged, held = ["merged, ms: p50", "p99", "p99.9"], ["held, ms after its end: p50", "p99", "p99.9"]
    head = ["of capacity", "conversions/s", "of a core", *merged, *held, "goal"]
    return f"Capacity: {result['capacity']:,} conversions/s.\n\n{report.table(head, rows)}"


def main() -> None:
    parser = report.parser(__doc__, "one round of 5 s each, capacity by 5,000 conversions")
    parser.add_argument("--seconds", type=float, default=20, help="of each flow")
    parser.add_argument("--conversions", type=int, default=20_000, help="by which the capacity is measured")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    if options.quick:
        options.seconds, options.conversions, options.rounds = 5.0, 5_000, 1
    load = report.load()
    result = median([measure(options.conversions, options.seconds) for _ in range(options.rounds)])
    report.finish(options, told(result), result, load)


if __name__ == "__main__":
    main()
