"""app/acls.py: what has to be allowed, as data and as commands. That it suffices: tests/system/test_secured.py."""

import asyncio
import shlex

import orjson
import pytest
from click.testing import CliRunner

from app import acls, topics
from app.acls import Acl
from app.cli import main
from app.errors import SettingsError
from app.settings import Settings, parse
from tests.app.conftest import CONFIG
from tests.secured import Authority, password_of
from tests.system.conftest import eventually

OFF = "create_topics = false"
BEARER = """
[kafka.tls]
[kafka.sasl]
mechanism = "OAUTHBEARER"
[kafka.sasl.token]
provider = "oauth"
url = "https://login.example"
client_id = "c"
client_secret = { env = "S" }
"""


def config(*more: str, login: str = "") -> Settings:
    text = CONFIG.format(brokers="kafka:9093", prefix="c", endpoint="http://127.0.0.1:1")
    text = text.replace("[kafka]", "\n".join(["[kafka]", *more]))
    return parse(text + login)


def test_a_worker_has_its_own_topics_by_their_prefix_and_may_only_read_sources():
    assert acls.needed(config(OFF)) == [
        Acl("topic", "c-", True, ("Read", "Write")),
        Acl("topic", "c-orders", False, ("Read",)),
        Acl("topic", "c.", True, ("Read", "Write")),
        Acl("topic", "c.to.", True, ("Delete",)),
        Acl("group", "c", False, ("Read",)),
    ]


def test_a_collector_can_write_three_topics_and_read_nothing():
    assert acls.needed(config(OFF), "collector") == [
        Acl("topic", name, False, ("Write",)) for name in ("c.dead", "c.events", "c.people")
    ]


def test_a_collector_with_a_spool_tells_the_logs_clock_to_wait():
    granted = acls.needed(config(OFF, login='\n[collector]\nspool = "/spool"'), "collector")

    assert Acl("topic", "c.clock", False, ("Write",)) in granted


@pytest.mark.parametrize("role", ["collector", "worker"])
def test_only_who_may_create_topics_is_granted_it(role):
    def creates(*more: str) -> set[str]:
        return {acl.name for acl in acls.needed(config(*more), role) if "Create" in acl.operations}

    assert creates(OFF) == set()
    assert creates() == ({"c-", "c."} if role == "worker" else {"c.dead", "c.events", "c.people"})


def test_who_looks_changes_nothing():
    granted = {operation for acl in acls.needed(config(), "view") for operation in acl.operations}

    assert granted == {"Read", "Describe"}


def test_an_operator_makes_topics_and_sets_what_they_keep():
    (ours,) = (acl for acl in acls.needed(config(OFF), "operator") if acl.name == "c.")

    assert ours.operations == ("Read", "Write", "Create", "Describe", "DescribeConfigs", "AlterConfigs")


def test_everything_that_a_role_does_is_granted_to_it():
    for role in acls.ROLES:
        granted = acls.needed(config(), role)
        for topic, operations in acls.wanted(config(), role).items():
            by = [acl for acl in granted if acl.name == topic or (acl.prefixed and topic.startswith(acl.name))]
            assert operations <= {operation for acl in by for operation in acl.operations}, (role, topic)


def test_a_worker_does_something_with_every_topic_of_ours():
    assert {topic.name for topic in topics.plan(config())} <= acls.wanted(config(), "worker").keys()


@pytest.mark.parametrize(
    ("login", "who"),
    [
        ('[kafka.sasl]\nmechanism = "SCRAM-SHA-512"\nuser = "me"\npassword = { env = "P" }', "User:me"),
        (BEARER, "User:NAME"),
        ("[kafka.tls]", "User:ANONYMOUS"),
        ('[kafka.tls]\ncertificate = "/nowhere.pem"', "User:NAME"),
        ("", "User:ANONYMOUS"),
    ],
)
def test_the_principal_is_who_logs_in(login, who):
    assert acls.principal(config(login=login)) == who


def test_the_principal_of_a_certificate_is_its_name(tmp_path):
    certificate, _ = Authority(tmp_path).issue("worker-1")

    assert acls.principal(config(login=f'[kafka.tls]\ncertificate = "{certificate}"')) == "User:CN=worker-1"


def test_commands_are_for_the_shell():
    (line,) = acls.commands([Acl("topic", "c.", True, ("Read", "Write"))], "User:CN=a b", "kafka:9093")

    assert line == (
        "kafka-acls.sh --bootstrap-server kafka:9093 --command-config admin.properties --add --allow-principal 'User:CN=a b' "
        "--operation Read --operation Write --topic c. --resource-pattern-type prefixed"
    )


def test_the_command_prints_what_each_role_needs_and_who_it_is(tmp_path):
    path = tmp_path / "capistream.toml"
    path.write_text(CONFIG.format(brokers="kafka:9093", prefix="c", endpoint="http://127.0.0.1:1"))

    def run(*options: str) -> str:
        result = CliRunner().invoke(main, ["topics", "acls", "--config", str(path), *options])
        assert result.exit_code == 0, result.output
        return result.stdout

    lines = run().splitlines()
    assert [line for line in lines if line.startswith("#")] == ["# collector", "# worker"]
    assert all(shlex.split(line)[0] == "kafka-acls.sh" for line in lines if not line.startswith("#"))
    (said,) = (orjson.loads(line) for line in run("--role", "view", "--json").splitlines() if '"group"' in line)
    acl = {"resource": "group", "name": "c", "prefixed": False, "operations": ["Describe"]}
    assert said == {"role": "view", "principal": "User:ANONYMOUS", **acl}
    assert "--allow-principal User:other" in run("--principal", "User:other")


# on Kafka


def test_where_nobody_asks_who_we_are_nothing_is_missing(place):
    for role in acls.ROLES:
        assert asyncio.run(acls.missing(place.config, role)) == []


@pytest.mark.fault
async def test_what_kafka_does_not_allow_is_found_before_it_is_needed(secured, prefix, monkeypatch):
    text = CONFIG.format(brokers=secured.brokers, prefix=prefix, endpoint="http://127.0.0.1:1")
    text = "[".join(part for part in text.split("[") if not part.startswith("sources."))
    await topics.apply(parse(text))
    monkeypatch.setenv("PASSWORD", password_of("collector"))
    login = '\n[kafka.sasl]\nmechanism = "SCRAM-SHA-512"\nuser = "collector"\npassword = { env = "PASSWORD" }'
    ours = parse(text.replace(secured.brokers, secured.at("SASL_PLAINTEXT")) + login)
    events, dead, people = (f"{prefix}.{name}" for name in ("events", "dead", "people"))
    granted = [Acl("topic", events, False, ("Write",)), Acl("topic", dead, False, ("Read",))]
    await secured.grant("User:collector", [*granted, Acl("group", prefix, False, ("Describe",))])

    async def as_granted() -> bool:  # the broker hears of grants a moment after their answer
        return await acls.missing(ours, "collector") == [Acl("topic", one, False, ("Write",)) for one in (dead, people)]

    await eventually(as_granted, "the grants")
    assert Acl("group", prefix, False, ("Read",)) in await acls.missing(ours, "worker"), "to look is not to join"
    with pytest.raises(SettingsError) as caught:
        await acls.must_suffice(ours, "collector")
    assert str(caught.value) == (
        f"Kafka does not let User:collector do what a collector does: Write topic {dead}, {people}. "
        "`capistream topics acls` prints what grants it"
    )
