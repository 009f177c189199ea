"""Withdrawal and erasure through the whole system: wherever an event is when its person is forgotten, it goes nowhere."""

import asyncio
import json
import time
from collections.abc import Iterable
from typing import Any

import orjson
import pytest
from aiokafka import AIOKafkaProducer

from app import control, letters, topics
from app.control import Order
from app.outcome_rows import PARKED
from app.records import everything, reader
from app.topics import outcomes_table
from tests.factories import sha
from tests.faults.logs import records
from tests.system.conftest import System, eventually
from tests.system.test_commands import command
from tests.system.test_delivery import CONSENT, outcome, subscribed
from tests.system.test_destinations import altered

pytestmark = pytest.mark.fault

CLIENT = {"ga_client_id": "1234567890.1699999999"}
GONE = ("erased", "erasure")
WITHDRAWN = ("held_back", "withdrawn")


async def forget(system: System, **who: Any) -> dict[str, Any]:
    status, answer = await system.post(who, key="secret_key", path="/v1/forget")
    assert status == 200, answer
    found: dict[str, Any] = answer
    return found


async def pause(system: System, *, paused: bool = True, heard: bool = True) -> None:
    """Meta; until the worker has `heard` it."""
    now = int(time.time() * 1000)
    await control.give(system.demo.config, [Order("meta", paused=paused, reason="a test", at=now)])
    wanted = f'capistream_halted{{destination="meta"}} {float(paused)}'

    async def obeyed() -> bool:
        return not heard or wanted in (await system.get("view", "/metrics"))[1]

    await eventually(obeyed, "the order")


async def state(system: System, event_id: str, destination: str = "meta") -> tuple[str, str]:
    found = await outcome(system, event_id, destination)
    return found["state"], found.get("reason", "")


async def waits(system: System, event_id: str) -> None:
    """Until the event is on its way to Meta, which is paused, and has its outcome at GA4."""

    async def there() -> bool:
        found = (await system.journey(event_id)).get("conversions") or [{"destinations": {}}]
        states = {name: one["state"] for name, one in found[0]["destinations"].items()}
        return states.get("meta") == "halted" and states.get("ga4") not in (None, "held", "queued")

    await eventually(there, f"{event_id} waits")


async def newest(system: System, topic: str) -> dict[bytes, bytes | None]:
    """What a recovery would make of a changelog."""
    return {record.key: record.value for record in await records(system.demo.config, topic)}


async def told(system: System, name: str, event_id: str) -> list[dict[str, Any]]:
    """Records of a topic of ours that are of this event."""
    found = (orjson.loads(one.value) for one in await records(system.demo.config, name) if one.value and one.key)
    return [one for one in found if (one.get("event") or one).get("event_id") == event_id]


def planted(rows: Iterable[dict[str, Any]], *addresses: str) -> bool:
    text = json.dumps(list(rows))
    return any(sha(address) in text for address in addresses)


async def test_a_held_conversion_closes_as_it_would_and_leaves_nothing_of_the_person(system):
    names = topics.names(system.demo.config)
    event = {"event_name": "purchase", "event_id": "held-1", "consent": CONSENT, "ids": CLIENT}
    event |= {
        "user": {"email": "held@example.com"},
        "commerce": {"value": 5, "currency": "EUR", "transaction_id": "H1"},
    }
    await system.post(event)

    answer = await forget(system, email="held@example.com")

    assert answer["most"] == max(one["most"] for one in answer["remains"])
    assert [await state(system, "held-1", name) for name in ("meta", "ga4")] == [GONE, GONE]
    assert await system.accepted("meta", event_id="held-1") == []
    (conversion,) = await told(system, names.conversions, "held-1")
    assert conversion["closed"] == "erased"
    assert not planted([conversion], "held@example.com")
    assert await told(system, names.to("meta"), "held-1") == []
    receipts = await told(system, names.receipts, "held-1")
    assert {one["outcome"] for one in receipts} == {"erased"}
    assert not planted(receipts, "held@example.com")
    async with reader(system.demo.config) as consumer:
        people = [one.value async for one in everything(consumer, names.people, [0])]
    assert people
    assert not any(b"held@example.com" in value for value in people)


async def test_what_waits_for_a_paused_destination_has_its_outcome_at_once_and_is_never_sent(system):
    await pause(system)
    await system.post([subscribed("queued-1"), subscribed("queued-2")], key="secret_key")
    await waits(system, "queued-1")

    await forget(system, email="queued-1@example.com")
    assert await state(system, "queued-1") == GONE

    await pause(system, paused=False)
    assert (await state(system, "queued-2"))[0] == "delivered"
    assert await system.accepted("meta", event_id="queued-1") == []
    receipts = await told(system, topics.names(system.demo.config).receipts, "queued-1")
    assert [one["outcome"] for one in receipts if one["destination"] == "meta"] == ["erased"]


async def test_the_command_and_any_client_of_the_topic_can_say_it_too(system):
    config = system.demo.config
    await pause(system)
    await system.post([subscribed("by-command"), subscribed("by-record"), subscribed("by-nobody")], key="secret_key")
    await waits(system, "by-record")

    told = await command(system, "forget", "--email", "By-Command@example.com", "--json")
    assert orjson.loads(told)["most"] > 0
    async with AIOKafkaProducer(bootstrap_servers=config.brokers, acks="all") as producer:
        digest = sha("by-record@example.com")
        said = orjson.dumps({"v": 1, "what": "erase", "kind": "email", "digest": digest, "by": "crm"})
        await producer.send_and_wait(topics.names(config).people, said, key=f"erase:email:{digest}".encode())

    assert [await state(system, one) for one in ("by-command", "by-record")] == [GONE, GONE]
    await pause(system, paused=False)
    assert (await state(system, "by-nobody"))[0] == "delivered"
    assert [await system.accepted("meta", event_id=one) for one in ("by-command", "by-record")] == [[], []]


async def test_what_is_tried_again_in_an_outage_is_given_up_and_never_sent(system):
    await system.faults("meta", status_500=1.0)
    await system.post([subscribed("outage-1"), subscribed("outage-2")], key="secret_key")

    async def tried() -> bool:
        return 'capistream_requests_total{destination="meta",status="500"}' in (await system.get("view", "/metrics"))[1]

    await eventually(tried, "a first attempt")
    await forget(system, email="outage-1@example.com")
    assert await state(system, "outage-1") == GONE, "while the platform is still down"

    await system.faults("meta")
    assert (await state(system, "outage-2"))[0] == "delivered"
    assert await system.accepted("meta", event_id="outage-1") == []


async def test_a_parked_event_is_deleted_where_it_waits(system):
    names = topics.names(system.demo.config)
    await pause(system)
    await altered(system, names.to("meta"), max_message_bytes="100")
    await system.post([subscribed("parked-1"), subscribed("parked-2")], key="secret_key")
    await waits(system, "parked-1")
    changelog = names.changelog(outcomes_table("meta"))

    async def parked() -> set[str]:
        rows = await newest(system, changelog)
        return {orjson.loads(row)["event"]["event_id"] for key, row in rows.items() if row and key.startswith(PARKED)}

    async def both() -> bool:
        return await parked() == {"parked-1", "parked-2"}

    await eventually(both, "two parked events")
    await forget(system, email="parked-1@example.com")

    assert await state(system, "parked-1") == GONE

    async def one() -> bool:
        return await parked() == {"parked-2"}

    await eventually(one, "the row deleted")
    await pause(system, paused=False)
    assert (await state(system, "parked-2"))[0] == "delivered"
    assert await system.accepted("meta", event_id="parked-1") == []


async def test_a_dead_letter_is_not_replayed_and_what_is_replayed_by_hand_is_not_sent(system):
    config, names = system.demo.config, topics.names(system.demo.config)
    await system.post(subscribed("letter-1", ids={"fbp": "not-a-cookie"}), key="secret_key")
    assert (await state(system, "letter-1"))[0] == "rejected"
    known = await letters.load(config)
    (letter,) = [one for one in known.values() if one.event_id == "letter-1" and one.destination == "meta"]

    await forget(system, ids={"fbp": "not-a-cookie"})

    replayed = [one.why async for one in letters.replay(config, [letter], known, "test")]
    assert replayed == [letters.FORGOTTEN]
    (record,) = [one for one in await records(config, names.to("meta")) if b"letter-1" in one.value]
    again = orjson.dumps(orjson.loads(record.value) | {"replay": int(time.time() * 1000)})
    async with AIOKafkaProducer(bootstrap_servers=config.brokers, acks="all") as producer:
        await producer.send_and_wait(names.to("meta"), again, key=record.key, partition=record.partition)

    async def gone() -> bool:
        return await state(system, "letter-1") == GONE

    await eventually(gone, "the replay suppressed")
    letters_now = [one for one in (await letters.load(config)).values() if one.event_id == "letter-1"]
    assert len(letters_now) == 1, "an erased event is no dead letter"


async def test_a_worker_that_was_down_learns_of_it_before_it_sends(system):
    worker = system.child("worker-1")
    await pause(system)
    await system.post(subscribed("down-1"), key="secret_key")
    await waits(system, "down-1")
    assert worker.process
    worker.process.kill()
    await asyncio.to_thread(worker.process.wait)

    await system.post(subscribed("down-2"), key="secret_key")
    await forget(system, email=["down-1@example.com", "down-2@example.com"])
    await pause(system, paused=False, heard=False)
    system.demo._spawn(worker)

    assert [await state(system, one) for one in ("down-1", "down-2")] == [GONE, GONE]
    assert [await system.accepted("meta", event_id=one) for one in ("down-1", "down-2")] == [[], []]


async def test_a_withdrawal_reaches_what_shares_an_identifier_and_was_received_before(system):
    await pause(system)
    shared = {"user": {"email": "shared@example.com"}}
    await system.post(
        [
            subscribed("before-1", **shared),
            subscribed("before-2", user={"email": "shared@example.com", "phone": "+4930123456"}),
            subscribed("other-1", user={"phone": "+4930123456", "email": "other@example.com"}),
        ],
        key="secret_key",
    )
    await waits(system, "other-1")

    answer = await forget(system, email="Shared@example.com ", withdraw=True)
    assert answer["what"] == "withdraw"
    assert [await state(system, one) for one in ("before-1", "before-2")] == [WITHDRAWN, WITHDRAWN]

    await system.post(subscribed("after-1", **shared), key="secret_key")
    await pause(system, paused=False)
    assert [(await state(system, one))[0] for one in ("other-1", "after-1")] == ["delivered", "delivered"]
    assert [len(await system.accepted("meta", event_id=f"before-{n}")) for n in (1, 2)] == [0, 0]


async def test_copies_that_are_kept_for_a_late_consent_are_deleted_within_a_minute(system):
    names = topics.names(system.demo.config)
    lead = {"event_name": "generate_lead", "event_id": "kept-1", "user": {"email": "kept@example.com"}}
    await system.post(lead)
    assert (await state(system, "kept-1"))[1] == "consent_absent"

    async def copies() -> list[bytes]:
        rows = await newest(system, names.changelog("held"))
        return [row for row in rows.values() if row and sha("kept@example.com").encode() in row]

    assert len(await copies()) == 1
    await forget(system, email="kept@example.com")

    async def none() -> bool:
        return not await copies()

    await eventually(none, "the copies deleted")
    seen = [row for key, row in (await newest(system, names.changelog("seen"))).items() if key.startswith(b"kept-1")]
    (row,) = [orjson.loads(one) for one in seen if one]
    assert not row.keys() & {"w", "p", "f", "k"}
    assert [copy[4] for copy in row["c"]] == [""]


@pytest.mark.parametrize(
    ("key", "body", "status", "reason"),
    [
        ("write_key", {"email": "ada@example.com"}, 403, "no_key"),
        ("secret_key", {"email": "nobody"}, 400, "not_an_email"),
        ("secret_key", {}, 400, "missing"),
    ],
)
async def test_only_whoever_has_the_secret_key_may_and_a_mistake_is_told(shared_system, key, body, status, reason):
    found, answer = await shared_system.post(body, key=key, path="/v1/forget")

    assert (found, answer["error"]["reason"]) == (status, reason)
