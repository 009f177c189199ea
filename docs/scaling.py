"""How large: workers, partitions, disk and traffic for so many events a second. docs/scaling.md explains it and has its tables.

python docs/scaling.py --events 10000 [--per-worker N] [--destinations 5] [--json]

What records and rows weigh is found out by sending the demo's traffic through the pipeline's own functions, without Kafka: of a
shop with five platforms, which get all that they take and that was consented to. What a worker manages, how RocksDB packs rows and
how fast they are restored has to be measured; the figures below are those of one machine.
"""

import argparse
import math
import string
import sys
import zlib
from collections import defaultdict
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

import msgspec
import orjson

from app import dedup, keys, outcome_rows, preview, receipts, settings, topics, trace
from app.delivery import Job
from app.demo import traffic
from app.demo.run import SESSIONS
from app.events import Event
from app.normalize import Inlet, Normalized, normalize, wanted_variants
from app.prepare import Final, Masked, prepare
from app.shape import as_event
from sinks import SINKS
from sinks._base import Payload

DEMO = Path(__file__).parent.parent / "app" / "demo" / "demo.toml"
NOW = 1_795_420_800_000
DAY = 86_400.0

PER_WORKER = 1_000  # copies a second that one worker takes from end to end: bench/backlog.py, events_per_s
DISK = 0.5  # bytes of RocksDB to a byte of rows: bench/state.py, bytes_per_key to row_bytes
RESTORE = 150_000  # rows a second that a worker restores: bench/state.py, two for each of its keys
LOAD = 0.5  # of what a worker manages, day by day: the rest is for peaks, and for the partitions of one that died
RECORD = 20  # bytes of a record in Kafka beside key and value
PACKED = ("receipts",)  # topics that the brokers compress, as app/topics.py makes them
TOGETHER = 50  # records in a batch, where batches are compressed
REPLICATION = 3
#: What a trace says beside the request.
ANSWERED = {"attempt": 1, "events": 20, "seconds": 0.123, "status": 200, "answer": "x" * 60, "outcome": "delivered"}
RATES = (100, 1_000, 10_000, 100_000)
PARTITIONS = (12, 24, 48, 96, 192, 384, 768)


@dataclass
class Weights:
    """What copies become, all destinations together. Topics and tables are without prefix and destination."""

    copies: int = 0
    conversions: int = 0
    requests: int = 0  # bytes to the platforms
    #: (topic or table, destination where it is of one) -> what is written
    texts: dict[tuple[str, str], list[bytes]] = field(default_factory=lambda: defaultdict(list))
    row_days: float = 0.0  # rows, times the days that they stay
    byte_days: float = 0.0  # the same of their bytes

    def record(self, topic: str, key: bytes, value: bytes, destination: str = "") -> None:
        self.texts[topic, destination].append(key + value)

    def row(self, table: str, key: bytes, value: bytes, days: float, destination: str = "") -> None:
        self.record(table, key, value, destination)
        self.row_days += days
        self.byte_days += days * (len(key) + len(value))

    def of(self, *topics: str) -> list[list[bytes]]:
        """What is written to these; to all, where none is named."""
        return [texts for (topic, _), texts in self.texts.items() if topic in (topics or (topic,))]

    def bytes(self, *topics: str) -> float:
        """In Kafka, for a copy."""
        return sum(RECORD + len(text) for texts in self.of(*topics) for text in texts) / self.copies

    def gzipped(self, *topics: str) -> float:
        """The same, compressed."""
        batches = (
            b"".join(texts[n : n + TOGETHER]) for texts in self.of(*topics) for n in range(0, len(texts), TOGETHER)
        )
        return sum(len(zlib.compress(batch)) for batch in batches) / self.copies


def config(partitions: int = 12, destinations: int = 5) -> settings.Settings:
    """The demo's, with the first of its destinations."""
    text = string.Template(DEMO.read_text()).substitute(
        brokers="127.0.0.1:9092",
        replication=REPLICATION,
        prefix="capistream",
        topic="shop.orders",
        write_key="wk_scaling",
        sandbox="https://platforms.example",
        collector_port=8080,
        view_port=6066,
        data_dir="/var/lib/capistream",
    )
    found = settings.parse(text)
    kafka = found.kafka.model_copy(update={"partitions": partitions})
    chosen = dict(list(found.destinations.items())[:destinations])
    return found.model_copy(update={"kafka": kafka, "destinations": chosen})


def copies(known: settings.Settings) -> list[Event]:
    """What the collector and the source make of the demo's traffic."""
    site, found = known.sites["shop"], list[Event]()
    for number, line in enumerate(traffic.load(SESSIONS)):
        via, body = line["via"], line["body"]
        if not isinstance(body, dict):
            continue
        inlet = Inlet(
            via,
            "segment" if via == "segment" else "capistream",
            "shop",
            "pixel" if via == "pixel" else "server",
            country=site.country,
            keep=wanted_variants(known),
        )
        body = {"type": "track", **body} if via == "segment" else body
        extra = {"ip": line["ip"], "user_agent": line["user_agent"]} if via == "pixel" else None
        origin: Any = {"topic": "shop.orders", "partition": 2, "offset": number}
        results = normalize(body, inlet, NOW, origin if via == "bus" else {"request": f"{number:032x}"}, extra)
        found += [one.event for one in results if isinstance(one, Normalized)]
    return found


@cache
def weights(destinations: int = 5) -> Weights:
    known = config(destinations=destinations)
    taken = copies(known)
    result = preview.merged(taken, known, NOW)
    found = Weights(len(taken), len(result.closed))
    for copy in taken:
        found.record("events", keys.key(copy), orjson.dumps(copy))
    for key, row in result.seen.items():
        if row is not None and key != dedup.MEMORY:
            horizon = known.rule(keys.parts(key.removeprefix(dedup.ALIAS))[2]).horizon
            found.row("seen", key, row, max(horizon, known.view.journey_retention) / DAY)
    for closed in result.closed:
        found.record("conversions", closed.key, msgspec.json.encode(closed.record()))
        for name in known.destinations:
            _at_destination(name, closed, known, found)
    return found


def _at_destination(name: str, closed: dedup.Closing, known: settings.Settings, found: Weights) -> None:
    one, route, event = known.destinations[name], closed.decision.routes[name], as_event(closed.event)
    sink, receipt = SINKS[one.sink](one), partial(receipts.row, event, name, now=NOW, config=known.hash)
    if route.state != "queued":
        found.record("receipts", *receipt(route.state, reason=route.reason, basis=route.basis)[:2], name)
        return
    found.record("to", closed.key, orjson.dumps({"v": 1, "event": event, "basis": route.basis}), name)
    basis, prepared = prepare(name, event, one, sink, NOW / 1000)
    for made in prepared:
        final = Final("delivered") if isinstance(made.found, Payload) else made.found
        key = closed.key + outcome_rows.NAME + made.name.encode()
        job = Job(key, 0, event, made.name, basis, Payload("", {}), made.size, attempts=1)
        row = receipt(final.outcome, name=made.name, reason=final.reason, basis=basis, attempts=1)
        found.record("receipts", *row[:2], name)
        days = topics.outcomes_kept(sink.limits) / 1000 / DAY
        found.row("outcomes", key, outcome_rows.outcome(job, final, NOW), days, name)
        if isinstance(made.found, Payload):
            request = sink.request([made.found], Masked())
            found.record("trace", closed.key, trace.row(job, name, request, NOW / 1000, ANSWERED), name)
            found.requests += made.size


def plan(events: float, *, per_worker: float = PER_WORKER, destinations: int = 5) -> dict[str, float]:
    """For so many copies a second. Bytes are decimal, times in seconds."""
    weighed = weights(destinations)
    workers = math.ceil(events / (per_worker * LOAD))
    partitions = next((n for n in PARTITIONS if n >= 2 * workers), 2 * workers)
    known = config(partitions, destinations)
    as_made, gzipped = (
        sum(events * size(topic) * seconds for topic, seconds in _retentions(known))
        for size in (lambda topic: weighed.gzipped(topic) if topic in PACKED else weighed.bytes(topic), weighed.gzipped)
    )
    written = events * weighed.bytes()
    rows, tables = (events * DAY * days / weighed.copies for days in (weighed.row_days, weighed.byte_days))
    return {
        "copies": events,
        "conversions": round(events * weighed.conversions / weighed.copies),
        "workers": workers,
        "partitions": partitions,
        "replicas": sum(topic.partitions for topic in topics.plan(known)) * REPLICATION,
        "written": round(written * REPLICATION / 1e6, 1),
        "logs": round(as_made * REPLICATION / 1e12, 2),
        "gzipped": round(gzipped * REPLICATION / 1e12, 2),
        "changelogs": round(tables * REPLICATION / 1e12, 2),
        "rows": round(rows / 1e6),
        "disk": round(tables * DISK / workers / 1e9),
        "memory": round(_memory(partitions / workers, destinations) / 1e9, 1),
        "restore": round(rows / workers / RESTORE / 3600, 1),
        "platforms": round(events * weighed.requests / weighed.copies / 1e6, 2),
    }


def _retentions(known: settings.Settings) -> list[tuple[str, float]]:
    """(topic, seconds), where records are deleted by their age. What a destination is through with is deleted sooner."""
    names = topics.names(known)
    seconds = {topic.name: int(topic.config.get("retention.ms", 0)) / 1000 for topic in topics.plan(known)}
    found = [(topic, seconds[f"{names.prefix}.{topic}"]) for topic in ("events", "conversions", "receipts", "trace")]
    return [*found, ("to", known.kafka.replay_window)]


def _memory(partitions: float, destinations: int) -> float:
    """Of RocksDB: a database a partition and table, each with a cache and two write buffers of 8 MiB."""
    return partitions * (2 + destinations) * 3 * (8 << 20)


HEAD = {
    "copies": "copies a second",
    "conversions": "conversions a second",
    "workers": "workers",
    "partitions": "`kafka.partitions`",
    "replicas": "partitions in Kafka, with their copies",
    "written": "written to Kafka, MB/s",
    "logs": "topics in Kafka, TB",
    "gzipped": "the same, all of them compressed, at best",
    "changelogs": "changelogs in Kafka, TB",
    "rows": "rows remembered, million",
    "disk": "disk of a worker, GB",
    "memory": "RocksDB's memory in a worker, at most, GB",
    "restore": "until a lost disk is restored, h",
    "platforms": "to the platforms, MB/s",
}


def table(rates: tuple[float, ...], **given: Any) -> str:
    """In Markdown, a column for each rate."""
    plans = [plan(rate, **given) for rate in rates]
    lines = [[words, *(f"{one[name]:,}" for one in plans)] for name, words in HEAD.items()]
    head, *rest = ["| " + " | ".join(line) + " |\n" for line in lines]
    return head + "|" + " --- |" * (len(plans) + 1) + "\n" + "".join(rest)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--events", type=float, action="append", help="copies a second, from browsers and back ends together"
    )
    parser.add_argument(
        "--per-worker", type=float, default=PER_WORKER, help=f"that one worker takes; default {PER_WORKER}"
    )
    parser.add_argument("--destinations", type=int, default=5, choices=range(1, 6))
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    rates, more = (
        tuple(given.events or RATES),
        {"per_worker": given.per_worker, "destinations": given.destinations},
    )
    if given.json:
        sys.stdout.buffer.write(
            b"".join(orjson.dumps(plan(rate, **more), option=orjson.OPT_APPEND_NEWLINE) for rate in rates)
        )
    else:
        print(table(rates, **more), end="")


if __name__ == "__main__":
    main()
