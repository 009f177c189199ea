"""Soak: half of what it can, for ten minutes. Does the worker's memory stay flat, and bounded while a platform is down?

python bench/soak.py [--minutes 10] [--conversions 20000] [--quick] [--json] [--write]     its own embedded Kafka

The flow of bench/latency.py at half the capacity, which is measured first. Then, for a third of that time, Meta answers 503; then
it is up again, and everything that waited has to arrive, once. The worker's memory (RSS) is looked at each second; its slope is by
least squares over the second half of the time before Meta went down.
"""

import asyncio
import statistics
import sys
from collections.abc import Sequence
from typing import Any

import backlog
import latency
import race
import report
import system
from latency import Flow
from system import System

GOAL = 1.0  # MiB a minute
VICTIM = "meta"


class Memory:
    """Of the worker, in MiB, once a second."""

    def __init__(self, one: System) -> None:
        self.sizes: list[float] = []
        self._pid = one.children["worker 1"].pid

    async def watch(self, flow: Flow) -> None:
        while True:
            self.sizes.append(race.rss(self._pid))
            await flow.look()
            await asyncio.sleep(1)


def slope(sizes: Sequence[float]) -> float:
    """MiB a minute over the second half, by least squares."""
    half = sizes[len(sizes) // 2 :]
    return 60 * statistics.linear_regression(range(len(half)), half).slope


async def soak(one: System, capacity: float, minutes: float) -> dict[str, Any]:
    memory = Memory(one)
    async with Flow.of(one) as flow, asyncio.TaskGroup() as group:
        watching = group.create_task(memory.watch(flow))
        rate = await flow.run(capacity / 2, 60 * minutes)
        well, sizes = latency.percentiles(flow.merged_in()), list(memory.sizes)
        print(f"  {VICTIM} is down", file=sys.stderr)
        await flow.client.down(VICTIM, down=True)
        await flow.run(capacity / 2, 20 * minutes)
        waiting = flow.missing(VICTIM)
        await flow.client.down(VICTIM, down=False)
        print(f"  {VICTIM} is up again, {waiting:,} wait for it", file=sys.stderr)
        watching.cancel()
        await flow.caught_up()
    return {
        "capacity": round(capacity),
        "rate": round(rate),
        "minutes": minutes,
        "mib": [round(sizes[min(len(sizes) - 1, round(part * len(sizes) / 4))]) for part in range(5)],
        "mib_per_minute": round(slope(sizes), 2),
        "merged": well,
        "waiting": waiting,
        "most_mib": round(max(memory.sizes)),
        "bound_mib": backlog.bound(one.config, 1),
    }


def measure(conversions: int, minutes: float) -> dict[str, Any]:
    with system.with_capacity(conversions, latency.MORE) as (one, capacity):
        return asyncio.run(soak(one, capacity, minutes))


def told(result: dict[str, Any]) -> str:
    grows, most, bound = result["mib_per_minute"], result["most_mib"], result["bound_mib"]
    rows = [
        ["memory at each quarter, MiB", " ".join(map(str, result["mib"])), ""],
        ["more a minute, second half, MiB", grows, report.goal(abs(grows) <= GOAL, f"≤ {GOAL:g}")],
        [f"most with {VICTIM} down, MiB", most, report.goal(most <= bound, f"≤ {bound}")],
        [f"conversions that waited for {VICTIM}", f"{result['waiting']:,}", ""],
        ["merged, ms: p50, p99, p99.9", " ".join(f"{ms:,}" for ms in result["merged"].values()), ""],
    ]
    head = [f"{result['rate']:,} conversions/s for {result['minutes']:g} min", "measured", "goal"]
    return report.table(head, rows)


def main() -> None:
    parser = report.parser(__doc__, "30 s, and 10 s with a platform down; capacity by 5,000 conversions")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--conversions", type=int, default=20_000, help="by which the capacity is measured")
    options = parser.parse_args()
    if options.quick:
        options.minutes, options.conversions = 0.5, 5_000
    load = report.load()
    result = measure(options.conversions, options.minutes)
    report.finish(options, told(result), result, load)


if __name__ == "__main__":
    main()
