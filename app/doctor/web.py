"""Servers that are asked with HEAD, which records nothing: do they answer, and what does their clock show?"""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from ipaddress import ip_address
from urllib.parse import urlsplit

import aiohttp

from app.doctor.place import ANSWER, Place


@dataclass(frozen=True)
class Answer:
    """Of one address."""

    host: str
    trouble: str = ""  # why there is none
    date: float | None = None  # what its clock showed, in whole Unix seconds
    asked: float = 0.0  # by our own, in Unix seconds
    answered: float = 0.0

    @property
    def public(self) -> bool:
        """Is it somebody else's machine?"""
        try:
            return not ip_address(self.host).is_loopback
        except ValueError:
            return self.host != "localhost"


async def answers(place: Place) -> Mapping[str, Answer]:
    """Of each destination that is not off."""

    async def ask() -> Mapping[str, Answer]:
        on = {name: one.endpoint for name, one in place.settings.destinations.items() if one.mode != "off"}
        found = await asyncio.gather(*map(head, on.values()))
        return dict(zip(on, found, strict=True))

    found: Mapping[str, Answer] = await place.once("web", ask)
    return found


async def head(address: str) -> Answer:
    """Ask for the root of the address' server: its path may do something, and its query may hold a secret."""
    parts = urlsplit(address)
    host, begun = parts.hostname or "", time.time()
    try:
        async with (
            aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as http,
            http.head(
                f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}/",
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=ANSWER),
            ) as answer,
        ):
            return Answer(host, "", _date(answer.headers), begun, time.time())
    except aiohttp.ClientConnectorDNSError:
        return Answer(host, "its name cannot be resolved")
    except aiohttp.ClientConnectorCertificateError:
        return Answer(host, "its certificate is not one that this machine trusts, or has ended")
    except aiohttp.ClientSSLError:
        return Answer(host, "no TLS connection")
    except TimeoutError:
        return Answer(host, f"no answer within {ANSWER:g} s")
    except (aiohttp.ClientError, OSError, ValueError) as exc:  # not its text: it holds the address
        return Answer(host, f"no answer: {type(exc).__name__}")


def _date(headers: Mapping[str, str]) -> float | None:
    """A cache that answers says how long ago it was, beside when."""
    try:
        age = float(headers.get("Age", 0))
        return parsedate_to_datetime(headers["Date"]).timestamp() + age
    except (KeyError, ValueError, TypeError):
        return None
