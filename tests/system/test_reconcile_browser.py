"""The page Reconcile in a real browser: a list is uploaded, numbers are clicked, thousands of orders are paged."""

from typing import Any

import pytest
import pytest_asyncio

from tests.system.conftest import System, eventually
from tests.system.test_reconcile import orders, pair  # noqa: F401 (a fixture)
from tests.system.test_view import ADA, ask, workers

pytest.importorskip("playwright.async_api")
pytest.importorskip("axe_playwright_python.async_playwright")

from tests.system.test_view_browser import CHROMIUM, KINDS, chromium, violations, visiting  # noqa: F401 (a fixture; there is none without a browser)

pytestmark = [
    pytest.mark.browser,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(300),
    pytest.mark.skipif(not CHROMIUM, reason="there is no Chromium"),
]

EVIL = "<script>window.hacked=1</script><img src=x onerror='window.hacked=1'>"


async def look(pair: System, text: str) -> str:  # noqa: F811
    """The path of a look at this list."""
    body = {"to": "meta", "tz": "Europe/Berlin", "orders": text}
    status, begun = await ask(pair, workers(pair)[0], "/reconcile", ADA, method="POST", json=body)
    assert status == 200, begun
    path = f"/reconcile/{begun['look']}"

    async def finished() -> Any:
        return (await ask(pair, workers(pair)[0], f"{path}.json", ADA))[1]["finished"]

    await eventually(finished, "the look")
    return path


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def paths(pair):  # noqa: F811
    """The pages: nothing looked at yet, a list of each kind of order, a long one with evil in it."""
    rows = "".join(f"N-{n};2026-11-{n % 28 + 1:02} 12:00;{n};EUR\n" for n in range(10_000))
    long = f"order;time;value;currency\n{EVIL};2026-11-01 12:00;1;EUR\n{rows}" + "bad;bad;bad;bad\n" * 300
    some, many = await look(pair, orders()), await look(pair, long)
    return {
        "form": "/reconcile",
        "report": some,
        "class": f"{some}?class=differs",
        "day": f"{some}?day=2026-11-01",
        "many": f"{many}?class=never_received&page=7",
        "gone": "/reconcile/abcdef",
        "match": "/destinations/meta/match?event=purchase&without=click id (fbc)",
        "ga4": "/destinations/ga4/match",
        "config": "/config",
        "trial": "/config/test/meta",
    }


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("which", ["form", "report", "class", "day", "many", "gone", "match", "ga4", "config", "trial"])
async def test_every_page_is_accessible_and_fits_its_screen(pair, chromium, paths, which, kind):  # noqa: F811
    async with visiting(chromium, pair, **KINDS[kind]) as page:
        await page.goto(paths[which])
        for one in await page.locator("details").all():
            await one.evaluate("element => element.open = true")

        assert await violations(page) == []
        assert await page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        assert await page.evaluate("window.hacked") is None


async def test_a_list_is_uploaded_and_a_number_leads_to_its_orders(pair, chromium, tmp_path):  # noqa: F811
    (tmp_path / "orders.csv").write_text(orders())
    async with visiting(chromium, pair) as page:
        await page.goto("/reconcile")
        await page.get_by_label("List of orders").set_input_files(tmp_path / "orders.csv")
        await page.get_by_label("Destination").select_option("meta")
        await page.get_by_label("Time zone of its days").fill("Europe/Berlin")
        await page.get_by_role("button", name="Reconcile").click()
        await page.get_by_role("link", name="1 delivered with another value or currency").click()
        table = page.get_by_role("region", name="Orders", exact=True)

        assert await page.get_by_role("heading", name="1 order: delivered with another value").count() == 1
        assert "71.38 EUR" in await table.inner_text()
        await table.get_by_role("link", name="R-differs").click()
        await page.wait_for_url("**/events/R-differs")


async def test_the_orders_of_a_long_list_are_paged(pair, chromium, paths):  # noqa: F811
    async with visiting(chromium, pair) as page:
        await page.goto(paths["many"])
        table = page.get_by_role("region", name="Orders", exact=True)
        before = await table.inner_text()
        await page.get_by_role("link", name="After").click()
        await page.wait_for_url("**page=8**")

        assert "N-1399" in await table.inner_text()
        assert "N-1399" not in before


async def test_it_works_without_javascript(pair, chromium, tmp_path):  # noqa: F811
    (tmp_path / "orders.csv").write_text("order\n1\n")
    context = await chromium.new_context(base_url=workers(pair)[0], java_script_enabled=False)
    page = await context.new_page()
    await page.goto("/login?next=/reconcile")
    await page.get_by_label("Your token").fill(ADA)
    await page.get_by_role("button", name="Log in").click()
    await page.get_by_label("List of orders").set_input_files(tmp_path / "orders.csv")
    await page.get_by_role("button", name="Reconcile").click()
    while await page.get_by_role("link", name="Look again").count():
        await page.get_by_role("link", name="Look again").click()

    assert "never received" in await page.inner_text("main")
    await context.close()


async def test_a_test_event_is_shown_confirmed_and_answered(pair, chromium):  # noqa: F811
    await pair.faults("meta")
    async with visiting(chromium, pair) as page:
        page.on("dialog", lambda dialog: dialog.accept())
        await page.goto("/config")
        await page.get_by_role("link", name="Try meta").click()
        await page.get_by_label("send it, although the platform counts it").check()
        await page.get_by_role("button", name="Send one test event").click()
        await page.get_by_role("heading", name="Answer").wait_for()

        assert "Delivered, HTTP 200" in await page.get_by_role("status").inner_text()
        assert await violations(page) == []
