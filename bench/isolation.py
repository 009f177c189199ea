"""Isolation: does a destination that is down delay the other one? A collector, a worker and two emulated platforms; the victim
refuses connections, answers 500, or takes requests and never answers, each time after an undisturbed phase of equal length.

python bench/isolation.py [--down 180] [--rounds 2] [--rate 40] [--victim meta] [--quick] [--json] [--write]

`--down` is the victim's down time in seconds, all ways and rounds together. Latency is measured from the collector's 200 until
the platform has the event; events wait for no second copy. Exits 0 only when both platforms have every event, once.
"""

import argparse
import asyncio
import contextlib
import logging
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import race
import report

from app import processes
from app.demo.run import Demo

GOAL = 1.2  # how much longer events may take while another destination is down
WAYS = ("refused", "500", "silent")
CATCH_UP = 150.0  # seconds for the backlog: longer than the longest pause between attempts


class Door:
    """The way to one platform. Open, shut (connections are refused), or silent (requests are taken and never answered)."""

    def __init__(self, port: int, target: int) -> None:
        self.port, self.target = port, target
        self.answers = True
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def open(self) -> None:
        await self._close()
        self.answers = True
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def shut(self) -> None:
        await self._close()

    async def silence(self) -> None:
        await self.open()
        self.answers = False

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in self._writers:  # kept-alive connections would go on
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            if not self.answers:
                await reader.read()  # until it is given up
                return
            there, back = await asyncio.open_connection("127.0.0.1", self.target)
            self._writers.add(back)
            try:
                await asyncio.gather(_pour(reader, back), _pour(there, writer))
            finally:
                back.close()
                self._writers.discard(back)
        except OSError:
            pass
        finally:
            writer.close()
            self._writers.discard(writer)


async def _pour(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await source.read(65_536):
            target.write(data)
            await target.drain()
    target.close()


class System(Demo):
    """The demo's, but that the victim is reached through a door."""

    victim: str
    door: Door

    def _plan_children(self, config: Path, ports: dict[str, int], write_key: str) -> None:
        self.door = Door(processes.free_port(), ports["sandbox"])
        ours = f"http://127.0.0.1:{ports['sandbox']}/{self.victim}"
        config.write_text(config.read_text().replace(ours, f"http://127.0.0.1:{self.door.port}/{self.victim}"))
        super()._plan_children(config, ports, write_key)


class Measurement:
    def __init__(self, system: System, http: aiohttp.ClientSession, rate: float) -> None:
        self.system, self.http, self.rate = system, http, rate
        self.acknowledged: dict[str, float] = {}  # event id -> when
        self.arrived: dict[str, dict[str, float]] = {name: {} for name in system.config.destinations}
        self.repeated = 0
        self._after = dict.fromkeys(self.arrived, 0)
        self._issued = 0

    async def phase(self, seconds: float) -> list[str]:
        """Send for so long; the ids."""
        begun, ids, tasks = time.monotonic(), list[str](), set[asyncio.Task[None]]()
        while time.monotonic() - begun < seconds:
            await asyncio.sleep(max(0.0, begun + len(ids) / self.rate - time.monotonic()))
            self._issued += 1
            ids.append(f"e{self._issued}")
            task = asyncio.create_task(self._send(ids[-1]))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        while tasks:
            await asyncio.wait(tasks)
        return [one for one in ids if one in self.acknowledged]

    async def _send(self, identity: str) -> None:
        body = {
            "event_name": "add_to_cart",
            "event_id": identity,
            "time": int(time.time() * 1000),
            "user": {"email": f"{identity}@example.com"},
            "ids": {"ga_client_id": f"{1000 + len(self.acknowledged)}.1795420000"},
            "commerce": {"value": 9.5, "currency": "EUR", "items": [{"item_id": "SKU-1", "quantity": 1}]},
            "custom": {"event_id": identity},  # GA4 has no event id
            "consent": race.GRANTED,
        }
        headers = {"Authorization": f"Bearer {self.system.addresses['secret_key']}"}
        async with self.http.post(
            self.system.addresses["collector"] + "/v1/events", json=body, headers=headers
        ) as answer:
            if answer.status == 200:
                self.acknowledged[identity] = time.time()

    async def caught_up(self, name: str, ids: list[str]) -> bool:
        """Wait until this platform has them all."""
        until = time.monotonic() + CATCH_UP
        while time.monotonic() < until:
            await self._look(name)
            if self.arrived[name].keys() >= set(ids):
                return True
            await asyncio.sleep(0.5)
        return False

    async def _look(self, name: str) -> None:
        url = f"{self.system.addresses['sandbox']}/accepted.json?destination={name}&after={self._after[name]}"
        async with self.http.get(url) as answer:
            for entry in orjson.loads(await answer.read())["events"]:
                self._after[name] = entry["seq"]
                self.repeated += entry["event_id"] in self.arrived[name]
                self.arrived[name].setdefault(entry["event_id"], entry["received"])

    def latencies(self, name: str, ids: list[str]) -> list[float]:
        """Milliseconds. The platform may have it before we have read the collector's answer."""
        arrived = self.arrived[name]
        return [max(0.0, arrived[one] - self.acknowledged[one]) * 1000 for one in ids if one in arrived]

    async def fault(self, name: str, **switches: Any) -> None:
        url = self.system.addresses["sandbox"] + "/faults"
        async with self.http.post(url, json={"destination": name, **switches}) as answer:
            answer.raise_for_status()


async def disturb(measurement: Measurement, way: str) -> None:
    system = measurement.system
    if way == "refused":
        await system.door.shut()
    elif way == "silent":
        await system.door.silence()
    else:
        await measurement.fault(system.victim, status_500=1.0)


async def repair(measurement: Measurement) -> None:
    await measurement.fault(measurement.system.victim)
    await measurement.system.door.open()


def memory(system: System) -> int:
    """MiB of all workers."""
    workers = [child for child in system.children if child.name.startswith("worker")]
    return sum(race.rss(child.process.pid) for child in workers if child.process)


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    def say(text: str) -> None:
        print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)

    folder = Path(tempfile.mkdtemp(prefix="capistream-bench-"))
    system = System(say=say, workers=options.workers, folder=folder, destinations=("meta", "ga4"))
    system.victim = options.victim
    seconds = options.down / (len(WAYS) * options.rounds)
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    try:
        await system.start()
        (other,) = set(system.config.destinations) - {options.victim}
        await system.door.open()
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as http:
            here = Measurement(system, http, options.rate)
            say("warming up")
            complete = await here.caught_up(options.victim, await here.phase(min(10.0, seconds)))
            begin, backlog = memory(system), 0
            for _ in range(options.rounds):
                for way in WAYS:
                    say(f"undisturbed, {seconds:.0f} s")
                    ids = await here.phase(seconds)
                    complete &= await here.caught_up(other, ids) and await here.caught_up(options.victim, ids)
                    found[way]["quiet"] += here.latencies(other, ids)
                    say(f"{options.victim}: {way}, {seconds:.0f} s")
                    await disturb(here, way)
                    ids = await here.phase(seconds)
                    complete &= await here.caught_up(other, ids)
                    found[way]["down"] += here.latencies(other, ids)
                    await here.caught_up(options.victim, [])
                    backlog = max(backlog, len(set(ids) - here.arrived[options.victim].keys()))
                    await repair(here)
                    complete &= await here.caught_up(options.victim, ids)
            missing = {name: len(here.acknowledged.keys() - arrived.keys()) for name, arrived in here.arrived.items()}
            return {
                "victim": options.victim,
                "measured": other,
                "down_s": options.down,
                "rate": options.rate,
                "events": len(here.acknowledged),
                "missing": missing,
                "repeated": here.repeated,
                "longest_backlog": backlog,
                "memory_mib": [begin, memory(system)],
                "restarts": sum(child.starts - 1 for child in system.children),
                "ways": {way: _ratios(**phases) for way, phases in found.items()},
                "delivered_all": complete and not any(missing.values()) and not here.repeated,
            }
    finally:
        await asyncio.to_thread(system.stop)


def _ratios(quiet: list[float], down: list[float]) -> dict[str, float]:
    figures = {}
    for name, values in (("quiet", quiet), ("down", down)):
        figures[f"{name}_p50_ms"] = round(statistics.median(values), 1)
        figures[f"{name}_p95_ms"] = round(statistics.quantiles(values, n=20)[-1], 1)
    for p in ("p50", "p95"):
        figures[f"{p}_ratio"] = round(figures[f"down_{p}_ms"] / max(figures[f"quiet_{p}_ms"], 0.1), 2)
    return figures


def told(result: dict[str, Any]) -> str:
    rows = []
    for way, one in result["ways"].items():
        ratio = one["p50_ratio"], one["p95_ratio"]
        cells = [f"{one[f'{when}_{p}_ms']} ms" for p in ("p50", "p95") for when in ("quiet", "down")]
        rows.append([way, *cells, *(f"{r:.2f}" for r in ratio), report.goal(max(ratio) <= GOAL, f"≤ {GOAL}")])
    head = [
        f"{result['victim']} is down: {result['measured']}", "quiet, p50", "down, p50", "quiet, p95", "down, p95",
        "p50 ×", "p95 ×", "goal",
    ]  # fmt: skip
    begin, end = result["memory_mib"]
    said = "every one delivered once" if result["delivered_all"] else f"NOT delivered once: {result['missing']}"
    return (
        f"{report.table(head, rows)}\n\n"
        f"Backlog of {result['longest_backlog']:,} events; workers {begin} MiB at the begin, {end} MiB at the end. "
        f"{result['events']:,} events to two destinations: {said}, {result['repeated']} repeated."
    )


def main() -> int:
    parser = report.parser(__doc__, "30 s down")
    parser.add_argument("--down", type=float, default=180, help="seconds")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--rate", type=float, default=40, help="events a second")
    parser.add_argument("--victim", choices=("meta", "ga4"), default="meta")
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    if options.quick:
        options.down, options.rounds = 30, 1
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    load = report.load()
    result = asyncio.run(measure(options))
    report.finish(options, told(result), result, load)
    return 0 if result["delivered_all"] else 1


if __name__ == "__main__":
    sys.exit(main())
