"""app/prepare.py: what a destination gets of an event, or why it gets nothing."""

import pytest

from app.prepare import Final, prepare
from app.settings import parse
from sinks._base import Payload
from sinks.meta import Meta
from tests.factories import make_event

SETTINGS = parse("""
[destinations.ads]
sink = "meta"
dataset_id = "1234567890"
access_token = { env = "TOKEN" }
browser_tag = "none"
events = { login = false }
""").destinations["ads"]
SINK = Meta(SETTINGS)


def ask(event, *, after=0.0):
    return prepare("ads", event, SETTINGS, SINK, event["time"] / 1000 + after)


def test_what_may_go_is_encoded_and_tells_its_basis():
    basis, found = ask(make_event())

    assert basis == "ad_storage granted, ad_user_data granted"
    assert isinstance(found, Payload)
    assert found == SINK.encode(make_event())


def test_consent_comes_before_everything_else():
    event = make_event(consent={"ad_storage": "denied"})

    _, found = ask(event, after=400 * 86_400)

    assert isinstance(found, Final)
    assert found.outcome == "held_back"


@pytest.mark.parametrize(("after", "sent"), [(0, True), (6.9 * 86_400, True), (7.1 * 86_400, False)])
def test_what_the_platform_would_refuse_for_its_age_is_rejected(after, sent):
    _, found = ask(make_event(), after=after)

    assert isinstance(found, Payload) if sent else found == Final("rejected", "too_old")


def test_what_is_switched_off_is_filtered():
    assert ask(make_event(event_name="login"))[1] == Final("filtered", "event_off")


def test_what_a_sink_cannot_use_is_skipped_with_its_reason():
    _, found = ask(make_event(event_name="something_of_ours"))

    assert isinstance(found, Final)
    assert found.outcome == "skipped"
    assert found.reason


def test_a_mistake_of_a_sink_costs_one_event_and_no_more():
    class Broken(Meta):
        def encode(self, event):
            raise KeyError("secret of somebody")

    _, found = prepare("ads", make_event(), SETTINGS, Broken(SETTINGS), make_event()["time"] / 1000)

    assert found == Final("rejected", "sink_failed", "KeyError")
