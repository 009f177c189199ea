"""app/registry.py against a real HTTP server: fetched once, held while it is away, believed only in its own words."""

import asyncio
import base64
import ssl
import struct
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from app import registry, schemas
from app.errors import BadEvent, Unavailable
from app.registry import Registry
from app.schemas import Undecodable
from app.settings import Registry as Where
from tests.factories import served

MONEY = {"type": "record", "name": "Money", "fields": [{"name": "cents", "type": "long"}]}
ORDER = {"type": "record", "name": "Order", "fields": [{"name": "total", "type": "Money"}]}
REFERENCE = {"name": "Money", "subject": "money/value", "version": 3}
UNKNOWN = {"error_code": 40403, "message": "Schema not found"}


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Place:
    """A registry, and what it was asked for."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {}  # path -> JSON, or (status, JSON or bytes)
        self.asked: Counter[str] = Counter()
        self.headers: list[Any] = []
        self.held: asyncio.Event | None = None
        self.came = asyncio.Event()
        self.url = ""

    async def answer(self, request: web.Request) -> web.Response:
        self.asked[request.raw_path] += 1
        self.headers.append(request.headers)
        self.came.set()
        if self.held is not None:
            await self.held.wait()
        found = self.answers.get(request.raw_path, (404, UNKNOWN))
        status, body = found if isinstance(found, tuple) else (200, found)
        return web.Response(status=status, body=body if isinstance(body, bytes) else orjson.dumps(body))


@asynccontextmanager
async def serving(place: Place, tls: ssl.SSLContext | None = None) -> AsyncIterator[None]:
    async with served(place.answer, tls=tls) as address:
        place.url = f"{address}/apis"
        yield


@pytest.fixture
async def place():
    one = Place()
    async with serving(one):
        yield one


@pytest.fixture
async def http():
    async with aiohttp.ClientSession() as session:
        yield session


def ask(place: Place, http: aiohttp.ClientSession, **where: Any) -> Registry:
    return Registry(Where.model_validate({"url": place.url, **where}), http, hesitate=(0.0, 0.0))


def avro(schema: Any, *references: Any) -> dict[str, Any]:
    return {"schema": orjson.dumps(schema).decode(), **({"references": list(references)} if references else {})}


def framed(payload: bytes, number: int) -> bytes:
    return b"\0" + struct.pack(">I", number) + payload


async def test_a_schema_is_fetched_once_however_many_ask_and_then_known(place, http):
    place.answers["/apis/schemas/ids/7"] = avro(MONEY)
    asking = ask(place, http)

    found = await asyncio.gather(*(asking.schemas({7}) for _ in range(5)))
    found += [await asking.schemas({7})]

    assert [schemas.decoded(framed(b"\x04", 7), one) for one in found] == [{"cents": 2}] * 6
    assert place.asked == {"/apis/schemas/ids/7": 1}


async def test_what_a_schema_imports_is_fetched_with_it_each_once(place, http):
    place.answers["/apis/schemas/ids/7"] = avro(ORDER, REFERENCE, REFERENCE)
    place.answers["/apis/subjects/money%2Fvalue/versions/3"] = avro(MONEY)

    known = await ask(place, http).schemas({7})

    assert schemas.decoded(framed(b"\x04", 7), known) == {"total": {"cents": 2}}
    assert set(place.asked.values()) == {1}


@pytest.mark.parametrize("kind", ["AVRO", None, "JSON", "PROTOBUF"])
async def test_the_registry_says_which_kind_a_schema_is(place, http, kind):
    text, payload, expected = {
        "JSON": ("{}", b'{"a": 1}', {"a": 1}),
        "PROTOBUF": ('syntax = "proto3"; message M { int32 a = 1; }', b"\x00\x08\x01", {"a": 1}),
    }.get(str(kind), (orjson.dumps(MONEY).decode(), b"\x04", {"cents": 2}))
    place.answers["/apis/schemas/ids/7"] = {"schema": text} | ({"schemaType": kind} if kind else {})

    known = await ask(place, http).schemas({7})

    assert schemas.decoded(framed(payload, 7), known) == expected


async def test_a_number_that_the_registry_does_not_know_is_asked_for_again_before_it_is_believed(place, http):
    known = await ask(place, http).schemas({7})

    with pytest.raises(BadEvent) as refused:
        schemas.decoded(framed(b"", 7), known)
    assert (refused.value.reason, refused.value.detail) == ("unknown_schema", "the registry has no schema 7")
    assert place.asked == {"/apis/schemas/ids/7": 3}


async def test_a_number_that_was_unknown_may_be_known_later(place, http):
    clock = Clock()
    asking = ask(place, http)
    asking.clock = clock
    await asking.schemas({7})
    place.answers["/apis/schemas/ids/7"] = avro(MONEY)
    assert isinstance((await asking.schemas({7}))[7], Undecodable)
    assert place.asked["/apis/schemas/ids/7"] == 3

    clock.now += registry.UNKNOWN_FOR + 1

    assert schemas.decoded(framed(b"\x04", 7), await asking.schemas({7})) == {"cents": 2}


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ({"/apis/schemas/ids/7": {"schema": "{}", "schemaType": "AVRO"}}, "cannot be read"),
        ({"/apis/schemas/ids/7": {"schema": "message", "schemaType": "PROTOBUF"}}, "does not compile"),
        ({"/apis/schemas/ids/7": {"schema": "x", "schemaType": "XML"}}, "is neither"),
        ({"/apis/schemas/ids/7": avro(ORDER, REFERENCE)}, "imports a schema that the registry has not"),
    ],
)
async def test_a_schema_that_is_none_makes_its_records_dead_letters(place, http, answers, said):
    place.answers = answers

    known = await ask(place, http).schemas({7})

    assert isinstance(known[7], Undecodable)
    assert known[7].reason == "bad_schema"
    assert said in known[7].detail


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((500, {}), "answers 500"),
        ((429, {}), "answers 429"),
        ((401, {"error_code": 401}), "answers 401: registry.user, registry.password"),
        ((403, {}), "answers 403: registry.user"),
        ((404, b"<html>not here</html>"), "answers 404: registry.url"),  # a wrong path says nothing about schemas
        ((404, {"error_code": 404, "message": "HTTP 404 Not Found"}), "answers 404: registry.url"),
        ((302, {}), "answers 302"),
        ((200, b"<html>welcome</html>"), "something else than a schema"),
        ((200, {"schema": 5}), "something else than a schema"),
        ((200, {"schema": "x", "references": [{"name": "x"}]}), "something else than a schema"),
        ((200, b"x" * (registry.MOST_BYTES + 1)), "more than"),
    ],
)
async def test_a_registry_that_refuses_us_says_nothing_about_a_schema(place, http, answer, said):
    place.answers["/apis/schemas/ids/7"] = answer
    asking = ask(place, http)

    with pytest.raises(Unavailable) as away:
        await asking.schemas({7})
    assert said in str(away.value)

    place.answers["/apis/schemas/ids/7"] = avro(MONEY)
    assert callable((await asking.schemas({7}))[7])


async def test_a_registry_that_is_away_is_told_without_its_address(place, http):
    asking = ask(place, http, url="http://127.0.0.1:1")

    with pytest.raises(Unavailable) as away:
        await asking.schemas({7})

    assert str(away.value) == "the schema registry does not answer: ClientConnectorError"


async def test_who_gives_up_takes_the_question_from_nobody_else(place, http):
    place.answers["/apis/schemas/ids/7"], place.held = avro(MONEY), asyncio.Event()
    asking = ask(place, http)
    first, second = (asyncio.create_task(asking.schemas({7})) for _ in range(2))
    await place.came.wait()

    first.cancel()
    place.held.set()

    assert callable((await second)[7])
    assert place.asked == {"/apis/schemas/ids/7": 1}


async def test_user_and_password_go_as_basic_auth_and_the_password_is_read_each_time(place, http, tmp_path):
    place.answers |= {f"/apis/schemas/ids/{n}": avro(MONEY) for n in (1, 2)}
    secret = tmp_path / "secret"
    secret.write_text("first\n")
    asking = ask(place, http, user="me", password={"file": str(secret)})

    await asking.schemas({1})
    secret.write_text("sécond")
    await asking.schemas({2})

    sent = [base64.b64decode(headers["Authorization"].removeprefix("Basic ")).decode() for headers in place.headers]
    assert sent == ["me:first", "me:sécond"]


async def test_a_password_that_cannot_be_read_holds_everything(place, http):
    asking = ask(place, http, user="me", password={"env": "NOBODY_SETS_THIS"})

    with pytest.raises(Unavailable, match=r"registry\.password"):
        await asking.schemas({1})
    assert not place.asked


async def test_a_registry_may_have_a_certificate_of_ones_own(http, tmp_path):
    certificate, key = _certificate(tmp_path)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate, key)
    place = Place()
    place.answers["/apis/schemas/ids/7"] = avro(MONEY)
    async with serving(place, tls):
        with pytest.raises(Unavailable, match="ClientConnectorCertificateError"):
            await ask(place, http).schemas({7})
        assert callable((await ask(place, http, ca=str(certificate)).schemas({7}))[7])


@pytest.mark.parametrize("content", [None, "no certificate"])
async def test_a_file_of_certificates_that_is_none_is_named(place, http, tmp_path, content):
    if content:
        (tmp_path / "ca.pem").write_text(content)

    with pytest.raises(Unavailable, match=r"registry\.ca"):
        await ask(place, http, ca=str(tmp_path / "ca.pem")).schemas({7})


async def test_a_registry_that_lists_its_kinds_of_schemas_is_reached(place, http):
    place.answers["/apis/schemas/types"] = ["JSON", "PROTOBUF", "AVRO"]

    await ask(place, http).reach()

    assert place.asked == {"/apis/schemas/types": 1}


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((401, b""), "401: registry.user"),
        ((404, UNKNOWN), "404: registry.url"),
        ((200, b"<html>"), "registry.url"),
        ((200, {"no": "list"}), "registry.url"),
    ],
)
async def test_what_answers_otherwise_is_not_and_the_setting_is_named(place, http, answer, said):
    place.answers["/apis/schemas/types"] = answer

    with pytest.raises(Unavailable, match=said):
        await ask(place, http).reach()


def _certificate(folder: Path) -> tuple[Path, Path]:
    key, name = (
        ec.generate_private_key(ec.SECP256R1()),
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "registry")]),
    )
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate, secret = folder / "tls.pem", folder / "tls.key"
    certificate.write_bytes(signed.public_bytes(Encoding.PEM))
    secret.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return certificate, secret
