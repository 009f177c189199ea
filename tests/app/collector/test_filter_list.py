"""Would a content blocker know our routes? Held against facts of EasyPrivacy, the list that most of them ship."""

import re
import tomllib
from pathlib import Path

import pytest

from app.collector.server import Collector
from app.settings import parse
from tests.collecting import SECRET_KEY

FRAGMENTS = tomllib.loads((Path(__file__).parent / "easyprivacy.toml").read_text())["fragments"]
#: Of routes that gtag chooses, and of others that no browser asks for.
NOT_OURS_TO_CHOOSE = ("/g/collect", "/mp/collect")
NO_BROWSER = ("/healthz", "/readyz", "/metrics", "/v1/forget", "/openapi.json")
#: Where docs/clients.md puts a collector.
PLACES = (
    "https://collect.shop.example",
    "https://capi.shop.example",
    "https://shop.example/capi",
    "https://shop.example/c",
)

SETTINGS = """
[sites.shop]
write_key = "wk_12345678"
secret_key = { env = "SHOP_SECRET_KEY" }

[collector.ga4.G-ABC1234567]
site = "shop"
"""


def blocked(url: str) -> list[str]:
    """Fragments that are in it, by the list's own rules of what a star, a bar and a caret mean."""
    return [one for one in FRAGMENTS if _pattern(one).search(url)]


def _pattern(fragment: str) -> re.Pattern[str]:
    signs = {"*": ".*", "|": "$", "^": r"(?:[^\w%.-]|$)"}
    return re.compile("".join(signs.get(sign, re.escape(sign)) for sign in fragment.rstrip("*")), re.IGNORECASE)


@pytest.fixture
def routes(monkeypatch):
    """Every path that the collector answers by default, its script among them."""
    monkeypatch.setenv("SHOP_SECRET_KEY", SECRET_KEY)
    app = Collector(parse(SETTINGS)).application()
    paths = {resource.canonical for resource in app.router.resources()}
    return {re.sub(r"\{.*?\}", "wk_12345678", path) for path in paths}


@pytest.mark.parametrize("place", PLACES)
def test_no_route_of_ours_is_on_the_list(routes, place):
    asked_for = routes - {*NOT_OURS_TO_CHOOSE, *NO_BROWSER}

    assert {"/v1/events", "/v1/batch", "/v1/t", "/api/s/track"} <= asked_for
    assert {path: found for path in asked_for if (found := blocked(place + path))} == {}


@pytest.mark.parametrize("path", ["events", "capi.js", "capi.0123456789ab.js"])
def test_where_the_pixel_is_published_is_not_on_it(path):
    """By deploy/nginx and deploy/caddy."""
    assert blocked(f"https://www.shop.example/m/{path}") == []


def test_gtags_own_route_is_on_the_list_on_any_domain():
    assert blocked("https://shop.example/capi/g/collect?v=2&tid=G-ABC1234567") == ["/collect?v="]


@pytest.mark.parametrize(
    "url",
    [
        "https://analytics.shop.example/v1/track",
        "https://tracking.shop.example/v1/events",
        "https://stats.shop.example/hits/v1/events",
        "https://shop.example/collector/v1/events",
    ],
)
def test_names_to_stay_away_from(url):
    assert blocked(url)


@pytest.mark.parametrize(
    ("fragment", "url", "hits"),
    [
        ("/collect?v=", "https://a/g/collect?v=2", True),
        ("/collect?v=", "https://a/g/collect?w=2", False),
        ("://track.*/collect", "https://track.a/x/collect", True),
        ("://track.*/collect", "https://a/track.x/collect", False),
        ("/v1/log|", "https://a/v1/log", True),
        ("/v1/log|", "https://a/v1/login", False),
        ("/x^", "https://a/x?b", True),
        ("/x^", "https://a/x", True),
        ("/x^", "https://a/xy", False),
        ("/data/v1/*", "https://a/data/v1/", True),
    ],
)
def test_a_fragment_is_read_as_the_list_means_it(fragment, url, hits):
    assert bool(_pattern(fragment).search(url)) is hits
