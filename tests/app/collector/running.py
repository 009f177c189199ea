"""`capistream collect` as a process: to be killed, and asked what it answered for."""

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import orjson

from app import processes, records
from app.kafka import Kafka
from app.settings import parse
from tests.collecting import SECRET_KEY, WRITE_KEY, config


@dataclass
class Running:
    """`capistream collect` as a process."""

    broker: Kafka
    prefix: str
    folder: Path
    more: str
    arguments: tuple[str, ...] = ()
    port: int = field(default_factory=processes.free_port)
    process: "subprocess.Popen[bytes] | None" = None
    answered: list[str] = field(default_factory=list)  # ids for which it said 200

    @property
    def text(self) -> str:
        return config(self.broker.brokers, self.prefix, f"port = {self.port}\n{self.more}")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        config = self.folder / "capistream.toml"
        config.write_text(self.text)
        command = [sys.executable, "-m", "app.cli", "collect", "--config", str(config), *self.arguments]
        self.process = processes.spawn(command, self.folder / "log", {"SHOP_SECRET_KEY": SECRET_KEY})
        end = time.monotonic() + 60
        while not await self.ready():
            assert time.monotonic() < end, (self.folder / "log").read_text()
            await asyncio.sleep(0.1)

    async def ready(self) -> bool:
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            return (await self.ask("GET", "/readyz"))[0] == 200
        return False

    async def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, str, Any]:
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as http,
            http.request(method, self.url + path, json=body, headers=headers) as answer,
        ):
            return answer.status, await answer.text(), answer.headers

    async def send(self, ids: Iterable[str]) -> list[int]:
        """One request each, all at once."""

        async def one(event_id: str) -> int:
            body = {"event_name": "purchase", "event_id": event_id, "user": {"email": "ada@example.com"}}
            status, _, _ = await self.ask("POST", "/v1/events", body, X_Write_Key=WRITE_KEY)
            if status == 200:
                self.answered.append(event_id)
            return status

        return await asyncio.gather(*(one(event_id) for event_id in ids))

    async def metric(self, name: str) -> float:
        _, page, _ = await self.ask("GET", "/metrics")
        return sum(float(line.split()[-1]) for line in page.splitlines() if line.startswith(name))

    def signal(self, number: int) -> None:
        assert self.process is not None
        os.kill(self.process.pid, number)
        self.process.wait(20)

    async def arrived(self) -> list[str]:
        """Ids in capistream.events, by time of receipt."""
        settings = parse(self.text)
        async with records.reader(settings) as reader:
            found = [
                orjson.loads(one.value) async for one in records.everything(reader, f"{self.prefix}.events", [0, 1])
            ]
        return [event["event_id"] for event in sorted(found, key=lambda event: event["received"])]


@contextlib.asynccontextmanager
async def running(
    broker: Kafka, prefix: str, folder: Path, more: str = "", arguments: tuple[str, ...] = ()
) -> AsyncIterator[Running]:
    one = Running(broker, prefix, folder, more, arguments)
    await one.start()
    try:
        yield one
    finally:
        if one.process is not None:
            await asyncio.to_thread(processes.stop, one.process, 15)


def names(what: str, count: int) -> list[str]:
    return [f"{what}-{n}" for n in range(count)]


async def wait_for(true: Any, pause: float = 0.1) -> None:
    end = time.monotonic() + 60
    while not await true():
        assert time.monotonic() < end
        await asyncio.sleep(pause)
