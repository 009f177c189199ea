"""app/routing.py: may this destination have this event?"""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.routing import Route, route, routes
from app.settings import ConsentPolicy, Destination, Settings, parse
from sinks import SINKS
from tests.factories import events, make_event

CONFIG = """
[destinations.ads]
sink = "meta"
dataset_id = "1234567890"
access_token = { env = "TOKEN" }
browser_tag = "none"

[destinations.stats]
sink = "ga4"
measurement_id = "G-ABC123XYZ"
api_secret = { env = "SECRET" }
browser_tag = "none"

[destinations.later]
sink = "ga4"
mode = "off"
measurement_id = "G-ABC123XYZ"
api_secret = { env = "SECRET" }
"""
QUEUED = Route("queued", basis="ad_storage granted, ad_user_data granted")


def make_destination(**settings: Any) -> Destination:
    return Destination(sink="meta", endpoint="https://example.com", **settings)


def to_ads(event: Any, **settings: Any) -> Route:
    return route(event, make_destination(**settings), "advertising")


def test_what_nothing_stands_against_is_queued_with_its_basis():
    assert to_ads(make_event()) == QUEUED


def test_a_destination_that_is_off_gets_nothing():
    assert to_ads(make_event(), mode="off") == Route("filtered", "destination_off")


@pytest.mark.parametrize(
    ("named", "expected"),
    [(False, Route("filtered", "event_off")), ("Purchase", QUEUED)],
)
def test_an_event_that_is_switched_off_is_filtered(named, expected):
    assert to_ads(make_event(), events={"purchase": named, "refund": False}) == expected


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["bot"], Route("filtered", "label_bot")),
        (["prefetch"], Route("filtered", "label_prefetch")),
        (["internal", "test"], Route("filtered", "label_internal")),
        (["internal", "bot"], Route("filtered", "label_bot")),
        (["test"], QUEUED),
        (["vip"], QUEUED),
    ],
)
def test_events_of_no_person_are_filtered_by_label(labels, expected):
    assert to_ads(make_event(labels=labels)) == expected


@pytest.mark.parametrize(
    ("consent", "expected"),
    [
        (
            {"ad_storage": "denied"},
            Route("held_back", "consent_denied", "ad_storage denied, ad_user_data granted"),
        ),
        (None, Route("held_back", "consent_absent", "ad_storage absent, ad_user_data absent")),
        ({"gpc": True}, Route("held_back", "consent_denied", "gpc on")),
    ],
)
def test_without_consent_the_event_is_held_back_and_the_basis_says_on_what(consent, expected):
    assert to_ads(make_event(consent=consent)) == expected


def test_the_destinations_own_policy_decides():
    assert to_ads(make_event(consent=None), consent=ConsentPolicy(absent="assume")).state == "queued"
    assert to_ads(make_event(), consent=ConsentPolicy(needs=["ad_personalization"])).state == "queued"
    assert (
        to_ads(
            make_event(consent={"ad_personalization": "denied"}), consent=ConsentPolicy(needs=["ad_personalization"])
        ).state
        == "held_back"
    )


def test_what_is_filtered_is_not_told_as_held_back():
    event = make_event(consent=None, labels=["bot"])

    assert to_ads(event, mode="off", events={"purchase": False}).reason == "destination_off"
    assert to_ads(event, events={"purchase": False}).reason == "event_off"
    assert to_ads(event).reason == "label_bot"


def test_every_destination_has_its_route_by_the_purpose_of_its_sink():
    settings = parse(CONFIG)

    decided = routes(make_event(consent={"ad_storage": "denied"}), settings)

    assert {name: (one.state, one.reason) for name, one in decided.items()} == {
        "ads": ("held_back", "consent_denied"),
        "stats": ("queued", ""),
        "later": ("filtered", "destination_off"),
    }


def test_without_destinations_there_are_no_routes():
    assert routes(make_event(), Settings()) == {}


@given(events(), st.sampled_from(sorted(SINKS)))
def test_a_route_is_one_of_three_and_a_reason_a_fixed_code(event, kind):
    decided = route(event, make_destination(), SINKS[kind].purpose)

    assert (decided.state, decided.reason) in {
        ("queued", ""),
        ("held_back", "consent_denied"),
        ("held_back", "consent_absent"),
        ("filtered", "label_bot"),
        ("filtered", "label_prefetch"),
        ("filtered", "label_internal"),
    }
