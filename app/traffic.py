"""Whose events are of no person on the other side of a screen: robots, pages fetched in advance, our own people. Pure.

Every copy of every source is looked at when it is normalised, and labelled; what becomes of a label is decided when the
conversion is routed (routing.py), so an event that no destination gets is in the view and in the receipts, with the reason.

Robots are those of github.com/monperrus/crawler-user-agents (MIT), without libraries for HTTP: apps report with them, too.
"""

import re
from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Literal

import crawleruseragents

from app import proxies
from app.proxies import Network

Label = Literal["bot", "prefetch", "internal"]
LABELS: tuple[Label, ...] = ("bot", "prefetch", "internal")

LOOKED_AT = 400  # characters of a user agent: anybody can send a long one
#: Patterns in one expression. The package does the same: more of them in one make each of them slower.
_AT_ONCE = 25


@lru_cache(maxsize=1)
def _robots() -> list[re.Pattern[str]]:
    known = [
        one["pattern"]
        for one in crawleruseragents.CRAWLER_USER_AGENTS_DATA
        if "http-library" not in one.get("tags", ())
    ]
    return [re.compile("|".join(known[n : n + _AT_ONCE])) for n in range(0, len(known), _AT_ONCE)]


def is_robot(user_agent: str) -> bool:
    return _is_robot(user_agent[:LOOKED_AT])


@lru_cache(maxsize=16_384)  # a look costs a tenth of a millisecond, and the same browsers come again
def _is_robot(user_agent: str) -> bool:
    return any(pattern.search(user_agent) for pattern in _robots())


def is_prefetch(headers: Mapping[str, str]) -> bool:
    """Does the browser ask before anybody looks? By https://wicg.github.io/nav-speculation/prefetch.html#sec-purpose-header, and
    by what older ones say.
    """
    said = (headers.get("Sec-Purpose", ""), headers.get("Purpose", ""), headers.get("X-Moz", ""))
    return any(word in one.lower() for one in said for word in ("prefetch", "prerender", "preview"))


def is_internal(ip: str, networks: Collection[Network]) -> bool:
    """`ip` as it came: a private address is one that an office has, too."""
    return bool(networks) and proxies.within(ip.strip().partition("%")[0], networks)
