"""app/bus.py: clients connect as the settings say, with what is there when they do; and who is not let in learns why."""

import asyncio
import time
from functools import partial
from pathlib import Path
from typing import Any, Literal

import orjson
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaConnectionError, TopicAuthorizationFailedError
from click.testing import CliRunner
from structlog.testing import capture_logs

from app import bus, processes, topics
from app.bearer import BUILT_IN, Token, TokenProvider, Tokens
from app.cli import main
from app.errors import SettingsError, Unavailable
from app.settings import Settings, parse
from app.why_not import NotLetIn
from tests.secured import Authority, Secured, password_of

SCRAM = 'mechanism = "SCRAM-SHA-512"\nuser = "stranger"\npassword = { env = "PASSWORD" }'
TOKEN = 'mechanism = "OAUTHBEARER"\ntoken = { provider = "unsigned" }'


class Unsigned(TokenProvider):
    """As Kafka takes them where nothing is configured: https://www.rfc-editor.org/rfc/rfc7515#appendix-A.5."""

    provider: Literal["unsigned"] = "unsigned"
    life: float = 600.0

    async def token(self) -> Token:
        asked.append(self.life)
        end = int(time.time() + self.life)
        parts = ({"alg": "none"}, {"sub": "stranger", "iat": int(time.time()) - 1, "exp": end})
        return Token("".join(f"{b64(part)}." for part in parts), end)


def b64(part: Any) -> str:
    from base64 import urlsafe_b64encode

    return urlsafe_b64encode(orjson.dumps(part)).decode().rstrip("=")


asked: list[float] = []


@pytest.fixture(autouse=True)
def _providers(monkeypatch):
    monkeypatch.setattr("app.settings.PROVIDERS", {**BUILT_IN, "unsigned": Unsigned})
    monkeypatch.setenv("PASSWORD", password_of("stranger"))
    bus._bus.cache_clear()
    asked.clear()


def config(brokers: str, sasl: str = "", tls: str | None = None) -> Settings:
    text = f'[kafka]\nbrokers = "{brokers}"\n'
    text += "" if tls is None else f"[kafka.tls]\n{tls}\n"
    return parse(text + (f"[kafka.sasl]\n{sasl}\n" if sasl else ""))


async def start(settings: Settings) -> None:
    admin = bus.of(settings).admin()
    try:
        await admin.start()
        await admin.list_topics()
    finally:
        await admin.close()


# ways in


@pytest.mark.fault
@pytest.mark.parametrize(
    "sasl", [SCRAM, SCRAM.replace("SCRAM-SHA-512", "PLAIN"), TOKEN], ids=["scram", "plain", "token"]
)
async def test_who_logs_in_over_tls_is_let_in(secured, sasl):
    await start(config(secured.at("SASL_SSL"), sasl, f'ca = "{secured.authority.ca}"'))


@pytest.mark.fault
async def test_who_logs_in_without_tls_is_let_in(secured):
    await start(config(secured.at("SASL_PLAINTEXT"), SCRAM))


@pytest.mark.fault
async def test_who_has_a_certificate_is_let_in(secured):
    certificate, key = secured.authority.issue("stranger", password="secret")
    tls = f'ca = "{secured.authority.ca}"\ncertificate = "{certificate}"\nkey = "{key}"\nkey_password = {{ env = "PASSWORD" }}'

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PASSWORD", "secret")
        await start(config(secured.at("SSL"), tls=tls))


# why not


@pytest.fixture(scope="module")
def stranger(tmp_path_factory):
    """An authority that nobody knows."""
    return Authority(tmp_path_factory.mktemp("stranger"), "stranger")


@pytest.mark.fault
@pytest.mark.parametrize(
    ("listener", "sasl", "tls", "said"),
    [
        (
            "SASL_SSL",
            SCRAM.replace("PASSWORD", "HOME"),
            "ours",
            "kafka.sasl.password: {at} does not let stranger in: it is wrong",
        ),
        (
            "SASL_SSL",
            SCRAM.replace("512", "256"),
            "ours",
            "kafka.sasl.mechanism: {at} takes OAUTHBEARER, PLAIN, SCRAM-SHA-512",
        ),
        (
            "SASL_SSL",
            TOKEN.replace('unsigned"', 'unsigned", life = -9'),
            "ours",
            "kafka.sasl.token: {at} does not take its token",
        ),
        ("SASL_SSL", SCRAM, "theirs", "kafka.tls.ca: whoever signed the certificate of {at} is not known by {ca} ("),
        ("SASL_SSL", SCRAM, "", "kafka.tls.ca: whoever signed the certificate of {at} is not known to this system ("),
        ("PLAINTEXT", SCRAM, None, "kafka.sasl: {at} wants no log-in"),
    ],
)
async def test_a_mistake_of_the_settings_is_named_at_once(secured, stranger, listener, sasl, tls, said):
    at = secured.at(listener) if listener in secured.listeners else secured.brokers
    ca = {"ours": secured.authority.ca, "theirs": stranger.ca}.get(tls or "", "")
    settings = config(at, sasl, (tls and f'ca = "{ca}"') or tls)

    with pytest.raises(NotLetIn) as caught:
        async with topics.administrator(settings):
            pass

    assert str(caught.value).startswith(said.format(at=at, ca=ca))
    assert len(caught.value.mistakes) == 1
    assert password_of("stranger") not in str(caught.value)


@pytest.mark.fault
async def test_a_host_that_the_certificate_does_not_name_is_named_unless_nobody_looks(secured):
    at, ca = secured.at("SASL_SSL").replace("127.0.0.1", "localhost"), f'ca = "{secured.authority.ca}"'

    with pytest.raises(NotLetIn, match=r"^kafka\.brokers: localhost:\d+ shows a certificate of another host"):
        await start(config(at, SCRAM, ca))
    await start(config(at, SCRAM, f"{ca}\ncheck_hostname = false"))


@pytest.mark.fault
@pytest.mark.parametrize(
    ("listener", "sasl", "tls", "hint"),
    [
        ("SSL", "", "ca", "does it want a certificate of ours (kafka.tls.certificate)"),
        ("SASL_SSL", "", "ca", "it may want a log-in ([kafka.sasl])"),
        ("SASL_SSL", SCRAM, None, "does this port want TLS ([kafka.tls])?"),
        ("SASL_PLAINTEXT", SCRAM, "ca", "or speak no TLS at all?"),
    ],
)
async def test_a_broker_that_hangs_up_without_a_word_may_mean_something(secured, listener, sasl, tls, hint):
    settings = config(secured.at(listener), sasl, tls and f'ca = "{secured.authority.ca}"')

    with pytest.raises(Unavailable) as caught:
        async with topics.administrator(settings, patience=0):
            pass

    assert f"{secured.at(listener)}: it hangs up: " in str(caught.value)
    assert hint in str(caught.value)


async def test_nobody_there_is_said_of_each_broker():
    settings = config("127.0.0.1:1,no-such-host.invalid:9092")

    with pytest.raises(
        KafkaConnectionError, match=r"127\.0\.0\.1:1: nobody listens there; no-such-host\.invalid:9092: "
    ):
        await start(settings)


async def test_a_client_with_patience_begins_when_the_broker_is_there(kafka):
    port = processes.free_port()
    there = bus.of(config(f"127.0.0.1:{port}"))
    client = AIOKafkaProducer(bootstrap_servers=there.brokers)
    there.attend(client.client, patience=30)

    with capture_logs() as said:
        starting = asyncio.create_task(client.start())
        while not [one for one in said if one["event"] == "kafka.awaited"]:  # noqa: ASYNC110 (a log sets no event)
            await asyncio.sleep(0.01)
        async with await asyncio.start_server(partial(_forward, kafka.brokers), "127.0.0.1", port):
            await starting
            await client.stop()

    assert "nobody listens there" in said[0]["why"]


async def _forward(to: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    there, back = await asyncio.open_connection(*to.split(":"))

    async def pour(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while data := await source.read(65_536):
            target.write(data)
        target.close()

    await asyncio.gather(pour(reader, back), pour(there, writer))


async def test_a_command_says_why_in_a_line_of_its_own_and_nothing_else(tmp_path, caplog):
    with pytest.raises(Unavailable) as caught:
        async with topics.administrator(config("127.0.0.1:1"), patience=0):
            pass

    assert "127.0.0.1:1: nobody listens there" in str(caught.value)
    assert not [record for record in caplog.records if record.name == "aiokafka"]


def test_what_is_not_granted_is_a_mistake_with_its_remedy_and_the_rest_may_pass():
    forbidden = bus.problem(TopicAuthorizationFailedError("shop.orders"), "Kafka does not take records")

    assert isinstance(forbidden, SettingsError)
    assert "shop.orders" in str(forbidden)
    assert "`capistream topics acls`" in str(forbidden)
    assert isinstance(bus.problem(KafkaConnectionError("?"), "Kafka does not answer"), Unavailable)


# what is there when a connection is made


def test_a_password_that_was_replaced_is_used_for_the_next_connection(tmp_path):
    file = tmp_path / "password"
    file.write_text("old\n")
    sasl = SCRAM.replace('env = "PASSWORD"', f'file = "{file}"')

    async def run() -> None:
        client = bus.of(config("127.0.0.1:1", sasl)).producer().client
        assert client._sasl_plain_password == "old"
        file.write_text("new\n")
        assert client._sasl_plain_password == "new"
        file.unlink()
        assert client._sasl_plain_password == "new", "rather the last one than none"

    asyncio.run(run())


def test_a_certificate_that_was_replaced_is_used_for_the_next_connection_and_a_broken_one_is_not(tmp_path):
    authority = Authority(tmp_path)
    certificate, key = authority.issue("worker")
    one = bus.of(config("127.0.0.1:1", tls=f'ca = "{authority.ca}"\ncertificate = "{certificate}"\nkey = "{key}"'))

    first = one.tls()
    assert one.tls() is first
    authority.issue("worker")
    second = one.tls()
    assert second is not first
    certificate.write_text("half")
    assert one.tls() is second


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"ca": "/nowhere.pem"}, "kafka.tls.ca: /nowhere.pem: No such file or directory"),
        ({"ca": __file__}, f"kafka.tls.ca: {__file__}: no PEM in it that could be used"),
        ({"certificate": "/nowhere.pem"}, "kafka.tls.certificate: /nowhere.pem: No such file or directory"),
        ({"key": "/nowhere.key"}, "kafka.tls.key: /nowhere.key: No such file or directory"),
        ({"key": "OTHER"}, "kafka.tls.key: does not belong to kafka.tls.certificate"),
        ({"key": "LOCKED"}, "kafka.tls.key_password: missing: the private key is encrypted"),
        (
            {"key": "LOCKED", "key_password": '{ env = "PASSWORD" }'},
            "kafka.tls.key_password: does not open the private key",
        ),
    ],
)
async def test_a_file_that_cannot_be_used_is_named(tmp_path, change, said):
    authority = Authority(tmp_path)
    certificate, key = authority.issue("worker")
    keys = {"OTHER": authority.issue("other")[1], "LOCKED": authority.issue("locked", password="secret")[1]}
    if change.get("key") == "LOCKED":
        certificate = tmp_path / "locked.pem"
    found = {"ca": authority.ca, "certificate": certificate, "key": key} | change
    lines = [
        f"{name} = {value}" if str(value).startswith("{") else f'{name} = "{keys.get(value, value)}"'
        for name, value in found.items()
    ]

    with pytest.raises(SettingsError) as caught:
        bus.of(config("127.0.0.1:1", tls="\n".join(lines))).admin()

    assert caught.value.mistakes == [said]


def test_config_check_reads_the_files_too(tmp_path):
    path = tmp_path / "capistream.toml"
    path.write_text('[kafka.tls]\nca = "/nowhere.pem"')

    result = CliRunner().invoke(main, ["config", "check", "--config", str(path)])

    assert (result.exit_code, result.stderr) == (1, "kafka.tls.ca: /nowhere.pem: No such file or directory\n")


# tokens


async def test_a_token_serves_all_connections_until_most_of_its_life_is_over(monkeypatch):
    tokens = Tokens(Unsigned(life=100.0))
    first = await tokens.token()

    assert await tokens.token() == first
    monkeypatch.setattr("app.bearer.time.time", lambda: time.monotonic() + 4e9)
    await tokens.token()
    assert len(asked) == 2


class Failing(Unsigned):
    async def token(self) -> Token:
        if asked:
            raise Unavailable("away")
        return await super().token()


async def test_a_token_that_is_still_good_helps_over_a_provider_that_is_away(monkeypatch):
    tokens = Tokens(Failing(life=100.0))
    first, begin = await tokens.token(), time.time()

    monkeypatch.setattr("app.bearer.time.time", lambda: begin + 90)
    assert await tokens.token() == first
    monkeypatch.setattr("app.bearer.time.time", lambda: begin + 110)
    with pytest.raises(KafkaConnectionError, match="no token: away"):
        await tokens.token()


class Broken(Unsigned):
    async def token(self) -> Token:
        raise KeyError("secret")


async def test_a_mistake_of_a_provider_is_a_connection_that_failed_and_tells_no_secret():
    with pytest.raises(KafkaConnectionError, match=r"no token: KeyError$"):
        await Tokens(Broken()).token()


@pytest.mark.fault
async def test_a_producer_goes_on_when_its_token_and_with_it_its_connection_ends(secured, prefix):
    """The broker ends a connection with the life of its token: https://cwiki.apache.org/confluence/x/KSuTB (KIP-368)."""
    plain = config(secured.brokers)
    async with topics.administrator(plain) as admin:
        await topics.create(admin, [topics.Topic(prefix, "", "", "", 1)], 1)
    await secured.grant("User:stranger", [Right("topic", prefix, ("Write",))])
    settings = config(
        secured.at("SASL_SSL"), TOKEN.replace('unsigned"', 'unsigned", life = 2'), f'ca = "{secured.authority.ca}"'
    )

    async with bus.of(settings).producer(acks="all", enable_idempotence=True) as producer:
        until, sent = time.monotonic() + 6, 0
        while time.monotonic() < until:
            await producer.send_and_wait(prefix, b"%d" % sent)
            sent += 1
            await asyncio.sleep(0.05)

    assert len(asked) > 2
    async with AIOKafkaConsumer(prefix, bootstrap_servers=secured.brokers, auto_offset_reset="earliest") as consumer:
        values = [(await asyncio.wait_for(consumer.getone(), 10)).value for _ in range(sent)]
    assert values == [b"%d" % n for n in range(sent)]


class Right:
    """As app/acls.py has them."""

    def __init__(self, resource: str, name: str, operations: tuple[str, ...]) -> None:
        self.resource, self.name, self.operations, self.prefixed = resource, name, operations, False


# no topic by asking


@pytest.mark.fault
async def test_nothing_is_created_by_asking_for_it(secured: Secured, prefix: str):
    """On a broker that creates what it is asked for, as Kafka does by default."""
    settings = config(secured.brokers)
    async with bus.of(settings).consumer() as consumer:
        consumer.assign([TopicPartition(f"{prefix}-ours", 0)])
        await consumer._client.force_metadata_update()
    async with bus.of(settings).producer() as producer:
        await producer.client.add_topic(f"{prefix}-ours")
        await producer.client.force_metadata_update()
    async with topics.administrator(settings) as admin:
        await admin.describe_topics([f"{prefix}-ours"])
        assert await topics.look(admin, [f"{prefix}-ours"]) == ({}, set())

        async with AIOKafkaProducer(bootstrap_servers=secured.brokers) as stock:
            await stock.send_and_wait(f"{prefix}-stock", b"")
        assert (await topics.look(admin, [f"{prefix}-stock"]))[0], "the broker does not create what it is asked for"


def test_one_bus_for_the_same_settings(tmp_path: Path):
    assert bus.of(config("127.0.0.1:1", TOKEN)) is bus.of(config("127.0.0.1:1", TOKEN))
    assert bus.of(config("127.0.0.1:1")) is not bus.of(config("127.0.0.1:2"))
