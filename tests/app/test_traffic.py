"""app/traffic.py: robots, pages fetched in advance, our own people; and what normalize makes of them."""

import ipaddress
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import traffic
from app.normalize import Inlet, Normalized, normalize

CHROME = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36"
)
OFFICE = (
    ipaddress.ip_network("198.51.100.0/24"),
    ipaddress.ip_network("10.0.0.0/8"),
    ipaddress.ip_network("2001:db8::/32"),
)


@pytest.mark.parametrize(
    "user_agent",
    [
        "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
        "Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; GPTBot/1.2; +https://openai.com/gptbot)",
        CHROME.replace("Chrome/", "HeadlessChrome/"),
        "Mozilla/5.0 (Linux; Android 11; moto g power) AppleWebKit/537.36 Chrome/119.0.0.0 Mobile Safari/537.36 Chrome-Lighthouse",
        "facebookexternalhit/1.1 (+http://www.facebook.com/externalhit_uatext.php)",
    ],
)
def test_a_robot_is_known_by_its_user_agent(user_agent):
    assert traffic.is_robot(user_agent)


@pytest.mark.parametrize(
    "user_agent",
    [
        "",
        CHROME,
        "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) Mobile/15E148 [FBAN/FBIOS;FBAV/500.0.0.0;FBDV/iPhone15,2]",
        "Mozilla/5.0 (Linux; Android 13; CUBOT NOTE 20) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0 Mobile Safari/537.36",
        "okhttp/4.12.0",  # an app on Android
        "ShopApp/3.1 CFNetwork/1490.0.4 Darwin/23.2.0",  # and one on iOS
    ],
)
def test_people_and_their_apps_are_none(user_agent):
    assert not traffic.is_robot(user_agent)


@given(st.text(max_size=3000))
def test_any_text_is_looked_at_in_no_time(text):
    begun = time.process_time()
    traffic.is_robot(text)

    assert time.process_time() - begun < 0.5


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"Sec-Purpose": "prefetch"}, True),
        ({"Sec-Purpose": "prefetch;prerender"}, True),
        ({"Sec-Purpose": "prefetch;anonymous-client-ip"}, True),
        ({"X-Moz": "prefetch"}, True),
        ({"Purpose": "preview"}, True),
        ({"Sec-Purpose": ""}, False),
        ({}, False),
    ],
)
def test_a_page_that_is_fetched_in_advance_says_so(headers, expected):
    assert traffic.is_prefetch(headers) is expected


@pytest.mark.parametrize(
    ("ip", "expected"),
    [
        ("198.51.100.7", True),
        ("::ffff:198.51.100.7", True),
        ("10.1.2.3", True),
        ("2001:db8::1", True),
        ("198.51.101.7", False),
        ("", False),
        ("office", False),
    ],
)
def test_our_own_people_are_known_by_their_address(ip, expected):
    assert traffic.is_internal(ip, OFFICE) is expected


def draft(context: dict[str, str], source: str = "server") -> dict[str, object]:
    return {"event_name": "page_view", "event_id": "1", "source": source, "context": context}


def labels(context: dict[str, str], source: str = "server", **rules: object) -> list[str]:
    inlet = Inlet("t", "capistream", "shop", "server", **rules)  # type: ignore[arg-type]
    (found,) = normalize(draft(context, source), inlet, int(time.time() * 1000), {})
    assert isinstance(found, Normalized)
    return found.event.get("labels", [])


@pytest.mark.parametrize("source", ["pixel", "server", "app"])
def test_an_event_of_any_source_is_labelled(source):
    robot = {"user_agent": "Googlebot/2.1", "ip": "10.1.2.3"}

    assert labels(robot, source, internal=OFFICE, prefetch=True) == ["bot", "internal", "prefetch"]
    assert labels({"user_agent": CHROME, "ip": "203.0.113.7"}, source, internal=OFFICE) == []


def test_a_private_address_tells_of_the_office_and_goes_no_further():
    inlet = Inlet("t", "capistream", "shop", "server", internal=OFFICE)
    (found,) = normalize(draft({"ip": "10.1.2.3"}), inlet, int(time.time() * 1000), {})

    assert isinstance(found, Normalized)
    assert found.event["labels"] == ["internal"]
    assert "ip" not in found.event.get("context", {})
