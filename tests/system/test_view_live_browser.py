"""The pages Live and Dedup in a real browser: one fills by itself, pauses, goes on; both can be read without any script."""

import asyncio
import os
import signal

import pytest
import pytest_asyncio

from tests.system.conftest import eventually, running
from tests.system.test_main_job import BROWSER, pixel, server
from tests.system.test_view import ADA, LOGIN, VIC, there, workers

pytest.importorskip("playwright.async_api")
pytest.importorskip("axe_playwright_python.async_playwright")

from tests.system.test_view_browser import CHROMIUM, KINDS, chromium, violations, visiting

__all__ = ["chromium"]

pytestmark = [
    pytest.mark.browser,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(300),
    pytest.mark.skipif(not CHROMIUM, reason="there is no Chromium"),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pair(kafka, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VIEW_ADA", ADA)
        patch.setenv("VIEW_VIC", VIC)
        async with running(kafka, tmp_path_factory.mktemp("live") / "system", patch, workers=2, more=LOGIN) as one:
            for n in range(4):
                await one.post(pixel(f"LB-{n}"), **BROWSER)
                await one.post(server(f"LB-{n}"), key="secret_key")
            await one.post(pixel("LB-9", event_name="login", event_id="LB-9", consent={}), **BROWSER)
            await there(one, "LB-3", "meta", "delivered")
            yield one


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("path", ["/live", "/live?event=nothing"])
async def test_every_state_is_accessible_and_fits_its_screen(pair, chromium, path, kind):
    async with visiting(chromium, pair, **KINDS[kind]) as page:
        await page.goto(path)
        await page.get_by_text("Live.", exact=True).wait_for()
        for one in await page.locator("details").all():
            await one.evaluate("element => element.open = true")

        assert await violations(page) == []
        assert await page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("path", ["/dedup", "/dedup/list?event=purchase", "/dedup/list?event=nothing"])
async def test_dedup_is_accessible_and_fits_its_screen(pair, chromium, path, kind):
    async with visiting(chromium, pair, **KINDS[kind]) as page:
        await page.goto(path)
        for one in await page.locator("details").all():
            await one.evaluate("element => element.open = true")

        assert await violations(page) == []
        assert await page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


async def test_somebody_asks_what_another_hold_would_do_and_sees_which_pairs_it_would_split(pair, chromium):
    async with visiting(chromium, pair, java_script_enabled=False) as page:
        await page.goto("/dedup")
        await page.get_by_label("Another hold, in seconds").first.fill("0.001")
        await page.get_by_role("button", name="What if?").first.click()
        row = page.get_by_role("row").filter(has_text="asked for")
        await row.get_by_role("link").click()
        await page.get_by_role("link", name="LB-0").click()
        await page.wait_for_url("**/events/LB-0?*")


async def test_what_comes_is_shown_by_itself_and_not_while_it_is_paused(pair, chromium):
    async with visiting(chromium, pair, token=VIC) as page:
        await page.goto("/live?event=search")
        await page.get_by_text("Live.", exact=True).wait_for()
        await pair.post({"event_name": "search", "event_id": "LB-20"}, **BROWSER)
        await page.get_by_role("link", name="LB-20").wait_for()
        await page.get_by_role("button", name="Pause").click()
        await page.get_by_text("Paused.").wait_for()
        await pair.post({"event_name": "search", "event_id": "LB-21"}, **BROWSER)
        await there(pair, "LB-21", "meta", "held_back")
        assert await page.get_by_role("link", name="LB-21").count() == 0
        await page.get_by_role("button", name="Go on").click()
        await page.get_by_role("link", name="LB-21").wait_for()

        assert await page.get_by_role("link", name="LB-20").count() == 1, "no row comes twice"


async def test_a_loss_leads_to_what_it_counts_and_a_conversion_to_its_journey(pair, chromium):
    async with visiting(chromium, pair, java_script_enabled=False) as page:

        async def shown():
            await page.goto("/live?destination=meta&event=login")
            return await page.get_by_role("link", name="1 held back").count()

        await eventually(shown, "the loss")
        await page.get_by_role("link", name="1 held back").click()
        await page.wait_for_url("**/live?*reason=consent_absent*")
        await page.get_by_role("link", name="LB-9").click()
        await page.wait_for_url("**/events/LB-9?*")


async def test_while_a_worker_dies_dedup_says_what_is_missing_and_then_another_has_it(pair, chromium):
    """The last one: nobody starts it again."""
    victim = pair.child("worker-2")
    async with visiting(chromium, pair) as page:
        owners = page.get_by_role("region", name="Partitions").locator("tbody tr")
        await page.goto("/dedup")
        assert await owners.count() == 4
        told = await page.get_by_role("region", name="purchase").get_by_text("have all copies").inner_text()
        os.kill(victim.process.pid, signal.SIGKILL)
        await asyncio.to_thread(victim.process.wait)

        await page.goto("/dedup")
        assert "1 of 2 workers did not answer" in await page.get_by_role("alert").inner_text()
        assert await owners.count() < 4
        assert await violations(page) == []

        async def whole():
            """Each page on the way there is one, or the browser would have told of an error."""
            await page.goto("/dedup")
            return await owners.count() == 4 and not await page.get_by_role("alert").count()

        await eventually(whole, "all partitions at the other one")
        assert await owners.filter(has_text=workers(pair)[0]).count() == 4
        assert await page.get_by_role("region", name="purchase").get_by_text("have all copies").inner_text() == told
