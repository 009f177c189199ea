"""The main job while processes are killed: the short form of what the fault harness does for hours."""

import json
import os
import signal
from typing import Any

import aiohttp
import pytest

from app.demo import run, traffic
from tests.system.conftest import System, eventually, running

pytestmark = [pytest.mark.fault, pytest.mark.timeout(240)]


@pytest.fixture
async def pair(kafka, tmp_path, monkeypatch):
    async with running(kafka, tmp_path / "system", monkeypatch, workers=2) as one:
        yield one


async def play(system: System, seconds: float) -> traffic.Sent:
    """The first seconds of the bundled file."""
    lines = [line for line in traffic.load(run.SESSIONS) if line["at"] < seconds]
    return await traffic.Player(traffic.target(system.demo.config)).play(lines)


async def test_a_worker_killed_in_the_middle_loses_and_doubles_nothing(system):
    import asyncio

    playing = asyncio.create_task(play(system, 12))
    await system.books(lambda books: len(books.outcomes["meta"]) > 100)
    worker = system.child("worker-1")
    os.kill(worker.process.pid, signal.SIGKILL)
    worker.process.wait()
    system.demo._spawn(worker)
    sent = await playing

    books = await system.books(
        lambda books: books.balanced() and books.received.total() + len(books.letters) >= sent.total
    )

    assert sent.failed == []
    delivered = [key for key, outcome in books.outcomes["meta"].items() if outcome == "delivered"]
    platform = json.loads((await system.get("sandbox", "/balance.json"))[1])["destinations"]["meta:1234567890"]
    assert platform["unique"] == len(delivered)
    assert len(delivered) > 100


async def test_two_workers_share_the_work_and_each_answers_for_all(pair):
    sent = await play(pair, 6)
    books = await pair.books(
        lambda books: books.balanced() and books.received.total() + len(books.letters) >= sent.total
    )
    first, second = (pair.child(f"worker-{n}").ready.removesuffix("/readyz") for n in (1, 2))
    some = [key.decode().split("\x1f")[0] for key in list(books.merged)[:20]]

    for wanted in some:
        here, there = await pair.journey(wanted, first), await pair.journey(wanted, second)
        assert here["conversions"] == there["conversions"] != []
        assert here["workers_asked"] == 2
        assert here["workers_silent"] == 0
    for where in (first, second):
        assert 'capistream_records_total{topic="' in (await pair.get(where, "/metrics"))[1]


async def test_the_other_worker_takes_over_from_a_killed_one(pair):
    victim = pair.child("worker-1")
    os.kill(victim.process.pid, signal.SIGKILL)
    victim.process.wait()
    other = pair.child("worker-2").ready.removesuffix("/readyz")
    for number in range(40):  # every partition has some
        status, _ = await pair.post({"event_name": "login", "event_id": f"take-{number}"}, key="secret_key")
        assert status == 200

    books = await pair.books(lambda books: books.balanced() and books.received.total() == 40)

    assert len(books.merged) == 40
    assert (await pair.journey("take-7", other))["conversions"] != []


async def test_the_collector_answers_503_while_kafka_is_away_and_takes_the_event_again_after(
    kafka, tmp_path, monkeypatch
):
    if not hasattr(kafka, "pause"):
        pytest.skip("a Kafka that is not ours")
    async with running(kafka, tmp_path / "system", monkeypatch) as system:
        event = {"event_name": "login", "event_id": "away-1"}
        kafka.pause()
        try:
            status, answer = await system.post(event, key="secret_key")
        finally:
            kafka.resume()

        async def taken() -> Any:
            try:
                return (await system.post(event, key="secret_key"))[0] == 200
            except aiohttp.ClientError:
                return False

        assert (status, answer["error"]["reason"]) == (503, "kafka_unavailable")
        await eventually(taken, "the collector to recover")
        assert len((await system.settled("away-1"))["conversions"]) == 1
