"""docs/webhook.md says what sinks/webhook.py does: its blocks are read here, its code is run."""

import re
import time
import tomllib
from pathlib import Path
from typing import Any

import orjson
import pytest

from app.settings import parse
from sinks._base import Delivered, Halt, Payload, Rejected, Response, Retry
from sinks.webhook import Webhook
from tests.factories import make_event

PAGE = (Path(__file__).parent.parent / "docs" / "webhook.md").read_text()
SECRET = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX"


def block(language: str) -> str:
    (text,) = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return str(text)


@pytest.fixture
def sink():
    return Webhook(parse(block("toml")).destinations["crm"])


def requested(sink: Webhook, at: float) -> Any:
    keep = {"value", "currency", "transaction_id"}
    left_out = dict.fromkeys(name for name in make_event()["commerce"] if name not in keep)
    payload = sink.encode(make_event(commerce=left_out), "purchase")
    assert isinstance(payload, Payload)
    return sink.signed(sink.request([payload], {"secret": SECRET}), {"secret": SECRET}, at)


def receiver() -> Any:
    space: dict[str, Any] = {}
    exec(block("python"), space)  # noqa: S102 (our own page)
    return space["is_ours"]


def test_what_arrives_is_as_shown(sink):
    assert orjson.loads(requested(sink, 0.0).body) == orjson.loads(block("json"))


def test_the_receivers_code_knows_our_signature_from_others(sink):
    is_ours, request = receiver(), requested(sink, time.time())

    assert is_ours(request.headers, request.body, SECRET)
    assert not is_ours(request.headers, request.body + b" ", SECRET)
    assert not is_ours(request.headers, request.body, "whsec_AAAA")
    assert not is_ours({**request.headers, "webhook-id": "msg_1"}, request.body, SECRET)


def test_the_receivers_code_takes_no_request_that_somebody_kept(sink):
    request = requested(sink, time.time() - 400)

    assert not receiver()(request.headers, request.body, SECRET)


@pytest.mark.parametrize(
    ("said", "outcome"),
    [
        ("taken, all of them", Delivered),
        ("again later", Retry),
        ("the secret is not the same", Halt),
        ("the address is not right", Halt),
        ("one of them is bad", Rejected),
    ],
)
def test_the_table_of_answers_is_what_the_sink_makes_of_them(sink, said, outcome):
    (row,) = re.findall(rf"^\| ([^|]*) \| {said}", PAGE, re.MULTILINE)
    statuses = [
        int(one.replace("xx", "00").replace("other 4", "4")) for one in re.findall(r"other 4xx|\b\d[\dx]{2}\b", row)
    ]

    assert statuses
    for status in statuses:
        (found,) = sink.verdict([Payload("a", {})], Response(status, {}, b""))
        assert isinstance(found, outcome), status


def test_the_example_is_toml_of_one_destination():
    assert list(tomllib.loads(block("toml"))["destinations"]) == ["crm"]
