"""The SDKs of Segment and Jitsu from npm, in a real browser and in node: the programs of docs/clients.md, run as they stand there.

The page is of another origin than the collector, so the browser asks leave for each request (CORS).
"""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from app.events import Event
from tests.clients import snippets
from tests.collecting import SECRET_KEY, Failing, Place, collecting, failing_first, pairs, serving

pytestmark = pytest.mark.clients

HERE = Path(__file__).parent
MODULES = HERE / "node_modules"
PATIENCE = 30.0  # seconds
_PAGE = """<!doctype html>
<title>Thank you</title>
<script>
  const tell = (what) => fetch("/errors", {{ method: "POST", body: String(what) }});
  addEventListener("error", (event) => tell(event.message));
  addEventListener("unhandledrejection", (event) => tell(event.reason));
</script>
<script src="/npm/@segment/analytics-next/dist/umd/index.js"></script>
<script type="importmap">
  {{"imports": {{"@segment/analytics-next": "/segment.js", "@jitsu/js": "/npm/@jitsu/js/dist/jitsu.es.js"}}}}
</script>
<script type="module">
{program}
</script>
"""


@pytest.fixture(scope="session")
def npm():
    """The packages of package-lock.json, installed once. Their own install scripts do not run."""
    if shutil.which("npm") is None or shutil.which("node") is None:
        pytest.skip("needs node and npm")
    installed, wanted = MODULES / ".package-lock.json", HERE / "package-lock.json"
    if not installed.exists() or installed.stat().st_mtime < wanted.stat().st_mtime:
        command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
        subprocess.run(command, cwd=HERE, check=True, timeout=300)
    return MODULES


@pytest.fixture(scope="session")
def chromium():
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("needs Chromium")
    return found


@pytest.fixture
async def start(kafka, prefix, monkeypatch):
    """Start a collector behind a proxy that fails first with these answers; (address, proxy, collector)."""
    monkeypatch.setenv("SHOP_SECRET_KEY", SECRET_KEY)
    async with contextlib.AsyncExitStack() as stack:

        async def run(*first: Any) -> tuple[str, Failing, Place]:
            url, proxy = await stack.enter_async_context(failing_first("", *first))
            place = await stack.enter_async_context(collecting(kafka.brokers, prefix, f'address = "{url}"'))
            proxy.target = place.url
            return url, proxy, place

        yield run


@contextlib.asynccontextmanager
async def visited(chromium: str, program: str, profile: Path) -> AsyncIterator[list[str]]:
    """A browser on a page that runs this program; what went wrong on the page."""
    errors: list[str] = []

    async def page(_request: web.Request) -> web.Response:
        return web.Response(text=_PAGE.format(program=program), content_type="text/html")

    async def segment(_request: web.Request) -> web.Response:
        text = "export const { AnalyticsBrowser } = window.AnalyticsNext;"
        return web.Response(text=text, content_type="text/javascript")

    async def error(request: web.Request) -> web.Response:
        errors.append(await request.text())
        return web.Response()

    app = web.Application()
    app.router.add_get("/", page)
    app.router.add_get("/segment.js", segment)
    app.router.add_post("/errors", error)
    app.router.add_static("/npm", MODULES, follow_symlinks=False)
    async with serving(app) as url, running(chromium, f"{url}/", profile):
        yield errors


@contextlib.asynccontextmanager
async def running(chromium: str, url: str, profile: Path) -> AsyncIterator[None]:
    quiet = ("background-networking", "component-update", "sync", "gpu", "quic")
    process = await asyncio.create_subprocess_exec(
        chromium,
        "--headless",
        "--no-sandbox",  # tests may run as root
        "--no-first-run",
        "--remote-debugging-port=0",  # without it the browser ends when the page is loaded
        *(f"--disable-{what}" for what in quiet),
        f"--user-data-dir={profile}",
        url,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


async def arrived(place: Place, complete: Callable[[list[Event]], Any], errors: list[str]) -> list[Event]:
    until = asyncio.get_running_loop().time() + PATIENCE
    while True:
        events = await place.events()
        if complete(events):
            return events
        assert not errors, errors
        assert asyncio.get_running_loop().time() < until, [event["event_name"] for event in events]
        await asyncio.sleep(0.2)


def named(events: list[Event], name: str) -> Event:
    (found,) = [event for event in events if event["event_name"] == name]
    return found


async def test_analytics_next_asks_for_settings_and_sends_where_they_say(start, npm, chromium, tmp_path):
    url, proxy, place = await start()

    async with visited(chromium, snippets.program("analytics-next", url), tmp_path) as errors:
        events = await arrived(place, lambda found: len(found) == 2, errors)

    assert {path for path, _, _ in proxy.seen} == {"/v1/projects/wk_12345678/settings", "/v1/p", "/v1/i", "/v1/t"}
    purchase, view = named(events, "purchase"), named(events, "page_view")
    assert (purchase["source"], purchase["event_id"]) == ("pixel", "ev-1001")
    assert purchase["commerce"] == {"value": 59.98, "currency": "EUR", "transaction_id": "1001"}
    assert purchase["user"] == {"user_id": "customer-7"}
    assert "Headless" in purchase["context"]["user_agent"]
    assert view["context"]["title"] == "Thank you"
    assert errors == []


async def test_analytics_next_sends_batches(start, npm, chromium, tmp_path):
    url, proxy, place = await start()

    async with visited(chromium, snippets.program("analytics-next-batching", url), tmp_path) as errors:
        events = await arrived(place, lambda found: len(found) == 2, errors)

    assert [event["event_id"] for event in events] == ["ev-1", "ev-2"]
    assert events[0]["commerce"]["items"] == [{"item_id": "SKU-1", "price": 29.99}]
    assert [path for path, _, _ in proxy.seen if path != "/v1/projects/wk_12345678/settings"] == ["/v1/b"]


@pytest.mark.parametrize("program", ["analytics-next", "analytics-next-batching"])
async def test_analytics_next_sends_again_what_failed_at_first(start, npm, chromium, tmp_path, program):
    url, proxy, place = await start(500, (429, {"Retry-After": "1"}))

    async with visited(chromium, snippets.program(program, url), tmp_path) as errors:
        await arrived(place, lambda found: len({event["event_id"] for event in found}) == 2, errors)

    statuses = [status for path, status, _ in proxy.seen if "settings" not in path]
    assert sorted(statuses)[-2:] == [429, 500]
    again = [headers for _, status, headers in proxy.seen if status == 200 and "X-Retry-Count" in headers]
    assert again, "the browser was not allowed to count its attempts"


async def test_jitsu_in_the_browser(start, npm, chromium, tmp_path):
    url, proxy, place = await start()

    async with visited(chromium, snippets.program("jitsu-browser", url), tmp_path) as errors:
        events = await arrived(place, lambda found: len(found) == 2, errors)

    assert {path for path, _, _ in proxy.seen} == {"/api/s/page", "/api/s/identify", "/api/s/track"}
    purchase = named(events, "purchase")
    assert (purchase["source"], purchase["event_id"]) == ("pixel", "ev-1001")
    assert named(events, "page_view")["context"]["title"] == "Thank you"


async def test_jitsu_on_a_server_and_its_copy_pairs_with_a_browsers(start, npm, chromium, tmp_path):
    url, proxy, place = await start()

    assert await node(snippets.program("jitsu-server", url)) == ""
    async with visited(chromium, snippets.program("jitsu-browser", url), tmp_path) as errors:
        events = await arrived(place, lambda found: len(found) == 3, errors)

    assert proxy.seen[0][0] == "/api/s/s2s/track"
    server, browser = (one for one in events if one["event_name"] == "purchase")
    assert (server["source"], browser["source"]) == ("server", "pixel")
    assert server["context"]["ip"] == "203.0.113.7"
    assert pairs(server, browser)


async def test_jitsus_servers_need_the_secret_key(start, npm):
    url, _, place = await start()
    program = snippets.program("jitsu-server", url).replace(SECRET_KEY, "wk_12345678")

    assert "403" in await node(program)
    assert await place.events() == []


async def node(program: str) -> str:
    """What it printed."""
    process = await asyncio.create_subprocess_exec(
        "node",
        "--input-type=module",
        "-",
        cwd=HERE,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    communicated: Awaitable[tuple[bytes, bytes]] = process.communicate(program.encode())
    said, _ = await asyncio.wait_for(communicated, PATIENCE)
    assert process.returncode == 0, said.decode()
    return said.decode()
