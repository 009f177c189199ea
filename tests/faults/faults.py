"""What is done to the system: a plan that follows from a seed, and the hands that do it and see that it really happened."""

import asyncio
import contextlib
import json
import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from app import keys, processes, topics
from app.demo import run
from tests.faults import logs, strangers
from tests.faults.conversions import Conversion
from tests.faults.oracle import Fault
from tests.faults.state import States

STOPPED = (12.0, 17.0)  # seconds of SIGSTOP: longer than the session timeout of 10
TERM_PATIENCE = 30.0
MOST_WORKERS = 4

#: Kinds of faults, in the proportions in which they come.
DECK = (
    "kill", "kill", "kill", "term", "term", "stop", "own", "own", "join", "broker-kill", "broker-stop", "broker-pause",
    "collector", "latency", "throttle", "errors", "reset", "timeout", "token", "poison", "strangers", "offsets", "offsets",
)  # fmt: skip

#: Mixes whose steps come in an order of their own, each when the one before is through; the load goes on for as long.
SCALE = "scale"  # workers 1 -> 2 -> 4 -> 2 -> 1, again and again; one of those that go is killed
UPGRADE = "upgrade"  # all workers, one by one, from the last release to this one, and back
ORDERED = (SCALE, UPGRADE)
TAKEOVER = 15.0  # seconds in which the partitions of a killed worker have to go on

#: What a platform does, by kind; `token` and `throttle_400` happen at Meta only.
PLATFORM: dict[str, tuple[dict[str, Any], ...]] = {
    "latency": ({"latency_ms": 900},),
    "throttle": ({"status_429": 0.5, "retry_after": 1}, {"throttle_400": 0.5}),
    "errors": ({"status_500": 0.5}, {"html_error": 0.4}, {"reset_before": 0.4}),
    "reset": ({"reset_after": 0.3},),
    "timeout": ({"latency_ms": 12_000},),  # beyond the time-out: accepted, and nobody heard
    "token": ({"expired_token": True},),
}
META_ONLY = ("throttle_400", "expired_token")

POISON = (
    b"\xff\x00", b"[[[[", b'{"event_name": 1e999}', b"null", b'{"event_name": "purchase", "commerce": 7}', b"",
    b'{"event_name": "purchase", "event_id": "undefined"}', b'{"event_name": "login", "event_id": "a@b.example"}',
)  # fmt: skip


@dataclass(frozen=True)
class Step:
    after: float  # seconds after the step before
    kind: str
    seed: int


def plan(seed: int, seconds: float, deck: Sequence[str] = DECK) -> list[Step]:
    """Every kind comes up before any comes again as often, over the runs of neighbouring seeds, too."""
    if list(deck) == [SCALE]:
        return _scale(seed, seconds)
    if list(deck) == [UPGRADE]:
        return [Step(3.0, "roll", seed)]
    rnd = random.Random(seed)
    steps: list[Step] = []
    left: list[str] = []
    total = 0.0
    while True:
        after = rnd.choice((1.0, 3.0, 5.0, 8.0)) if steps else 2.0
        total += after
        if total > seconds - 5:
            return steps
        if not left:
            left = random.Random(seed // 2).sample(deck, len(deck))
            if seed % 2:  # the half that the seed before did not come to
                left.reverse()
        steps.append(Step(after, left.pop(), rnd.getrandbits(32)))


def _scale(seed: int, seconds: float) -> list[Step]:
    """Workers come and go, for as many rounds as there is time for, one at least."""
    rnd, steps = random.Random(seed), list[Step]()
    for _ in range(max(1, int(seconds / 40))):
        goes = rnd.sample(("lose", "leave", "leave"), 3)
        steps += [Step(2.0, "join", 0), Step(4.0, "join", 0), Step(0.0, "join", 0)]
        steps += [Step(3.0, kind, rnd.getrandbits(32)) for kind in goes]
    return steps


@dataclass
class Faults:
    """Each kind is a method that returns what exactly it did, or nothing when that was not possible then."""

    demo: run.Demo
    http: aiohttp.ClientSession
    bus: Any  # a producer
    known: Callable[[], list[Conversion]]
    say: Callable[[str], None]
    done: list[Fault] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)
    exits: Counter[str] = field(default_factory=Counter)  # what ended by itself, by why
    takeovers: list[float] = field(default_factory=list)  # seconds from a kill until all partitions went on elsewhere
    versions: Sequence[Sequence[str]] = ()  # of the mix `upgrade`: the programs that workers come from and go to
    busy: set[str] = field(default_factory=set)  # names of children that a fault holds in its hands
    _all_wanted: bool = False  # somebody waits for all workers: begin nothing more with one

    def __post_init__(self) -> None:
        self.workers = [child for child in self.demo.children if child.name.startswith("worker")]
        self.states = States(self.demo.config.worker.data_dir)
        self.stops = self.demo.folder / "stops"
        self._joined = len(self.workers)

    async def carry_out(self, steps: Sequence[Step], *, ordered: bool) -> None:
        tasks = []
        for step in steps:
            await asyncio.sleep(step.after)
            tasks.append(asyncio.create_task(self._do(step)))
            if ordered:
                await tasks[-1]
        await asyncio.gather(*tasks)

    async def _do(self, step: Step) -> None:
        kind = "platform" if step.kind in PLATFORM else step.kind.partition("-")[0]
        doing: Callable[[random.Random, str], Awaitable[str]] = getattr(self, f"_{kind}")
        if did := await doing(random.Random(step.seed), step.kind):
            self.kinds[did] += 1

    def _note(self, kind: str, at: float, text: str = "", **more: Any) -> None:
        fault = Fault(kind, at, time.time(), **more)
        self.done.append(fault)
        self.say(f"{kind} {text} {fault.pid or ''}, {fault.until - at:.1f} s")

    # -- workers

    def _take(self, rnd: random.Random, count: int) -> list[run.Child]:
        """Running workers that nobody else has; they are ours until they are given back."""
        free = [c for c in self.workers if c.process and c.process.poll() is None and c.name not in self.busy]
        if self._all_wanted:
            return []
        taken = rnd.sample(free, min(count, len(free)))
        self.busy.update(child.name for child in taken)
        return taken

    async def _kill(self, rnd: random.Random, _kind: str) -> str:
        return await self._end(rnd, signal.SIGKILL)

    async def _term(self, rnd: random.Random, _kind: str) -> str:
        return await self._end(rnd, signal.SIGTERM)

    async def _end(self, rnd: random.Random, number: signal.Signals) -> str:
        taken = self._take(rnd, rnd.choice((1, 1, 2, 3)))
        if not taken:
            return ""
        await self._end_these(taken, number)
        await asyncio.sleep(rnd.uniform(0, 5))
        self._disturb(rnd)
        for child in taken:
            self._again(child)
            await asyncio.sleep(rnd.choice((0, 0, 2)))
        name = "kill" if number == signal.SIGKILL else "term"
        return name if len(taken) == 1 else f"{name} {len(taken)} at once"

    async def _end_these(self, children: Sequence[run.Child], number: signal.Signals) -> None:
        begun = time.time()
        running = [child.process for child in children if child.process]
        for process in running:
            process.send_signal(number)
        for process in running:
            status = await asyncio.to_thread(_wait, process, TERM_PATIENCE)
            if number == signal.SIGTERM:  # one that ended in good order has recorded what it sent
                self._note("term" if status == 0 else "term-hard", begun, f"status {status}", pid=process.pid)
            else:
                self._note("kill", begun, pid=process.pid)

    def _again(self, child: run.Child) -> None:
        self.demo._spawn(child)
        self.busy.discard(child.name)

    def _disturb(self, rnd: random.Random) -> None:
        if did := self.states.disturb(rnd):
            self.kinds[f"state {did}"] += 1
            self.say(f"state {did}")

    async def _stop(self, rnd: random.Random, _kind: str) -> str:
        taken = self._take(rnd, rnd.choice((1, 1, 2)))
        for child in taken:
            assert child.process is not None
            os.kill(child.process.pid, signal.SIGSTOP)
        await asyncio.gather(*(self._sleep_and_wake(rnd, child, "stop") for child in taken))
        return {0: "", 1: "stop"}.get(len(taken), f"stop {len(taken)} at once")

    async def _own(self, rnd: random.Random, _kind: str) -> str:
        """Asleep between the proof of ownership and the write: nobody can know better, and the write comes late."""
        taken = self._take(rnd, 1)
        for child in taken:
            assert child.process is not None
            site = rnd.choice(("outputs", "rows", "rows", "send"))
            (self.stops / str(child.process.pid)).write_text(f"{site} {rnd.randint(1, 12)}")
            until = time.monotonic() + 20
            while not _is_stopped(child.process.pid):
                if child.process.poll() is not None:
                    self.busy.discard(child.name)
                    return ""
                if time.monotonic() > until:  # it could stop at any time from now on: it must not go on
                    await self._end_these([child], signal.SIGKILL)
                    self._again(child)
                    return "kill"
                await asyncio.sleep(0.05)
            await self._sleep_and_wake(rnd, child, "own", site)
            return f"own ({site})"
        return ""

    async def _sleep_and_wake(self, rnd: random.Random, child: run.Child, kind: str, text: str = "") -> None:
        assert child.process is not None
        begun, pid = time.time(), child.process.pid
        await asyncio.sleep(rnd.uniform(*STOPPED))
        if child.process.poll() is None:
            if not _is_stopped(pid):
                raise RuntimeError(f"worker {pid} did not stay stopped")
            os.kill(pid, signal.SIGCONT)
        self._note(kind, begun, text, pid=pid)
        self.busy.discard(child.name)

    async def _join(self, rnd: random.Random, _kind: str) -> str:
        if len(self.workers) >= MOST_WORKERS or self._all_wanted:
            return ""
        self._joined += 1
        command, port = list(self.workers[0].command), processes.free_port()
        command[command.index("--web-port") + 1] = str(port)
        child = run.Child(f"worker-{self._joined}", command, f"http://127.0.0.1:{port}/readyz")
        self.workers.append(child)
        self.demo._spawn(child)
        self.demo.children.append(child)
        self._note("join", time.time(), child.name)
        return "join"

    async def _leave(self, rnd: random.Random, _kind: str) -> str:
        """Not needed any more."""
        taken = self._take(rnd, 1)
        await self._end_these(taken, signal.SIGTERM)
        self._forget(taken)
        return "leave" if taken else ""

    async def _lose(self, rnd: random.Random, _kind: str) -> str:
        """Killed, and it does not come back. How long do its partitions stand still?"""
        taken = self._take(rnd, 1)
        for child in taken:
            had = (await self._all_have_work())[_address(child)]
            begun = time.monotonic()
            await self._end_these([child], signal.SIGKILL)
            self._forget([child])
            went_on = await logs.went_on(self.demo.config, had)
            slowest = max(went_on, key=went_on.__getitem__)
            self.takeovers.append(round(went_on[slowest] - begun, 1))
            self.say(
                f"takeover of {len(went_on)} partitions: the first after {min(went_on.values()) - begun:.1f} s, "
                f"the last, {slowest.topic}-{slowest.partition}, after {self.takeovers[-1]} s"
            )
        return "kill for good" if taken else ""

    async def _all_have_work(self, patience: float = 60.0) -> dict[str, set[TopicPartition]]:
        """Which partitions each worker has, by its address."""
        until = time.monotonic() + patience
        while time.monotonic() < until:
            have = await logs.holders(self.demo.config)
            if all(have.get(_address(child)) for child in self.workers):
                return have
            await asyncio.sleep(0.2)
        raise RuntimeError(f"not every worker got partitions within {patience} s")

    def _forget(self, gone: Sequence[run.Child]) -> None:
        for child in gone:
            self.workers.remove(child)
            self.demo.children.remove(child)
            self.busy.discard(child.name)

    async def _roll(self, _rnd: random.Random, _kind: str) -> str:
        """Each worker in turn is replaced by one of the other version, as soon as the one before is ready; then all back."""
        old, new = self.versions
        for name, before, after in (("upgrade", old, new), ("back", new, old)):
            for child in self.workers:
                self.busy.add(child.name)
                await self._end_these([child], signal.SIGTERM)
                child.command = [*after, *child.command[len(before) :]]
                self._again(child)
                await self._ready(child)
                self.kinds[f"term for {name}"] += 1
            self.say(f"{name}: all workers are replaced")
            await asyncio.sleep(5)
        return ""

    async def _ready(self, child: run.Child, patience: float = 60.0) -> None:
        until = time.monotonic() + patience
        while time.monotonic() < until:
            with contextlib.suppress(aiohttp.ClientError):
                async with self.http.get(child.ready) as response:
                    if response.status == 200:
                        return
            await asyncio.sleep(0.2)
        raise RuntimeError(f"{child.name} is not ready after {patience} s")

    async def _offsets(self, rnd: random.Random, _kind: str) -> str:
        """All workers end, the group is set back in every topic, some lose their disks, and all begin again."""
        if self._all_wanted or "broker" in self.busy:
            return ""
        self._all_wanted = True
        self.busy.add("broker")  # it has to answer now
        try:
            until = time.monotonic() + 30
            while any(child.name in self.busy or not child.process for child in self.workers):
                if time.monotonic() > until:
                    return ""
                await asyncio.sleep(0.1)
            return await self._set_back(rnd)
        finally:
            self._all_wanted = False
            self.busy.discard("broker")

    async def _set_back(self, rnd: random.Random) -> str:
        taken = list(self.workers)
        self.busy.update(child.name for child in taken)
        begun = time.time()
        await self._end_these(taken, rnd.choice((signal.SIGTERM, signal.SIGTERM, signal.SIGKILL)))
        counts = await topics.partition_counts(self.demo.config)
        names, partitions = topics.names(self.demo.config), self.demo.config.kafka.partitions
        ours = [names.events, *(names.to(name) for name in self.demo.config.destinations)]
        seconds = rnd.choice((None, 20.0, 60.0))
        try:
            again = await logs.set_back(self.demo.config, counts | dict.fromkeys(ours, partitions), seconds)
        except (KafkaError, TimeoutError) as exc:
            self.say(f"offsets not set back: {exc!r}")
            again = 0
        wiped = rnd.random() < 0.5 and self.states.wipe()
        for child in taken:
            self._again(child)
        self._note("offsets", begun, f"{again} records come again{', state wiped' if wiped else ''}")
        if wiped:
            self.kinds["state wiped"] += 1
        return ("offsets" if seconds is None else "offsets some") if again else ""

    # -- the rest of the world

    async def _broker(self, rnd: random.Random, kind: str) -> str:
        kafka = self.demo.kafka
        if kafka is None or "broker" in self.busy or self._all_wanted:
            return ""
        self.busy.add("broker")
        begun = time.time()
        if kind == "broker-pause":
            await asyncio.to_thread(kafka.pause)
            await asyncio.sleep(rnd.choice((4, 8, 14)))
            kafka.resume()
        else:
            await asyncio.to_thread(kafka.kill if kind == "broker-kill" else kafka.stop)
            if kafka.pid is not None:
                raise RuntimeError("the broker still runs")
            await asyncio.sleep(rnd.choice((0, 2, 6)))
            await asyncio.to_thread(kafka.start)
        self._note("broker", begun, kind)
        self.busy.discard("broker")
        return kind

    async def _collector(self, rnd: random.Random, _kind: str) -> str:
        child = next(c for c in self.demo.children if c.name == "collector")
        if child.process is None or child.process.poll() is not None or child.name in self.busy:
            return ""
        self.busy.add(child.name)
        begun = time.time()
        child.process.kill()
        await asyncio.to_thread(child.process.wait)
        await asyncio.sleep(rnd.uniform(0, 2))
        self._again(child)
        self._note("collector", begun)
        return "collector"

    async def _platform(self, rnd: random.Random, kind: str) -> str:
        switches = rnd.choice(PLATFORM[kind])
        name = "meta" if any(one in switches for one in META_ONLY) else rnd.choice(list(self.demo.config.destinations))
        if f"platform {name}" in self.busy:
            return ""
        self.busy.add(f"platform {name}")
        before, begun = await self._strikes(name), time.time()
        await self.switch(name, **switches, seed=rnd.getrandbits(16))
        await asyncio.sleep(rnd.uniform(3, 8))
        await self.switch(name)
        self._note(kind, begun, f"{name} {json.dumps(switches)}", destination=name)
        struck = await self._strikes(name) - before
        self.busy.discard(f"platform {name}")
        if kind in ("latency", "timeout", "token"):
            return f"{kind} {name}" if struck["requests"] or struck["refused"] else ""
        return f"{kind} {name}" if struck["faults"] else ""

    async def _strikes(self, name: str) -> Counter[str]:
        """What a platform counted so far."""
        async with self.http.get(f"{self.demo.addresses['sandbox']}/balance.json?destination={name}") as response:
            accounts = (await response.json())["destinations"].values()
        found = Counter[str]()
        for one in accounts:
            found += Counter(requests=one["requests"], refused=one["refused"], faults=sum(one["faults"].values()))
        return found

    async def switch(self, name: str, **switches: Any) -> None:
        """Replace a platform's fault switches; without any it works again."""
        async with self.http.post(
            self.demo.addresses["sandbox"] + "/faults", json={"destination": name, **switches}
        ) as response:
            response.raise_for_status()

    # -- what nobody can use

    async def _poison(self, rnd: random.Random, _kind: str) -> str:
        begun = time.time()
        address = self.demo.addresses["collector"] + "/v1/events"
        headers = {"Authorization": f"Bearer {self.demo.addresses['write_key']}"}
        try:
            for value in rnd.sample(POISON, len(POISON)):
                await asyncio.wait_for(self.bus.send_and_wait(self.demo.addresses["topic"], value), 20)
                async with self.http.post(address, data=value, headers=headers) as response:
                    if response.status == 200:
                        raise RuntimeError(f"the collector took {value!r}")
        except (KafkaError, TimeoutError, aiohttp.ClientError):
            return ""
        self._note("poison", begun)
        return "poison"

    async def _strangers(self, rnd: random.Random, _kind: str) -> str:
        begun, names, n = time.time(), topics.names(self.demo.config), self.demo.config.kafka.partitions
        to_events, to_destination = strangers.records(rnd, self.known(), 6)
        wanted = [(names.events, *one) for one in to_events]
        wanted += [(names.to(rnd.choice(list(self.demo.config.destinations))), *one) for one in to_destination]
        try:
            for topic, key, value in wanted:
                p = _partition(key, n)
                await asyncio.wait_for(self.bus.send_and_wait(topic, value, key=key, partition=p), 20)
        except (KafkaError, TimeoutError):
            return ""
        self._note("strangers", begun, f"{len(wanted)} records")
        return "strangers"

    # -- what ends by itself

    async def supervise(self) -> None:
        """It is started again after a second, as systemd would."""
        seen = time.time()
        while True:
            await asyncio.sleep(0.3)
            for child in self.demo.children:
                if child.process and child.process.poll() is not None and child.name not in self.busy:
                    self.busy.add(child.name)
                    why = self._last_words(child)
                    self.exits[f"{child.name.partition('-')[0]}: {why}"] += 1
                    self._note(
                        "exit", seen, f"{child.name} status {child.process.returncode}: {why}", pid=child.process.pid
                    )
                    await asyncio.sleep(1)
                    self._again(child)
            seen = time.time()

    def _last_words(self, child: run.Child) -> str:
        lines = (self.demo.folder / f"{child.name}.log").read_text(errors="replace").splitlines()
        for line in reversed(lines[-60:]):
            with contextlib.suppress(ValueError, TypeError, KeyError):
                said = json.loads(line)
                if said["event"] == "worker.dies":
                    return f"{said['why']} {said.get('error', '')}".strip()
                if "exception" in said:
                    return str(said["event"])[:150]
        return lines[-1][-100:] if lines else "nothing said"


def _partition(key: bytes | None, partitions: int) -> int:
    return keys.partition((key or b"").decode(errors="replace").split(keys.SEPARATOR)[0], partitions)


def _address(child: run.Child) -> str:
    """Where the other workers reach it."""
    return child.ready.removesuffix("/readyz")


def _is_stopped(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    except OSError:
        return False


def _wait(process: subprocess.Popen[bytes], patience: float) -> int:
    try:
        return process.wait(patience)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()
