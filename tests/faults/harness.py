"""One run: a system under load and seeded faults, then the oracle's verdict. `python -m tests.faults` runs many."""

import asyncio
import contextlib
import fcntl
import json
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from app import processes
from app.demo import run
from tests.faults.oracle import Acknowledged, Fault, Oracle, Verdict, copy

RATE = 25.0  # conversions a second
GIVE_UP = 90.0  # seconds a sender tries for one copy
QUIET = 10.0  # seconds without a new delivery, after everything obligated is there
PATIENCE = 150.0  # seconds after the last fault for everything obligated to arrive
STOPPED = 15.0  # seconds of SIGSTOP: longer than the session timeout of 10

MIX = ("kill", "kill", "term", "join", "stop", "broker-kill", "broker-stop", "collector-kill", "platform", "poison")


@dataclass
class Run:
    seed: int
    seconds: float
    folder: Path
    mix: tuple[str, ...] = MIX
    program: list[str] | None = None  # another worker program: the control
    ways: tuple[str, ...] = ("collector", "bus")
    patience: float = PATIENCE
    say: Callable[[str], None] = lambda _: None
    faults: list[Fault] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)

    async def go(self) -> Verdict:
        self.rnd, self.oracle = random.Random(self.seed), Oracle(self.seed)
        workers = self.rnd.choice((2, 3))
        demo = self.demo = run.Demo(
            say=self.say, workers=workers, folder=self.folder, keep=True, worker_program=self.program
        )
        try:
            await demo.start()
            return await self._under_load(demo)
        finally:
            await asyncio.to_thread(demo.stop)

    async def _under_load(self, demo: run.Demo) -> Verdict:
        self.workers = [child for child in demo.children if child.name.startswith("worker")]
        self.busy: set[str] = set()  # names of children that a fault holds in its hands
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=15)) as self.http:
            self.bus = await self._producer()
            watching = asyncio.create_task(self._supervise())
            try:
                sending = asyncio.create_task(self._send())
                await self._do_faults()
                await sending
                await self._platform()  # all switches off
                accepted = await self._settle()
            finally:
                watching.cancel()
                with contextlib.suppress(KafkaError):
                    await self.bus.stop()
        return self.oracle.judge(accepted, self.faults)

    async def _producer(self) -> AIOKafkaProducer:
        producer = AIOKafkaProducer(bootstrap_servers=self.demo.config.brokers, acks="all", linger_ms=2)
        await producer.start()
        return producer

    # -- load

    async def _send(self) -> None:
        tasks: set[asyncio.Task[None]] = set()
        begun, n = time.monotonic(), 0
        while time.monotonic() - begun < self.seconds:
            await asyncio.sleep(max(0.0, begun + n / RATE - time.monotonic()))
            n += 1
            one = self.oracle.new()
            for delay, source, way in self.oracle.plan(one):
                taken = way if way in self.ways else self.ways[0]
                task = asyncio.create_task(self._copy(one.id, one.name, delay, source, taken))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
        while tasks:
            await asyncio.wait(tasks)

    async def _copy(self, identity: str, name: str, delay: float, source: str, way: str) -> None:
        await asyncio.sleep(delay)
        body, until = copy(identity, name, source), time.monotonic() + GIVE_UP
        while time.monotonic() < until:
            sent = time.time()
            if await (self._by_collector if way == "collector" else self._by_bus)(body, source, sent):
                self.oracle.conversions[identity].copies.append(Acknowledged(source, way, sent, time.time()))
                return
            await asyncio.sleep(random.uniform(0.2, 1.0))

    async def _by_collector(self, body: dict[str, Any], source: str, sent: float) -> bool:
        key = self.demo.addresses["secret_key" if source == "server" else "write_key"]
        try:
            async with self.http.post(
                self.demo.addresses["collector"] + "/v1/events",
                json=body | {"time": int(sent * 1000)},
                headers={
                    "Authorization": f"Bearer {key}",
                    "User-Agent": "Mozilla/5.0",
                    "X-Forwarded-For": "203.0.113.9",
                },
            ) as response:
                return response.status == 200
        except (aiohttp.ClientError, TimeoutError, OSError):
            return False

    async def _by_bus(self, body: dict[str, Any], source: str, sent: float) -> bool:
        value = json.dumps(body | {"source": source, "time": int(sent * 1000)}).encode()
        try:
            await asyncio.wait_for(
                self.bus.send_and_wait(self.demo.addresses["topic"], value, timestamp_ms=int(sent * 1000)), 20
            )
        except (KafkaError, TimeoutError):
            return False
        return True

    # -- faults

    async def _do_faults(self) -> None:
        begun, running = time.monotonic(), set[asyncio.Task[None]]()
        await asyncio.sleep(3)
        while time.monotonic() - begun < self.seconds - 5:
            kind = self.rnd.choice(self.mix)
            task = asyncio.create_task(self._fault(kind))
            running.add(task)
            await asyncio.sleep(self.rnd.choice((1, 3, 6, 9)))
        await asyncio.gather(*running)

    async def _fault(self, kind: str) -> None:
        doing: dict[str, Callable[[], Awaitable[bool]]] = {
            "kill": lambda: self._end(signal.SIGKILL),
            "term": lambda: self._end(signal.SIGTERM),
            "stop": self._stop,
            "join": self._join,
            "broker-kill": lambda: self._broker(self.demo.kafka.kill),  # type: ignore[union-attr]
            "broker-stop": lambda: self._broker(self.demo.kafka.stop),  # type: ignore[union-attr]
            "collector-kill": self._collector,
            "platform": self._bad_platform,
            "poison": self._poison,
        }
        if await doing[kind]():
            self.kinds[kind] += 1

    def _note(self, what: str, begun: float, more: float = 0.0) -> None:
        self.say(f"{what}, {time.time() - begun:.1f} s")
        self.faults.append(Fault(begun, time.time() + more, what))

    def _pick(self) -> run.Child | None:
        free = [c for c in self.workers if c.process and c.process.poll() is None and c.name not in self.busy]
        return self.rnd.choice(free) if free else None

    async def _end(self, number: signal.Signals) -> bool:
        child = self._pick()
        if child is None or child.process is None:
            return False
        self.busy.add(child.name)
        begun = time.time()
        child.process.send_signal(number)
        await asyncio.to_thread(_wait, child.process, 30.0)
        self._note(f"{'kill' if number == signal.SIGKILL else 'term'} {child.name}", begun)
        await asyncio.sleep(self.rnd.uniform(0, 5))
        if self.rnd.random() < 0.4:  # as if its disk were new
            for folder in (self.folder / "state").glob("worker-*"):
                _wipe(folder)
        self.demo._spawn(child)
        self.busy.discard(child.name)
        return True

    async def _stop(self) -> bool:
        child = self._pick()
        if child is None or child.process is None:
            return False
        self.busy.add(child.name)
        begun, pid = time.time(), child.process.pid
        os.kill(pid, signal.SIGSTOP)
        await asyncio.sleep(STOPPED)
        os.kill(pid, signal.SIGCONT)
        # a request that was on its way when it was stopped is answered only now
        self._note(f"stop {child.name}", begun, more=3.0)
        self.busy.discard(child.name)
        return True

    async def _join(self) -> bool:
        if len(self.workers) >= 4:
            return False
        number = len(self.workers) + 1
        first = self.workers[0]
        port = processes.free_port()
        child = run.Child(f"worker-{number}", [*first.command[:-1], str(port)], "")
        self.demo._spawn(child)
        self.workers.append(child)
        self.demo.children.append(child)
        self._note(f"join {child.name}", time.time())
        return True

    async def _broker(self, end: Callable[[], None]) -> bool:
        kafka = self.demo.kafka
        if kafka is None or "broker" in self.busy:
            return False
        self.busy.add("broker")
        begun = time.time()
        await asyncio.to_thread(end)
        await asyncio.sleep(self.rnd.choice((0, 2, 6)))
        await asyncio.to_thread(kafka.start)
        # what was in flight when it went is recorded, or repeated, once clients have found it again
        self._note("broker", begun, more=10.0)
        self.busy.discard("broker")
        return True

    async def _collector(self) -> bool:
        child = next(c for c in self.demo.children if c.name == "collector")
        if child.process is None or child.process.poll() is not None or child.name in self.busy:
            return False
        self.busy.add(child.name)
        begun = time.time()
        child.process.kill()
        await asyncio.to_thread(child.process.wait)
        await asyncio.sleep(self.rnd.uniform(0, 2))
        self.demo._spawn(child)
        self._note("collector-kill", begun)
        self.busy.discard(child.name)
        return True

    async def _bad_platform(self) -> bool:
        if "platform" in self.busy:
            return False
        self.busy.add("platform")
        switches: dict[str, Any] = self.rnd.choice(
            (
                {"status_500": 0.4, "status_429": 0.2, "retry_after": 1},
                {"throttle_400": 0.5, "latency_ms": 200},
                {"reset_after": 0.2},
                {"reset_before": 0.3, "html_error": 0.2},
                {"expired_token": True},
                {"latency_ms": 12_000},  # beyond the time-out: accepted, and nobody heard
            )
        )
        begun = time.time()
        await self._platform(**switches, seed=self.seed)
        await asyncio.sleep(self.rnd.uniform(3, 8))
        await self._platform()
        ambiguous = "reset_after" in switches or switches.get("latency_ms", 0) > 10_000
        name = ("slow" if "latency_ms" in switches else "reset") if ambiguous else "platform"
        self._note(f"{name} {json.dumps(switches)}", begun, more=15.0 if name == "slow" else 1.0)
        self.busy.discard("platform")
        return True

    async def _platform(self, **switches: Any) -> None:
        async with self.http.post(
            self.demo.addresses["sandbox"] + "/faults", json={"destination": "meta", **switches}
        ) as response:
            response.raise_for_status()

    async def _poison(self) -> bool:
        """Records that nobody can use must not hold up the others."""
        values = (b"\xff\x00", b"[[[[", b'{"event_name": 1e999}', b"null", b'{"event_name": "purchase", "commerce": 7}')
        try:
            for value in values:
                await asyncio.wait_for(self.bus.send_and_wait(self.demo.addresses["topic"], value), 20)
        except (KafkaError, TimeoutError):
            return False
        self._note("poison", time.time())
        return True

    async def _supervise(self) -> None:
        """What ends by itself is started again after a second, as systemd would."""
        while True:
            await asyncio.sleep(0.3)
            for child in self.demo.children:
                if child.process and child.process.poll() is not None and child.name not in self.busy:
                    self._note(f"exit {child.name} status {child.process.returncode}", time.time() - 2.0)
                    await asyncio.sleep(1)
                    self.demo._spawn(child)

    # -- the end

    async def _settle(self) -> list[dict[str, Any]]:
        """Everything the platform accepted, once all that is obligated is there and nothing more comes."""
        self.say("faults over; waiting for everything obligated")
        accepted: list[dict[str, Any]] = []
        got: set[str] = set()
        after, changed, until = 0, time.monotonic(), time.monotonic() + self.patience
        fresh = self.oracle.new()  # a proof of life
        await self._copy(fresh.id, fresh.name, 0.0, "server", "collector")
        while time.monotonic() < until:
            url = f"{self.demo.addresses['sandbox']}/accepted.json?destination=meta&after={after}"
            async with self.http.get(url) as response:
                new = (await response.json())["events"]
            if new:
                accepted += new
                got.update(str(entry["event_id"]) for entry in new)
                after, changed = max(entry["seq"] for entry in new), time.monotonic()
            elif all(one.id in got for one in self.oracle.obligated()) and time.monotonic() - changed > QUIET:
                break
            await asyncio.sleep(0.3)
        return accepted


def _wait(process: subprocess.Popen[bytes], patience: float) -> None:
    try:
        process.wait(patience)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _wipe(folder: Path) -> None:
    """Remove a worker's state unless a worker has it."""
    with (folder / "lock").open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return
        shutil.rmtree(folder, ignore_errors=True)


def one_run(seed: int, seconds: float, say: Callable[[str], None], **options: Any) -> tuple[Verdict, Run]:
    """Run, judge, and leave the folder behind only when the verdict is bad."""
    os.environ.pop("CAPISTREAM_BROKER", None)  # the harness kills its broker: it must be its own
    folder = Path(tempfile.mkdtemp(prefix=f"capistream-fault-{seed}-"))
    this = Run(seed, seconds, folder, say=say, **options)
    verdict = asyncio.run(this.go())
    if verdict.good:
        shutil.rmtree(folder, ignore_errors=True)
    return verdict, this
