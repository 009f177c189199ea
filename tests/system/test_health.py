"""A worker that gets nowhere says so, and one that waits for a reason does not: tests/system/stuck.py on the real Kafka."""

import asyncio
import contextlib
import json
import secrets
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from aiokafka import AIOKafkaProducer

from app import topics
from app.demo import run
from app.lossless.batch import EXIT_ANEW
from tests.system.conftest import System, eventually
from tests.system.test_delivery import outcome, subscribed

WORKER = Path(__file__).parent / "stuck.py"
STALL_AFTER = 6.0  # seconds, as there


@contextlib.asynccontextmanager
async def started(kafka: Any, folder: Path, *flags: str) -> AsyncIterator[run.Demo]:
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CAPISTREAM_BROKER", kafka.brokers)
        program = [sys.executable, str(WORKER), *flags]
        demo = run.Demo(
            say=lambda _: None,
            folder=folder,
            worker_program=program,
            destinations=("meta", "ga4"),
            ports=run.free_ports(),
        )
        try:
            await demo.start()
            yield demo
        finally:
            await asyncio.to_thread(demo.stop)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def _restarting(kafka: Any, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[run.Demo]:
    async with started(kafka, tmp_path_factory.mktemp("health") / "system", "--restart") as demo:
        yield demo


@pytest.fixture
async def restarting(_restarting: run.Demo) -> AsyncIterator[System]:
    """A system whose worker restarts when it is stuck; each test leaves it well."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as http:
        yield System(_restarting, http)


@pytest.fixture
async def patient(kafka: Any, tmp_path: Path) -> AsyncIterator[System]:
    """One whose worker only tells."""
    async with (
        started(kafka, tmp_path / "system") as demo,
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as http,
    ):
        yield System(demo, http)


async def breaks(system: System, how: str) -> None:
    async with system.http.post(f"{system.addresses['view']}/break/{how}") as response:
        assert response.status == 200


async def refuses(system: System, path: str, reason: str) -> dict[str, Any]:
    """What `path` says once it answers 503 for this reason."""

    async def found() -> Any:
        status, text = await system.get("view", path)
        return status == 503 and (said := json.loads(text))["reason"] == reason and said

    said: dict[str, Any] = await eventually(found, f"{path} to say {reason}", 30)
    return said


async def stays_ready(system: System, seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        assert await system.get("view", "/readyz") == (200, "ready\n")
        await asyncio.sleep(0.2)


async def metric(system: System, name: str, **labels: str) -> float | None:
    """The sum of the series with these labels."""
    lines = (await system.get("view", "/metrics"))[1].splitlines()
    values = [
        float(line.rpartition(" ")[2])
        for line in lines
        if line.split("{")[0].split(" ")[0] == name and all(f'{k}="{v}"' in line for k, v in labels.items())
    ]
    return sum(values) if values else None


async def ended(system: System) -> str:
    """Wait for the worker to end itself; what it said."""
    process = system.child("worker-1").process
    assert process is not None
    assert await asyncio.to_thread(process.wait, 30) == EXIT_ANEW
    (line,) = [line for line in system.log("worker-1").splitlines() if "worker.dies" in line][-1:]
    return line


async def ready_again(system: System) -> None:
    async def ready() -> bool:
        status, _ = await system.get("view", "/readyz")
        return status == 200

    await eventually(ready, "the worker to be ready again")


async def start_again(system: System) -> None:
    system.demo._spawn(system.child("worker-1"))
    await ready_again(system)


@pytest.mark.fault
async def test_a_dead_fetch_loop_does_not_look_idle(patient):
    await breaks(patient, "fetch")
    said = await refuses(patient, "/readyz", "loop_dead")
    dead = await refuses(patient, "/livez", "loop_dead")

    assert said["loops"] == dead["loops"] == ["fetch"]
    assert said["seconds"] >= STALL_AFTER
    assert (await patient.get("view", "/healthz"))[0] == 503
    assert "worker.stands_still" in patient.log("worker-1")


@pytest.mark.fault
async def test_a_clock_that_stands_is_told(patient):
    await breaks(patient, "clock")

    assert (await refuses(patient, "/livez", "loop_dead"))["loops"] == ["clock"]


@pytest.mark.fault
async def test_a_partition_that_stands_still_is_named_and_a_restart_goes_on_with_it(restarting):
    await breaks(restarting, "lane")
    event_id = f"lane-{secrets.token_hex(4)}"
    assert (await restarting.post(subscribed(event_id), key="secret_key"))[0] == 200

    line = await ended(restarting)
    assert "standstill" in line
    assert ".events-" in line
    await start_again(restarting)

    assert (await outcome(restarting, event_id))["state"] == "delivered"


@pytest.mark.fault
async def test_a_partition_that_stands_still_is_no_reason_to_be_killed(patient):
    await breaks(patient, "lane")
    assert (await patient.post(subscribed("lane-1"), key="secret_key"))[0] == 200
    said = await refuses(patient, "/readyz", "standstill")

    partition, waiting = next(iter(said["partitions"].items()))
    topic, _, number = partition.rpartition("-")
    assert topic == topics.names(patient.demo.config).events
    assert waiting >= 1
    assert (await metric(patient, "capistream_stalled_partitions") or 0) >= 1
    assert (await metric(patient, "capistream_lag_records", topic=topic, partition=number) or 0) >= waiting
    assert (await patient.get("view", "/livez"))[0] == 200


@pytest.mark.fault
@pytest.mark.parametrize(("how", "why"), [("client", "client_dead"), ("loop", "loop_dead")])
async def test_a_stuck_worker_that_is_told_to_restarts_itself(restarting, how, why):
    await breaks(restarting, how)

    line = await ended(restarting)
    await start_again(restarting)

    assert why in line


@pytest.mark.fault
async def test_an_idle_worker_is_ready_also_behind_the_marker_of_a_transaction(restarting):
    producer = AIOKafkaProducer(bootstrap_servers=restarting.addresses["broker"], transactional_id=secrets.token_hex(8))
    await producer.start()
    event_id = f"marker-{secrets.token_hex(4)}"
    async with producer.transaction():
        await producer.send(restarting.addresses["topic"], json.dumps(subscribed(event_id)).encode())
    await producer.stop()
    assert (await outcome(restarting, event_id))["state"] == "delivered"

    async def nothing_left() -> bool:
        return await metric(restarting, "capistream_lag_records") == 0

    await eventually(nothing_left, "no lag")
    await stays_ready(restarting, 2 * STALL_AFTER)


@pytest.mark.parametrize("switches", [{"expired_token": True}, {"status_500": 1.0}], ids=str)
@pytest.mark.fault
async def test_a_platform_that_does_not_take_anything_leaves_the_worker_ready(restarting, switches):
    await restarting.faults("meta", **switches)
    topic = topics.names(restarting.demo.config).to("meta")
    event_id = f"held-{secrets.token_hex(4)}"
    try:
        assert (await restarting.post(subscribed(event_id), key="secret_key"))[0] == 200

        async def waits() -> bool:
            return bool(await metric(restarting, "capistream_lag_records", topic=topic))

        await eventually(waits, "an event that waits")
        await stays_ready(restarting, 2 * STALL_AFTER)
    finally:
        await restarting.faults("meta")


@pytest.mark.fault
async def test_a_kafka_that_is_away_is_told_and_nothing_to_restart_for(kafka, restarting):
    if not hasattr(kafka, "pause"):
        pytest.skip("a Kafka that is not ours")
    worker = restarting.child("worker-1").process
    assert worker is not None
    kafka.pause()
    try:
        await refuses(restarting, "/readyz", "kafka_silent")
        until = time.monotonic() + 2 * STALL_AFTER
        while time.monotonic() < until:
            assert (await restarting.get("view", "/livez"))[0] == 200
            await asyncio.sleep(0.2)
    finally:
        kafka.resume()

    await ready_again(restarting)
    assert worker.poll() is None
