"""Which domain a cookie may be for: by the Public Suffix List (https://publicsuffix.org), as browsers do."""

import ipaddress
import re
from functools import lru_cache
from urllib.parse import urlsplit

from publicsuffixlist import PublicSuffixList

#: Two labels or more, in ASCII, as headers have them.
_NAME = re.compile(r"(?=.{3,253}$)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})+")


@lru_cache(maxsize=1)
def _suffixes() -> PublicSuffixList:
    # read once, when it is first asked for: 40 ms. What is not on the list is one label deep, as browsers have it.
    return PublicSuffixList()


@lru_cache(maxsize=4096)
def registrable(host: str) -> str:
    """The domain that its owner registered: `shop.co.uk` of `www.shop.co.uk`. Empty for a public suffix, an address, one label."""
    host = host.lower().rstrip(".")
    if not _NAME.fullmatch(host) or _is_address(host):
        return ""
    return _suffixes().privatesuffix(host) or ""


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def host_of(origin: str) -> str:
    """Of an `Origin` or `Host` header, without its port; empty where there is none."""
    try:
        return urlsplit(origin if "//" in origin else f"//{origin}").hostname or ""
    except ValueError:
        return ""


def within(host: str, domain: str) -> bool:
    """Is this host the domain, or below it?"""
    return host == domain or host.endswith(f".{domain}")
