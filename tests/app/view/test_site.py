"""What all pages share: login, roles, forms, audit, and what a browser may do with an answer."""

import tempfile
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest
from aiohttp import FormData, web
from aiohttp.test_utils import TestClient, TestServer

from app import settings
from app.errors import CapistreamError
from app.view.access import TRIES, Access
from app.view.audit import Audit, Deed
from app.view.site import Page, Site, file_bytes

ADA, VIC = "a-token-of-ada-000000", "a-token-of-vic-000000"
CONFIG = """
[view.tokens.ada]
role = "operator"
token = { env = "ADA" }
[view.tokens.vic]
token = { env = "VIC" }
"""
HTML = {"Accept": "text/html"}


class Place:
    """A site with a few pages, and what it wrote down."""

    def __init__(self, client, said):
        self.client, self.said = client, said

    def deeds(self):
        return [(one["who"], one["what"]) for one in self.said]

    async def login(self, token=ADA, **more):
        return await self.client.post("/login", data={"token": token, "next": "/", **more}, allow_redirects=False)


@asynccontextmanager
async def serving(text=CONFIG, refused=""):
    given = settings.parse(text)
    said: list[Any] = []

    async def offer(topic, p, rows):
        assert (topic, p) == ("capistream.audit", 0)
        if not refused:
            said.extend(orjson.loads(value) for _, value, _ in rows)
        return refused

    one = Site(Access(given.view), audit := Audit(given, offer), [("/", "Events")], [("/audit", "Audit")])

    async def home(_call):
        return Page("problem.html", {"error": "<b>all is well</b>"})

    async def act(call):
        await audit.must_note(call.who, call.address, Deed("replayed", "letter"))
        said.append({"who": call.who.name, "what": "was replayed"})
        return Page("problem.html", {"error": "done"})

    async def upload(call):
        said.append({"who": call.who.name, "what": file_bytes(call.field("file")), "to": call.field("to")})
        return Page("problem.html", {"error": "done"})

    async def fail(call):
        raise {"bad": CapistreamError("that is wrong"), "odd": ZeroDivisionError("secret")}[call.field("how")]

    app = web.Application()
    app.add_routes([
        one.route("GET", "/", "viewer", home),
        one.route("GET", "/deep/{id}", "viewer", home),
        one.route("POST", "/act", "operator", act),
        one.route("POST", "/fail", "viewer", fail),
        one.route("POST", "/upload", "operator", upload, 3 << 20),
        *one.common(),
    ])  # fmt: skip
    async with TestClient(TestServer(app)) as client:
        yield Place(client, said)


@pytest.fixture(autouse=True)
def secrets(monkeypatch):
    monkeypatch.setenv("ADA", ADA)
    monkeypatch.setenv("VIC", VIC)


@pytest.fixture
async def place():
    async with serving() as one:
        yield one


def bearer(token, **more):
    return {"Authorization": f"Bearer {token}", **more}


async def form_token(place):
    text = await (await place.client.get("/", headers=HTML)).text()
    return text.split('name="form_token" value="')[1].split('"')[0]


# who gets in


async def test_a_person_without_a_session_is_led_to_the_login_and_back(place):
    led = await place.client.get("/deep/a%2Fb?x=1", headers=HTML, allow_redirects=False)
    assert (led.status, led.headers["Location"]) == (303, "/login?next=/deep/a%252Fb?x%3D1")

    page = await (await place.client.get(led.headers["Location"], headers=HTML)).text()
    assert 'name="next" value="/deep/a%2Fb?x=1"' in page
    done = await place.login(next="/deep/a%2Fb?x=1")
    assert (done.status, done.headers["Location"]) == (303, "/deep/a%2Fb?x=1")
    assert (await place.client.get("/deep/a%2Fb?x=1", headers=HTML, allow_redirects=False)).status == 200


async def test_a_program_without_a_token_is_told_so_and_one_with_a_token_gets_json(place):
    refused = await place.client.get("/")
    assert (refused.status, await refused.json()) == (401, {"error": "A token is needed."})
    assert refused.headers["WWW-Authenticate"] == "Bearer"

    answer = await place.client.get("/", headers=bearer(VIC))
    assert (answer.status, await answer.json()) == (200, {"error": "<b>all is well</b>"})


async def test_the_session_cookie_is_out_of_reach_for_scripts_and_other_sites(place):
    plain, tls = await place.login(), await place.client.post(
        "/login", data={"token": ADA}, headers={"X-Forwarded-Proto": "https"}, allow_redirects=False
    )  # fmt: skip

    cookie = plain.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert "Secure" not in cookie, "the demo has no TLS"
    assert "Secure" in tls.headers["Set-Cookie"]
    assert ADA not in cookie


@pytest.mark.parametrize(
    "then", ["https://evil.example/", "//evil.example", "/\\evil.example", "javascript:alert(1)", "/\r\nX: y", ""]
)
async def test_the_login_leads_to_our_own_pages_only(place, then):
    assert (await place.login(next=then)).headers["Location"] == "/"


async def test_wrong_tokens_are_written_down_and_then_refused_for_a_while(place):
    answers = [await place.login("wrong-" * 4) for _ in range(TRIES + 1)]

    assert [one.status for one in answers] == [401] * TRIES + [429]
    assert int(answers[-1].headers["Retry-After"]) > 0
    assert place.deeds() == [("nobody", "refused")] * (TRIES + 1)
    assert "wrong-" not in str(place.said)


async def test_a_login_from_another_site_is_refused(place):
    answer = await place.client.post("/login", data={"token": ADA}, headers={"Sec-Fetch-Site": "cross-site"})

    assert answer.status == 403
    assert "Set-Cookie" not in answer.headers


async def test_whoever_logs_out_is_out(place):
    await place.login()
    out = await place.client.post("/logout", data={"form_token": await form_token(place)}, allow_redirects=False)

    assert out.headers["Location"] == "/login"
    assert (await place.client.get("/")).status == 401
    assert place.deeds() == [("ada", "logged in"), ("ada", "logged out")]


# what they may do


async def test_a_viewer_changes_nothing(place):
    answer = await place.client.post("/act", headers=bearer(VIC))

    assert (answer.status, await answer.json()) == (403, {"error": "This is for operators; you are a viewer."})
    assert place.said == []


async def test_a_viewer_is_not_shown_what_only_operators_have(place):
    pages = {}
    for token in (VIC, ADA):
        pages[token] = await (await place.client.get("/", headers=bearer(token) | HTML)).text()

    assert 'href="/audit"' not in pages[VIC]
    assert 'href="/audit"' in pages[ADA]


async def test_what_an_operator_does_is_written_down_first(place):
    assert (await place.client.post("/act", headers=bearer(ADA))).status == 200

    assert place.deeds() == [("ada", "replayed"), ("ada", "was replayed")]
    assert place.said[0] | {"time": 0} == {
        "v": 1, "time": 0, "who": "ada", "role": "operator", "how": "token", "what": "replayed", "object": "letter",
        "from": "127.0.0.0/24",
    }  # fmt: skip


async def test_what_cannot_be_written_down_is_not_done():
    async with serving(refused="capistream.audit takes nothing") as place:
        answer = await place.client.post("/act", headers=bearer(ADA))

        assert answer.status == 503
        assert "could not be recorded" in (await answer.json())["error"]
        assert place.said == []
        assert (await place.login()).status == 303, "logging in needs no record"


# forms


async def test_a_form_is_taken_with_the_token_of_its_session_only(place):
    await place.login()
    token = await form_token(place)

    assert (await place.client.post("/act", data={"form_token": "x" + token[1:]})).status == 403
    assert (await place.client.post("/act")).status == 403
    assert (
        await place.client.post("/act", data={"form_token": token}, headers={"Sec-Fetch-Site": "cross-site"})
    ).status == 403
    assert (
        await place.client.post("/act", data={"form_token": token}, headers={"Origin": "http://evil.example"})
    ).status == 403
    assert place.deeds() == [("ada", "logged in")]
    assert (await place.client.post("/act", data={"form_token": token})).status == 200
    assert (await place.client.post("/act", json={"form_token": token})).status == 200


async def test_a_form_that_is_too_large_is_refused(place):
    answer = await place.client.post("/act", data={"x": "y" * 100_000}, headers=bearer(ADA))

    assert answer.status == 413


# answers


async def test_an_answer_lets_the_browser_do_nothing_that_it_need_not(place):
    await place.login()
    for path in ("/", "/nothing", "/login", "/static/view.js"):
        headers = (await place.client.get(path, headers=HTML)).headers
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["Cache-Control"] == ("public, max-age=31536000, immutable" if "static" in path else "no-store")


async def test_a_page_has_nothing_inline_and_asks_no_other_host(place):
    await place.login()
    for path in ("/", "/login", "/nothing"):
        text = await (await place.client.get(path, headers=HTML)).text()
        assert " style=" not in text
        assert "<style" not in text
        assert " on" not in text.replace(" only", "").replace(" once", "").replace(" one", "").split("<main")[0]
        assert "//" not in text.replace("<!doctype html>", "")


async def test_what_is_said_is_escaped(place):
    text = await (await place.client.get("/", headers=bearer(VIC) | HTML)).text()

    assert "&lt;b&gt;all is well&lt;/b&gt;" in text
    assert "<b>" not in text


async def test_a_page_that_is_none_is_404_for_everybody(place):
    for path in ("/nothing", "/static/nothing", "/static/..%2f..%2fpages.py"):
        answer = await place.client.get(path, headers=HTML)
        assert answer.status == 404
        assert "nothing" not in await answer.text()


async def test_an_error_is_told_and_an_accident_is_not(place):
    bad = await place.client.post("/fail", data={"how": "bad"}, headers=bearer(VIC))
    odd = await place.client.post("/fail", data={"how": "odd"}, headers=bearer(VIC))

    assert (bad.status, await bad.json()) == (400, {"error": "that is wrong."})
    assert odd.status == 500
    assert "secret" not in await odd.text()


async def test_without_a_login_the_page_says_who_gets_in():
    async with serving("") as place:
        text = await (await place.client.get("/", headers=HTML)).text()
        assert "No login is configured" in text
        assert (await place.client.get("/", headers={"Host": "evil.example"})).status == 403


# files


def upload(content: bytes, **fields: str) -> FormData:
    form = FormData()
    for name, value in fields.items():
        form.add_field(name, value)
    form.add_field("file", content, filename="orders.csv", content_type="text/csv")
    return form


async def test_a_file_comes_byte_for_byte_and_is_not_written_to_disk(place, monkeypatch):
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda *_: pytest.fail("written to disk"))
    content = bytes(range(256)) * 8000  # more than a web server takes by default

    answer = await place.client.post("/upload", data=upload(content, to="ads"), headers=bearer(ADA))

    assert answer.status == 200
    assert place.said[-1] == {"who": "ada", "what": content, "to": "ads"}


async def test_a_list_within_json_may_be_as_long_as_a_file(place):
    answer = await place.client.post("/upload", json={"file": "x" * (2 << 20)}, headers=bearer(ADA))

    assert answer.status == 200
    assert len(place.said[-1]["what"]) == 2 << 20


async def test_a_file_that_is_too_long_is_refused(place):
    async def chunks():
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        for _ in range(4):
            yield b"x" * (1 << 20)

    headers = bearer(ADA, **{"Content-Type": "multipart/form-data; boundary=b"})
    told = await place.client.post("/upload", data=upload(b"x" * (4 << 20)), headers=bearer(ADA))
    untold = await place.client.post("/upload", data=chunks(), headers=headers)

    assert (told.status, untold.status) == (413, 413)
    assert not [one for one in place.said if isinstance(one["what"], bytes)]


async def test_a_form_with_a_file_needs_the_token_of_its_session_too(place):
    await place.login()

    refused = await place.client.post("/upload", data=upload(b"x"))
    taken = await place.client.post("/upload", data=upload(b"x", form_token=await form_token(place)))

    assert (refused.status, taken.status) == (403, 200)
