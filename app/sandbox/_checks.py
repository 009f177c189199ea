"""Small checks of foreign JSON, and how to put them together into the schema of a platform.

A check takes a value and its path and yields what is wrong with it. It never raises, whatever JSON it gets, and never
quotes the value.
"""

import hashlib
import ipaddress
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any
from urllib.parse import unquote, urlsplit

import orjson

from app.sandbox._base import Problem

Problems = Iterator[Problem]
Check = Callable[[Any, str], Problems]

HASH = re.compile(r"[0-9a-f]{64}")
EMPTY_HASH = hashlib.sha256(b"").hexdigest()


def words(text: str) -> frozenset[str]:
    return frozenset(text.split())


#: ISO 4217, active codes of money in use.
CURRENCIES = words(
    """
    AED AFN ALL AMD ANG AOA ARS AUD AWG AZN BAM BBD BDT BGN BHD BIF BMD BND BOB BRL BSD BTN BWP BYN BZD CAD CDF CHF
    CLP CNY COP CRC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GNF GTQ GYD HKD HNL HTG
    HUF IDR ILS INR IQD IRR ISK JMD JOD JPY KES KGS KHR KMF KPW KRW KWD KYD KZT LAK LBP LKR LRD LSL LYD MAD MDL MGA
    MKD MMK MNT MOP MRU MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD OMR PAB PEN PGK PHP PKR PLN PYG QAR RON RSD
    RUB RWF SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TND TOP TRY TTD TWD TZS UAH UGX
    USD UYU UZS VED VES VND VUV WST XAF XCD XCG XOF XPF YER ZAR ZMW ZWG
    """
)

_PLAIN_KEY = re.compile(r"[\w$-]{1,64}")
_EMAIL = re.compile(r"""[^\s@/?&=#:;,<>()"']{1,64}@(?:[\w-]{1,63}\.)+[^\W\d_]{2,}""")
_SUSPICIOUS = re.compile(rb"[@+%]")
_PHONE = re.compile(r"(?<![\w+])\+\d(?:[\s().-]{0,2}\d){7,14}(?!\d)")


def step(path: str, key: str) -> str:
    """The path of a field. A key that is no plain name is not quoted: it may be somebody's e-mail address."""
    return f"{path}.{_name(key)}" if path else _name(key)


@lru_cache(4096)
def _name(key: str) -> str:
    return key if _PLAIN_KEY.fullmatch(key) else "(unnamed)"


def coded(check: Check, code: str) -> Check:
    """The same check, with the platform's code for its failure."""

    def run(value: Any, path: str) -> Problems:
        return (replace(problem, code=problem.code or code) for problem in check(value, path))

    return run


def anything(_value: Any, _path: str) -> Problems:
    return iter(())


def text(value: Any, path: str) -> Problems:
    if not isinstance(value, str):
        yield Problem(path, "must be a string")
    elif not value.strip():
        yield Problem(path, "is empty")


def like(pattern: str, what: str) -> Check:
    """A string of a given form."""
    form = re.compile(pattern, re.ASCII)

    def run(value: Any, path: str) -> Problems:
        if not isinstance(value, str) or not form.fullmatch(value):
            yield Problem(path, f"must be {what}")

    return run


def flag(value: Any, path: str) -> Problems:
    if not isinstance(value, bool):
        yield Problem(path, "must be true or false")


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def number(value: Any, path: str) -> Problems:
    if not is_number(value):
        yield Problem(path, "must be a number")


def whole(least: int | None = None) -> Check:
    def run(value: Any, path: str) -> Problems:
        if not isinstance(value, int) or isinstance(value, bool):
            yield Problem(path, "must be an integer")
        elif least is not None and value < least:
            yield Problem(path, f"must be at least {least}")

    return run


def scalar(value: Any, path: str) -> Problems:
    if not isinstance(value, str | bool) and not is_number(value):
        yield Problem(path, "must be a string, a number or a boolean")


def text_or_whole(value: Any, path: str) -> Problems:
    return text(value, path) if isinstance(value, str) else _whole(value, path)


_whole = whole()


def one_of(*allowed: str | int) -> Check:
    def run(value: Any, path: str) -> Problems:
        if not any(type(value) is type(one) and value == one for one in allowed):  # True is not 1 here
            yield Problem(path, "must be one of: " + ", ".join(map(str, allowed)))

    return run


def each(check: Check, *, least: int = 1, most: int | None = None) -> Check:
    """An array, with a check of its members."""

    def run(value: Any, path: str) -> Problems:
        if not isinstance(value, list):
            yield Problem(path, "must be an array")
            return
        if len(value) < least:
            yield Problem(path, f"must have at least {least} entries")
        if most is not None and len(value) > most:
            yield Problem(path, f"must have at most {most} entries")
            return
        for index, member in enumerate(value):
            yield from check(member, f"{path}[{index}]")

    return run


def one_or_many(check: Check, *, most: int | None = None) -> Check:
    many = each(check, most=most)

    def run(value: Any, path: str) -> Problems:
        return many(value, path) if isinstance(value, list) else check(value, path)

    return run


def record(fields: Mapping[str, Check], *, required: tuple[str, ...] = (), others: Check | None = None) -> Check:
    """An object with known fields; others are refused, or checked by `others`."""

    def run(value: Any, path: str) -> Problems:
        if not isinstance(value, dict):
            yield Problem(path, "must be an object")
            return
        for key in required:
            if key not in value:
                yield Problem(step(path, key), "is missing")
        for key, member in value.items():
            check = fields.get(key, others)
            if check is None:
                yield Problem(step(path, key), "is an unknown field")
            else:
                yield from check(member, step(path, key))

    return run


def url(value: Any, path: str) -> Problems:
    if not _is_url(value):
        yield Problem(path, "must be a full URL with scheme")


def _is_url(value: Any) -> bool:
    if not isinstance(value, str) or re.search(r"\s", value):
        return False
    try:
        found = urlsplit(value)
    except ValueError:
        return False
    return found.scheme in {"http", "https"} and bool(found.hostname)


def sha256(value: Any, path: str) -> Problems:
    if not isinstance(value, str) or not HASH.fullmatch(value):
        yield Problem(path, "must be a SHA-256 in 64 lowercase hex digits")
    elif value == EMPTY_HASH:
        yield Problem(path, "is the hash of an empty string")


def not_hashed(check: Check) -> Check:
    def run(value: Any, path: str) -> Problems:
        if isinstance(value, str) and HASH.fullmatch(value.lower()):
            yield Problem(path, "must not be hashed")
        else:
            yield from check(value, path)

    return run


def ip(value: Any, path: str) -> Problems:
    if parse_ip(value) is None:
        yield Problem(path, "must be an IPv4 or IPv6 address")


def parse_ip(value: Any) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(value) if isinstance(value, str) else None
    except ValueError:
        return None


def upper_currency(value: Any, path: str) -> Problems:
    if not isinstance(value, str) or value not in CURRENCIES:
        yield Problem(path, "must be an ISO 4217 code in upper case")


def any_case_currency(value: Any, path: str) -> Problems:
    if not isinstance(value, str) or value not in {value.upper(), value.lower()} or value.upper() not in CURRENCIES:
        yield Problem(path, "must be an ISO 4217 code")


def personal(value: str) -> str:
    """What clear personal data a string holds: "e-mail address", "phone number" or nothing."""
    for _ in range(3):  # a URL inside a URL is encoded twice
        if "@" in value and _EMAIL.search(value):
            return "e-mail address"
        if "+" in value and _PHONE.search(value):
            return "phone number"
        if "%" not in value:
            break
        value = unquote(value)
    return ""


def clear_data(value: Any, path: str) -> Problems:
    """E-mail addresses and phone numbers in clear, at any depth, in names as in values."""
    if not _SUSPICIOUS.search(orjson.dumps(value)):  # most events: ten times faster than a walk
        return
    todo = [(value, path)]
    while todo:
        member, place = todo.pop()
        if isinstance(member, str) and (what := personal(member)):
            yield Problem(place, f"clear personal data: {what}")
        elif isinstance(member, list):
            todo.extend((one, f"{place}[{index}]") for index, one in enumerate(member))
        elif isinstance(member, dict):
            todo.extend((key, step(place, key)) for key in member)
            todo.extend((one, step(place, key)) for key, one in member.items())
