"""app/collector/tee.py: GA4's hits go on to Google as they came, and a copy of each into the pipeline."""

import asyncio
from typing import Any

import aiohttp
import pytest
import structlog
from prometheus_client import REGISTRY

from app.collector import tee
from app.collector.tee import Hit, Relay, from_browser, from_server, may_go, said_by_server
from app.destination import ConsentPolicy
from app.errors import SettingsError
from app.events import SIGNALS
from app.settings import Ga4Stream, parse
from tests.collecting import google, until

GRANTED = {"analytics_storage": "granted"}
DENIED = {"analytics_storage": "denied"}
BROWSER = {"ip": "203.0.113.7", "user_agent": "Mozilla/5.0 (X11)"}


def stream(**more: Any) -> Ga4Stream:
    return Ga4Stream.model_validate({"site": "shop", "endpoint": "http://google.test", **more})


# what goes out


def test_a_hit_of_gtag_goes_on_byte_for_byte_with_the_visitors_address():
    query = "v=2&tid=G-ABC1234567&dt=100%25+%C3%BC%20~*'()&ep.x=a%2Bb"

    hit = from_browser(stream(), "POST", query, b"en=a\r\nen=b", "text/plain;charset=UTF-8", BROWSER)

    assert hit == Hit(
        "POST",
        f"http://google.test/g/collect?{query}&_uip=203.0.113.7",
        {"User-Agent": "Mozilla/5.0 (X11)", "Content-Type": "text/plain;charset=UTF-8"},
        b"en=a\r\nen=b",
    )


def test_the_visitors_address_stays_here_where_the_settings_say_so():
    assert "_uip" not in from_browser(stream(visitor_ip=False), "GET", "v=2", b"", "", BROWSER).url


@pytest.mark.parametrize("query", ["_uip=192.0.2.1&v=2", "v=2&_uip=192.0.2.1", "v=2&_uip="])
def test_a_visitor_cannot_claim_another_address(query):
    assert (
        from_browser(stream(), "GET", query, b"", "", BROWSER).url
        == "http://google.test/g/collect?v=2&_uip=203.0.113.7"
    )


def test_an_ipv6_address_is_quoted():
    assert from_browser(stream(), "GET", "v=2", b"", "", {"ip": "2001:db8::7"}).url.endswith("&_uip=2001%3Adb8%3A%3A7")


def test_a_request_of_the_measurement_protocol_goes_on_unchanged_and_without_an_address():
    hit = from_server(stream(), "measurement_id=G-ABC1234567&api_secret=s", b"{}", "application/json", "shop/1")

    assert hit.url == "http://google.test/mp/collect?measurement_id=G-ABC1234567&api_secret=s"
    assert hit.headers == {"User-Agent": "shop/1", "Content-Type": "application/json"}


# which consent


@pytest.mark.parametrize(
    ("said", "settings", "policy", "goes"),
    [
        (GRANTED, {}, {}, True),
        (DENIED, {}, {}, False),
        ({}, {}, {}, False),
        ({}, {}, {"absent": "assume"}, True),
        (DENIED, {"cookieless": True}, {}, True),
        ({}, {"cookieless": True}, {}, False),
        ({"tcf": "nonsense"}, {"cookieless": True}, {}, False),
        ({**GRANTED, "us_privacy": "1YYN"}, {}, {}, True),  # of sale, which this is not
        ({}, {}, {"regions": {"US": {"absent": "assume"}}}, False),
        ({"region": "US-CA"}, {}, {"regions": {"US": {"absent": "assume"}}}, True),
        ({"region": "somewhere"}, {}, {"regions": {"US": {"absent": "assume"}}}, False),
        (
            {**GRANTED, "ad_storage": "denied"},
            {},
            {"needs": ["analytics_storage", "ad_storage"], "partial": "strip"},
            False,  # nothing can be taken out of a hit
        ),
    ],
)  # fmt: skip
def test_a_hit_goes_where_its_consent_allows_analytics(said, settings, policy, goes):
    assert may_go(said, stream(**settings), ConsentPolicy.model_validate(policy)) is goes


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, {}),
        ({"consent": {"ad_user_data": "GRANTED"}}, {"ad_user_data": "granted"}),
        ({"consent": {"ad_user_data": "?", "x": 1}}, {"ad_user_data": "?"}),
        ({"consent": "GRANTED"}, dict.fromkeys(SIGNALS, "denied")),
        ([], {}),
    ],
)  # fmt: skip
def test_a_servers_consent_is_read_and_what_cannot_be_read_denies(body, said):
    assert said_by_server(body) == said


SETTINGS = """
[sites.shop]
write_key = "wk_12345678"
secret_key = { env = "NOBODY_SETS_THIS" }
silence_denies = true

[destinations.other]
sink = "ga4"
measurement_id = "G-OTHER12345"
api_secret = { env = "NOBODY_SETS_THIS" }
browser_tag = "none"
consent = { absent = "assume", partial = "flag" }

[destinations.stats]
sink = "ga4"
measurement_id = "G-ABC1234567"
api_secret = { env = "NOBODY_SETS_THIS" }
browser_tag = "none"
consent = { partial = "strip" }

[collector.ga4.G-ABC1234567]
site = "shop"

[collector.ga4.G-OWN1234567]
site = "shop"
consent = { absent = "assume" }

[collector.ga4.G-NONE123456]
site = "shop"
"""


def test_the_policy_is_the_streams_own_or_that_of_its_destination():
    settings = parse(SETTINGS)

    assert settings.stream_policy("G-ABC1234567").partial == "strip"
    assert settings.stream_policy("G-OWN1234567").absent == "assume"
    assert settings.stream_policy("G-NONE123456") == ConsentPolicy()


def test_silence_of_a_site_is_a_denial_for_its_hits_too():
    settings = parse(SETTINGS)

    assert not may_go({}, settings.collector.ga4["G-OWN1234567"], settings.stream_policy("G-OWN1234567"))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('[collector.ga4.G-ABC1234567]\nsite = "other"', "collector.ga4.G-ABC1234567.site: no site is called so"),
        ('[collector.ga4.UA-1]\nsite = "shop"', "collector.ga4.UA-1"),
        ('[collector.ga4.G-ABC1234567]\nsite = "shop"\nendpoint = "google"', "endpoint: an address that begins with"),
        ('[collector.ga4.G-ABC1234567]\nsite = "shop"\nrelay = false\ncopies = "none"', "throws every hit away"),
        ('[collector.ga4.G-ABC1234567]\nsite = "shop"\napi_secret = "s3cret"', "api_secret: a secret is never in this file"),
    ],
)  # fmt: skip
def test_a_mistake_in_the_settings_is_named(line, said):
    site = '[sites.shop]\nwrite_key = "wk_12345678"\nsecret_key = { env = "X" }\n'

    with pytest.raises(SettingsError) as wrong:
        parse(site + line)
    assert said in str(wrong.value)
    assert "s3cret" not in str(wrong.value)


# sending


def counted(measurement_id: str, outcome: str) -> float:
    labels = {"measurement_id": measurement_id, "outcome": outcome}
    return REGISTRY.get_sample_value("capistream_relayed_total", labels) or 0.0


def a_hit(url: str, name: str = "x") -> Hit:
    return Hit("POST", f"{url}/g/collect?en={name}", {"User-Agent": "M"}, b"")


@pytest.fixture
async def session():
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as one:
        yield one


async def test_a_hit_is_handed_on(session):
    async with google() as there:
        relay = Relay("G-HANDEDON1", session)

        assert relay.offer(Hit("POST", f"{there.url}/g/collect?dt=100%25+x", {"User-Agent": "M"}, b"en=a"))
        await until(lambda: there.got)
        await relay.stop()

        ((method, path, body, headers),) = there.got
        assert (method, path, body) == ("POST", "/g/collect?dt=100%25+x", b"en=a")
        assert headers == {"Host": headers["Host"], "User-Agent": "M", "Content-Length": "4"}
        assert counted("G-HANDEDON1", "relayed") == 1


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_what_google_refuses_for_now_is_sent_again(session, status):
    async with google() as there:
        there.answers = [status]
        relay = Relay(f"G-AGAIN{status}", session)

        relay.offer(a_hit(there.url))
        await until(lambda: len(there.got) == 2)
        await relay.stop()

        assert counted(f"G-AGAIN{status}", "relayed") == 1


@pytest.mark.parametrize("status", [301, 400, 404])
async def test_what_google_refuses_for_good_is_counted(session, status):
    async with google() as there:
        there.answers = [status]
        relay = Relay(f"G-REFUSED{status}", session)

        relay.offer(a_hit(there.url))
        await until(lambda: counted(f"G-REFUSED{status}", "refused") == 1)

        assert len(there.got) == 1


async def test_a_hit_without_an_answer_is_not_sent_again(session):
    async with google() as there:
        there.slow = asyncio.Event()
        relay = Relay("G-UNKNOWN1", session, timeout=0.2)

        relay.offer(a_hit(there.url))
        await until(lambda: counted("G-UNKNOWN1", "unknown") == 1)
        there.slow.set()

        assert len(there.got) == 1


async def test_a_hit_that_cannot_be_sent_at_all_holds_up_no_other(session):
    async with google() as there:
        relay = Relay("G-BROKEN123", session)

        relay.offer(Hit("POST", f"{there.url}/g/collect", {"User-Agent": "a\r\nb"}, b""))
        await until(lambda: counted("G-BROKEN123", "unknown") == 1)
        relay.offer(a_hit(there.url))

        await until(lambda: counted("G-BROKEN123", "relayed") == 1)


async def test_the_log_tells_of_losses_now_and_then_and_never_what_was_lost(session):
    async with google() as there:
        there.answers = [400] * 50
        relay = Relay("G-LOGGED123", session)

        with structlog.testing.capture_logs() as said:
            for _ in range(50):
                relay.offer(a_hit(there.url, "ada@example.com"))
            await until(lambda: counted("G-LOGGED123", "refused") == 50)

        (line,) = said
        assert line["event"] == "tee.not_relayed"
        assert "ada" not in str(line)


async def test_where_nobody_listens_a_hit_is_tried_until_patience_ends(session):
    relay = Relay("G-AWAY12345", session, patience=0.3)

    relay.offer(a_hit("http://127.0.0.1:1"))

    await until(lambda: counted("G-AWAY12345", "given_up") == 1)


async def test_where_too_many_wait_a_hit_is_not_taken_on(session):
    async with google() as there:
        there.slow = asyncio.Event()
        relay = Relay("G-FULL12345", session, most_waiting=3)

        taken = [relay.offer(a_hit(there.url, str(n))) for n in range(5)]
        there.slow.set()
        await until(lambda: len(there.got) == 3)

        assert taken == [True, True, True, False, False]
        assert counted("G-FULL12345", "full") == 2
        await until(lambda: counted("G-FULL12345", "relayed") == 3)
        assert relay.offer(a_hit(there.url))
        await relay.stop()


async def test_large_hits_are_bounded_together(session, monkeypatch):
    monkeypatch.setattr(tee, "MOST_BYTES", 1000)
    async with google() as there:
        there.slow = asyncio.Event()
        relay = Relay("G-BYTES1234", session)

        taken = [relay.offer(Hit("POST", there.url + "/g/collect", {}, b"x" * 400)) for _ in range(4)]
        there.slow.set()
        await relay.stop()

        assert taken == [True, True, False, False]


async def test_at_the_end_those_that_wait_get_a_last_while_and_the_rest_is_counted(session):
    async with google() as there:
        there.slow = asyncio.Event()
        relay = Relay("G-STOP12345", session)
        for n in range(40):
            relay.offer(a_hit(there.url, str(n)))
        await until(lambda: len(there.got) == tee.AT_ONCE)

        await relay.stop(0.1)
        there.slow.set()

        assert counted("G-STOP12345", "stopped") == 40
