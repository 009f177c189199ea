"""Who is behind the proxies that we trust: the same for the collector and for the pages. Pure."""

import ipaddress
import re
import socket
from collections.abc import Collection, Iterable, Mapping
from functools import lru_cache

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

#: Addresses that say nothing about where a person is: private, loopback, link-local, carrier NAT. Unlike `is_private`
#: this leaves the documentation ranges alone, which examples and tests use.
_NOT_A_PERSON: Mapping[int, tuple[Network, ...]] = {
    4: tuple(
        map(
            ipaddress.IPv4Network,
            (
                *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
                *("192.168.0.0/16", "224.0.0.0/3"),
            ),
        )
    ),
    6: tuple(map(ipaddress.IPv6Network, ("::/127", "fc00::/7", "fe80::/10", "ff00::/8"))),
}
_WITH_PORT = re.compile(r"\[(?P<six>[^\]]*)\](:\d+)?|(?P<four>[\d.]+):\d+")


def address(text: str) -> Address | None:
    """Some proxies add a port; a socket for both families writes IPv4 addresses as IPv6 ones."""
    if match := _WITH_PORT.fullmatch(text):
        text = match["six"] or match["four"] or ""
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found


def within(text: str, networks: Collection[Network]) -> bool:
    found = address(text)
    return found is not None and any(found in network for network in networks)


@lru_cache(maxsize=1 << 14)  # one visitor has many events
def of_a_person(text: str) -> bool:
    """May it be somebody's on the internet?"""
    found = address(text)
    return found is not None and is_of_a_person(found)


def is_ipv4(text: str) -> bool:
    """Most addresses are, and are written in one way only: seen in less time than parsing takes."""
    try:
        socket.inet_pton(socket.AF_INET, text)
    except (OSError, ValueError):
        return False
    return True


def is_of_a_person(found: Address) -> bool:
    return not any(found in network for network in _NOT_A_PERSON[found.version])


#: First bytes of IPv4 addresses of which some may say nothing.
_CLOSER = frozenset(
    first for network in _NOT_A_PERSON[4] for first in range(network[0].packed[0], network[-1].packed[0] + 1)
)


def of_the_internet(text: str) -> str:
    """An address that may surely be a person's, in its usual spelling, in a tenth of the time that parsing takes. Empty for all
    other texts: parse those.
    """
    six = ":" in text
    family = socket.AF_INET6 if six else socket.AF_INET
    try:
        packed = socket.inet_pton(family, text)
        usual = socket.inet_ntop(family, packed)
    except (OSError, ValueError):
        return ""
    if six:
        return usual if packed[0] >> 5 == 1 else ""  # 2000::/3, global unicast
    return usual if usual == text and packed[0] not in _CLOSER else ""


def client(remote: str, forwarded: Iterable[str], trusted: Collection[Network]) -> str:
    """The first address, from our side, that is no trusted proxy's; the farthest, where all are. Empty where something stands there
    that is no address.

    `remote` is the connection's, `forwarded` are the values of `X-Forwarded-For`: what a proxy adds stands behind what it was told,
    and what anybody else wrote there is only read when a trusted proxy has vouched for the address behind it.
    """
    hops = [hop for one in forwarded for hop in map(str.strip, one.split(",")) if hop]
    found = address(remote)
    while hops and found is not None and any(found in network for network in trusted):
        found = address(hops.pop())
    return "" if found is None else str(found)


def neighbourhood(text: str) -> str:
    """Of whom an address is one: whoever has an IPv6 address has a whole /64 of them."""
    found = address(text)
    if isinstance(found, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((int(found), 64), strict=False))
    return text if found is None else str(found)
