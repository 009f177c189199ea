"""First-party cookies: what a browser's request has, what its events get from it, and which cookies it is given. Pure.

    visit     the parts of a request that this is about
    applied   (events, visit, settings) -> the events with ids from cookies, and the cookies to set

Without consent nothing is read and nothing is set: client id and Google Analytics' cookies need `analytics_storage`, all
others `ad_storage`, judged as everywhere (app/consent.py).

    cs_id       our client id in the form of Google Analytics' (random number, dot, Unix seconds), for browsers without `_ga`
    cs_clicks   click ids as they stood in the address, with the time they were first seen: name.milliseconds.value|...
    _fbp, _fbc  Meta's own, in its own form, so that Meta's tag on the page and we say the same

An id is made once. The same click id keeps the time it was first seen at; another one replaces it. What is made follows from
the first event of a request and a secret, by HMAC: a request that is sent again, or beside another that repeats its events,
makes no second visitor, on whichever process.
"""

import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal, NamedTuple
from urllib.parse import quote, unquote

import orjson

from app import browser_ids, identity
from app import consent as consenting
from app.collector import domains
from app.destination import Absent, ConsentPolicy, RegionalConsent, SignalName
from app.events import Event, Json
from app.formats import NOT_AN_ID
from app.normalize import MAX_BYTES
from app.settings import Cookies

#: Click ids that platforms add to the addresses they lead to, by our names.
CLICKS = (
    *(
        "gclid",
        "gbraid",
        "wbraid",
        "fbclid",
        "ttclid",
        "epik",
        "sc_click_id",
        "rdt_cid",
        "li_fat_id",
        "msclkid",
        "twclid",
    ),
)
#: Cookies of the platforms' own tags, by our names. Sources: each platform's documentation and its tag templates.
PLATFORMS: Mapping[str, str] = {
    "_ttp": "ttp",
    "_scid": "scid",
    "_rdt_uuid": "rdt_uuid",
    # click ids: only where we have not seen the click ourselves
    "_gcl_aw": "gclid",
    "ttclid": "ttclid",
    "_epik": "epik",
    "_scclid": "sc_click_id",
    "_rdt_cid": "rdt_cid",
    "li_fat_id": "li_fat_id",
    "_uetmsclkid": "msclkid",
    "twclid": "twclid",
}
#: Of these, the ones that have more around their id.
_AROUND = {"_gcl_aw", "_uetmsclkid"}
#: fb.<index>.<milliseconds>.<random or fbclid>, to which Meta's parameter builder may add a part
_META = re.compile(r"fb\.\d\.(\d{10,16})\.([!#-+\--:<-\[\]-~]{1,1000})")
_CLIENT = re.compile(r"[1-9]\d{0,9}\.\d{10}")
_GA = re.compile(r"\d{1,10}\.\d{9,11}")
#: What a cookie's value may consist of (RFC 6265, 4.1.1).
_COOKIE = re.compile(r"[!#-+\--:<-\[\]-~]+")
_MOST_CLICKS = 3000  # characters of cs_clicks; browsers keep 4096 bytes of a cookie
#: A browser's clock that is ahead by so much, or behind by so much, is right; otherwise the corrected time counts.
_AHEAD, _BEHIND = 10_000, 3_600_000


class Visit(NamedTuple):
    """What a request says of its browser. `skew`: receipt less the browser's clock at sending, in milliseconds."""

    cookies: Mapping[str, str]
    host: str = ""
    skew: int = 0
    decided: bool = False  # is the consent in it the person's own decision, or may it be a default
    third_party: bool = False


def visit(headers: Mapping[str, str], cookies: Mapping[str, str], body: Any, received: int) -> Visit:
    """Of a request of the pixel or another browser client. Takes from the body what is not of its events."""
    decided, skew = False, 0
    if isinstance(body, dict):
        decided, sent_at = body.pop("decided", False) is True, body.get("sent_at")
        if isinstance(sent_at, int | float) and not isinstance(sent_at, bool) and abs(sent_at) < 1e15:
            skew = received - int(sent_at)
    # the page's host: a proxy may have put another into Host
    host = domains.host_of(headers.get("Origin") or headers.get("Host", ""))
    return Visit(cookies, host, skew, decided, headers.get("Sec-Fetch-Site") == "cross-site")


def applied(
    events: Iterable[Event], visit: Visit, rules: Cookies, secret: bytes, streams: Sequence[str] = ()
) -> tuple[list[Event], list[str]]:
    """The events with what cookies know, and the values of `Set-Cookie`. `streams`: GA4's measurement ids of this site."""
    if visit.third_party:
        return list(events), []
    jar = _Jar(visit, rules, secret, streams)
    done = [jar.told(event) for event in events]
    return done, jar.headers()


@dataclass
class _Jar:
    """The browser's cookies while the events of a request pass by."""

    visit: Visit
    rules: Cookies
    secret: bytes
    streams: Sequence[str]
    clicks: dict[str, tuple[int, str]] = field(init=False)  # name -> (milliseconds, value)
    values: dict[str, str] = field(default_factory=dict)  # of cookies made here, by their own name
    ages: dict[str, int] = field(default_factory=dict)  # Max-Age of what is to be set
    gone: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.clicks = _clicks(self.visit.cookies.get(self.rules.clicks or "", ""))

    def told(self, event: Event) -> Event:
        said = event.get("ids", {})
        found: Json = {}
        if self._allowed(event, "analytics", "analytics_storage", self.rules.client):
            found |= self._analytics(event, said)
        if self._allowed(event, "advertising", "ad_storage", self.rules.clicks, self.rules.fbp, self.rules.fbc):
            found |= self._advertising(event, said)
        merged: Any = {**event, "ids": {**found, **said}} if found else event
        return merged if len(orjson.dumps(merged)) <= MAX_BYTES else event

    def _allowed(self, event: Event, purpose: str, signal: SignalName, *names: str | Literal[False]) -> bool:
        """May its browser have these cookies? The last decision of a request counts."""
        policy = _policy(self.rules.absent, tuple(self.rules.regions.items()), signal)
        verdict = consenting.judge(event.get("consent", {}), purpose, policy, place=consenting.place_of(event))
        if verdict.allowed:
            self.gone -= {name for name in names if name}
        elif verdict.reason == "consent_denied" and self.visit.decided:
            self.gone |= {name for name in names if name}
        return verdict.allowed

    # -- analytics_storage

    def _analytics(self, event: Event, said: Mapping[str, Any]) -> Json:
        if "ga_client_id" in said:  # a session belongs to its client
            return {}
        client = browser_ids.bare("ga_client_id", self.visit.cookies.get("_ga", ""))
        if _GA.fullmatch(client):
            return {"ga_client_id": client, **self._session()}
        name = self.rules.client
        if not name:
            return {}
        client = self._have(name, _CLIENT)
        if not client:
            at = self._stamp(event)
            client = f"{self._number('client', event, 1 << 31) or 1}.{at // 1000}"
            self._set(name, client, self.rules.client_lifetime, event, at)
        return {"ga_client_id": client}

    def _session(self) -> Json:
        cookies = self.visit.cookies
        of_site = [f"_ga_{stream.removeprefix('G-')}" for stream in self.streams]
        any_one = [name for name in cookies if name.startswith("_ga_")]
        for name in of_site or (any_one if len(any_one) == 1 else []):
            if found := browser_ids.in_cookie("ga_session_id", cookies.get(name, "")):
                return {"ga_session_id": found}
        return {}

    # -- ad_storage

    def _advertising(self, event: Event, said: Mapping[str, Any]) -> Json:
        self._see(event, said)
        found: Json = {name: value for name, (_, value) in self.clicks.items() if name != "fbclid"}
        for cookie, name in PLATFORMS.items():
            value = self.visit.cookies.get(cookie, "")
            if cookie in _AROUND:
                value = browser_ids.in_cookie(name, value)
            if name not in found and _usable(value):
                found[name] = value
        found |= {name: make(event) for name, make in (("fbp", self._fbp), ("fbc", self._fbc)) if name not in said}
        return {name: value for name, value in found.items() if value}

    def _see(self, event: Event, said: Mapping[str, Any]) -> None:
        """Keep the click ids of an event, each with the time it was first seen at; an event that waited brings none back."""
        at, known = self._stamp(event), {name: self.clicks.get(name, (0, "")) for name in CLICKS}
        new = {
            name: said[name]
            for name, (since, value) in known.items()
            if name in said and value != said[name] and since <= at
        }
        if not new or not self.rules.clicks:
            return
        self.clicks |= {name: (at, value) for name, value in new.items()}
        oldest = at - int(self.rules.click_lifetime * 1000)
        self.clicks = {name: one for name, one in self.clicks.items() if one[0] > oldest}
        while len(text := _written(self.clicks)) > _MOST_CLICKS:
            del self.clicks[min(self.clicks, key=lambda name: self.clicks[name])]
        self._set(self.rules.clicks, text, self.rules.click_lifetime, event, at)

    def _fbp(self, event: Event) -> str:
        name = self.rules.fbp or "_fbp"
        have = self._have(name, _META)
        if have or not self.rules.fbp:
            return have
        at = self._stamp(event)
        made = f"fb.1.{at}.{10**9 + self._number('fbp', event, 9 * 10**9)}"
        self._set(name, made, self.rules.click_lifetime, event, at)
        return made

    def _fbc(self, event: Event) -> str:
        name = self.rules.fbc or "_fbc"
        have = self._have(name, _META)
        _, _, since, of_click = have.split(".", 3) if have else ("", "", "0", "")
        at, known = self.clicks.get("fbclid", (0, ""))
        fbclid = event.get("ids", {}).get("fbclid") or known
        if not fbclid or not self.rules.fbc or not _COOKIE.fullmatch(fbclid) or f"{of_click}.".startswith(f"{fbclid}."):
            return have
        at = at if known == fbclid else self._stamp(event)
        made = f"fb.1.{at}.{fbclid}"
        if int(since) <= at:
            self._set(name, made, self.rules.click_lifetime, event, at)
        return made

    # -- cookies

    def _have(self, name: str, form: re.Pattern[str]) -> str:
        value = self.values.get(name) or self.visit.cookies.get(name, "")
        return value if form.fullmatch(value) else ""

    def _set(self, name: str, value: str, lifetime: float, event: Event, at: int) -> None:
        """To live for its lifetime from `at` on; an event may have waited for days."""
        age = int(lifetime - max(event["received"] - at, 0) / 1000)
        if age > 0:
            self.values[name], self.ages[name] = value, age

    def _number(self, purpose: str, event: Event, below: int) -> int:
        digest = hmac.digest(self.secret, f"{purpose}\0{event['event_id']}".encode(), hashlib.sha256)
        return int.from_bytes(digest[:16]) % below

    def _stamp(self, event: Event) -> int:
        """When it happened, in milliseconds, by the browser's clock where that is right: it is the same in a repetition."""
        skew = self.visit.skew
        return event["time"] - (skew if -_AHEAD <= skew <= _BEHIND else 0)

    def headers(self) -> list[str]:
        there = {name: ("", 0) for name in sorted(self.gone) if name in self.visit.cookies}
        new = {name: (self.values[name], age) for name, age in self.ages.items() if name not in self.gone}
        return [self._header(name, *one) for name, one in {**new, **there}.items()]

    def _header(self, name: str, value: str, age: int) -> str:
        parts = [f"{name}={value}", f"Max-Age={age}", "Path=/", f"SameSite={self.rules.same_site.capitalize()}"]
        if domain := domain_for(self.visit.host, self.rules.domain):
            parts.append(f"Domain={domain}")
        if self.rules.secure:
            parts.append("Secure")
        if name in (self.rules.client, self.rules.clicks):  # Meta's are for Meta's tag, too
            parts.append("HttpOnly")
        return "; ".join(parts)


def domain_for(host: str, setting: str) -> str:
    """The Domain of a cookie for a page on this host; empty for that host alone."""
    if setting == "host":
        return ""
    if setting == "site":
        return domains.registrable(host)
    return setting if domains.within(host, setting) else ""


@lru_cache(maxsize=64)
def _policy(absent: Absent, regions: tuple[tuple[str, Absent], ...], signal: SignalName) -> ConsentPolicy:
    places = {place: RegionalConsent(absent=said) for place, said in regions}
    return ConsentPolicy(needs=[signal], absent=absent, regions=places)


def _clicks(text: str) -> dict[str, tuple[int, str]]:
    """Read cs_clicks; what is not of its form is left out."""
    found = {}
    for one in text.split("|"):
        name, _, rest = one.partition(".")
        at, _, value = rest.partition(".")
        if name in CLICKS and re.fullmatch(r"\d{13}", at) and _usable(unquote(value)):
            found[name] = (int(at), unquote(value))
    return found


def _written(clicks: Mapping[str, tuple[int, str]]) -> str:
    return "|".join(f"{name}.{at}.{quote(value, safe='')}" for name, (at, value) in clicks.items())


def _usable(value: str) -> bool:
    """Might it be an id? Anybody can write a cookie."""
    return (
        0 < len(value) <= 1000
        and value.isprintable()
        and value.strip().lower() not in NOT_AN_ID
        and not identity.looks_personal(value)
    )
