"""Brokers that end for good, and disks that are full."""

import asyncio
import contextlib
import http.client
import json
import logging
import subprocess
import time

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError

from app import settings, topics
from app.demo import run
from app.kafka import Cluster, Kafka
from tests.faults import harness
from tests.faults.faults import Step

pytestmark = [pytest.mark.fault, pytest.mark.timeout(300)]


@pytest.fixture(autouse=True)
def quiet():
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)


@contextlib.asynccontextmanager
async def administrator(brokers):
    admin = AIOKafkaAdminClient(bootstrap_servers=brokers)
    await admin.start()
    try:
        yield admin
    finally:
        await admin.close()


# -- a broker of three ends for good


class Mortal(Cluster):
    """What the harness takes for its one Kafka. Killed, the group's coordinator is gone, and no start brings it back."""

    dead: Kafka | None = None

    def start(self, progress=None):
        if self.dead is None:
            super().start(progress)

    @property
    def pid(self):
        return self.dead.pid if self.dead else self.nodes[0].pid

    def kill(self):
        if self.dead is None:
            self.dead = self.nodes[asyncio.run(self._coordinator()) - 1]
            self.dead.kill()

    async def _coordinator(self):
        async with administrator(self.brokers) as admin:
            return int(await admin.find_coordinator("capistream"))


def test_one_of_three_brokers_ends_for_good_and_nothing_is_lost_split_or_doubled(monkeypatch):
    clusters: list[Mortal] = []
    said: list[str] = []

    def make(folder):
        clusters.append(Mortal(folder))
        return clusters[0]

    monkeypatch.setattr(run, "Kafka", make)
    steps = [Step(5, "broker-kill", 1), Step(8, "kill", 2), Step(6, "term", 3), Step(4, "kill", 4)]
    monkeypatch.setattr(harness, "plan", lambda *_: steps)
    try:
        verdict, this = harness.one_run(205, 30, said.append)
    finally:
        for node in clusters[0].nodes:
            node.kill()

    assert verdict.good, (verdict.bad, said, this.folder)
    assert verdict.conversions > 500
    assert this.kinds["broker-kill"] == 1


async def told(admin, names, setting):
    """What topics are set to, once the broker that is asked knows them."""
    wanted = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
    until = time.monotonic() + 10
    while True:
        (answer,) = await admin.describe_configs(wanted)
        if not any(error for error, *_ in answer.resources):
            return {name: {one[0]: one[1] for one in rows}[setting] for _, _, _, name, rows in answer.resources}
        assert time.monotonic() < until, answer
        await asyncio.sleep(0.1)


async def test_with_three_copies_acknowledged_means_that_two_brokers_have_it(tmp_path, prefix):
    with Cluster(tmp_path) as cluster:
        config = settings.parse(
            f'[kafka]\nbrokers = "{cluster.brokers}"\nprefix = "{prefix}"\npartitions = 2\nreplication = 3', "here"
        )
        created = await topics.apply(config)
        async with administrator(cluster.brokers) as admin:
            found = await told(admin, created, "min.insync.replicas")
        assert found == dict.fromkeys(created, "2")
        assert topics.names(config).changelog("seen") in created

        producer = AIOKafkaProducer(bootstrap_servers=cluster.brokers, acks="all", request_timeout_ms=8000)
        await producer.start()
        try:
            cluster.nodes[0].kill()
            await producer.send_and_wait(topics.names(config).events, b"two have it", partition=0)
            cluster.nodes[1].kill()
            with pytest.raises(KafkaError):
                await producer.send_and_wait(topics.names(config).events, b"only one has it", partition=0)
        finally:
            await producer.stop()


# -- a full disk


class Small(Kafka):
    """A Kafka whose folder is a file system of its own. Killed, it is only that the disk is full."""

    size = 96  # MB

    def __init__(self, folder):
        folder.mkdir()
        mount(folder, self.size)
        super().__init__(folder)
        self.collector = self.key = ""
        self.said, self.exit_code, self.answer = "", None, 0

    def kill(self):
        if self.answer:
            super().kill()
            return
        fill(self.folder / "filler")
        process, until = self._process, time.monotonic() + 30
        assert process is not None
        while process.poll() is None and time.monotonic() < until:
            time.sleep(0.05)
        self.exit_code = process.poll()
        self.said = self.log.read_text(errors="replace")
        self.answer = self._post()
        super().kill()

    def _post(self):
        """What the collector answers to a good event now."""
        body = {"event_name": "page_view", "event_id": "while-it-was-full", "time": int(time.time() * 1000)}
        headers = {"Authorization": f"Bearer {self.key}", "User-Agent": "Mozilla/5.0"}
        connection = http.client.HTTPConnection(self.collector.removeprefix("http://"), timeout=30)
        connection.request("POST", "/v1/events", json.dumps(body), headers)
        return connection.getresponse().status

    def start(self, progress=None):
        (self.folder / "filler").unlink(missing_ok=True)
        super().start(progress)


def fill(path):
    """Take all the space that is left."""
    with path.open("ab", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))


@pytest.fixture
def small(monkeypatch, tmp_path):
    """The harness's Kafkas will be small ones."""
    made = []

    def make(folder):
        made.append(Small(folder))
        return made[0]

    try:
        mount(tmp_path, 1)
    except subprocess.CalledProcessError as exc:
        pytest.skip(f"mounting a small file system is not permitted here: {exc.stderr.decode().strip()}")
    unmount(tmp_path)
    monkeypatch.setattr(run, "Kafka", make)
    yield made
    for kafka in made:
        Kafka.kill(kafka)
        unmount(kafka.folder)


def mount(folder, size):
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}m", "capistream-test", str(folder)]
    subprocess.run(command, check=True, capture_output=True)


def unmount(folder):
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_refuses_and_what_was_acknowledged_arrives_when_there_is_space_again(small, monkeypatch):
    monkeypatch.setattr(harness, "plan", lambda *_: [Step(5, "broker-kill", 1), Step(14, "kill", 2)])
    said: list[str] = []

    class Run(harness.Run):
        async def _under_load(self):
            small[0].collector = self.demo.addresses["collector"]
            small[0].key = self.demo.addresses["write_key"]
            return await super()._under_load()

    monkeypatch.setattr(harness, "Run", Run)
    verdict, this = harness.one_run(206, 30, said.append)

    assert verdict.good, (verdict.bad, said, this.folder)
    assert verdict.conversions > 500
    assert "No space left on device" in small[0].said
    assert small[0].exit_code not in (None, 0)
    assert small[0].answer == 503
    assert any(not attempt.acknowledged for one in this.oracle.conversions.values() for attempt in one.attempts)
