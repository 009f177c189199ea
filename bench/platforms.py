"""Meta, TikTok, Pinterest and GA4 in one small process that looks at nothing: beside the real sandbox, which judges every field,
it would be the sandbox that is measured.

python bench/platforms.py PORT

POST /<platform>/…           what a sink sends; answered as the platform answers where all is well, with 503 while it is down
GET  /                       platform -> how many events came, how many requests, how many events came twice
GET  /<platform>?after=N     [[order, Unix seconds of its first arrival], …], from the Nth on
PUT  /<platform>?down=1      from now on; 0: no more
"""

import asyncio
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

import aiohttp
import orjson
import uvloop

BATCHING = ("meta", "tiktok", "pinterest")
ALL = (*BATCHING, "ga4")

UNAVAILABLE = b"503 Service Unavailable"


def _orders(platform: str, body: Any) -> Iterator[str]:
    """Of the events in a request's body."""
    if platform == "ga4":
        yield from (one["params"]["transaction_id"] for one in body["events"])
    else:
        part = "properties" if platform == "tiktok" else "custom_data"
        yield from (one[part]["order_id"] for one in body["data"])


def _receipt(platform: str, events: int) -> bytes:
    if platform == "meta":
        return b'{"events_received":%d,"messages":[],"fbtrace_id":"AbCdEf"}' % events
    if platform == "tiktok":
        return b'{"code":0,"message":"OK","request_id":"2026112012345601","data":{}}'
    if platform == "pinterest":
        each = {"status": "processed", "error_message": "", "warning_message": ""}
        said = {"num_events_received": events, "num_events_processed": events, "events": [each] * events}
        return orjson.dumps(said)
    return b""


@dataclass
class Platform:
    name: str
    down: bool = False
    requests: int = 0
    twice: int = 0
    seen: set[str] = field(default_factory=set)
    arrivals: list[tuple[str, float]] = field(default_factory=list)

    def take(self, body: bytes) -> tuple[bytes, bytes]:
        """(status, body) of the answer."""
        now = time.time()
        self.requests += 1
        if self.down:
            return UNAVAILABLE, b""
        events = 0
        for events, order in enumerate(_orders(self.name, orjson.loads(body)), 1):  # noqa: B007
            if order in self.seen:
                self.twice += 1
            else:
                self.seen.add(order)
                self.arrivals.append((order, now))
        receipt = _receipt(self.name, events)
        return (b"200 OK" if receipt else b"204 No Content"), receipt


class Connection(asyncio.Protocol):
    """As much of HTTP/1.1 as our own client speaks: a length, no chunks."""

    def __init__(self, platforms: dict[str, Platform]) -> None:
        self.platforms, self.buffer = platforms, bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            head, begin = bytes(self.buffer[:end]), end + 4
            length = int(head.lower().partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0] or 0)
            if len(self.buffer) < begin + length:
                return
            body = bytes(self.buffer[begin : begin + length])
            del self.buffer[: begin + length]
            method, target, _ = head.partition(b"\r\n")[0].decode().split(" ")
            status, said = self._answer(method, target, body)
            kind = b"Content-Type: application/json\r\nContent-Length: %d\r\n" % len(said)
            self.transport.write(
                b"HTTP/1.1 %b\r\n%b\r\n%b" % (status, b"" if status.startswith(b"204") else kind, said)
            )

    def _answer(self, method: str, target: str, body: bytes) -> tuple[bytes, bytes]:
        path = target.split("/", 2)[1].partition("?")[0]
        if method == "POST":
            return self.platforms[path].take(body)
        asked = parse_qs(urlsplit(target).query)
        if method == "PUT":
            self.platforms[path].down = asked["down"] == ["1"]
            return b"200 OK", b"{}"
        if path:
            return b"200 OK", orjson.dumps(self.platforms[path].arrivals[int(asked["after"][0]) :])
        counts = {
            name: {"events": len(one.arrivals), "requests": one.requests, "twice": one.twice}
            for name, one in self.platforms.items()
        }
        return b"200 OK", orjson.dumps(counts)


async def serve(port: int) -> None:
    platforms = {name: Platform(name) for name in ALL}
    server = await asyncio.get_running_loop().create_server(lambda: Connection(platforms), "127.0.0.1", port)
    await server.serve_forever()


class Client:
    """For whoever measures."""

    def __init__(self, http: aiohttp.ClientSession, port: int) -> None:
        self.http, self.address = http, f"http://127.0.0.1:{port}"

    async def counts(self) -> dict[str, dict[str, int]]:
        async with self.http.get(self.address) as answer:
            return dict(orjson.loads(await answer.read()))

    async def arrivals(self, platform: str, after: int) -> list[tuple[str, float]]:
        async with self.http.get(f"{self.address}/{platform}?after={after}") as answer:
            return list(orjson.loads(await answer.read()))

    async def down(self, platform: str, *, down: bool) -> None:
        async with self.http.put(f"{self.address}/{platform}?down={down:d}"):
            pass


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
