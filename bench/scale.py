"""Scale: the same orders for 1, 2 and 4 workers. What does it cost all of them together?

python bench/scale.py [--conversions 60000] [--rounds 5] [--quick] [--json] [--write]     its own embedded Kafka

The whole way, as in bench/pipeline.py with the platforms that take batches: a shop's topic, two copies of each order, merged, sent.
With as many cores as workers the rate would grow with them; on fewer the processor time for 1,000 events (copies) of all workers
together tells whether they get in each other's way. Workers that wait for nothing but the clock cost something, too, and it is in
there; so is what each new one pays once, in its first second, and so many orders make little of that. Medians of all rounds.
"""

import statistics
from collections.abc import Mapping, Sequence

import report
import system
from system import Drained

GOAL = 1.1  # × the processor time of one worker
COPIES = 2


def figures(rounds: Sequence[Drained], events: int) -> dict[str, float]:
    return {
        "events_per_s": round(statistics.median(events / one.seconds for one in rounds)),
        "cpu_s_per_1000": round(statistics.median(system.workers(one.cpu) for one in rounds) * 1000 / events, 3),
    }


def told(result: Mapping[int, Mapping[str, float]]) -> str:
    first = next(iter(result.values()))

    def row(count: int, its: Mapping[str, float]) -> list[str]:
        ratio = its["cpu_s_per_1000"] / first["cpu_s_per_1000"]
        faster = its["events_per_s"] / first["events_per_s"]
        said = "" if its is first else report.goal(ratio <= GOAL, f"≤ {GOAL}")
        cpu = f"{its['cpu_s_per_1000']:.3f}"
        return [str(count), f"{its['events_per_s']:,}", f"{faster:.2f}", cpu, f"{ratio:.2f}", said]

    head = ["workers", "events/s", "×", "CPU s of all workers per 1,000 events", "×", "goal"]
    return report.table(head, [row(*one) for one in result.items()])


def main() -> None:
    parser = report.parser(__doc__, "one round of 5,000 conversions, for 1 and 2 workers")
    parser.add_argument("--conversions", type=int, default=60_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    counts = [1, 2, 4]
    if options.quick:
        options.conversions, options.rounds, counts = 5_000, 1, [1, 2]
    load = report.load()
    cases = {count: {"workers": count} for count in counts}
    found = system.rounds(cases, options.conversions, options.rounds)
    result = {count: figures(rounds, COPIES * options.conversions) for count, rounds in found.items()}
    report.finish(options, told(result), {str(count): its for count, its in result.items()}, load)


if __name__ == "__main__":
    main()
