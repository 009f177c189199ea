"""app/routing.py: may this destination have this event?"""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.destination import ConsentPolicy, Destination
from app.routing import Route, alike, denies, route, routes
from app.settings import Settings, parse
from app.shape import from_event
from sinks import SINKS
from sinks.meta import Meta
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
    known = {
        "sink": "meta",
        "endpoint": "https://example.com",
        "dataset_id": "1234567890",
        "access_token": {"env": "TOKEN"},
    }
    return Meta.Settings.model_validate(known | settings)


def to_ads(event: Any, **settings: Any) -> Route:
    return route(event, make_destination(**settings), Meta)


def test_what_nothing_stands_against_is_queued_with_its_basis():
    assert to_ads(make_event()) == QUEUED


def test_a_destination_that_is_off_gets_nothing():
    assert to_ads(make_event(), mode="off") == Route("filtered", "destination_off")


T = "2026-11-23T12:00:00Z"
AT = 1_795_435_200_000  # the same moment


@pytest.mark.parametrize(
    ("time", "old", "ours"),
    [
        (AT - 1, QUEUED, Route("filtered", "before_live_from")),
        (AT, Route("filtered", "after_live_until"), QUEUED),
    ],
)
def test_a_moment_parts_what_one_system_sends_from_what_the_next_one_does(time, old, ours):
    assert to_ads(make_event(time=time), live_until=T) == old
    assert to_ads(make_event(time=time), live_from=T) == ours


@given(order=st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=20))
def test_what_is_in_a_share_is_in_every_larger_one_and_hangs_on_the_order_alone(order):
    said = [
        to_ads(make_event(commerce={"transaction_id": order}, event_id=event_id), share=share).state == "queued"
        for share in (0, 0.1, 0.5, 1)
        for event_id in ("a", "b")
    ]

    assert said == sorted(said)
    assert said[:2] == [False, False]
    assert said[-2:] == [True, True]


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
        (["test"], Route("filtered", "label_test")),
        (["test", "vip"], Route("filtered", "label_test")),
        (["vip"], QUEUED),
    ],
)
def test_events_of_no_person_are_filtered_by_label(labels, expected):
    assert to_ads(make_event(labels=labels)) == expected


@pytest.mark.parametrize(
    ("general", "own", "expected"),
    [
        ("drop", "", Route("filtered", "label_bot")),
        ("keep", "", QUEUED),
        ("drop", "drop = []", QUEUED),
        ("keep", 'drop = ["bot"]', Route("filtered", "label_bot")),
        ("keep", 'drop = ["internal"]', QUEUED),
    ],
)
def test_who_gets_robots_is_a_setting_and_each_destination_may_have_its_own(general, own, expected):
    text = CONFIG.replace("[destinations.ads]", f'[traffic]\nbots = "{general}"\n\n[destinations.ads]\n{own}')

    assert routes(make_event(labels=["bot"]), parse(text))["ads"] == expected


@pytest.mark.parametrize(("code", "expected"), [("TEST123", QUEUED), ("", Route("filtered", "label_test"))])
def test_a_test_goes_where_the_platform_is_told_that_it_is_one(code, expected):
    destination = parse(CONFIG).destinations["ads"].model_copy(update={"test_event_code": code})

    assert route(make_event(labels=["test"]), destination, SINKS["meta"]) == expected
    assert route(make_event(), destination, SINKS["meta"]) == QUEUED


def test_a_setting_of_that_name_is_not_enough_where_the_sink_does_not_say_that_it_marks_tests():
    class Other(Destination):
        test_event_code: str

    other = Other(sink="webhook", endpoint="https://shop.example", test_event_code="TEST123")

    assert route(make_event(labels=["test"]), other, SINKS["webhook"]) == Route("filtered", "label_test")


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


@pytest.mark.parametrize(
    ("consent", "but", "expected"),
    [
        ({"ad_storage": "denied"}, (), True),
        ({"ad_storage": "denied"}, ("ads",), False),  # it had been kept back already
        ({"analytics_storage": "denied"}, ("ads",), True),
        ({"analytics_storage": "denied"}, ("ads", "stats", "later"), False),
        (None, (), False),
    ],
)
def test_a_copy_denies_where_a_destination_minds_that_was_to_get_it(consent, but, expected):
    assert denies(make_event(consent=consent), parse(CONFIG), but) is expected


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
    decided = route(event, make_destination(), SINKS[kind])

    assert (decided.state, decided.reason) in {
        ("queued", ""),
        ("held_back", "consent_denied"),
        ("held_back", "consent_absent"),
        ("filtered", "label_bot"),
        ("filtered", "label_prefetch"),
        ("filtered", "label_internal"),
        ("filtered", "label_test"),
    }


@pytest.mark.parametrize(("silence_denies", "state"), [("false", "queued"), ("true", "held_back")])
def test_nothing_is_assumed_of_who_is_silent_where_the_pixel_stops_on_a_denial(silence_denies, state):
    text = (
        CONFIG
        + f"""
[destinations.assuming]
sink = "meta"
dataset_id = "1234567890"
access_token = {{ env = "TOKEN" }}
browser_tag = "none"
consent = {{ regions = {{ US = {{ absent = "assume" }} }} }}

[sites.shop]
write_key = "wk_12345678"
secret_key = {{ env = "KEY" }}
silence_denies = {silence_denies}
"""
    )
    destination = parse(text).destinations["assuming"]

    event: Any = {**make_event(), "consent": {"region": "US"}}

    assert route(event, destination, Meta).state == state


# events that are alike


def kind_of(event: Any, settings: Settings) -> Any:
    return alike(settings)(from_event(event))


SIGNALS = ("ad_storage", "analytics_storage", "ad_user_data", "ad_personalization")
CONSENTS = st.one_of(
    st.just(dict.fromkeys(SIGNALS, "granted")),
    st.dictionaries(st.sampled_from(SIGNALS), st.sampled_from(("granted", "denied"))),
    st.sampled_from(
        ({"gpc": True}, {"us_privacy": "1YYN"}, {"tcf": "x"}, {"region": "DE"}, {"categories": {"ads": False}})
    ),
)
ASKED = st.fixed_dictionaries(
    {
        "event_name": st.sampled_from(("purchase", "page_view")),
        "consent": CONSENTS,
        "time": st.sampled_from((1, 2**41)),
    },
    optional={"labels": st.lists(st.sampled_from(("test", "bot", "backfill")))},
)


@given(ASKED, ASKED)
def test_events_that_are_alike_have_the_same_routes(one, other):
    settings = parse(CONFIG)
    first, second = make_event(**one), make_event(**other)

    kinds = kind_of(first, settings), kind_of(second, settings)

    if kinds[0] is not None and kinds[0] == kinds[1]:
        assert routes(first, settings) == routes(second, settings)
        assert first["consent"] == second["consent"]


@pytest.mark.parametrize(
    "more",
    [
        "live_from = 2026-11-23T12:00:00Z",
        "live_until = 2026-11-23T12:00:00Z",
        "share = 0.5",
        'consent.regions.DE.absent = "assume"',
    ],
)
def test_where_more_decides_none_is_like_another(more):
    assert kind_of(make_event(), parse(CONFIG.replace('sink = "meta"', f'sink = "meta"\n{more}'))) is None


@pytest.mark.parametrize("said", [{"labels": ["test"]}, {"consent": {"gpc": False}}, {"consent": {"tcf": "x"}}])
def test_an_event_with_more_to_be_judged_is_like_no_other(said):
    assert kind_of(make_event(**said), parse(CONFIG)) is None
