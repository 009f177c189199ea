"""Personal data to hashes: normalise, then SHA-256, never twice.

Platforms disagree on how a value is written before it is hashed, so each identifier has named variants (rules), and a sink
names the one it needs:

    email       plain   trimmed, lower case (Meta, TikTok, Pinterest, Snap, LinkedIn, X)
                gmail   plain, and for gmail.com and googlemail.com without dots and +suffix (Google)
                strict  without dots and +suffix for every domain (Microsoft, Reddit)
    phone       e164    +4930123456 (Google, TikTok, Reddit, Microsoft, X)
                digits  4930123456 (Meta, Pinterest, Snap)
    *_name      plain   lower case, without punctuation (Meta, Pinterest, Snap, LinkedIn)
                letters plain, and without digits (Google)
    birth_date  ymd     19970216
    gender      letter  f or m
    street      plain   lower case, without punctuation

What arrives as a SHA-256 is kept as `given`. What cannot be normalised is refused with a reason, never half right.
"""

import hashlib
import re
import unicodedata
from collections.abc import Callable, Collection
from datetime import date
from functools import lru_cache

import phonenumbers

from app.events import Hashes

_SHA256 = re.compile(r"[0-9a-fA-F]{64}")
_EMAIL = re.compile(r"[^@\s,;<>()\[\]\"]+@[^@\s,;<>()\[\]\"]+\.[^@\s,;<>()\[\]\".]{2,}")
#: Without the signs that separate things in URLs, though an address might have them.
_EMAIL_ANYWHERE = re.compile(r"(?:[\w.+-]|%2[be])+(?:@|%40)[\w-]+(?:\.[\w-]+)+", re.IGNORECASE)
_PHONE_LIKE = re.compile(r"\+\d[\d\s().-]{6,18}\d|\(\d{2,5}\)\s?\d{3,4}[\s-]?\d{3,5}")
_GMAIL = ("gmail.com", "googlemail.com")

REDACTED = "[redacted]"


class Unusable(ValueError):
    """The value is no such thing. The text is a fixed reason, without the value."""


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def is_sha256(text: str) -> bool:
    return _SHA256.fullmatch(text) is not None


def looks_personal(text: str) -> bool:
    """True for something that looks like an e-mail address or an international phone number."""
    return _EMAIL.fullmatch(text.strip()) is not None or _PHONE_LIKE.fullmatch(text.strip()) is not None


def redact(text: str) -> str:
    """The text with e-mail addresses replaced, also percent-encoded ones."""
    if "@" not in text and "%40" not in text:
        return text
    return _EMAIL_ANYWHERE.sub(REDACTED, text)


def _email(value: str, _country: str | None) -> dict[str, str]:
    plain = value.strip().lower()
    if not _EMAIL.fullmatch(plain):
        raise Unusable("not_an_email")
    local, domain = plain.rsplit("@", 1)
    strict = local.split("+", 1)[0].replace(".", "")
    return {
        "plain": plain,
        "gmail": f"{strict}@{domain}" if domain in _GMAIL else plain,
        "strict": f"{strict}@{domain}",
    }


def _phone(value: str, country: str | None) -> dict[str, str]:
    text = value.strip()
    if text.startswith("00"):
        text = "+" + text[2:]
    try:
        number = phonenumbers.parse(text, country)
    except phonenumbers.NumberParseException as exc:
        no_country = exc.error_type == phonenumbers.NumberParseException.INVALID_COUNTRY_CODE
        raise Unusable("no_country_code" if no_country else "not_a_phone") from None
    if not phonenumbers.is_possible_number(number):
        raise Unusable("not_a_phone")
    e164 = phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)
    return {"e164": e164, "digits": e164[1:]}


def letters_only(text: str, *, digits: bool, spaces: bool = True) -> str:
    """Lower case without punctuation; accents stay. White space is folded, or removed."""
    text = unicodedata.normalize("NFC", text).lower()
    kept = (
        c for c in text if c.isalpha() or c.isspace() or unicodedata.category(c)[0] == "M" or (digits and c.isdigit())
    )
    return (" " if spaces else "").join("".join(kept).split())


def _name(value: str, _country: str | None) -> dict[str, str]:
    return {"plain": letters_only(value, digits=True), "letters": letters_only(value, digits=False)}


def _birth_date(value: str, _country: str | None) -> dict[str, str]:
    digits = value.strip().replace("-", "")
    try:
        day = date(int(digits[:4]), int(digits[4:6]), int(digits[6:8]))
    except ValueError:
        raise Unusable("not_a_date") from None
    if len(digits) != 8 or not 1900 <= day.year <= 2100:
        raise Unusable("not_a_date")
    return {"ymd": digits}


def _gender(value: str, _country: str | None) -> dict[str, str]:
    letter = value.strip().lower()[:1]
    if value.strip().lower() not in ("f", "m", "female", "male"):
        raise Unusable("not_f_or_m")
    return {"letter": letter}


def _street(value: str, _country: str | None) -> dict[str, str]:
    return {"plain": letters_only(value, digits=True)}


#: identifier -> (clear value, country) -> rule -> text to hash
RULES: dict[str, Callable[[str, str | None], dict[str, str]]] = {
    "email": _email,
    "phone": _phone,
    "first_name": _name,
    "last_name": _name,
    "birth_date": _birth_date,
    "gender": _gender,
    "street": _street,
}


@lru_cache(maxsize=1 << 16)
def _all_variants(field: str, value: str, country: str | None) -> tuple[tuple[str, str], ...]:
    return tuple((rule, sha256(text)) for rule, text in RULES[field](value, country).items() if text)


def hashes(field: str, value: str, country: str | None, keep: Collection[str] | None = None) -> Hashes:
    """The variants of one identifier; `keep` names the rules wanted (None: all).

    Raises Unusable when the value is not what the field says.
    """
    if is_sha256(value.strip()):
        return {"given": value.strip().lower()}
    variants = _all_variants(field, value, country)
    if not variants:
        raise Unusable("empty")
    return {rule: digest for rule, digest in variants if keep is None or rule in keep}
