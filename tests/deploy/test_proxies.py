"""deploy/nginx and deploy/caddy: the collector as a path of the shop's own origin, in the real nginx and Caddy."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from app import processes
from app.collector.pixel import Script
from tests.factories import served

pytestmark = pytest.mark.proxies

DEPLOY = Path(__file__).parent.parent.parent / "deploy"
SCRIPT = Script("capi.js")


@contextmanager
def nginx(folder: Path, port: int, collector: str) -> Iterator[None]:
    for name in ("capistream.conf", "clients.conf"):
        own = (DEPLOY / "nginx" / name).read_text().replace("http://127.0.0.1:8080", collector)
        (folder / name).write_text(own)
    (folder / "nginx.conf").write_text(
        f"pid {folder}/pid; error_log {folder}/log; daemon off; worker_processes 1; events {{}}\n"
        f"http {{ access_log off; client_body_temp_path {folder}; proxy_temp_path {folder};\n"
        f"server {{ listen 127.0.0.1:{port}; include {folder}/c*.conf; }} }}\n"
    )
    command = ["nginx", "-c", str(folder / "nginx.conf"), "-p", str(folder)]
    subprocess.run([*command, "-t"], check=True, capture_output=True)
    with running(command, folder, port):
        yield


@contextmanager
def caddy(folder: Path, port: int, collector: str) -> Iterator[None]:
    for name in ("Caddyfile", "clients.caddy"):
        text = (DEPLOY / "caddy" / name).read_text().replace("127.0.0.1:8080", collector.removeprefix("http://"))
        (folder / name).write_text(text)
    text = (folder / "Caddyfile").read_text()
    site = text.replace(
        "www.shop.example {", f"http://127.0.0.1:{port} {{\n\timport clients.caddy"
    )  # without a certificate
    (folder / "Caddyfile").write_text(f"{{\n\tadmin off\n}}\n{site}")
    command = ["caddy", "run", "--adapter", "caddyfile", "--config", str(folder / "Caddyfile")]
    subprocess.run(["caddy", "validate", *command[2:]], check=True, capture_output=True)
    with running(command, folder, port):
        yield


@contextmanager
def running(command: list[str], folder: Path, port: int) -> Iterator[None]:
    process = processes.spawn(command, folder / "output")
    try:
        until = time.monotonic() + 20
        while processes.is_free(port):
            assert process.poll() is None, (folder / "output").read_text()
            assert time.monotonic() < until
            time.sleep(0.05)
        yield
    finally:
        processes.stop(process, 5)


asked: list[str] = []


async def collector(request: web.Request) -> web.StreamResponse:
    """What the collector would see of a request."""
    asked.append(request.path)
    if request.path == "/v1/capi.js":
        return await SCRIPT.serve(request)
    told = {name: request.headers.get(name, "") for name in ("Host", "X-Forwarded-For", "Cookie", "Sec-GPC", "Origin")}
    query = request.raw_path.partition("?")[2]
    body = {"path": request.path, "query": query, "body": (await request.read()).decode(), **told}
    return web.json_response(body, headers={"Set-Cookie": "cs_id=1.1700000000; Path=/; Secure"})


@pytest.mark.parametrize("proxy", [nginx, caddy])
async def test_a_path_of_the_shop_leads_to_the_collector(proxy, tmp_path):
    port = processes.free_port()
    async with served(collector) as address, aiohttp.ClientSession() as http:
        with proxy(tmp_path, port, address):
            shop = f"http://127.0.0.1:{port}"
            headers = {"X-Forwarded-For": "192.0.2.1", "Cookie": "a=b", "Sec-GPC": "1", "Origin": shop}
            async with http.post(f"{shop}/m/events", data=b"{}", headers=headers) as response:
                seen, cookie = await response.json(), response.headers["Set-Cookie"]
            async with http.get(f"{shop}/m/capi.js", headers={"Accept-Encoding": "gzip"}) as response:
                script, encoding = await response.read(), response.headers["Content-Encoding"]
            asked.clear()
            for path in ("/m/forget", "/m/batch", "/m/../metrics", "/m/events/../forget", "/v1/events", "/metrics"):
                async with http.get(f"{shop}{path}") as response:
                    await response.read()

    assert seen == {
        "path": "/v1/events",
        "query": "",
        "body": "{}",
        "Host": seen["Host"],
        "X-Forwarded-For": "127.0.0.1",
        "Cookie": "a=b",
        "Sec-GPC": "1",
        "Origin": shop,
    }
    assert seen["Host"].startswith("127.0.0.1")
    assert cookie == "cs_id=1.1700000000; Path=/; Secure"
    assert (script, encoding) == (SCRIPT.content, "gzip")
    assert asked == [], "nothing else is published"


@pytest.mark.parametrize("proxy", [nginx, caddy])
async def test_sdks_in_browsers_reach_what_they_ask_for(proxy, tmp_path):
    port = processes.free_port()
    async with served(collector) as address, aiohttp.ClientSession() as http:
        with proxy(tmp_path, port, address):
            shop = f"http://127.0.0.1:{port}/capi"
            asked.clear()
            for path in (
                "/v1/projects/wk/settings",
                "/v1/t",
                "/v1/batch",
                "/api/s/track",
                "/g/collect?v=2&tid=G-1&dt=a%20b",
            ):
                async with http.post(f"{shop}{path}", data=b"{}", headers={"X-Forwarded-For": "192.0.2.1"}) as response:
                    seen = await response.json()
                    assert (seen["path"], seen["X-Forwarded-For"]) == (path.partition("?")[0], "127.0.0.1")
                    assert seen["query"] == path.partition("?")[2]
            asked.clear()
            for path in ("/metrics", "/healthz", "/openapi.json", "/mp/collect", "/v1/../metrics"):
                async with http.get(f"{shop}{path}") as response:
                    await response.read()

    assert asked == []
