"""What all emulators share: listings, faults, bounds, and that no secret is ever shown."""

import asyncio
import logging
import re
from dataclasses import dataclass
from html import unescape
from typing import Any

import aiohttp
import orjson
import pytest

from app.sandbox import PLATFORMS, load, server
from app.sandbox._base import Answer, Call, Checked, Platform, Problem, Route, Ruling, as_id, json_answer, read_json

NOW = 1_795_420_900
TOKEN = "planted-token-0123456789"
META = "/meta/v26.0/1234567890/events"
GA4 = f"/ga4/mp/collect?measurement_id=G-ABCDEF1234&api_secret={TOKEN}"
HASH = "b5fc85e55755f9e0d030a10ab4429b6b2944855f9a0d60077fe832becbc41d72"


def lead(event_id: Any = "lead-1", **more: Any) -> Any:
    return {
        "event_name": "Lead",
        "event_time": NOW - 10,
        "event_id": event_id,
        "action_source": "other",
        "user_data": {"em": HASH},
        **more,
    }


async def post_meta(bench: Any, *events: Any, **headers: Any) -> Any:
    body = {"data": list(events or [lead()])}
    return await bench.client.post(META, json=body, headers={"Authorization": f"Bearer {TOKEN}", **headers})


async def post_ga4(bench: Any, **more: Any) -> Any:
    event = {"name": "purchase", "params": {"transaction_id": "order-1", **more}}
    return await bench.client.post(GA4, json={"client_id": "1.2", "events": [event]})


# --- listings -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("destination", "count"),
    [("meta", 1), ("1234567890", 1), ("meta:1234567890", 1), ("ga4", 1), ("G-ABCDEF1234", 1), ("meta:7", 0), ("x", 0)],
)
async def test_a_destination_is_a_platform_an_account_or_both(bench: Any, destination: str, count: int) -> None:
    await post_meta(bench)
    await post_ga4(bench)
    assert len(await bench.accepted(destination=destination)) == count
    assert len((await bench.get("/balance.json", destination=destination))["destinations"]) == count


async def test_listings_are_read_in_pieces(bench: Any) -> None:
    await post_meta(bench, *(lead(str(number)) for number in range(5)))
    listing = await bench.get("/accepted.json", limit=2)
    assert (listing["count"], listing["dropped"]) == (5, 0)
    assert [event["event_id"] for event in listing["events"]] == ["0", "1"]
    rest = await bench.accepted(after=listing["events"][-1]["seq"])
    assert [event["event_id"] for event in rest] == ["2", "3", "4"]


@pytest.mark.parametrize("query", ["event=1", "limit=few", "after=-1"])
async def test_a_filter_that_cannot_work_is_named(bench: Any, query: str) -> None:
    async with bench.client.get(f"/accepted.json?{query}") as response:
        assert response.status == 400
        assert (await response.json())["errors"][0]["field"] == query.partition("=")[0]


async def test_the_balance_adds_up(bench: Any) -> None:
    await post_meta(bench, lead("1"), lead("2"))
    await post_meta(bench, lead("1"))
    await post_meta(bench, lead("3"), lead("4", opt_out="no"))
    assert await bench.balance("meta:1234567890") == {
        "platform": "meta",
        "account": "1234567890",
        "requests": 3,
        "accepted": 3,
        "unique": 2,
        "duplicates": 1,
        "warned": 0,
        "refused": 1,
        "collateral": 1,
        "dry_runs": 0,
        "faults": {},
        "dropped": {"accepted": 0, "refused": 0},
    }


async def test_memory_is_bounded_and_what_went_is_counted(start_bench: Any) -> None:
    bench = await start_bench(keep=10)
    await post_meta(bench, *(lead(str(number)) for number in range(25)))
    for _ in range(12):
        await post_meta(bench, lead(opt_out="no"))
    listing = await bench.get("/accepted.json")
    assert (listing["count"], listing["dropped"]) == (10, 15)
    assert [event["event_id"] for event in listing["events"]] == [str(number) for number in range(15, 25)]
    balance = await bench.balance("meta:1234567890")
    assert (balance["accepted"], balance["refused"]) == (25, 12)
    assert balance["dropped"] == {"accepted": 15, "refused": 2}


# --- secrets and people -------------------------------------------------------------------------


async def everything(bench: Any) -> Any:
    """All that the sandbox ever shows."""
    paths = ["/", "/accepted.json", "/refused.json", "/balance.json", "/faults"]
    return "".join([await (await bench.client.get(path)).text() for path in paths])


async def test_no_answer_ever_shows_a_token(bench: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "app")
    await post_meta(bench, lead(event_source_url=f"https://s.example/?t={TOKEN}"), Cookie=f"session={TOKEN}")
    await post_meta(bench, lead(f"bad {TOKEN}", **{TOKEN: 1}))
    await bench.client.post(f"{META}?access_token={TOKEN}&appsecret_proof={'a' * 64}", json={"data": [lead()]})
    await bench.client.post(META, json={"data": [lead()], "access_token": TOKEN})
    await bench.client.post(META, data={"access_token": TOKEN, "data": "[{}]"})
    await bench.client.post(f"/meta/v26.0/{TOKEN}/event", headers={"Authorization": f"Bearer {TOKEN}"})
    await bench.client.post(META, json={}, headers={"Access-Token": TOKEN, "X-Pixel-Token": TOKEN})
    await post_ga4(bench)
    await post_ga4(bench, note=TOKEN, value="bad")
    await bench.client.post(f"/ga4/mp/collect?api_secret={TOKEN}", data=TOKEN)
    shown = await everything(bench)
    assert "1234567890" in shown
    assert TOKEN not in shown
    assert TOKEN not in unescape(shown)
    assert TOKEN not in caplog.text
    (taken,) = [event for event in await bench.accepted(destination="meta") if "event_source_url" in event["event"]]
    assert taken["request"]["headers"]["Authorization"] == "***"
    assert taken["event"]["event_source_url"] == "https://s.example/?t=***"


async def test_a_secret_of_digits_leaves_the_listing_readable(bench: Any) -> None:
    headers = {"Authorization": "Bearer 17954208"}
    await bench.client.post(META, json={"data": [lead("17954208")]}, headers=headers)
    (taken,) = await bench.accepted()
    assert (taken["event_id"], taken["event"]["event_time"]) == ("***", NOW - 10)


async def test_refused_events_are_shown_without_clear_personal_data(bench: Any) -> None:
    people = {"em": ["ada@example.com", HASH], "ph": 15550100199, "fn": "Ada", "client_user_agent": "Mozilla"}
    event = lead("ada@example.com", user_data=people, referrer_url="https://s.example/?m=ada%40example.com")
    await post_meta(bench, {**event, "ada@example.com": "+1 555 010 0199"})
    await bench.client.post(
        GA4, json={"client_id": "1.2", "user_data": {"sha256_email_address": "Ada"}, "events": [{}]}
    )
    shown = await everything(bench)
    assert not re.search(r"ada(@|%40)|Ada\b|555", shown)
    (refused,) = await bench.refused(destination="meta")
    assert refused["event"]["user_data"] == {
        "em": ["***", HASH],
        "ph": "***",
        "fn": "***",
        "client_user_agent": "Mozilla",
    }


async def test_requests_are_not_logged_with_their_urls(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    runner, port = await server.start("127.0.0.1", 0)
    async with aiohttp.ClientSession() as session:
        await session.post(f"http://127.0.0.1:{port}{GA4}", data=b"{")
    await runner.cleanup()
    assert TOKEN not in caplog.text


# --- the page -----------------------------------------------------------------------------------


async def test_the_page_shows_what_happened_and_escapes_it(bench: Any) -> None:
    await post_meta(bench, lead("<script>alert(1)</script>"))
    await post_meta(bench, lead("<b>bad</b>", action_source="<i>"))
    await bench.faults(destination="meta", latency_ms=1)
    async with bench.client.get("/") as response:
        assert response.content_type == "text/html"
        assert "default-src 'none'" in response.headers["Content-Security-Policy"]
        page = await response.text()
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "data[0].action_source must be one of" in page
    assert "latency_ms 1" in page
    assert not re.search(r"<script|<b>|<i>|src=|https?://", page)


async def test_the_page_is_there_before_the_first_request(bench: Any) -> None:
    assert "No request yet" in await (await bench.client.get("/")).text()


# --- faults -------------------------------------------------------------------------------------


async def test_throttling_comes_in_two_ways(bench: Any) -> None:
    await bench.faults(destination="meta", status_429=1, retry_after=2)
    response = await post_meta(bench)
    assert (response.status, response.headers["Retry-After"]) == (429, "2")
    await bench.faults(destination="meta", throttle_400=1, retry_after=2)
    response = await post_meta(bench)
    error = (await response.json())["error"]
    assert (response.status, error["code"], error["error_subcode"]) == (400, 4, 1504022)
    assert "Retry-After" not in response.headers
    assert await bench.accepted() == []
    balance = await bench.balance("meta:1234567890")
    assert (balance["requests"], balance["faults"]) == (2, {"status_429": 1, "throttle_400": 1})


@pytest.mark.parametrize("post", [post_meta, post_ga4])
async def test_a_broken_server_keeps_nothing(bench: Any, post: Any) -> None:
    for platform in PLATFORMS:
        await bench.faults(destination=platform, status_500=1)
    assert (await post(bench)).status == 500
    assert (await bench.accepted(), await bench.refused()) == ([], [])


async def test_metas_server_error_is_its_own(bench: Any) -> None:
    await bench.faults(destination="meta", status_500=1)
    error = (await (await post_meta(bench)).json())["error"]
    assert (error["code"], error["is_transient"]) == (1, True)


@pytest.mark.parametrize(("more", "status"), [({}, 502), ({"html_status": 200}, 200)])
async def test_an_html_page_where_json_was_expected(bench: Any, more: dict[str, Any], status: int) -> None:
    await bench.faults(destination="meta", html_error=1, **more)
    response = await post_meta(bench)
    assert (response.status, response.content_type) == (status, "text/html")
    assert (await response.text()).startswith("<!DOCTYPE html>")
    assert await bench.accepted() == []


@pytest.mark.parametrize(("switch", "kept"), [("reset_before", 0), ("reset_after", 1)])
async def test_a_cut_connection_keeps_the_event_or_not(bench: Any, switch: str, kept: int) -> None:
    await bench.faults(destination="meta", **{switch: 1})
    with pytest.raises(aiohttp.ClientConnectionError):
        await post_meta(bench)
    await bench.client.delete("/faults")
    assert len(await bench.accepted()) == kept
    assert (await bench.balance("meta:1234567890"))["faults"] == {switch: 1}


async def test_an_expired_token_is_said_by_meta_and_not_by_ga4(bench: Any) -> None:
    await bench.faults(destination="meta", expired_token=True)
    await bench.faults(destination="ga4", expired_token=True)
    response = await post_meta(bench)
    assert (response.status, (await response.json())["error"]["code"]) == (401, 190)
    assert (await post_ga4(bench)).status == 204
    assert [refused["reasons"][0]["field"] for refused in await bench.refused()] == ["access_token", "query.api_secret"]
    await bench.client.delete("/faults")
    assert (await post_meta(bench)).status == 200


async def test_latency_delays_the_answer(bench: Any) -> None:
    await bench.faults(destination="meta", latency_ms=150)
    begin = asyncio.get_running_loop().time()
    await post_meta(bench)
    assert asyncio.get_running_loop().time() - begin >= 0.15


async def test_faults_of_an_account_replace_those_of_its_platform(bench: Any) -> None:
    await bench.faults(destination="meta", status_500=1)
    await bench.faults(destination="meta:1234567890")
    assert (await post_meta(bench)).status == 200
    async with bench.client.delete("/faults", params={"destination": "meta:1234567890"}) as response:
        assert list((await response.json())["faults"]) == ["meta"]
    assert (await post_meta(bench)).status == 500


async def test_the_same_seed_gives_the_same_faults(bench: Any) -> None:
    async def run() -> Any:
        await bench.faults(destination="meta", status_500=0.5, seed=7)
        return [(await post_meta(bench)).status for _ in range(20)]

    first = await run()
    assert set(first) == {200, 500}
    assert await run() == first


async def test_faults_are_shown_set_and_cleared(bench: Any) -> None:
    status, shown = await bench.faults(destination="ga4", status_429=0.25, throttle_400=0, partial=0.0)
    assert status == 200
    assert shown["faults"]["ga4"]["status_429"] == 0.25
    assert shown == await bench.get("/faults")
    async with bench.client.delete("/faults") as response:
        assert (await response.json())["faults"] == {}


@pytest.mark.parametrize(
    ("switches", "field"),
    [
        ({}, "destination"),
        ({"destination": "facebook"}, "destination"),
        ({"destination": 7}, "destination"),
        ({"destination": "meta", "status_503": 0.1}, "status_503"),
        ({"destination": "meta", "status_429": 1.1}, "status_429"),
        ({"destination": "meta", "status_429": True}, "status_429"),
        ({"destination": "meta", "latency_ms": -1}, "latency_ms"),
        ({"destination": "meta", "expired_token": 1}, "expired_token"),
        ({"destination": "meta", "html_status": 99}, "html_status"),
        ({"destination": "meta", "html_status": 200.5}, "html_status"),
        ({"destination": "meta", "seed": "a"}, "seed"),
        ({"destination": "meta", "partial": 0.5}, "partial"),
        ({"destination": "ga4", "throttle_400": 0.5}, "throttle_400"),
        ({"destination": "meta", "queue_s": 5}, "queue_s"),
        ({"destination": "google_ads", "queue_s": -1}, "queue_s"),
        ({"destination": "google_ads", "throttle_400": 1}, "throttle_400"),
    ],
)
async def test_a_switch_that_cannot_be_set_is_named_and_changes_nothing(
    bench: Any, switches: dict[str, Any], field: str
) -> None:
    status, answer = await bench.faults(**switches)
    assert status == 400
    assert field in [error["field"] for error in answer["errors"]]
    assert (await bench.get("/faults"))["faults"] == {}


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"7"])
async def test_faults_that_are_no_object_are_refused(bench: Any, body: Any) -> None:
    async with bench.client.post("/faults", data=body) as response:
        assert response.status == 400


# --- platforms ----------------------------------------------------------------------------------


def test_every_platform_in_the_list_has_its_own_name() -> None:
    assert tuple(platform.name for platform in load()) == PLATFORMS


@dataclass(frozen=True)
class Toy:
    """A platform that fails events one by one: all that a new one needs."""

    def events(self, call: Call) -> Ruling:
        events: list[Any] = read_json(call.body)
        spoilt = (Problem("event", "failed on request"),)
        checked = tuple(
            Checked(event, "toy", as_id(event), problems=spoilt if call.spoils(call.path["account"]) else ())
            for event in events
        )
        return Ruling(call.path["account"], json_answer(207, [not one.problems for one in checked]), events=checked)

    def platform(self) -> Platform:
        return Platform("toy", "Toy", (Route("/{account}", self.events),), {"status_500": Answer(503)}, partial=True)


async def test_a_platform_may_fail_events_one_by_one(start_bench: Any) -> None:
    bench = await start_bench(platforms=[Toy().platform()])
    await bench.faults(destination="toy", partial=0.5, seed=3)
    async with bench.client.post("/toy/a", json=[str(number) for number in range(40)]) as response:
        assert response.status == 207
        taken = await response.json()
    assert 5 < sum(taken) < 35
    assert [event["event_id"] for event in await bench.accepted()] == [str(n) for n in range(40) if taken[n]]
    assert len(await bench.refused()) == 40 - sum(taken)


async def test_serving_ends_when_cancelled() -> None:
    serving = asyncio.create_task(server.serve("127.0.0.1", 0))
    await asyncio.sleep(0.05)
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving


async def test_a_real_port_answers_from_the_wall_clock() -> None:
    runner, port = await server.start("127.0.0.1", 0)
    async with aiohttp.ClientSession() as session:
        url = f"http://127.0.0.1:{port}"
        async with session.post(f"{url}{META}", data=orjson.dumps({"data": [lead(event_time=1)]})) as response:
            assert response.status == 401
        async with session.get(f"{url}/balance.json") as response:
            assert (await response.json())["destinations"]["meta:1234567890"]["requests"] == 1
    await runner.cleanup()
