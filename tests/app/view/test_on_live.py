"""The stream: whoever takes nothing is cut off, whoever is logged out gets no more, and rows come once they change."""

import asyncio
import socket
import time
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from app import settings
from app.view import live as live_
from app.view import on_live
from app.view.access import Access
from app.view.audit import Audit
from app.view.live import Window
from app.view.on_live import Live
from app.view.site import Site
from tests.app.view.journeys import START
from tests.app.view.test_live import order


@pytest.fixture
async def place(monkeypatch):
    """(the page, its server): with a window that tests fill, instead of one that is read from Kafka"""
    monkeypatch.setattr(on_live, "EVERY", 0.02)
    config = settings.parse("")

    async def offer(_topic, _p, _rows):
        return ""

    pipeline: Any = SimpleNamespace(
        settings=config,
        aside=lambda work: work.close(),
        app=SimpleNamespace(should_stop=False),
        deliver={},
        partitions=4,
    )
    site = Site(Access(config.view), Audit(config, offer), [], [])
    live = Live(pipeline, site)
    live.feed._running = True
    live.feed._begun.set()
    app = web.Application()
    app.add_routes([*live.routes(), *site.common()])
    async with TestServer(app) as server:
        yield live, server


def fill(live, number, size=1):
    key, said = order(str(number))
    said["event"]["commerce"]["value"] = "x" * size
    live.feed.window.conversion(key, orjson.dumps(said), START)


async def until(check, patience=20.0):
    end = time.monotonic() + patience
    while not check():
        assert time.monotonic() < end
        await asyncio.sleep(0.02)


async def connect(server, read=True):
    """A browser of few words."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, (server.host, server.port))
    ask = f"GET /live/stream HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n\r\n".encode()
    if not read:
        await asyncio.get_running_loop().sock_sendall(sock, ask)
        return sock
    reader, writer = await asyncio.open_connection(sock=sock)
    writer.write(ask)
    return reader, writer


async def test_a_browser_that_takes_nothing_is_cut_off(place, monkeypatch):
    live, server = place
    monkeypatch.setattr(on_live, "SLOW", 0.3)
    sock = await connect(server, read=False)
    await until(lambda: len(live._streams) == 1)

    async def traffic():
        number = 0
        while live._streams:
            for _ in range(20):
                number += 1
                fill(live, number, size=50_000)
            await asyncio.sleep(0.02)

    await asyncio.wait_for(traffic(), 30)
    sock.close()
    assert live._streams == {}


async def test_only_what_changed_is_sent(place):
    live, server = place
    for number in range(3):
        fill(live, number)
    reader, writer = await connect(server)
    async with asyncio.timeout(20):
        await reader.readuntil(b'event: rows\ndata: {"rows":')
        first = await reader.readline()
        fill(live, 3)
        await reader.readuntil(b'event: rows\ndata: {"rows":')
        second = await reader.readline()
    writer.close()

    assert (first.count(b'"id":'), second.count(b'"id":')) == (3, 1)
    assert b"/events/3?" in second
    await until(lambda: live._streams == {})  # whoever left makes room


async def test_a_stream_has_an_end_and_the_worker_too(place, monkeypatch):
    live, server = place
    monkeypatch.setattr(on_live, "LIFE", 0.2)
    reader, writer = await connect(server)
    async with asyncio.timeout(20):
        assert b"retry: 2000" in await reader.readuntil(b"0\r\n\r\n")
    writer.close()
    monkeypatch.setattr(on_live, "LIFE", 100.0)
    reader, writer = await connect(server)
    await until(lambda: live._streams)
    live.pipeline.app.should_stop = True

    await until(lambda: live._streams == {})
    writer.close()


async def test_whoever_leaves_makes_room_although_there_is_nothing_to_say(place):
    live, server = place
    _, writer = await connect(server)
    await until(lambda: live._streams)
    writer.close()

    await until(lambda: live._streams == {}, patience=5.0)


async def test_sums_of_the_same_window_are_counted_once(place):
    live, _ = place
    fill(live, 1)
    chosen = live_.parse({})

    assert live._told(chosen) is live._told(chosen)
    before = live._told(chosen)
    fill(live, 2)
    assert live._told(chosen) is not before
    live.feed.window = Window()
    assert live._told(chosen)["funnel"]["unique"] == 0, "of a window that began anew"
    fill(live, 1)
    assert live._told(chosen)["funnel"]["unique"] == 1
    for n in range(100):
        live._told(live_.parse({"event": str(n)}))
    assert len(live._sums) <= 2 * on_live.MOST
