"""Ids as a platform's own cookie has them, and as its API wants them.

A back end that reads a cookie hands on what stands in it, so both ways in read the same forms: the collector in cookies, normalize
in what it is told. Sources: each platform's documentation and its tag templates.
"""

import re

#: By our names: _ga, whose id is a number, a dot and seconds; _ga_<stream>, in its older form GS1.1.<id>.… and its newer one
#: GS2.1.s<id>$o…; _gcl_aw; _uetmsclkid.
_COOKIES = {
    "ga_client_id": re.compile(r"GA1\.\d(?:-\d)?\.(.*)"),
    "ga_session_id": re.compile(r"GS[12]\.\d\.s?(\d{8,12})(?:[.$].*)?"),
    "gclid": re.compile(r"GCL\.\d+\.(\S+)"),
    "msclkid": re.compile(r"_uet(\S+)"),
}


def in_cookie(name: str, value: str) -> str:
    """The id of our name in its cookie; empty where the value is not of the cookie's form."""
    found = _COOKIES[name].fullmatch(value)
    return found[1] if found else ""


def bare(name: str, value: str) -> str:
    """The id alone, from itself or from its cookie."""
    found = _COOKIES[name].fullmatch(value) if name in _COOKIES else None
    return found[1] if found else value
