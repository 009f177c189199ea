"""Events for tests, from sinks/samples.py, which packages with sinks of their own use, too; and what sinks make of them."""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web
from aiohttp.typedefs import Handler

from app.events import Event
from app.sandbox._base import Call
from sinks._base import Payload, Request, Sink, Skip
from sinks.samples import encode, events, make_event, merged, sha

__all__ = ["call", "encode", "events", "make_event", "merged", "payload", "served", "sha", "skipped"]


def payload(sink: Sink, event: Event) -> Payload:
    """What the sink makes of an event that it takes."""
    found = encode(sink, event)
    assert isinstance(found, Payload), found
    return found


def skipped(sink: Sink, event: Event) -> str:
    """Why the sink does not take an event."""
    found = encode(sink, event)
    assert isinstance(found, Skip), found
    return found.reason


def call(request: Request, now: float, *, good_token: bool = True) -> Call:
    """The request as the route of an emulated platform sees it that reads neither path nor query."""
    return Call(
        path={},
        query={},
        raw_query="",
        headers=request.headers,
        body=request.body,
        now=now,
        admits=lambda _account, _token: good_token,
        tokens=lambda _account: None,
        spoils=lambda _account: False,
        queue=lambda _account: 0.0,
    )


@asynccontextmanager
async def served(
    handler: Handler, method: str = "*", path: str = "/{path:.*}", tls: ssl.SSLContext | None = None
) -> AsyncIterator[str]:
    """The address of an HTTP server that gives such requests to this handler."""
    app = web.Application()
    app.router.add_route(method, path, handler)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
    try:
        yield f"{'https' if tls else 'http'}://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
