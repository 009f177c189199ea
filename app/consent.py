"""What the consent of an event allows: signals -> verdict. It fails closed.

Read today: Google consent mode's four signals, Global Privacy Control and the US privacy string. A TCF or GPP string is not
decoded yet, and what cannot be read counts as denied for advertising.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from app.settings import ConsentPolicy

#: purpose of a sink -> signals that must be granted
DEFAULT_NEEDS: Mapping[str, tuple[str, ...]] = {
    "advertising": ("ad_storage", "ad_user_data"),
    "analytics": ("analytics_storage",),
    "other": ("ad_user_data",),
}


@dataclass(frozen=True)
class Verdict:
    allowed: bool
    basis: str  # "ad_storage granted, ad_user_data granted": what was decided on, for receipts and pages
    reason: str = ""  # "consent_denied" or "consent_absent" when not allowed


def judge(consent: Mapping[str, Any], purpose: str, policy: ConsentPolicy) -> Verdict:
    """May a destination of this purpose have an event with this consent?"""
    if (denial := _opted_out(consent)) and purpose != "analytics":
        return Verdict(allowed=False, basis=denial, reason="consent_denied")
    needs = DEFAULT_NEEDS[purpose] if policy.needs is None else policy.needs
    said = {name: consent.get(name) for name in needs}
    basis = ", ".join(f"{name} {value or 'absent'}" for name, value in said.items()) or "no signal needed"
    if any(value not in ("granted", None) for value in said.values()):
        return Verdict(allowed=False, basis=basis, reason="consent_denied")
    if None in said.values() and policy.absent == "require":
        return Verdict(allowed=False, basis=basis, reason="consent_absent")
    return Verdict(allowed=True, basis=basis)


def _opted_out(consent: Mapping[str, Any]) -> str:
    """Which signal says no to advertising, or an empty text."""
    if consent.get("gpc"):
        return "gpc on"
    us_privacy = consent.get("us_privacy")
    if us_privacy is not None:
        # version, notice given, opted out of sale, limited service agreement: "1YNN". "1---" means the law does not apply
        if not re.fullmatch("1[YNyn-]{3}", us_privacy):
            return "us_privacy unreadable"
        if us_privacy[2] in "Yy":
            return "us_privacy opted out of sale"
    for name in ("tcf", "gpp"):
        if name in consent:
            return f"{name} string not decoded, counts as denied"
    return ""
