"""Secrets come from the environment or from files, and nothing that is written or shown has one: planted, and looked for."""

import io
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import orjson
import pytest
from click.testing import CliRunner

from app import cli, destinations, log
from app.delivery import Clock
from app.errors import SettingsError
from app.events import Json
from app.fields import Secret
from app.sending import Sender
from app.settings import parse
from sinks import BUILT_IN
from sinks._base import Halt, Payload, Request, Response
from sinks.samples import make_event
from sinks.webhook import Webhook
from tests.app.test_privacy import _toml
from tests.sinks.test_all import each_sink, sink_settings

PLANTED = "pl4nted+Secret/0f=all"
SITE = """
[sites.shop]
write_key = "wk_12345678"
secret_key = { env = "SHOP_KEY" }
"""


def secret_names(kind: str) -> list[str]:
    return [
        name
        for name, value in sink_settings(kind).items()
        if isinstance(value, dict) and value.keys() <= {"env", "file"}
    ]


def configuration(kind: str, **more: Any) -> str:
    told = "".join(f"{name} = {_toml(value)}\n" for name, value in (sink_settings(kind) | more).items())
    return f'{SITE}[destinations.it]\nbrowser_tag = "none"\n{told}'


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A file with the secret; the environment has it, too."""
    monkeypatch.setenv("SHOP_KEY", PLANTED)
    monkeypatch.setenv("PLANTED", PLANTED)
    path = tmp_path / "secret"
    path.write_text(PLANTED)
    return path


@each_sink
@pytest.mark.parametrize("how", ["env", "file"])
def test_no_command_shows_a_secret_of_any_sink(kind, how, planted, tmp_path):
    place = {"env": "PLANTED"} if how == "env" else {"file": str(planted)}
    config, events = tmp_path / "capistream.toml", tmp_path / "events.json"
    config.write_text(configuration(kind, **dict.fromkeys(secret_names(kind), place)))
    draft = {
        "event_name": "purchase", "event_id": "1", "user": {"email": "ada@example.com"}, "ids": {"ga_client_id": "1.2"},
        "commerce": {"transaction_id": "1", "value": 1.0, "currency": "EUR"},
        "consent": dict.fromkeys(("ad_storage", "analytics_storage", "ad_user_data"), "granted"),
    }  # fmt: skip
    events.write_text(json.dumps(draft))

    said = ""
    for command in (
        ["config", "check"],
        ["config", "privacy"],
        ["config", "privacy", "--json"],
        ["preview", str(events)],
        ["preview", "--json", str(events)],
        ["destinations", "test", "it"],
    ):
        # without a confirmation nothing is sent
        result = CliRunner().invoke(cli.main, [*command, "--config", str(config)], input="n\n")
        said += result.output + repr(result.exception)

    assert "it" in said
    assert PLANTED not in said


@each_sink
def test_neither_settings_nor_sink_show_a_secret(kind, planted):
    loaded = parse(configuration(kind, **{name: {"file": str(planted)} for name in secret_names(kind)}))
    sink = BUILT_IN[kind](loaded.destinations["it"])

    for shown in (repr(loaded), str(loaded), loaded.model_dump_json(), repr(sink), repr(vars(sink)), loaded.hash):
        assert PLANTED not in shown


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in sorted(BUILT_IN) for name in secret_names(kind)])
def test_a_literal_secret_is_a_mistake_that_says_how_to_write_it_and_does_not_quote_it(kind, name):
    with pytest.raises(SettingsError) as refused:
        parse(configuration(kind, **{name: PLANTED}))

    assert f'destinations.it.{name}: a secret is never in this file: write {{ env = "NAME" }}' in str(refused.value)
    assert PLANTED not in str(refused.value)


@pytest.mark.parametrize("literal", [PLANTED, "EAABsbCS1iHgBAKz", "sk_live_0123", "a b", ""])
def test_a_secret_written_as_the_name_of_a_variable_is_not_quoted_either(literal):
    with pytest.raises(SettingsError) as refused:
        parse(configuration("meta", access_token={"env": literal}))

    assert "the name of an environment variable" in str(refused.value)
    assert not literal or literal not in str(refused.value)


def test_an_address_with_a_password_is_a_mistake_and_does_not_quote_it():
    with pytest.raises(SettingsError) as refused:
        parse(configuration("webhook", endpoint="https://me:s3cret-word@hooks.example.com/x"))

    assert "a secret is never in this file" in str(refused.value)
    assert "s3cret-word" not in str(refused.value)


def test_a_file_is_read_again_each_time(planted):
    secret = Secret(file=planted)
    assert secret.read() == PLANTED

    planted.write_text("renewed\n")

    assert secret.read() == "renewed"


@pytest.mark.parametrize("content", [b"", b" \n", b"\xff" + PLANTED.encode()])
def test_a_file_that_holds_none_is_named_and_not_quoted(planted, content):
    planted.write_bytes(content)

    with pytest.raises(SettingsError, match="secret file") as refused:
        Secret(file=planted).read()

    assert PLANTED not in repr(refused.value) + repr(refused.value.__cause__)


class Quoting(Webhook):
    """A sink with a mistake: what it raises quotes its secret."""

    def request(self, batch: Sequence[Payload], secrets: Mapping[str, str]) -> Request:
        raise ValueError(f"{secrets['secret']} {batch}")

    def verdict(self, batch: Sequence[Payload], response: Response) -> Any:
        raise KeyError(f"{batch} {response}")


async def attempt(secret: Path, planted_event: Json) -> tuple[Any, str]:
    """What comes of it, and what is logged."""
    one = parse(configuration("webhook", secret={"file": str(secret)})).destinations["it"]
    sink = Quoting(one)

    async def nothing() -> Any:
        raise AssertionError("nothing is sent")

    sender = Sender("it", one, sink, None, nothing, Clock())  # type: ignore[arg-type]
    stream = io.StringIO()
    handler = log.handler(stream, json=True)
    logging.getLogger().addHandler(handler)
    try:
        (outcome,) = (await sender.attempt([Payload("1", planted_event)], _may_go)).outcomes
    finally:
        logging.getLogger().removeHandler(handler)
    return outcome, stream.getvalue()


async def _may_go() -> None:
    pass


async def test_an_exception_of_a_sink_that_quotes_its_secret_or_an_event_shows_neither(planted):
    event: Json = {"user": make_event()["user"], "ip": "203.0.113.77"}

    outcome, said = await attempt(planted, event)

    assert outcome == Halt("the sink made no request: ValueError")
    assert PLANTED not in said
    assert "203.0.113.77" not in said


async def test_a_secret_that_no_header_can_hold_halts_its_destination_and_is_not_quoted(planted):
    planted.write_text(f"{PLANTED}\nmore")

    outcome, said = await attempt(planted, {})

    assert outcome == Halt("no secret: secret has a line break or another character that no header can hold")
    assert PLANTED not in said + repr(outcome)


def test_the_hash_of_a_configuration_does_not_hang_on_its_secrets(planted, monkeypatch):
    text = configuration("meta", access_token={"env": "PLANTED"})
    before = parse(text).hash

    monkeypatch.setenv("PLANTED", "another")

    assert parse(text).hash == before


@pytest.mark.parametrize("written", [str, quote, quote_plus, lambda text: orjson.dumps(text).decode()[1:-1]])
def test_an_answer_that_quotes_a_secret_is_shown_without_it_in_any_spelling(written):
    secret = PLANTED + ' "x"'

    shown = destinations.masked(f"no such token: {written(secret)}!", [secret])

    assert shown == "no such token: MASKED!"
