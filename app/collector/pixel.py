"""Serves pixel.js: minified and compressed once, at start.

    GET capi.js             the current one; asked for again after five minutes
    GET capi.<version>.js   the same under a name that changes with its content; kept for a year

A page that names an old version gets the current script, not to be kept: a page in a cache goes on to report.
"""

import base64
import gzip
import hashlib
import html
from functools import cached_property
from pathlib import Path
from typing import Self

import rjsmin
from aiohttp import web

from app.collector import routes
from app.settings import Collector

SOURCE = Path(__file__).parent / "pixel.js"
_YEAR = "public, max-age=31536000, immutable"
_SOON = "public, max-age=300, stale-while-revalidate=86400"


class Script:
    """The pixel under a name, which has to end with `.js`. It posts to `route`, seen from where it is served."""

    def __init__(self, name: str, route: str = "events") -> None:
        self.name = name
        text = rjsmin.jsmin(SOURCE.read_text("utf-8"))
        self.content = text.replace('set.to||"events"', f'set.to||"{route}"').encode()
        self.gzipped = gzip.compress(self.content, 9, mtime=0)  # the same bytes on every machine

    @classmethod
    def of(cls, collector: Collector) -> Self:
        return cls(collector.script, routes.from_script(collector))

    @cached_property
    def version(self) -> str:
        return hashlib.sha256(self.content).hexdigest()[:12]

    @cached_property
    def integrity(self) -> str:
        """For the attribute of that name (https://www.w3.org/TR/SRI/)."""
        return "sha384-" + base64.b64encode(hashlib.sha384(self.content).digest()).decode()

    @property
    def versioned(self) -> str:
        return f"{self.name.removesuffix('.js')}.{self.version}.js"

    async def serve(self, request: web.Request) -> web.Response:
        current = request.match_info.get("version") == self.version
        headers = {
            "Content-Type": "text/javascript; charset=utf-8",
            "Cache-Control": _YEAR if current else _SOON,
            "ETag": f'"{self.version}"',
            "Vary": "Accept-Encoding",
            "X-Content-Type-Options": "nosniff",
            # for pages of other origins, with an integrity and with Cross-Origin-Embedder-Policy
            "Access-Control-Allow-Origin": "*",
            "Cross-Origin-Resource-Policy": "cross-origin",
        }
        if any(tag.value in (self.version, "*") for tag in request.if_none_match or ()):
            return web.Response(status=304, headers=headers)
        if "gzip" in request.headers.get("Accept-Encoding", ""):
            return web.Response(body=self.gzipped, headers={**headers, "Content-Encoding": "gzip"})
        return web.Response(body=self.content, headers=headers)

    def snippet(self, base: str, write_key: str, *, versioned: bool = False) -> str:
        """What goes into the head of every page. `base` is where pages find its folder, such as `/m`."""
        path = f"{base.rstrip('/')}/{self.versioned if versioned else self.name}"
        more = f' integrity="{self.integrity}" crossorigin="anonymous"' if versioned else ""
        return f'<script async src="{html.escape(path)}" data-key="{html.escape(write_key)}"{more}></script>'
