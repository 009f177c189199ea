"""app/doctor/outside.py and web.py: destinations, registry and alerts, on a real HTTP server where something is asked."""

from datetime import date

import pytest
from aiohttp import web

from app import destinations
from app.doctor import outside
from app.doctor.outside import Tried
from app.doctor.place import Place
from app.doctor.web import Answer, head
from app.errors import SettingsError
from tests.app.doctor.facts import only, settings, states
from tests.factories import served

NOW = 1_795_420_800.0
ANSWERS = {"ads": Answer("ads.example")}


def judged(tried):
    return list(outside.judge_answers(ANSWERS, {"ads": tried}))


def test_a_platform_that_takes_an_event_that_it_does_not_count_is_fine():
    (found,) = judged(Tried({"ok": True, "outcome": "delivered"}))

    assert (found.state, "does not count" in found.detail) == ("ok", True)


def test_whether_the_secret_is_right_is_said_to_be_unknown_where_the_platform_does_not_look_at_it():
    (found,) = judged(Tried({"ok": True, "outcome": "delivered"}, proves_secret=False))

    assert "whether the secret is right is not known" in found.detail


def test_where_an_event_would_count_none_is_tried():
    (found,) = judged(Tried(why_not="it would be counted: capistream destinations test ads"))

    assert (found.state, "no event tried: it would be counted" in found.detail) == ("ok", True)


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        ({"ok": False, "outcome": "halt", "reason": "token expired"}, "problem"),
        ({"ok": False, "outcome": "retry", "reason": "HTTP 503"}, "warning"),
        ({"ok": False, "outcome": "no_answer", "reason": "no connection"}, "warning"),
        ({"ok": False, "outcome": "rejected", "reason": "a field"}, "warning"),
    ],
)
def test_a_platform_that_does_not_take_it_is_told_with_its_words(answer, state):
    found = only(judged(Tried(answer)))

    assert (found.state, found.what, answer["reason"] in found.detail) == (state, "destinations.ads", True)


def test_a_credential_that_gets_no_token_is_a_problem():
    assert only(judged(SettingsError(["the Google credential: it is not JSON"]))).state == "problem"


def test_a_mistake_of_a_sink_is_its_own_problem():
    found = only(judged(Tried(failed="KeyError")))

    assert (found.state, "KeyError" in found.detail) == ("problem", True)


def test_a_platform_that_does_not_answer_is_a_problem():
    found = only(outside.judge_answers({"ads": Answer("ads.example", "its name cannot be resolved")}, {"ads": Tried()}))

    assert (found.state, "ads.example: its name cannot be resolved" in found.detail) == ("problem", True)


@pytest.mark.parametrize(
    ("version", "today", "state"),
    [
        ("v24.0", date(2026, 1, 1), []),
        ("v24.0", date(2026, 9, 1), ["warning"]),
        ("v24.0", date(2026, 10, 1), ["problem"]),
        ("v24.0", date(2026, 12, 1), ["problem"]),
        ("v26.0", date(2026, 12, 1), []),
    ],
)
def test_the_day_on_which_an_api_version_stops_is_told_in_time(version, today, state):
    found = outside.judge_sunsets(settings(api_version=f'"{version}"'), today)

    assert [one.state for one in found if one.state != "ok"] == state


def test_a_registry_that_does_not_answer_holds_up_its_sources():
    found = outside.judge_registry("the schema registry answers 401", ["orders"])

    assert (found.state, "orders" in found.remedy) == ("problem", True)
    assert outside.judge_registry("", ["orders"]).state == "ok"


@pytest.mark.parametrize(
    ("address", "answer", "state"),
    [
        ("https://chat.example/s3cret", Answer("chat.example"), "ok"),
        ("http://chat.example/s3cret", Answer("chat.example"), "warning"),
        ("https://chat.example/s3cret", Answer("chat.example", "no answer within 5 s"), "problem"),
        ("s3cret", None, "problem"),
    ],
)
def test_the_webhook_of_alerts_is_judged_and_its_address_never_told(address, answer, state):
    found = outside.judge_alerts(address, answer)

    assert found.state == state
    assert "chat.example" not in str(found)
    assert "s3cret" not in str(found)


# Asked


class Server:
    """Answers every request alike, and keeps it."""

    def __init__(self) -> None:
        self.address, self.status, self.body = "", 200, b"{}"
        self.requests: list[tuple[str, str]] = []

    async def answer(self, request: web.Request) -> web.Response:
        self.requests.append((request.method, request.raw_path))
        return web.Response(status=self.status, body=self.body)


@pytest.fixture
async def server():
    one = Server()
    async with served(one.answer) as one.address:
        yield one


async def test_a_server_is_asked_for_the_head_of_its_root_and_its_clock_is_read(server):
    server.status = 403

    found = await head(f"{server.address}/a/path?key=s3cret")

    assert (found.host, found.trouble, found.public) == ("127.0.0.1", "", False)
    assert found.date is not None
    assert abs(found.date + 0.5 - found.answered) < 3
    assert server.requests == [("HEAD", "/")]


@pytest.mark.parametrize(
    ("address", "said"),
    [("http://127.0.0.1:1/s3cret", "ClientConnectorError"), ("http://nobody.invalid/", "its name cannot be resolved")],
)
async def test_why_a_server_does_not_answer_is_told_without_its_address(address, said):
    found = await head(address)

    assert said in found.trouble
    assert "s3cret" not in found.trouble


async def test_a_server_without_tls_where_it_should_have_it_is_told(server):
    assert "TLS" in (await head(server.address.replace("http:", "https:"))).trouble


async def test_a_cache_that_answers_tells_how_old_its_answer_is():
    async def answer(_: web.Request) -> web.Response:
        return web.Response(headers={"Date": "Mon, 23 Nov 2026 08:00:00 GMT", "Age": "30"})

    async with served(answer) as address:
        found = await head(address)

    assert found.date == 1_795_420_830


async def test_a_destination_whose_test_would_count_is_asked_whether_it_is_there_and_no_more(server, monkeypatch):
    monkeypatch.setenv("ADS_TOKEN", "s3cret-token")
    place = Place(settings(endpoint=f'"{server.address}"'), NOW)

    found = await outside.check(place)

    assert states(found) == []
    assert "capistream destinations test ads" in found[-1].detail
    assert server.requests == [("HEAD", "/")]


PINS = """
[destinations.pins]
sink = "pinterest"
endpoint = "{address}"
ad_account_id = "549755885175"
access_token = {{ env = "HOOK" }}
browser_tag = "none"
"""


async def test_a_test_that_counts_nothing_is_sent_and_the_answer_told(server, monkeypatch):
    monkeypatch.setenv("HOOK", "s3cret-token")
    server.status, server.body = 401, b'{"code": 2, "message": "s3cret-token is no token"}'
    place = Place(settings(PINS.format(address=server.address), mode='"off"'), NOW)

    found = only(await outside.check(place))

    assert (found.state, found.what) == ("problem", "destinations.pins")
    assert "s3cret" not in str(found)
    assert server.requests == [("HEAD", "/"), ("POST", "/v5/ad_accounts/549755885175/events?test=true")]


async def test_without_its_secret_nothing_is_sent_and_the_problem_is_that_of_the_secret(server):
    (found,) = await outside.check(Place(settings(PINS.format(address=server.address), mode='"off"'), NOW))

    assert (found.state, "no event tried: environment variable HOOK" in found.detail) == ("ok", True)
    assert server.requests == [("HEAD", "/")]


async def test_a_credential_without_a_token_is_a_problem(server, monkeypatch):
    google = f"""
[destinations.google]
sink = "google_ads"
endpoint = "{server.address}"
customer_id = "1234567890"
credentials = {{ env = "HOOK" }}
events = {{ purchase = "1112223333" }}
"""
    monkeypatch.setenv("HOOK", '{"type": "s3cret"}')

    found = only(await outside.check(Place(settings(google, mode='"off"'), NOW)))

    assert (found.state, "the Google credential" in found.detail) == ("problem", True)
    assert "s3cret" not in str(found)


async def test_nothing_is_asked_of_a_destination_that_is_off(server):
    place = Place(settings(endpoint=f'"{server.address}"', mode='"off"'), NOW)

    assert states(await outside.check(place)) == []
    assert server.requests == []


async def test_ga4s_validation_does_not_look_at_the_secret(server):
    stats = """
[destinations.stats]
sink = "ga4"
measurement_id = "G-ABC123XYZ"
api_secret = { env = "STATS" }
browser_tag = "none"
"""
    assert not destinations.trial(settings(stats), "stats").sink.proves_secret


async def test_the_webhook_of_alerts_gets_no_post(server, monkeypatch):
    monkeypatch.setenv("CHAT", f"{server.address}/s3cret")

    (found,) = await outside.check_alerts(Place(settings(), NOW))

    assert (found.state, "s3cret" not in str(found)) == ("warning", True)
    assert server.requests == [("HEAD", "/")]


async def test_a_registry_is_asked_for_what_it_knows(server):
    server.body = b'["AVRO"]'
    loaded = settings(f'[registry]\nurl = "{server.address}"\n')

    (found,) = await outside.check_registry(Place(loaded, NOW))

    assert (found.state, server.requests) == ("ok", [("GET", "/schemas/types")])


async def test_without_a_registry_none_is_asked():
    assert await outside.check_registry(Place(settings(), NOW)) == []
