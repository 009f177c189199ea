"""Requests of people who mean no good: an answer that names what is wrong, nothing of theirs in it, and the collector lives on."""

import asyncio
import gzip
import resource
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import orjson
import pytest
import pytest_asyncio
from aiohttp import web

from app.collector import limits
from tests.collecting import SECRET_KEY, WRITE_KEY, Place, collecting, serving

pytestmark = [pytest.mark.fault, pytest.mark.asyncio(loop_scope="module")]

MORE = """
origins = ["https://shop.example"]
rate = 10
burst = 20

[collector.ga4.G-ABC1234567]
site = "shop"
relay = false
api_secret = { env = "SHOP_SECRET_KEY" }
"""
OWN, SEGMENT, GTAG = "/v1/events", "/v1/track", "/g/collect?v=2&tid=G-ABC1234567&en=x"
PROTOCOL = f"/mp/collect?measurement_id=G-ABC1234567&api_secret={SECRET_KEY}"
EVENT = b'{"event_name":"view_item","event_id":"1"}'
Answer = tuple[int, dict[str, str], bytes]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(kafka) -> AsyncIterator[Place]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SHOP_SECRET_KEY", SECRET_KEY)
        async with collecting(kafka.brokers, "t-hostile", MORE) as one:
            yield one


async def raw(place: Place, request: bytes, patience: float = 20.0) -> Answer:
    """What comes back until the end of the connection."""
    url = urlsplit(place.url)
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    try:
        writer.write(request)
        answer = await asyncio.wait_for(reader.read(), patience)
    finally:
        writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    return int(first.split()[1]), headers, body


def post(path: str, body: bytes, *headers: str, key: str = WRITE_KEY) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: collect.shop.example", "Connection: close", f"Content-Length: {len(body)}"]
    lines += [f"X-Write-Key: {key}"] if key else []
    return "\r\n".join([*lines, *headers, "", ""]).encode("latin-1") + body


def nested(depth: int) -> bytes:
    return b'{"a":' * depth + b"1" + b"}" * depth


@pytest.mark.parametrize("path", [OWN, SEGMENT, "/v1/batch", "/api/s/track", PROTOCOL, "/v1/forget"])
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"nonsense",
        b"null",
        b"7",
        b'"text"',
        b"[]",
        b"[[[]]]",
        b"{}",
        b"\xff\xfe",
        b'{"event_name":"\xc3"}',
        b'{"event_name":"\\ud800"}',
        b'{"event_name":"x\\u0000","event_id":"1"}',
        b"[" * 10_000 + b"]" * 10_000,
        nested(10_000),
        nested(900),
        b'{"event":"x","messageId":"1","properties":' + nested(900) + b"}",
        b'{"event_name":"x","event_id":"1","custom":' + nested(900) + b"}",
        b'{"client_id":"1","events":[{"name":"x","params":' + nested(900) + b"}]}",
        b'{"event_name":"x","event_id":"1","time":' + b"9" * 5000 + b"}",
        b'{"event_name":"x","event_id":"1","time":1e308}',
        b'{"event_name":"x","event_id":"1","time":1e400}',
        b'{"event_name":"x","event_id":"1","commerce":{"value":NaN}}',
        b'{"batch":' + b"[" + b",".join([b"{}"] * 6000) + b"]}",
        orjson.dumps({"event_name": "x", "event_id": "<script>alert(1)</script>", "nobody": "knows"}),
    ],
    ids=lambda body: body[:24].decode("latin-1"),
)
async def test_a_body_that_says_nothing_sensible_is_refused(place, path, body):
    status, headers, answer = await raw(place, post(path, body, key=SECRET_KEY))

    assert status in (400, 401), answer
    assert (headers["content-type"], headers["x-content-type-options"]) == ("application/json", "nosniff")
    assert b"script" not in answer
    assert orjson.loads(answer)["success"] is False


async def test_of_a_field_told_twice_the_last_counts(place):
    body = b'{"event_name":"x","event_name":"view_item","event_id":"a","event_id":"twice"}'

    assert (await raw(place, post(OWN, body)))[0] == 200
    assert "twice" in [event["event_id"] for event in await place.events()]


@pytest.mark.parametrize(
    "content_type",
    ["", "text/plain", "text/html; charset=nonsense", "multipart/form-data", "application/xml", "\xff", ";;"],
)
async def test_no_content_type_matters(place, content_type):
    assert (await raw(place, post(OWN, EVENT, f"Content-Type: {content_type}")))[0] == 200


@pytest.mark.parametrize(
    "headers",
    [
        ["Authorization: Basic \xe9"],
        ["Authorization: Basic !!!!"],
        ["Authorization: Basic"],
        ["Authorization: Bearer \xff"],
        ["Authorization: nonsense nonsense"],
    ],
)
async def test_a_key_that_is_no_text_is_none(place, headers):
    assert (await raw(place, post(OWN, EVENT, *headers, key="")))[0] == 401


@pytest.mark.parametrize(
    "headers",
    [
        ["User-Agent: \x80\xff", "X-Forwarded-For: ,,,"],
        ["X-Forwarded-For: ' OR 1=1", "X-Forwarded-For: 999.1.1.1"],
        ["Cookie: " + "; ".join(f"a{n}=\x80" for n in range(200))],
        ["Cookie: =;;;=; _ga=GA1.1.; cs_clicks=|||..|"],
        ["Referer: \xff", "X-IP-Policy: \x80"],
        ["Sec-Purpose: \xff"],
    ],
)
async def test_headers_that_say_nothing_sensible_cost_no_event(place, headers):
    assert (await raw(place, post(OWN, EVENT, *headers)))[0] == 200


@pytest.mark.parametrize(
    "request_",
    [
        b"hello lovelace@example.com\r\n\r\n",
        b"POST /v1/events HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST /v1/events HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n3\r\n{}a\r\n0\r\n\r\n",
        b"POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}",
        b"GET /" + b"lovelace" * 1200 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nA: " + b"lovelace" * 1200 + b"\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + b"".join(b"A%d: lovelace\r\n" % n for n in range(500)) + b"\r\n",
        post(OWN, EVENT, "Content-Encoding: br"),
        post(OWN, b"no gzip: lovelace", "Content-Encoding: gzip"),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03lovelace",
    ],
    ids=lambda request: request[:24].decode("latin-1"),
)
async def test_what_is_no_http_is_refused_and_not_repeated(place, request_):
    status, _, answer = await raw(place, request_)

    assert status == 400
    assert b"lovelace" not in answer


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (b"GET //evil.example/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 404),
        (b"GET /\\evil.example HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 404),
        (b"GET http://evil.example/x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 404),
        (b"GET /v1/../../etc/passwd HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 404),
        (b"GET /v1/%2e%2e/healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 404),
        (b"GET /v1/projects/evil%3Cscript%3E/settings HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 404),
        (b"GET /v1/projects/%ff%00/settings HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 404),
        (b"GET /evil%0d%0aSet-Cookie:%20a=b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 404),
        (b"DELETE /v1/events HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n", 405),
        (b"TRACE /v1/events HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX: evil\r\n\r\n", 405),
    ],
)
async def test_nobody_is_led_elsewhere_and_nothing_comes_back(place, request_, expected):
    status, headers, answer = await raw(place, request_)

    assert status == expected
    assert "location" not in headers
    assert "set-cookie" not in headers
    assert b"evil" not in answer


async def test_a_bomb_does_not_go_off(place):
    bomb = gzip.compress(b"0" * (100 << 20))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    status, _, _ = await raw(place, post(OWN, bomb, "Content-Encoding: gzip"))

    assert status == 413
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # kB


async def test_a_body_that_does_not_come_is_not_waited_for(place, monkeypatch):
    monkeypatch.setattr(limits, "PATIENCE", 0.2)

    status, _, answer = await raw(place, post(OWN, b"").replace(b"Content-Length: 0", b"Content-Length: 100"))

    assert (status, orjson.loads(answer)["code"]) == (408, "too_slow")


@pytest.mark.parametrize("begun", [b"", b"POST /v1/events HTTP/1.1\r\nHost: x\r\nX-Wr"])
async def test_a_connection_without_a_request_is_closed(monkeypatch, begun):
    monkeypatch.setattr(limits, "IDLE", 0.3)
    async with serving(web.Application(), limits.runner) as url:
        reader, writer = await asyncio.open_connection(urlsplit(url).hostname, urlsplit(url).port)
        writer.write(begun)

        assert await asyncio.wait_for(reader.read(), 10) == b""
        writer.close()


@pytest.mark.parametrize("path", [OWN, SEGMENT, GTAG])
async def test_a_page_that_is_not_listed_may_not_report(place, path):
    status, headers, answer = await raw(
        place, post(path, EVENT, "Origin: https://evil.example", "Sec-Fetch-Site: cross-site")
    )

    assert (status, orjson.loads(answer)["code"]) == (403, "origin_not_allowed")
    assert "access-control-allow-origin" not in headers
    assert (await raw(place, post(OWN, EVENT, "Origin: https://shop.example")))[0] == 200
    assert (await raw(place, post(OWN, EVENT, "Origin: https://evil.example", key=SECRET_KEY)))[0] == 200


@pytest.mark.parametrize(("path", "client"), [(OWN, "198.51.100.1"), (GTAG, "198.51.100.2")])
async def test_an_address_that_sends_too_fast_waits_and_others_do_not(place, path, client):
    batch = orjson.dumps([{"event_name": "view_item", "event_id": str(n)} for n in range(15)])
    from_there = f"X-Forwarded-For: {client}"
    assert (await raw(place, post(OWN, batch, from_there)))[0] == 200
    assert (await raw(place, post(OWN, batch, from_there)))[0] == 200

    status, headers, answer = await raw(place, post(path, EVENT, from_there))

    assert (status, orjson.loads(answer)["code"]) == (429, "too_fast")
    assert 1 <= int(headers["retry-after"]) <= 3
    assert (await raw(place, post(OWN, EVENT, "X-Forwarded-For: 198.51.100.99")))[0] == 200
    assert (await raw(place, post(OWN, EVENT, from_there, key=SECRET_KEY)))[0] == 200


@pytest.mark.parametrize(
    ("path", "client"), [("/v1/forget", "198.51.100.3"), (PROTOCOL[:-1], "198.51.100.4"), (OWN, "198.51.100.5")]
)
async def test_whoever_guesses_keys_has_to_wait(place, path, client):
    guesses = [post(path, b"{}", f"X-Forwarded-For: {client}", key=f"guess-{n}") for n in range(200)]

    answers = [status for status, _, _ in await asyncio.gather(*(raw(place, guess) for guess in guesses))]

    # 20 at once, and 10 a second after them; 200 take less than the 18 s that this would be
    assert set(answers) == {401, 429}
    assert answers.count(401) >= 20
