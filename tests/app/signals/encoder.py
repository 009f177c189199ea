"""A small encoder of TC and GPP strings, for tests alone: written from the specifications, and shares nothing with the decoders."""

from collections.abc import Sequence
from typing import Any

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def base64url(bits: str) -> str:
    bits += "0" * (-len(bits) % 8)
    bits += "0" * (-len(bits) % 6)
    return "".join(ALPHABET[int(bits[at : at + 6], 2)] for at in range(0, len(bits), 6))


def number(value: int, size: int) -> str:
    return f"{value:0{size}b}"


def letters(text: str) -> str:
    return "".join(number(ord(letter) - ord("A"), 6) for letter in text)


def field(places: Sequence[int], size: int) -> str:
    return "".join("1" if place in places else "0" for place in range(1, size + 1))


def entries(ids: Sequence[int]) -> str:
    """Every id as an entry of its own, but neighbours as a range."""
    runs: list[list[int]] = []
    for one in sorted(set(ids)):
        if runs and one == runs[-1][-1] + 1:
            runs[-1].append(one)
        else:
            runs.append([one])
    told = (f"1{number(r[0], 16)}{number(r[-1], 16)}" if len(r) > 1 else f"0{number(r[0], 16)}" for r in runs)
    return number(len(runs), 12) + "".join(told)


def vendors(ids: Sequence[int], *, ranges: bool) -> str:
    highest = max(ids, default=0)
    return number(highest, 16) + ("1" + entries(ids) if ranges else "0" + field(ids, highest))


def tc_string(
    *,
    purposes: Sequence[int] = (),
    legitimate_interests: Sequence[int] = (),
    consents: Sequence[int] = (),
    interests: Sequence[int] = (),
    restrictions: Sequence[tuple[int, int, Sequence[int]]] = (),
    special_features: Sequence[int] = (),
    disclosed: Sequence[int] | None = None,
    ranges: bool = False,
    version: int = 2,
    language: str = "EN",
) -> str:
    core = (
        number(version, 6)
        + number(17_699_904_000, 36) * 2
        + number(31, 12)
        + number(640, 12)
        + number(1, 6)
        + letters(language)
        + number(142, 12)
        + number(5, 6)
        + "10"
        + field(special_features, 12)
        + field(purposes, 24)
        + field(legitimate_interests, 24)
        + "0"
        + letters("DE")
        + vendors(consents, ranges=ranges)
        + vendors(interests, ranges=ranges)
        + number(len(restrictions), 12)
        + "".join(number(purpose, 6) + number(kind, 2) + entries(who) for purpose, kind, who in restrictions)
    )
    segments = [base64url(core)]
    if disclosed is not None:
        segments.append(base64url(number(1, 3) + vendors(disclosed, ranges=ranges)))
    return ".".join(segments)


def fibonacci(value: int) -> str:
    places = [1, 2]
    while places[-1] <= value:
        places.append(places[-1] + places[-2])
    bits = ""
    for place in reversed([one for one in places if one <= value]):
        bits = ("1" if place <= value else "0") + bits
        value -= place if place <= value else 0
    return bits + "1"


def gpp_header(ids: Sequence[int]) -> str:
    bits, last = "", 0
    for one in sorted(ids):
        bits += "0" + fibonacci(one - last)
        last = one
    return base64url(number(3, 6) + number(1, 6) + number(len(ids), 12) + bits)


def us_national(*, gpc: bool | None = None, **fields: Any) -> str:
    """A section of version 1; what is not given is 0."""
    sizes = dict.fromkeys(
        (
            *("SharingNotice", "SaleOptOutNotice", "SharingOptOutNotice", "TargetedAdvertisingOptOutNotice"),
            *("SensitiveDataProcessingOptOutNotice", "SensitiveDataLimitUseNotice"),
            *("SaleOptOut", "SharingOptOut", "TargetedAdvertisingOptOut"),
        ),
        1,
    )
    sizes |= {"SensitiveDataProcessing": 12, "KnownChildSensitiveDataConsents": 2, "PersonalDataConsents": 1}
    sizes |= dict.fromkeys(("MspaCoveredTransaction", "MspaOptOutOptionMode", "MspaServiceProviderMode"), 1)
    bits = number(1, 6)
    for name, size in sizes.items():
        given = fields.pop(name, [0] * size)
        bits += "".join(number(one, 2) for one in (given if isinstance(given, list) else [given]))
    assert not fields
    core = base64url(bits)
    return core if gpc is None else f"{core}.{base64url('01' + ('1' if gpc else '0'))}"


def gpp_string(sections: dict[int, str]) -> str:
    return "~".join([gpp_header(list(sections)), *(sections[one] for one in sorted(sections))])
