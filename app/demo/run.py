"""Starts embedded Kafka, sandbox, collector and workers as processes of their own, plays traffic, shows the books."""

import asyncio
import contextlib
import logging
import os
import re
import secrets
import shutil
import signal
import string
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import orjson
from aiokafka.admin import AIOKafkaAdminClient
from rich.console import Console
from rich.live import Live
from rich.table import Table

from app import processes, settings, topics
from app.demo import balance, traffic
from app.errors import CapistreamError, Unavailable
from app.events import Json
from app.kafka import Kafka

SESSIONS = Path(__file__).parent / "sessions.jsonl"
BUS_PARTITIONS = 3
PORTS = {"collector": 8080, "view": 6066, "sandbox": 8090, "shop": 8070}
PATIENCE = 150.0  # seconds after the last event for the books to balance


def free_ports() -> dict[str, int]:
    """In place of PORTS, for systems beside each other: tests, the fault harness."""
    return {name: processes.free_port() for name in PORTS}


@dataclass
class Child:
    """A process of ours that is started again when it ends by itself, as a supervisor would."""

    name: str
    command: list[str]
    ready: str  # address that answers 200 when it is
    process: subprocess.Popen[bytes] | None = None
    starts: int = 0


@dataclass
class Demo:
    """Everything that runs. `say` gets progress lines."""

    say: Callable[[str], None]
    workers: int = 1
    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="capistream-demo-")))
    keep: bool = False  # the folder, after the end
    worker_program: list[str] | None = None  # another worker than ours, for comparison
    destinations: tuple[str, ...] | None = None  # of demo.toml, only these
    ports: dict[str, int] = field(default_factory=lambda: dict(PORTS))  # wanted ones; others, where they are taken
    more: str = ""  # configuration beside that of demo.toml
    shop: bool = False  # the shop with the pixel, too
    spool: bool = False  # the collector keeps on its disk what Kafka does not take
    children: list[Child] = field(default_factory=list)
    kafka: Kafka | None = None
    config: settings.Settings = field(init=False)
    addresses: Json = field(init=False)
    _ending: bool = False

    async def start(self) -> None:
        """Raises CapistreamError when something does not come up."""
        brokers = await asyncio.to_thread(self._start_kafka)
        ports = {name: self._port(name, port) for name, port in self.ports.items()}
        keys = {"write_key": f"wk_{secrets.token_hex(8)}", "secret_key": f"sk_{secrets.token_hex(16)}"}
        sandbox = f"http://127.0.0.1:{ports['sandbox']}"
        os.environ.update(_secrets(sandbox), DEMO_SECRET_KEY=keys["secret_key"])
        copies = await self._copies(brokers)
        prefix = "capistream" if self.kafka else f"capistream-demo-{secrets.token_hex(3)}"
        text = string.Template((Path(__file__).parent / "demo.toml").read_text()).substitute(
            brokers=brokers,
            replication=copies,
            prefix=prefix,
            topic="shop.orders" if self.kafka else f"{prefix}-shop.orders",
            write_key=keys["write_key"],
            sandbox=sandbox,
            collector_port=ports["collector"],
            view_port=ports["view"],
            data_dir=self.folder / "state",
        )
        if self.destinations is not None:
            text = _with_only(self.destinations, text)
        if self.spool:
            text = text.replace("[collector]\n", f'[collector]\nspool = "{self.folder / "spool"}"\n')
        text += self.more
        path = self.folder / "capistream.toml"
        path.write_text(text)
        self.config = settings.parse(text, str(path))
        await self._create_topics(copies)
        self._plan_children(path, ports, keys["write_key"])
        self.say(f"starting sandbox, collector and {self.workers} worker{'s' if self.workers > 1 else ''}")
        for child in self.children:
            self._spawn(child)
        await self._wait_ready()
        self.addresses = {
            "broker": brokers,
            "collector": f"http://127.0.0.1:{ports['collector']}",
            "view": f"http://127.0.0.1:{ports['view']}",
            "sandbox": f"http://127.0.0.1:{ports['sandbox']}",
            **({"shop": f"http://127.0.0.1:{ports['shop']}"} if self.shop else {}),
            "topic": next(iter(self.config.sources.values())).topic,
            "config": str(path),
            **keys,
            "pids": {child.name: child.process.pid for child in self.children if child.process},
        }

    def _start_kafka(self) -> str:
        if given := os.environ.get("CAPISTREAM_BROKER"):
            self.say(f"using the Kafka at {given} (CAPISTREAM_BROKER)")
            return given
        self.kafka = Kafka(self.folder / "kafka")
        self.kafka.start(self.say)
        return self.kafka.brokers

    async def _copies(self, brokers: str) -> int:
        """Of each partition: three, where there are as many brokers."""
        admin = AIOKafkaAdminClient(bootstrap_servers=brokers)
        await admin.start()
        try:
            return min(3, len((await admin.describe_cluster())["brokers"]))
        finally:
            await admin.close()

    def _port(self, name: str, wanted: int) -> int:
        port = processes.free_port(wanted)
        if port != wanted:
            self.say(f"port {wanted} is taken: {name} listens on {port}")
        return port

    async def _create_topics(self, copies: int) -> None:
        self.say("creating topics")
        admin = AIOKafkaAdminClient(bootstrap_servers=self.config.brokers)
        await admin.start()
        try:
            bus = [topics.Topic(s.topic, "", "", "", BUS_PARTITIONS) for s in self.config.sources.values()]
            await topics.create(admin, bus, copies)
        finally:
            await admin.close()
        await topics.apply(self.config)

    def _plan_children(self, config: Path, ports: dict[str, int], write_key: str) -> None:
        program = [sys.executable, "-m", "app.cli"]
        sandbox = f"http://127.0.0.1:{ports['sandbox']}/"
        self.children = [
            Child("sandbox", [*program, "sandbox", "--port", str(ports["sandbox"])], sandbox),
            Child(
                "collector",
                [*program, "collect", "--config", str(config)],
                f"http://127.0.0.1:{ports['collector']}/readyz",
            ),
        ]
        for number in range(1, self.workers + 1):
            port = ports["view"] if number == 1 else processes.free_port(ports["view"] + number)
            command = [*(self.worker_program or [*program, "worker"]), "--config", str(config), "--web-port", str(port)]
            command.append("--backfill")  # its topic may have records before the first worker stands
            self.children.append(Child(f"worker-{number}", command, f"http://127.0.0.1:{port}/readyz"))
        if self.shop:
            command = [sys.executable, "-m", "app.demo.shop", "--port", str(ports["shop"]), "--write-key", write_key]
            for name in ("collector", "view"):
                command += [f"--{name}", f"http://127.0.0.1:{ports[name]}"]
            self.children.append(Child("shop", command, f"http://127.0.0.1:{ports['shop']}/"))

    def _spawn(self, child: Child) -> None:
        child.process = processes.spawn(child.command, self.folder / f"{child.name}.log")
        child.starts += 1

    async def _wait_ready(self) -> None:
        until = time.monotonic() + 90
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=3)) as http:
            for child in self.children:
                while not await _answers(http, child.ready):
                    if child.process and child.process.poll() is not None:
                        raise Unavailable(f"{child.name} ended while starting:\n{self._tail(child)}")
                    if time.monotonic() > until:
                        raise Unavailable(f"{child.name} is not ready after 90 s:\n{self._tail(child)}")
                    await asyncio.sleep(0.1)

    def _tail(self, child: Child) -> str:
        lines = (self.folder / f"{child.name}.log").read_text(errors="replace").splitlines()
        return "\n".join(lines[-15:])

    async def supervise(self) -> None:
        """What ends by itself is started again after a second."""
        while True:
            await asyncio.sleep(0.3)
            for child in self.children:
                if child.process is not None and child.process.poll() is not None and not self._ending:
                    self.say(f"{child.name} ended with {child.process.returncode}: starting it again")
                    await asyncio.sleep(1)
                    self._spawn(child)

    def stop(self) -> None:
        """End everything within 10 s, workers first, Kafka last; and remove the folder."""
        self._ending = True
        running = [child.process for child in reversed(self.children) if child.process is not None]
        if running:
            with ThreadPoolExecutor(len(running)) as pool:
                list(pool.map(lambda process: processes.stop(process, 8.0), running))
        if self.kafka is not None:
            self.kafka.kill()  # its folder goes with it
        if not self.keep:
            shutil.rmtree(self.folder, ignore_errors=True)


def _secrets(sandbox: str) -> dict[str, str]:
    """What the demo's destinations find in the environment: fresh ones, that the emulators take."""
    google = {
        "type": "authorized_user",
        "client_id": "demo",
        "client_secret": secrets.token_urlsafe(16),
        "refresh_token": secrets.token_urlsafe(16),
        "token_uri": f"{sandbox}/google_ads/token",
    }
    return {
        "DEMO_META_TOKEN": f"EAAB{secrets.token_hex(16)}",
        "DEMO_GA4_SECRET": secrets.token_urlsafe(16),
        "DEMO_GOOGLE_CREDENTIALS": orjson.dumps(google).decode(),
        "DEMO_TIKTOK_TOKEN": secrets.token_hex(20),
        "DEMO_PINTEREST_TOKEN": f"pina_{secrets.token_hex(20)}",
    }


def _with_only(names: tuple[str, ...], text: str) -> str:
    """A configuration without the other destinations."""
    parts = re.split(r"(?m)^(?=\[)", text)
    wanted = tuple(f"[destinations.{name}]" for name in names)
    return "".join(part for part in parts if not part.startswith("[destinations.") or part.startswith(wanted))


async def _answers(http: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with http.get(url) as response:
            return response.status == 200
    except (aiohttp.ClientError, TimeoutError, OSError):
        return False


def run(*, once: bool, as_json: bool, workers: int, file: Path | None, speed: float) -> int:
    """The command. Returns its exit status: 0 when the books balance, or after Ctrl-C."""
    return asyncio.run(_run(once=once, as_json=as_json, workers=workers, file=file or SESSIONS, speed=speed))


async def _run(*, once: bool, as_json: bool, workers: int, file: Path, speed: float) -> int:
    stderr = Console(stderr=True, highlight=False)
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # Kafka comes up after us, and goes before us
    begun = time.monotonic()
    lines = traffic.load(file)
    demo = Demo(
        say=lambda text: stderr.print(f"[dim]{time.monotonic() - begun:6.1f} s[/dim]  {text}"),
        workers=workers,
        shop=True,
    )
    interrupted = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, interrupted.set)
    try:
        work = asyncio.create_task(_session(demo, lines, once=once, as_json=as_json, speed=speed, stderr=stderr))
        stop = asyncio.create_task(interrupted.wait())
        await asyncio.wait({work, stop}, return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            return work.result()
        demo.say("stopping")
        work.cancel()
        with contextlib.suppress(asyncio.CancelledError, CapistreamError):
            await work
        return 0
    finally:
        await asyncio.to_thread(demo.stop)


async def _session(demo: Demo, lines: list[Json], *, once: bool, as_json: bool, speed: float, stderr: Console) -> int:
    await demo.start()
    _announce(demo, stderr, as_json=as_json)
    reader = balance.Reader(demo.config)
    sent = traffic.Sent()
    helpers = [asyncio.create_task(demo.supervise()), asyncio.create_task(reader.follow())]
    begun = time.monotonic()
    live = None if as_json else Live(console=Console(), refresh_per_second=4, transient=False)
    try:
        with live or contextlib.nullcontext():
            if live:
                helpers.append(asyncio.create_task(_show(live, reader, begun)))
            playing = asyncio.create_task(_play(demo, lines, sent, speed, once=once))
            helpers.append(playing)
            await asyncio.wait(helpers, return_when=asyncio.FIRST_COMPLETED)
            for task in helpers:
                if task.done():
                    task.result()  # a failure of any is the end
            helpers.remove(playing)
            demo.say("all sent; waiting until every conversion has its outcome")
            balanced = await _settled(reader, sent, helpers)
            if live:
                live.update(_table(reader.books.report(), time.monotonic() - begun))
    finally:
        for task in helpers:
            task.cancel()
        await asyncio.gather(*helpers, return_exceptions=True)
    report = reader.books.report()
    platforms = await _platforms(demo)
    restarts = {child.name: child.starts - 1 for child in demo.children if child.starts > 1}
    complete = balanced and not sent.failed and _agree(report, platforms, undisturbed=not restarts)
    report |= {
        "balanced": complete,
        "sent": {"pixel": sent.pixel, "segment": sent.segment, "bus": sent.bus},
        "refused_at_collector": sent.refused,
        "never_acknowledged": len(sent.failed),
        "platforms": platforms,
        "restarts": restarts,
        "seconds": round(time.monotonic() - begun, 1),
    }
    if as_json:
        print(orjson.dumps(report).decode(), flush=True)
    else:
        stderr.print(
            "[bold green]The books balance.[/]" if complete else f"[bold red]The books do not balance:[/] {report}"
        )
    return 0 if complete else 1


async def _play(demo: Demo, lines: list[Json], sent: traffic.Sent, speed: float, *, once: bool) -> None:
    """The file once; or again and again, each time with new ids."""
    player = traffic.Player(traffic.target(demo.config))
    player.sent = sent
    demo.say(f"playing {len(lines)} events")
    await player.play(lines, speed=speed)
    number = 2
    while not once:
        await asyncio.sleep(1)
        await player.play(lines, speed=speed / 4, suffix=f"-{number}")
        number += 1


async def _settled(reader: balance.Reader, sent: traffic.Sent, helpers: list[asyncio.Task[Any]]) -> bool:
    """Wait until all that was acknowledged is in the books, and they balance."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        books = reader.books
        if books.balanced() and books.received.total() + len(books.letters) >= sent.total:
            return True
        if done := next((task for task in helpers if task.done()), None):
            done.result()
        await asyncio.sleep(0.25)
    return False


async def _platforms(demo: Demo) -> Json:
    """What the platforms (emulators) say they have: an independent count."""
    async with (
        aiohttp.ClientSession() as http,
        http.get(f"{demo.addresses['sandbox']}/balance.json") as response,
    ):
        counted = orjson.loads(await response.read())["destinations"].values()
    return {
        name: {
            what: sum(account[what] for account in counted if account["platform"] == one.sink)
            for what in ("accepted", "unique", "duplicates", "refused", "warned")
        }
        for name, one in demo.config.destinations.items()
    }


def _agree(report: Json, platforms: Json, *, undisturbed: bool) -> bool:
    """Do the platforms count what we count? After a kill a platform without event ids may count a repeated one twice."""
    return all(
        platforms[name]["unique"] == (taken := one["delivered"] + one["accepted"])
        or (not undisturbed and platforms[name]["unique"] > taken)
        for name, one in report["destinations"].items()
    )


def _announce(demo: Demo, stderr: Console, *, as_json: bool) -> None:
    if as_json:
        print(orjson.dumps(demo.addresses).decode(), flush=True)
        return
    stderr.print()
    for name in ("shop", "view", "collector", "sandbox", "broker"):
        stderr.print(f"  {name:10} [bold]{demo.addresses[name]}[/]")
    stderr.print(f"  {'keys':10} write_key {demo.addresses['write_key']}   secret_key {demo.addresses['secret_key']}")
    stderr.print(f"  {'logs':10} {demo.folder}")
    stderr.print("\nLook up any event id at the view, or kill a worker (pids: "
                 f"{', '.join(f'{k} {v}' for k, v in demo.addresses['pids'].items())}). Ctrl-C ends it.\n")  # fmt: skip


async def _show(live: Live, reader: balance.Reader, begun: float) -> None:
    while True:
        live.update(_table(reader.books.report(), time.monotonic() - begun))
        await asyncio.sleep(0.5)


def _table(report: Json, seconds: float) -> Table:
    table = Table(title=f"capistream demo, {seconds:.0f} s", title_justify="left", show_header=False, min_width=64)
    table.add_column(style="dim")
    table.add_column()
    received = ", ".join(f"{source} {n}" for source, n in report["received"].items())
    table.add_row("copies received", f"{sum(report['received'].values())}  ({received})")
    table.add_row("conversions", f"{report['unique']} unique, {report['merged']} merged")
    for name, one in report["destinations"].items():
        parts = [f"[green]{one[state]} {state}[/]" for state in ("delivered", "accepted") if one[state]]
        parts += [
            f"{one[state]} {state.replace('_', ' ')}"
            for state in ("held_back", "skipped", "filtered", "erased")
            if one[state]
        ]
        parts += [f"[red]{one['rejected']} rejected[/]"] if one["rejected"] else []
        parts += [f"[yellow]{one['pending']} under way[/]"] if one["pending"] else []
        table.add_row(name, ", ".join(parts))
    table.add_row("late duplicates", str(report["late_duplicates"]))
    letters = ", ".join(f"{reason} {n}" for reason, n in report["dead_letters"].items())
    table.add_row("dead letters", letters or "none")
    return table
