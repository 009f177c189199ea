"""The demo's shop, as a person visits it."""

import re
from typing import Any

import pytest

from tests.browser.conftest import GRANTED, Place, Visitor

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]


async def test_a_purchase_is_one_conversion_of_pixel_and_back_end(place: Place, visitor: Visitor):
    page = await visitor.page()
    await page.goto(f"{place.shop}/p/sku-1001?fbclid=IwAR-shop")
    await page.click("#accept")
    await page.click("#add")
    await page.click("#to-cart")
    await page.click("#check-out")
    await page.click("form button.main:has-text('Buy for 54.90 €')")  # what the order comes to
    await page.wait_for_url(re.compile("/thanks/"))
    number, event_id = await page.evaluate(
        "(({number, eventId}) => [number, eventId])(document.querySelector('#purchase').dataset)"
    )

    pixel, server = sorted(await place.some(2, event_name="purchase", event_id=event_id), key=lambda one: one["source"])
    journey = await place.system.settled(number)
    (accepted,) = await place.system.accepted("meta", event_id=event_id)

    assert (pixel["source"], server["source"]) == ("pixel", "server")
    assert pixel["commerce"]["transaction_id"] == server["commerce"]["transaction_id"] == number
    assert pixel["commerce"]["value"] == server["commerce"]["value"] == 54.9
    (conversion,) = journey["conversions"]
    assert {name: one["state"] for name, one in conversion["destinations"].items()} == {
        "meta": "delivered",
        "ga4": "delivered",
    }
    sent = accepted["event"]["user_data"]
    assert sent["fbc"].endswith(".IwAR-shop")
    assert {"em", "ph", "fbp", "client_ip_address", "client_user_agent"} <= sent.keys()
    assert pixel["tags"]["meta"] == {"ran": True, "event_id": event_id}
    called = f"tagCalls.filter(({{call}}) => JSON.stringify(call).includes('{event_id}')).map(one => one.tag)"
    assert sorted(await page.evaluate(called)) == ["ga4", "meta", "pinterest", "tiktok"]


async def test_who_rejects_buys_all_the_same_and_nobody_is_told(place: Place, visitor: Visitor):
    page = await visitor.page()
    await page.goto(f"{place.shop}/p/sku-1001")
    await page.click("#reject")
    await page.click("#add")
    await page.goto(f"{place.shop}/checkout")
    await page.click("form button.main")
    await page.wait_for_url(re.compile("/thanks/"))
    number = page.url.rsplit("/", 1)[1]

    journey = await place.system.settled(number)

    (conversion,) = journey["conversions"]
    assert {one["reason"] for one in conversion["destinations"].values()} == {"consent_denied"}
    assert await visitor.cookies() == {}


async def test_categories_are_pages_without_loading(place: Place, visitor: Visitor):
    page = await visitor.page()
    await page.goto(place.shop)
    await page.click("text=Kitchen")
    await place.some(1, event_name="page_view", url=f"{place.shop}/c/kitchen")  # who leaves at once has not seen it
    await page.click("text=Shoes")
    views = await place.some(1, event_name="page_view", url=f"{place.shop}/c/shoes")

    assert views[0]["context"]["referrer"] == f"{place.shop}/c/kitchen"
    assert views[0]["context"]["title"] == "Shoes · Nordhem"
    assert await page.locator(".products > li:visible").count() == 2


# -- the collector itself, without a browser


async def test_the_events_of_a_back_end_get_nothing_from_its_connection(place: Place):
    """Neither address, user agent and cookies of whoever sends, nor cookies to keep."""
    event: dict[str, Any] = {
        "event_name": "refund",
        "event_id": "back-end-1",
        "consent": GRANTED,
        "ids": {"gclid": "x"},
    }
    headers = {
        "Authorization": f"Bearer {place.system.addresses['secret_key']}",
        "Cookie": "_fbp=fb.1.1700000000000.1; cs_id=1.1700000000",
        "X-Forwarded-For": "203.0.113.9",
    }

    async with place.system.http.post(
        f"{place.system.addresses['collector']}/v1/events", json=event, headers=headers
    ) as answer:
        assert answer.status == 200
        assert "Set-Cookie" not in answer.headers
    copy = await place.copy(event_id="back-end-1")

    assert copy["ids"] == {"gclid": "x"}
    assert "context" not in copy


async def test_a_browsers_event_gets_the_address_of_its_connection_whatever_it_says(place: Place):
    event: dict[str, Any] = {
        "writeKey": place.system.addresses["write_key"],
        "event_name": "login",
        "event_id": "browser-1",
        "consent": GRANTED,
        "context": {"ip": "198.51.100.1", "user_agent": "made up"},
    }
    headers = {"User-Agent": "Mozilla/5.0 of mine", "X-Forwarded-For": "192.0.2.1, 203.0.113.9"}

    async with place.system.http.post(
        f"{place.system.addresses['collector']}/v1/events", json=event, headers=headers
    ) as answer:
        assert len(answer.headers.getall("Set-Cookie")) == 2
    copy = await place.copy(event_id="browser-1")

    # the nearest address that is no trusted proxy
    assert copy["context"] == {"ip": "203.0.113.9", "user_agent": "Mozilla/5.0 of mine"}
