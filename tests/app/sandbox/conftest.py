"""A sandbox on a free port of loopback, with a clock that tests move."""

from dataclasses import dataclass
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from app.sandbox.server import create_app

NOW = 1_795_420_900.0


@dataclass
class Clock:
    now: float = NOW

    def __call__(self) -> Any:
        return self.now


class Bench:
    """The sandbox as its users see it."""

    def __init__(self, client: Any, clock: Any) -> None:
        self.client = client
        self.clock = clock

    async def get(self, path: Any, **filters: Any) -> Any:
        async with self.client.get(path, params=filters) as response:
            assert response.status == 200, await response.text()
            return await response.json()

    async def accepted(self, **filters: Any) -> Any:
        return (await self.get("/accepted.json", **filters))["events"]

    async def refused(self, **filters: Any) -> Any:
        return (await self.get("/refused.json", **filters))["events"]

    async def balance(self, destination: str) -> Any:
        return (await self.get("/balance.json"))["destinations"][destination]

    async def faults(self, **switches: Any) -> Any:
        async with self.client.post("/faults", json=switches) as response:
            return response.status, await response.json()


@pytest.fixture
async def start_bench() -> Any:
    """Start a sandbox with options of `create_app`."""
    clients = []

    async def start(**options: Any) -> Any:
        clock = Clock()
        client = TestClient(TestServer(create_app(now=clock, **options)))
        clients.append(client)
        await client.start_server()
        return Bench(client, clock)

    yield start
    for client in clients:
        await client.close()


@pytest.fixture
async def bench(start_bench: Any) -> Any:
    return await start_bench()
