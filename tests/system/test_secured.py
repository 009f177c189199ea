"""A Kafka that asks who we are and allows each of us what app/acls.py says, and no more: an event comes in and goes out."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from click.testing import CliRunner, Result

from app import acls, processes, topics
from app.acls import Acl
from app.cli import main
from app.settings import Settings, parse
from tests.secured import Secured, password_of
from tests.system.conftest import eventually
from tests.system.test_delivery import subscribed

pytestmark = pytest.mark.fault

CONFIG = """
[kafka]
brokers = "{brokers}"
prefix = "{prefix}"
partitions = 2
replication = 1
create_topics = {create}

[kafka.tls]
ca = "{ca}"
{access}

[sites.shop]
write_key = "wk_12345678"
secret_key = {{ env = "SHOP_KEY" }}

[sources.orders]
topic = "{prefix}-orders"
site = "shop"

[destinations.meta]
sink = "meta"
endpoint = "http://127.0.0.1:{sandbox}/meta"
dataset_id = "1234567890"
access_token = {{ env = "META_TOKEN" }}
browser_tag = "none"

[collector]
port = {collector}

[worker]
data_dir = "{folder}/state"
"""
SECRETS = {"SHOP_KEY": "sk_of_the_shop", "META_TOKEN": "EAAB0123456789"}


class Place:
    """Collector, worker and sandbox as processes, each with a log-in of its own."""

    def __init__(self, secured: Secured, prefix: str, folder: Path, protocol: str, *, create: bool) -> None:
        self.secured, self.prefix, self.folder = secured, prefix, folder
        self._protocol, self._create = protocol, create
        self.ports = {name: processes.free_port() for name in ("sandbox", "collector", "worker")}
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def write(self, who: str, **access: Any) -> Settings:
        """The configuration of this role."""
        if self._protocol == "SASL_SSL":
            (self.folder / f"{who}.password").write_text(access.get("password", password_of(who)))
            text = f'[kafka.sasl]\nmechanism = "SCRAM-SHA-512"\nuser = "{who}"\n'
            text += f'password = {{ file = "{self.folder}/{who}.password" }}'
        else:
            certificate, key = self.secured.authority.issue(who)
            text = f'certificate = "{certificate}"\nkey = "{key}"'
        made = CONFIG.format(
            brokers=self.secured.at(self._protocol),
            prefix=self.prefix,
            create=str(self._create).lower(),
            ca=access.get("ca", self.secured.authority.ca),
            access=text,
            folder=self.folder,
            **{name: port for name, port in self.ports.items() if name != "worker"},
        )
        self._path(who).write_text(made)
        return parse(made)

    def _path(self, who: str) -> Path:
        return self.folder / f"{who}.toml"

    async def command(self, who: str, *words: str) -> Result:
        return await asyncio.to_thread(CliRunner().invoke, main, [*words, "--config", str(self._path(who))])

    async def runs(self, who: str, *commands: str) -> None:
        for command in commands:
            result = await self.command(who, *command.split())
            assert result.exit_code == 0, (command, result.output)

    async def create_source(self) -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.secured.brokers)
        await admin.start()
        await admin.create_topics([NewTopic(f"{self.prefix}-orders", 2, 1)])
        await admin.close()

    def start(self, *names: str) -> None:
        commands: Mapping[str, list[str]] = {
            "sandbox": ["sandbox", "--port", str(self.ports["sandbox"])],
            "collector": ["collect", "--config", str(self._path("collector"))],
            "worker": ["worker", "--config", str(self._path("worker")), "--web-port", str(self.ports["worker"])],
        }
        for name in names:
            program = [sys.executable, "-m", "app.cli", *commands[name]]
            self.running[name] = processes.spawn(program, self.folder / f"{name}.log", {**os.environ, **SECRETS})

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")

    async def accepted(self, event_id: str) -> list[Any]:
        query = f"http://127.0.0.1:{self.ports['sandbox']}/accepted.json?destination=meta&event_id={event_id}"
        async with aiohttp.ClientSession() as http, http.get(query) as answer:
            found: list[Any] = orjson.loads(await answer.read())["events"]
            return found

    async def post(self, event_id: str) -> int:
        url, headers = (
            f"http://127.0.0.1:{self.ports['collector']}/v1/events",
            {"Authorization": "Bearer sk_of_the_shop"},
        )
        async with (
            aiohttp.ClientSession() as http,
            http.post(url, data=orjson.dumps(subscribed(event_id)), headers=headers) as answer,
        ):
            return answer.status

    async def delivers(self, event_id: str) -> None:
        """In by the collector, out to the sandbox."""

        async def taken() -> bool:
            return await self.post(event_id) == 200

        await eventually(taken, f"a collector that takes events:\n{self.log('collector')}")

        async def sent() -> list[Any]:
            return await self.accepted(event_id)

        try:
            await eventually(sent, "a delivery")
        except AssertionError as exc:
            raise AssertionError(f"{exc}:\n{self.log('worker')[-5000:]}") from exc

    def stop(self) -> None:
        for process in self.running.values():
            processes.stop(process, 10)


@pytest.fixture
def places(secured: Secured, prefix: str, tmp_path: Path) -> Iterator[Any]:
    made: list[Place] = []

    def make(protocol: str, *, create: bool) -> Place:
        made.append(Place(secured, prefix, tmp_path, protocol, create=create))
        return made[-1]

    yield make
    for one in made:
        one.stop()


async def test_with_scram_over_tls_and_the_grants_that_are_printed_an_event_comes_in_and_goes_out(places):
    place = places("SASL_SSL", create=True)
    await place.create_source()
    for role in ("worker", "collector"):
        await place.secured.grant(f"User:{role}", acls.needed(place.write(role), role))

    place.start("sandbox", "collector", "worker")

    await place.delivers("scram")


async def test_with_certificates_and_the_least_of_grants_an_event_comes_in_and_goes_out(places):
    place = places("SSL", create=False)
    await place.create_source()
    operator = place.write("operator")
    assert acls.principal(operator) == "User:CN=operator"
    await place.secured.grant("User:CN=operator", acls.needed(operator, "operator"))
    for role in ("worker", "collector"):
        does = acls.wanted(place.write(role), role)
        least = [Acl("topic", topic, False, tuple(operations)) for topic, operations in does.items()]
        await place.secured.grant(f"User:CN={role}", least)
    await place.secured.grant("User:CN=worker", [Acl("group", place.prefix, False, ("Read",))])

    applied = await place.command("operator", "topics", "apply")
    count = len(topics.plan(operator)) + 1
    assert (applied.exit_code, applied.stderr) == (0, f"{count} topics, nothing to do\n"), applied.stdout
    place.start("sandbox", "collector", "worker")

    await place.delivers("certificates")
    await place.secured.grant("User:CN=view", acls.needed(place.write("view"), "view"))
    await place.runs("view", "destinations list", "dead list")
    await place.runs(
        "operator", "destinations pause meta", "destinations resume meta", "dead list", "dead replay --yes",
        "destinations backfill meta --since 2026-01-01T00:00:00Z", "forget --event-id certificates", "topics plan",
    )  # fmt: skip
    refused = await place.command("view", "destinations", "pause", "meta")
    assert refused.exit_code == 1
    assert refused.stderr == (
        "Kafka does not take the order: it does not allow us to (TopicAuthorizationFailedError: "
        f"{place.prefix}.control). `capistream topics acls` prints what grants it\n"
    )


async def test_a_worker_without_a_grant_and_a_collector_with_a_wrong_password_say_so_in_a_line_and_end(places):
    place = places("SASL_SSL", create=True)
    await place.create_source()
    config = place.write("worker")
    sources = {source.topic for source in config.sources.values()}
    for one in acls.needed(config, "worker"):
        without = replace(one, operations=one.operations if one.name in sources else ("Write", "Create"))
        await place.secured.grant("User:worker", [without] if one.resource == "topic" else [])
    place.write("collector", password="wrong")

    place.start("worker", "collector")

    assert place.running["collector"].wait(60) == 1
    (said,) = place.log("collector").splitlines()
    where = place.secured.at("SASL_SSL")
    assert said == f"kafka.sasl.password: {where} does not let collector in: it is wrong, or there is no such user"
    assert place.running["worker"].wait(60) == 1
    (said,) = place.log("worker").splitlines()
    assert said == (
        f"Kafka does not let User:worker do what a worker does: Read group {place.prefix}. `capistream topics acls` prints what "
        "grants it"
    )

    await place.secured.grant("User:worker", [Acl("group", place.prefix, False, ("Read",))])
    place.start("worker")
    assert place.running["worker"].wait(60) == 1
    said = place.log("worker").splitlines()[-1]
    assert said.startswith(f"Kafka does not let User:worker do what a worker does: Read topic {place.prefix}")
    assert f"{place.prefix}.events," in said
    assert "orders" not in said
