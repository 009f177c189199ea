"""app/collector/pixel.py: the script as it is served, and what it has to say the same as the rest of us."""

import base64
import gzip
import hashlib
import re
import typing
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from click.testing import CliRunner

from app import cli
from app.collector.pixel import SOURCE, Script
from app.events import SIGNALS, Commerce
from sinks import meta, pinterest, tiktok

SCRIPT = Script("capi.js")
TEXT = SOURCE.read_text()


def test_it_is_smaller_than_4_kilobytes_compressed():
    assert len(SCRIPT.gzipped) < 4096
    assert gzip.decompress(SCRIPT.gzipped) == SCRIPT.content


def test_it_needs_nothing_that_a_strict_policy_forbids():
    assert not re.search(r"\beval\(|new Function|innerHTML|document\.write|\.style\b|setAttribute", TEXT)


def test_it_knows_the_fields_of_commerce():
    pattern = re.search(r"const COMMERCE = /(.+)/;", TEXT)
    assert pattern
    known = {name for name in typing.get_type_hints(Commerce) if re.search(pattern[1], name)}

    assert known == set(typing.get_type_hints(Commerce))


def test_it_knows_the_signals_of_consent():
    (found,) = re.findall(r"const SIGNALS = \[(.+)\]", TEXT)

    assert re.findall(r"\w+", found) == list(SIGNALS)


def test_the_platforms_tags_are_called_what_the_sinks_call_them():
    (table,) = re.findall(r"const NAMES = `(.+?)`", TEXT, re.DOTALL)
    rows = [line.split() for line in table.splitlines()]

    assert {ours: name for ours, name, _ in rows} == dict(meta.NAMES)
    assert {ours: name for ours, name, _ in rows if ours != "page_view"} == dict(tiktok.NAMES)
    # the tag writes them without underscores
    assert {ours: name for ours, _, name in rows} == {k: v.replace("_", "") for k, v in pinterest.NAMES.items()}


def test_its_name_changes_with_its_content():
    other = Script("capi.js", route="e")

    assert re.fullmatch(r"capi\.[0-9a-f]{12}\.js", SCRIPT.versioned)
    assert other.versioned != SCRIPT.versioned
    assert b'set.to||"e"' in other.content


def test_the_line_for_pages_names_the_key_and_may_name_the_content():
    assert SCRIPT.snippet("/m/", 'wk_"x') == '<script async src="/m/capi.js" data-key="wk_&quot;x"></script>'
    digest = base64.b64encode(hashlib.sha384(SCRIPT.content).digest()).decode()
    line = SCRIPT.snippet("https://c.example", "wk_x", versioned=True)
    assert f'src="https://c.example/{SCRIPT.versioned}"' in line
    assert f'integrity="sha384-{digest}" crossorigin="anonymous"' in line


def test_the_command_prints_the_line_of_a_site(tmp_path):
    config = tmp_path / "capistream.toml"
    sites = "".join(
        f'[sites.{name}]\nwrite_key = "wk_of_{name}"\nsecret_key = {{ env = "X" }}\n' for name in ("one", "two")
    )
    config.write_text(sites + '[collector]\nscript = "s.js"\n')

    def run(*options: str) -> Any:
        return CliRunner().invoke(cli.main, ["pixel", "--config", str(config), *options])

    assert run("--site", "two").output == '<script async src="/m/s.js" data-key="wk_of_two"></script>\n'
    assert "integrity=" in run("--site", "one", "--versioned").output
    assert "--site: one of one, two" in run().output


@pytest.fixture
async def address():
    app = web.Application()
    app.router.add_get("/v1/capi.js", SCRIPT.serve)
    app.router.add_get("/v1/capi.{version}.js", SCRIPT.serve)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    await runner.cleanup()


@pytest.fixture
async def http():
    async with aiohttp.ClientSession(auto_decompress=False) as session:
        yield session


async def test_its_versioned_name_is_kept_for_a_year_and_its_plain_one_for_minutes(address, http):
    async with http.get(f"{address}/{SCRIPT.versioned}") as response:
        assert response.headers["Cache-Control"] == "public, max-age=31536000, immutable"
        assert response.headers["Content-Type"] == "text/javascript; charset=utf-8"
        assert await response.read() == SCRIPT.gzipped
    async with http.get(f"{address}/capi.js") as response:
        assert response.headers["Cache-Control"].startswith("public, max-age=300,")
        assert response.headers["Vary"] == "Accept-Encoding"


async def test_a_page_that_names_an_older_version_gets_this_one_not_to_be_kept(address, http):
    async with http.get(f"{address}/capi.0123456789ab.js") as response:
        assert response.status == 200
        assert "immutable" not in response.headers["Cache-Control"]


async def test_a_client_without_gzip_gets_it_plain(address, http):
    async with http.get(f"{address}/capi.js", headers={"Accept-Encoding": "identity"}) as response:
        assert await response.read() == SCRIPT.content
        assert "Content-Encoding" not in response.headers


@pytest.mark.parametrize(("etag", "status"), [("", 200), ('"other"', 200), (f'W/"{SCRIPT.version}"', 304), ("*", 304)])
async def test_who_has_it_need_not_load_it_again(address, http, etag, status):
    async with http.get(f"{address}/capi.js", headers={"If-None-Match": etag} if etag else {}) as response:
        assert response.status == status
        assert response.headers["ETag"] == f'"{SCRIPT.version}"'
