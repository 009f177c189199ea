"""app/registry.py on a real registry: Apicurio, by its Confluent-compatible interface.

`pytest -m registry` fetches it once (158 MB).
"""

import base64
import os
import struct
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from app import processes, schemas
from app.kafka import find_java
from app.registry import Registry
from app.schemas import Undecodable, compiled
from app.settings import Registry as Where
from tests.app.test_schemas import COMMON, EXPECTED, MONEY, SCHEMA, SHOP, order

pytestmark = pytest.mark.registry

VERSION = "3.3.3"
JAVA = 21  # that it needs
ORDER = {"type": "record", "name": "Order", "fields": [{"name": "total", "type": "Money"}]}


def fetched() -> Path:
    """The folder with Apicurio's quarkus-run.jar, in the user's cache."""
    from jgo.maven import MavenContext

    store = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "capistream"
    home = store / f"apicurio-{VERSION}"
    if not home.exists():
        store.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=store, prefix="fetch-") as name:
            context = MavenContext(repo_cache=Path(name) / "repository", timeout=120)
            component = context.project("io.apicurio", "apicurio-registry-app").at_version(VERSION)
            with tarfile.open(component.artifact(classifier="all", packaging="tar.gz").resolve()) as archive:
                archive.extractall(Path(name) / "home", filter="data")
            (Path(name) / "home").rename(home)
    (jar,) = home.rglob("quarkus-run.jar")
    return jar.parent


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    home, port = fetched(), processes.free_port()
    folder = tmp_path_factory.mktemp("apicurio")
    options = [
        "-Xmx512m",
        "-Dapicurio.storage.sql.kind=h2",
        f"-Dquarkus.http.port={port}",
        "-Dquarkus.http.host=127.0.0.1",
    ]
    command = [find_java(JAVA), *options, "-jar", str(home / "quarkus-run.jar")]
    process = processes.spawn(command, folder / "log")
    try:
        until = time.monotonic() + 90
        while processes.is_free(port):
            assert process.poll() is None, (folder / "log").read_text()[-2000:]
            assert time.monotonic() < until, (folder / "log").read_text()[-2000:]
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/apis/ccompat/v7"
    finally:
        processes.stop(process, 10)


@pytest.fixture
async def http():
    async with aiohttp.ClientSession() as session:
        yield session


async def register(http: aiohttp.ClientSession, url: str, subject: str, schema: str, **more: Any) -> int:
    """As producers do. Returns its number."""
    until = time.monotonic() + 60
    while True:  # the port is open before everything behind it is
        async with http.post(f"{url}/subjects/{subject}/versions", json={"schema": schema, **more}) as answer:
            text = await answer.text()
            if answer.status == 200:
                return int(orjson.loads(text)["id"])
        assert answer.status >= 500, text
        assert time.monotonic() < until, text


def refer(name: str, subject: str) -> dict[str, Any]:
    return {"name": name, "subject": subject, "version": 1}


async def decoded(http: aiohttp.ClientSession, url: str, number: int, payload: bytes) -> Any:
    known = await Registry(Where(url=url), http).schemas({number})
    return schemas.decoded(b"\0" + struct.pack(">I", number) + payload, known)


async def test_it_is_reached(url, http):
    await Registry(Where(url=url), http).reach()


async def test_avro_with_what_it_imports(url, http):
    await register(http, url, "money", orjson.dumps(MONEY).decode())
    number = await register(http, url, "order", orjson.dumps(ORDER).decode(), references=[refer("Money", "money")])

    assert await decoded(http, url, number, b"\x04") == {"total": {"cents": 2}}


async def test_protobuf_as_text_with_what_it_imports(url, http):
    await register(http, url, "common", COMMON, schemaType="PROTOBUF")
    refers = [refer("common/money.proto", "common")]
    number = await register(http, url, "shop", SHOP, schemaType="PROTOBUF", references=refers)

    assert await decoded(http, url, number, b"\x02\x02" + order().SerializeToString()) == EXPECTED


async def test_protobuf_as_a_descriptor(url, http):
    files = {file.name: base64.b64encode(file.SerializeToString()).decode() for file in compiled(SCHEMA)}
    await register(http, url, "common-d", files["common/money.proto"], schemaType="PROTOBUF")
    refers = [refer("common/money.proto", "common-d")]
    number = await register(http, url, "shop-d", files["schema.proto"], schemaType="PROTOBUF", references=refers)

    assert await decoded(http, url, number, b"\x02\x02" + order().SerializeToString()) == EXPECTED


async def test_json_schema(url, http):
    schema = '{"$schema": "http://json-schema.org/draft-07/schema#", "type": "object"}'
    number = await register(http, url, "json", schema, schemaType="JSON")

    assert await decoded(http, url, number, b'{"a": 1}') == {"a": 1}


async def test_a_number_that_it_does_not_know(url, http):
    known = await Registry(Where(url=url), http).schemas({99_999})

    assert known == {99_999: Undecodable("unknown_schema", "the registry has no schema 99999")}
