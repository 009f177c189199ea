"""Which pages may send events, and which of other origins may read our answers
(https://fetch.spec.whatwg.org/#http-cors-protocol).
"""

from collections.abc import Collection, Mapping

from app.collector import domains

_SHOWN = {"Access-Control-Expose-Headers": "Retry-After", "Vary": "Origin"}


def headers(asked: Mapping[str, str], origins: Collection[str]) -> dict[str, str]:
    """Of an answer to a request with these headers.

    With its cookies a page may ask that is listed, or that is of our own site by the browser's own word, which no page can
    write. Everybody else, where `*` lets everybody, without.
    """
    origin = asked.get("Origin")
    if not origin:
        return {}
    if origin in origins or ("*" in origins and asked.get("Sec-Fetch-Site") == "same-site"):
        return _SHOWN | {"Access-Control-Allow-Origin": origin, "Access-Control-Allow-Credentials": "true"}
    return _SHOWN | {"Access-Control-Allow-Origin": "*"} if "*" in origins else {}


def stranger(asked: Mapping[str, str], origins: Collection[str]) -> bool:
    """Does the browser say that a page is none of those listed? One of our own origin is no stranger. Programs name no origin."""
    origin = asked.get("Origin")
    return bool(origin) and not {"*", origin} & {*origins} and not _of_our_own_origin(asked)


def _of_our_own_origin(asked: Mapping[str, str]) -> bool:
    """Browsers before 2023 do not say so (Safari 16.3); their hosts are the same then, and no page can write either of them."""
    if fetched := asked.get("Sec-Fetch-Site"):
        return fetched == "same-origin"
    host = domains.host_of(asked.get("Host", ""))
    return host != "" and host == domains.host_of(asked.get("Origin", ""))
