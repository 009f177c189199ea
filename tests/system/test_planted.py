"""No clear personal data at rest: planted in every kind of input, and then looked for in every byte that was written."""

import asyncio
import base64
import contextlib
import copy
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import aiohttp
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from yarl import URL

from app import normalize
from app.demo import run
from app.normalize import Inlet, Normalized
from tests.system import planted
from tests.system.conftest import System, eventually

# the search, which needs no Kafka


@pytest.mark.parametrize("trace", planted.TRACES)
def test_the_search_finds_each_trace_in_each_spelling(trace):
    for text in (
        trace, trace.upper(), quote(trace, safe=""), quote(quote(trace, safe=""), safe=""), json.dumps(f"<{trace}>"),
        *(base64.b64encode(f"{before}{trace} and more".encode()).decode() for before in ("", "1", "12", "123")),
        base64.urlsafe_b64encode(f"x{trace}".encode()).decode(),
    ):  # fmt: skip
        assert planted.found_in(b"\x00before " + text.encode() + b" after\xff"), text


def test_the_search_finds_nothing_where_there_is_nothing():
    assert planted.found_in(os.urandom(100_000) + b'{"event_id": "order-1001", "time": 1795420800123}') == []


@pytest.mark.parametrize("how", ["mask", "drop"])
@pytest.mark.parametrize("kept", ["full", "path", "origin"])
def test_nothing_planted_is_left_after_normalize(how, kept):
    def left(body: Any, format_name: str) -> None:
        inlet = Inlet("t", format_name, "shop", "server", country="DE", made_up_id="x", redact=how, url=kept)
        for result in normalize.normalize_bytes(body, inlet, 1_795_428_000_000, {"topic": "t"}):
            said = json.dumps(result.event if isinstance(result, Normalized) else vars(result)).encode()
            assert planted.found_in(said) == [], said

    for event in planted.conversions("server"):
        left(json.dumps(event).encode(), "capistream")
    for body in planted.mistakes():
        for format_name in ("capistream", *planted.FOREIGN):
            left(body, format_name)
    for format_name, one in planted.FOREIGN.items():
        left(json.dumps(one).encode(), format_name)


def test_what_is_planted_where_it_belongs_is_taken():
    inlet = Inlet("t", "capistream", "shop", "server", country="DE", made_up_id="x")

    for event in planted.conversions("server"):
        (result,) = normalize.normalize(event, inlet, 1_795_428_000_000, {"topic": "t"})
        assert isinstance(result, Normalized), result


# the whole system, with a Kafka of its own whose disk is searched, too

MORE = """
[sources.segment]
topic = "planted.segment"
format = "segment"
site = "shop"
start = "earliest"

[sources.meta]
topic = "planted.meta"
format = "meta"
site = "shop"
source = "crm"
start = "earliest"

[sources.ga4]
topic = "planted.ga4"
format = "ga4"
site = "shop"
source = "crm"
start = "earliest"

[collector.ga4.G-PLANTED001]
site = "shop"
endpoint = "http://127.0.0.1:1"
api_secret = { env = "DEMO_SECRET_KEY" }

[destinations.rehearsed]
sink = "meta"
mode = "shadow"
endpoint = "http://127.0.0.1:1"
dataset_id = "7654321"
access_token = { env = "DEMO_META_TOKEN" }
browser_tag = "none"
"""
SOURCES = ("shop.orders", "planted.")  # the customer's own topics are as the customer writes them
LAST = sum(1 for _ in planted.conversions("crm")) - 1
#: Topics that hold whole events, or requests as they would be sent: there, IP addresses and user agents are payload.
WHOLE = (".events", ".conversions", ".to.", ".trace", "-held-changelog", "-outcomes.")


@pytest.fixture
async def own_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[System]:
    folder = tmp_path / "system"
    (folder / "tmp").mkdir(parents=True)
    monkeypatch.setenv("TMPDIR", str(folder / "tmp"))  # of the processes that are started
    demo = run.Demo(say=lambda _: None, folder=folder, destinations=("meta", "ga4"), ports=run.free_ports(), more=MORE)
    try:
        await demo.start()
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as http:
            yield System(demo, http)
    finally:
        await asyncio.to_thread(demo.stop)


def command(system: System, *arguments: str) -> bytes:
    """What it says on both streams."""
    line = [sys.executable, "-m", "app.cli", *arguments, "--config", system.addresses["config"]]
    return subprocess.run(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False).stdout


async def plant_at_the_collector(system: System) -> None:
    browser = {
        "User-Agent": planted.AGENT, "X-Forwarded-For": planted.IP, "Referer": planted.PAGE, "X-Email": planted.PERSON["email"],
        "Cookie": f"email={planted.PERSON['email']}; name=Zyxadora", "Origin": f"https://{planted.PERSON['email']}",
    }  # fmt: skip
    query = f"/v1/events?email={quote(planted.PERSON['email'])}&first_name=Zyxadora"
    for n, event in enumerate(planted.conversions("crm")):
        status, answer = await system.post(
            {**event, "event_id": f"planted-{n}"}, key="secret_key", path=query, **browser
        )
        assert status == 200, answer
        pixel = {**event, "event_id": f"planted-pixel-{n}", "source": "pixel"}
        assert (await system.post(pixel, path=query, **browser))[0] == 200
    for body in planted.mistakes():
        await system.post(body, key="secret_key", path=query, **browser)
        await system.post(body, path=query, **browser)
    segment = {**planted.SEGMENT, "messageId": "planted-segment"}
    assert (await system.post(segment, key="secret_key", path="/v1/track", **browser))[0] == 200
    await plant_in_hits_of_gtag(system, browser)
    status, _ = await system.post(b'"' + planted.PERSON["email"].encode() * 40_000 + b'"', key="secret_key", **browser)
    assert status == 413


async def plant_in_hits_of_gtag(system: System, browser: dict[str, str]) -> None:
    """Of the page, and of the shop's back end. Google, to whom they are handed on, does not answer."""
    email, page = quote(planted.PERSON["email"], safe=""), quote(planted.PAGE, safe="")
    hit = (
        f"v=2&tid=G-PLANTED001&cid=1234567890.1699999999&gcs=G111&gcd=13r3r3r3r5&uid={email}&dl={page}&dr={page}&dt={email}"
        f"&ul={email}&em={email}&up.email={email}&ep.note={email}&ep.first_name=Zyxadora&ep.{email}=1"
    )
    for name, path in (("planted-hit", "/g/collect"), (planted.PERSON["email"], f"/g/collect/{email}")):
        url = URL(f"{system.addresses['collector']}{path}?{hit}&en=login&ep.event_id={quote(name)}", encoded=True)
        async with system.http.post(url, headers=browser) as answer:
            assert answer.status in (204, 404)
    for secret in (os.environ["DEMO_SECRET_KEY"], planted.PERSON["email"]):
        query = {"measurement_id": "G-PLANTED001", "api_secret": secret}
        async with system.http.post(
            f"{system.addresses['collector']}/mp/collect", params=query, json=foreign()["ga4"], headers=browser
        ) as answer:
            assert answer.status in (204, 401, 403), await answer.text()


async def plant_where_nobody_listens(system: System) -> None:
    """Requests that are no HTTP, paths that are none, ids that nobody has."""
    email = planted.PERSON["email"]
    for where in ("collector", "view"):
        address = urlsplit(system.addresses[where])
        for raw in (
            f"GET /{email}\r\n\r\n",
            f"POST /v1/events HTTP/1.1\r\n{email}\x01: x\r\nbad {email}\r\n\r\n",
            f"{email}\r\n\r\n",
        ):
            reader, writer = await asyncio.open_connection(address.hostname, address.port)
            writer.write(raw.encode())
            with contextlib.suppress(TimeoutError, OSError):  # some of it is no request yet
                await asyncio.wait_for(reader.read(1000), 2)
            writer.close()
        await system.get(where, f"/{quote(email)}?email={quote(email)}")
    await system.get("view", f"/events/{quote(email)}.json")
    await system.get("view", f"/local.json?id={quote(email)}")


async def plant_on_the_bus(system: System) -> None:
    headers = [("email", planted.PERSON["email"].encode())]
    key = planted.PERSON["email"].encode()
    async with AIOKafkaProducer(bootstrap_servers=system.addresses["broker"], acks="all") as producer:
        for n, event in enumerate(planted.conversions("crm")):
            value = json.dumps({**event, "event_id": f"planted-bus-{n}"}).encode()
            await producer.send_and_wait(system.addresses["topic"], value, key=key, headers=headers)
        for body in planted.mistakes():
            for topic in (system.addresses["topic"], "planted.segment", "planted.meta", "planted.ga4"):
                await producer.send_and_wait(topic, body, key=key, headers=headers)
        for name, one in foreign().items():
            await producer.send_and_wait(f"planted.{name}", json.dumps(one).encode(), key=key, headers=headers)


def foreign() -> dict[str, Any]:
    """With ids to look for, and times that any platform takes."""
    found: dict[str, Any] = copy.deepcopy(dict(planted.FOREIGN))
    found["segment"]["messageId"] = "planted-of-segment"
    found["meta"] |= {"event_id": "planted-of-meta", "event_time": int(time.time())}
    found["ga4"]["timestamp_micros"] = int(time.time() * 1e6)
    found["ga4"]["events"][0]["params"]["event_id"] = "planted-of-ga4"
    return found


async def crash(system: System) -> None:
    worker = system.child("worker-1")
    assert worker.process
    os.kill(worker.process.pid, signal.SIGKILL)
    worker.process.wait()
    system.demo._spawn(worker)

    async def ready() -> bool:
        return (await system.get("view", "/readyz"))[0] == 200

    await eventually(ready, "the worker after its crash", patience=120)


async def every_record(system: System) -> AsyncIterator[tuple[str, bytes]]:
    """(topic, all bytes of a record) of every topic but the customer's own: whatever form they have on the disk."""
    brokers = system.addresses["broker"]
    admin = AIOKafkaAdminClient(bootstrap_servers=brokers)
    await admin.start()
    try:
        names = [name for name in await admin.list_topics() if not name.startswith(SOURCES)]
        described = await admin.describe_topics(names)
    finally:
        await admin.close()
    tps = [TopicPartition(one["topic"], part["partition"]) for one in described for part in one["partitions"]]
    async with AIOKafkaConsumer(bootstrap_servers=brokers) as consumer:
        consumer.assign(tps)
        await consumer.seek_to_beginning(*tps)
        ends = await consumer.end_offsets(tps)
        while any([await consumer.position(tp) < ends[tp] for tp in tps]):
            for tp, records in (await consumer.getmany(timeout_ms=500)).items():
                for one in records:
                    headers = b"".join(name.encode() + value for name, value in one.headers)
                    yield tp.topic, (one.key or b"") + b"\n" + (one.value or b"") + b"\n" + headers


def files(system: System) -> Iterator[tuple[Path, bytes]]:
    """Every file of Kafka, collector, worker and emulators but those of the customer's own topics.

    Kafka's indexes hold offsets and times alone, and are reserved in full: a gigabyte of zeros.
    """
    for path in system.demo.folder.rglob("*"):
        if path.is_file() and not path.parent.name.startswith(SOURCES) and path.suffix not in (".index", ".timeindex"):
            with contextlib.suppress(FileNotFoundError):  # just compacted away
                yield path, path.read_bytes()


def secrets_in(data: bytes) -> list[str]:
    """Whose secrets these bytes hold: of the destinations, and of the site."""
    return [name for name, value in os.environ.items() if name.startswith("DEMO_") and value.encode() in data]


def is_whole(topic: str) -> bool:
    return any(part in topic for part in WHOLE)


@pytest.mark.fault
@pytest.mark.timeout(420)
async def test_no_clear_personal_data_and_no_secret_is_anywhere_whatever_is_sent_and_whatever_fails(
    own_system, tmp_path
):
    system = own_system
    await system.faults("meta", status_500=0.2, html_error=0.1, reset_after=0.1, seed=1)
    await plant_at_the_collector(system)
    await plant_where_nobody_listens(system)
    await plant_on_the_bus(system)
    await crash(system)
    await system.faults("meta")
    for event_id in ("planted-0", "planted-hit", f"planted-pixel-{LAST}", f"planted-bus-{LAST}", "planted-segment"):
        await system.settled(event_id)
    for name in planted.FOREIGN:
        await system.settled(f"planted-of-{name}")
    await system.faults("meta", html_error=1.0, html_status=413)  # a proxy that finds every request too large
    bad = {**next(planted.conversions("crm")), "event_id": "planted-rejected"}
    await system.post(bad, key="secret_key")
    assert (await system.settled("planted-rejected"))["conversions"][0]["destinations"]["meta"]["state"] == "rejected"
    await system.faults("meta")
    drafts = tmp_path / "drafts.json"  # as a person would preview them: these are clear
    drafts.write_text("\n".join(json.dumps({**one, "event_id": "1"}) for one in planted.conversions("crm")))
    commands = [
        await asyncio.to_thread(command, system, *line)
        for line in (
            ("dead", "list", "--all"),
            ("dead", "list", "--all", "--json"),
            ("dead", "replay", "--yes"),
            ("destinations", "list"),
            ("config", "check"),
            ("config", "privacy"),
            ("doctor",),
            ("doctor", "--json"),
            ("preview", str(drafts), "--json"),
            ("consent", "explain", planted.PERSON["email"]),
            ("forget", "--email", planted.PERSON["email"], "--phone", planted.PERSON["phone"], "--dry-run"),
            ("forget", "--order", planted.PERSON["email"], "--dry-run"),
        )
    ]
    assert b"replayed" in commands[2]
    await crash(system)
    await system.post({**bad, "event_id": "planted-last"}, key="secret_key")
    await system.settled("planted-last")

    pages = [
        (await system.get(where, path, Accept=accept))[1].encode()
        for where, paths in {
            "view": (
                "/",
                "/events/planted-0",
                "/events/planted-bus-0",
                "/events/planted-rejected",
                "/destinations",
                "/dead",
                "/audit",
                "/metrics",
                "/readyz",
            ),
            "collector": ("/metrics", "/readyz"),
        }.items()
        for path in paths
        for accept in ("text/html", "application/json")
    ]
    assert b"em" in commands[8], "what would be sent"
    assert secrets_in(os.environ["DEMO_META_TOKEN"].encode()) == ["DEMO_META_TOKEN"]
    for number, shown in enumerate([*commands, *pages]):
        assert planted.found_in(shown) == [], shown[:2000]
        assert secrets_in(shown) == [], shown[:2000]
        if number != 8:  # there, IP addresses and user agents are payload
            assert planted.IP.encode() not in shown
            assert b"PlantedAgent" not in shown
    for listing in ("/accepted.json", "/refused.json"):  # what platforms got
        shown = (await system.get("sandbox", f"{listing}?limit=1000"))[1].encode()
        assert planted.found_in(shown) == [], shown[:2000]
        assert secrets_in(shown) == [], shown[:2000]

    whole = 0
    async for topic, record in every_record(system):
        assert planted.found_in(record) == [], (topic, record[:2000])
        assert secrets_in(record) == [], (topic, record[:2000])
        if is_whole(topic):
            whole += planted.IP.encode() in record
        elif not topic.startswith("__"):
            assert planted.IP.encode() not in record, (topic, record[:2000])
            assert b"PlantedAgent" not in record, (topic, record[:2000])
    assert whole, "what platforms need is there"

    controls = set()
    for path, data in files(system):
        assert planted.found_in(data) == [], path
        assert secrets_in(data) == [], path
        place = "kafka" if "data" in path.parts else "state" if "state" in path.parts else "log"
        if place == "log":
            assert planted.IP.encode() not in data, path
            assert b"PlantedAgent" not in data, path
        controls |= {place} if b"planted-last" in data or path.name == "worker-1.log" else set()
    assert controls == {"kafka", "state", "log"}, "what was searched is what was written"
