"""De-duplication beside Kafka Streams: the same as bench/dedup.py, against a small Java program (bench/peers/kafka_streams).

python bench/kafka_streams.py [--events 400000] [--rounds 5] [--quick] [--json] [--write]     its own embedded Kafka

Kafka Streams runs one thread with RocksDB and its changelog, at_least_once, writes acknowledged by all replicas, a commit a second:
as durable as ours, which promises that a crash may repeat an output of dedup and never lose one, and needs no transaction for that
(the record of what was delivered stops what is repeated). A JVM compiles while it runs, so the second half is told, too. It is
built with Maven and a JDK, in Debian `apt-get install maven openjdk-17-jdk-headless`; where these are not there, nothing is
measured.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import dedup
import orjson
import race
import report
from race import Time

PEER = Path(__file__).parent / "peers" / "kafka_streams"
BUILT = PEER / "target"
NAMES = ("capistream", "kafka_streams")
GOAL, GOAL_WARM = 1.5, 0.8  # × its events/s over the run; × its events per second of processor in the second half


def build() -> list[str] | None:
    """The command that runs the peer; None where it cannot be built."""
    java, javac, maven = (shutil.which(name) for name in ("java", "javac", "mvn"))
    if not (java and javac and maven):
        return None
    print("building the Kafka Streams program", file=sys.stderr)
    command = [maven, "--quiet", "--batch-mode", "package"]
    if subprocess.run(command, check=False, cwd=PEER, stdout=sys.stderr).returncode:
        raise SystemExit("Maven could not build the Kafka Streams program: it says above why")
    jars = os.pathsep.join([str(BUILT / "classes"), str(BUILT / "lib" / "*")])
    return [java, "-Xmx1g", "-cp", jars, "Dedup"]


class Races(dedup.Races):
    def __init__(self, brokers: str, folder: Path, streams: list[str]) -> None:
        super().__init__(brokers, folder)
        self.streams = streams

    def peer(self, name: str) -> list[str]:
        return self.streams if name == "kafka_streams" else super().peer(name)


def told(times: Mapping[str, Time], size: int) -> str:
    ours, theirs = (times[name] for name in NAMES)
    whole, warm = ours.events_per_s / theirs.events_per_s, ours.second_half_per_cpu / theirs.second_half_per_cpu

    def row(name: str, one: Time, *ratios: str) -> list[str]:
        figures = (one.events_per_s, one.second_half, one.per_cpu, one.second_half_per_cpu)
        return [name, *(f"{figure:,.0f}" for figure in figures), *ratios]

    goals = [
        report.goal(whole >= GOAL, f"≥ {GOAL} × events/s"),
        report.goal(warm >= GOAL_WARM, f"≥ {GOAL_WARM} × per CPU s, warm"),
    ]
    head = [
        f"{size} bytes, all paired", "events/s", "second half", "events per CPU s", "second half", "capistream is × as fast",
        "× per CPU s, second half", "goal",
    ]  # fmt: skip
    rows = [
        row("capistream", ours, "", "", ""),
        row("Kafka Streams", theirs, f"{whole:.2f}", f"{warm:.2f}", "; ".join(goals)),
    ]
    return report.table(head, rows)


def main() -> None:
    parser = report.parser(__doc__, "one round of 100,000 events")
    parser.add_argument("--events", type=int, default=400_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    if options.quick:
        options.events, options.rounds = 100_000, 1
    streams = build()
    if streams is None:
        why = "Kafka Streams needs Maven and a JDK (mvn, javac) to be built"
        print(f"skipped: {why}", file=sys.stderr)
        print(orjson.dumps({"skipped": why}).decode())
        return
    load, size = report.load(), 500
    with race.kafka() as (kafka, folder):
        races = Races(kafka.brokers, folder, streams)
        times = dedup.rounds(races, options.rounds, options.events, 1.0, size, NAMES)
    result = {
        name: its
        | {
            "second_half": round(times[name].second_half),
            "per_cpu_s": round(times[name].per_cpu),
            "second_half_per_cpu_s": round(times[name].second_half_per_cpu),
        }
        for name, its in race.told(times).items()
    }
    report.finish(options, told(times, size), result, load)


if __name__ == "__main__":
    main()
