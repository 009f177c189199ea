"""Which pages may send events, and which of other origins may read our answers
(https://fetch.spec.whatwg.org/#http-cors-protocol).
"""

from collections.abc import Collection, Mapping

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
    """Does the browser say that a page is none of those listed? One of our own origin is none. Programs name no origin."""
    origin = asked.get("Origin")
    return bool(origin) and not {"*", origin} & {*origins} and asked.get("Sec-Fetch-Site") != "same-origin"
