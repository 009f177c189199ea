"""De-duplication: a topic full of events, one program that reads it; who is fastest?

python bench/dedup.py [--events 400000] [--rounds 5] [--quick] [--json] [--write]     its own embedded Kafka

    capistream  a worker: dedup with merge, RocksDB and changelog; without hold, and with holds for both copies
    faust       the program of Faust's tutorial, RocksDB (it gets a tenth of the events: it takes as long as the others)
    quix        Quix Streams, RocksDB
    aiokafka    the ceiling in Python: whole batches and a dict in memory

Each reads a topic of its own, 4 partitions, filled with the same events before it starts. It writes an output per id and its state
to a changelog, acknowledged by all replicas, and commits offsets each second (Faust and Quix Streams less often, as they are made).
All outputs are counted, and timed from the first ones to the last: no start counts. The programs take turns; medians of all rounds.
The second copy of a pair stands 2,000 events behind the first.
"""

import asyncio
import itertools
import os
import shutil
import subprocess
import sys
import time
import venv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import orjson
import race
import report
from aiokafka.admin import AIOKafkaAdminClient
from race import Record, Time

from app import keys, processes
from app.events import Json

HERE = Path(__file__).parent
QUIX = HERE.parent / ".venv-bench"
GOALS = {"faust": 20.0, "quix": 2.5, "aiokafka": 0.55}
GOAL_HELD = {"quix": 1.5}
CONTESTANTS = ("capistream", "capistream held", "quix", "aiokafka", "faust")
APART = 2_000  # events between two copies

CONFIG = """
[kafka]
brokers = "{brokers}"
prefix = "{prefix}"
partitions = 4
replication = 1

[sites.shop]
write_key = "wk_bench_bench"
secret_key = {{ env = "BENCH_SECRET" }}

[events.{name}]
expect = {expect}

[view]
port = {port}

[worker]
data_dir = "{folder}/state"
"""


def event(number: int, copy: int, size: int) -> Json:
    source = ("pixel", "server")[copy]
    now = int(time.time() * 1000)
    said: Json = {
        "v": 1,
        "event_id": f"e{race.order(number)}",
        "event_name": "add_to_cart",
        "site": "shop",
        "source": source,
        "time": now,
        "received": now,
        "origin": {"topic": "shop.events", "partition": copy, "offset": number},
        **({"ids": {"ga_client_id": f"{number}.1795420000"}} if copy == 0 else {}),
        "commerce": {"value": number % 100 + 0.5, "currency": "EUR"},
        "consent": race.GRANTED,
    }
    said["custom"] = {"note": "x" * max(0, size - len(orjson.dumps(said)) - 24)}
    return said


def records(events: int, paired: float, size: int) -> tuple[Iterator[Record], int]:
    """(the topic, how many different ids are in it). `paired`: part of the ids that come twice."""
    ids = round(events / (1 + paired))

    def copies() -> Iterator[tuple[int, int]]:
        for number in itertools.count():
            if number < ids:
                yield number, 0
            if 0 <= number - APART < ids and twice(number - APART):
                yield number - APART, 1
            if number - APART >= ids:
                return

    def twice(number: int) -> bool:
        return int((number + 1) * paired) > int(number * paired)

    def record(number: int, copy: int) -> Record:
        said = event(number, copy, size)
        return keys.partition(said["event_id"], race.PARTITIONS), keys.key(said), orjson.dumps(said)  # type: ignore[arg-type]

    return (record(*one) for one in copies()), ids


def quix() -> str:
    """The Python that has Quix Streams; installed on first use."""
    if not (QUIX / ".done").exists():
        print("installing Quix Streams in .venv-bench, once", file=sys.stderr)
        wanted = ["--require-hashes", "-r", str(HERE / "peers" / "requirements.txt")]
        try:
            venv.create(QUIX, clear=True, with_pip=True)
            subprocess.run([QUIX / "bin" / "python", "-m", "pip", "install", "--quiet", *wanted], check=True)
        except subprocess.CalledProcessError as exc:
            others = " ".join(f"--only {name!r}" for name in CONTESTANTS if name != "quix")
            raise SystemExit(f"Quix Streams cannot be installed ({exc}); without it: {others}") from None
        (QUIX / ".done").touch()
    return str(QUIX / "bin" / "python")


class Races:
    def __init__(self, brokers: str, folder: Path) -> None:
        self.brokers, self.folder, self.number = brokers, folder, 0

    def run(self, name: str, events: int, paired: float, size: int, *, held: bool = False) -> Time:
        self.number += 1
        prefix, folder = f"race{self.number}", self.folder / f"race{self.number}"
        folder.mkdir()
        source, output = f"{prefix}.events", f"{prefix}.conversions"
        ready, ids = records(events, paired, size)
        env = {
            "BROKER": self.brokers,
            "SOURCE": source,
            "OUTPUT": output,
            "FOLDER": str(folder),
            "BENCH_SECRET": "x" * 20,
        }
        if name == "capistream":
            config = folder / "capistream.toml"
            expect = '["pixel", "server"]' if held else "[]"
            port = processes.free_port()
            config.write_text(
                CONFIG.format(
                    brokers=self.brokers, prefix=prefix, name="add_to_cart", expect=expect, folder=folder, port=port
                )
            )
            command = [sys.executable, "-m", "app.cli", "worker", "--config", str(config)]
            subprocess.run(
                [sys.executable, "-m", "app.cli", "topics", "apply", "--config", str(config)],
                check=True, env={**os.environ, **env}, stdout=subprocess.DEVNULL,
            )  # fmt: skip
        else:
            command = self.peer(name)
            asyncio.run(race.create(self.brokers, [source, output]))

        async def go() -> Time:
            count = await race.fill(self.brokers, source, ready)
            log, apart = folder / "log", APART if paired else 0
            return await race.race(self.brokers, command, env, log, output, events=count, outputs=ids, apart=apart)

        found = asyncio.run(go())
        if found.outputs != ids:
            raise SystemExit(f"{name}: {found.outputs} outputs of {ids} ids")
        asyncio.run(self._clear(prefix))
        shutil.rmtree(folder)
        return found

    def peer(self, name: str) -> list[str]:
        """The command that runs another contestant than ours."""
        python = quix() if name == "quix" else sys.executable
        program = {"faust": "tutorial.py", "quix": "quix.py", "aiokafka": "plain.py"}[name]
        return [python, str(HERE / "peers" / program), *(["worker"] if name == "faust" else [])]

    async def _clear(self, prefix: str) -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.brokers)
        await admin.start()
        await admin.delete_topics([name for name in await admin.list_topics() if prefix in name])
        await admin.close()


def rounds(races: Races, count: int, events: int, paired: float, size: int, names: Sequence[str]) -> Mapping[str, Time]:
    found = []
    for number in range(count):
        one = {}
        for name in names if number % 2 == 0 else reversed(names):
            who, held = name.removesuffix(" held"), name.endswith(" held")
            one[name] = races.run(who, events // 10 if who == "faust" else events, paired, size, held=held)
            print(f"  round {number + 1} {name}: {one[name].events_per_s:,.0f} events/s", file=sys.stderr)
        found.append({name: one[name] for name in names})
    return race.medians(found)


def told(times: Mapping[str, Time], what: str) -> str:
    ours = times["capistream"]

    def row(name: str, time_: Time) -> list[str]:
        ratio = ours.events_per_s / time_.events_per_s
        goal = GOALS.get(name)
        said = "" if goal is None else report.goal(ratio >= goal, f"≥ {goal:g}")
        if name.endswith(" held") and "quix" in times:
            ratio = time_.events_per_s / times["quix"].events_per_s
            said = report.goal(ratio >= GOAL_HELD["quix"], f"≥ {GOAL_HELD['quix']:g} × quix ({ratio:.2f})")
            return [name, f"{time_.events_per_s:,.0f}", f"{time_.cpu_s:.1f}", "", said]
        return [name, f"{time_.events_per_s:,.0f}", f"{time_.cpu_s:.1f}", f"{ratio:.2f}", said]

    head = [what, "events/s", "CPU s", "capistream is × as fast", "goal"]
    return report.table(head, (row(name, one) for name, one in times.items()))


def main() -> int:
    parser = report.parser(__doc__, "one round of 100,000 events of 500 bytes, all of them paired")
    parser.add_argument("--events", type=int, default=400_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", action="append", choices=CONTESTANTS, help="may be given more than once")
    options = parser.parse_args()
    names = options.only or CONTESTANTS
    if "quix" in names:
        quix()  # installed before anything is measured
    loads = [(500, 1.0), (500, 0.5), (500, 0.0), (2_000, 1.0)]
    if options.quick:
        options.events, options.rounds, loads = 100_000, 1, loads[:1]
    results: list[Mapping[str, Time]] = []
    text, load = "", report.load()
    with race.kafka() as (kafka, folder):
        races = Races(kafka.brokers, folder)
        for size, paired in loads:
            # where an id comes once a hold ends with the clock, not with a copy: that is waiting, and no work
            its = [name for name in names if paired == 1.0 or not name.endswith(" held")]
            results.append(rounds(races, options.rounds, options.events, paired, size, its))
            if "capistream" in its:
                text += told(results[-1], f"{size} bytes, {paired:.0%} paired") + "\n\n"
    report.finish(options, text, race.told(results[0]), load)
    return 0


if __name__ == "__main__":
    sys.exit(main())
