"""The pixel in a real Chromium, against a whole system."""

import asyncio
from typing import Any

import pytest

from tests.browser.conftest import DENIED, GRANTED, Place, Visitor
from tests.system.conftest import eventually

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

#: A consent manager that knows what the person said on an earlier visit.
ACCEPTED = (
    "<script>window.dataLayer = []; function gtag() { dataLayer.push(arguments); }"
    f"gtag('consent', 'default', {DENIED}); gtag('consent', 'update', {GRANTED})</script>"
)
ASKING = (
    "<script>window.dataLayer = []; function gtag() { dataLayer.push(arguments); }"
    f"gtag('consent', 'default', {DENIED})</script>"
)
STUB = "<script>window.capi=window.capi||function(){(capi.q=capi.q||[]).push(arguments)}</script>"


async def stored(page: Any) -> list[str]:
    """Names of what waits in storage."""
    found: list[str] = await page.evaluate("Object.keys(localStorage).filter(name => name.startsWith('capi:'))")
    return found


async def delivered(place: Place, event_id: str) -> list[Any]:
    return await place.system.accepted("1234567890", event_id=event_id)


# -- pages


async def test_a_page_view_is_told_with_its_page_and_its_connection(place: Place, visitor: Visitor):
    page = await visitor.opens(
        "landing?utm_source=x", "<script>window.told = []; addEventListener('capi', e => told.push(e.detail))</script>"
    )

    (told,) = await page.evaluate("told")
    copy = await place.copy(event_id=told["event_id"])

    assert told["event_name"] == copy["event_name"] == "page_view"
    assert copy["source"] == "pixel"
    assert copy["context"]["url"] == visitor.address("landing?utm_source=x")
    assert copy["context"]["title"] == "landing"
    assert copy["context"]["user_agent"] == await page.evaluate("navigator.userAgent")
    assert copy["context"]["ip"] == "203.0.113.77"
    assert abs(copy["received"] - copy["time"]) < 5000


async def test_each_address_of_a_single_page_application_is_a_page(place: Place, visitor: Visitor):
    page = await visitor.opens("app")
    await page.evaluate("history.pushState(null, '', 'shoes'); document.title = 'Shoes'")
    await place.copy(url=visitor.address("shoes"))
    await page.evaluate("history.replaceState({}, '', location.href); history.replaceState(null, '', 'hats#top')")
    await place.copy(url=visitor.address("hats"))
    await page.evaluate("history.back()")
    await place.some(4, url=visitor.mark)
    await page.evaluate("history.pushState(null, '', '#/route')")
    views = await place.some(5, url=visitor.mark)

    ends = [one["context"]["url"].rsplit("/", 1)[1] for one in views[:4]]
    assert ends == ["app", "shoes", "hats#top", "app"]
    assert views[4]["context"]["url"] == visitor.address("app#/route")
    assert views[1]["context"]["title"] == "Shoes"
    assert [one["context"].get("referrer") for one in views[1:4]] == [
        visitor.address("app"),
        visitor.address("shoes"),
        visitor.address("hats"),
    ]


async def test_calls_before_the_script_came_are_not_lost(place: Place, visitor: Visitor):
    early = f"""{STUB}<script>
      capi("user", {{email: "ada@example.com"}});
      capi("track", "sign_up", {{event_id: "early-1", method: "mail", plan: "pro"}});
    </script>"""
    await visitor.opens("early", early)

    copy = await place.copy(event_id="early-1")

    assert copy["commerce"] == {"method": "mail"}
    assert copy["custom"] == {"plan": "pro"}
    assert set(copy["user"]["email"]) >= {"plain"}


async def test_track_gives_the_page_its_event_id(place: Place, visitor: Visitor):
    page = await visitor.opens("ids", pixel='data-pages="off"')

    own = await page.evaluate(
        "capi('track', 'add_to_cart', {value: 9.9, currency: 'EUR', items: [{item_id: 'SKU-1'}]})"
    )
    given = await page.evaluate("capi('track', 'login', {event_id: 'given-1'})")

    assert given == "given-1"
    assert (await place.copy(event_id=own))["commerce"] == {
        "value": 9.9,
        "currency": "EUR",
        "items": [{"item_id": "SKU-1"}],
    }
    await place.copy(event_id="given-1")
    assert {one["event_name"] for one in place.have(url=visitor.mark)} == {"add_to_cart", "login"}


# -- cookies and consent


async def test_consent_gives_a_browser_its_cookies_and_its_events_their_ids(place: Place, visitor: Visitor):
    page = await visitor.opens("?fbclid=IwAR1-x&gclid=Cj0_x", ACCEPTED)
    first = await place.copy(url=visitor.mark)
    await visitor.answered()
    cookies = await visitor.cookies()

    await page.evaluate("history.pushState(null, '', 'next')")
    second = await place.copy(url=visitor.address("next"))

    assert set(cookies) == {"cs_id", "cs_clicks", "_fbp", "_fbc"}
    assert all(one["secure"] and one["sameSite"] == "Lax" for one in cookies.values())
    assert {name for name, one in cookies.items() if one["httpOnly"]} == {"cs_id", "cs_clicks"}
    assert first["ids"] == {**second["ids"], "fbclid": "IwAR1-x"}
    assert second["ids"] == {
        "ga_client_id": cookies["cs_id"]["value"],
        "fbp": cookies["_fbp"]["value"],
        "fbc": cookies["_fbc"]["value"],
        "gclid": "Cj0_x",
    }
    assert cookies["_fbc"]["value"].endswith(".IwAR1-x")


async def test_without_consent_nothing_is_stored_and_nothing_delivered(place: Place, visitor: Visitor):
    page = await visitor.opens("?fbclid=IwAR2", ASKING)
    bought = {"event_id": "denied-1", "transaction_id": "D-1", "value": 1, "currency": "EUR"}
    await page.evaluate(f"gtag('consent', 'update', {DENIED}); capi('track', 'purchase', {bought})")

    copy = await place.copy(event_id="denied-1")
    journey = await place.system.settled("denied-1")

    assert {copy["consent"][name] for name in DENIED} == {"denied"}
    assert copy["ids"] == {"fbclid": "IwAR2"}, "of the address, and nothing else"
    assert await visitor.cookies() == {}
    assert await stored(page) == []
    assert journey["conversions"][0]["destinations"]["meta"]["reason"] == "consent_denied"


async def test_who_denied_and_then_agrees_is_a_visitor_from_then_on(place: Place, visitor: Visitor):
    page = await visitor.opens("?fbclid=IwAR3", ASKING)
    await visitor.answered()  # after half a second without a decision, as denied as the default says
    assert await visitor.cookies() == {}

    await page.evaluate(f"gtag('consent', 'update', {GRANTED})")
    views = await place.some(2, url=visitor.mark)
    await visitor.answered(2)
    denied, told_again = sorted(views, key=lambda one: one["consent"]["ad_storage"])
    bought = await page.evaluate("capi('track', 'purchase', {transaction_id: 'G-1', value: 1, currency: 'EUR'})")
    copy = await place.copy(event_id=bought)

    # the denial of an id is final, so the page view has another, and its click id is not lost
    assert denied["event_id"] != told_again["event_id"]
    assert told_again["consent"]["ad_storage"] == "granted"
    assert told_again["ids"]["fbc"] == copy["ids"]["fbc"] == (await visitor.cookies())["_fbc"]["value"]
    assert (await place.system.settled(bought))["conversions"][0]["destinations"]["meta"]["state"] == "delivered"


async def test_who_takes_consent_back_loses_the_cookies(place: Place, visitor: Visitor):
    page = await visitor.opens("", ACCEPTED)
    await visitor.answered()
    assert set(await visitor.cookies()) == {"cs_id", "_fbp"}

    await page.evaluate(
        f"gtag('consent', 'update', {DENIED}); capi('track', 'login', {{event_id: '{visitor.mark}-out'}})"
    )
    copy = await place.copy(event_id=f"{visitor.mark}-out")

    assert copy.get("ids", {}) == {}
    await eventually(lambda: _none(visitor), "cookies gone", patience=5)


async def _none(visitor: Visitor) -> bool:
    return await visitor.cookies() == {}


async def test_a_consent_manager_that_is_slow_is_waited_for(place: Place, visitor: Visitor):
    slow = (
        ASKING.replace("'denied'}", "'denied', 'wait_for_update': 3000}")
        + f"<script>setTimeout(() => gtag('consent', 'update', {GRANTED}), 900)</script>"
    )
    await visitor.opens("", slow)

    copy = await place.copy(url=visitor.mark)

    assert copy["consent"]["analytics_storage"] == "granted"
    assert len(place.have(url=visitor.mark)) == 1


TC = "CQfDEkAQfDEkAAfKABENCOFgAIIAAAAAAAYgIzQAgF5gRmAAAAAA"


async def test_tcf_is_read_when_the_person_has_decided(place: Place, visitor: Visitor):
    cmp = f"""<script>
      let tell;
      window.__tcfapi = (command, version, callback) => {{
        if (command == "addEventListener") (tell = callback)({{eventStatus: "cmpuishown", gdprApplies: true}}, true);
      }};
      const said = {{eventStatus: "useractioncomplete", tcString: "{TC}", purpose: {{consents: {{1: true}}}}}};
      setTimeout(() => tell(said, true), 200);
    </script>"""
    await visitor.opens("", cmp)

    assert (await place.copy(url=visitor.mark))["consent"] == {"tcf": TC}


async def test_gpp_and_global_privacy_control_are_read(place: Place, visitor: Visitor):
    cmp = """<script>
      Object.defineProperty(navigator, "globalPrivacyControl", {value: true});
      const said = {eventName: "listenerRegistered", pingData: {signalStatus: "ready", gppString: "DBABTA~1YNN"}};
      window.__gpp = (command, callback) => callback(said, true);
    </script>"""
    await visitor.opens("", cmp)

    assert (await place.copy(url=visitor.mark))["consent"] == {"gpp": "DBABTA~1YNN", "gpc": True}


@pytest.mark.parametrize("harm", ["", "Object.defineProperty(navigator, 'locks', {value: undefined})"])
async def test_first_hits_of_several_tabs_make_one_visitor(place: Place, visitor: Visitor, harm: str):
    """Also in browsers without Web Locks."""
    await visitor.context.add_init_script(harm)
    pages = [await visitor.page() for _ in range(3)]

    await asyncio.gather(*(visitor.opens(f"tab{n}?fbclid=IwAR4", ACCEPTED, page) for n, page in enumerate(pages)))
    copies = await place.some(3, url=visitor.mark)

    for name in ("ga_client_id", "fbp", "fbc"):
        assert len({one["ids"][name] for one in copies}) == 1, name


async def test_a_collector_at_another_origin_of_the_same_site_sets_cookies_too(place: Place, visitor: Visitor):
    src = f"{place.system.addresses['collector']}/v1/capi.js"
    await visitor.opens("", ACCEPTED, pixel='data-credentials="include"', src=src)

    copy = await place.copy(url=visitor.mark)
    await visitor.answered()

    assert copy["ids"]["ga_client_id"] == (await visitor.cookies())["cs_id"]["value"]


async def test_a_collector_of_another_site_sets_none(place: Place, visitor: Visitor):
    src = f"{place.system.addresses['collector']}/v1/capi.js".replace("127.0.0.1", "localhost")
    await visitor.opens("", ACCEPTED, src=src)

    assert "ids" not in await place.copy(url=visitor.mark)
    await visitor.answered()
    assert await visitor.cookies() == {}


# -- delivery to the collector


async def test_what_happened_offline_is_told_when_online_again(place: Place, visitor: Visitor):
    page = await visitor.opens("", ACCEPTED)
    await place.copy(url=visitor.mark)
    await visitor.context.set_offline(True)
    event_id = await page.evaluate("capi('track', 'add_to_cart', {value: 5, currency: 'EUR'})")
    await eventually(lambda: _some(page), "stored", patience=5)
    happened = await page.evaluate("Date.now()")
    await asyncio.sleep(1.5)

    await visitor.context.set_offline(False)
    copy = await place.copy(event_id=event_id)

    assert abs(copy["time"] - happened) < 1000, "when it happened, not when it was told"
    await eventually(lambda: _empty(page), "storage empty", patience=5)


async def _some(page: Any) -> bool:
    return bool(await stored(page))


async def _empty(page: Any) -> bool:
    return not await stored(page)


async def test_a_queue_survives_navigation(place: Place, visitor: Visitor):
    await visitor.context.route("**/m/events", lambda route: route.abort())
    lost = "<script>navigator.sendBeacon = () => true</script>"  # what a page hands over when it goes gets lost, too
    page = await visitor.opens("one", ACCEPTED + lost)
    await page.evaluate("capi('user', {email: 'ada@example.com'})")
    event_id = await page.evaluate("capi('track', 'generate_lead', {event_id: 'kept-1', value: 5, currency: 'EUR'})")
    await eventually(lambda: _some(page), "stored", patience=5)
    assert "ada@example.com" not in await page.evaluate("JSON.stringify(localStorage)"), "nobody in clear in storage"

    await visitor.opens("two", ACCEPTED, page)
    await visitor.context.unroute("**/m/events")
    copies = await place.some(3, url=visitor.mark)

    assert [one["event_name"] for one in copies] == ["page_view", "generate_lead", "page_view"]
    assert copies[1]["event_id"] == event_id
    await eventually(lambda: _empty(page), "storage empty", patience=5)


async def test_an_event_under_way_when_its_page_goes_arrives_and_counts_once(place: Place, visitor: Visitor):
    async def slowly(route: Any) -> None:
        await asyncio.sleep(1)
        await route.continue_()

    await visitor.context.route("**/m/events", slowly)
    page = await visitor.opens("leaving", ACCEPTED, pixel='data-pages="off"')
    event_id = await page.evaluate("capi('track', 'login')")
    await page.wait_for_timeout(150)  # it is on its way now
    await visitor.opens("next?fbclid=IwAR5", ACCEPTED, page)
    copies = await place.some(2, url=visitor.mark)
    journey = await place.system.settled(event_id)

    assert {one["ids"]["ga_client_id"] for one in copies if "ids" in one} == {copies[-1]["ids"]["ga_client_id"]}
    assert len(journey["conversions"]) == 1


async def test_a_refused_event_is_not_sent_again(place: Place, visitor: Visitor):
    page = await visitor.opens("", ACCEPTED, pixel='data-pages="off"')

    await page.evaluate("capi('track', 'purchase', {value: 5})")  # without a currency
    await visitor.answered()
    await page.evaluate(f"capi('track', 'login', {{event_id: '{visitor.mark}-after'}})")
    await place.copy(event_id=f"{visitor.mark}-after")

    assert await visitor.answered(2) == [400, 200]
    await eventually(lambda: _empty(page), "storage empty", patience=5)


async def test_a_collector_in_trouble_is_asked_again(place: Place, visitor: Visitor):
    asked: list[int] = []

    async def trouble(route: Any) -> None:
        asked.append(1)
        await (route.fulfill(status=503) if len(asked) == 1 else route.continue_())

    await visitor.context.route("**/m/events", trouble)
    await visitor.opens("", ACCEPTED)

    await place.copy(url=visitor.mark)
    assert len(asked) == 2


# -- the platforms' own tags


async def test_tags_on_the_page_get_the_same_id_and_blocked_ones_are_told(place: Place, visitor: Visitor):
    await visitor.context.route("**/static/tags/tiktok.js", lambda route: route.abort("blockedbyclient"))
    await visitor.context.route("**/static/tags/google.js", lambda route: route.abort("blockedbyclient"))
    tags = '<script>localStorage.setItem("shop.consent", "granted")</script><script src="/static/tags.js"></script>'
    page = await visitor.opens("", tags, pixel='data-pass="meta tiktok ga4" data-pages="off"')
    await page.wait_for_function("fbq.callMethod && !pintrk.queue.length")

    event_id = await page.evaluate(
        "capi('track', 'purchase', {transaction_id: 'T-1', value: 29.9, currency: 'EUR',"
        " items: [{item_id: 'SKU-1', item_name: 'Shirt', price: 29.9}]})"
    )
    copy = await place.copy(event_id=event_id)
    calls = await page.evaluate("tagCalls.filter(({call}) => JSON.stringify(call).includes('SKU-1'))")

    assert copy["tags"] == {
        "meta": {"ran": True, "event_id": event_id},
        "tiktok": {"ran": False, "blocked": True},
        "pinterest": {"ran": True},
        "ga4": {"ran": False, "blocked": True},
    }
    assert [one["tag"] for one in calls] == ["meta"]
    track, name, data, options = calls[0]["call"]
    assert (track, name, options) == ("track", "Purchase", {"eventID": event_id})
    assert data["contents"] == [{"id": "SKU-1", "quantity": 1, "item_price": 29.9}]


async def test_tags_that_no_page_has_are_absent(place: Place, visitor: Visitor):
    await visitor.opens("", pixel='data-pass="meta tiktok pinterest ga4"')

    assert (await place.copy(url=visitor.mark))["tags"] == {
        name: {"ran": False} for name in ("meta", "tiktok", "pinterest", "ga4")
    }


# -- a page is never harmed


async def test_it_works_under_a_strict_policy(place: Place, visitor: Visitor):
    page = await visitor.opens("strict")
    await page.evaluate("capi('track', 'login', {event_id: 'strict-1'})")

    await place.copy(event_id="strict-1")


@pytest.mark.parametrize(
    "harm",
    [
        "Object.defineProperty(window, 'localStorage', {get() { throw new Error('blocked') }})",
        "Object.defineProperty(navigator, 'locks', {value: undefined})",
        "Object.defineProperty(navigator, 'locks', {value: {request: () => Promise.reject(new Error('no'))}})",
        "window.dataLayer = [null, 1, 'consent', {}, ['consent'], ['consent', 'update', null]]",
        "window.__tcfapi = () => { throw new Error('cmp') }; window.__gpp = window.__tcfapi",
        "crypto.randomUUID = undefined",
        "window.fbq = () => { throw new Error('tag') }",
    ],
)
async def test_a_hostile_page_is_told_of_and_sees_no_error(place: Place, visitor: Visitor, harm: str):
    page = await visitor.opens("", f"<script>{harm}</script>", pixel='data-pass="meta" data-pages="off"')

    event_id = await page.evaluate("capi('track', 'purchase', {value: 1, currency: 'EUR'})")
    assert (
        await page.evaluate("[capi(), capi('nothing'), capi('track', 'x', Object.create(null)), capi('user')].length")
        == 4
    )

    await place.copy(event_id=event_id)
