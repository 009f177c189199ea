"""What other people's SDKs ask and send beside the calls of the Segment spec: docs/clients.md tells how each is pointed here.

    GET  /v1/projects/{write key}/settings         asked first by @segment/analytics-next
    POST /api/s/<call>  and  /api/s/s2s/<call>     sent by @jitsu/js, in browsers and on servers

Pure: the routes themselves are in server.py.
"""

import re

from app.events import Json

#: Calls of the Segment spec, and the short names under which analytics-next sends them.
CALLS = ("batch", "track", "page", "screen", "identify", "group", "alias")
SHORT = {"b": "batch", "t": "track", "p": "page", "s": "screen", "i": "identify", "g": "group", "a": "alias"}

#: Headers that browsers ask leave for. analytics-next counts its attempts in one, so without it nothing is sent again.
ASKED_FOR = (
    "Authorization",
    "Content-Encoding",
    "Content-Type",
    "X-Enable-Debug",
    "X-IP-Policy",
    "X-Retry-Count",
    "X-Write-Key",
)


def call_of(path: str) -> str:
    """The call that a path ends with: `/v1/t` and `/api/s/track` are both `track`."""
    last = path.rsplit("/", 1)[-1]
    return SHORT.get(last, last)


def named_key(text: str) -> tuple[str, str]:
    """(site, key) of Jitsu's `X-Write-Key`, whose SDK takes nothing but `name:key`. Without a name the site is empty."""
    name, colon, key = text.partition(":")
    return (name, key) if colon else ("", text)


def analytics_next(write_key: str, address: str | None) -> Json:
    """The settings of a source, as analytics-next reads them: one integration, and that is us.

    Without `metrics` it would report on itself to Segment, and without the host it would send everything there.
    """
    integration: Json = {"apiKey": write_key, "unbundledIntegrations": [], "addBundledMetadata": False}
    if address is not None:
        protocol, host = address.split("://", 1)
        integration |= {"apiHost": f"{host}/v1", "protocol": protocol}
    return {
        "integrations": {"Segment.io": integration},
        "plan": {},
        "edgeFunction": {},
        "metrics": {"sampleRate": 0},
        "remotePlugins": [],
    }


def at_most(ip: str, policy: str) -> str:
    """As much of an address as Jitsu's `X-IP-Policy` leaves: whole, `stripLastOctet`, or nothing."""
    if policy == "stripLastOctet":
        return re.sub(r"(?<=\.)\d+$", "0", ip) if "." in ip else ""
    return "" if policy == "remove" else ip
