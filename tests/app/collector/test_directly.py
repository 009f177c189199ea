"""Requests that are answered without a way through routes: with the answers that all others have."""

import gzip
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import orjson
import pytest
from aiohttp import web

from app.collector import limits
from app.collector.server import Collector
from app.settings import parse
from tests.collecting import SECRET_KEY, WRITE_KEY, config, serving

EVENT = {
    "event_name": "purchase",
    "event_id": "e-1",
    "time": 1_795_428_000_000,
    "user": {"email": "ada@example.com", "phone": "(650) 253-0000"},
    "context": {"url": "https://shop.example.com/thanks?utm_source=x", "ip": "203.0.113.7"},
    "commerce": {"value": 5, "currency": "EUR", "transaction_id": "1001", "items": [{"item_id": "a", "price": 2.5}]},
    "consent": {"ad_storage": "granted"},
}
BEARER = {"Authorization": f"Bearer {SECRET_KEY}"}
BODIES: list[Any] = [
    EVENT,
    {"batch": [EVENT, EVENT | {"event_id": "e-2"}]},
    {"batch": []},
    {"batch": [EVENT, EVENT | {"event_id": "ada@example.com"}]},
    [EVENT],
    EVENT | {"event_id": "ada@example.com"},
    EVENT | {"oops": 1},
    EVENT | {"writeKey": SECRET_KEY},
    EVENT | {"writeKey": WRITE_KEY, "decided": True},
    EVENT | {"source": "pixel"},
    EVENT | {"site": "other"},
    EVENT | {"custom": {"x": "y" * 70_000}},
    EVENT | {"commerce": {"value": 1}},
    {},
    5,
]
HEADERS: list[dict[str, str]] = [
    BEARER,
    {"X-Write-Key": SECRET_KEY},
    {"X-Write-Key": WRITE_KEY},
    {"authorization": f"bearer {SECRET_KEY}"},
    {"Authorization": "Bearer nobody"},
    {},
    BEARER | {"Origin": "https://shop.example.com"},
    BEARER | {"Connection": "close"},
    BEARER | {"User-Agent": "", "X-Forwarded-For": "nonsense"},
]


@dataclass
class Twins:
    """Two collectors, one of which knows no shorter way."""

    with_it: str
    without: str
    http: aiohttp.ClientSession
    answered: list[bool] = field(default_factory=list)

    async def ask(self, url: str, method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[Any, ...]:
        async with self.http.request(method, url + path, data=body, headers=headers) as answer:
            text = await answer.read()
            told = orjson.loads(text) if text.startswith(b"{") else text
            if isinstance(told, dict):
                told.pop("request", None)
            # a cookie's age counts from its receipt
            kept = {
                name: "" if name in ("Date", "Content-Length") else re.sub(r"Max-Age=\d+", "", value)
                for name, value in answer.headers.items()
            }
            return answer.status, told, kept

    async def same(self, method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[Any, ...]:
        headers = {"Content-Type": "application/json", **headers}
        found = await self.ask(self.with_it, method, path, headers, body)
        assert found == await self.ask(self.without, method, path, headers, body)
        return found


@pytest.fixture
async def twins(kafka, prefix, monkeypatch) -> AsyncIterator[Twins]:
    monkeypatch.setenv("SHOP_SECRET_KEY", SECRET_KEY)
    there = parse(config(kafka.brokers, prefix, "max_body = 200_000"))
    one, other = Collector(there).application(), Collector(there).application()
    directly = one[limits.DIRECTLY]
    answered: list[bool] = []

    async def noted(request: web.BaseRequest) -> web.StreamResponse | None:
        answer = await directly(request)
        answered.append(answer is not None)
        return answer

    one[limits.DIRECTLY] = noted
    del other[limits.DIRECTLY]
    async with (
        serving(one, limits.runner) as first,
        serving(other, limits.runner) as second,
        aiohttp.ClientSession() as http,
    ):
        yield Twins(first, second, http, answered)


async def test_every_request_has_the_answer_that_it_has_by_way_of_routes(twins):
    for headers in HEADERS:
        for body in BODIES:
            await twins.same("POST", "/v1/events", headers, orjson.dumps(body))

    assert any(twins.answered)
    assert not all(twins.answered)


@pytest.mark.parametrize(
    ("method", "path", "more", "body"),
    [
        ("GET", "/v1/events", {}, b""),
        ("PUT", "/v1/events", {}, orjson.dumps(EVENT)),
        ("POST", "/v1/events/", {}, orjson.dumps(EVENT)),
        ("POST", "/v1/track", {}, orjson.dumps(EVENT)),
        ("POST", "/v1/events?x=1", {}, orjson.dumps(EVENT)),
        ("POST", "/v1/events", {}, b""),
        ("POST", "/v1/events", {}, b"{"),
        ("POST", "/v1/events", {}, b"\xff"),
        (
            "POST",
            "/v1/events",
            {},
            b'{"event_name":"x","event_id":"1","custom":{"x":' + b"[" * 900 + b"]" * 900 + b"}}",
        ),
        ("POST", "/v1/events", {}, orjson.dumps({"batch": [EVENT] * 1000})),  # larger than may be
        ("POST", "/v1/events", {"Content-Encoding": "gzip"}, b"no gzip"),
        ("POST", "/v1/events", {"Expect": "100-continue"}, orjson.dumps(EVENT)),
        ("POST", "/v1/events", {"Expect": "nonsense"}, orjson.dumps(EVENT)),
    ],
)
async def test_what_is_odd_goes_by_way_of_routes(twins, method, path, more, body):
    await twins.same(method, path, BEARER | more, body)

    assert not any(twins.answered)


async def test_a_client_that_speaks_http_1_0_goes_by_way_of_routes(twins):
    async with aiohttp.ClientSession(version=aiohttp.HttpVersion10) as twins.http:
        _, _, headers = await twins.same("POST", "/v1/events", BEARER, orjson.dumps(EVENT))

    assert headers["Connection"] == "keep-alive"
    assert not any(twins.answered)


async def test_what_servers_send_as_a_rule_does_not(twins):
    status, told, _ = await twins.same("POST", "/v1/events", BEARER, orjson.dumps({"batch": [EVENT] * 100}))

    assert (status, told) == (200, {"success": True, "accepted": 100})
    assert twins.answered == [True]


@pytest.mark.parametrize("count", [1, 100, 1000])
async def test_a_compressed_body_counts_as_large_as_it_becomes(twins, count):
    body = gzip.compress(orjson.dumps({"batch": [EVENT] * count}))

    status, _, _ = await twins.same("POST", "/v1/events", BEARER | {"Content-Encoding": "gzip"}, body)

    assert status == (200 if count < 1000 else 413)
