"""The tee in a running collector: the browser's and the back end's side of it, and what Google and Kafka got."""

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from yarl import URL

from tests.collecting import Google, Place, collecting, google, until

pytestmark = [pytest.mark.fault, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def there():
    async with google() as one:
        yield one


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(kafka, there) -> AsyncIterator[Place]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SHOP_SECRET_KEY", "sk_87654321")
        patch.setenv("GA4_SECRET", "mp-secret")
        more = "\n".join(
            f'[collector.ga4.{name}]\nsite = "shop"\nendpoint = "{there.url}"\n{rest}'
            for name, rest in (
                ("G-PLAIN12345", 'api_secret = { env = "GA4_SECRET" }\nconsent = { absent = "assume" }'),
                ("G-STRICT1234", ""),
                ("G-PINGS12345", "cookieless = true"),
                ("G-KEPT123456", "relay = false"),
                ("G-WITHID1234", 'copies = "with_id"'),
            )
        )
        async with collecting(kafka.brokers, "t-tee", more) as one:
            yield one


async def send(
    place: Place, path: str, body: bytes | None = None, *, method: str = "POST", **headers: str
) -> tuple[int, Any]:
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, URL(place.url + path, encoded=True), data=body, headers=headers) as answer,
    ):
        text = await answer.text()
        return answer.status, text


async def event_of(place: Place, event_id: str) -> Any:
    (found,) = [event for event in await place.events() if event["event_id"] == event_id]
    return found


def relayed_hits(there: Google, text: str) -> list[Any]:
    return [hit for hit in there.got if text in hit[1] or text.encode() in hit[2]]


HIT = "/g/collect?v=2&cid=1234567890.1699999999&sid=1795420000&gcs=G111&dl=https%3A%2F%2Fshop.example%2F"


async def test_a_hit_of_gtag_reaches_google_and_a_marked_copy_the_pipeline(place, there):
    headers = {
        "User-Agent": "Mozilla/5.0 (X11)",
        "X-Forwarded-For": "203.0.113.7",
        "Content-Type": "text/plain;charset=UTF-8",
        "Cookie": "session=secret",
        "Authorization": "Basic c2VjcmV0",
        "Referer": "https://shop.example/account?token=1",
    }
    body = b"en=page_view\r\nen=purchase&ep.transaction_id=T-1&epn.value=5&cu=EUR\r\nen=user_engagement"

    status, text = await send(place, f"{HIT}&tid=G-PLAIN12345&_s=1", body, **headers)

    assert (status, text) == (204, "")
    await until(lambda: relayed_hits(there, "T-1"))
    ((method, path, got, told),) = relayed_hits(there, "T-1")
    assert (method, path, got) == ("POST", f"{HIT}&tid=G-PLAIN12345&_s=1&_uip=203.0.113.7", body)
    assert told["User-Agent"] == "Mozilla/5.0 (X11)"
    assert told["Content-Type"] == "text/plain;charset=UTF-8"
    assert not {"Cookie", "Authorization", "Referer", "Origin"} & set(told)
    event = await event_of(place, "T-1")
    assert event["source"] == "pixel"
    assert event["tags"] == {"G-PLAIN12345": {"relayed": True}}
    assert event["context"]["ip"] == "203.0.113.7"
    assert event["consent"] == {"ad_storage": "granted", "analytics_storage": "granted"}


async def test_a_get_is_handed_on_as_a_get(place, there):
    path = f"{HIT}&tid=G-PLAIN12345&en=login&ep.event_id=get-1"

    assert (await send(place, path, method="GET"))[0] == 204

    await until(lambda: relayed_hits(there, "get-1"))
    assert relayed_hits(there, "get-1")[0][0] == "GET"
    assert (await event_of(place, "get-1"))["event_name"] == "login"


@pytest.mark.parametrize(
    ("name", "gcs", "relays"),
    [
        ("G-STRICT1234", "G111", True),
        ("G-STRICT1234", "G100", False),
        ("G-STRICT1234", "", False),
        ("G-PINGS12345", "G100", True),
        ("G-KEPT123456", "G111", False),
    ],
)
async def test_a_hit_without_consent_stays_here_and_its_copy_is_not_marked(place, there, name, gcs, relays):
    event_id = f"consent-{name}-{gcs}-end"
    path = f"/g/collect?v=2&tid={name}&cid=1.2&gcs={gcs}&en=login&ep.event_id={event_id}"

    assert (await send(place, path, b""))[0] == 204

    event = await event_of(place, event_id)
    assert ("tags" in event) is relays
    if relays:
        await until(lambda: relayed_hits(there, event_id))
    else:
        assert not relayed_hits(there, event_id)


async def test_only_events_with_an_id_are_copied_where_the_settings_say_so(place, there):
    body = b"en=page_view&ep.marker=with-id\r\nen=login&ep.event_id=with-id-1"

    assert (await send(place, f"{HIT}&tid=G-WITHID1234", body))[0] == 204

    assert (await event_of(place, "with-id-1"))["event_name"] == "login"
    assert not [event for event in await place.events() if event.get("custom", {}).get("marker") == "with-id"]
    await until(lambda: relayed_hits(there, "with-id-1"))


async def test_what_the_pipeline_cannot_read_google_still_gets(place, there):
    path = f"{HIT}&tid=G-PLAIN12345&en=purchase&ep.transaction_id=broken-1&epn.value=5"  # no currency

    status, text = await send(place, path, b"")

    assert status == 400
    assert "no_currency" in text
    await until(lambda: relayed_hits(there, "broken-1"))


@pytest.mark.parametrize(
    "path",
    [
        "/g/collect?v=2&tid=G-FOREIGN123&en=x",
        "/g/collect?v=2&en=x",
        "/g/collect",
        "/g/collect?v=2&tid=G-PLAIN12345&tid=G-FOREIGN123&en=x",
        "/g/collect?v=2&tid=G-FOREIGN123&tid=G-PLAIN12345&en=x",
        "/mp/collect?measurement_id=G-FOREIGN123&api_secret=mp-secret",
        "/mp/collect?measurement_id=G-PLAIN12345&measurement_id=G-FOREIGN123&api_secret=mp-secret",
        "/mp/collect?measurement_id=G-PLAIN12345&firebase_app_id=1:2:android:3&api_secret=mp-secret",
    ],
)
async def test_it_is_no_open_relay(place, there, path):
    before = len(there.got)

    status, text = await send(place, path, b"{}" if "/mp/" in path else b"")

    assert status == 404
    assert "unknown_stream" in text
    assert len(there.got) == before


async def test_a_line_cannot_name_another_stream(place, there):
    before = len(there.got)

    status, _ = await send(place, f"{HIT}&tid=G-PLAIN12345", b"en=x&tid=G-FOREIGN123\r\nen=y")

    assert status == 404
    assert len(there.got) == before


async def test_too_many_events_in_a_hit_are_refused(place):
    assert (await send(place, f"{HIT}&tid=G-PLAIN12345", b"en=x\n" * 101))[0] == 400


async def test_the_measurement_protocol_with_its_secret_is_a_server(place, there):
    body = (
        b'{"client_id": "1.2", "ip_override": "203.0.113.9", "events": [{"name": "purchase", '
        b'"params": {"transaction_id": "T-MP", "value": 5, "currency": "EUR"}}]}'
    )
    path = "/mp/collect?measurement_id=G-PLAIN12345&api_secret=mp-secret"

    status, text = await send(place, path, body, **{"Content-Type": "application/json", "X-Forwarded-For": "192.0.2.1"})

    assert (status, text) == (204, "")
    await until(lambda: relayed_hits(there, "T-MP"))
    ((method, got_path, got, _),) = relayed_hits(there, "T-MP")
    assert (method, got_path, got) == ("POST", path, body)
    event = await event_of(place, "T-MP")
    assert event["source"] == "server"
    assert event["context"] == {"ip": "203.0.113.9"}
    assert event["tags"] == {"G-PLAIN12345": {"relayed": True}}


@pytest.mark.parametrize(
    "query",
    [
        "measurement_id=G-PLAIN12345",
        "measurement_id=G-PLAIN12345&api_secret=",
        "measurement_id=G-PLAIN12345&api_secret=wrong",
        "measurement_id=G-PLAIN12345&api_secret=mp-secret&api_secret=wrong",
        "measurement_id=G-STRICT1234&api_secret=mp-secret",  # has none configured
    ],
)
async def test_the_measurement_protocol_without_the_secret_is_refused(place, there, query):
    before = len(there.got)

    status, text = await send(place, f"/mp/collect?{query}", b'{"client_id": "1.2", "events": [{"name": "login"}]}')

    assert status == 401
    assert "mp-secret" not in text
    assert len(there.got) == before


async def test_a_client_cannot_claim_that_its_event_was_relayed(place):
    claim = b'{"event_name": "login", "event_id": "claim-1", "tags": {"G-PLAIN12345": {"relayed": true}}}'

    status, text = await send(place, "/v1/events", claim, Authorization="Bearer wk_12345678")

    assert status == 400
    assert "tags.G-PLAIN12345.relayed" in text


async def test_without_a_stream_there_are_no_such_routes(kafka, prefix, monkeypatch):
    monkeypatch.setenv("SHOP_SECRET_KEY", "sk_87654321")
    async with collecting(kafka.brokers, prefix) as bare:
        assert (await send(bare, f"{HIT}&tid=G-PLAIN12345", b""))[0] == 404
