"""app/collector/cors.py: which pages of other origins may read our answers."""

import pytest

from app.collector.cors import headers, stranger

SHOP = "https://www.shop.example"


def allowed(origin: str, *, fetched: str = "", origins: tuple[str, ...] = ("*",)) -> tuple[str | None, bool]:
    found = headers({"Origin": origin, "Sec-Fetch-Site": fetched} if origin else {}, origins)
    return found.get("Access-Control-Allow-Origin"), "Access-Control-Allow-Credentials" in found


@pytest.mark.parametrize(
    ("origin", "fetched", "origins", "expected"),
    [
        ("", "", ("*",), (None, False)),
        (SHOP, "cross-site", ("*",), ("*", False)),
        (SHOP, "", ("*",), ("*", False)),
        (SHOP, "same-site", ("*",), (SHOP, True)),
        (SHOP, "cross-site", (SHOP,), (SHOP, True)),
        (SHOP, "same-site", ("https://other.example",), (None, False)),
        ("https://www.shop.example.evil", "cross-site", (SHOP,), (None, False)),
        ("null", "cross-site", (SHOP,), (None, False)),
    ],
)
def test_cookies_come_from_listed_pages_and_those_of_our_own_site(origin, fetched, origins, expected):
    assert allowed(origin, fetched=fetched, origins=origins) == expected


def test_an_answer_that_depends_on_the_origin_says_so():
    assert headers({"Origin": SHOP}, ["*"])["Vary"] == "Origin"


@pytest.mark.parametrize(
    ("origin", "fetched", "origins", "expected"),
    [
        (SHOP, "cross-site", ("*",), False),
        (SHOP, "cross-site", (SHOP,), False),
        ("https://evil.example", "cross-site", (SHOP,), True),
        ("https://www.shop.example.evil", "", (SHOP,), True),
        ("null", "cross-site", (SHOP,), True),
        ("https://m.shop.example", "same-site", (SHOP,), True),
        ("https://m.shop.example", "same-origin", (SHOP,), False),  # the collector is on a path of it
        ("", "", (SHOP,), False),  # a program: what it could write proves nothing
    ],
)
def test_a_page_of_another_origin_than_those_listed_is_a_stranger(origin, fetched, origins, expected):
    asked = {"Origin": origin, "Sec-Fetch-Site": fetched} if origin else {}

    assert stranger(asked, origins) is expected


@pytest.mark.parametrize(
    ("host", "fetched", "expected"),
    [
        ("www.shop.example", "", False),
        ("www.shop.example:443", "", False),
        ("collect.shop.example", "", True),
        ("", "", True),
        ("www.shop.example", "cross-site", True),  # who says more is believed
    ],
)
def test_a_browser_that_does_not_say_whose_page_it_is_is_known_by_the_host(host, fetched, expected):
    asked = {"Origin": SHOP, "Host": host} | ({"Sec-Fetch-Site": fetched} if fetched else {})

    assert stranger(asked, ["https://other.example"]) is expected
