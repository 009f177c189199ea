"""What the collector gives to routes of other modules: events taken in and kept, and answers that every client understands."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import orjson
from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.helpers import rfc822_formatted_time
from aiohttp.http import SERVER_SOFTWARE

from app.events import Json
from app.normalize import Result
from app.settings import Settings


class Taken(NamedTuple):
    """The events of one request, not written yet."""

    results: Sequence[Result]
    received: int  # Unix milliseconds
    request: str  # its id


class Door(Protocol):
    settings: Settings

    def too_fast(self, request: web.Request) -> web.Response | None:
        """429 for an address that has sent too much; None: go on. Whoever has a secret key goes on."""

    def stranger(self, request: web.Request) -> web.Response | None:
        """403 for a page that may not report; None: go on."""

    def refuse(self, request: web.Request, status: int, reason: str, field: str, detail: str) -> web.Response:
        """The answer, counted, and charged to whoever asked."""

    def charge(self, request: web.Request, events: int) -> None:
        """To the address that these events of a browser came from."""

    def visitor(self, request: web.Request) -> Json:
        """What the connection says of the browser: `ip` and `user_agent`, where they are known."""

    def take(self, body: Any, site: str, format_name: str, browser: web.Request | None) -> Taken:
        """Normalise a body for this site. Events of a browser are the pixel's, and its request speaks for the person. Without one
        they are a server's, whose connection says nothing of the person.
        """

    async def keep(self, taken: Taken) -> web.Response:
        """Write it. 200 when Kafka or the spool has all that could be taken, 400 when nothing could, 503 when neither has it."""


_HEADERS = {"Content-Type": "application/json", "X-Content-Type-Options": "nosniff"}


def as_json(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.Response(body=orjson.dumps(value), status=status, headers={**_HEADERS, **(headers or {})})


class Ready(web.StreamResponse):
    """The same, with 200 and no headers of its own, for a connection by HTTP/1.1 that stays open: written as it is, in a third of
    the time.
    """

    _keep_alive = True
    _head = "".join(f"{name}: {value}\r\n" for name, value in (*_HEADERS.items(), ("Server", SERVER_SOFTWARE)))

    def __init__(self, value: Any) -> None:
        super().__init__()
        self._told = orjson.dumps(value)

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter:
        writer, date = request.writer, rfc822_formatted_time()
        head = f"HTTP/1.1 200 OK\r\n{self._head}Date: {date}\r\nContent-Length: {len(self._told)}\r\n\r\n"
        await writer.write(head.encode() + self._told)
        await writer.drain()
        self._eof_sent = True
        return writer


def problem(
    status: int, reason: str, field: str, detail: str, headers: Mapping[str, str] | None = None
) -> web.Response:
    """`code` and `message` are for the SDKs of Segment and RudderStack: without them the latter takes any refusal for an outage,
    and sends ten times what can never be taken.
    """
    error = {"reason": reason, "field": field, "detail": detail}
    said = f"{field} {detail}".strip()
    body = {"success": False, "code": reason, "message": said, "error": {k: v for k, v in error.items() if v}}
    return as_json(body, status, headers)
