"""One run: a system under load and seeded faults, then the oracle's verdict. `python -m tests.faults` runs many."""

import asyncio
import contextlib
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from app import keys
from app.demo import run
from tests.faults import conversions, logs, oracle, release
from tests.faults.conversions import Attempt, Conversion
from tests.faults.faults import DECK, ORDERED, SCALE, UPGRADE, Faults, plan

RATE = 25.0  # conversions a second
GIVE_UP = 90.0  # seconds a sender tries for one copy
QUIET = 10.0  # seconds without a new delivery, after everything obligated is there; the default of `quiet`
PATIENCE = 150.0  # seconds after the last fault for everything obligated to arrive
WORKER = [sys.executable, "-m", "tests.faults.worker"]


@dataclass
class Run:
    seed: int
    seconds: float
    folder: Path
    deck: Sequence[str] = DECK
    program: list[str] | None = None  # another worker program: the control
    ways: tuple[str, ...] = ("collector", "bus")
    destinations: tuple[str, ...] = oracle.DESTINATIONS
    patience: float = PATIENCE
    quiet: float = QUIET
    say: Callable[[str], None] = lambda _: None
    kinds: Counter[str] = field(default_factory=Counter)
    exits: Counter[str] = field(default_factory=Counter)
    takeovers: list[float] = field(default_factory=list)  # of the mix `scale`: seconds

    async def go(self) -> oracle.Verdict:
        self.oracle = oracle.Oracle(self.seed, self.destinations)
        stops = self.folder / "stops"
        stops.mkdir()
        this = [*WORKER, str(stops)]
        last = [*release.PROGRAM, str(self.folder / "release"), str(stops)]
        if UPGRADE in self.deck:
            release.unpack(self.folder / "release")
        self.versions = last, this
        demo = self.demo = run.Demo(
            say=self.say,
            workers=1 if SCALE in self.deck else 2 + self.seed % 2,
            folder=self.folder,
            keep=True,
            worker_program=self.program or (last if UPGRADE in self.deck else this),
            destinations=self.destinations,
            ports=run.free_ports(),
            spool=self.seed % 2 == 1 and UPGRADE not in self.deck,  # the last release does not know it
        )
        try:
            await demo.start()
            await logs.stamp_outcomes(demo.config)
            return await self._under_load()
        finally:
            await asyncio.to_thread(demo.stop)

    async def _under_load(self) -> oracle.Verdict:
        demo = self.demo
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=15)) as self.http:
            self.bus = AIOKafkaProducer(bootstrap_servers=demo.config.brokers, acks="all", linger_ms=2)
            await self.bus.start()
            faults = Faults(demo, self.http, self.bus, lambda: list(self.oracle.conversions.values()), self.say)
            faults.kinds, faults.exits, faults.takeovers = self.kinds, self.exits, self.takeovers
            faults.versions = self.versions
            watching = asyncio.create_task(faults.supervise())
            try:
                ordered = self.deck[0] in ORDERED
                steps = plan(self.seed, self.seconds, self.deck)
                breaking = asyncio.create_task(faults.carry_out(steps, ordered=ordered))
                sending = asyncio.create_task(self._send(breaking if ordered else None))
                await asyncio.gather(breaking, sending)
                issued = len(self.oracle.conversions)
                for name in self.destinations:
                    await faults.switch(name)
                fresh = await self._signs_of_life()
                deliveries = await self._settle()
                if watching.done():
                    watching.result()  # a failure of ours
                evidence = oracle.Evidence(deliveries, faults.done)
                if self.program is None:
                    evidence.logged = await logs.copies(demo.config)
                    evidence.receipts = await logs.receipts(demo.config)
                    evidence.recorded = await logs.recorded(demo.config)
            finally:
                watching.cancel()
                with contextlib.suppress(KafkaError):
                    await self.bus.stop()
        verdict = self.oracle.judge(evidence)
        verdict.invalid += oracle.too_few(self.seconds * RATE, issued, verdict.conversions, self.seconds, self.kinds)
        if SCALE in self.deck and not self.takeovers:
            verdict.invalid.append("no takeover was seen")
        verdict.invalid += [f"no sign of life: {one.id}" for one in fresh if not one.acknowledged]
        verdict.wrong += [f"a worker died of {why}" for why in self.exits if "failed" in why and "produce" not in why]
        verdict.invalid += [
            f"a worker did not even begin: {why}" for why in self.exits if ": Error: " in why
        ]  # of the command
        self._keep(evidence)
        return verdict

    # -- load

    async def _send(self, through: asyncio.Task[None] | None) -> None:
        """For so many seconds, and until that task is through."""
        tasks: set[asyncio.Task[None]] = set()
        begun, n = time.monotonic(), 0
        while time.monotonic() - begun < self.seconds or (through and not through.done()):
            await asyncio.sleep(max(0.0, begun + n / RATE - time.monotonic()))
            n += 1
            one = self.oracle.new()
            for delay, source, way in conversions.plan(self.oracle.rnd):
                taken = way if way in self.ways else self.ways[0]
                task = asyncio.create_task(self._copy(one, delay, source, taken))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
        while tasks:
            await asyncio.wait(tasks)

    async def _copy(self, one: Conversion, delay: float, source: str, way: str) -> None:
        await asyncio.sleep(delay)
        body, until = one.copy(source), time.monotonic() + GIVE_UP
        send = self._by_collector if way == "collector" else self._by_bus
        while time.monotonic() < until:
            begun = int(time.time() * 1000) / 1000
            origin = await send(body | {"time": int(begun * 1000)}, source)
            one.attempts.append(Attempt(source, way, begun, time.time(), origin))
            if origin:
                return
            await asyncio.sleep(random.uniform(0.2, 1.0))

    async def _by_collector(self, body: dict[str, Any], source: str) -> str:
        """The id of a request that was answered 200, or nothing."""
        key = self.demo.addresses["secret_key" if source == "server" else "write_key"]
        headers = {
            "Authorization": f"Bearer {key}",
            "User-Agent": "Mozilla/5.0",
            "X-Forwarded-For": "203.0.113.9",
        }
        try:
            address = self.demo.addresses["collector"] + "/v1/events"
            async with self.http.post(address, json=body, headers=headers) as response:
                return str((await response.json())["request"]) if response.status == 200 else ""
        except (aiohttp.ClientError, TimeoutError, OSError):
            return ""

    async def _by_bus(self, body: dict[str, Any], source: str) -> str:
        """Where Kafka says the record is, or nothing."""
        value, stamp = json.dumps(body | {"source": source}).encode(), body["time"]
        try:
            there = await asyncio.wait_for(
                self.bus.send_and_wait(self.demo.addresses["topic"], value, timestamp_ms=stamp), 20
            )
        except (KafkaError, TimeoutError):
            return ""
        return f"{there.topic}/{there.partition}/{there.offset}"

    # -- the end

    async def _signs_of_life(self) -> list[Conversion]:
        """Fresh conversions by every way, until each partition has one."""
        n, fresh = self.demo.config.kafka.partitions, []
        for way in self.ways:
            reached: set[int] = set()
            while len(reached) < n:
                one = self.oracle.new()
                reached.add(keys.partition(one.meeting_id, n))
                fresh.append((one, way))
        await asyncio.gather(*(self._copy(one, 0.0, "server", way) for one, way in fresh))
        return [one for one, _ in fresh]

    async def _settle(self) -> list[oracle.Delivery]:
        """Everything the platforms accepted, once all that is obligated is there and nothing more comes."""
        self.say("faults over; waiting for everything obligated")
        found: list[oracle.Delivery] = []
        after = dict.fromkeys(self.destinations, 0)
        changed, until = time.monotonic(), time.monotonic() + self.patience
        while time.monotonic() < until:
            for name in self.destinations:
                url = f"{self.demo.addresses['sandbox']}/accepted.json?destination={name}&after={after[name]}"
                async with self.http.get(url) as response:
                    new = (await response.json())["events"]
                if new:
                    found += [oracle.delivery(name, entry) for entry in new]
                    after[name], changed = max(entry["seq"] for entry in new), time.monotonic()
            if time.monotonic() - changed > self.quiet:
                got = {(one.conversion, one.destination) for one in found}
                if got.issuperset(self.oracle.obligated()):
                    break
            await asyncio.sleep(0.3)
        else:
            await self._ask_where_they_stand()
        return found

    async def _ask_where_they_stand(self) -> None:
        """Something is stuck: the workers' logs tell where."""
        for child in self.demo.children:
            if child.process:
                (self.demo.folder / "stops" / f"{child.process.pid}.tasks").touch()
        await asyncio.sleep(3)

    def _keep(self, evidence: oracle.Evidence) -> None:
        """What the verdict was made of, for whoever looks into a bad run."""
        with (self.folder / "evidence.txt").open("w") as file:
            for fault in evidence.faults:
                print(fault, file=file)
            for one in self.oracle.conversions.values():
                print(one, file=file)
                for copy in (evidence.logged or {}).get(one.id, ()):
                    print("   ", copy, file=file)
                for name in self.destinations:
                    print("    recorded", name, (evidence.recorded or {}).get((one.id, name)), file=file)
            for delivery in evidence.deliveries:
                print(delivery, file=file)


def one_run(seed: int, seconds: float, say: Callable[[str], None], **options: Any) -> tuple[oracle.Verdict, Run]:
    """Run, judge, and leave the folder behind only when the verdict is bad."""
    os.environ.pop("CAPISTREAM_BROKER", None)  # the harness kills its broker: it must be its own
    folder = Path(tempfile.mkdtemp(prefix=f"capistream-fault-{seed}-"))
    this = Run(seed, seconds, folder, say=say, **options)
    verdict = asyncio.run(this.go())
    if verdict.good:
        shutil.rmtree(folder, ignore_errors=True)
    return verdict, this
