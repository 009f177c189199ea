"""The TC string of the IAB's Transparency and Consent Framework, version 2.0 to 2.3.

github.com/InteractiveAdvertisingBureau/GDPR-Transparency-and-Consent-Framework, TCFv2/
    IAB Tech Lab - Consent string and vendor list formats v2.md

Whether the GDPR applies to a person is not in the string.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

from app.signals._bits import LONGEST, Bits, Ids, Unreadable

_RESTRICTIONS = ("not_allowed", "require_consent", "require_legitimate_interest")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_HIGHEST = 0xFFFF


@dataclass(frozen=True)
class Purposes:
    """Purposes from 1 to 24, of which 1 to 11 are defined."""

    consent: tuple[int, ...] = ()
    legitimate_interest: tuple[int, ...] = ()

    def as_json(self) -> dict[str, Any]:
        return {"consent": list(self.consent), "legitimate_interest": list(self.legitimate_interest)}


@dataclass(frozen=True)
class Restriction:
    """What a publisher does not let these vendors do for a purpose, or on which legal basis alone."""

    purpose: int
    kind: str  # of _RESTRICTIONS
    vendors: Ids


@dataclass(frozen=True)
class Publisher:
    """What the site itself was allowed."""

    purposes: Purposes
    custom_purposes: Purposes  # the site's own, numbered from 1


@dataclass(frozen=True)
class TcString:
    created: datetime
    last_updated: datetime
    cmp_id: int
    cmp_version: int
    consent_screen: int
    consent_language: str
    vendor_list_version: int
    policy_version: int
    is_service_specific: bool
    use_non_standard_texts: bool
    special_feature_opt_ins: tuple[int, ...]
    purposes: Purposes
    purpose_one_treatment: bool  # purpose 1 was not asked for, as the publisher's country does not want it
    publisher_country: str
    vendor_consents: Ids
    vendor_legitimate_interests: Ids
    restrictions: tuple[Restriction, ...]
    disclosed_vendors: Ids | None = None  # None: no such segment, as before version 2.3
    allowed_vendors: Ids | None = None
    publisher: Publisher | None = None

    def restricted(self, purpose: int, vendor: int, kind: str) -> bool:
        return any(one.purpose == purpose and one.kind == kind and vendor in one.vendors for one in self.restrictions)

    def as_json(self) -> dict[str, Any]:
        told = {
            "created": self.created.isoformat().replace("+00:00", "Z"),
            "last_updated": self.last_updated.isoformat().replace("+00:00", "Z"),
            "cmp_id": self.cmp_id,
            "cmp_version": self.cmp_version,
            "consent_screen": self.consent_screen,
            "consent_language": self.consent_language,
            "vendor_list_version": self.vendor_list_version,
            "policy_version": self.policy_version,
            "is_service_specific": self.is_service_specific,
            "use_non_standard_texts": self.use_non_standard_texts,
            "purpose_one_treatment": self.purpose_one_treatment,
            "publisher_country": self.publisher_country,
            "purposes": self.purposes.as_json(),
            "special_feature_opt_ins": list(self.special_feature_opt_ins),
            "vendors": {
                "consent": list(self.vendor_consents),
                "legitimate_interest": list(self.vendor_legitimate_interests),
                "disclosed": None if self.disclosed_vendors is None else list(self.disclosed_vendors),
                "allowed": None if self.allowed_vendors is None else list(self.allowed_vendors),
            },
            "publisher_restrictions": [
                {"purpose": one.purpose, "type": one.kind, "vendors": list(one.vendors)} for one in self.restrictions
            ],
        }
        if self.publisher is not None:
            told["publisher"] = {
                "purposes": self.publisher.purposes.as_json(),
                "custom_purposes": self.publisher.custom_purposes.as_json(),
            }
        return told


@lru_cache(maxsize=1024)
def decode(text: str) -> TcString:
    """Raises Unreadable. The last strings are remembered: all copies of an event, and all events of a visit, carry the same."""
    if len(text) > LONGEST:
        raise Unreadable("core", "is too long")
    core, *others = text.split(".")
    return TcString(**_core(core), **_others(others))


def _core(text: str) -> dict[str, Any]:
    bits = Bits(text, "core")
    if (version := bits.number(6)) != 2:
        raise bits.wrong(f"is of version {version}; version 2 is read")
    told: dict[str, Any] = {
        "created": _moment(bits),
        "last_updated": _moment(bits),
        "cmp_id": bits.number(12),
        "cmp_version": bits.number(12),
        "consent_screen": bits.number(6),
        "consent_language": bits.letters(2),
        "vendor_list_version": bits.number(12),
        "policy_version": bits.number(6),
        "is_service_specific": bits.flag(),
        "use_non_standard_texts": bits.flag(),
        "special_feature_opt_ins": bits.field(12),
        "purposes": Purposes(bits.field(24), bits.field(24)),
        "purpose_one_treatment": bits.flag(),
        "publisher_country": bits.letters(2),
        "vendor_consents": bits.vendors(),
        "vendor_legitimate_interests": bits.vendors(),
        "restrictions": _restrictions(bits),
    }
    bits.end()
    return told


def _moment(bits: Bits) -> datetime:
    """Tenths of a second; 36 bits of them reach into the year 2187."""
    return _EPOCH + timedelta(milliseconds=bits.number(36) * 100)


def _restrictions(bits: Bits) -> tuple[Restriction, ...]:
    found: dict[tuple[int, int], Ids] = {}
    for _ in range(bits.number(12)):
        purpose, kind = bits.number(6), bits.number(2)
        if not 1 <= purpose <= 24 or kind >= len(_RESTRICTIONS):
            raise bits.wrong("has a publisher restriction that is none")
        found[purpose, kind] = found.get((purpose, kind), Ids()) | bits.ranges(_HIGHEST)
    return tuple(Restriction(purpose, _RESTRICTIONS[kind], some) for (purpose, kind), some in found.items())


def _others(segments: list[str]) -> dict[str, Any]:
    """The optional segments, in any order, each at most once."""
    names = {1: "disclosed_vendors", 2: "allowed_vendors", 3: "publisher"}
    told: dict[str, Any] = {}
    for place, text in enumerate(segments, 2):
        bits = Bits(text, f"segment {place}")
        name = names.get(bits.number(3))
        if name is None or name in told:
            raise bits.wrong("is of a type that is not known" if name is None else "comes twice")
        bits.segment = name
        told[name] = _publisher(bits) if name == "publisher" else bits.vendors()
        bits.end()
    return told


def _publisher(bits: Bits) -> Publisher:
    purposes = Purposes(bits.field(24), bits.field(24))
    custom = bits.number(6)
    return Publisher(purposes, Purposes(bits.field(custom), bits.field(custom)))
