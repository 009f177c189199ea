"""Topics of the customer's own, as a worker reads them: a map, a filter, headers, values by a registry that is away for a while."""

import asyncio
import struct
import subprocess
import sys
from pathlib import Path

import orjson
import pytest
from aiohttp import web
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from click.testing import CliRunner

from app import letters, processes, records, topics
from app.cli import main
from app.events import Event, Json
from app.settings import Settings, parse
from tests.factories import served
from tests.system.conftest import eventually

CONFIG = """
[kafka]
brokers = "{brokers}"
prefix = "{prefix}"
partitions = 2
replication = 1

[sites.shop]
write_key = "wk_12345678"
secret_key = {{ env = "NOBODY_SETS_THIS" }}

[registry]
url = "{registry}"

[sources.orders]
topic = "{prefix}-orders"
site = "shop"
format = "map"
filter = "_headers.ce_type == 'order.paid'"
start = "2026-01-01T00:00:00Z"
map = {{ event_name = "'purchase'", event_id = "number", "commerce.transaction_id" = "_key" }}

[sources.typed]
topic = "{prefix}-typed"
site = "shop"
encoding = "registry"
start = "earliest"

[worker]
data_dir = "{folder}"
"""
SCHEMA = {
    "type": "record",
    "name": "Login",
    "fields": [{"name": n, "type": "string"} for n in ("event_name", "event_id")],
}
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
OLD, NEW = 1_760_000_000_000, 1_790_000_000_000


class Registry:
    """Knows one schema under some numbers; answers as it is told."""

    def __init__(self) -> None:
        self.url = ""
        self.status = 503
        self.known = {"/schemas/ids/1"}
        self.asked = asyncio.Event()

    async def answer(self, request: web.Request) -> web.Response:
        self.asked.set()
        if self.status != 200:
            return web.Response(status=self.status)
        if request.path in self.known:
            return web.json_response({"schema": orjson.dumps(SCHEMA).decode()})
        return web.json_response({"error_code": 40403, "message": "Schema not found"}, status=404)


@pytest.fixture
async def registry():
    one = Registry()
    async with served(one.answer, "GET") as one.url:
        yield one


class Place:
    """A configuration without destinations, its topics, and a worker once it is started."""

    def __init__(self, config: Settings, folder: Path) -> None:
        self.config, self.folder = config, folder
        self.worker: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "app.cli", "worker", "--config", str(self.folder / "capistream.toml")]
        port = str(processes.free_port())
        self.worker = processes.spawn([*command, "--web-port", port], self.folder / "worker.log")


@pytest.fixture
async def place(kafka, prefix, registry, tmp_path):
    text = CONFIG.format(brokers=kafka.brokers, prefix=prefix, registry=registry.url, folder=tmp_path / "state")
    (tmp_path / "capistream.toml").write_text(text)
    one = Place(parse(text), tmp_path)
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.brokers)
    await admin.start()
    await topics.create(
        admin, [topics.Topic(s.topic, "", "", "", 1, {"retention.ms": "-1"}) for s in one.config.sources.values()], 1
    )
    await admin.close()
    await topics.apply(one.config)
    yield one
    if one.worker is not None:
        await asyncio.to_thread(processes.stop, one.worker, 15)


async def produce(config: Settings, source: str, *rows: Json) -> None:
    async with AIOKafkaProducer(bootstrap_servers=config.brokers, acks="all") as producer:
        for row in rows:
            await producer.send_and_wait(config.sources[source].topic, partition=0, **row)


def typed(event_id: str, schema: int = 1) -> Json:
    texts = (b"login", event_id.encode())
    return {"value": b"\0" + struct.pack(">I", schema) + b"".join(bytes([2 * len(one)]) + one for one in texts)}


async def events(config: Settings, count: int) -> list[Event]:
    """That many of capistream.events, in the order of their ids."""

    async def there() -> list[Event]:
        name, found = topics.names(config).events, list[Event]()
        async with records.reader(config) as consumer:
            async for record in records.everything(consumer, name, range(config.kafka.partitions)):
                if record.key is not None:
                    found.append(orjson.loads(record.value))
        return sorted(found, key=lambda one: one["event_id"]) if len(found) >= count else []

    found: list[Event] = await eventually(there, f"{count} events")
    return found


async def reasons(config: Settings, count: int) -> list[str]:
    """Of that many dead letters."""

    async def there() -> list[str]:
        found = sorted(one.reason for one in (await letters.load(config)).values())
        return found if len(found) >= count else []

    found: list[str] = await eventually(there, f"{count} dead letters")
    return found


async def test_a_topic_of_ones_own_is_read_from_its_start_by_map_and_filter(place):
    paid = [("ce_type", b"order.paid"), ("traceparent", TRACE.encode()), ("authorization", b"Bearer x")]
    await produce(
        place.config,
        "orders",
        {"value": b'{"number": "too old"}', "key": b"0", "headers": paid, "timestamp_ms": OLD},
        {"value": b'{"number": "1"}', "key": b"order-1", "headers": paid, "timestamp_ms": NEW},
        {"value": b'{"number": "open"}', "key": b"order-2", "headers": [("ce_type", b"order.open")]},
        {"value": None, "key": b"order-1", "headers": paid},  # a tombstone
        {"value": b'{"number": "2"}', "key": b"order-3", "headers": paid},
    )

    place.start()

    first, second = await events(place.config, 2)

    assert (first["event_id"], first["commerce"], first["received"]) == ("1", {"transaction_id": "order-1"}, NEW)
    assert first["origin"]["headers"] == {"ce_type": "order.paid", "traceparent": TRACE}
    assert second["event_id"] == "2"


async def test_a_registry_that_is_away_holds_the_records_and_makes_no_dead_letters(place, registry):
    place.start()
    await produce(place.config, "typed", typed("a"), typed("b", schema=9), {"value": b"{}"}, typed("c"))
    await registry.asked.wait()
    registry.status = 200

    found = await events(place.config, 2)

    assert [(one["event_name"], one["event_id"]) for one in found] == [("login", "a"), ("login", "c")]
    assert await reasons(place.config, 2) == ["no_schema_id", "unknown_schema"]


async def test_a_replay_asks_the_registry_again(place, registry):
    registry.status = 200
    place.start()
    await produce(place.config, "typed", typed("a", schema=9))
    assert await reasons(place.config, 1) == ["unknown_schema"]

    registry.known.add("/schemas/ids/9")
    command = ["dead", "replay", "--yes", "--config", str(place.folder / "capistream.toml")]
    result = await asyncio.to_thread(CliRunner().invoke, main, command)

    assert result.exit_code == 0, result.output
    (event,) = await events(place.config, 1)
    assert (event["event_id"], event["origin"]["offset"]) == ("a", 0)
