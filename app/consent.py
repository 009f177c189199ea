"""What the consent of an event allows a destination. Pure, and it fails closed.

    read     what each source says of the four signals of Google consent mode, and who opted out   (app/signals/ decodes)
    judge    that, the destination's policy and its platform -> may it have the event, whole or in part?
    applied  the event as the sink may see it

A signal is granted when somebody grants it and nobody denies it. Whatever cannot be read denies. docs/consent.md tells the rules.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Literal

from app.destination import ConsentPolicy, SignalName
from app.events import CONTRADICTORY, SIGNALS, Event
from app.merge import only_grants
from app.signals import Unreadable, gpp, tcf, us_privacy

#: purpose of a sink -> signals that must be granted
DEFAULT_NEEDS: Mapping[str, tuple[SignalName, ...]] = {
    "advertising": ("ad_storage", "ad_user_data"),
    "analytics": ("analytics_storage",),
    "other": ("ad_user_data",),
}

#: Signal -> the purposes of a TC string that must all be allowed for it. The three for advertising are Google's own reading
#: (developers.google.com/tag-platform/security/guides/implement-TCF-strings), which has none for analytics: purpose 8 is
#: measuring content, and storage takes purpose 1.
TCF_PURPOSES: Mapping[SignalName, tuple[int, ...]] = {
    "ad_storage": (1,),
    "ad_user_data": (1, 7),
    "ad_personalization": (3, 4),
    "analytics_storage": (1, 8),
}
#: For these the framework knows consent only.
_BY_CONSENT_ALONE = (1, 3, 4, 5, 6)

_SIGNALS = frozenset(SIGNALS)
_ADVERTISING = ("ad_storage", "ad_user_data", "ad_personalization")

#: Of the signals, those that Google's interfaces have a field for; what a denied storage held must not be sent at all.
_TELLABLE = ("ad_user_data", "ad_personalization")

#: What a platform can be told with an event: that the person opted out, or which signals are denied.
Flag = Literal["opt_out", "signals"]

_LONGEST_BASIS = 300


@dataclass(slots=True)
class Read:
    """What an event's consent says, all of it."""

    signals: dict[str, str] = field(default_factory=dict)
    why: dict[str, str] = field(default_factory=dict)  # signal -> which source decided, where it was no plain signal
    opt_outs: list[str] = field(default_factory=list)  # of US privacy laws and Global Privacy Control
    refusals: list[str] = field(default_factory=list)  # why advertising gets nothing, whatever else is said
    contradictory: set[str] = field(default_factory=set)  # signals that one source grants and another denies

    def say(self, name: str, value: Any, why: str = "") -> None:
        """Denials win, and the first of them is told."""
        said = "granted" if value == "granted" else "denied"
        if self.signals.get(name, said) != said:
            self.contradictory.add(name)
        if name not in self.signals or (said == "denied" and self.signals[name] == "granted"):
            self.signals[name] = said
            self.why[name] = why

    def deny(self, names: Collection[str], why: str) -> None:
        for name in names:
            self.say(name, "denied", why)


@dataclass(frozen=True)
class Verdict:
    allowed: bool
    basis: str  # "ad_storage granted, ad_user_data granted": what was decided on, for receipts and pages
    reason: str = ""  # "consent_denied" or "consent_absent" when not allowed
    part: Literal["", "strip", "flag"] = ""  # how an event goes that may go in part only
    plain: bool = field(default=False, compare=False)  # nothing was said but grants: the event may be seen as it is


def judge(
    consent: Mapping[str, Any],
    purpose: str,
    policy: ConsentPolicy,
    *,
    vendor: int | None = None,
    flags: frozenset[Flag] = frozenset(),
    place: str = "",
    site: str = "",
) -> Verdict:
    """May a destination of this purpose have an event with this consent?

    `vendor` and `flags` are the sink's: its id on the IAB's list, and what its platform can be told; `place` is `place_of` the
    event, `site` its own.
    """
    if consent.keys() <= _SIGNALS and only_grants(consent):  # most often, and of few kinds
        return _of_grants(tuple(consent), purpose, policy, vendor, flags, place, site)
    return _judge(consent, purpose, policy, vendor, flags, place, site)


@lru_cache(maxsize=4096)
def _of_grants(names: Iterable[str], *asked: Any) -> Verdict:
    return replace(_judge(dict.fromkeys(names, "granted"), *asked), plain=True)


def _judge(
    consent: Mapping[str, Any],
    purpose: str,
    policy: ConsentPolicy,
    vendor: int | None,
    flags: Collection[Flag],
    place: str,
    site: str,
) -> Verdict:
    general, policy = policy, policy.at(place)
    where = "" if policy is general else policy.place
    found = read(consent, policy, vendor)
    advertises = purpose != "analytics"
    if advertises and found.refusals:
        return _verdict(where, found.refusals[0], "consent_denied")
    needs = DEFAULT_NEEDS[purpose] if policy.needs is None else policy.needs
    basis = ", ".join(_told(found, name) for name in needs) or "no signal needed"
    signals = found.signals
    denied = [name for name in needs if signals.get(name) == "denied"]
    granted = [name for name in needs if signals.get(name) == "granted"]
    opted_out = found.opt_outs if advertises else []
    in_part = policy.partial != "drop" and (granted or not denied)
    if (opted_out or denied) and not in_part:
        return _verdict(where, opted_out[0] if opted_out else basis, "consent_denied")
    if len(denied) + len(granted) < len(needs) and not policy.assumes(site):
        return _verdict(where, basis, "consent_denied" if denied else "consent_absent")
    if not opted_out and not denied:
        return _verdict(where, basis)
    return _in_part(policy, where, ", ".join([*opted_out, basis]), flags, opted_out=bool(opted_out), denied=denied)


def may_deny(consent: Mapping[str, Any]) -> bool:
    """False where all that is said is a plain grant: then nothing has to be read."""
    return any(said != "granted" and name not in ("region", "categories") for name, said in consent.items())


def denies(
    consent: Mapping[str, Any],
    purpose: str,
    policy: ConsentPolicy,
    *,
    vendor: int | None = None,
    flags: Collection[Flag] = (),
) -> bool:
    """Does it deny, for whatever place, anything that a destination of this purpose needs, or that its platform is told?"""
    found = read(consent, policy, vendor)
    if (found.opt_outs or found.refusals) and (purpose != "analytics" or flags):
        return True
    needs = (DEFAULT_NEEDS[purpose] if one is None else one for one in (policy.needs, *_elsewhere(policy)))
    names = {*_TELLABLE} if "signals" in flags else set[str]()
    return any(found.signals.get(name) == "denied" for name in names.union(*needs))


def _elsewhere(policy: ConsentPolicy) -> list[Any]:
    return [one.needs for one in policy.regions.values() if one.needs is not None]


def _in_part(
    policy: ConsentPolicy, where: str, basis: str, flags: Collection[Flag], *, opted_out: bool, denied: Collection[str]
) -> Verdict:
    if policy.partial == "strip":
        return _verdict(where, f"{basis}; without identifiers", part="strip")
    tellable = _TELLABLE if "signals" in flags else ()
    if (opted_out and "opt_out" not in flags) or not set(denied).issubset(tellable):
        return _verdict(where, f"{basis}; the platform cannot be told so", "consent_denied")
    return _verdict(where, f"{basis}; the platform is told so", part="flag")


def _verdict(where: str, basis: str, reason: str = "", part: Literal["", "strip", "flag"] = "") -> Verdict:
    """`where`: for which place the policy is, if it is not for all."""
    if where:
        basis = f"{basis} (policy for {where})"
    return Verdict(not reason, basis[:_LONGEST_BASIS], reason, part)


def _told(found: Read, name: str) -> str:
    why = found.why.get(name)
    told = f"{name} {found.signals.get(name, 'absent')}" + (f" by {why}" if why else "")
    return f"{told} (contradictory)" if name in found.contradictory else told


def place_of(event: Event) -> str:
    """Where the person was: `US-CA`, `DE`, or nothing where that is not known or told in two ways.

    Where the person was asked counts more than where it lives.
    """
    asked = event.get("consent", {}).get("region")
    if asked is not None:
        return asked if is_place(asked) else ""
    user = event.get("user", {})
    country, region = user.get("country", ""), user.get("region", "").strip().upper()
    region = region if "-" in region else f"{country}-{region}"
    return region if region.startswith(f"{country}-") and is_place(region) else country


_PLACE = re.compile("[A-Z]{2}(-[A-Z0-9]{1,3})?")


def is_place(text: str) -> bool:
    """Does it look like a country or one of its parts, as ISO 3166 writes them?"""
    return _PLACE.fullmatch(text) is not None


def applied(event: Event, verdict: Verdict, policy: ConsentPolicy, vendor: int | None) -> Event:
    """The event as a sink may see it: each signal decided, and nothing that this verdict keeps back.

    A sink finds in `consent` the four signals with all strings read into them, and `limited` where its platform must be told
    that the person opted out. Changes nothing of the event itself.
    """
    if verdict.plain:
        return event
    said = event.get("consent", {})
    found = read(said, policy.at(place_of(event)) if policy.regions else policy, vendor)
    if found.opt_outs or found.refusals:
        found.deny(_ADVERTISING, "")
    told: Any = {**said, **found.signals}
    if verdict.part == "flag" and found.opt_outs:
        told["limited"] = True
    seen: Any = {**event, "consent": told} if told else event
    return _stripped(seen) if verdict.part == "strip" else seen


#: Who it was: the person, the browser's cookies and click ids, and what a shop added, which nobody knows.
_IDENTIFYING = ("user", "ids", "custom")


def _stripped(event: Event) -> Event:
    kept: Any = {name: part for name, part in event.items() if name not in _IDENTIFYING}
    context: dict[str, Any] = dict(kept.pop("context", {}))
    for name in ("ip", "user_agent"):
        context.pop(name, None)
    for name in ("url", "referrer"):
        if name in context:
            context[name] = re.split("[?#]", context[name], maxsplit=1)[0]  # click ids stand in the query
    if context:
        kept["context"] = context
    stripped: Event = kept
    return stripped


# What is said


def read(consent: Mapping[str, Any], policy: ConsentPolicy, vendor: int | None = None) -> Read:
    """Everything that this consent says, for a vendor and a policy at its place. Raises nothing."""
    found = Read()
    for name in SIGNALS:
        if consent.get(name) is not None:
            found.say(name, consent[name])
    if consent.get("gpc"):
        found.opt_outs.append("gpc on")
    _us_privacy(found, consent.get("us_privacy"))
    vendor = vendor if policy.vendor is None else policy.vendor or None
    _tcf(found, consent.get("tcf"), policy, vendor)
    _gpp(found, consent.get("gpp"), policy, vendor)
    return found


def _us_privacy(found: Read, text: Any) -> None:
    if text is None:
        return
    try:
        said = us_privacy.decode(text)
    except (Unreadable, TypeError):
        found.refusals.append(f"us_privacy {_why_not(text)}, counts as denied")
        return
    _opted_out_of_sale(found, said, "us_privacy")


def _opted_out_of_sale(found: Read, said: us_privacy.UsPrivacy, where: str) -> None:
    if said.opt_out_sale:
        found.opt_outs.append(f"{where} opted out of sale")


def _tcf(found: Read, text: Any, policy: ConsentPolicy, vendor: int | None) -> None:
    if text is None:
        return
    try:
        _purposes(found, tcf.decode(text), policy, vendor, "tcf")
    except (Unreadable, TypeError, AttributeError):
        _unreadable(found, "tcf", text)


def _gpp(found: Read, text: Any, policy: ConsentPolicy, vendor: int | None) -> None:
    if text is None:
        return
    try:
        sections = gpp.decode(text).sections
    except (Unreadable, TypeError, AttributeError):
        _unreadable(found, "gpp", text)
        return
    for name, section in sections:
        match section:
            case tcf.TcString():
                _purposes(found, section, policy, vendor, f"gpp {name}")
            case us_privacy.UsPrivacy():
                _opted_out_of_sale(found, section, f"gpp {name}")
            case gpp.UsSection():
                _us_section(found, section, f"gpp {name}")
            case gpp.Unknown():
                _refuse_all(found, f"gpp {name} is not read")


def _unreadable(found: Read, name: str, text: Any) -> None:
    _refuse_all(found, f"{name} {_why_not(text)}")


def _refuse_all(found: Read, why: str) -> None:
    """Nobody knows what it says, so it counts as a denial of everything."""
    found.deny(SIGNALS, why)
    found.refusals.append(f"{why}, counts as denied")


def _why_not(text: Any) -> str:
    return CONTRADICTORY if text == CONTRADICTORY else "unreadable"


def _us_section(found: Read, section: gpp.UsSection, where: str) -> None:
    """An opt-out is 1; of a child anything is told but 0; of sensitive data 1 is no consent."""
    if any(section.values("KnownChildSensitiveDataConsents")):
        found.refusals.append(f"{where} known child")
    for name in ("SaleOptOut", "SharingOptOut", "TargetedAdvertisingOptOut", "SensitiveDataProcessing"):
        if 1 in section.values(name):
            found.opt_outs.append(f"{where} {name}")
    if section.gpc:
        found.opt_outs.append(f"{where} Gpc")


def _purposes(found: Read, said: tcf.TcString, policy: ConsentPolicy, vendor: int | None, where: str) -> None:
    for name, usual in TCF_PURPOSES.items():
        purposes: Sequence[int] = policy.purposes.get(name, usual)
        if purposes:  # a signal without purposes: this string says nothing of it
            # which company measures content is the site's choice of an analytics tool, and no matter of ads
            one = vendor if name in _ADVERTISING else None
            lacking = next(filter(None, (_lacking(said, p, one, policy.legitimate_interest) for p in purposes)), "")
            found.say(name, "denied" if lacking else "granted", f"{where} {lacking}".strip())


def _lacking(said: tcf.TcString, purpose: int, vendor: int | None, interests: Collection[int]) -> str:
    """What is missing for a purpose; an empty text when it is allowed, on one legal basis or the other."""
    if vendor is not None and said.disclosed_vendors and vendor not in said.disclosed_vendors:
        return f"vendor {vendor} not disclosed"
    by_interest = purpose in interests and purpose not in _BY_CONSENT_ALONE
    if vendor is not None and said.restricted(purpose, vendor, "not_allowed"):
        return f"purpose {purpose} restricted"
    if by_interest and purpose in said.purposes.legitimate_interest:
        barred = vendor is not None and said.restricted(purpose, vendor, "require_consent")
        if not barred and (vendor is None or vendor in said.vendor_legitimate_interests):
            return ""
    if purpose not in said.purposes.consent:
        return f"purpose {purpose}"
    if vendor is None:
        return ""
    if said.restricted(purpose, vendor, "require_legitimate_interest"):
        return f"purpose {purpose} restricted"
    return "" if vendor in said.vendor_consents else f"vendor {vendor}"
