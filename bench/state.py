"""State: bytes on disk per seen key, and how long a worker with an empty disk needs to recover them from the changelog.

python bench/state.py [--keys 1000000] [--json] [--write]     its own embedded Kafka; rows are those of a purchase's two copies
"""

import asyncio
import os
import random
import shutil
import string
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import orjson
import race
import report

from app import dedup, keys, processes, settings, topics
from app.events import Origin
from app.kafka import Kafka
from app.normalize import Inlet, Normalized, normalize

GOALS = {"bytes_per_key": 200, "restore_s": 60}
DEMO = Path(__file__).parent.parent / "app" / "demo" / "demo.toml"


def rows(count: int) -> Iterator[tuple[str, bytes, bytes]]:
    """(id, key, row) as dedup writes them for purchases of two copies, keyed by order number: with random ids, which do not
    compress, and with the alias row that leads from the event id to the order."""
    draft = {"event_name": "purchase", "event_id": "EVENT", "commerce": {"transaction_id": "ORDER"}}
    partition = dedup.Partition(settings.Settings().rule, lambda _: {})
    records = []
    inlets = [Inlet("bench", "capistream", "shop", "pixel"), Inlet("bench", "capistream", "shop", "server")]
    for offset, inlet in enumerate(inlets):
        origin: Origin = {"topic": "shop.orders", "partition": 2, "offset": 4_711_000}
        (copy,) = normalize(draft, inlet, 1_795_420_800_000, origin)
        assert isinstance(copy, Normalized)
        value = orjson.dumps(copy.event)
        where = {"offset": 1_000_000 + offset, "timestamp": 1_795_420_800_000}
        records.append(SimpleNamespace(key=keys.key(copy.event), value=value, **where))
    result = partition.run(records, lambda k: [None] * len(k), lambda k: [None] * len(k))
    dedup.note_places(result, [2_000_000])
    rnd = random.Random(1)
    for n in range(count):
        order, event = f"{rnd.getrandbits(40):010d}".encode(), str(uuid.UUID(int=rnd.getrandbits(128))).encode()
        received, place = b"%d" % (1_795_420_800_000 + 37 * n), b"%d" % (1_000_000 + 2 * n)
        for key, row in result.seen.items():
            assert row
            filled = row.replace(b"EVENT", event).replace(b"ORDER", order)
            filled = filled.replace(b"1795420800000", received).replace(b"1000000", place)
            filled = filled.replace(b"2000000", b"%d" % (2_000_000 + n))
            yield order.decode(), key.replace(b"EVENT", event).replace(b"ORDER", order), filled


async def fill(config: settings.Settings, count: int) -> int:
    """The changelog of `seen`. Returns the bytes of keys and values."""
    await topics.apply(config)
    n, size = config.kafka.partitions, 0

    def records() -> Iterator[race.Record]:
        nonlocal size
        for order, key, row in rows(count):
            size += len(key) + len(row)
            yield keys.partition(order, n), key, row

    await race.fill(config.brokers, topics.names(config).changelog("seen"), records())
    return size


async def ready(url: str, worker: Any) -> None:
    async with aiohttp.ClientSession() as http:
        while worker.poll() is None:
            try:
                async with http.get(url) as answer:
                    if answer.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.1)
    raise SystemExit("the worker ended")


def measure(count: int) -> dict[str, float]:
    folder = Path(tempfile.mkdtemp(prefix="capistream-bench-"))
    port = processes.free_port()
    os.environ.update(DEMO_SECRET_KEY="x", DEMO_META_TOKEN="x", DEMO_GA4_SECRET="x")
    worker = None
    try:
        with Kafka(folder / "kafka") as kafka:
            text = string.Template(DEMO.read_text()).substitute(
                brokers=kafka.brokers,
                replication=1,
                prefix="bench",
                topic="shop.orders",
                write_key="wk_bench_bench",
                sandbox="http://127.0.0.1:9",
                collector_port=0,
                view_port=port,
                data_dir=folder / "state",
            )
            config = settings.parse(text).model_copy(update={"sources": {}})
            path = folder / "capistream.toml"
            path.write_text(text[: text.index("# the Kafka topic")] + text[text.index("[events.purchase]") :])
            print(f"filling the changelog with {count:,} rows", file=sys.stderr)
            size = asyncio.run(fill(config, count))
            print("starting a worker with an empty disk", file=sys.stderr)
            begun = time.monotonic()
            command = [sys.executable, "-m", "app.cli", "worker", "--config", str(path), "--web-port", str(port)]
            worker = processes.spawn(command, folder / "worker.log")
            asyncio.run(ready(f"http://127.0.0.1:{port}/readyz", worker))
            restore = time.monotonic() - begun
            processes.stop(worker, 20)
            disk = sum(f.stat().st_size for f in (folder / "state").rglob("*seen*/**/*") if f.is_file())
            # one key is one conversion: its row and its alias row
            return {"keys": count, "restore_s": round(restore, 1), "bytes_per_key": round(disk / count, 1),
                    "row_bytes": round(size / count, 1), "rows_per_s": round(count / restore)}  # fmt: skip
    finally:
        if worker is not None and worker.poll() is None:
            worker.kill()
        shutil.rmtree(folder, ignore_errors=True)


def told(result: dict[str, Any]) -> str:
    rows = []
    for name, what in {"bytes_per_key": "bytes on disk per key", "restore_s": "restored, s"}.items():
        rows.append([what, f"{result[name]:,}", report.goal(result[name] <= GOALS[name], f"≤ {GOALS[name]}")])
    rows.append(["keys restored a second", f"{result['rows_per_s']:,}", ""])
    return report.table([f"{result['keys']:,} keys", "measured", "goal"], rows)


def main() -> None:
    parser = report.parser(__doc__, "100,000 keys")
    parser.add_argument("--keys", type=int, default=1_000_000)
    options = parser.parse_args()
    load = report.load()
    result = measure(100_000 if options.quick else options.keys)
    report.finish(options, told(result), result, load)


if __name__ == "__main__":
    main()
