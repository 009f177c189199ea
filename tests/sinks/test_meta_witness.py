"""Meta's own SDK as a witness: of the same clear input, both make the same event.

Ours is the whole way, from our JSON through app/normalize.py to sinks/meta.py; theirs are the server-side objects of
facebook_business. Where they differ, DIFFERENCES says how and why. The rules are Meta's, at
https://developers.facebook.com/docs/marketing-api/conversions-api/parameters/customer-information-parameters
"""

import socket
import unicodedata
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from typing import Any

import orjson
import phonenumbers
import pytest
from facebook_business.adobjects.serverside.action_source import ActionSource
from facebook_business.adobjects.serverside.content import Content
from facebook_business.adobjects.serverside.custom_data import CustomData
from facebook_business.adobjects.serverside.event import Event as TheirEvent
from facebook_business.adobjects.serverside.gender import Gender
from facebook_business.adobjects.serverside.user_data import UserData
from facebook_business.session import FacebookSession
from hypothesis import given, settings
from hypothesis import strategies as st

from app.events import Json
from app.normalize import Inlet, Normalized, normalize
from sinks._base import Payload
from sinks.meta import Meta, Settings
from tests.factories import encode, sha

TIME = 1_795_420_800
INLET = Inlet(name="orders", format="capistream", site="shop", source="server")
# the SDK sends the shop's own id of a person as it is
SETTINGS: Json = {
    "sink": "meta",
    "dataset_id": "1234567890",
    "access_token": {"env": "META_TOKEN"},
    "external_id": "raw",
}
CONTEXT = {
    "ip": "203.0.113.7",
    "user_agent": "Mozilla/5.0 (X11; Linux x86_64)",
    "url": "https://shop.example.com/thanks",
    "referrer": "https://shop.example.com/checkout",
}
IDS = {"fbp": "fb.1.1795420000000.1234567890", "fbc": "fb.1.1795410000000.AbCdEf"}
NAMES = {"purchase": "Purchase", "search": "Search", "add_to_cart": "AddToCart"}
KEYS = {
    "email": "em",
    "phone": "ph",
    "first_name": "fn",
    "last_name": "ln",
    "birth_date": "db",
    "city": "ct",
    "region": "st",
    "postal_code": "zp",
}


@pytest.fixture(scope="module", autouse=True)
def no_network() -> Iterator[None]:
    def refuse(*_args: Any, **_more: Any) -> None:
        raise AssertionError("the SDK wants to talk to somebody")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", refuse)
        patch.setattr(socket, "getaddrinfo", refuse)
        yield


def clear_event(user: Json, commerce: Json | None = None, name: str = "add_to_cart", **more: Any) -> Json:
    return {
        "event_name": name,
        "event_id": "order-1001",
        "time": TIME,
        "user": user,
        "context": CONTEXT,
        "ids": IDS,
        "commerce": commerce or {},
        **more,
    }


def ours(clear: Json) -> Json:
    (result,) = normalize(clear, INLET, TIME * 1000, {})
    assert isinstance(result, Normalized), result
    payload = encode(Meta(Settings.model_validate(SETTINGS)), result.event)
    assert isinstance(payload, Payload), payload
    return payload.body


def theirs(clear: Json) -> Json:
    """What somebody who uses the SDK writes for the same event."""
    event = TheirEvent(
        event_name=NAMES[clear["event_name"]],
        event_time=clear["time"],
        event_id=clear["event_id"],
        event_source_url=clear["context"]["url"],
        referrer_url=clear["context"]["referrer"],
        action_source=ActionSource.WEBSITE,
        opt_out=clear.get("consent", {}).get("ad_personalization") == "denied" or None,
        user_data=their_user(clear["user"]),
        custom_data=their_order(clear["commerce"]) if clear["commerce"] else None,
    )
    found: Json = event.normalize()
    return found


def their_user(user: Json) -> UserData:
    return UserData(
        email=user.get("email"),
        phone=user.get("phone"),
        first_name=user.get("first_name"),
        last_name=user.get("last_name"),
        date_of_birth=user.get("birth_date"),
        gender={"f": Gender.FEMALE, "m": Gender.MALE, None: None}[user.get("gender")],
        city=user.get("city"),
        state=user.get("region"),
        zip_code=user.get("postal_code"),
        country_code=user.get("country"),
        external_id=user.get("user_id"),
        client_ip_address=CONTEXT["ip"],
        client_user_agent=CONTEXT["user_agent"],
        fbp=IDS["fbp"],
        fbc=IDS["fbc"],
    )


def their_order(commerce: Json) -> CustomData:
    items = commerce.get("items", [])
    return CustomData(
        value=commerce.get("value"),
        # the SDK makes it lower case; Meta's reference writes it in upper case, and Meta reads both
        currency=commerce.get("currency"),
        order_id=commerce.get("transaction_id"),
        search_string=commerce.get("search_term"),
        content_type="product" if items else None,
        content_ids=[item["item_id"] for item in items] or None,
        contents=[
            Content(product_id=item["item_id"], quantity=item["quantity"], item_price=item["price"]) for item in items
        ]
        or None,
    )


def with_upper_currency(body: Json) -> Json:
    custom = body.get("custom_data", {})
    return body | ({"custom_data": custom | {"currency": custom["currency"].upper()}} if "currency" in custom else {})


def assert_same(clear: Json) -> None:
    assert with_upper_currency(ours(clear)) == with_upper_currency(theirs(clear))


# where both agree

_ASCII = st.text("abcXYZ019", min_size=1, max_size=8)
_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZäöüÄÖÜßéèêëçñåøæœąęłńśźżčďěňřšťůžÉÇŁŠØΑθήναМоскваñ東京"
_WORDS = st.lists(st.text(_LETTERS, min_size=1, max_size=8), min_size=1, max_size=3).map(" ".join)
_EMAILS = st.builds(
    "{}{}@{}.{}".format,
    _ASCII,
    st.sampled_from(("", ".lovelace", "+shop", "_1", "-x")),
    st.sampled_from(("example", "Example", "gmail", "mail.example")),
    st.sampled_from(("com", "CO.UK", "de")),
)
_CITIES = _WORDS | st.sampled_from(("St. Gallen", "Saint-Étienne", "Frankfurt (Oder)", "Paris 15", "München", "Łódź"))


def _padded(text: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.builds(str.format, st.sampled_from(("{}", " {}", "{}  ", "\t{}\n")), text)


@st.composite
def _phones(draw: st.DrawFn) -> str:
    """Draw a valid number with its country code, as people write it."""
    number: Any = phonenumbers.example_number(
        draw(st.sampled_from(("US", "GB", "DE", "FR", "IT", "PL", "SE", "IN", "JP")))
    )
    style = phonenumbers.PhoneNumberFormat
    written: str = phonenumbers.format_number(number, draw(st.sampled_from((style.E164, style.INTERNATIONAL))))
    return draw(st.sampled_from((written, written.replace("+", "00", 1))))


_PERSON = {
    "email": _padded(_EMAILS),
    "phone": _padded(_phones()),
    "first_name": _padded(_WORDS),
    "last_name": _padded(_WORDS),
    "birth_date": st.dates(date(1901, 1, 1), date(2099, 12, 31)).map("{:%Y%m%d}".format),
    "gender": st.sampled_from("fm"),
    "city": _padded(_CITIES),
    "user_id": st.from_regex("customer-[0-9]{1,6}", fullmatch=True),
}


def _place(countries: tuple[str, ...], regions: tuple[str, ...], postal_code: str) -> st.SearchStrategy[Json]:
    return st.fixed_dictionaries(
        {"country": st.sampled_from(countries)},
        optional={
            "region": st.sampled_from(regions),
            "postal_code": st.from_regex(postal_code, fullmatch=True),
        },
    )


_PLACES: st.SearchStrategy[Json] = st.one_of(
    st.just({}),
    _place(("US", "us"), ("CA", "ny", "Tx"), "[0-9]{5}(-[0-9]{4})?"),
    _place(("GB", "gb"), ("Greater London", "Kent"), "M1 1AE|sw1a 1aa|EC1A1BB"),
    _place(("DE", "fr"), ("Bayern", "Nordrhein-Westfalen", "Île-de-France"), "[0-9]{5}"),
)
_PEOPLE = st.builds(lambda person, place: person | place, st.fixed_dictionaries({}, optional=_PERSON), _PLACES)
_MONEY = st.decimals(min_value=0, max_value=100_000, places=2).map(float)
_ITEMS = st.lists(
    st.fixed_dictionaries({"item_id": _ASCII, "quantity": st.integers(1, 9), "price": _MONEY}),
    min_size=1,
    max_size=3,
    unique_by=lambda item: item["item_id"],
)
_ORDERS = st.fixed_dictionaries(
    {
        "value": _MONEY,
        "currency": st.sampled_from(("EUR", "usd", "JPY")),
        "transaction_id": st.from_regex("[1-9][0-9]{3,8}", fullmatch=True),
    },
    optional={"items": _ITEMS},
)


@given(user=_PEOPLE)
@settings(deadline=None, max_examples=200)
def test_a_person_is_written_and_hashed_as_the_sdk_does_it(user):
    assert_same(clear_event(user))


@given(commerce=_ORDERS, denied=st.booleans())
@settings(deadline=None)
def test_an_order_is_written_as_the_sdk_does_it(commerce, denied):
    consent = {"ad_personalization": "denied" if denied else "granted"}

    assert_same(clear_event({"email": "ada@example.com"}, commerce, "purchase", consent=consent))


def test_a_search_is_written_as_the_sdk_does_it():
    assert_same(clear_event({}, {"search_term": "Shirts, blue"}, "search"))


PEOPLE = {
    "plain": {"email": "ada@example.com", "first_name": "Ada", "last_name": "Lovelace"},
    "capitals and blanks": {"email": "  Ada.Lovelace+Shop@Example.COM ", "first_name": " ADA "},
    "umlauts": {"first_name": "Jürgen", "last_name": "Großmann", "city": "Köln", "country": "DE"},
    "accents": {"first_name": "Valéry", "last_name": "Dvořák", "city": "Besançon", "country": "FR"},
    "other scripts": {"first_name": "太郎", "last_name": "山田", "city": "京都市", "country": "JP"},
    "an American": {
        "phone": "+1 (555) 010-0199",
        "city": "New York",
        "region": "NY",
        "postal_code": "10001-1234",
        "country": "US",
    },
    "an Englishman": {
        "phone": "+44 20 7946 0018",
        "city": "Stoke-on-Trent",
        "region": "Staffordshire",
        "postal_code": "ST4 2DE",
        "country": "GB",
    },
    "a German": {
        "phone": "0049 30 123456",
        "city": "Frankfurt am Main",
        "region": "Baden-Württemberg",
        "postal_code": "01067",
        "country": "de",
    },
    "an Italian, whose zero stays": {"phone": "+39 06 698 12345", "country": "IT"},
    "hashes": {"email": sha("ada@example.com"), "phone": sha("15550100199").upper(), "first_name": sha("ada")},
}


@pytest.mark.parametrize("user", PEOPLE.values(), ids=PEOPLE.keys())
def test_people_of_all_kinds_are_written_as_the_sdk_does_it(user):
    assert_same(clear_event(user))


# where they differ: what of, what we hash, what the SDK hashes (None: nothing), and the reason

DIFFERENCES: dict[str, list[tuple[Json, str | None, str]]] = {
    "Meta wants names without punctuation, the SDK keeps it": [
        ({"first_name": "Anne-Marie"}, "annemarie", "anne-marie"),
        ({"last_name": "O'Brien, Jr."}, "obrien jr", "o'brien, jr."),
    ],
    "white space inside is folded, as nobody types it the same twice": [
        ({"first_name": "Mary  Jane"}, "mary jane", "mary  jane"),
    ],
    "accents are composed, so that all keyboards make the same name": [
        ({"first_name": unicodedata.normalize("NFD", "Valéry")}, "valéry", unicodedata.normalize("NFD", "valéry")),
    ],
    "Meta wants cities without punctuation, of which the SDK knows some": [
        ({"city": "L'Aquila"}, "laquila", "l'aquila"),
        ({"city": "Washington, D.C."}, "washingtondc", "washington,dc"),
    ],
    "what nothing is left of is left out; the SDK sends the hash of an empty text": [
        ({"city": "42"}, None, ""),
    ],
    "Meta wants states of the US as two letters, the SDK takes what it gets": [
        ({"region": "California", "country": "US"}, "ca", "california"),
        ({"region": "US-CA", "country": "US"}, "ca", "usca"),
    ],
    "regions elsewhere may be numbers, of which the SDK leaves nothing": [
        ({"region": "75", "country": "FR"}, "75", ""),
    ],
    "Meta wants postal codes without dash; the SDK cuts at it, which is right for the US only": [
        ({"postal_code": "00-950", "country": "PL"}, "00950", "00"),
        ({"postal_code": "100-0001", "country": "JP"}, "1000001", "100"),
    ],
    "Meta wants five digits of a postal code in the US": [
        ({"postal_code": "94025 1234", "country": "US"}, "94025", "940251234"),
        ({"postal_code": "940251234", "country": "US"}, "94025", "940251234"),
    ],
    "a date is a date however it is written; the SDK takes what it gets": [
        ({"birth_date": "1997-02-16"}, "19970216", "1997-02-16"),
    ],
    "Meta wants the country code, and the person's country tells it": [
        ({"phone": "030 123456", "country": "DE"}, "4930123456", "30123456"),
    ],
    "a zero that is dialled at home only is no part of the number": [
        ({"phone": "+44 (0)20 7946 0018"}, "442079460018", "4402079460018"),
    ],
}
CASES = [(reason, *case) for reason, cases in DIFFERENCES.items() for case in cases]


@pytest.mark.parametrize(("reason", "user", "our_text", "their_text"), CASES)
def test_where_the_sdk_differs_there_is_a_reason(reason, user, our_text, their_text):
    (key,) = (KEYS[name] for name in user if name in KEYS)
    clear = clear_event(user)

    assert ours(clear)["user_data"].get(key) == (None if our_text is None else [sha(our_text)]), reason
    assert theirs(clear)["user_data"].get(key) == [sha(their_text)], "the SDK has changed: does it agree now?"


@pytest.mark.parametrize(
    ("user", "our_text"),
    [
        ({"phone": "+49 30/123456"}, "4930123456"),
        ({"phone": "+1.650.555.1212"}, "16505551212"),
        ({"phone": "12345"}, None),
        ({"email": "ada at example"}, None),
    ],
)
def test_what_the_sdk_raises_for_is_read_or_left_out(user, our_text):
    clear = clear_event(user)
    (key,) = (KEYS[name] for name in user if name in KEYS)

    assert ours(clear)["user_data"].get(key) == (None if our_text is None else [sha(our_text)])
    with pytest.raises((ValueError, TypeError)):
        theirs(clear)


def test_an_md5_is_no_hash_that_meta_takes_though_the_sdk_passes_it_on():
    clear = clear_event({"email": "d41d8cd98f00b204e9800998ecf8427e"})

    assert "em" not in ours(clear)["user_data"]
    assert theirs(clear)["user_data"]["em"] == ["d41d8cd98f00b204e9800998ecf8427e"]


def test_what_somebody_else_wrote_for_meta_reaches_meta_with_the_same_user_data():
    """All of it hashed, as the SDK sends it, and read as our format `meta`."""
    sent = theirs(clear_event(PEOPLE["plain"] | PEOPLE["an American"]))
    (result,) = normalize({"data": [sent]}, replace(INLET, format="meta"), TIME * 1000, {})
    assert isinstance(result, Normalized), result

    payload = encode(Meta(Settings.model_validate(SETTINGS)), result.event)

    assert isinstance(payload, Payload), payload
    assert result.drops == ()
    assert payload.body["user_data"] == sent["user_data"]


def test_a_call_is_proved_as_the_sdk_proves_it():
    sink = Meta(Settings.model_validate({**SETTINGS, "app_secret": {"env": "META_APP_SECRET"}}))

    body = sink.request([Payload("a", {})], {"access_token": "the-token", "app_secret": "the-secret"}).body

    assert orjson.loads(body) == {
        "data": [{}],
        "appsecret_proof": FacebookSession("4711", "the-secret", "the-token").appsecret_proof,
    }
