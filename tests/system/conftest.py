"""A whole system: collector, worker and sandbox as processes of their own, on the session's Kafka."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable, Generator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from aiokafka import AIOKafkaProducer

from app import settings
from app.demo import run
from app.demo.balance import Reader

PATIENCE = 60.0
LOG_TAIL = 20_000  # characters of a process's log that a failure shows


class System:
    """A running demo system, and what tests ask of it."""

    def __init__(self, demo: run.Demo, http: aiohttp.ClientSession) -> None:
        self.demo, self.http = demo, http
        self.addresses: dict[str, Any] = demo.addresses
        self.said: list[str] = []

    async def post(
        self, body: Any, *, key: str = "write_key", path: str = "/v1/events", **headers: str
    ) -> tuple[int, Any]:
        """To the collector with the site's write key or secret key."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers["Authorization"] = f"Bearer {self.addresses[key]}"
        async with self.http.post(self.addresses["collector"] + path, data=data, headers=headers) as response:
            return response.status, json.loads(await response.read())

    async def produce(self, *values: bytes) -> None:
        """Straight into the shop's existing topic, with aiokafka."""
        producer = AIOKafkaProducer(bootstrap_servers=self.addresses["broker"], acks="all")
        await producer.start()
        try:
            for value in values:
                await producer.send_and_wait(self.addresses["topic"], value)
        finally:
            await producer.stop()

    async def get(self, where: str, path: str, **headers: str) -> tuple[int, str]:
        async with self.http.get(f"{self.addresses.get(where, where)}{path}", headers=headers) as response:
            return response.status, await response.text()

    async def journey(self, wanted: str, where: str = "view") -> dict[str, Any]:
        """As the tables have it; tests/system/test_view.py reads the whole of it."""
        status, text = await self.get(where, f"/events/{wanted}.json?payloads=false")
        return {"status": status, **json.loads(text)}

    async def settled(self, wanted: str, where: str = "view") -> dict[str, Any]:
        """The journey once every destination has its outcome."""

        async def done() -> dict[str, Any] | None:
            found = await self.journey(wanted, where)
            waiting = ("held", "queued", "halted")
            ok = found.get("conversions") and not any(
                there["state"] in waiting for one in found["conversions"] for there in one["destinations"].values()
            )
            return found if ok else None

        journey: dict[str, Any] = await eventually(done, f"an outcome for {wanted}")
        return journey

    async def accepted(self, destination: str, **filters: str) -> list[dict[str, Any]]:
        """What the emulated platform took."""
        query = "&".join(f"{k}={v}" for k, v in {"destination": destination, **filters}.items())
        events: list[dict[str, Any]] = json.loads((await self.get("sandbox", f"/accepted.json?{query}"))[1])["events"]
        return events

    async def faults(self, destination: str, **switches: Any) -> None:
        async with self.http.post(
            self.addresses["sandbox"] + "/faults", json={"destination": destination, **switches}
        ) as response:
            assert response.status == 200, await response.text()

    async def books(self, complete: Callable[[Any], bool]) -> Any:
        """Read the topics until `complete` says so."""
        reader = Reader(self.demo.config)
        following = asyncio.create_task(reader.follow())
        try:

            async def done() -> bool:
                if following.done():
                    following.result()
                return complete(reader.books)

            await eventually(done, "the books")
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
        return reader.books

    async def reconfigure(self, text: str) -> None:
        """Drained: all workers end, and start again with this configuration."""
        workers = [child for child in self.demo.children if child.name.startswith("worker")]
        for child in workers:
            await self.ended(child)
        path = self.demo.folder / "capistream.toml"
        path.write_text(text)
        self.demo.config = settings.parse(text, str(path))
        for child in workers:
            self.demo._spawn(child)
        for child in workers:
            await self.ready(child)

    async def ended(self, child: run.Child) -> None:
        """By SIGTERM, in good order."""
        assert child.process is not None
        child.process.terminate()
        assert await asyncio.to_thread(child.process.wait) == 0

    async def ready(self, child: run.Child) -> str:
        """What it says when it is."""

        async def answer() -> str:
            async with self.http.get(child.ready) as response:
                return await response.text() if response.status == 200 else ""

        said: str = await eventually(answer, f"{child.name} is ready")
        return said

    def log(self, child: str) -> str:
        return (self.demo.folder / f"{child}.log").read_text(errors="replace")

    def logged(self, child: str, event: str) -> list[dict[str, Any]]:
        """Its log lines of this kind."""
        lines = (line for line in self.log(child).splitlines() if f'"{event}"' in line)
        return [said for said in map(json.loads, lines) if said["event"] == event]

    def child(self, name: str) -> run.Child:
        return next(child for child in self.demo.children if child.name == name)


async def eventually(check: Callable[[], Any], what: str, patience: float = PATIENCE) -> Any:
    """The first true answer of `check`; fails after `patience` seconds."""
    until = time.monotonic() + patience
    while True:
        try:
            if found := await check():
                return found
        except aiohttp.ClientError:
            pass  # it may be starting again
        assert time.monotonic() < until, f"not within {patience} s: {what}"
        await asyncio.sleep(0.1)


@contextlib.asynccontextmanager
async def running(
    kafka: Any, folder: Path, monkeypatch: pytest.MonkeyPatch, workers: int = 1, more: str = ""
) -> AsyncIterator[System]:
    monkeypatch.setenv("CAPISTREAM_BROKER", kafka.brokers)
    folder.mkdir(exist_ok=True)
    said: list[str] = []
    demo = run.Demo(
        say=said.append,
        workers=workers,
        folder=folder,
        destinations=("meta", "ga4"),
        ports=run.free_ports(),
        more=more,
    )
    try:
        await demo.start()
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as http:
            system = System(demo, http)
            system.said = said
            yield system
    finally:
        await asyncio.to_thread(demo.stop)


@pytest.fixture
async def system(kafka: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[System]:
    async with running(kafka, tmp_path / "system", monkeypatch) as one:
        yield one


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def _shared(kafka: Any, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[run.Demo]:
    with pytest.MonkeyPatch.context() as patch:
        async with running(kafka, tmp_path_factory.mktemp("shared") / "system", patch) as one:
            yield one.demo


@pytest.fixture
async def shared_system(_shared: run.Demo) -> AsyncIterator[System]:
    """A system that all tests of a module share: for tests that leave nothing behind that another would notice."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as http:
        yield System(_shared, http)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What the processes said goes with a failure: their folder is gone afterwards."""
    report = yield
    systems = [one for one in getattr(item, "funcargs", {}).values() if isinstance(one, System)]
    if report.when == "call" and report.failed and systems:
        for child in systems[0].demo.children:
            with contextlib.suppress(OSError):
                report.sections.append((f"{child.name}.log", systems[0].log(child.name)[-LOG_TAIL:]))
    return report
