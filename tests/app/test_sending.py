"""app/sending.py: what a platform's answer is, and what it means that there is none. The servers here speak HTTP byte by byte."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from email.utils import parsedate_to_datetime

import aiohttp
import pytest

from app.processes import free_port
from app.sending import LONGEST_ANSWER, send
from sinks._base import Request, Response, Retry

Hand = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

SOON = 1.0  # seconds that a request may take where nothing else ends it; to connect, half of that
HTML = b"<!DOCTYPE html><html><body>Sorry, something went wrong</body></html>"


@asynccontextmanager
async def platform(hand: Hand) -> AsyncIterator[int]:
    """Its port. It reads the request, and then does what it is told."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(
                int(line[16:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length: ")
            )
            await reader.readexactly(length)
            await hand(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def sent_to(port: int, seconds: float = 5.0) -> Response | Retry:
    request = Request("POST", f"http://127.0.0.1:{port}/x?secret=planted", {"Content-Type": "application/json"}, b"{}")
    async with aiohttp.ClientSession() as session:
        return await send(session, request, seconds)


def says(*parts: bytes) -> Hand:
    async def hand(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()

    return hand


def answer(status: str, body: bytes, *headers: bytes) -> bytes:
    length = b"Content-Length: %d" % len(body)
    return b"\r\n".join((b"HTTP/1.1 " + status.encode(), length, b"Connection: close", *headers, b"", body))


async def resets(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    writer.transport.abort()


async def says_nothing(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def drips(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Never silent for long, and never at its end."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
    while True:
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(SOON / 10)


@pytest.mark.parametrize(
    ("status", "body"), [("200 OK", b'{"events_received": 1}'), ("502 Bad Gateway", HTML), ("204 No Content", b"")]
)
async def test_an_answer_is_its_status_and_its_body_whatever_they_are(status: str, body: bytes) -> None:
    async with platform(says(answer(status, body, b"X-One: 1"))) as port:
        found = await sent_to(port)

    assert isinstance(found, Response)
    assert (found.status, found.body, found.headers["x-one"]) == (int(status[:3]), body, "1")


@pytest.mark.parametrize(
    "hand",
    [
        pytest.param(resets, id="reset"),
        pytest.param(says(), id="closed without a word"),
        pytest.param(says(b"HTTP/1.1 200 OK\r\nContent-Le"), id="closed within the headers"),
        pytest.param(says(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"), id="closed within the body"),
        pytest.param(says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"), id="broken chunks"),
        pytest.param(says(answer("200 OK", b"{}", b"Content-Encoding: gzip")), id="not the gzip that it says it is"),
        pytest.param(says(b"\x16\x03\x01 this is not HTTP\r\n\r\n"), id="another protocol"),
    ],
)
async def test_without_a_whole_answer_nobody_knows_whether_it_was_taken(hand: Hand) -> None:
    async with platform(hand) as port:
        found = await sent_to(port)

    assert "Timeout" not in assert_nobody_knows(found), "its end is heard of when it comes"


@pytest.mark.parametrize("hand", [pytest.param(says_nothing, id="silence"), pytest.param(drips, id="a slow drip")])
async def test_nor_without_its_end_when_the_time_of_a_request_is_over(hand: Hand) -> None:
    async with platform(hand) as port:
        async with asyncio.timeout(SOON * 10):
            found = await sent_to(port, SOON)

    assert_nobody_knows(found)


def assert_nobody_knows(found: Response | Retry) -> str:
    """Returns the reason."""
    assert isinstance(found, Retry)
    assert found.unclear
    assert found.reason.startswith("no answer: ")
    assert "planted" not in repr(found)
    return found.reason


async def test_without_a_connection_it_was_not_taken() -> None:
    found = await sent_to(free_port())

    assert isinstance(found, Retry)
    assert not found.unclear
    assert found.reason.startswith("no connection: ")


async def test_no_more_of_an_answer_is_read_than_anybody_needs() -> None:
    async with platform(says(answer("200 OK", b"x" * (LONGEST_ANSWER * 4)))) as port:
        found = await sent_to(port)

    assert isinstance(found, Response)
    assert len(found.body) == LONGEST_ANSWER


async def test_a_redirection_is_an_answer_and_the_secret_goes_nowhere_else() -> None:
    async with platform(says(answer("307 Temporary Redirect", b"", b"Location: http://127.0.0.1:9/"))) as port:
        found = await sent_to(port)

    assert isinstance(found, Response)
    assert found.status == 307


@pytest.mark.parametrize("date", [b"Mon, 23 Nov 2026 08:00:00 GMT", None])
async def test_an_answer_without_a_date_has_that_of_its_receipt(date: bytes | None) -> None:
    """By which a `Retry-After` that is a date is read."""
    async with platform(says(answer("503 No", b"", *([b"Date: " + date] if date else [])))) as port:
        found = await sent_to(port)

    assert isinstance(found, Response)
    assert parsedate_to_datetime(found.headers["Date"]).tzinfo
    assert date is None or found.headers["Date"] == date.decode()
