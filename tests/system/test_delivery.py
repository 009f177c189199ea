"""What agents/deliver does with a platform's answers: retries, splits, halts, dead letters; against the emulators."""

import json
import os
import time
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from agents.deliver import AT_ONCE
from app import topics
from tests.system.conftest import System, eventually

CONSENT = dict.fromkeys(("ad_storage", "analytics_storage", "ad_user_data", "ad_personalization"), "granted")


def subscribed(event_id: str, **more: Any) -> dict[str, Any]:
    """From a CRM, so that nothing is waited for."""
    return {
        "event_name": "subscribe",
        "event_id": event_id,
        "source": "crm",
        "user": {"email": f"{event_id}@example.com"},
        "consent": CONSENT,
        **more,
    }


async def outcome(system: System, event_id: str, destination: str = "meta") -> dict[str, Any]:
    (one,) = (await system.settled(event_id))["conversions"]
    found: dict[str, Any] = one["destinations"][destination]
    return found


async def letters(system: System, event_id: str) -> list[dict[str, Any]]:
    """Dead letters of an event, read from the topic."""
    name, config = topics.names(system.demo.config), system.demo.config
    consumer = AIOKafkaConsumer(bootstrap_servers=config.brokers, auto_offset_reset="earliest")
    await consumer.start()
    try:
        tps = [TopicPartition(name.dead, p) for p in range(config.kafka.partitions)]
        consumer.assign(tps)
        left = sum((await consumer.end_offsets(tps)).values())
        found = []
        while left > 0:
            for records in (await consumer.getmany(timeout_ms=500)).values():
                left -= len(records)
                found += [json.loads(record.value) for record in records]
    finally:
        await consumer.stop()
    return [letter for letter in found if letter.get("event_id") == event_id]


async def test_one_bad_event_is_split_from_its_batch_and_becomes_a_dead_letter(shared_system):
    bad = subscribed("split-bad", ids={"fbp": "not-a-cookie"})
    good = [subscribed(f"split-{n}") for n in range(9)]
    await shared_system.post([*good[:4], bad, *good[4:]], key="secret_key")

    assert [(await outcome(shared_system, one["event_id"]))["state"] for one in good] == ["delivered"] * 9
    assert (await outcome(shared_system, "split-bad"))["state"] == "rejected"
    (letter,) = await letters(shared_system, "split-bad")
    assert letter["destination"] == "meta"
    assert letter["reason"] == "a parameter is invalid"
    assert letter["origin"]["topic"].endswith(".to.meta")
    assert letter["attempts"] >= 1
    assert "split-bad@example.com" not in json.dumps(letter)


async def test_an_event_older_than_the_platform_takes_is_a_dead_letter_there_and_nowhere_else(shared_system):
    old = int(time.time()) - 5 * 86_400
    await shared_system.post(
        subscribed("old-1", time=old, ids={"ga_client_id": "1234567890.1699999999"}), key="secret_key"
    )

    assert (await outcome(shared_system, "old-1", "meta"))["state"] == "delivered"
    at_ga4 = await outcome(shared_system, "old-1", "ga4")
    assert (at_ga4["state"], at_ga4["reason"]) == ("rejected", "too_old")
    (letter,) = await letters(shared_system, "old-1")
    assert (letter["destination"], letter["reason"]) == ("ga4", "too_old")


async def test_an_event_that_a_platform_cannot_match_is_skipped_with_the_reason(shared_system):
    await shared_system.post(subscribed("skip-1", user={"city": "Berlin"}), key="secret_key")

    found = await outcome(shared_system, "skip-1")
    assert (found["state"], found["reason"]) == ("skipped", "too little to match a person by")
    assert await letters(shared_system, "skip-1") == []


async def test_each_of_many_events_at_once_is_delivered_or_has_its_reason(shared_system):
    """In each partition more of them than are made ready in one turn of the loop."""
    ids = {f"many-{n}" for n in range(10 * AT_ONCE)}
    skipped = {f"many-{n}" for n in range(0, 10 * AT_ONCE, 7)}
    status, _ = await shared_system.post(
        [subscribed(one, **({"user": {"city": "Berlin"}} if one in skipped else {})) for one in sorted(ids)],
        key="secret_key",
    )
    assert status == 200

    async def delivered() -> set[str]:
        events = await shared_system.accepted("meta", limit="1000")
        return {one["event_id"] for one in events} & ids

    async def all_delivered() -> bool:
        return await delivered() >= ids - skipped

    await eventually(all_delivered, "all events that can be matched")
    assert {(await outcome(shared_system, one))["state"] for one in sorted(skipped)[::10]} == {"skipped"}
    assert await delivered() == ids - skipped


@pytest.mark.fault
@pytest.mark.parametrize(
    "switches",
    [
        {"throttle_400": 0.7, "seed": 1},
        {"reset_after": 0.7, "seed": 1},
        *(
            pytest.param(switches, marks=pytest.mark.long)
            for switches in (
                {"status_429": 0.7, "retry_after": 0, "seed": 1},
                {"status_500": 0.7, "seed": 1},
                {"html_error": 0.7, "seed": 1},
                {"reset_before": 0.7, "seed": 1},
            )
        ),
    ],
    ids=lambda switches: next(iter(switches)),
)
async def test_what_fails_for_now_is_tried_again_until_it_is_taken(shared_system, switches):
    name = next(iter(switches)).replace("_", "-")
    await shared_system.faults("meta", **switches)
    try:
        for n in range(5):
            await shared_system.post(subscribed(f"{name}-{n}"), key="secret_key")
        found = [await outcome(shared_system, f"{name}-{n}") for n in range(5)]
    finally:
        await shared_system.faults("meta")

    assert [one["state"] for one in found] == ["delivered"] * 5
    assert sum(one["attempts"] for one in found) > 5, "the switch was on"
    for n in range(5):
        taken = await shared_system.accepted("meta", event_id=f"{name}-{n}")
        assert [one["duplicate"] for one in taken] == [False] + [True] * (len(taken) - 1)
        assert len(taken) == 1 or "reset_after" in switches


@pytest.mark.fault
async def test_a_refused_token_halts_the_destination_and_its_repair_delivers_everything(system):
    await system.faults("meta", expired_token=True)
    await system.post(subscribed("halt-1", ids={"ga_client_id": "1234567890.1699999999"}), key="secret_key")

    async def halted() -> Any:
        found = (await system.journey("halt-1"))["conversions"]
        return found and found[0]["destinations"]["meta"]["state"] == "halted" and found[0]

    one = await eventually(halted, "the halt")
    assert "token" in one["destinations"]["meta"]["reason"]
    assert 'capistream_halted{destination="meta"} 1.0' in (await system.get("view", "/metrics"))[1]
    assert "halted" in (await system.get("view", "/", Accept="text/html"))[1]
    await system.faults("meta")

    assert (await outcome(system, "halt-1"))["state"] == "delivered"
    assert 'capistream_halted{destination="meta"} 0.0' in (await system.get("view", "/metrics"))[1]
    assert await letters(system, "halt-1") == []


async def test_no_secret_is_in_a_log(shared_system):
    await shared_system.faults("ga4", reset_before=0.5, seed=3)
    try:
        for n in range(5):
            event = subscribed(f"secret-{n}", ids={"ga_client_id": "1234567890.1699999999"})
            await shared_system.post(event, key="secret_key")
        for n in range(5):
            await outcome(shared_system, f"secret-{n}", "ga4")
    finally:
        await shared_system.faults("ga4")

    secrets = [os.environ[name] for name in ("DEMO_META_TOKEN", "DEMO_GA4_SECRET", "DEMO_SECRET_KEY")]
    logs = "".join(path.read_text(errors="replace") for path in shared_system.demo.folder.glob("*.log"))
    assert "delivery.waits" in logs
    assert not any(secret in logs for secret in secrets)
