"""Values of one person that nobody else has, the inputs that carry them, and the search for them in bytes."""

import base64
import json
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote, quote_plus

#: What must be nowhere in clear. The rest of an address is kept, see docs/privacy.md.
PERSON = {
    "email": "zyxadora.qwmarker+shop@leak-test.example",
    "phone": "+4915112345678",
    "first_name": "Zyxadora",
    "last_name": "Qwmarker",
    "birth_date": "1987-06-05",
    "street": "Zyxallee 4711",
}
OTHERS = {
    "national": "0151 12345678",
    "grouped": "(0151) 1234-5678",
    "abroad": "0049 151 12345678",
    "iban": "DE89 3704 0044 0532 0130 00",
    "card": "4111 1111 1111 1111",
    "ssn": "219-09-9999",
    "password": "hunter2-zyx",
}
#: Shorter than the values: a part that is left of one is found, too.
TRACES = (
    "zyxadora", "qwmarker", "leak-test", "15112345678", "151 12345678", "1234-5678", "1987-06-05", "19870605", "zyxallee",
    "3704 0044 0532", "37040044053201", "4111 1111 1111", "411111111111", "219-09-9999", "hunter2-zyx",
)  # fmt: skip
#: Platforms need these in what they are sent, and nothing else does.
IP, AGENT = "198.51.100.231", "Mozilla/5.0 (PlantedAgent/7.7)"


def spellings(text: str) -> set[bytes]:
    """How these characters may stand in bytes, in lower case where letters may change theirs."""
    escaped = "".join(f"\\u{ord(c):04x}" for c in text)
    clear = {
        text,
        quote(text, safe=""),
        quote_plus(text),
        quote(quote(text, safe=""), safe=""),
        json.dumps(text)[1:-1],
        escaped,
    }
    return {one.lower().encode() for one in clear} | {text.lower().encode("utf-16-le")}


def in_base64(text: str) -> set[bytes]:
    """The letters of base64 that stand for it whatever is around it: one run for each place of its first byte in three."""
    found = set()
    for before in range(3):
        raw = b"\0" * before + text.encode()
        whole = raw[: len(raw) - len(raw) % 3]
        letters = base64.b64encode(whole)[4 if before else 0 :]
        found |= {letters, letters.replace(b"+", b"-").replace(b"/", b"_")}
    return found


_CLEAR = {one for text in TRACES for one in spellings(text)}
_BASE64 = {
    one for text in TRACES for case in (text, text.title(), text.upper()) for one in in_base64(case) if len(one) >= 8
}


def found_in(data: bytes) -> list[bytes]:
    """Which traces of the person these bytes hold."""
    lower = data.lower()
    return sorted({one for one in _CLEAR if one in lower} | {one for one in _BASE64 if one in data})


def written(value: str) -> Iterator[str]:
    """As it may stand in a text."""
    yield value
    yield quote(value, safe="")
    yield quote(quote(value, safe=""), safe="")
    yield f"https://shop.example/thanks?note={quote_plus(value)}&x=1#top"
    yield f"Hello {value}, thanks"
    yield f"a,{value},b"
    yield f"phone:{value};"
    if "@" in value:
        yield base64.b64encode(value.upper().encode()).decode()
        yield base64.b64encode(base64.b64encode(value.encode())).decode()
        yield base64.b64encode(json.dumps({"first_name": "Zyxadora", "note": value}).encode()).decode()
        yield json.dumps({"a": json.dumps({"b": value})})
        yield value.replace("@", "\\u0040")
        yield value.replace("@", "&#64;")
        yield f"https://{value}/"
        yield f"/u/{base64.urlsafe_b64encode(value.encode()).decode()}/orders"


#: What is found by its look, wherever it stands.
BY_LOOK = (
    PERSON["email"],
    PERSON["phone"],
    *(OTHERS[name] for name in ("national", "grouped", "abroad", "iban", "card", "ssn")),
)
#: What else is found where an id stands, which otherwise goes byte for byte.
IN_IDS = (
    PERSON["email"],
    PERSON["phone"],
    OTHERS["abroad"],
    f"tel:{PERSON['phone']}",
    quote(PERSON["phone"]),
    base64.b64encode(PERSON["email"].encode()).decode(),
    base64.urlsafe_b64encode(b"x" + PERSON["email"].encode()).decode().rstrip("="),
    PERSON["email"].replace("@", "&#64;"),
    PERSON["email"].replace("@", "\\u0040"),
)
#: Page addresses whose parameters are called like a person's data.
PAGE = (
    f"https://zyxadora:hunter2-zyx@shop.example/thanks/{PERSON['email']};email={PERSON['email']}?gclid=Cj0"
    f"&first_name=Zyxadora&lastName=Qwmarker&phone={quote(PERSON['phone'])}&dob=1987-06-05&password=hunter2-zyx"
    f"&next={quote('/a?surname=Qwmarker&street=Zyxallee 4711')}&utm_source=news#address=Zyxallee"
)
OWN = {
    **PERSON,
    **OTHERS,
    "fullName": "Zyxadora Qwmarker",
    "customer": {"name": "Zyxadora Qwmarker", "address": {"street": "Zyxallee 4711"}, "phones": [PERSON["phone"], "015112345678"]},
    "rows": [{"email": PERSON["email"], "dob": "1987-06-05"}, [PERSON["email"]], PERSON["phone"]],
    "json": json.dumps({"first_name": "Zyxadora", "email": PERSON["email"]}),
    "telephone": 4915112345678,
    "n": 4111111111111111,
    PERSON["email"]: 1,
}  # fmt: skip


def conversions(kind: str) -> Iterator[dict[str, Any]]:
    """Good events in our own format: the person where it belongs, and in every place where it does not."""
    consent: dict[str, Any] = dict.fromkeys(
        ("ad_storage", "analytics_storage", "ad_user_data", "ad_personalization"), "granted"
    )
    base: dict[str, Any] = {
        "event_name": "subscribe",
        "source": kind,
        "consent": consent,
        "ids": {"ga_client_id": "1234567890.1699999999"},
    }
    context = {"ip": IP, "user_agent": AGENT, "url": PAGE, "referrer": PAGE, "title": f"Hello {PERSON['email']}"}
    yield {**base, "user": PERSON, "context": context, "custom": OWN}
    for value in BY_LOOK:
        for text in written(value):
            yield {
                **base,
                "user": {"user_id": PERSON["email"], "city": value, "region": value, "postal_code": value},
                "context": {**context, "url": text, "referrer": text, "title": text, "language": PERSON["email"]},
                "commerce": {
                    "search_term": text, "coupon": text, "affiliation": text, "payment_type": text, "list_name": text,
                    "items": [{"item_id": "SKU-1", "item_name": text, "brand": text, "category": text, "variant": text}],
                },
                "custom": {"note": text, text: 1, "list": [text, {text: text}], "deep": {text: {text: [text]}}},
                "labels": [PERSON["email"]],
                "tags": {PERSON["email"]: {"ran": True}},
            }  # fmt: skip
    for value in IN_IDS:
        yield {
            **base,
            "user": {"user_id": value},
            "context": {**context, "user_agent": f"{AGENT} {value}", "language": value},
            "ids": {**base["ids"], **dict.fromkeys(("fbp", "gclid", "lead_id"), value)},
            "commerce": {"list_id": value, "items": [{"item_id": value}]},
            "consent": {**consent, "categories": {value: True}},
            "tags": {value: {"ran": True, "event_id": value}},
        }


def mistakes() -> Iterator[bytes]:
    """What nobody can take."""
    email = PERSON["email"]
    for one in (
        {"event_name": email, "event_id": "1"},
        {"event_name": "login", "event_id": email},
        {"event_name": "login", "event_id": PERSON["phone"]},
        {"event_name": "login", "event_id": "1", email: 1},
        {"event_name": "login", "event_id": "1", "user": {email: 1}},
        {"event_name": "login", "event_id": "1", "user": email},
        {"event_name": "login", "event_id": "1", "user": {"email": {"x": email}}},
        {"event_name": "login", "event_id": "1", "time": email},
        {"event_name": "login", "event_id": "1", "site": email},
        {"event_name": "login", "event_id": "1", "source": email},
        {"event_name": "purchase", "event_id": "1", "commerce": {"value": email, "currency": email}},
        {"event_name": "purchase", "event_id": "1", "commerce": {"value": 1, "currency": email}},
        {"event_name": "purchase", "event_id": "1", "commerce": {"transaction_id": email}},
        {"event_name": "login", "event_id": "1", "ids": {"ga_client_id": email}},
        {"event_name": "login", "event_id": "1", "consent": {email: "granted"}},
        *(
            {
                "event_name": "login",
                "event_id": "1",
                "consent": dict.fromkeys(("tcf", "gpp", "us_privacy", "gcs", "gcd"), one),
            }
            for one in IN_IDS
        ),
        {"type": email, "event": email, "properties": {"email": email}},
        [email],
        email,
    ):
        yield json.dumps(one).encode()
    yield b'{"email": "' + email.encode()
    yield b"\xff\xfe" + email.encode()
    yield email.encode()
    yield (
        b'{"event_name": "login", "event_id": "1", "custom": '
        + b'{"a":' * 100
        + json.dumps(email).encode()
        + b"}" * 101
    )
    yield b'{"event_name": "login", "event_id": "1", "custom": {"a": "' + (email.encode() + b" ") * 3000 + b'"}}'


SEGMENT: Mapping[str, Any] = {
    "type": "track",
    "event": "Subscription Started",
    "userId": PERSON["email"],
    "properties": {"email": PERSON["email"], "phone": PERSON["phone"], "url": PAGE, "query": PERSON["email"], **OWN},
    "context": {
        "ip": IP,
        "userAgent": AGENT,
        "page": {"url": PAGE, "referrer": PAGE, "title": PERSON["email"], "search": PERSON["email"], "path": PERSON["email"]},
        "traits": {
            "email": PERSON["email"], "phone": PERSON["phone"], "firstName": "Zyxadora", "lastName": "Qwmarker",
            "name": "Zyxadora Qwmarker", "birthday": PERSON["birth_date"], "address": {"street": PERSON["street"]},
        },
        "consent": dict.fromkeys(("ad_storage", "analytics_storage", "ad_user_data"), "granted"),
    },
}  # fmt: skip
META: Mapping[str, Any] = {
    "event_name": "Subscribe",
    "event_source_url": PAGE,
    "referrer_url": PAGE,
    "user_data": {
        "em": [PERSON["email"]], "ph": PERSON["phone"], "fn": "Zyxadora", "ln": ["Qwmarker"], "db": PERSON["birth_date"],
        "external_id": PERSON["email"], "client_ip_address": IP, "client_user_agent": AGENT,
    },
    "custom_data": {"search_string": PERSON["email"], "contents": [{"id": "1", "title": PERSON["email"]}], **OWN},
}  # fmt: skip
GA4: Mapping[str, Any] = {
    "client_id": "1234567890.1699999999",
    "user_id": PERSON["email"],
    "user_properties": {"email": {"value": PERSON["email"]}},
    "user_data": {
        "sha256_email_address": PERSON["email"],
        "sha256_phone_number": [PERSON["phone"]],
        "address": {"sha256_first_name": "Zyxadora", "sha256_last_name": "Qwmarker", "sha256_street": PERSON["street"]},
    },
    "events": [
        {
            "name": "login",
            "params": {"page_location": PAGE, "search_term": PERSON["email"], "method": PERSON["phone"], **OWN},
        }
    ],
}
FOREIGN = {"segment": SEGMENT, "meta": META, "ga4": GA4}
