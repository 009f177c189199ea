"""`capistream doctor` as people run it: the command, on a Kafka that is there, stands still or is away."""

import asyncio
import socket
import time
from typing import Any

import orjson
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from click.testing import CliRunner

from app import acls, doctor, topics
from app.cli import main
from app.doctor import Examination
from app.doctor.finding import ok
from app.doctor.place import Place
from app.errors import SettingsError, Unavailable
from app.kafka import Kafka
from tests.app.conftest import Place as Commands
from tests.app.doctor.facts import settings
from tests.secured import password_of

TOO_LONG = 60.0  # seconds that the command may take, whatever is away


def told(result: Any) -> dict[str, tuple[str, str]]:
    """What -> (state, detail) of the findings that are not ok."""
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    findings = orjson.loads(result.stdout)["findings"]
    assert all(one["remedy"] for one in findings if one["state"] != "ok")
    return {one["what"]: (one["state"], one["detail"]) for one in findings if one["state"] != "ok"}


@pytest.fixture
def secrets(monkeypatch):
    monkeypatch.setenv("NOBODY_SETS_THIS", "s3cret-shop-key")
    monkeypatch.setenv("ADS_TOKEN", "s3cret-ads-token")
    monkeypatch.setenv("STATS_SECRET", "s3cret-stats-secret")


def test_without_kafka_it_says_so_and_looks_at_the_rest(tmp_path, secrets):
    place = Commands("127.0.0.1:1", "t", tmp_path)
    place.path.write_text(place.path.read_text() + f'\n[worker]\ndata_dir = "{tmp_path}"\n')

    result = place.run("doctor", "--json")

    found = told(result)
    assert result.exit_code == 1
    assert found["kafka.brokers"] == ("problem", "no Kafka can be reached: 127.0.0.1:1: Connection refused")
    assert found["Topics"] == ("warning", "not looked at: no Kafka can be reached at 127.0.0.1:1")
    assert found["destinations.ads"] == ("problem", "127.0.0.1: no answer: ClientConnectorError")
    assert "worker.data_dir" not in found
    assert "s3cret" not in result.output


def test_a_configuration_that_does_not_load_is_told_as_a_whole(tmp_path):
    (tmp_path / "capistream.toml").write_text("[kafka]\npartitions = 0\nnonsense = 1\n")

    result = CliRunner().invoke(main, ["doctor", "--config", str(tmp_path / "capistream.toml")])

    assert result.exit_code == 1
    assert "kafka.partitions" in result.stdout
    assert "kafka.nonsense" in result.stdout
    assert result.stdout.splitlines()[-1] == "2 problems, 0 warnings"


# One check, and what becomes of it


async def within(check: Any, seconds: float = 5.0) -> Any:
    (found,) = await doctor._within(Examination("Area", "it", check, seconds), Place(settings(), 0.0), lambda: None)
    return found.state, found.what, found.detail


async def test_a_check_that_hangs_is_a_problem():
    async def hangs(_: Place) -> Any:
        await asyncio.Event().wait()

    assert await within(hangs, 0.05) == ("problem", "it", "timed out after 0 s")


async def test_a_check_that_fails_is_told_and_keeps_no_other_from_its_word():
    async def fails(_: Place) -> Any:
        raise KeyError("s3cret")

    assert await within(fails) == ("warning", "it", "this check itself failed: KeyError")


async def test_a_check_that_needs_what_is_away_is_not_made():
    async def away(_: Place) -> Any:
        raise Unavailable("Kafka does not answer")

    assert await within(away) == ("warning", "Area", "not looked at: Kafka does not answer")


async def test_a_setting_by_which_it_cannot_be_made_is_a_problem():
    async def refused(_: Place) -> Any:
        raise SettingsError(["kafka.sasl.password: wrong"])

    assert await within(refused) == ("problem", "it", "kafka.sasl.password: wrong")


def test_a_secret_that_somebody_put_into_words_is_taken_out():
    assert doctor._without(["s3cret"], ok("it", "a s3cret b")).detail == "a MASKED b"


# On Kafka


@pytest.mark.fault
def test_what_is_broken_is_named(place, tmp_path, secrets):
    (tmp_path / "state").write_text("")
    place.path.write_text(place.path.read_text() + f'\n[worker]\ndata_dir = "{tmp_path}/state"\n')
    to = f"{place.prefix}.to.ads"
    asyncio.run(_break(place, to))

    result = place.run("doctor", "--json")

    found = told(result)
    assert result.exit_code == 1
    assert {what for what, (state, _) in found.items() if state == "problem"} == {
        "worker.data_dir",
        f"topic {to}",
        f"topic {place.prefix}.events",
        f"topic {place.prefix}-orders",
        "destinations.ads",
        "destinations.stats",
    }
    assert found["worker.data_dir"][1].endswith("it is no folder")
    assert "has 3 partitions, should have 2" in found[f"topic {to}"][1]
    assert "retention.ms is 1 min, should be 3 d" in found[f"topic {place.prefix}.events"][1]
    assert "1,000 records past its end" in found[f"topic {place.prefix}-orders"][1]
    assert "no answer" in found["destinations.stats"][1]
    assert "s3cret" not in result.output


async def _break(place: Commands, to: str) -> None:
    """A topic gets another partition, another one a shorter life, and the group an offset that is not there yet."""
    admin = AIOKafkaAdminClient(bootstrap_servers=place.brokers)
    await admin.start()
    try:
        events = next(topic for topic in topics.plan(place.config) if topic.name == f"{place.prefix}.events")
        short = {
            **events.config,
            "retention.ms": "60000",
        }  # all of them: what is left out here falls back to its default
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, events.name, short)])
        await admin.create_partitions({to: NewPartitions(3)})
        # the broker hears of changes in their order, and a moment later
        while len((await admin.describe_topics([to]))[0]["partitions"]) < 3:  # noqa: ASYNC110 (Kafka sets no event)
            await asyncio.sleep(0.05)
    finally:
        await admin.close()
    consumer = AIOKafkaConsumer(bootstrap_servers=place.brokers, group_id=place.prefix, enable_auto_commit=False)
    await consumer.start()
    try:
        tp = TopicPartition(f"{place.prefix}-orders", 0)
        consumer.assign([tp])
        await consumer.commit({tp: 1000})
    finally:
        await consumer.stop()


LOGIN = """
[kafka.sasl]
mechanism = "SCRAM-SHA-512"
user = "{user}"
password = {{ env = "KAFKA_PASSWORD" }}
"""


@pytest.mark.fault
def test_a_kafka_that_does_not_let_us_in_is_told_once_with_the_setting(secured, prefix, tmp_path, secrets, monkeypatch):
    monkeypatch.setenv("KAFKA_PASSWORD", "s3cret-and-wrong")
    place = Commands(secured.at("SASL_PLAINTEXT"), prefix, tmp_path)
    place.path.write_text(place.path.read_text() + LOGIN.format(user="worker"))

    result = place.run("doctor", "--json")

    found = told(result)
    assert found["kafka"][0] == "problem"
    assert found["kafka"][1].startswith("kafka.sasl.password: ")
    assert found["Topics"] == ("warning", "not looked at: Kafka does not let us in")
    assert "s3cret" not in result.output


@pytest.mark.fault
def test_what_kafka_does_not_allow_is_told_with_what_grants_it(secured, prefix, tmp_path, secrets, monkeypatch):
    asyncio.run(Commands(secured.brokers, prefix, tmp_path).create())
    monkeypatch.setenv("KAFKA_PASSWORD", password_of("stranger"))
    place = Commands(secured.at("SASL_PLAINTEXT"), prefix, tmp_path)
    place.path.write_text(place.path.read_text() + LOGIN.format(user="stranger"))

    state, detail = told(place.run("doctor", "--json"))["access"]

    assert state == "problem"
    assert detail.startswith("User:stranger may not do what a ")


@pytest.mark.fault
def test_who_may_what_acls_prints_and_no_more_finds_no_problem_in_kafka(
    secured, prefix, tmp_path, secrets, monkeypatch
):
    asyncio.run(Commands(secured.brokers, prefix, tmp_path).create())
    monkeypatch.setenv("KAFKA_PASSWORD", password_of("worker"))
    place = Commands(secured.at("SASL_PLAINTEXT"), prefix, tmp_path)
    place.path.write_text(place.path.read_text() + LOGIN.format(user="worker"))
    for role in ("worker", "collector"):
        asyncio.run(secured.grant("User:worker", acls.needed(place.config, role)))

    found = told(place.run("doctor", "--json"))

    problems = {what for what, (state, _) in found.items() if state == "problem"}
    assert problems == {"destinations.ads", "destinations.stats"}, "no platform answers here, and all else is well"
    assert "does not show us its settings" in " ".join(detail for _, detail in found.values())


@pytest.mark.fault
def test_what_listens_and_says_nothing_holds_nothing_up(tmp_path, secrets):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        place = Commands(f"127.0.0.1:{silent.getsockname()[1]}", "t", tmp_path)
        begun = time.monotonic()

        found = told(place.run("doctor", "--json"))

    assert found["kafka.brokers"][0] == "problem"
    assert "something listens there" in found["kafka.brokers"][1]
    assert found["destinations.ads"][0] == "problem"
    assert time.monotonic() - begun < TOO_LONG


@pytest.mark.fault
@pytest.mark.long
def test_a_kafka_that_stands_still_holds_nothing_up(tmp_path, prefix, secrets):
    with Kafka(tmp_path / "kafka") as kafka:
        place = Commands(kafka.brokers, prefix, tmp_path)
        asyncio.run(place.create())
        kafka.pause()
        begun = time.monotonic()

        result = place.run("doctor", "--json")

        took = time.monotonic() - begun
        kafka.resume()

    found = told(result)
    assert result.exit_code == 1
    assert found["kafka.brokers"][0] == "problem"
    assert found["destinations.ads"][0] == "problem"
    assert took < TOO_LONG
