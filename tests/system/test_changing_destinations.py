"""A destination more or less: by a drained restart of all workers, and while workers with both configurations run."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from app import destinations, topics
from app.demo import run
from app.processes import free_port
from tests.faults.logs import records
from tests.system.conftest import System, eventually, running
from tests.system.test_delivery import outcome, subscribed

pytestmark = [pytest.mark.fault, pytest.mark.long]

HOOK = """
[destinations.hook]
sink = "webhook"
endpoint = "{sandbox}/webhook/shop"
secret = {{ env = "DEMO_SECRET_KEY" }}
browser_tag = "none"
"""


def texts(system: System) -> tuple[str, str]:
    """The configuration as it is, and with one destination more."""
    text = (system.demo.folder / "capistream.toml").read_text()
    return text, text + HOOK.format(sandbox=system.addresses["sandbox"])


async def posted(system: System, *event_ids: str) -> None:
    for event_id in event_ids:
        status, _ = await system.post(subscribed(event_id), key="secret_key")
        assert status == 200


async def had(system: System, destination: str) -> list[str]:
    """The ids that a platform took, in its own order."""
    return [one["event_id"] for one in await system.accepted(destination)]


async def arrived(system: System, destination: str, *event_ids: str) -> None:
    async def all_there() -> bool:
        return set(event_ids) <= set(await had(system, destination))

    await eventually(all_there, f"{event_ids} at {destination}")


async def kept(system: System) -> list[tuple[bytes, bytes]]:
    """What the webhook's table says, by its changelog."""
    changelog = topics.names(system.demo.config).changelog(topics.outcomes_table("hook"))
    return sorted((one.key, one.value) for one in await records(system.demo.config, changelog))


async def test_a_destination_comes_goes_and_comes_again_by_drained_restarts(system):
    without, with_hook = texts(system)
    await posted(system, "before-1")
    assert (await outcome(system, "before-1"))["state"] == "delivered"

    await system.reconfigure(with_hook)
    await posted(system, "after-1")
    await arrived(system, "webhook", "after-1")
    assert await had(system, "webhook") == ["after-1"]

    await system.faults("webhook", status_500=1.0)
    await posted(system, "queued-1", "queued-2")
    await arrived(system, "meta", "queued-1", "queued-2")
    await system.reconfigure(without)
    table = await kept(system)
    await system.faults("webhook")
    await posted(system, "without-1")
    assert (await outcome(system, "without-1"))["state"] == "delivered"

    async def named() -> Any:
        return system.logged("worker-1", "destination.not_configured")

    (said, *_) = await eventually(named, "a line about what waits")
    assert (said["destination"], said["waiting"]) == ("hook", 2)
    left = [row for row in await destinations.standing(system.demo.config) if not row["configured"]]
    assert [(row["name"], row["waiting"]) for row in left] == [("hook", 2)]
    assert "not in the configuration" in destinations.table(left)[1]
    assert await kept(system) == table
    assert await had(system, "webhook") == ["after-1"]

    await system.reconfigure(with_hook)
    await posted(system, "again-1")
    await arrived(system, "webhook", "queued-1", "queued-2", "again-1")
    ids = ["before-1", "after-1", "queued-1", "queued-2", "without-1", "again-1"]
    assert sorted(await had(system, "webhook")) == sorted(set(ids) - {"before-1", "without-1"})
    assert sorted(await had(system, "meta")) == sorted(ids)


async def another(system: System, name: str, text: str) -> run.Child:
    """A worker with a configuration of its own."""
    path = system.demo.folder / f"{name}.toml"
    path.write_text(text)
    command = list(system.child("worker-1").command)
    command[command.index("--config") + 1] = str(path)
    port = free_port()
    command[command.index("--web-port") + 1] = str(port)
    child = run.Child(name, command, f"http://127.0.0.1:{port}/readyz")
    system.demo._spawn(child)
    system.demo.children.append(child)
    return child


async def test_a_worker_with_other_destinations_waits_until_those_with_the_work_are_gone(
    kafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    async with running(kafka, tmp_path / "system", monkeypatch, workers=2) as system:
        _, with_hook = texts(system)
        ids = [f"e-{n}" for n in range(60)]  # in every partition
        joined = await another(system, "worker-3", with_hook)
        sending = asyncio.create_task(posted(system, *ids[:30]))

        assert "without work" in await system.ready(joined)
        (said, *_) = system.logged("worker-3", "worker.waits")
        prefix = system.demo.config.kafka.prefix
        assert said["adds"] == [f"{prefix}-outcomes.hook-changelog", f"{prefix}.to.hook"]
        assert (len(said["workers"]), said["lacks"]) == (2, [])
        assert "capistream_apart 1.0" in (await system.get(joined.ready.removesuffix("/readyz"), "/metrics"))[1]
        await sending
        for event_id in ids[:30]:
            assert (await outcome(system, event_id))["state"] == "delivered"
        assert await had(system, "webhook") == []  # nothing by halves

        sending = asyncio.create_task(posted(system, *ids[30:50]))
        for name in ("worker-1", "worker-2"):
            await system.ended(system.child(name))
        await sending

        async def works() -> bool:
            return await system.ready(joined) == "ready\n"

        await eventually(works, "the one with the new destination has the work")
        await posted(system, *ids[50:])
        await arrived(system, "webhook", *ids[50:])
        stray = system.child("worker-2")
        system.demo._spawn(stray)  # somebody forgot it
        assert "without work" in await system.ready(stray)

        await arrived(system, "meta", *ids)
        assert sorted(await had(system, "meta")) == sorted(ids)
        hook = await had(system, "webhook")
        assert len(hook) == len(set(hook))
        assert set(hook) <= set(ids[30:])
