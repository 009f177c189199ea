"""app/prepare.py: what a destination gets of an event, or why it gets nothing."""

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import mapping
from app.destination import ConsentPolicy
from app.errors import SettingsError
from app.prepare import Final, prepare
from app.settings import parse
from sinks._base import Payload
from sinks.meta import Meta
from sinks.webhook import Webhook
from tests.app.signals.encoder import tc_string
from tests.factories import events, make_event

SETTINGS = parse("""
[destinations.ads]
sink = "meta"
dataset_id = "1234567890"
access_token = { env = "TOKEN" }
browser_tag = "none"
events = { login = false }
""").destinations["ads"]
SINK = Meta(SETTINGS)
EVERYTHING = tc_string(purposes=range(1, 12), consents=[755])
WEBHOOK = """
[destinations.own]
sink = "webhook"
endpoint = "https://example.com/events"
secret = { env = "SECRET" }
fields = ["user", "context", "ids", "commerce", "consent", "custom"]
browser_tag = "none"
consent = { partial = "strip" }
"""


def ask(event, *, after=0.0):
    basis, (one,) = prepare("ads", event, SETTINGS, SINK, event["time"] / 1000 + after)
    return basis, one.found


def test_what_may_go_is_encoded_and_tells_its_basis():
    basis, found = ask(make_event())

    assert basis == "ad_storage granted, ad_user_data granted"
    assert isinstance(found, Payload)
    assert found == SINK.encode(make_event(), "Purchase")


def test_an_opt_out_goes_with_the_platforms_own_restriction_where_the_settings_say_so():
    settings = SETTINGS.model_copy(update={"consent": ConsentPolicy(partial="flag")})
    event = make_event(consent={"gpc": True})

    basis, (one,) = prepare("ads", event, settings, SINK, event["time"] / 1000)

    assert basis == "gpc on, ad_storage granted, ad_user_data granted; the platform is told so"
    assert isinstance(one.found, Payload)
    assert one.found.body["data_processing_options"] == ["LDU"]
    assert one.found.body["opt_out"] is True


def test_what_a_late_copy_denies_holds_the_event_back_under_every_name_it_would_have_had():
    settings = SETTINGS.model_copy(update={"events": {"purchase": ["Purchase", "Sale"]}})
    event = make_event()

    basis, found = prepare("ads", event, settings, SINK, event["time"] / 1000, {"ad_user_data": "denied"})

    assert basis == "ad_storage granted, ad_user_data denied"
    assert [(one.name, one.found) for one in found] == [
        (name, Final("held_back", "denied_later")) for name in ("Purchase", "Sale")
    ]


def test_what_a_late_copy_denies_restricts_what_may_go_in_part():
    settings = SETTINGS.model_copy(update={"consent": ConsentPolicy(partial="flag")})
    event, opted_out = make_event(), make_event(consent={"gpc": True})

    assert prepare("ads", event, settings, SINK, event["time"] / 1000, {"gpc": True}) == prepare(
        "ads", opted_out, settings, SINK, event["time"] / 1000
    )


def test_what_was_not_allowed_is_not_for_what_a_late_copy_says():
    event = make_event(consent={"ad_user_data": None})

    _, (one,) = prepare("ads", event, SETTINGS, SINK, event["time"] / 1000, {"tcf": EVERYTHING})

    assert one.found == Final("held_back", "consent_absent")


def test_what_is_stripped_reaches_the_platform_without_the_person():
    settings = parse(WEBHOOK).destinations["own"]
    event = make_event(consent={"gpc": True})

    _, (one,) = prepare("own", event, settings, Webhook(settings), event["time"] / 1000)

    assert isinstance(one.found, Payload)
    assert not {"user", "ids", "custom"} & set(one.found.body)


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


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"custom_data.value": "commerce.tax"}, ""),
        ({"custom_data.value": "commerce.coupon"}, "custom_data.value is not a number"),
        ({"custom_data.value": "custom.flag"}, "custom_data.value is not a number"),
        ({"custom_data.currency": "commerce.tax"}, "custom_data.currency is not a text"),
        ({"custom_data.contents": "commerce.items[].item_id"}, "custom_data.contents is not a list of objects"),
        ({"custom_data.contents": "event_id"}, "custom_data.contents is not a list of objects"),
        ({"custom_data.contents[].quantity": "commerce.items[].price"}, "custom_data.contents[].quantity is not a whole number"),
        ({"custom_data.contents[].id": "commerce.items[].variant"}, ""),
        ({"custom_data.plan": "custom.plan"}, ""),
        ({"custom_data.plan": "custom"}, "custom_data.* is not a text, a number, true or false"),
        ({"custom_data": "event_id"}, "custom_data is not an object"),
        ({"user_data.em": "user.email.plain"}, ""),
        ({"user_data.em": "custom.email"}, "user_data.em is not a SHA-256 or a list of them"),
        ({"user_data.em[]": "custom.email"}, "user_data.em is not a SHA-256 or a list of them"),
        ({"event_time": "received"}, ""),
        ({"event_time": "event_id"}, "event_time is not a whole number"),
        ({"app_data": "{ada: custom.absent}"}, "the event holds a null"),
        ({"custom_data.contents": "[{id: custom.absent}]"}, "custom_data.contents[].id holds a null"),
        ({"custom_data.value": "custom.absent"}, ""),
    ],
)  # fmt: skip
def test_what_map_fills_with_another_type_than_the_platforms_is_not_sent(fields, wrong):
    event = make_event(custom={"plan": "gold", "flag": True, "email": "ada@example.com"})
    settings = SETTINGS.model_copy(update={"map": fields})

    _, (one,) = prepare("ads", event, settings, Meta(settings), event["time"] / 1000)

    assert one.found == Final("rejected", "map_misfit", wrong) if wrong else isinstance(one.found, Payload)


def test_a_mistake_of_a_sink_costs_one_event_and_no_more():
    class Broken(Meta):
        def encode(self, event, name):
            raise KeyError("secret of somebody")

    _, (one,) = prepare("ads", make_event(), SETTINGS, Broken(SETTINGS), make_event()["time"] / 1000)

    assert one.found == Final("rejected", "sink_failed", "KeyError")


@pytest.mark.parametrize(
    ("setting", "custom", "reason"),
    [
        pytest.param({"value": "sum(custom.n)"}, "x", "bad_value", id="no list"),
        pytest.param({"map": {"custom_data.n": "to_number(custom.n)"}}, "9" * 25, "bad_map", id="huge"),
        pytest.param({"map": {"custom_data.n": "sum(custom.n)"}}, "x", "bad_map", id="no list, in a map"),
    ],
)
def test_an_expression_that_fails_for_one_event_rejects_that_one(setting, custom, reason):
    settings, event = SETTINGS.model_copy(update=setting), make_event(custom={"n": custom})

    _, (one,) = prepare("ads", event, settings, Meta(settings), event["time"] / 1000)

    assert isinstance(one.found, Final)
    assert (one.found.outcome, one.found.reason) == ("rejected", reason)
    assert custom not in one.found.detail


# `fields`


def narrowed(*fields: str, **more):
    settings = SETTINGS.model_copy(update={"fields": fields, **more})
    event = make_event(custom={"plan": "gold", "note": "x"})
    _, (one,) = prepare("ads", event, settings, Meta(settings), event["time"] / 1000)
    return one.found


def test_only_the_fields_that_the_settings_name_reach_the_platform():
    found = narrowed("user.email", "context.ip", "commerce.value", "commerce.currency")

    assert isinstance(found, Payload)
    assert set(found.body["user_data"]) == {"em", "client_ip_address"}
    assert found.body["custom_data"] == {"value": 59.98, "currency": "USD"}
    assert "event_source_url" not in found.body


def test_a_part_may_be_named_as_a_whole():
    found = narrowed("user", "commerce.*", "custom.plan", custom_data=("plan", "note"))

    assert isinstance(found, Payload)
    assert {"em", "ph", "ct"} <= set(found.body["user_data"])
    assert found.body["custom_data"]["order_id"] == "1001"
    assert found.body["custom_data"]["plan"] == "gold"
    assert "note" not in found.body["custom_data"]


def test_what_fields_leave_out_no_expression_of_the_settings_can_bring_back():
    found = narrowed("user.email", "commerce", map={"custom_data.status": "ids.fbp || user.city || 'none'"})

    assert isinstance(found, Payload)
    assert found.body["custom_data"]["status"] == "none"


def test_without_fields_to_match_by_the_platform_skips_the_event():
    assert narrowed("commerce") == Final("skipped", "too little to match a person by")


def test_consent_test_label_and_ids_of_the_event_always_reach_the_sink():
    settings = parse(WEBHOOK).destinations["own"].model_copy(update={"fields": ("consent", "labels", "user.email")})
    event = make_event(labels=["bot"])

    found = mapping.chosen(event, settings.fields)

    assert {"event_id", "time", "consent", "labels", "tags"} <= set(found)
    assert found["user"] == {"email": event["user"]["email"]}
    assert not {"context", "ids", "commerce"} & set(found)


@given(
    event=events(),
    fields=st.lists(st.sampled_from(("user", "user.city", "ids.*", "context.url", "custom.a", "consent"))).map(tuple),
)
def test_choosing_takes_away_and_changes_nothing(event, fields):
    before = copy.deepcopy(event)

    found: Any = mapping.chosen(event, fields)

    assert event == before
    for name, part in found.items():
        assert part == event[name] or part.items() <= event[name].items()


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("time", "begins with one of"),
        ("user.e_mail", "user has no such field"),
        ("context.ip.x", "context has no such field"),
        ("nothing.x", "begins with one of"),
        ("", "match pattern"),
    ],
)
def test_a_field_that_no_event_has_is_a_mistake_of_the_settings(path, why):
    with pytest.raises(SettingsError, match=why):
        parse(WEBHOOK.replace('"custom"]', f'"custom", "{path}"]'))
