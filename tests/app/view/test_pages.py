"""The worker's pages, without a Kafka: what a worker says that has just begun."""

import re

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from app import settings
from app.main import Pipeline
from app.view.access import Access
from app.view.pages import Pages

TOKENS = 'tokens = { ada = { role = "operator", token = { env = "ADA" } }, vic = { token = { env = "VIC" } } }'
OPEN = ("/healthz", "/livez", "/readyz", "/metrics")


@pytest.fixture
async def client(tmp_path, monkeypatch):
    monkeypatch.setenv("ADA", "a-token-of-ada-000000")
    monkeypatch.setenv("VIC", "a-token-of-vic-000000")
    given = settings.parse(f"[worker]\ndata_dir = '{tmp_path}'\n[view]\n{TOKENS}\n")
    app = web.Application()
    app.add_routes(Pages(Pipeline(given), Access(given.view)).routes())
    async with TestClient(TestServer(app)) as client:
        yield client


async def test_a_worker_without_its_state_is_not_ready_and_its_metrics_say_so(client):
    ready, metrics = await client.get("/readyz"), await client.get("/metrics")

    assert ready.status == 503
    assert (await ready.json())["reason"] == "recovering"
    assert "\ncapistream_not_ready 1.0\n" in await metrics.text()


async def test_probes_and_metrics_need_no_login_and_everything_else_does(client):
    paths = {
        re.sub(r"\{\w+\}", "abcdef01", route.resource.canonical.replace("{json}", ""))
        for route in client.app.router.routes()
        if route.method == "GET" and route.resource
    }
    assert {"/", "/events/abcdef01", "/dead", "/destinations", "/audit", "/local.json"} < paths
    for path in sorted(paths - {"/login", "/static/abcdef01"}):
        status = (await client.get(path)).status
        assert status in ((200, 503) if path in OPEN else (401,)), path


async def test_only_operators_read_the_audit(client):
    answer = await client.get("/audit", headers={"Authorization": "Bearer a-token-of-vic-000000"})

    assert answer.status == 403


async def test_a_worker_without_its_state_says_so_to_people_and_programs(client):
    for accept, kind in (("text/html", "text/html"), ("*/*", "application/json")):
        answer = await client.get(
            "/events/1", headers={"Authorization": "Bearer a-token-of-vic-000000", "Accept": accept}
        )
        assert (answer.status, answer.content_type) == (503, kind)
        assert "has just begun" in await answer.text()
