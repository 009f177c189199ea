"""app/collector/cookies.py: what a browser's request has, what its events get from it, and which cookies it is given."""

import re
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.collector.cookies import CLICKS, PLATFORMS, Visit, applied, domain_for, visit
from app.settings import Cookies, parse

NOW = 1_795_420_800_000
DAY = 86_400_000
GRANTED = {"ad_storage": "granted", "ad_user_data": "granted", "analytics_storage": "granted"}
DENIED = dict.fromkeys(GRANTED, "denied")
SECRET = b"sk_0123456789"


def event(*, at: int = NOW, consent: Any = GRANTED, event_id: str = "e-1", **ids: Any) -> Any:
    said = {"event_name": "page_view", "event_id": event_id, "time": at, "received": NOW}
    return {**said, "source": "pixel", "consent": consent, "ids": ids}


def one(event_: Any, cookies: Any = (), rules: Cookies | None = None, **more: Any) -> tuple[dict[str, Any], Any]:
    """The event's ids, and the cookies that are set, as a browser reads them."""
    seen = Visit(dict(cookies), "www.shop.co.uk", **more)
    events, headers = applied([event_], seen, rules or Cookies(), SECRET, ["G-ABCDEF1234"])
    return dict(events[0].get("ids", {})), jar(headers)


def jar(headers: list[str]) -> Any:
    found: SimpleCookie = SimpleCookie()
    for header in headers:
        found.load(header)
    return found


def values(cookies: Any) -> dict[str, str]:
    return {name: morsel.value for name, morsel in cookies.items()}


# -- consent


@pytest.mark.parametrize(
    "consent",
    [
        {},
        DENIED,
        {"ad_storage": "denied", "analytics_storage": "denied"},
        {**GRANTED, "tcf": "unreadable"},
    ],
)
def test_without_consent_nothing_is_set_and_nothing_read(consent):
    ids, cookies = one(
        event(consent=consent), {"_ga": "GA1.1.12345.1700000000", "_ttp": "abc", "cs_id": "1.1700000000"}
    )

    assert (ids, cookies) == ({}, {})


def test_consent_for_analytics_gives_a_client_id_and_nothing_else():
    ids, cookies = one(event(consent={"analytics_storage": "granted"}, gclid="Cj0"), {"_ttp": "abc"})

    assert set(cookies) == {"cs_id"}
    assert ids == {"ga_client_id": cookies["cs_id"].value, "gclid": "Cj0"}


def test_consent_for_advertising_gives_no_client_id():
    _, cookies = one(event(consent={"ad_storage": "granted"}, gclid="Cj0"))

    assert set(cookies) == {"_fbp", "cs_clicks"}


def test_global_privacy_control_keeps_advertising_cookies_away():
    _, cookies = one(event(consent={**GRANTED, "gpc": True}, fbclid="IwAR1"))

    assert set(cookies) == {"cs_id"}


def test_absence_is_consent_only_where_the_settings_say_so():
    rules = Cookies(regions={"US": "assume"})
    american, elsewhere = {"region": "US-CA"}, {"region": "DE"}

    assert set(one(event(consent=american), rules=rules)[1]) == {"cs_id", "_fbp"}
    assert set(one(event(consent=elsewhere), rules=rules)[1]) == set()
    assert set(one(event(consent={}), rules=Cookies(absent="assume"))[1]) == {"cs_id", "_fbp"}


def test_a_person_who_takes_consent_back_has_the_cookies_taken_away():
    had = {"cs_id": "1.1700000000", "cs_clicks": "gclid.1795420800000.x", "_fbp": "fb.1.1795420800000.1", "other": "1"}

    _, cookies = one(event(consent=DENIED), had, decided=True)

    assert {name: (morsel.value, morsel["max-age"]) for name, morsel in cookies.items()} == dict.fromkeys(
        ("_fbp", "cs_clicks", "cs_id"), ("", "0")
    )


def test_a_default_that_denies_takes_no_cookie_away():
    """It may be that the consent manager has not told of the person's decision yet."""
    assert one(event(consent=DENIED), {"cs_id": "1.1700000000"})[1] == {}


# -- ids are made once


def test_a_browser_keeps_the_ids_that_it_was_given():
    ids, first = one(event(fbclid="IwAR1"))

    again, second = one(event(at=NOW + DAY, event_id="e-2"), values(first))

    assert second == {}
    assert {**again, "fbclid": "IwAR1"} == ids


@pytest.mark.parametrize("skew", [-9_000, 0, 40, 3_000_000])
def test_a_request_that_is_repeated_makes_the_same_ids(skew):
    """Its events are as old by the browser's clock; what differs is how long the request was on its way."""
    first = one(event(at=NOW - 500 + skew, fbclid="IwAR1"), skew=skew)
    later = one(event(at=NOW - 500 + skew + 70, fbclid="IwAR1"), skew=skew + 70)

    assert first[0] == later[0]
    assert values(first[1]) == values(later[1])


def test_the_time_of_a_browser_whose_clock_is_wrong_is_corrected():
    ids, _ = one(event(at=NOW - 500, fbclid="IwAR1"), skew=-50 * DAY)

    assert ids["fbc"] == f"fb.1.{NOW - 500}.IwAR1"


def test_browsers_and_sites_have_different_ids():
    first, second = one(event(event_id="e-1"))[0], one(event(event_id="e-2"))[0]
    other_site = applied([event()], Visit({}), Cookies(), b"another secret")[0][0]["ids"]

    for name in ("ga_client_id", "fbp"):
        assert len({first[name], second[name], other_site[name]}) == 3


def test_all_events_of_a_request_get_the_same_ids():
    events, headers = applied([event(event_id="e-1"), event(event_id="e-2")], Visit({}), Cookies(), SECRET)

    assert events[0]["ids"] == events[1]["ids"]
    assert len(headers) == 2


def test_ids_have_the_forms_that_platforms_know():
    ids, _ = one(event(fbclid="IwAR1-x_y"))

    assert re.fullmatch(rf"[1-9]\d{{0,9}}\.{NOW // 1000}", ids["ga_client_id"])
    assert re.fullmatch(rf"fb\.1\.{NOW}\.\d{{10}}", ids["fbp"])
    assert ids["fbc"] == f"fb.1.{NOW}.IwAR1-x_y"


# -- clicks


def test_a_click_id_is_kept_raw_with_the_time_it_was_first_seen():
    _, first = one(event(gclid="Cj0~KC.Q_iA-", ttclid="E.C.P.a|b c;ü"))

    ids, second = one(event(at=NOW + 5000, event_id="e-2", gclid="Cj0~KC.Q_iA-"), values(first))

    assert first["cs_clicks"].value == f"gclid.{NOW}.Cj0~KC.Q_iA-|ttclid.{NOW}.E.C.P.a%7Cb%20c%3B%C3%BC"
    assert second == {}
    assert ids["gclid"] == "Cj0~KC.Q_iA-"
    assert ids["ttclid"] == "E.C.P.a|b c;ü"


def test_another_click_replaces_the_one_before():
    _, first = one(event(gclid="one", fbclid="IwAR1"))

    ids, second = one(event(at=NOW + 5000, event_id="e-2", gclid="two", fbclid="IwAR2"), values(first))

    assert ids["gclid"] == "two"
    assert ids["fbc"] == second["_fbc"].value == f"fb.1.{NOW + 5000}.IwAR2"
    assert second["cs_clicks"].value == f"gclid.{NOW + 5000}.two|fbclid.{NOW + 5000}.IwAR2"


def test_the_same_click_in_the_address_again_does_not_restamp_it():
    _, first = one(event(fbclid="IwAR1"))
    ids, second = one(event(at=NOW + 5000, event_id="e-2", fbclid="IwAR1"), values(first))

    assert second == {}
    assert ids["fbc"] == f"fb.1.{NOW}.IwAR1"


def test_an_event_that_waited_brings_no_older_click_back():
    _, had = one(event(gclid="new", fbclid="IwAR2"))

    ids, cookies = one(event(at=NOW - 5000, event_id="e-0", gclid="old", fbclid="IwAR1"), values(had))

    assert cookies == {}
    assert (ids["gclid"], ids["fbc"]) == ("old", f"fb.1.{NOW - 5000}.IwAR1")


@pytest.mark.parametrize("theirs", [f"fb.2.{NOW - 1}.IwAR1", f"fb.1.{NOW - 1}.IwAR1.AQ"])
def test_what_metas_tag_made_of_a_click_stays(theirs):
    ids, cookies = one(event(fbclid="IwAR1"), {"_fbc": theirs, "_fbp": "fb.1.1700000000000.123.AQ"})

    assert ids["fbc"] == theirs
    assert ids["fbp"] == "fb.1.1700000000000.123.AQ"
    assert set(cookies) == {"cs_id", "cs_clicks"}


def test_old_clicks_give_way_to_new_ones():
    long: dict[str, Any] = dict.fromkeys(CLICKS[:5], "x" * 900)

    _, cookies = one(event(**long), {"cs_clicks": f"twclid.{NOW - 91 * DAY}.old|msclkid.{NOW - DAY}.{'y' * 900}"})

    kept = cookies["cs_clicks"].value
    assert len(kept) <= 3000
    assert "twclid" not in kept
    assert "msclkid" not in kept
    assert kept.count("|") == 2


@pytest.mark.parametrize(
    "text",
    [
        "",
        "gclid",
        "gclid.12.x",
        "gclid.1795420800000.",
        "nobody.1795420800000.x",
        "|.|.|",
        "gclid.1795420800000.a%40example.com",
    ],
)
def test_a_cookie_that_somebody_else_wrote_does_no_harm(text):
    ids, _ = one(event(), {"cs_clicks": text, "cs_id": "x" * 50, "_fbp": "fb.1.x", "_ga": "GA1.1", "_ttp": "undefined"})

    assert set(ids) == {"ga_client_id", "fbp"}


# -- cookies of the platforms


def test_cookies_of_the_platforms_are_read():
    theirs = {
        "_ga": "GA1.1.1234567890.1699999999",
        "_ga_ABCDEF1234": "GS2.1.s1763900000$o5$g1",
        "_ga_OTHER": "GS1.1.1.1",
        "_ttp": "2abcDEF",
        "_scid": "5d2a8f5e-3c1b-4a77-9f57-0c3f0b6f2f11",
        "_epik": "dj0y",
        "_gcl_aw": "GCL.1763900000.Cj0KC.Q_x",
        "_uetmsclkid": "_uetdd4afccc",
        "_rdt_uuid": "1763900000000.5d2a8f5e-3c1b-4a77-9f57-0c3f0b6f2f11",
    }

    ids, cookies = one(event(), theirs)

    assert set(cookies) == {"_fbp"}
    assert ids == {
        "ga_client_id": "1234567890.1699999999",
        "ga_session_id": "1763900000",
        "ttp": "2abcDEF",
        "scid": "5d2a8f5e-3c1b-4a77-9f57-0c3f0b6f2f11",
        "epik": "dj0y",
        "gclid": "Cj0KC.Q_x",
        "msclkid": "dd4afccc",
        "rdt_uuid": "1763900000000.5d2a8f5e-3c1b-4a77-9f57-0c3f0b6f2f11",
        "fbp": cookies["_fbp"].value,
    }


def test_what_the_event_says_wins_over_cookies():
    said: dict[str, Any] = {"ga_client_id": "9.1700000000", "fbp": "fb.1.1700000000000.9", "ttp": "mine"}

    ids, cookies = one(event(**said), {"_ga": "GA1.1.1.1700000000", "_ga_ABCDEF1234": "GS1.1.5.1", "_ttp": "theirs"})

    assert ids == said
    assert cookies == {}


def test_the_manual_names_every_cookie():
    manual = (Path(__file__).parents[3] / "docs/pixel.md").read_text()
    named = set(re.findall(r"`(\w+)`", manual))

    assert named >= {*PLATFORMS, "_ga", *(str(getattr(Cookies(), name)) for name in ("client", "clicks", "fbp", "fbc"))}


# -- how they are set


def test_cookies_are_secure_and_for_the_registered_domain():
    _, cookies = one(event(gclid="x"))

    for name, morsel in cookies.items():
        assert (morsel["domain"], morsel["path"], morsel["samesite"], morsel["secure"]) == (
            "shop.co.uk",
            "/",
            "Lax",
            True,
        )
        assert bool(morsel["httponly"]) == name.startswith("cs_")
    assert {name: morsel["max-age"] for name, morsel in cookies.items()} == {
        "cs_id": str(395 * 86400),
        "cs_clicks": str(90 * 86400),
        "_fbp": str(90 * 86400),
    }


def test_an_event_that_waited_gives_cookies_that_end_as_if_it_had_not():
    _, cookies = one(event(at=NOW - 2 * DAY))

    assert cookies["_fbp"]["max-age"] == str(88 * 86400)


def test_names_and_lifetimes_are_settings():
    rules = Cookies(client="visitor", clicks=False, fbp=False, fbc="_fbc2", click_lifetime=3600, secure=False)
    ids, cookies = one(event(fbclid="IwAR1"), rules=rules)

    assert set(cookies) == {"visitor", "_fbc2"}
    assert cookies["_fbc2"]["max-age"] == "3600"
    assert not cookies["_fbc2"]["secure"]
    assert "fbp" not in ids


@pytest.mark.parametrize(
    ("host", "setting", "domain"),
    [
        ("www.shop.co.uk", "site", "shop.co.uk"),
        ("shop.co.uk", "site", "shop.co.uk"),
        ("one.myshopify.com", "site", "one.myshopify.com"),
        ("myshopify.com", "site", ""),
        ("localhost", "site", ""),
        ("127.0.0.1", "site", ""),
        ("[::1]", "site", ""),
        ("", "site", ""),
        ("www.shop.co.uk", "host", ""),
        ("a.b.shop.co.uk", "b.shop.co.uk", "b.shop.co.uk"),
        ("www.other.de", "b.shop.co.uk", ""),
        ("notshop.co.uk", "shop.co.uk", ""),
    ],
)
def test_a_cookie_is_for_a_domain_that_browsers_take(host, setting, domain):
    assert domain_for(host, setting) == domain


def test_a_public_suffix_is_no_domain_for_cookies():
    from app.errors import SettingsError

    with pytest.raises(SettingsError, match=r"cookies\.domain: a public suffix"):
        parse('[cookies]\ndomain = "co.uk"')


def test_nobody_elses_page_gets_cookies():
    assert one(event(), {"_ttp": "x"}, third_party=True) == ({}, {})


def test_a_request_tells_of_the_page_and_of_the_browsers_clock():
    body: dict[str, Any] = {"sent_at": NOW - 70, "decided": True, "batch": []}
    headers = {"Origin": "https://www.shop.co.uk:8443", "Host": "collector:8080", "Sec-Fetch-Site": "same-site"}

    assert visit(headers, {"a": "b"}, body, NOW) == Visit({"a": "b"}, "www.shop.co.uk", 70, decided=True)
    assert "decided" not in body


@pytest.mark.parametrize(
    "body", [[], "x", None, {"sent_at": "yesterday"}, {"sent_at": float("inf")}, {"sent_at": True}]
)
def test_a_body_of_another_form_tells_nothing(body):
    assert visit({}, {}, body, NOW).skew == 0


@given(
    st.dictionaries(
        st.sampled_from(["cs_id", "cs_clicks", "_fbp", "_fbc", "_ga", "_ga_ABCDEF1234", "_gcl_aw", "ttclid"]), st.text()
    ),
    st.dictionaries(st.sampled_from(CLICKS), st.text(min_size=1)),
)
def test_whatever_cookies_say_a_header_is_one_line_that_a_browser_understands(cookies, ids):
    _, headers = applied([event(**ids)], Visit(cookies, "shop.co.uk"), Cookies(), SECRET)

    for header in headers:
        name, value, rest = re.fullmatch(
            r"([\w.-]+)=([!#-+\--:<-\[\]-~]*)((?:; [A-Za-z-]+(?:=[\w./-]+)?)+)", header
        ).groups()  # type: ignore[union-attr]
        assert len(name + value + rest) < 4096
