"""The whole way: orders on a shop's topic -> normalise -> merge -> route -> platforms, two copies of each, on these cores.

python bench/pipeline.py [--conversions 40000] [--rounds 5] [--workers 1 --workers 2] [--quick] [--json] [--write]     its own Kafka

    batching    Meta, TikTok and Pinterest: as many events a request as they take
    with GA4    these, and GA4, which gets a request of its own for each person, 64 of them at once

The workers wait until all orders are written at once; timed from the first record to the arrival of the last conversion at the
last platform. The platforms are one small process (bench/platforms.py) that answers as they do. Everything is as durable as in
production, and what is kept by default is kept: state, changelogs, receipts, and each request for the pages. Medians of all rounds.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import platforms
import report
import system
from system import Drained

KINDS = {"batching": platforms.BATCHING, "with GA4": platforms.ALL}
GOALS = {"batching": 5_000, "with GA4": 1_500}  # conversions a second

Case = tuple[str, int]  # kind, number of workers


def figures(rounds: Sequence[Drained], conversions: int) -> dict[str, float]:
    """Medians. Processor time is in seconds per 1,000 conversions."""

    def each(of: Callable[[Drained], float]) -> float:
        return statistics.median(map(of, rounds))

    return {
        "conversions_per_s": round(each(lambda one: conversions / one.seconds)),
        "second_half": round(each(lambda one: one.second_half)),
        "cpu_workers": round(each(lambda one: system.workers(one.cpu)) * 1000 / conversions, 3),
        "cpu_kafka": round(each(lambda one: one.cpu["kafka"]) * 1000 / conversions, 3),
        "cpu_platforms": round(each(lambda one: one.cpu["platforms"]) * 1000 / conversions, 3),
    }


def told(result: Mapping[Case, Mapping[str, float]]) -> str:
    def row(case: Case, its: Mapping[str, float]) -> list[str]:
        kind, workers = case
        rate, goal = its["conversions_per_s"], GOALS[kind]
        cpu = [f"{its[f'cpu_{name}']:.3f}" for name in ("workers", "kafka", "platforms")]
        said = report.goal(rate >= goal, f"≥ {goal:,}")
        return [kind, str(workers), f"{rate:,}", f"{its['second_half']:,}", *cpu, f"{rate / goal:.2f}", said]

    head = [
        "destinations", "workers", "conversions/s", "second half", "CPU s per 1,000: workers", "Kafka", "platforms", "× the goal",
        "goal",
    ]  # fmt: skip
    return report.table(head, [row(*one) for one in result.items()])


def main() -> None:
    parser = report.parser(__doc__, "one round of 10,000 conversions, one worker")
    parser.add_argument("--conversions", type=int, default=40_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, action="append", help="may be given more than once; default 1 and 2")
    options = parser.parse_args()
    if options.quick:
        options.conversions, options.rounds, options.workers = 10_000, 1, [1]
    load = report.load()
    cases: dict[Case, dict[str, Any]] = {
        (kind, workers): {"destinations": KINDS[kind], "workers": workers}
        for kind in KINDS
        for workers in options.workers or [1, 2]
    }
    found = system.rounds(cases, options.conversions, options.rounds)
    result = {case: figures(rounds, options.conversions) for case, rounds in found.items()}
    by_name = {f"{kind}, workers: {workers}": its for (kind, workers), its in result.items()}
    report.finish(options, told(result), by_name, load)


if __name__ == "__main__":
    main()
