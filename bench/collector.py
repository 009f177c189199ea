"""The collector: events that Kafka has acknowledged, by one process, against a server that does nothing.

python bench/collector.py [--rounds 5] [--seconds 6] [--connections 256] [--quick] [--json] [--write]   its own embedded Kafka

    single      a server's events, one a request: parsed, normalised, hashed, and in Kafka (acks=all) before the answer
    pixel       a browser's, which is given its cookies, the same way
    batch       100 of a server's in a request
    aiohttp     a bare aiohttp server that reads a body and answers 204; it gets the bodies of `single`

`app.cli collect` and the bare server are one process each, on uvloop. A third process makes the load (bench/peers/load.py), and
its processor time is told, too; Kafka is a fourth, on the same cores, and only the collector's requests need it. Every event has an
id, order and address of its own; each person is in five of them, one after the other. They take turns; medians.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import orjson
import race
import report

from app import processes
from app.events import Json

GOAL_SINGLE, GOAL_BATCH = 0.35, 12_000  # of the bare server's requests; events a second
PEERS = Path(__file__).parent / "peers"
EVENTS = 60_000  # until they come again
LOADS = {"single": ("server", 1), "pixel": ("pixel", 1), "batch": ("server", 100), "aiohttp": ("server", 1)}
AREAS = (212, 213, 305, 312, 415, 503, 602, 617, 702, 808)  # of phone numbers
KEYS = {"server": "sk_bench_bench_bench", "pixel": "wk_bench_bench"}

CONFIG = """
[kafka]
brokers = "{brokers}"
prefix = "bench"
partitions = 4
replication = 1

[sites.shop]
write_key = "wk_bench_bench"
secret_key = {{ env = "BENCH_SECRET" }}
country = "US"

[collector]
port = {port}

[destinations.meta]
sink = "meta"
dataset_id = "1234567890"
access_token = {{ env = "BENCH_SECRET" }}
browser_tag = "same_id"

[destinations.ga4]
sink = "ga4"
measurement_id = "G-BENCH12345"
api_secret = {{ env = "BENCH_SECRET" }}
browser_tag = "none"
"""


@dataclass(frozen=True)
class Found:
    requests_per_s: float  # that were taken
    refused: float  # part of the requests: 503, Kafka took too long
    cpu: float  # milliseconds of the server's processor time for a request
    load_cpu: float  # the same of the process that makes the load
    p50: float  # milliseconds
    p99: float


def event(number: int, source: str) -> Json:
    """As a shop reports it; about 600 bytes."""
    order, who = race.order(number), number // 5
    person = race.order(who)
    said: Json = {
        "event_name": "add_to_cart" if source == "pixel" else "purchase",
        "event_id": f"e-{order}",
        "time": int(time.time() * 1000),
        "user": {"email": f"Person.{person}@Example.com", "phone": f"({AREAS[who % 10]}) 555-{who // 10 % 10_000:04d}"},
        "ids": {"fbp": f"fb.1.1795420000000.{person}", "ga_client_id": f"{person}.1795420000"},
        "context": {"url": f"https://shop.example.com/p/{order}?utm_source=news", "user_agent": "Mozilla/5.0 (X11)"},
        "commerce": {
            "value": number % 100 + 0.5,
            "currency": "EUR",
            "items": [{"item_id": f"SKU-{number % 1000}", "item_name": "Shirt", "quantity": 1, "price": 9.5}],
        },
        "consent": race.GRANTED,
    }
    if source == "server":
        said["user"] |= {"first_name": f"Ada{who % 997}", "last_name": f"Lovelace{who % 9_973}", "city": "Berlin"}
        said["commerce"]["transaction_id"] = order
        said["context"]["ip"] = f"203.0.{who // 250 % 250}.{who % 250}"
    return said


def bodies(folder: Path, source: str, batch: int, count: int) -> Path:
    file = folder / f"{source}-{batch}"
    if not file.exists():
        parts = [[event(n, source) for n in range(i, i + batch)] for i in range(0, count, batch)]
        file.write_bytes(b"\n".join(orjson.dumps({"batch": part} if batch > 1 else part[0]) for part in parts))
    return file


@contextmanager
def server(name: str, folder: Path, brokers: str) -> Iterator[tuple[int, int]]:
    """(port, process id) of one that answers."""
    port = processes.free_port()
    if name == "aiohttp":
        command, path = [sys.executable, str(PEERS / "answer.py"), str(port)], "/"
    else:
        config = folder / "capistream.toml"
        config.write_text(CONFIG.format(brokers=brokers, port=port))
        command, path = [sys.executable, "-m", "app.cli", "collect", "--config", str(config)], "/readyz"
    process = processes.spawn(command, folder / f"{name}.log", {"BENCH_SECRET": KEYS["server"]})
    try:
        while not answers(f"http://127.0.0.1:{port}{path}", ready=name != "aiohttp"):
            if process.poll() is not None:
                raise SystemExit((folder / f"{name}.log").read_text()[-2000:])
            time.sleep(0.1)
        yield port, process.pid
    finally:
        processes.stop(process, 20)


def answers(url: str, *, ready: bool) -> bool:
    try:
        with urlopen(url, timeout=5):  # noqa: S310 (our own)
            return True
    except URLError as exc:
        return not ready and hasattr(exc, "status")  # it has no such page


def measure(name: str, folder: Path, brokers: str, options: Sequence[str], count: int) -> Found:
    source, batch = LOADS[name]
    file = bodies(folder, source, batch, count)
    with server(name, folder, brokers) as (port, pid):
        command = [sys.executable, str(PEERS / "load.py"), str(port), *options, KEYS[source], str(file)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as load:
            assert load.stdout is not None
            load.stdout.readline()
            cpu, begun = race.cpu(pid), time.perf_counter()
            line = load.stdout.readline()
            cpu, seconds = race.cpu(pid) - cpu, time.perf_counter() - begun
        if not line:
            raise SystemExit(f"no load for {name}; see {folder}")
    said = json.loads(line)
    n, failed = said["requests"], said["failed"]
    if failed == n:
        raise SystemExit(f"{name}: none of {n} requests was taken; see {folder}")
    taken = (n - failed) / seconds
    return Found(taken, failed / n, cpu / n * 1000, said["cpu_s"] / n * 1000, said["p50_ms"], said["p99_ms"])


def medians(rounds: Sequence[Found]) -> Found:
    names = Found.__dataclass_fields__
    return Found(*(statistics.median(getattr(one, name) for one in rounds) for name in names))


def told(found: dict[str, Found]) -> str:
    bare, rows = found["aiohttp"], []
    for name, one in found.items():
        batch = LOADS[name][1]
        ratio, events = one.requests_per_s / bare.requests_per_s, one.requests_per_s * batch
        goal = {
            "single": report.goal(ratio >= GOAL_SINGLE, f"≥ {GOAL_SINGLE} ×"),
            "batch": report.goal(events >= GOAL_BATCH, f"≥ {GOAL_BATCH:,} events/s"),
        }
        rows.append(
            [name, f"{one.requests_per_s:,.0f}", f"{events:,.0f}", f"{ratio:.2f}", f"{one.cpu:.3f} ms",
             f"{one.cpu / bare.cpu:.2f}", f"{one.load_cpu:.3f} ms", f"{one.p50:.0f} / {one.p99:.0f} ms",
             f"{one.refused:.1%}", goal.get(name, "")]
        )  # fmt: skip
    head = [
        "", "requests/s", "events/s", "aiohttp ×", "CPU a request", "its CPU ×", "CPU of the load", "p50 / p99",
        "refused", "goal",
    ]  # fmt: skip
    return report.table(head, rows)


def main() -> int:
    parser = report.parser(__doc__, "one round of 3 s each")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=6)
    parser.add_argument("--connections", type=int, default=256)
    parser.add_argument("--only", action="append", choices=LOADS, help="beside aiohttp")
    options = parser.parse_args()
    count = EVENTS
    if options.quick:
        options.rounds, options.seconds, count = 1, 3, EVENTS // 3
    names = [name for name in LOADS if name in (*(options.only or LOADS), "aiohttp")]
    load, found = report.load(), defaultdict[str, list[Found]](list)
    with race.kafka() as (kafka, folder):
        more = [str(options.connections), str(options.seconds)]
        for number in range(options.rounds):
            turn = number % len(names)
            for name in names[turn:] + names[:turn]:
                found[name].append(measure(name, folder, kafka.brokers, more, count))
    result = {name: medians(found[name]) for name in names}
    events = {name: one.requests_per_s * LOADS[name][1] for name, one in result.items()}
    said = {
        name: {"events_per_s": round(events[name]), "cpu_s_per_1000": round(one.cpu / LOADS[name][1], 4)}
        for name, one in result.items()
    }
    report.finish(options, told(result), said, load)
    return 0


if __name__ == "__main__":
    os.environ.setdefault("BENCH_SECRET", KEYS["server"])
    sys.exit(main())
