"""app/formats/gtag.py: hits as gtag.js sends them, in an address or with a line for each event."""

from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import formats
from app.errors import BadEvent
from app.events import SIGNALS
from app.formats import Ignored, gtag
from app.normalize import Inlet, Normalized, normalize

SHARED = {
    "v": "2",
    "tid": "G-ABC1234567",
    "gtm": "45je5b40v9101",
    "_p": "1795420799000",
    "gcs": "G111",
    "gcd": "13r3r3r2r5l1",
    "npa": "0",
    "dma": "1",
    "dma_cps": "syphamo",
    "cid": "1234567890.1699999999",
    "ul": "de-de",
    "sr": "1920x1080",
    "ur": "DE-BE",
    "uaa": "x86",
    "uamb": "0",
    "pscdl": "noapi",
    "_s": "2",
    "sid": "1795420000",
    "sct": "3",
    "seg": "1",
    "dl": "https://shop.example/thanks?order=1001",
    "dr": "https://shop.example/checkout",
    "dt": "Thank you",
}
PURCHASE = {
    "en": "purchase",
    "_c": "1",
    "_et": "1537",
    "cu": "EUR",
    "pr1": "idSKU-1~nmShirt, red~brAcme~caClothing~c2Shirts~vared~pr29.99~qt2~cpSHIRT~ds1.5~lp0~k0fit~v0slim",
    "pr2": "nmTilde ~~ socks~pr5",
    "ep.transaction_id": "1001",
    "ep.affiliation": "Web shop",
    "ep.coupon": "WELCOME",
    "epn.value": "59.98",
    "epn.tax": "4.5",
    "epn.shipping": "5",
    "ep.customer_type": "new",
    "epn.points": "12",
    "epn.share": "0.25",
    "up.plan": "gold",
    "tfd": "2200",
}


def hit(*events: dict[str, str], **shared: str) -> dict[str, str]:
    """One event in the address, or several in lines."""
    common = {**SHARED, **shared}
    if len(events) == 1:
        return {"query": urlencode({**common, **events[0]}), "lines": ""}
    return {"query": urlencode(common), "lines": "\r\n".join(map(urlencode, events))}


def drafts(*events: dict[str, str], **shared: str) -> list[Any]:
    return [formats.draft("gtag", one) for one in formats.split("gtag", hit(*events, **shared))]


def draft(event: dict[str, str], **shared: str) -> Any:
    (found,) = drafts(event, **shared)
    return found


def test_a_purchase_in_full():
    assert draft(PURCHASE) == {
        "event_name": "purchase",
        "event_id": "1001",
        "context": {
            "url": "https://shop.example/thanks?order=1001",
            "referrer": "https://shop.example/checkout",
            "title": "Thank you",
            "language": "de-de",
        },
        "ids": {"ga_client_id": "1234567890.1699999999", "ga_session_id": "1795420000"},
        "commerce": {
            "value": "59.98",
            "currency": "EUR",
            "tax": "4.5",
            "shipping": "5",
            "coupon": "WELCOME",
            "transaction_id": "1001",
            "affiliation": "Web shop",
            "items": [
                {
                    "item_id": "SKU-1",
                    "item_name": "Shirt, red",
                    "brand": "Acme",
                    "category": "Clothing",
                    "variant": "red",
                    "coupon": "SHIRT",
                    "quantity": "2",
                    "price": "29.99",
                    "discount": "1.5",
                },
                {"item_name": "Tilde ~ socks", "price": "5"},
            ],
        },
        "consent": {
            "ad_storage": "granted",
            "analytics_storage": "granted",
            "ad_user_data": "granted",
            "ad_personalization": "granted",
            "region": "DE-BE",
        },
        "custom": {"customer_type": "new", "points": 12, "share": 0.25},
    }


def test_that_purchase_is_an_event():
    (result,) = normalize(hit(PURCHASE), Inlet("t", "gtag", "shop", "pixel"), 1_795_420_801_000, {})

    assert isinstance(result, Normalized)
    assert result.drops == ()
    assert result.event["commerce"]["items"][0] == {
        "item_id": "SKU-1",
        "item_name": "Shirt, red",
        "brand": "Acme",
        "category": "Clothing",
        "variant": "red",
        "coupon": "SHIRT",
        "quantity": 2,
        "price": 29.99,
        "discount": 1.5,
    }
    assert result.event["time"] == 1_795_420_801_000


def test_each_line_is_an_event_with_what_the_address_says_for_all():
    view, scroll = drafts({"en": "page_view"}, {"en": "scroll", "epn.percent_scrolled": "90", "dt": "Other title"})

    assert view["event_name"] == "page_view"
    assert scroll["event_name"] == "scroll"
    assert view["context"]["title"] == "Thank you"
    assert scroll["context"]["title"] == "Other title"
    assert scroll["custom"] == {"percent_scrolled": 90}
    assert view["ids"] == scroll["ids"]


def test_one_line_is_one_event():
    body = {"query": urlencode(SHARED), "lines": "en=login&ep.method=Google\n\n"}

    (found,) = formats.split("gtag", body)

    assert formats.draft("gtag", found)["commerce"] == {"method": "Google"}  # type: ignore[index]


@pytest.mark.parametrize("name", ["user_engagement", "session_start", "first_visit"])
def test_what_only_ga4_counts_is_ignored(name):
    assert draft({"en": name, "_et": "5000"}) == Ignored(name)


# who it was


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("email_address", "email"),
        ("email", "email"),
        ("sha256_email_address", "email"),
        ("phone_number", "phone"),
        ("sha256_phone_number", "phone"),
        ("address.first_name", "first_name"),
        ("address.0.first_name", "first_name"),
        ("address.sha256_last_name", "last_name"),
        ("address.street", "street"),
        ("address.city", "city"),
        ("address.region", "region"),
        ("address.postal_code", "postal_code"),
        ("address.country", "country"),
    ],
)
def test_user_provided_data_is_the_person(name, field):
    assert draft({"en": "login", f"ep.user_data.{name}": "x"})["user"] == {field: "x"}


def test_no_other_user_data_is_kept():
    assert "custom" not in draft({"en": "login", "ep.user_data._tag_mode": "MANUAL", "ep.user_data.nickname": "ada"})


def test_the_shops_own_id_of_a_person_is_taken():
    assert draft({"en": "login"}, uid="customer-7")["user"] == {"user_id": "customer-7"}


# which id


def test_an_event_id_that_the_page_gave_is_the_id():
    found = draft({**PURCHASE, "ep.event_id": "ev-1"})

    assert found["event_id"] == "ev-1"
    assert "pairs" not in found
    assert "event_id" not in found["custom"]


@pytest.mark.parametrize("nothing", ["", "undefined", "null", "0"])
def test_without_any_id_one_is_made_up_that_cannot_pair(nothing):
    found = draft({**PURCHASE, "ep.event_id": nothing, "ep.transaction_id": nothing})

    assert found["event_id"].startswith("gtag-")
    assert found["pairs"] is False


def test_a_transaction_id_is_no_id_of_another_event():
    assert draft({**PURCHASE, "en": "begin_checkout"})["pairs"] is False


def test_the_same_hit_again_makes_the_same_id():
    assert draft({"en": "page_view"})["event_id"] == draft({"en": "page_view"})["event_id"]


def test_the_same_line_twice_in_a_hit_is_two_events():
    one, other = drafts({"en": "click"}, {"en": "click"})

    assert one["event_id"] != other["event_id"]


@pytest.mark.parametrize("name", ["cid", "sid", "_p", "_s", "tid", "ep.x"])
def test_a_made_up_id_tells_hits_apart(name):
    assert draft({"en": "click"})["event_id"] != draft({"en": "click"}, **{name: "other"})["event_id"]


# consent


@pytest.mark.parametrize(
    ("parameters", "signals"),
    [
        ({"gcs": "G111"}, {"ad_storage": "granted", "analytics_storage": "granted"}),
        ({"gcs": "G101"}, {"ad_storage": "denied", "analytics_storage": "granted"}),
        ({"gcs": "G1--"}, {}),
        ({"gcs": "G2"}, {"ad_storage": "denied", "analytics_storage": "denied"}),
        ({"gcd": "13l3l3l3l1"}, {}),
        ({"gcd": "13r3r3q3r5"}, dict.fromkeys(SIGNALS, "granted") | {"ad_user_data": "denied"}),
        ({"gcd": "nonsense"}, dict.fromkeys(SIGNALS, "denied")),
        ({"gcs": "G100", "gcd": "13r3r3r3r5"}, {
            "ad_storage": "denied", "analytics_storage": "denied",
            "ad_user_data": "granted", "ad_personalization": "granted",
        }),
        ({"gcs": "G111", "npa": "1"}, {
            "ad_storage": "granted", "analytics_storage": "granted", "ad_personalization": "denied",
        }),
        ({"us_privacy": "1YYN"}, {"us_privacy": "1YYN"}),
        ({"gdpr": "1", "gdpr_consent": "CPxyz"}, {"tcf": "CPxyz"}),
        ({"gdpr": "0", "gdpr_consent": "CPxyz"}, {}),
        ({"gpp": "DBAA"}, {"gpp": "DBAA"}),
        ({"ur": "US-CA"}, {"region": "US-CA"}),
        ({"ur": "", "sst.uc": "IL"}, {"region": "IL"}),
        ({}, {}),
    ],
)  # fmt: skip
def test_consent_is_read_from_googles_parameters(parameters, signals):
    assert gtag.consent(parameters) == signals


def test_a_hit_that_says_nothing_of_consent_makes_an_event_that_says_nothing():
    assert "consent" not in draft({"en": "login"}, gcs="", gcd="", ur="", npa="")


def test_a_cookieless_ping_has_no_client_and_no_session():
    found = draft({"en": "page_view"}, gcs="G100", gcd="13q3q3q3q5")

    assert "ids" not in found
    assert found["consent"]["analytics_storage"] == "denied"


# malformed


@pytest.mark.parametrize(
    ("body", "reason", "field"),
    [
        (None, "wrong_type", ""),
        ([], "wrong_type", ""),
        ("v=2", "wrong_type", ""),
        ({}, "wrong_type", "query"),
        ({"query": "v=2"}, "wrong_type", "lines"),
        ({"query": 2, "lines": ""}, "wrong_type", "query"),
        ({"query": "v=2", "lines": "en=x\n" * 101}, "too_many", ""),
        ({"query": "&".join(f"p{n}=1" for n in range(501)), "lines": ""}, "too_many", ""),
    ],
)
def test_a_malformed_hit_is_refused_naming_the_field(body, reason, field):
    with pytest.raises(BadEvent) as refused:
        formats.split("gtag", body)
    assert (refused.value.reason, refused.value.field) == (reason, field)


def test_a_hit_without_a_name_is_refused():
    with pytest.raises(BadEvent) as refused:
        draft({"ep.x": "1"})
    assert (refused.value.reason, refused.value.field) == ("missing", "en")


def test_an_empty_hit_has_no_event():
    assert formats.split("gtag", {"query": "", "lines": ""}) == []


@pytest.mark.parametrize(
    ("packed", "item"),
    [
        ("", {}),
        ("~", {}),
        ("~~", {}),
        ("id", {}),
        ("id1", {"item_id": "1"}),
        ("id1~id2", {"item_id": "1"}),
        ("nma~~b", {"item_name": "a~b"}),
        ("nma~~~id7", {"item_name": "a~", "item_id": "7"}),
        ("zz9~id1", {"item_id": "1"}),
    ],
)
def test_a_product_is_unpacked(packed, item):
    assert gtag._item(packed) == item


def test_products_keep_their_order_and_are_at_most_200():
    many = {f"pr{number}": f"id{number}" for number in range(250, 0, -1)}

    items = draft({"en": "view_item_list", **many})["commerce"]["items"]

    assert [item["item_id"] for item in items] == [str(number) for number in range(1, 201)]


@given(st.text(max_size=200), st.text(max_size=200))
def test_no_text_is_more_than_refused(query, lines):
    for result in normalize(
        {"query": query, "lines": lines}, Inlet("t", "gtag", "shop", "pixel"), 1_795_420_801_000, {}
    ):
        assert not isinstance(result, Normalized) or result.event["event_id"]
