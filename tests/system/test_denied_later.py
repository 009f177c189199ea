"""P5 for what waits: a copy that comes after its conversion has closed, and denies, takes away what was not sent by then."""

import asyncio
from typing import Any

import pytest

from app import letters, topics
from app.outcome_rows import PARKED
from app.topics import outcomes_table
from tests.system.conftest import System, eventually
from tests.system.test_delivery import CONSENT, outcome, subscribed
from tests.system.test_destinations import altered
from tests.system.test_forget import CLIENT, newest, pause, state, told, waits

pytestmark = pytest.mark.fault

NO_ADS = {**CONSENT, "ad_storage": "denied", "ad_user_data": "denied"}
VISITOR = {"ip": "203.0.113.9"}  # Meta locates by it whose law applies
DENIED = ("held_back", "denied_later")


async def deny(system: System, *events: dict[str, Any]) -> None:
    """Late copies of these, and until they are read."""

    async def flagged() -> float:
        text = (await system.get("view", "/metrics"))[1]
        line = next((one for one in text.splitlines() if 'flag="denied_later"' in one), "0")
        return float(line.split()[-1])

    before = await flagged()
    for event in events:
        await system.post(event, key="secret_key")

    async def read() -> bool:
        return await flagged() == before + len(events)

    await eventually(read, "the late copies")


async def test_in_an_outage_a_late_denial_keeps_the_event_from_ads_and_lets_it_go_to_analytics(system):
    for name in ("meta", "ga4"):
        await system.faults(name, reset_before=1)
    await system.post(subscribed("late-1", ids=CLIENT), key="secret_key")
    await system.post(subscribed("other-1", ids=CLIENT), key="secret_key")

    async def tried() -> bool:
        found = (await system.journey("late-1")).get("conversions") or [{"destinations": {}}]
        there = found[0]["destinations"].values()
        return bool(there) and all(one["state"] == "queued" and one.get("attempts", 0) > 0 for one in there)

    await eventually(tried, "an attempt at both")
    await deny(system, subscribed("late-1", ids=CLIENT, consent=NO_ADS))
    await system.post(subscribed("late-1", ids=CLIENT, custom={"again": 1}), key="secret_key")  # it grants all

    async def kept() -> bool:
        there = (await system.journey("late-1"))["conversions"][0]["destinations"]["meta"]
        return (there["state"], there.get("reason")) == DENIED

    await eventually(kept, "its outcome, with Meta still away")
    for name in ("meta", "ga4"):
        await system.faults(name)

    assert (await state(system, "other-1"))[0] == "delivered"
    assert (await state(system, "late-1", "ga4"))[0] == "delivered"
    assert await state(system, "late-1") == DENIED
    assert await system.accepted("meta", event_id="late-1") == []
    rows = await told(system, topics.names(system.demo.config).receipts, "late-1")
    assert [(one["outcome"], one["reason"], one["consent_basis"]) for one in rows if one["destination"] == "meta"] == [
        (*DENIED, "ad_storage denied, ad_user_data denied")
    ]
    assert "denies consent" in (await system.get("view", "/events/late-1", Accept="text/html"))[1]


async def test_parked_events_letters_and_what_goes_in_part_are_reached_too_and_after_a_restart(system):
    config, names = system.demo.config, topics.names(system.demo.config)
    text = (system.demo.folder / "capistream.toml").read_text()
    await system.reconfigure(text.replace("[destinations.meta]", '[destinations.meta]\nconsent = { partial = "flag" }'))
    await system.post(subscribed("letter-1", ids={"fbp": "not-a-cookie"}), key="secret_key")
    assert (await state(system, "letter-1"))[0] == "rejected"
    await pause(system)
    await system.post([subscribed("opted-out-1", context=VISITOR), subscribed("queued-1")], key="secret_key")
    await waits(system, "queued-1")
    await altered(system, names.to("meta"), max_message_bytes="100")  # what cannot be queued is parked
    await system.post([subscribed("parked-1")], key="secret_key")

    async def parked() -> bool:
        rows = await newest(system, names.changelog(outcomes_table("meta")))
        return any(row and key.startswith(PARKED) and b"parked-1" in row for key, row in rows.items())

    await eventually(parked, "a parked event")
    await altered(system, names.to("meta"), max_message_bytes="1048588")

    await deny(system, *(subscribed(one, consent=NO_ADS) for one in ("letter-1", "parked-1", "queued-1")))
    await deny(system, subscribed("opted-out-1", consent={"gpc": True}))
    assert [await state(system, one) for one in ("parked-1", "queued-1")] == [DENIED, DENIED]

    worker = system.child("worker-1")
    assert worker.process
    worker.process.kill()
    await asyncio.to_thread(worker.process.wait)
    system.demo._spawn(worker)
    await system.ready(worker)
    await pause(system, paused=False)
    known = await letters.load(config)
    (letter,) = [one for one in known.values() if one.event_id == "letter-1" and one.destination == "meta"]
    assert [one.why async for one in letters.replay(config, [letter], known, "test")] == [""]

    async def kept() -> bool:
        return await state(system, "letter-1") == DENIED

    await eventually(kept, "the replay held back")
    assert (await outcome(system, "opted-out-1"))["state"] == "delivered"
    (sent,) = await system.accepted("meta", event_id="opted-out-1")
    assert sent["event"]["data_processing_options"] == ["LDU"]
    for event_id in ("letter-1", "parked-1", "queued-1"):
        assert await system.accepted("meta", event_id=event_id) == []
