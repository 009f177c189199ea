"""What free text must not hold, and how it is taken out: page addresses, own data, search terms, names of things.

    by its look    e-mail addresses (percent-encoded, in base64, as HTML writes them), phone numbers with + or 00 or grouped as
                   people group them, payment cards and IBANs with the right check digits, US social security numbers
    by its name    what stands in a field of own data, or in a parameter of an address, that is called like a person's data:
                   `first_name`, `billing.phone2`, `Geburtsdatum`, `iban`

Not found are names, streets and birth dates in running text, digits without anything around them that says what they are, and
what only people understand (`ada at example dot com`). Ids go another way: app/identity.py refuses or hashes them.

No pattern takes more than linear time: everybody may send anything.
"""

import binascii
import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Literal
from urllib.parse import unquote

import phonenumbers

from app import identity
from app.identity import REDACTED

Redact = Literal["mask", "drop"]
PageUrl = Literal["full", "path", "origin"]

# By its name


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split(", "))


# In the languages of many shops; two words where one of them alone is as often something else.
_PHONE = _words(
    "phone, telephone, tel, mobile, cell, cellphone, mobilephone, phonenumber, mobilenumber, msisdn, fax, whatsapp, telefon, "
    "telefonnummer, handy, handynummer, telefono, teléfono, movil, móvil"
)
_PERSONAL = _PHONE | _words(
    "email, e mail, mail, mailaddress, courriel, correo, correo electronico, "
    "firstname, lastname, fullname, username, surname, forename, middlename, maidenname, nickname, givenname, familyname, fname, "
    "lname, vorname, nachname, prenom, prénom, apellido, cognome, "
    "address, addr, street, strasse, straße, adresse, direccion, dirección, indirizzo, calle, "
    "birthday, birthdate, birth date, birth, dob, geburtsdatum, geburtstag, naissance, nacimiento, "
    "iban, card number, cardnumber, credit card, creditcard, cc number, cvv, cvc, bank account, account number, accountnumber, "
    "kontonummer, sort code, routing number, "
    "ssn, social security, sozialversicherungsnummer, passport, passeport, national id, personal id, identity card, "
    "driver license, drivers license, driving licence, license plate, tax id, steuernummer, nino, cpf, dni, codice fiscale, "
    "password, passwd, passwort, pwd, access token, id token, refresh token, auth token, session token, "
    "ip, ip addr, remote addr"
)
#: Whose name it is: `name` alone is as often a product's.
_PEOPLE = _words(
    "first, last, middle, maiden, given, family, full, user, customer, client, contact, billing, shipping, delivery, recipient, "
    "receiver, sender, guest, member, patient, cardholder, holder, buyer, owner, applicant, passenger, traveler, traveller, "
    "person, student, employee, subscriber, invoice, payer, kunden"
)
#: Words behind the one that counts: `phone_home`, `address_line_2`, `email_value`.
_QUALIFIERS = _words(
    "home, work, private, business, mobile, customer, user, client, billing, shipping, delivery, primary, secondary, main, "
    "other, value, raw, clear, plain, text, number, no, nr, num, line, field, input, address, street, house"
)
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[^\W\d_A-Z]+")
LONGEST_NAME = 200  # characters that are looked at
_NOBODY = frozenset({"", "true", "false", "yes", "no", "on", "off", "null", "none", "undefined", "granted", "denied"})


@lru_cache(maxsize=4096)
def _called(name: str) -> Literal["", "digits", "any"]:
    """Does a field of this name hold a person's data? `digits`: only if there are some in it, as in a phone number."""
    words = [word.lower() for word in _WORD.findall(name)]
    while words:
        before, last = words[-2:-1], words[-1]
        for phrase in (last, last.removesuffix("s"), last.removesuffix("es"), " ".join([*before, last])):
            if phrase in _PERSONAL:
                return "digits" if phrase in _PHONE else "any"
        if (last == "name" and _PEOPLE.intersection(before)) or (before == ["name"] and last in _PEOPLE):
            return "any"
        if last not in _QUALIFIERS:
            break
        words.pop()
    return ""


def named(name: str, value: object) -> bool:
    """Is this a person's data, by the name of its field? A flag is none (`email: true`), nor a hash, nor a small number."""
    how = _called(name[-LONGEST_NAME:])
    if not how or value is None or isinstance(value, bool):
        return False
    if isinstance(value, int | float):
        return abs(value) >= 100_000
    text = str(value).strip()
    if text.lower() in _NOBODY or identity.is_sha256(text) or text == REDACTED:
        return False
    return how == "any" or sum(c.isdigit() for c in text[:100]) >= 5


# By its look. A pattern that begins with a set of characters is looked for several times as fast as one that begins with a look
# behind, or with a choice: so the look behind comes after the first character, and the choice, too.

_HEX = "[0-9A-Fa-f]"


def _encoded(codes: str) -> str:
    """Percent-encoded once or several times."""
    return f"%(?:25)*(?:{codes})"


#: What people put between the digits of a number; a plus is a space in a query.
_PLAIN_SPACE = r"[ .()/+\-\u00a0\u2007\u2009\u202f\u2010-\u2015]"
_SPACE = rf"(?:{_PLAIN_SPACE}|{_encoded('20|28|29|2[bdef]')}|%c2%a0)"
#: Behind a digit these belong to a number: a time, a version, an amount.
_LEFT = rf"(?:(?<![\w-])(?<!\d[.,:])|(?<=%{_HEX}{_HEX}))"
_RIGHT = rf"(?!{_SPACE}{{0,2}}\d|[^\W_]|-\w)"
_NUMBER = re.compile(
    r"(?=[+\uff0b%(\d])(?:"  # half of the time: nothing else begins one
    rf"(?P<plus>(?:(?<![^\W_])[+\uff0b]|{_encoded('2b')}){_SPACE}{{0,2}}(?:{_SPACE}{{0,3}}\d){{7,17}}(?!\d))"
    rf"|(?P<card>{_LEFT}[2-6]\d{{3}}(?:(?:[ +-]|%20)?\d){{11,15}}{_RIGHT})"
    rf"|(?P<ssn>{_LEFT}(?!000|666|9)\d{{3}}-(?!00)\d\d-(?!0000)\d{{4}}{_RIGHT})"
    rf"|(?P<exit>{_LEFT}00{_SPACE}{{0,2}}[1-9](?:{_SPACE}{{0,3}}\d){{6,16}}{_RIGHT})"
    rf"|(?P<area>{_LEFT}\(\d{{2,5}}\){_SPACE}?\d{{3,5}}{_SPACE}?\d{{2,5}}(?:{_SPACE}?\d{{2,4}})?{_RIGHT})"
    rf"|(?P<trunk>{_LEFT}\(?0\d(?:{_SPACE}{{0,3}}\d){{7,10}}{_RIGHT})"
    rf"|(?P<nanp>{_LEFT}(?:1{_SPACE}{{1,2}})?[2-9]\d\d{_SPACE}{{1,2}}\d{{3}}{_SPACE}\d{{4}}{_RIGHT}))",
    re.IGNORECASE,
)
#: Without any of this there is none of these, where nothing is encoded, and no plus and no parenthesis is before a digit: a row of
#: fewer than 15 digits is none, unless it begins with a zero.
_PLAINLY_GROUPED = re.compile(rf"\d(?:(?<=0)(?<![\w-]0)|\d{{14}}|{_PLAIN_SPACE}{{1,2}}\d)")
#: What every number with its country begins with; most ids have none.
_MAY_BE_WITH_COUNTRY = re.compile(r"[+\uff0b%0](?:(?<=[+\uff0b%])|(?<=0)(?<![\w-]0)0)")
_PLAINLY_WITH_EXIT_CODE = re.compile(r"00(?<![\w-]00)")
_IBAN = re.compile(
    r"[A-Z](?<![^\W_][A-Z])[A-Z]\d\d(?:(?:[ +]|%20)?[A-Z0-9]{4}){2,7}(?:(?:[ +]|%20)?[A-Z0-9]{1,3})?(?![^\W_])"
)
_DATE = re.compile(r"\d\d[./-]\d\d[./-]\d{4}(?!\d)")
#: Numbers of cards as their networks give them: first digits, and how many there are.
_NETWORKS = re.compile(
    r"4\d{15}|5[1-5]\d{14}|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12}|3[47]\d{13}|6(?:011|5\d\d|4[4-9]\d)\d{12}"
    r"|35(?:2[89]|[3-8]\d)\d{12}|62\d{14,17}"
)
_DELIMITER = rf"[?&;#]|{_encoded('3f|26|3b|23')}"
_PARAMETER = re.compile(
    rf"(?P<before>(?:^|{_DELIMITER})(?P<name>[^\s?&;#=%\"'<>]{{2,60}})(?:=|{_encoded('3d')}))"
    rf"(?P<value>(?:(?!{_DELIMITER})[^\s\"'<>])+)",
    re.IGNORECASE,
)
#: Its name, of one that is not encoded, behind a delimiter.
_NAME = re.compile(r"[?&;#]([^\s?&;#=%\"'<>]{2,60})=")
_BETWEEN = re.compile(r"([\s&?#;=\"'<>]+)")
_LAYERS = 4  # of encoding, more than one address in another ever has
_MEMBER = re.compile(r'(?P<before>"(?P<name>[^"\\]{2,60})"\s?:\s?)"(?P<value>(?:[^"\\]|\\.)*)"')
_TOKEN = re.compile(
    rf"(?:(?<![A-Za-z0-9+/_%-])|(?<=%{_HEX}{_HEX}))(?:[a-z0-9+/_-]|%2[bf]){{12,1000}}(?![a-z0-9+/_-])(?:={{1,2}}(?![a-z0-9]))?",
    re.IGNORECASE,
)
#: A token, or more than it; and its letters alone, but for what passes for one of them where case is ignored.
_RUN = re.compile(r"[A-Za-z0-9+/_-]{12,}={0,2}")

#: Without any of these, nothing that is personal is seen only in a text as a whole: each line can be looked at by itself, and
#: so can texts as lines.
_OPENLY = re.compile(
    r"[@\uff20\ufe6b=+\uff0b%(&\\\"](?:(?<=[@\uff20\ufe6b=+\uff0b])|(?<=%)[\da-f]|(?<=\()\d|(?<=&)[#c]|(?<=\\)u|(?<=\")\s?:)",
    re.IGNORECASE,
)


def clean(texts: Iterable[str], ids: Iterable[str] = (), pages: Iterable[str] = ()) -> bool:
    """Is it sure that `masked` leaves all these texts as they are, and `of_an_id` these ids? One look for all of them. `pages` are
    of `plain_page`: that leaves them as they are, too.

    If not, each has to be asked about. Texts of a shop are many and short, and nothing is in most of them.
    """
    told = "\n".join([text for text in texts if len(text) > 8 or not text.isalnum()])  # of a word, nothing can be
    named = "\n".join(ids)
    if _OPENLY.search(f"{told}\n{named}") or _PLAINLY_WITH_EXIT_CODE.search(named):
        return False
    told = "\n".join((told, *pages))
    if (_PLAINLY_GROUPED.search(told) and _NUMBER.search(told)) or _IBAN.search(told):
        return False
    return not _may_hide(f"{told}\n{named}")


def masked(text: str) -> str:
    """The text with all that is personal, by look or name, replaced."""
    return _masked(text) if len(text) <= 500 else _masked.__wrapped__(text)


@lru_cache(maxsize=4096)
def _masked(text: str) -> str:
    found = _as_written(text)
    if "%" in found:
        found = "".join(part if "%" not in part else _encoded_part(part) for part in _BETWEEN.split(found))
    return found


def _encoded_part(part: str) -> str:
    """Nothing is left of what shows only when it is decoded that it is personal."""
    plain, before = unquote(part), part
    for _ in range(_LAYERS):
        plain, before = unquote(plain), plain
        if plain == before:
            break
    return REDACTED if plain != part and _as_written(plain) != plain else part


def _as_written(text: str) -> str:
    found = _plainly(text)
    return _TOKEN.sub(_without_token, found) if "%" in found or _may_hide(found) else found


def _plainly(text: str) -> str:
    found = identity.redact(text)
    if "%" in found or ("=" in found and any(map(_called, _NAME.findall(f"?{found}")))):
        found = _PARAMETER.sub(_without_value, found)
    if '":' in found or '" :' in found:
        found = _MEMBER.sub(_without_value, found)
    return _IBAN.sub(_without_iban, _NUMBER.sub(_without_number, found))


def in_an_id(text: str) -> bool:
    """Does an id hold an e-mail address, in base64 too, or a phone number with its country?"""
    return of_an_id(text) != text or ("@" in text and identity.looks_personal(text))


def of_an_id(text: str) -> str:
    """The same with those replaced. Without its country a phone number is grouped as order numbers are."""
    return _of_an_id(text) if len(text) <= 500 else _of_an_id.__wrapped__(text)


@lru_cache(maxsize=4096)
def _of_an_id(text: str) -> str:
    found = identity.redact(text)
    if _MAY_BE_WITH_COUNTRY.search(found):
        found = _without_phones(found, _with_country)
    return _TOKEN.sub(_without_token, found) if "%" in found or _may_hide(found) else found


def of_a_person(text: str, country: str | None) -> str:
    """A shop's own id of a person; its SHA-256 where it is an e-mail address or, also without its country, a phone number.

    A phone number is hashed as in E.164 however it was written, so that it is found by the number.
    """
    if not (in_an_id(text) or _without_phones(text, _is_phone) != text):
        return text
    try:
        return identity.hashes("phone", text if "@" not in text else "", country, frozenset({"e164"}))["e164"]
    except (identity.Unusable, KeyError):
        return identity.sha256(text.lower())


def _without_phones(text: str, which: Callable[[re.Match[str]], bool]) -> str:
    return _NUMBER.sub(lambda found: _without_number(found) if which(found) else found[0], text)


def _with_country(found: re.Match[str]) -> bool:
    return found.lastgroup == "plus" or (found.lastgroup == "exit" and not found[0].isdecimal())


def _is_phone(found: re.Match[str]) -> bool:
    return _with_country(found) or found.lastgroup in ("area", "trunk", "nanp")


def _without_value(found: re.Match[str]) -> str:
    name, value = found["name"], found["value"]
    if not named(name, value):
        return found[0]
    quote = '"' if found.re is _MEMBER else ""
    return found["before"] + quote + REDACTED + quote


def _without_number(found: re.Match[str]) -> str:
    kind, text = str(found.lastgroup), found[0]
    written = re.sub(r"%(?:25)*[0-9a-f]{2}", " ", text, flags=re.IGNORECASE)
    digits = "".join(str(int(c)) for c in written if c.isdecimal())
    return REDACTED if _CHECKS[kind](digits, written) else text


def _international(digits: str, *, valid: bool) -> bool:
    try:
        number = phonenumbers.parse(f"+{digits}", None)
    except phonenumbers.NumberParseException:
        return False
    return phonenumbers.is_valid_number(number) if valid else phonenumbers.is_possible_number(number)


def _is_client_id(written: str) -> bool:
    """GA's: a number, a dot, seconds since 1970. A country's code alone before the dot begins a phone number."""
    found = re.fullmatch(r"00(\d{1,8})\.1\d{9}", written)
    return found is not None and int(found[1]) not in phonenumbers.COUNTRY_CODE_TO_REGION_CODE


def _is_card(digits: str) -> bool:
    """By network and Luhn's check digit."""
    if not _NETWORKS.fullmatch(digits):
        return False
    doubled = [int(c) * (1 + n % 2) for n, c in enumerate(reversed(digits))]
    return sum(n - 9 if n > 9 else n for n in doubled) % 10 == 0


def _is_grouped(digits: str, written: str) -> bool:
    """As people group a phone number; a row of digits may be anything, and a date is none."""
    return 9 <= len(digits) <= 12 and not written.strip("(").isdecimal() and not _DATE.match(written)


#: kind of number -> (its digits, as it was written) -> is it one?
_CHECKS: dict[str, Callable[[str, str], bool]] = {
    "plus": lambda digits, _: _international(digits, valid=False),
    # many an order number begins with two zeros
    "exit": lambda digits, written: not _is_client_id(written) and _international(digits[2:], valid=True),
    "card": lambda digits, _: _is_card(digits),
    "ssn": lambda _digits, _written: True,
    "area": lambda digits, _: 8 <= len(digits) <= 12,
    "trunk": _is_grouped,
    "nanp": lambda _digits, _written: True,
}


def _without_iban(found: re.Match[str]) -> str:
    """By its check digits (ISO 7064, mod 97-10); words behind it may look like a part of it."""
    groups = re.split("([ +]|%20)", found[0])
    for end in range(len(groups), 0, -2):
        bare = "".join(groups[:end:2])
        if len(bare) >= 15 and int("".join(str(int(c, 36)) for c in bare[4:] + bare[:4])) % 97 == 1:
            return REDACTED + "".join(groups[end:])
    return found[0]


def _may_hide(text: str) -> bool:
    """False: `_TOKEN` finds nothing to replace in this text without a percent sign. Seen in less time."""
    runs = [run for run in _RUN.findall(text) if not run.isdecimal()]
    return any(len(run) > 1000 or _without_hidden(run) != run for run in runs) if runs else False


def _without_token(found: re.Match[str]) -> str:
    return _without_hidden(found[0])


def _without_hidden(token: str) -> str:
    if token.isdecimal():  # no text is such a row in base64
        return token
    if _hides_more(token):
        return REDACTED
    if "/" in token:  # a letter of base64, and what separates the parts of a path
        return "/".join(REDACTED if len(part) >= 12 and _hides_more(part) else part for part in token.split("/"))
    return token


def _hides_more(token: str) -> bool:
    """Is it base64, once or several times, of a text with something personal?"""
    for _ in range(_LAYERS):
        text = _behind(token)
        if not text:
            return False
        if _plainly(text) != text:
            return True
        if not _TOKEN.fullmatch(text):
            break
        token = text
    return False


def _behind(token: str) -> str:
    """The text that this is in base64; empty where it is none."""
    if "%" in token:
        token = re.sub("%2b", "+", re.sub("%2f", "/", token, flags=re.IGNORECASE), flags=re.IGNORECASE)
    bare = token.replace("_", "/").replace("-", "+").rstrip("=")
    if len(bare) % 4 == 1:
        return ""
    try:
        raw = binascii.a2b_base64(bare + "=" * (-len(bare) % 4))
    except ValueError:  # also for a long s and others that pass for letters of ASCII where case is ignored
        return ""
    text = raw.decode(errors="surrogateescape")  # most words are no text: that is no exception, and nothing printable
    return text if text.isprintable() or "".join(text.split()).isprintable() else ""


# Addresses of pages

_ORIGIN = re.compile(r"([a-z][a-z0-9+.-]*://)([^/?#\\]*)", re.IGNORECASE)


def page(url: str, kept: PageUrl, how: Redact) -> str:
    """An address of a page, as much of it as is kept; campaign parameters (`utm_...`) always are. Empty where nothing is left.

    `how` tells what becomes of its personal parts. A name with its password before the host is never kept; without a password it
    may as well be an e-mail address, of which the host is a part.
    """
    return _page(url, kept, how) if len(url) <= 500 else _page.__wrapped__(url, kept, how)


#: Without any of these, and without a person's parameters, nothing is in an address that `clean` would not see.
_ODD_PAGE = re.compile('[@\uff20\ufe6b%\\\\+\uff0b("]|&(?:#|[cC][oO][mM])')


def plain_page(url: str) -> str | None:
    """What is behind the origin of such an address, for `clean` to look at: if that finds nothing, `page` leaves all of it as it is
    where the full address is kept. None for others.
    """
    if _ODD_PAGE.search(url):
        return None
    begin = _ORIGIN.match(url)
    origin, rest = (begin[0], url[begin.end() :]) if begin else ("", url)
    # a long one is not worth a place in the cache
    if len(origin) > 100 or not _plain_origin(origin) or ("=" in rest and any(map(_called, _NAME.findall(f"?{rest}")))):
        return None
    # an empty query or fragment is not kept
    return None if rest.endswith(("?", "#")) or "?#" in rest else rest


@lru_cache(maxsize=1024)
def _plain_origin(origin: str) -> bool:
    return masked(origin) == origin


@lru_cache(maxsize=4096)
def _page(url: str, kept: PageUrl, how: Redact) -> str:
    url = identity.with_at(url)
    begin = _ORIGIN.match(url)
    origin, rest = _origin(begin[1], begin[2]) if begin else "", url[begin.end() if begin else 0 :]
    if (how == "drop" and REDACTED in origin) or (kept == "origin" and not origin):
        return ""
    path, query, fragment = _parts(_masked.__wrapped__(rest))
    pieces = query.split("&") if query else []
    if kept != "full":
        pieces, fragment = [piece for piece in pieces if piece.lower().startswith("utm_")], ""
    if how == "drop":
        pieces = [piece for piece in pieces if REDACTED not in piece]
        fragment = "" if REDACTED in fragment else fragment
    if kept == "origin" or (how == "drop" and REDACTED in path):
        path = "/" if origin else ""
    return origin + path + ("?" + "&".join(pieces) if pieces else "") + ("#" + fragment if fragment else "")


def _origin(scheme: str, authority: str) -> str:
    user, _, host = authority.rpartition("@")
    return masked(scheme + (host if ":" in user else authority))


def _parts(rest: str) -> tuple[str, str, str]:
    rest, _, fragment = rest.partition("#")
    path, _, query = rest.partition("?")
    return path, query, fragment
