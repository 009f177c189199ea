"""The routes of other people's SDKs in a running collector: keys, answers, and what a browser may read and send."""

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from tests.collecting import SECRET_KEY, WRITE_KEY, Place, collecting

pytestmark = [pytest.mark.fault, pytest.mark.asyncio(loop_scope="module")]

MORE = """
address = "https://collect.shop.example"

[traffic]
internal_networks = ["192.0.2.0/24"]
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(kafka) -> AsyncIterator[Place]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SHOP_SECRET_KEY", SECRET_KEY)
        async with collecting(kafka.brokers, "t-clients", MORE) as one:
            yield one


async def ask(place: Place, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any, Any]:
    """Status, JSON or text, headers."""
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, place.url + path, json=body, headers=headers) as answer,
    ):
        is_json = answer.content_type == "application/json"
        return answer.status, await answer.json() if is_json else await answer.text(), answer.headers


def track(event_id: str, **more: Any) -> dict[str, Any]:
    return {"event": "Product Added", "messageId": "m", "properties": {"event_id": event_id}, **more}


async def source_of(place: Place, event_id: str) -> str:
    (found,) = [event for event in await place.events() if event["event_id"] == event_id]
    return found["source"]


@pytest.mark.parametrize("path", ["/v1/track", "/v1/t", "/api/s/track"])
async def test_each_route_of_a_call_takes_it(place, path):
    status, answer, _ = await ask(place, "POST", path, track(f"route-{path}"), X_Write_Key=WRITE_KEY)

    assert (status, answer["success"], answer["accepted"]) == (200, True, 1)
    assert await source_of(place, f"route-{path}") == "pixel"


@pytest.mark.parametrize("key", [SECRET_KEY, f"shop:{SECRET_KEY}"])
async def test_a_server_of_jitsus_has_the_secret_key(place, key):
    status, _, _ = await ask(place, "POST", "/api/s/s2s/track", track(f"s2s-{key}"), X_Write_Key=key)

    assert status == 200
    assert await source_of(place, f"s2s-{key}") == "server"


@pytest.mark.parametrize("key", [WRITE_KEY, f"shop:{WRITE_KEY}"])
async def test_the_public_key_is_no_servers(place, key):
    status, answer, _ = await ask(place, "POST", "/api/s/s2s/track", track("x"), X_Write_Key=key)

    assert (status, answer["code"]) == (403, "no_key")


@pytest.mark.parametrize("key", ["", "shop:", "wrong", f"other:{WRITE_KEY}", f"shop:{WRITE_KEY}:", "shop:***"])
async def test_a_key_of_no_site_is_refused(place, key):
    status, answer, _ = await ask(place, "POST", "/api/s/track", {**track("x"), "writeKey": WRITE_KEY}, X_Write_Key=key)

    assert (status, answer["code"], answer["message"]) == (401, "no_key", "writeKey is missing or not known")


async def test_identify_is_answered_200_and_ignored(place):
    body = {"userId": "customer-7", "traits": {"email": "ada@example.com"}, "writeKey": WRITE_KEY}

    status, answer, _ = await ask(place, "POST", "/v1/identify", body)

    assert (status, answer["accepted"], answer["ignored"]) == (200, 0, 1)


async def test_a_refusal_has_the_words_that_sdks_look_for(place):
    body = {"event": "x", "messageId": "m", "properties": {"value": 5}, "writeKey": WRITE_KEY}

    status, answer, _ = await ask(place, "POST", "/v1/track", body)

    assert (status, answer["code"]) == (400, "no_currency")
    assert answer["message"] == "commerce.currency is missing, and there is a value"


@pytest.mark.parametrize("path", ["/v1/track", "/api/s/track", "/api/s/s2s/track"])
async def test_a_browser_may_send_the_headers_of_these_sdks_and_read_when_to_come_again(place, path):
    status, _, headers = await ask(
        place,
        "OPTIONS",
        path,
        Origin="https://shop.example",
        Access_Control_Request_Method="POST",
        Access_Control_Request_Headers="authorization,content-type,x-ip-policy,x-retry-count,x-write-key",
    )

    assert status == 204
    allowed = {name.strip().lower() for name in headers["Access-Control-Allow-Headers"].split(",")}
    assert allowed >= {"authorization", "content-type", "x-ip-policy", "x-retry-count", "x-write-key"}
    assert headers["Access-Control-Expose-Headers"] == "Retry-After"


async def test_analytics_next_gets_its_settings(place):
    status, answer, headers = await ask(
        place, "GET", f"/v1/projects/{WRITE_KEY}/settings", Origin="https://shop.example"
    )

    assert status == 200
    assert answer["integrations"]["Segment.io"]["apiHost"] == "collect.shop.example/v1"
    assert headers["Access-Control-Allow-Origin"] == "*"


@pytest.mark.parametrize("key", ["wrong", SECRET_KEY])
async def test_nobody_else_gets_settings(place, key):
    status, answer, _ = await ask(place, "GET", f"/v1/projects/{key}/settings")

    assert status == 404
    assert key not in str(answer)


async def test_jitsus_policy_for_addresses_is_heeded(place):
    body = track("ip-policy")

    await ask(
        place,
        "POST",
        "/api/s/track",
        body,
        X_Write_Key=WRITE_KEY,
        X_Forwarded_For="203.0.113.7",
        X_IP_Policy="stripLastOctet",
    )

    (found,) = [event for event in await place.events() if event["event_id"] == "ip-policy"]
    assert found["context"]["ip"] == "203.0.113.0"


@pytest.mark.parametrize("policy", ["keep", "stripLastOctet", "remove"])
async def test_our_own_people_are_known_whatever_is_left_of_their_address(place, policy):
    event_id = f"internal-{policy}"

    await ask(
        place,
        "POST",
        "/api/s/track",
        track(event_id),
        X_Write_Key=WRITE_KEY,
        X_Forwarded_For="192.0.2.7",
        X_IP_Policy=policy,
    )

    (found,) = [event for event in await place.events() if event["event_id"] == event_id]
    assert found["labels"] == ["internal"]
