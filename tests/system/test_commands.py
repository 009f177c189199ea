"""What people do to a running system with `capistream destinations` and `capistream dead`."""

import asyncio
from typing import Any

import orjson
from click.testing import CliRunner

from app.cli import main
from tests.system.conftest import System, eventually
from tests.system.test_delivery import outcome, subscribed

GA4 = {"ids": {"ga_client_id": "1234567890.1699999999"}}


async def command(system: System, *arguments: str) -> str:
    """Its output. Raises AssertionError with what it said when it fails."""
    line = [*arguments, "--config", system.addresses["config"]]
    result = await asyncio.to_thread(CliRunner().invoke, main, line)
    assert result.exit_code == 0, result.output
    return result.stdout


async def test_a_paused_destination_gets_nothing_until_it_is_resumed_and_then_everything(shared_system):
    await command(shared_system, "destinations", "pause", "meta", "--reason", "a trial")

    async def paused() -> bool:
        return 'capistream_halted{destination="meta"} 1.0' in (await shared_system.get("view", "/metrics"))[1]

    await eventually(paused, "the pause")
    for n in range(3):
        await shared_system.post(subscribed(f"pause-{n}", **GA4), key="secret_key")

    async def elsewhere() -> bool:
        found = [(await shared_system.journey(f"pause-{n}")).get("conversions") for n in range(3)]
        return all(one and one[0]["destinations"]["ga4"]["state"] == "delivered" for one in found)

    await eventually(elsewhere, "three events at the other destination")

    async def waits() -> Any:
        lines = (await command(shared_system, "destinations", "list", "--json")).splitlines()
        meta, ga4 = map(orjson.loads, lines)
        return meta["waiting"] == 3 and ga4["waiting"] == 0 and meta

    meta = await eventually(waits, "three events that wait, and none elsewhere")
    assert (meta["paused"], meta["reason"]) == (True, "a trial")
    for n in range(3):
        assert await shared_system.accepted("meta", event_id=f"pause-{n}") == []

    await command(shared_system, "destinations", "resume", "meta")

    assert [(await outcome(shared_system, f"pause-{n}"))["state"] for n in range(3)] == ["delivered"] * 3
    for n in range(3):
        assert len(await shared_system.accepted("meta", event_id=f"pause-{n}")) == 1


async def test_a_dead_letter_is_delivered_once_when_it_is_replayed_after_the_platform_was_repaired(shared_system):
    await shared_system.faults("meta", html_error=1.0, html_status=413)  # a proxy that finds every request too large
    try:
        await shared_system.post(subscribed("replay-1", **GA4), key="secret_key")
        assert (await outcome(shared_system, "replay-1"))["state"] == "rejected"
    finally:
        await shared_system.faults("meta")

    assert "1 replayed, 0 stay" in await command(shared_system, "dead", "replay", "--event-id", "replay-1", "--yes")

    async def delivered() -> bool:
        return bool((await outcome(shared_system, "replay-1"))["state"] == "delivered")

    await eventually(delivered, "the delivery of the replay")
    (letter,) = (await command(shared_system, "dead", "list", "--all", "--event-id", "replay-1", "--json")).splitlines()
    assert orjson.loads(letter)["state"] == "replayed"

    # once more by mistake; what is posted after it is behind it
    await command(shared_system, "dead", "replay", orjson.loads(letter)["id"], "--yes")
    await shared_system.post(subscribed("replay-2", **GA4), key="secret_key")
    assert (await outcome(shared_system, "replay-2"))["state"] == "delivered"
    assert len(await shared_system.accepted("meta", event_id="replay-1")) == 1
