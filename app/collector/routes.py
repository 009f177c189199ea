"""Every route of a collector, by its settings. Pure: server.py binds them, openapi.py describes them, the settings check them."""

import posixpath
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal, NamedTuple

from app.collector import clients

if TYPE_CHECKING:
    from app.settings import Collector

Does = Literal[
    "own",
    "segment",
    "servers",
    "segment_settings",
    "gtag",
    "measurement_protocol",
    "forget",
    "script",
    "openapi",
    "healthz",
    "readyz",
    "metrics",
]


class Route(NamedTuple):
    method: Literal["GET", "POST"]
    path: str  # {name} stands for a part of it
    does: Does


def of(collector: "Collector") -> list[Route]:
    told, stem = collector.routes, collector.script.removesuffix(".js")
    found = [Route("POST", told.own, "own")]
    found += [Route("POST", f"{told.segment}/{call}", "segment") for call in (*clients.CALLS, *clients.SHORT)]
    found.append(Route("GET", f"{told.segment}/projects/{{key}}/settings", "segment_settings"))
    for call in clients.CALLS:
        found.append(Route("POST", f"{told.jitsu}/{call}", "segment"))
        found.append(Route("POST", f"{told.jitsu}/s2s/{call}", "servers"))
    if collector.ga4:
        found += [Route("GET", told.gtag, "gtag"), Route("POST", told.gtag, "gtag")]
        found.append(Route("POST", told.measurement_protocol, "measurement_protocol"))
    found.append(Route("POST", told.forget, "forget"))
    found += [
        Route("GET", f"{told.script}/{stem}.js", "script"),
        Route("GET", f"{told.script}/{stem}.{{version}}.js", "script"),
    ]
    fixed: tuple[Does, ...] = ("openapi", "healthz", "readyz", "metrics")
    found += [Route("GET", "/openapi.json" if does == "openapi" else f"/{does}", does) for does in fixed]
    return found


def from_script(collector: "Collector") -> str:
    """Where the pixel posts to, seen from the folder of its script: a proxy may have put both elsewhere, together."""
    return posixpath.relpath(collector.routes.own, collector.routes.script)


def mistakes(routes: Iterable[Route]) -> list[str]:
    """Routes that stand in each other's way."""
    known: dict[str, set[Does]] = {}
    for one in routes:
        known.setdefault(one.path, set()).add(one.does)
    patterns = {path: re.compile(re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(path))) for path in known if "{" in path}
    found = [f"{path} would be {' and '.join(sorted(does))}" for path, does in known.items() if len(does) > 1]
    for pattern, matches in patterns.items():
        for path, does in known.items():
            if "{" not in path and matches.fullmatch(path) and does != known[pattern]:
                found.append(f"{path} would be {' and '.join(sorted({*does, *known[pattern]}))}")
    return found
