"""The view: how long each page takes with few keys and with many, how large it is, and how long the worker stands still for it.

python bench/view.py [--keys 1000000] [--quick] [--json] [--write]     its own embedded Kafka, one worker

The state has that many conversions, beside newer records in Kafka as a busy shop leaves them: RECENT merged conversions with their
receipts, copies, letters and answers, and a destination that cannot be reached. A pause is how long the worker did not answer
/livez, which is asked all the time.
"""

import argparse
import asyncio
import os
import random
import secrets
import statistics
import string
import sys
import time
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import msgspec
import orjson
import race
import report

from app import dedup, keys, processes, receipts, settings, topics
from app.dead_letter import DeadLetter
from app.events import Event
from app.normalize import Inlet, Normalized, normalize
from app.outcome_rows import NAME
from app.routing import Route
from app.shape import as_event

DEMO = Path(__file__).parent.parent / "app" / "demo" / "demo.toml"
GOALS = {"page_ms": 2000, "pause_ms": 500, "grown_mib": 200}
FEW = 10_000
RECENT = 100_000  # conversions, and letters, that Kafka still has
COPIED = 10_000  # of them, those with copies in the log and answers in the topic of traces
WAITING = 5_000  # of them, those that wait for a destination which cannot be reached
LISTED = 10_000  # orders of a list to be reconciled
AGAIN = 3

TOKEN = secrets.token_hex(24)
LOGIN = '\n[view.tokens.bench]\nrole = "operator"\ntoken = { env = "BENCH_TOKEN" }\n'

INLETS = Inlet("bench", "capistream", "shop", "pixel"), Inlet("bench", "capistream", "shop", "server")
ROUTES = {"meta": Route("queued", basis="ad_storage granted"), "ga4": Route("held_back", "consent_denied")}
DRAFT = {
    "event_name": "purchase",
    "event_id": "EVENT",
    "commerce": {"transaction_id": "ORDER", "value": "59.98", "currency": "EUR", "items": [{"item_id": "A", "price": "59.98"}]},
    "user": {"email": "ada@shop.example", "first_name": "Ada"},
    "context": {"url": "https://shop.example/thanks", "user_agent": "Mozilla/5.0"},
    "consent": {"ad_storage": "granted", "ad_user_data": "granted", "analytics_storage": "denied"},
}  # fmt: skip
TRACE = {
    "v": 1, "time": 7_000_000_000_001, "destination": "meta", "event_name": "purchase", "event_id": "EVENT",
    "transaction_id": "ORDER", "name": "Purchase", "method": "POST", "url": "https://graph.example/events",
    "body": orjson.dumps(DRAFT).decode(), "attempt": 1, "events": 50, "seconds": 0.2, "status": 200,
    "answer": '{"events_received": 50}', "outcome": "delivered",
}  # fmt: skip


class Template:
    """The records of a purchase of two copies, as the stages write them; each with ids, times and offsets of its own."""

    def __init__(self) -> None:
        partition = dedup.Partition(settings.Settings().rule, lambda _: ROUTES)
        sent = []
        for n, inlet in enumerate(INLETS):
            (copy,) = normalize(DRAFT, inlet, 7_000_000_000_001 + n, {"request": "REQUEST"})
            assert isinstance(copy, Normalized)
            record = {"offset": 8_000_000_001 + n, "timestamp": 7_000_000_000_001}
            sent.append(SimpleNamespace(key=keys.key(copy.event), value=orjson.dumps(copy.event), **record))
        result = partition.run(sent, lambda k: [None] * len(k), lambda k: [None] * len(k))
        dedup.note_places(result, [9_000_000_001])
        (closed,) = result.closed
        self.copies = [(record.key, record.value) for record in sent]
        self.seen = [(key, row) for key, row in result.seen.items() if row is not None]
        self.conversion = closed.key, msgspec.json.encode(closed.record())
        event = as_event(closed.event)
        self.receipts = [_receipt(event, "ga4", "held_back"), _receipt(event, "meta", "delivered")]
        outcome = {"v": 1, "o": "delivered", "t": 7_000_000_000_002, "n": 1, "r": "", "d": ""}
        self.outcome = closed.key + NAME + b"Purchase", orjson.dumps(outcome)
        self.queued = closed.key, orjson.dumps({"v": 1, "event": event, "basis": "ad_storage granted"})
        self.trace = closed.key, orjson.dumps(TRACE)


def _receipt(event: Event, destination: str, outcome: str) -> tuple[bytes, bytes]:
    return receipts.row(event, destination, outcome, now=7_000_000_000_002, config="bench", name="Purchase")[:2]


def conversions(count: int) -> Iterator[tuple[int, str, dict[bytes, bytes]]]:
    """(number, order, what stands for what in a template): ids are random, and do not compress."""
    rnd, begin = random.Random(1), int(time.time() * 1000) - 3_600_000
    for n in range(count):
        order, event = f"{rnd.getrandbits(40):010d}", str(uuid.UUID(int=rnd.getrandbits(128)))
        at = begin + 3_000_000 * n // count
        yield n, order, {
            b"ORDER": order.encode(), b"EVENT": event.encode(), b"REQUEST": event[:8].encode(),
            b"7000000000001": b"%d" % at, b"7000000000002": b"%d" % (at + int(rnd.expovariate(1 / 800))),
        }  # fmt: skip


def _filled(record: tuple[bytes, bytes], said: dict[bytes, bytes]) -> tuple[bytes, bytes]:
    key, value = record
    for name, its in said.items():
        key, value = key.replace(name, its), value.replace(name, its)
    return key, value


def records(config: settings.Settings, count: int) -> Iterator[tuple[str, race.Record]]:
    """(topic, record): first what is in topics, by which rows name their offsets."""
    names, made, n_partitions = topics.names(config), Template(), config.kafka.partitions
    ends: dict[tuple[str, int], int] = defaultdict(int)

    def put(topic: str, p: int, record: tuple[bytes, bytes]) -> tuple[str, race.Record]:
        ends[topic, p] += 1
        return topic, (p, *record)

    for n, order, said in conversions(count):
        p, age = keys.partition(order, n_partitions), count - n
        said |= {b"8000000000": b"-1", b"9000000001": b"-1"}
        if age <= RECENT:
            said[b"9000000001"] = b"%d" % ends[names.conversions, p]
            yield put(names.conversions, p, _filled(made.conversion, said))
            held_back, delivered = (_filled(one, said) for one in made.receipts)
            yield put(names.receipts, p, held_back)
            if age > WAITING:
                yield put(names.receipts, p, delivered)
                yield put(names.changelog(topics.outcomes_table("meta")), p, _filled(made.outcome, said))
            else:
                yield put(names.to("meta"), p, _filled(made.queued, said))
        if age <= COPIED:
            for at, copy in enumerate(made.copies, 1):
                said[b"%d" % (8_000_000_000 + at)] = b"%d" % ends[names.events, p]
                yield put(names.events, p, _filled(copy, said))
            yield put(names.trace, p, _filled(made.trace, said))
        for row in made.seen:
            yield put(names.changelog("seen"), p, _filled(row, said))
    for n in range(RECENT):
        letter = DeadLetter(
            "normalize", f"reason_{n % 7}", {"topic": "shop.orders", "partition": 0, "offset": n}, event_id=f"e-{n}"
        )
        key, value, _ = letter.row()
        yield put(names.dead, letter.partition(n_partitions), (key, value))


async def fill(config: settings.Settings, count: int) -> None:
    await topics.apply(config)
    await race.fill_all(config.brokers, records(config, count))


# Measuring


PAGES = {
    "search": "/",
    "an event": "/events/{order}",
    "an event nobody knows": "/events/nobody",
    "live": "/live",
    "dedup": "/dedup",
    "dedup, a list": "/dedup/list?event=purchase&what=together",
    "open holds": "/dedup/held",
    "destinations": "/destinations",
    "waiting events": "/destinations/meta/waiting",
    "records of its topic": "/destinations/meta/waiting?which=unfinished",
    "answers of a destination": "/destinations/meta/answers?status=200",
    "match quality": "/destinations/meta/match",
    "dead letters": "/dead",
    "dead letters, one reason": "/dead?reason=reason_3",
    "audit": "/audit",
    "config": "/config",
    "a test of a destination": "/config/test/meta",
    "OpenAPI": "/openapi.json",
    "metrics": "/metrics",
}


class Watch:
    """Asks /livez all the time: the longest it had to wait, of late."""

    def __init__(self, http: aiohttp.ClientSession) -> None:
        self._http, self._longest = http, 0.0

    async def run(self) -> None:
        while True:
            begun = time.monotonic()
            async with self._http.get("/livez") as answer:
                await answer.read()
            self._longest = max(self._longest, time.monotonic() - begun)
            await asyncio.sleep(0.01)

    def longest(self) -> float:
        """Milliseconds, since this was asked last."""
        found, self._longest = self._longest, 0.0
        return found * 1000


@asynccontextmanager
async def watched(http: aiohttp.ClientSession) -> AsyncIterator[Watch]:
    watch = Watch(http)
    task = asyncio.create_task(watch.run())
    try:
        yield watch
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def look(http: aiohttp.ClientSession, count: int) -> dict[str, list[int]]:
    """Of each page: milliseconds the first time, later ones, kB, the longest pause."""
    late = [order for n, order, _ in conversions(count) if n >= count - LISTED]
    found: dict[str, list[int]] = {}
    async with watched(http) as watch:
        for name, path in PAGES.items():
            for accept, more in (("text/html", ""), ("application/json", ", JSON")):
                found[name + more] = await _times(http, watch, path.format(order=late[0]), accept)
        day = time.strftime("%Y-%m-%d")
        rows = ["order_id,created_at,total,currency", *(f"{order},{day},59.98,EUR" for order in late)]
        found["reconcile"] = await reconcile(http, "\n".join(rows), watch)
    return found


async def _times(http: aiohttp.ClientSession, watch: Watch, path: str, accept: str) -> list[int]:
    times, size = list[float](), 0
    watch.longest()
    for _ in range(1 + AGAIN):
        begun = time.monotonic()
        async with http.get(path, headers={"Accept": accept}) as answer:
            size = len(await answer.read())
            if answer.status != (404 if "nobody" in path else 200):
                raise SystemExit(f"{path}: {answer.status}")
        times.append((time.monotonic() - begun) * 1000)
    return [round(one) for one in (times[0], statistics.median(times[1:]), size / 1000, watch.longest())]


async def reconcile(http: aiohttp.ClientSession, listed: str, watch: Watch) -> list[int]:
    """The time is until all is told; the page itself does not wait for that."""
    watch.longest()
    begun = time.monotonic()
    async with http.post("/reconcile", json={"to": "meta", "tz": "UTC", "orders": listed}) as answer:
        said = orjson.loads(await answer.read())
        if answer.status != 200:
            raise SystemExit(said["error"])
    while not said["finished"]:
        await asyncio.sleep(0.2)
        async with http.get(f"/reconcile/{said['look']}.json") as answer:
            said = orjson.loads(await answer.read())
    whole, begun = time.monotonic() - begun, time.monotonic()
    async with http.get(f"/reconcile/{said['look']}?class=delivered", headers={"Accept": "text/html"}) as answer:
        size = len(await answer.read())
    assert said["report"]["classes"]["delivered"] == LISTED - WAITING, said
    return [round(whole * 1000), round((time.monotonic() - begun) * 1000), round(size / 1000), round(watch.longest())]


async def settled(http: aiohttp.ClientSession) -> None:
    """Until the worker has taken in what stood in its topics."""
    before = None
    while True:
        async with http.get("/destinations.json") as answer:
            meta = orjson.loads(await answer.read())["destinations"]["meta"]
        now = meta["waiting"], meta["lag"]
        if now == before and meta["lag"] >= WAITING:
            return
        before = now
        await asyncio.sleep(3)


def measure(count: int) -> dict[str, Any]:
    os.environ.update(DEMO_SECRET_KEY="x", DEMO_META_TOKEN="x", DEMO_GA4_SECRET="x", BENCH_TOKEN=TOKEN)
    with race.kafka() as (kafka, folder):
        text = string.Template(DEMO.read_text()).substitute(
            brokers=kafka.brokers,
            replication=1,
            prefix="bench",
            topic="shop.orders",
            write_key="wk_bench_bench",
            sandbox="http://127.0.0.1:9",
            collector_port=0,
            view_port=processes.free_port(),
            data_dir=folder / "state",
        )
        path = folder / "capistream.toml"
        path.write_text(_without_sources(text) + LOGIN)
        print(f"filling {count:,} keys", file=sys.stderr)
        asyncio.run(fill(settings.parse(path.read_text()), count))
        with race.running(path, folder / "worker.log", "--backfill") as (worker, address):
            print("looking", file=sys.stderr)
            return asyncio.run(_looked(address, count, worker.pid))


def _without_sources(text: str) -> str:
    return text[: text.index("# the Kafka topic")] + text[text.index("[events.purchase]") :]


async def _looked(url: str, count: int, pid: int) -> dict[str, Any]:
    headers, patience = {"Authorization": f"Bearer {TOKEN}"}, aiohttp.ClientTimeout(total=120)
    async with aiohttp.ClientSession(url, headers=headers, timeout=patience) as http:
        await settled(http)
        before = race.rss(pid)
        pages = await look(http, count)
        first = race.rss(pid)
        await look(http, count)
        return {"keys": count, "mib": [before, first, race.rss(pid)], "pages": pages}


def told(results: list[dict[str, Any]]) -> str:
    parts, verdicts = [], []
    for one in results:
        head = [f"{one['keys']:,} keys", "first, ms", "again, ms", "kB", "longest pause, ms"]
        parts.append(report.table(head, [[name, *its] for name, its in one["pages"].items()]))
        slowest = max(max(its[:2]) for name, its in one["pages"].items() if name != "reconcile")
        pause = max(its[3] for its in one["pages"].values())
        before, once, twice = one["mib"]
        for reached, said in (
            (slowest <= GOALS["page_ms"], f"the slowest page took {slowest:,} ms (≤ {GOALS['page_ms']:,})"),
            (pause <= GOALS["pause_ms"], f"the longest pause was {pause:,} ms (≤ {GOALS['pause_ms']:,})"),
            (
                twice - once <= GOALS["grown_mib"],
                f"{before} MiB before, {once} MiB after, {twice} MiB after all pages once more",
            ),
        ):
            verdicts.append(f"- {one['keys']:,} keys: {report.goal(reached, said)}")
    return "\n\n".join([*parts, "\n".join(verdicts)])


def main() -> None:
    parser: argparse.ArgumentParser = report.parser(__doc__, f"{FEW:,} keys only")
    parser.add_argument("--keys", type=int, default=1_000_000)
    options = parser.parse_args()
    load = report.load()
    results = [measure(count) for count in ([FEW] if options.quick else [FEW, options.keys])]
    report.finish(options, told(results), {"results": results}, load)


if __name__ == "__main__":
    main()
