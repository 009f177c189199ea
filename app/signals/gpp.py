"""The GPP string of the IAB's Global Privacy Platform: a header that names sections, and the sections.

github.com/InteractiveAdvertisingBureau/Global-Privacy-Platform
    Core/Consent String Specification.md    header, sections, Fibonacci coding
    Sections/Section Information.md         ids and names
    Sections/US-National/IAB Privacy's Multi-State Privacy Agreement (MSPA) US National Technical Specification.md
    Sections/US-States/CA/GPP-Extension-IAB Privacy's California Privacy Technical Specification.md

Read are the European section, the older four characters for the US, the US as a whole, and California. Any other section
is named, and its content is not looked at.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from app.signals import tcf, us_privacy
from app.signals._bits import LONGEST, Bits, Unreadable

#: section id -> the name its API goes by
NAMES = {
    2: "tcfeuv2",
    5: "tcfcav1",
    6: "uspv1",
    7: "usnat",
    8: "usca",
    9: "usva",
    10: "usco",
    11: "usut",
    12: "usct",
    13: "usfl",
    14: "usmt",
    15: "usor",
    16: "ustx",
    17: "usde",
    18: "usia",
    19: "usne",
    20: "usnh",
    21: "usnj",
    22: "ustn",
    23: "usmn",
    24: "usmd",
    25: "usin",
    26: "usky",
    27: "usri",
}

#: (field, how many values of two bits), in order
_US_NATIONAL_1 = (
    ("SharingNotice", 1),
    ("SaleOptOutNotice", 1),
    ("SharingOptOutNotice", 1),
    ("TargetedAdvertisingOptOutNotice", 1),
    ("SensitiveDataProcessingOptOutNotice", 1),
    ("SensitiveDataLimitUseNotice", 1),
    ("SaleOptOut", 1),
    ("SharingOptOut", 1),
    ("TargetedAdvertisingOptOut", 1),
    ("SensitiveDataProcessing", 12),
    ("KnownChildSensitiveDataConsents", 2),
    ("PersonalDataConsents", 1),
    ("MspaCoveredTransaction", 1),
    ("MspaOptOutOptionMode", 1),
    ("MspaServiceProviderMode", 1),
)
_LONGER = {"SensitiveDataProcessing": 16, "KnownChildSensitiveDataConsents": 3}
_CALIFORNIA = (
    ("SaleOptOutNotice", 1),
    ("SharingOptOutNotice", 1),
    ("SensitiveDataLimitUseNotice", 1),
    ("SaleOptOut", 1),
    ("SharingOptOut", 1),
    ("SensitiveDataProcessing", 9),
    ("KnownChildSensitiveDataConsents", 2),
    ("PersonalDataConsents", 1),
    ("MspaCoveredTransaction", 1),
    ("MspaOptOutOptionMode", 1),
    ("MspaServiceProviderMode", 1),
)
#: name -> version -> fields
_US: Mapping[str, Mapping[int, tuple[tuple[str, int], ...]]] = {
    "usnat": {1: _US_NATIONAL_1, 2: tuple((name, _LONGER.get(name, count)) for name, count in _US_NATIONAL_1)},
    "usca": {1: _CALIFORNIA},
}


@dataclass(frozen=True)
class UsSection:
    """Of US law. 0 is not applicable; of an opt-out 1 is yes and 2 no; of a consent 1 is no and 2 yes."""

    version: int
    fields: tuple[tuple[str, tuple[int, ...]], ...]  # of one value, or of a list of them
    gpc: bool | None = None  # Global Privacy Control; None: no such sub-section

    def values(self, name: str) -> tuple[int, ...]:
        """Those of a field; none where the section has no such field."""
        return dict(self.fields).get(name, ())

    def as_json(self) -> dict[str, Any]:
        lists = ("SensitiveDataProcessing", "KnownChildSensitiveDataConsents")
        told: dict[str, Any] = {"Version": self.version}
        told |= {name: list(values) if name in lists else values[0] for name, values in self.fields}
        return told if self.gpc is None else told | {"Gpc": self.gpc}


@dataclass(frozen=True)
class Unknown:
    """A section that is not read here."""

    def as_json(self) -> dict[str, Any]:
        return {"read": False}


Section = tcf.TcString | us_privacy.UsPrivacy | UsSection | Unknown


@dataclass(frozen=True)
class Gpp:
    sections: tuple[tuple[str, Section], ...]  # by name, in the header's order

    def as_json(self) -> dict[str, Any]:
        return {"sections": {name: section.as_json() for name, section in self.sections}}


@lru_cache(maxsize=1024)
def decode(text: str) -> Gpp:
    """Raises Unreadable, also when one of the sections that are read here is."""
    if len(text) > LONGEST:
        raise Unreadable("header", "is too long")
    header, *sections = text.split("~")
    ids = _header(header)
    if len(ids) != len(sections):
        raise Unreadable("header", f"names {len(ids)} sections, and {len(sections)} follow")
    names = [NAMES.get(one, f"section {one}") for one in ids]
    return Gpp(tuple((name, _section(name, section)) for name, section in zip(names, sections, strict=True)))


def _header(text: str) -> list[int]:
    bits = Bits(text, "header")
    if bits.number(6) != 3:
        raise bits.wrong("is not of type 3")
    if (version := bits.number(6)) != 1:
        raise bits.wrong(f"is of version {version}; version 1 is read")
    ids: list[int] = []
    last = 0
    for _ in range(bits.number(12)):
        is_range = bits.flag()
        first = last + bits.fibonacci()  # each is told by its distance from the one before
        last = first + bits.fibonacci() if is_range else first
        if last - first > 100:
            raise bits.wrong("names more sections than there are")
        ids += range(first, last + 1)
    bits.end()
    return ids


def _section(name: str, text: str) -> Section:
    try:
        if name == "tcfeuv2":
            return tcf.decode(text)
        if name == "uspv1":
            return us_privacy.decode(text)
    except Unreadable as exc:
        raise Unreadable(f"{name} {exc.segment}" if exc.segment != "us_privacy" else name, exc.why) from None
    return _us(name, text) if name in _US else Unknown()


def _us(name: str, text: str) -> UsSection:
    core, *others = text.split(".")
    bits = Bits(core, name)
    version = bits.number(6)
    if version not in _US[name]:
        raise bits.wrong(f"is of version {version}, which is not read")
    fields = tuple((field, bits.numbers(count, 2)) for field, count in _US[name][version])
    bits.end()
    if any(3 in values for _, values in fields):
        raise bits.wrong("has a value that is none")
    gpc: bool | None = None
    for other in others:
        bits = Bits(other, f"{name} sub-section")
        if bits.number(2) != 1 or gpc is not None:
            raise bits.wrong("is not of Global Privacy Control, or comes twice")
        gpc = bits.flag()
        bits.end()
    return UsSection(version, fields, gpc)
