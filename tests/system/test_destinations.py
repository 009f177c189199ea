"""What destinations can be told: several names for an event, shadow, a guard, orders to pause and to go on."""

import asyncio
import os
import re
import time
from typing import Any

import orjson
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from click.testing import CliRunner

from app import control, settings, topics
from app.cli import main
from app.control import Order
from app.guard import HOUR, WEEK
from app.outcome_rows import HOURS
from tests.faults.logs import records
from tests.system.conftest import System, eventually
from tests.system.test_delivery import outcome, subscribed

pytestmark = pytest.mark.fault

MORE = """
[destinations.pins]
sink = "pinterest"
endpoint = "{sandbox}/pinterest"
ad_account_id = "549755885175"
access_token = {{ env = "DEMO_META_TOKEN" }}
browser_tag = "none"
events = {{ subscribe = ["subscribe", "custom"] }}
map = {{ "custom_data.content_name" = "event_name" }}

[destinations.rehearsal]
sink = "meta"
mode = "shadow"
endpoint = "{sandbox}/meta"
dataset_id = "1112223334"
access_token = {{ env = "NOBODY_SETS_THIS" }}
browser_tag = "none"

[destinations.guarded]
sink = "meta"
endpoint = "{sandbox}/meta"
dataset_id = "5556667778"
access_token = {{ env = "DEMO_META_TOKEN" }}
browser_tag = "none"
guard = {{ highest = {{ subscribe = {{ EUR = 100 }} }} }}

[destinations.google]
sink = "google_ads"
endpoint = "{sandbox}/google_ads"
customer_id = "1234567890"
credentials = {{ env = "TEST_GOOGLE_CREDENTIALS" }}
events = {{ subscribe = "1112223333" }}
status_after = "2s"

[destinations.checked]
sink = "ga4"
endpoint = "{sandbox}/ga4"
measurement_id = "G-CHECKED123"
api_secret = {{ env = "DEMO_GA4_SECRET" }}
browser_tag = "none"
check_share = 1.0
custom_events = true
map = {{ "params.google_wrong" = "custom.wrong" }}

[destinations.hook]
sink = "webhook"
endpoint = "{sandbox}/webhook/shop"
secret = {{ env = "DEMO_SECRET_KEY" }}
browser_tag = "none"

[destinations.compared]
sink = "meta"
endpoint = "{sandbox}/meta"
dataset_id = "9998887776"
access_token = {{ env = "DEMO_META_TOKEN" }}
browser_tag = "none"
guard = {{ rate = 1.5, least = 4 }}
"""


@pytest.fixture
async def more(system: System, monkeypatch: pytest.MonkeyPatch) -> System:
    """The system with more destinations, by a restart of its worker."""
    credentials = {
        "type": "authorized_user",
        "client_id": "client",
        "client_secret": "client-secret",
        "refresh_token": "refresh-token",
        "token_uri": f"{system.addresses['sandbox']}/google_ads/token",
    }
    monkeypatch.setenv("TEST_GOOGLE_CREDENTIALS", orjson.dumps(credentials).decode())
    text = (system.demo.folder / "capistream.toml").read_text() + MORE.format(sandbox=system.addresses["sandbox"])
    await remember(settings.parse(text), "compared")
    await system.reconfigure(text)
    return system


async def remember(config: settings.Settings, destination: str) -> None:
    """One subscription in every partition, in the same hour of last week, in the one before and in the one after."""
    await topics.apply(config)
    changelog = topics.names(config).changelog(topics.outcomes_table(destination))
    row = orjson.dumps({"v": 1, "t": int(time.time() * 1000), "names": {"subscribe": {"n": 1, "m": {}}}})
    then = int(time.time() * 1000) // HOUR - WEEK
    async with AIOKafkaProducer(bootstrap_servers=config.brokers, acks="all") as producer:
        for partition in range(config.kafka.partitions):
            for hour in (then - 1, then, then + 1):
                await producer.send_and_wait(changelog, row, key=HOURS + b"%d" % hour, partition=partition)


def worth(event_id: str, value: float, **more: Any) -> dict[str, Any]:
    return subscribed(event_id, commerce={"value": value, "currency": "EUR"}, **more)


async def compared(system: System, destination: str, body: Any) -> Any:
    """What `capistream compare` counts, for another system that sent this."""
    folder = system.demo.folder
    (folder / "old.jsonl").write_bytes(orjson.dumps({"RequestBody": body}))
    command = ["compare", str(folder / "old.jsonl"), "--to", destination, "--config", str(folder / "capistream.toml")]
    result = await asyncio.to_thread(CliRunner().invoke, main, [*command, "--json"])
    return orjson.loads(result.stdout.splitlines()[0])["counts"]


async def test_destinations_do_as_they_are_told(more):
    await more.post(worth("many-1", 10.0), key="secret_key")

    names = (await outcome(more, "many-1", "pins"))["names"]
    assert {one["name"]: one["state"] for one in names} == {"subscribe": "delivered", "custom": "delivered"}
    taken = await more.accepted("pinterest", event_id="many-1")
    assert sorted(one["event_name"] for one in taken) == ["custom", "subscribe"]
    assert taken[0]["event"]["custom_data"]["content_name"] == "subscribe"

    queued = await outcome(more, "many-1", "google")
    assert (queued["state"], queued["name"]) in (("accepted", "1112223333"), ("delivered", "1112223333"))
    (conversion,) = await more.accepted("google_ads", event_id="many-1")
    assert conversion["event"]["conversionValue"] == 10.0
    assert (await outcome(more, "many-1", "hook"))["state"] == "delivered"

    assert (await outcome(more, "many-1", "rehearsal"))["state"] == "shadowed"
    assert await more.accepted("meta:1112223334") == []
    traces = [orjson.loads(one.value) for one in await records(more.demo.config, topics.names(more.demo.config).trace)]
    (trace,) = [one for one in traces if (one["event_id"], one["destination"]) == ("many-1", "rehearsal")]
    (shadowed,) = orjson.loads(trace["body"])["data"]
    (sent,) = await more.accepted("meta:5556667778", event_id="many-1")
    assert shadowed == sent["event"]
    assert await compared(more, "rehearsal", {"data": [sent["event"]]}) == {"equal": 1}
    assert os.environ["DEMO_META_TOKEN"] not in str(traces)

    await more.post(worth("many-2", 1000.0), key="secret_key")

    async def held() -> Any:
        found = (await more.journey("many-2"))["conversions"]
        return found and found[0]["destinations"]["guarded"]["state"] == "halted" and found[0]["destinations"]

    assert (await eventually(held, "the guard"))["guarded"]["reason"].startswith("guard: a subscribe is worth more")
    assert await more.accepted("meta:5556667778", event_id="many-2") == []
    standing = await control.standing(more.demo.config)
    assert (standing["guarded"].paused, standing["guarded"].by) == (True, "guard")

    await control.give(more.demo.config, [Order("guarded", paused=False, by="test", at=int(time.time() * 1000))])
    assert (await outcome(more, "many-2", "guarded"))["state"] == "delivered"
    assert not (await control.standing(more.demo.config))["guarded"].paused

    await control.give(more.demo.config, [Order("pins", paused=True, reason="a pause", at=int(time.time() * 1000))])
    worker = more.child("worker-1")
    assert worker.process
    worker.process.kill()  # a pause outlives the worker
    await asyncio.to_thread(worker.process.wait)
    more.demo._spawn(worker)
    await more.post(worth("many-3", 10.0), key="secret_key")

    async def paused() -> Any:
        found = (await more.journey("many-3")).get("conversions")
        return found and found[0]["destinations"]["meta"]["state"] == "delivered" and found[0]["destinations"]["pins"]

    waits = await eventually(paused, "the others")
    assert (waits["state"], waits["reason"]) == ("halted", "a pause")
    await control.give(more.demo.config, [Order("pins", paused=False, at=int(time.time() * 1000))])
    assert (await outcome(more, "many-3", "pins"))["state"] == "delivered"


async def altered(system: System, topic: str, **config: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=system.demo.config.brokers)
    await admin.start()
    try:
        wanted = {name.replace("_", "."): value for name, value in config.items()}
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, wanted)])
    finally:
        await admin.close()


async def deleted(system: System, topic: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=system.demo.config.brokers)
    await admin.start()
    try:
        await admin.delete_topics([topic])
    finally:
        await admin.close()


async def delivered(system: System, *event_ids: str) -> None:
    """At one destination; and every other one has an outcome, too."""
    for event_id in event_ids:
        assert (await outcome(system, event_id, "meta"))["state"] == "delivered", event_id


async def bypassed(system: System) -> float:
    found = re.findall(
        r'^capistream_bypassed_total\{destination="meta"\} (\S+)$',
        (await system.get("view", "/metrics"))[1],
        re.MULTILINE,
    )
    return float(found[0]) if found else 0.0


async def test_a_topic_that_takes_no_events_holds_up_neither_its_destination_nor_others(system):
    topic = topics.names(system.demo.config).to("meta")
    await system.post(subscribed("small-1"), key="secret_key")
    await delivered(system, "small-1")

    await altered(system, topic, max_message_bytes="100")
    for number in range(2, 8):
        await system.post(subscribed(f"small-{number}"), key="secret_key")
    await delivered(system, *(f"small-{number}" for number in range(2, 8)))
    assert await bypassed(system) == 6

    await altered(system, topic, max_message_bytes="1000000")

    async def by_its_topic_again() -> bool:
        before, event_id = await bypassed(system), f"large-{time.time()}"
        await system.post(subscribed(event_id), key="secret_key")
        await delivered(system, event_id)
        return await bypassed(system) == before

    await eventually(by_its_topic_again, "the topic takes events again")
    assert [len(await system.accepted("meta", event_id=f"small-{n}")) for n in range(1, 8)] == [1] * 7
    assert system.child("worker-1").starts == 1


async def test_a_deleted_topic_of_a_destination_is_made_again_and_nothing_is_missing(system):
    topic = topics.names(system.demo.config).to("meta")
    await system.post(subscribed("gone-1"), key="secret_key")
    await delivered(system, "gone-1")

    await deleted(system, topic)
    for number in range(2, 10):
        await system.post(subscribed(f"gone-{number}"), key="secret_key")
        await asyncio.sleep(0.2)
    await delivered(system, *(f"gone-{number}" for number in range(2, 10)))

    await eventually(lambda: exists(system, topic), "the topic")
    for number in range(10, 14):
        await system.post(subscribed(f"gone-{number}"), key="secret_key")
    await delivered(system, *(f"gone-{number}" for number in range(10, 14)))
    assert [len(await system.accepted("meta", event_id=f"gone-{n}")) for n in range(1, 14)] == [1] * 13


async def exists(system: System, topic: str) -> bool:
    admin = AIOKafkaAdminClient(bootstrap_servers=system.demo.config.brokers)
    await admin.start()
    try:
        return topic in await admin.list_topics()
    finally:
        await admin.close()


async def test_a_check_complains_of_what_was_taken_and_changes_no_outcome(more):
    ids = {"ga_client_id": "1234567890.1699999999"}
    for event_id, custom in (("good-1", {}), ("wrong-1", {"wrong": "x"})):
        await more.post(subscribed(event_id, ids=ids, custom=custom), key="secret_key")
        assert (await outcome(more, event_id, "checked"))["state"] == "delivered"

    async def checked() -> list[str]:
        page = (await more.get("view", "/metrics"))[1]
        done = re.search(r'^capistream_checks_total\{destination="checked",status="200"\} 2', page, re.MULTILINE)
        return re.findall(r"^capistream_complaints_total\{(.*)\} 1", page, re.MULTILINE) if done else []

    complaints = await eventually(checked, "both checks")
    assert complaints == ['complaint="NAME_RESERVED at events[].params.google_wrong",destination="checked"']


async def test_a_destination_holds_when_far_more_goes_out_than_in_the_same_hour_of_last_week(more):
    # 4 then, so 6 now; twice as many and one, should the hour end meanwhile
    ids = [f"week-{n}" for n in range(13)]
    await more.post([worth(one, 10.0) for one in ids], key="secret_key")

    async def held() -> Any:
        return (await control.standing(more.demo.config)).get("compared")

    order = await eventually(held, "the guard")
    assert (order.paused, order.by, order.guard) == (True, "guard", "rate subscribe")
    assert order.reason.startswith("guard: ")
    assert "more than 1.5 times the 4 of the same hour last week" in order.reason
    assert order.reason.split()[-1] in ids
    assert len(await more.accepted("meta:9998887776")) <= 12

    await control.give(more.demo.config, [Order("compared", paused=False, by="test", at=int(time.time() * 1000))])
    for one in ids:
        assert (await outcome(more, one, "compared"))["state"] == "delivered"

    worker = more.child("worker-1")
    assert worker.process
    worker.process.kill()  # what was looked at outlives the worker
    await asyncio.to_thread(worker.process.wait)
    more.demo._spawn(worker)
    await more.post(worth("week-last", 10.0), key="secret_key")
    assert (await outcome(more, "week-last", "compared"))["state"] == "delivered"


async def test_google_is_asked_what_became_of_what_it_queued(more):
    await more.faults("google_ads", queue_s=4)
    await more.post(worth("asked-1", 10.0), key="secret_key")
    assert (await outcome(more, "asked-1", "google"))["state"] == "accepted"

    worker = more.child("worker-1")
    assert worker.process
    worker.process.kill()  # the question outlives the worker
    await asyncio.to_thread(worker.process.wait)
    more.demo._spawn(worker)

    async def confirmed() -> Any:
        found = (await more.journey("asked-1")).get("conversions")
        return (
            found and found[0]["destinations"]["google"]["state"] == "delivered" and found[0]["destinations"]["google"]
        )

    assert (await eventually(confirmed, "Google's word"))["detail"] == "confirmed by the platform"
    receipts = [
        orjson.loads(one.value) for one in await records(more.demo.config, topics.names(more.demo.config).receipts)
    ]
    outcomes = [one["outcome"] for one in receipts if (one["event_id"], one["destination"]) == ("asked-1", "google")]
    assert outcomes == ["accepted", "delivered"]
