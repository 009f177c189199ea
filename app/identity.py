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
                joined  plain, and without spaces (TikTok)
    birth_date  ymd     19970216
    gender      letter  f, m or n, of which Meta takes f and m
    street      plain   lower case, without punctuation

What arrives as a SHA-256, in hex or base64, is kept as `given`. No platform takes other hashes, and hashed once more they would
match nobody: they are refused like all that cannot be normalised, with a reason, never half right.

Everything here reads what anybody may have sent, so no pattern takes more than linear time and no cache keeps long values.
"""

import base64
import hashlib
import re
import unicodedata
from collections.abc import Callable, Collection, Sequence
from datetime import date
from functools import lru_cache
from typing import Any, NamedTuple

import phonenumbers

from app.events import Hashes

#: Meta's libraries append a short mark to hashes: `<64 hex>.AQ`; it is no part of the hash.
_SHA256 = re.compile(r"([0-9a-fA-F]{64})(?:\.[\w-]{1,8})?")
_BASE64_SHA256 = re.compile(r"[A-Za-z0-9+/_-]{42}[AEIMQUYcgkosw048]=")
#: MD5, SHA-1, SHA-224, SHA-384 and SHA-512 in hex.
_OTHER_HASH = re.compile(
    "(?=.*[a-fA-F])(?:[0-9a-fA-F]{32}|[0-9a-fA-F]{40}|[0-9a-fA-F]{56}|[0-9a-fA-F]{96}|[0-9a-fA-F]{128})"
)
_SHORTEST_SHA256, _SHORTEST_OTHER_HASH = 44, 32  # characters: in base64, and of MD5 in hex
_LABEL = r"[^@\s,;:<>()\[\]\"'/?&=#!%\\.]"
_EMAIL = re.compile(rf"[^@\s,;:<>()\[\]\"\\]+@(?:{_LABEL}+\.)+{_LABEL}{{2,}}")
#: Mexico's mobile numbers had a 1 after the country code until 2019; many address books still do.
_MEXICO = 52
_MEXICAN_MOBILE = re.compile(r"^(\+?\s?52)[\s-]?1(?=(?:[^\d]?\d){10}$)")
_E164 = re.compile(r"\+[1-9][0-9]{6,14}")
_PHONE_LIKE = re.compile(r"\+\d[\d\s().-]{6,18}\d|\(\d{2,5}\)\s?\d{3,4}[\s-]?\d{3,5}")
#: No letter, digit or sign of an address: white space, what separates things in texts and URLs (an address might have
#: some of these, though), and the punctuation of other scripts.
_SEPARATORS = (
    r"\s\x00-\x1f\"#%&(),/:;<=>?\[\\\]{|}\x7f-\x9f\u00a1\u00ab\u00bb\u00bf\u2010-\u2027\u2030-\u205e\u3000\u3001\u3003"
    r"\u3008-\u3011\uff01-\uff0d\uff0f\uff1a-\uff1f"
)
#: Percent-encoded, once or several times: letters and digits, and bytes of UTF-8.
_ENCODED = r"3\d|4[1-9a-f]|5[\da]|6[1-9a-f]|7[\da]|[89a-f][\da-f]"
#: Also its wide and small forms, which people and IDNA take for the same.
_ANY_AT = r"[@\uff20\ufe6b]|%(?:25)*40|%(?:25)*ef%(?:25)*(?:bc%(?:25)*a0|b9%(?:25)*ab)"
_AT = re.compile(rf"({_ANY_AT})", re.IGNORECASE)
_SPELLED_AT = re.compile(r"&(?:#0{0,6}64|#x0{0,6}40|commat);|\\u0040", re.IGNORECASE)  # in HTML and in JSON
#: What is before the @ may stand in quotation marks, and then have spaces.
_QUOTED = re.compile(r'\\?"[^"\\\r\n]{1,64}\\?"(?=@)')
#: What may be an address; or an encoded separator, taken whole so that no address begins in its middle.
_RUN = re.compile(
    rf"((?:[^{_SEPARATORS}]|%(?:25)*(?:2[147abde]|40|5[ef]|60|7e|{_ENCODED}))+)"
    r"|%(?:25)*[\da-f]{2}(?![@\uff20]|%(?:25)*40)",
    re.IGNORECASE,
)
_DOMAIN_LABEL = rf"(?:[^{_SEPARATORS}!$'*+.@^`~\u3002\ufe6b\uff0e\uff20\uff61]|%(?:25)*(?:2d|5f|{_ENCODED}))+"
_DOMAIN = re.compile(rf"{_DOMAIN_LABEL}(?:(?:[.\u3002\uff0e\uff61]|%(?:25)*2e){_DOMAIN_LABEL})+", re.IGNORECASE)
#: Year first, as nobody else orders the others; and what a program writes that has no dates without a time.
_BIRTH_DATE = re.compile(r"([0-9]{4})([-/.]?)([0-9]{2})\2([0-9]{2})(?:[T ][0-9:.]{5,15}(?:Z|[+-][0-9:]{4,5})?)?")
_GMAIL = ("gmail.com", "googlemail.com")
_LONGEST_NUMBER = 30  # characters of a phone number, with what groups its digits
_LONGEST = 500  # characters of a clear value; no name, street or address is longer

REDACTED = "[redacted]"


class Unusable(ValueError):
    """The value is no such thing. The text is a fixed reason, without the value."""


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


#: What somebody gets who hashes a value that is missing. `null` is a family name, too.
_EMPTY = frozenset(map(sha256, ("", " ")))
_NO_CONTACT = _EMPTY | frozenset(map(sha256, ("null", "undefined", "none", "nan", "0", "false", "n/a", "NULL", "None")))


def is_sha256(text: str) -> bool:
    return _SHA256.fullmatch(text) is not None


def looks_personal(text: str) -> bool:
    """True for something that is or has an e-mail address, or is an international phone number."""
    return redact(text) != text or ("@" in text and _EMAIL.fullmatch(text.strip()) is not None)


def with_at(text: str) -> str:
    """The text with the sign of an address where HTML or JSON writes it in other signs."""
    return _SPELLED_AT.sub("@", text) if "&" in text or "\\" in text else text


def redact(text: str) -> str:
    """The text with e-mail addresses replaced, also percent-encoded ones; nothing is left of a text that is a phone number."""
    bare = text.strip()
    if bare[:1] in ("+", "(") and _PHONE_LIKE.fullmatch(bare):
        return REDACTED
    written = with_at(text)
    if '"@' in written:
        written = _QUOTED.sub("quoted", written)
    encoded = "%" in text and ("40" in text or "%ef" in text.lower())
    if "@" in written or "\uff20" in written or "\ufe6b" in written or encoded:
        found = _RUN.sub(_without_addresses, written)
        return text if found == written else found
    return text


def _without_addresses(run: re.Match[str]) -> str:
    """What is left of characters without a separator between them."""
    if run[1] is None:
        return run[0]
    local, *others = _AT.split(run[1])
    result = ""
    for at, domain in zip(others[::2], others[1::2], strict=True):
        found = _DOMAIN.match(domain)
        bare = local.lstrip("'")  # a quotation mark, not a part of it
        if found and bare:
            result += local[: len(local) - len(bare)] + REDACTED
            local = domain[found.end() :]
        else:
            result += local + at
            local = domain
    return result + local


def _email(value: str, _country: str | None) -> dict[str, str]:
    plain = value.strip().lower()
    if not _EMAIL.fullmatch(plain) or not plain.isprintable():
        raise Unusable("not_an_email")
    local, domain = plain.rsplit("@", 1)
    bare = local.split("+", 1)[0].replace(".", "")
    strict = f"{bare}@{domain}" if bare else ""
    return {"plain": plain, "gmail": strict if domain in _GMAIL else plain, "strict": strict}


def _phone(value: str, country: str | None) -> dict[str, str]:
    text = value.strip()
    if text.startswith("00"):
        text = "+" + text[2:]
    e164 = text if _is_e164(text) else _of_home(text, country or "") or _as_e164(text, country)
    return {"e164": e164, "digits": e164[1:]}


def _as_e164(text: str, country: str | None) -> str:
    """Raises Unusable."""
    try:
        number = phonenumbers.parse(_MEXICAN_MOBILE.sub(r"\1", text), country)
    except phonenumbers.NumberParseException as exc:
        no_country = exc.error_type == phonenumbers.NumberParseException.INVALID_COUNTRY_CODE
        raise Unusable("no_country_code" if no_country else "not_a_phone") from None
    number = _from_abroad(text, number) or number
    e164 = phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)
    possible = phonenumbers.is_possible_number_with_reason(number) == phonenumbers.ValidationResult.IS_POSSIBLE
    # a leading zero belongs to few countries' numbers; in others it is the rest of something misread
    misread = number.italian_leading_zero and not phonenumbers.is_valid_number(number)
    if not possible or misread or len(e164) < len("+6834000"):
        raise Unusable("not_a_phone")
    return e164


@lru_cache(maxsize=512)
def _numbers_of(country_code: int) -> tuple[Collection[int], re.Pattern[str]]:
    """How many digits its numbers have behind the country code, and what they begin with when there is something to take off."""
    region = phonenumbers.region_code_for_country_code(country_code)
    known: Any = phonenumbers.PhoneMetadata.metadata_for_region_or_calling_code(
        country_code, region
    )  # of each code there is
    lengths = {*known.general_desc.possible_length} - {*known.general_desc.possible_length_local_only}
    return lengths, re.compile(f"0|{known.national_prefix_for_parsing or '0'}")


def _is_e164(text: str) -> bool:
    """Is it surely what `_as_e164` makes of it? Of what programs send most is, and that is seen in a tenth of the time."""
    if not _E164.fullmatch(text):
        return False
    for digits in (1, 2, 3):
        code, national = int(text[1 : 1 + digits]), text[1 + digits :]
        if code in phonenumbers.COUNTRY_CODE_TO_REGION_CODE:
            lengths, prefix = _numbers_of(code)
            return code != _MEXICO and len(national) in lengths and not prefix.match(national)
    return False


class _Home(NamedTuple):
    """How a country's own numbers are written."""

    code: str
    abroad: re.Pattern[str]  # what is dialled before a number of another country
    prefix: re.Pattern[str]  # what is dialled before one of this
    kinds: Sequence[tuple[Collection[int], re.Pattern[str]]]  # (numbers of digits, pattern) of a valid one


@lru_cache(maxsize=512)
def _home(country: str) -> _Home | None:
    """None where there is more to it than this, or no such country."""
    known: Any = phonenumbers.PhoneMetadata.metadata_for_region(country, None)
    if (
        known is None
        or known.country_code == _MEXICO
        or phonenumbers.region_code_for_country_code(known.country_code) != country  # the first to be asked of its code
        or known.leading_digits
        or known.national_prefix_transform_rule
    ):
        return None
    kinds = (known.fixed_line, known.mobile, known.toll_free, known.shared_cost, known.voip)
    return _Home(
        str(known.country_code),
        re.compile(known.international_prefix or ""),
        re.compile(known.national_prefix_for_parsing or ""),
        [
            ({*one.possible_length} or {*known.general_desc.possible_length}, re.compile(one.national_number_pattern))
            for one in kinds
            if one is not None and one.national_number_pattern
        ],
    )


_GROUPING = str.maketrans("", "", " ().-/")


def _of_home(text: str, country: str) -> str:
    """What `_as_e164` makes of it, where it surely is a valid number of this country; empty for all others. Also a tenth of the
    time.
    """
    digits = text.translate(_GROUPING)
    if not (digits.isdecimal() and digits.isascii() and len(text) <= _LONGEST_NUMBER and (home := _home(country))):
        return ""
    prefix = home.prefix.match(digits)
    national = digits[prefix.end() :] if prefix else digits
    if digits.startswith(home.code) or home.abroad.match(digits) or national.startswith("0"):
        return ""
    valid = any(len(national) in lengths and pattern.fullmatch(national) for lengths, pattern in home.kinds)
    return f"+{home.code}{national}" if valid else ""


def _from_abroad(text: str, at_home: phonenumbers.PhoneNumber) -> phonenumbers.PhoneNumber | None:
    """The number, where there is none such in its country, and it is one of another with only the plus left out."""
    if text.startswith("+") or phonenumbers.is_valid_number(at_home):
        return None
    try:
        number = phonenumbers.parse(f"+{text}")
    except phonenumbers.NumberParseException:
        return None
    return number if phonenumbers.is_valid_number(number) else None


#: What becomes of ASCII in `letters_only`, without digits and with them.
_ASCII = tuple(
    {
        n: chr(n).lower() if chr(n).isalpha() or chr(n).isspace() or (digits and chr(n).isdigit()) else None
        for n in range(128)
    }
    for digits in (False, True)
)


def letters_only(text: str, *, digits: bool, spaces: bool = True) -> str:
    """Lower case without punctuation; accents stay. White space is folded, or removed."""
    if text.isascii():  # most are, and this is four times as fast
        return (" " if spaces else "").join(text.translate(_ASCII[digits]).split())
    text = unicodedata.normalize("NFC", text).lower()
    kept = (
        c for c in text if c.isalpha() or c.isspace() or unicodedata.category(c)[0] == "M" or (digits and c.isdigit())
    )
    return unicodedata.normalize("NFC", (" " if spaces else "").join("".join(kept).split()))


def _name(value: str, _country: str | None) -> dict[str, str]:
    return {
        "plain": letters_only(value, digits=True),
        "letters": letters_only(value, digits=False),
        "joined": letters_only(value, digits=True, spaces=False),
    }


def _birth_date(value: str, _country: str | None) -> dict[str, str]:
    found = _BIRTH_DATE.fullmatch(value.strip())
    if found is None:
        raise Unusable("not_a_date")
    try:
        day = date(*map(int, found.group(1, 3, 4)))
    except ValueError:
        raise Unusable("not_a_date") from None
    if not 1900 <= day.year <= 2100:
        raise Unusable("not_a_date")
    return {"ymd": "".join(found.group(1, 3, 4))}


def _gender(value: str, _country: str | None) -> dict[str, str]:
    text = value.strip().lower()
    if text not in ("f", "m", "n", "female", "male", "non-binary", "nonbinary"):
        raise Unusable("not_f_m_or_n")
    return {"letter": text[0]}


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


def given(value: str) -> str:
    """The SHA-256 that this is, in lower-case hex; empty for anything else."""
    if len(value) < _SHORTEST_SHA256:  # most values, and this is quickly seen
        return ""
    if found := _SHA256.fullmatch(value):
        return found[1].lower()
    if _BASE64_SHA256.fullmatch(value):
        return base64.urlsafe_b64decode(value.replace("+", "-").replace("/", "_")).hex()
    return ""


def place(value: str) -> str:
    """The SHA-256 of a city, region or postal code that arrived as one; empty for anything else. Raises Unusable."""
    digest = given(value)
    if digest in _EMPTY:
        raise Unusable("empty")
    return digest


#: There are so few countries that the hash of one names it.
_COUNTRIES = {sha256(code.lower()): code for code in phonenumbers.SUPPORTED_REGIONS}


def country(value: str) -> str:
    """The two letters in upper case, also of the hash of a country; anything else as it is."""
    return _COUNTRIES.get(given(value), value.upper())


@lru_cache(maxsize=1 << 16)
def _variants(field: str, value: str, country: str | None, keep: frozenset[str] | None) -> tuple[tuple[str, str], ...]:
    """Raises Unusable."""
    if digest := given(value):
        if digest in (_NO_CONTACT if field in ("email", "phone") else _EMPTY):
            raise Unusable("empty")
        return (("given", digest),)
    if len(value) >= _SHORTEST_OTHER_HASH and _OTHER_HASH.fullmatch(value):
        raise Unusable("another_hash")
    texts = {rule: text for rule, text in RULES[field](value, country).items() if text}
    wanted = [(rule, sha256(text)) for rule, text in texts.items() if keep is None or rule in keep]
    if not texts or (keep and not wanted):
        raise Unusable("empty")
    return tuple(wanted)


def hashes(field: str, value: str, country: str | None, keep: frozenset[str] | None = None) -> Hashes:
    """The variants of one identifier; `keep` names the rules wanted (None: all).

    Raises Unusable when the value is not what the field says.
    """
    value = value.strip()
    if len(value) > _LONGEST:
        raise Unusable("too_long")
    return dict(_variants(field, value, country, keep))
