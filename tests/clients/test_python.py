"""The Python SDKs of Segment and RudderStack, pointed at a collector as docs/clients.md tells, and otherwise as they are."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Protocol

import pytest
import rudderstack.analytics
import segment.analytics

from app.events import Event
from tests.clients import snippets
from tests.collecting import SECRET_KEY, WRITE_KEY, Place, collecting, failing_first, pairs

pytestmark = pytest.mark.fault


class Sdk(Protocol):
    def track(self, *args: Any, **more: Any) -> Any: ...
    def page(self, *args: Any, **more: Any) -> Any: ...
    def identify(self, *args: Any, **more: Any) -> Any: ...
    def flush(self) -> None: ...
    def join(self) -> None: ...


SDKS: dict[str, Callable[..., Any]] = {"segment": segment.analytics.Client, "rudderstack": rudderstack.analytics.Client}
ORDER = {"order_id": "1001", "event_id": "ev-1001", "value": 59.98, "currency": "EUR"}


@pytest.fixture(params=SDKS)
def sdk(request):
    return SDKS[request.param]


@pytest.fixture
async def place(kafka, prefix, monkeypatch):
    monkeypatch.setenv("SHOP_SECRET_KEY", SECRET_KEY)
    async with collecting(kafka.brokers, prefix) as one:
        yield one


async def use(make: Callable[..., Sdk], url: str, work: Callable[[Sdk], None], **more: Any) -> list[Any]:
    """What a program does with the SDK; then what it was told of as failed."""
    failed: list[Any] = []

    def run() -> None:
        options = {"upload_interval": 0.1, **more}
        client = make(SECRET_KEY, host=url, on_error=lambda error, items: failed.append((error, items)), **options)
        work(client)
        client.flush()
        client.join()

    await asyncio.to_thread(run)
    return failed


def by_name(events: list[Event]) -> dict[str, Event]:
    return {event["event_name"]: event for event in events}


@pytest.mark.parametrize("gzip", [False, True])
async def test_calls_arrive_as_a_servers_events_with_their_ids(sdk, place, gzip):
    def shop(client: Sdk) -> None:
        client.identify("customer-7", {"email": "ada@example.com"})
        client.page("customer-7", "Shop", "Thanks", {"url": "https://shop.example/thanks"}, message_id="page-1")
        client.track(
            "customer-7",
            "Order Completed",
            ORDER,
            context={"ip": "203.0.113.7", "userAgent": "Mozilla/5.0", "traits": {"email": "ada@example.com"}},
        )

    assert await use(sdk, place.url, shop, gzip=gzip) == []

    found = by_name(await place.events())
    assert set(found) == {"page_view", "purchase"}  # identify reports nothing to deliver
    assert {event["source"] for event in found.values()} == {"server"}
    assert found["page_view"]["event_id"] == "page-1"
    assert found["purchase"]["event_id"] == "ev-1001"
    assert found["purchase"]["commerce"] == {"value": 59.98, "currency": "EUR", "transaction_id": "1001"}
    assert found["purchase"]["context"] == {"ip": "203.0.113.7", "user_agent": "Mozilla/5.0"}
    assert found["purchase"]["user"]["user_id"] == "customer-7"


async def test_the_sdks_copy_and_the_pixels_copy_are_one_conversion(sdk, place):
    await use(sdk, place.url, lambda client: client.track("customer-7", "Order Completed", ORDER))
    pixel = {"event_name": "purchase", "event_id": "ev-1001", "commerce": {"transaction_id": "1001"}}
    await post(place, pixel)

    server, browser = await place.events()

    assert (server["source"], browser["source"]) == ("server", "pixel")
    assert pairs(server, browser)


async def test_many_calls_arrive_in_batches(sdk, place):
    async with failing_first(place.url) as (url, proxy):

        def work(client: Sdk) -> None:
            for number in range(250):
                client.track("customer-7", "Product Added", {"event_id": f"ev-{number}"})

        assert await use(sdk, url, work, gzip=True, upload_interval=0.5) == []

    assert {event["event_id"] for event in await place.events()} == {f"ev-{number}" for number in range(250)}
    assert {path for path, _, _ in proxy.seen} == {"/v1/batch"}
    assert len(proxy.seen) < 20


async def test_what_fails_at_first_is_sent_again(sdk, place):
    async with failing_first(place.url, 500, 503, (429, {"Retry-After": "1"})) as (url, proxy):
        work = lambda client: client.track("customer-7", "Order Completed", ORDER)  # noqa: E731 (reads as what it does)

        assert await use(sdk, url, work) == []

    assert [status for _, status, _ in proxy.seen] == [500, 503, 429, 200]
    assert [event["event_id"] for event in await place.events()] == ["ev-1001"]


async def test_what_cannot_be_taken_is_told_once_with_its_reason(sdk, place, caplog):
    caplog.set_level(logging.CRITICAL)
    async with failing_first(place.url) as (url, proxy):
        broken = {"order_id": "1002", "value": 5}  # no currency

        ((error, items),) = await use(sdk, url, lambda client: client.track("customer-7", "Order Completed", broken))

    assert [status for _, status, _ in proxy.seen] == [400]
    assert (error.code, error.message) == ("no_currency", "commerce.currency is missing, and there is a value")
    assert len(items) == 1


async def test_a_wrong_key_is_told_once(sdk, place, caplog):
    caplog.set_level(logging.CRITICAL)
    async with failing_first(place.url) as (url, proxy):

        def run() -> list[Any]:
            failed: list[Any] = []
            client = sdk(
                "wrong-key", host=url, on_error=lambda error, _items: failed.append(error), upload_interval=0.1
            )
            client.track("customer-7", "Order Completed", ORDER)
            client.flush()
            client.join()
            return failed

        (error,) = await asyncio.to_thread(run)

    assert (error.status, error.code) == (401, "no_key")
    assert [status for _, status, _ in proxy.seen] == [401]


@pytest.mark.parametrize("name", [name for name in snippets.names() if name.endswith("-python")])
async def test_the_programs_of_the_page_run(place, name):
    await asyncio.to_thread(exec, snippets.program(name, place.url), {})

    (found,) = await place.events()
    assert (found["source"], found["event_id"]) == ("server", "ev-1001")
    assert set(found["user"]) >= {"user_id"}


async def post(place: Place, body: Any) -> None:
    import aiohttp

    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{place.url}/v1/events", json=body, headers={"Authorization": f"Bearer {WRITE_KEY}"}) as answer,
    ):
        assert answer.status == 200, await answer.text()
