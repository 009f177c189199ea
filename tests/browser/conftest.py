"""A whole system with the demo's shop, and a real Chromium on it: `apt-get install chromium`, `pip install playwright`."""

import asyncio
import contextlib
import itertools
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from aiokafka import AIOKafkaConsumer, TopicPartition

from app import topics
from app.demo import run
from tests.system.conftest import System, eventually

GRANTED = {
    "ad_storage": "granted",
    "analytics_storage": "granted",
    "ad_user_data": "granted",
    "ad_personalization": "granted",
}
DENIED = dict.fromkeys(GRANTED, "denied")
#: As strict as a page can be.
CSP = "default-src 'none'; script-src 'self'; connect-src 'self'; require-trusted-types-for 'script'"

_numbers = itertools.count()


class Place:
    """The system, the browser, and every copy that came into `capistream.events`."""

    def __init__(self, system: System, browser: Any) -> None:
        self.system, self.browser = system, browser
        self.shop: str = system.addresses["shop"]
        self.copies: list[dict[str, Any]] = []

    async def follow(self) -> None:
        config = self.system.demo.config
        consumer = AIOKafkaConsumer(bootstrap_servers=config.brokers, auto_offset_reset="earliest")
        await consumer.start()
        try:
            consumer.assign([TopicPartition(topics.names(config).events, n) for n in range(config.kafka.partitions)])
            async for record in consumer:
                if record.key is not None:
                    self.copies.append(json.loads(record.value))
        finally:
            await consumer.stop()

    async def copy(self, what: str = "", **wanted: Any) -> dict[str, Any]:
        """The first copy with these fields, once it is there."""
        found: dict[str, Any] = (await self.some(1, what, **wanted))[0]
        return found

    async def some(self, number: int, what: str = "", **wanted: Any) -> list[dict[str, Any]]:
        """So many copies, in the order of their time, once they are there."""

        async def look() -> list[dict[str, Any]] | None:
            found = self.have(**wanted)
            return found if len(found) >= number else None

        copies: list[dict[str, Any]] = await eventually(look, what or f"{number} copies with {wanted}", patience=20)
        return copies

    def have(self, url: str = "", **wanted: Any) -> list[dict[str, Any]]:
        """The copies with these fields by now; `url` is part of the page's."""
        found = [
            one
            for one in self.copies
            if url in one.get("context", {}).get("url", "")
            and all(one.get(name) == value for name, value in wanted.items())
        ]
        return sorted(found, key=lambda one: one["time"])


class Visitor:
    """A browser of its own: cookies, storage, pages."""

    def __init__(self, place: Place, context: Any) -> None:
        self.place, self.context = place, context
        self.errors: list[str] = []
        self.answers: list[int] = []  # of the collector: after one its cookies are there
        context.on("response", lambda one: self.answers.append(one.status) if one.url.endswith("/events") else None)
        self.pages: dict[str, str] = {}  # path -> head of a page of the test's own, under the shop's origin
        self.mark = f"visitor{next(_numbers)}"  # part of every address, so that a test finds its own events

    async def page(self) -> Any:
        page = await self.context.new_page()
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on(
            "console", lambda said: self.errors.append(said.text) if "Content Security Policy" in said.text else None
        )
        return page

    def address(self, path: str) -> str:
        return f"{self.place.shop}/{self.mark}/{path}"

    async def opens(
        self, path: str = "", head: str = "", page: Any = None, pixel: str = "", src: str = "/m/capi.js"
    ) -> Any:
        """A page of the test's own with the pixel; `head` goes before it, `pixel` are more attributes of its script."""
        bare = path.partition("?")[0]
        key = self.place.system.addresses["write_key"]
        self.pages[bare] = (
            f'<title>{bare or "start"}</title>{head}<script async src="{src}" data-key="{key}" {pixel}></script>'
        )
        page = page or await self.page()
        await page.goto(self.address(path))
        # not wait_for_function, which a strict policy forbids
        await eventually(lambda: page.evaluate("!!(window.capi && capi.pixel)"), "the pixel", patience=15)
        return page

    async def serve(self, route: Any) -> None:
        path = route.request.url.split(f"/{self.mark}/", 1)[1].partition("?")[0]
        # inline scripts are for tests that are not about the policy
        policy = CSP if "strict" in path else "default-src http: 'unsafe-inline'"
        headers = {"Content-Security-Policy": policy, "Referrer-Policy": "no-referrer-when-downgrade"}
        body = (
            "<!doctype html><html lang=en><head>" + self.pages.get(path, "<title>other</title>") + "</head><body>page"
        )
        await route.fulfill(body=body, content_type="text/html", headers=headers)

    async def answered(self, number: int = 1) -> list[int]:
        async def enough() -> bool:
            return len(self.answers) >= number

        await eventually(enough, f"{number} answers", patience=10)
        return self.answers

    async def cookies(self) -> dict[str, dict[str, Any]]:
        return {one["name"]: one for one in await self.context.cookies()}


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def place(kafka: Any, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    async_api = pytest.importorskip("playwright.async_api")
    chromium = shutil.which("chromium") or pytest.skip("chromium is not installed")
    folder: Path = tmp_path_factory.mktemp("browser") / "system"
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CAPISTREAM_BROKER", kafka.brokers)
        demo = run.Demo(
            say=lambda _: None, folder=folder, destinations=("meta", "ga4"), ports=run.free_ports(), shop=True
        )
        try:
            await demo.start()
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as http,
                async_api.async_playwright() as playwright,
            ):
                # As root in a container Chromium's sandbox is not to be had. Pages that Playwright serves have no address, so
                # they count as of the internet, which may not speak to this machine.
                args = ["--no-sandbox", "--disable-features=LocalNetworkAccessChecks"]
                browser = await playwright.chromium.launch(executable_path=chromium, args=args)
                one = Place(System(demo, http), browser)
                following = asyncio.create_task(one.follow())
                try:
                    yield one
                finally:
                    following.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await following
                    await browser.close()
        finally:
            await asyncio.to_thread(demo.stop)


@pytest_asyncio.fixture(loop_scope="session")
async def visitor(place: Place) -> AsyncIterator[Visitor]:
    """Whatever a test does, nothing of the pixel may reach the page."""
    context = await place.browser.new_context()
    context.set_default_timeout(15_000)
    one = Visitor(place, context)
    await context.route(f"**/{one.mark}/**", one.serve)
    yield one
    await context.close()
    assert one.errors == []
