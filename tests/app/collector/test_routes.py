"""app/collector/routes.py: where the collector answers, by its settings."""

import re

import pytest

from app.collector import routes
from app.collector.pixel import Script
from app.collector.server import Collector
from app.errors import SettingsError
from app.settings import Settings, parse
from tests.collecting import SECRET_KEY

SITE = """
[sites.shop]
write_key = "wk_12345678"
secret_key = { env = "SHOP_SECRET_KEY" }

[collector]
"""
STREAM = """
[collector.ga4.G-ABC1234567]
site = "shop"
"""
OTHER = """
script = "s.js"
routes = { own = "/o/e", script = "/o", segment = "/a/b", jitsu = "/j", gtag = "/g/c", measurement_protocol = "/m", forget = "/f" }
"""


def settings(more: str) -> Settings:
    return parse(SITE + more)


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (
            "",
            {
                ("POST", "/v1/events", "own"),
                ("POST", "/v1/track", "segment"),
                ("POST", "/v1/b", "segment"),
                ("GET", "/v1/projects/{key}/settings", "segment_settings"),
                ("POST", "/api/s/page", "segment"),
                ("POST", "/api/s/s2s/page", "servers"),
                ("POST", "/v1/forget", "forget"),
                ("GET", "/v1/capi.js", "script"),
                ("GET", "/v1/capi.{version}.js", "script"),
                ("GET", "/openapi.json", "openapi"),
                ("GET", "/healthz", "healthz"),
            },
        ),
        (
            STREAM,
            {
                ("GET", "/g/collect", "gtag"),
                ("POST", "/g/collect", "gtag"),
                ("POST", "/mp/collect", "measurement_protocol"),
            },
        ),
        (
            OTHER + STREAM,
            {
                ("POST", "/o/e", "own"),
                ("GET", "/o/s.js", "script"),
                ("POST", "/a/b/track", "segment"),
                ("GET", "/a/b/projects/{key}/settings", "segment_settings"),
                ("POST", "/j/s2s/track", "servers"),
                ("GET", "/g/c", "gtag"),
                ("POST", "/m", "measurement_protocol"),
                ("POST", "/f", "forget"),
            },
        ),
    ],
)
def test_paths_are_settings(more, expected):
    assert expected <= set(routes.of(settings(more).collector))


def test_each_of_them_is_answered(monkeypatch):
    monkeypatch.setenv("SHOP_SECRET_KEY", SECRET_KEY)
    there = settings(OTHER + STREAM)

    app = Collector(there).application()

    bound = {(route.method, route.resource.canonical) for route in app.router.routes() if route.resource}
    assert {(method, path) for method, path, _ in routes.of(there.collector)} <= bound
    assert not any(path.startswith("/v1") for _, path in bound)


@pytest.mark.parametrize(
    ("own", "script", "expected"),
    [("/v1/events", "/v1", "events"), ("/a/b/c", "/a", "b/c"), ("/x/e", "/a/b", "../../x/e")],
)
def test_the_pixel_finds_its_route_from_where_its_script_is(own, script, expected):
    there = settings(f'routes = {{ own = "{own}", script = "{script}" }}').collector

    assert f'set.to||"{expected}"'.encode() in Script.of(there).content


@pytest.mark.parametrize(
    ("more", "mistake"),
    [
        ('routes.own = "v1/events"', "a path such as"),
        ('routes.own = "/v1/events/"', "a path such as"),
        ('routes.own = "/"', "a path such as"),
        ('routes.own = "/v1/../events"', "a path such as"),
        ('routes.own = "/v1/./events"', "a path such as"),
        ('routes.own = "/v1//events"', "a path such as"),
        ('routes.own = "/v1/{key}"', "a path such as"),
        ('routes.own = "/v1/events?a=b"', "a path such as"),
        ('routes.own = "/v1/track"', "/v1/track would be own and segment"),
        ('routes.own = "/v1/forget"', "/v1/forget would be forget and own"),
        ('routes.own = "/metrics"', "/metrics would be metrics and own"),
        ('routes.own = "/v1/projects/wk/settings"', "/v1/projects/wk/settings would be own and segment_settings"),
        ('routes.own = "/v1/capi.1.js"', "/v1/capi.1.js would be own and script"),
        ('routes.jitsu = "/v1/s2s"\nroutes.segment = "/v1/s2s/s2s"', "would be segment and servers"),
        ('routes.gtag = "/v1/events"' + STREAM, "/v1/events would be gtag and own"),
        ('routes.nonsense = "/x"', "unknown setting"),
    ],
)
def test_paths_that_cannot_be_are_named(more, mistake):
    with pytest.raises(SettingsError, match=re.escape(mistake)):
        settings(more)


def test_one_prefix_for_both_kinds_of_sdk_is_fine():
    assert routes.mistakes(routes.of(settings('routes.jitsu = "/v1"').collector)) == []
