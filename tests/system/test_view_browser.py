"""The pages in a real browser, with the data of a running pipe: what people see, click and hear.

Needs Chromium (`apt-get install chromium`) and the packages playwright and axe-playwright-python.
"""

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import pytest_asyncio

from tests.system.conftest import System, eventually, running
from tests.system.test_main_job import BROWSER, pixel, server
from tests.system.test_view import ADA, LOGIN, VIC, there, workers

playwright = pytest.importorskip("playwright.async_api")
axe = pytest.importorskip("axe_playwright_python.async_playwright")
CHROMIUM = shutil.which("chromium") or ""

pytestmark = [
    pytest.mark.browser,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(300),
    pytest.mark.skipif(not CHROMIUM, reason="there is no Chromium"),
]

EVIL = "<script>window.hacked=1</script>\"'><img src=x onerror='window.hacked=1'>"
KINDS: dict[str, dict[str, Any]] = {
    "wide": {"viewport": {"width": 1280, "height": 900}},
    "phone": {"viewport": {"width": 390, "height": 800}, "has_touch": True},
    "dark": {"viewport": {"width": 1280, "height": 900}, "color_scheme": "dark"},
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pair(kafka, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VIEW_ADA", ADA)
        patch.setenv("VIEW_VIC", VIC)
        async with running(kafka, tmp_path_factory.mktemp("browser") / "system", patch, workers=2, more=LOGIN) as one:
            await one.post(pixel("B-1", tags={"meta": {"ran": True, "event_id": "ev-B-1"}}), **BROWSER)
            await one.post(server("B-1"), key="secret_key")
            for name in ("login", "search"):
                await one.post({"event_name": name, "event_id": "B-2"}, **BROWSER)
            await there(one, "B-1", "meta", "delivered")
            await there(one, "B-2", "ga4", "delivered", "skipped", "held_back")
            yield one


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def chromium():
    async with playwright.async_playwright() as started:
        browser = await started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        await browser.close()


@asynccontextmanager
async def visiting(browser: Any, pair: System, token: str = ADA, **kind: Any) -> AsyncIterator[Any]:
    """A page of somebody who is logged in. Fails for errors of scripts and policies, and for requests to other hosts."""
    context = await browser.new_context(base_url=workers(pair)[0], **kind)
    page = await context.new_page()
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    if token:
        await page.goto("/login")
        await page.get_by_label("Your token").fill(token)
        await page.get_by_role("button", name="Log in").click()
        await page.wait_for_url("**/")
    yield page
    await context.close()
    # the browser tells, too, that somebody was quicker to type than it to look for `autofocus`
    harmless = ("404", "401", "Autofocus processing was blocked")
    assert [text for text in said if not any(one in text for one in harmless)] == []
    assert [url for url in asked if not url.startswith(workers(pair)[0])] == []


async def violations(page: Any) -> list[str]:
    found = await axe.Axe().run(page)
    return [f"{one['id']}: {[node['html'][:100] for node in one['nodes'][:3]]}" for one in found.response["violations"]]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/events/B-1",
        "/events/B-2",
        "/events/nobody",
        "/nothing",
        "/destinations",
        "/destinations/meta/waiting?which=unfinished",
        "/destinations/meta/answers",
        "/dedup/held",
        "/dead",
        "/dead/confirm?do=drop",
        "/audit",
        "/login",
    ],
)
async def test_every_page_is_accessible_and_fits_its_screen(pair, chromium, path, kind):
    async with visiting(chromium, pair, **KINDS[kind]) as page:
        await page.goto(path)
        for one in await page.locator("details").all():
            await one.evaluate("element => element.open = true")

        assert await violations(page) == []
        assert await page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


async def test_a_wrong_token_is_told_and_a_right_one_leads_where_one_wanted_to_go(pair, chromium):
    async with visiting(chromium, pair, token="") as page:
        await page.goto("/events/B-1")
        await page.get_by_label("Your token").fill("wrong-wrong-wrong-wrong")
        await page.keyboard.press("Enter")
        assert "no token of the configuration" in await page.get_by_role("alert").inner_text()
        await page.get_by_label("Your token").fill(VIC)
        await page.keyboard.press("Enter")
        await page.wait_for_url("**/events/B-1")
        assert "B-1" in await page.get_by_role("heading", level=1).inner_text()
        assert not await page.get_by_role("link", name="Audit").is_visible()
        await page.get_by_role("button", name="Log out").click()
        await page.wait_for_url("**/login")


async def test_everything_can_be_read_without_javascript(pair, chromium):
    async with visiting(chromium, pair, java_script_enabled=False) as page:
        await page.get_by_label("Event id or order number").fill("B-1")
        await page.get_by_role("button", name="Look up").click()
        await page.wait_for_url("**/events/B-1")
        await page.get_by_text("Attempt 1").first.click()

        text = await page.get_by_role("main").inner_text()

    for told in (
        "all expected copies were there",
        "ad_storage granted",
        '"event_id": "ev-B-1"',
        "events_received",
        "59.98",
    ):
        assert told in text


@pytest.mark.parametrize("width", [1280, 768, 390])
async def test_the_pages_are_named_on_one_line_and_the_open_one_is_in_sight(pair, chromium, width):
    async with visiting(chromium, pair, viewport={"width": width, "height": 800}) as page:
        await page.goto("/audit")
        names = page.get_by_role("navigation", name="Pages")
        tops = await names.get_by_role("link").evaluate_all("all => all.map((one) => one.getBoundingClientRect().top)")
        open_ = await names.locator("[aria-current]").bounding_box()

        assert len(tops) == 8
        assert len(set(tops)) == 1
        assert open_["x"] >= 0
        assert open_["x"] + open_["width"] <= width


async def test_the_keyboard_reaches_everything_and_shows_where_it_is(pair, chromium):
    async with visiting(chromium, pair) as page:
        await page.goto("/events/B-1")
        await page.keyboard.press("Tab")
        assert await page.evaluate("document.activeElement.textContent") == "To the content"
        await page.keyboard.press("Enter")
        assert await page.evaluate("document.activeElement.id") == "main"
        await page.keyboard.press("Tab")
        assert await page.evaluate("document.activeElement.textContent") == "meta", "what became of it comes first"
        for _ in range(len(pair.demo.config.destinations)):
            await page.keyboard.press("Tab")
        assert await page.evaluate("document.activeElement.getAttribute('aria-label')") == "Copies side by side"
        outline = await page.evaluate("getComputedStyle(document.activeElement).outlineWidth")
        assert outline == "3px"


async def test_nothing_that_an_event_says_runs(pair, chromium):
    evil = pixel(
        "B-3",
        context={"url": f"https://shop.example/{EVIL}", "title": EVIL, "referrer": f"https://x.example/?{EVIL}", "language": "de"},
        ids={"gclid": EVIL, "fbp": EVIL, "ga_client_id": EVIL},
        custom={"note": EVIL, EVIL[:40]: EVIL},
        tags={"meta": {"ran": True, "event_id": EVIL}},
        consent={**pixel("x")["consent"], "tcf": EVIL, "categories": {EVIL: True}},  # type: ignore[dict-item]
    )  # fmt: skip
    evil["commerce"] |= {"coupon": EVIL, "items": [{"item_id": EVIL, "item_name": EVIL}]}  # type: ignore[operator]
    status, answer = await pair.post(evil, **BROWSER)
    assert status == 200, answer

    async with visiting(chromium, pair) as page:

        async def closed() -> bool:
            await page.goto("/events/B-3")
            return bool("Merged" in await page.locator(".lead").inner_text())

        await eventually(closed, "the end of its hold")
        assert "window.hacked" in await page.get_by_role("main").inner_text(), "it is there, as text"
        assert await page.evaluate("window.hacked") is None
        assert await page.locator("main img, main script").count() == 0


async def test_the_time_left_of_a_hold_ticks_and_the_page_comes_anew_when_it_is_over(pair, chromium):
    async with visiting(chromium, pair) as page:
        await pair.post(pixel("B-4"), **BROWSER)

        async def held() -> bool:
            await page.goto("/events/B-4")
            return bool(await page.locator("[data-seconds-left]").count() == 1)

        await eventually(held, "a hold")
        left = page.locator("[data-seconds-left]")
        first = await left.inner_text()
        await page.wait_for_function(
            "text => document.querySelector('[data-seconds-left]')?.textContent !== text", arg=first
        )
        await page.get_by_text("the hold ended before another copy came").wait_for(timeout=60_000)


async def test_an_operator_sends_it_again_and_is_asked_first(pair, chromium):
    await pair.faults("meta", html_error=1.0, html_status=413)
    await pair.post(pixel("B-5"), **BROWSER)
    await pair.post(server("B-5"), key="secret_key")
    await there(pair, "B-5", "meta", "rejected")
    await pair.faults("meta")

    async with visiting(chromium, pair, token=VIC) as page:
        await page.goto("/events/B-5")
        assert await page.get_by_role("button", name="Send it again").count() == 0
    async with visiting(chromium, pair) as page:
        await page.goto("/events/B-5")
        page.once("dialog", lambda dialog: dialog.dismiss())
        await page.get_by_role("button", name="Send it again").click()
        assert await page.get_by_role("status").count() == 0
        page.once("dialog", lambda dialog: dialog.accept())
        await page.get_by_role("button", name="Send it again").click()
        assert "Sent again to meta" in await page.get_by_role("status").inner_text()
    assert (await there(pair, "B-5", "meta", "delivered"))["state"] == "delivered"


async def test_letters_are_chosen_and_dropped_with_a_question_in_between_and_no_javascript(pair, chromium):
    await pair.faults("meta", html_error=1.0, html_status=413)
    for event_id in ("B-61", "B-62"):
        await pair.post(pixel(event_id, event_name="view_item", event_id=event_id), **BROWSER)
        await there(pair, event_id, "meta", "rejected")
    await pair.faults("meta")

    async with visiting(chromium, pair, java_script_enabled=False) as page:

        async def listed() -> bool:
            await page.goto("/dead?destination=meta")
            return bool(
                await page.get_by_role("link", name="view_item B-61").count()
                and await page.get_by_role("link", name="view_item B-62").count()
            )

        await eventually(listed, "the letters")
        await page.get_by_role("row").filter(has_text="B-61").get_by_role("checkbox").check()
        await page.get_by_text("Those that are chosen").get_by_role("button", name="Drop").click()
        assert "Drop 1 letter?" in await page.get_by_role("heading", level=1).inner_text()
        await page.get_by_role("button", name="Drop").click()
        assert "1 of 1 letter" in await page.get_by_role("status").inner_text()
        await page.goto("/dead?destination=meta")
        assert await page.get_by_role("link", name="view_item B-61").count() == 0
        await page.get_by_role("link", name="view_item B-62").click()
        await page.wait_for_url("**/events/B-62")


async def test_a_destination_is_paused_and_resumed_by_buttons(pair, chromium):
    async with visiting(chromium, pair) as page:
        page.on("dialog", lambda dialog: dialog.accept())
        await page.goto("/destinations")
        ga4 = page.get_by_role("region", name="ga4")
        await ga4.get_by_label("Why").fill("a look")
        await ga4.get_by_role("button", name="Pause").click()
        assert "ga4 is paused" in await page.get_by_role("status").inner_text()

        async def paused() -> bool:
            await page.goto("/destinations")
            return "A look by ada" in await ga4.inner_text()

        await eventually(paused, "the pause")
        await ga4.get_by_role("button", name="Resume").click()
        assert "ga4 goes on" in await page.get_by_role("status").inner_text()


async def test_nothing_holds_up_the_first_paint_of_a_page(pair, chromium):
    """The page, one style sheet, and nothing else before it: at most a few kilobytes, whatever the machine does meanwhile."""
    async with visiting(chromium, pair) as page:
        await page.goto("/events/B-1")
        entries = await page.evaluate(
            "[...performance.getEntriesByType('navigation'), ...performance.getEntriesByType('resource')]"
            ".map(e => [new URL(e.name).pathname, e.renderBlockingStatus ?? '', e.encodedBodySize])"
        )

    blocking = [(path, size) for path, status, size in entries if status == "blocking"]
    assert [path.rpartition(".")[2] for path, _ in blocking] == ["css"]
    assert entries[0][2] + sum(size for _, size in blocking) < 100_000
