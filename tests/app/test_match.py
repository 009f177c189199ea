"""Match quality: what of an event a platform could find its person by."""

from typing import Any

import pytest

from app import match
from app.match import LEAST, Lost, One, Quality
from app.normalize import Inlet, Normalized, normalize
from sinks import BUILT_IN, SINKS
from sinks._base import MatchKey
from tests.factories import make_event
from tests.sinks.test_all import sink_settings

CLICK = MatchKey("click id", ("u.click",), ("ids.fbc",), of_click=True)
PHONE = MatchKey("phone", ("u.ph",), ("user.phone",))


def place(kind: str, **more: Any) -> tuple[Any, Any]:
    of = SINKS[kind].Settings.model_validate({"browser_tag": "none", **sink_settings(kind), **more})
    return of, SINKS[kind](of)


def carried(kind: str, event: Any, **more: Any) -> dict[str, int]:
    of, sink = place(kind, **more)
    (row,) = match.quality(kind, of, sink, [event], []).as_json()["events"]
    assert row["events"] == 1, row
    found: dict[str, int] = row["carried"]
    return found


EVERYTHING: dict[str, Any] = {
    "ga4": {"user_id": True, "user_data": True, "device_and_place": True},
}


@pytest.mark.parametrize("kind", sorted(BUILT_IN.keys() - {"google_ads"}))  # whose names are numbers of the account
def test_every_key_of_a_platform_is_found_in_an_event_that_has_everything(kind):
    more = {"epik": "dj0yJnU9", "lead_id": "123456789012345"}
    event = make_event(ids={**make_event()["ids"], **more})
    found = carried(kind, event, **EVERYTHING.get(kind, {}))

    assert found == dict.fromkeys(found, 1)
    assert (found == {}) == (kind == "webhook")


@pytest.mark.parametrize("api", ["data_manager", "upload_clicks"])
def test_google_ads_has_clicks_and_people_by_both_of_its_interfaces(api):
    more: dict[str, Any] = {"developer_token": {"env": "X"}} if api == "upload_clicks" else {}
    found = carried("google_ads", make_event(), api=api, events={"purchase": "123"}, **more)

    assert {"click id (gclid, gbraid or wbraid)", "e-mail", "phone"} <= {
        name for name, number in found.items() if number
    }


def test_an_event_that_has_nothing_carries_nothing_and_one_that_is_not_sent_is_not_counted():
    of, sink = place("meta")
    known = {"url": "https://shop.example/", "user_agent": "Mozilla/5.0", "ip": "203.0.113.9"}
    bare: Any = {**make_event(), "user": {}, "ids": {}, "context": known}
    nothing: Any = {**bare, "context": {}}

    (row,) = match.quality("meta", of, sink, [bare, nothing], []).as_json()["events"]

    assert row["events"] == 1
    assert [name for name, number in row["carried"].items() if number] == ["IP address and user agent"]
    assert sum(row["skipped"].values()) == 1


def test_what_consent_takes_away_or_a_destination_does_not_have_is_no_event_of_it():
    of, sink = place("meta")
    denied = make_event(consent={"ad_storage": "denied", "ad_user_data": "denied"})

    assert match.quality("meta", of, sink, [denied, make_event(event_name="refund")], []).events == []


# what could be better


def events(number: int, *carried_: str, given: tuple[str, ...] = (), name: str = "purchase") -> list[One]:
    return [One(f"e-{n}", name, frozenset(carried_), frozenset(given or carried_)) for n in range(number)]


def said(found: Quality) -> list[str]:
    return [f"{one['key']} of {one['event']}: {one['text']}" for one in match.lint(found)]


def test_a_click_id_that_is_never_there_is_said_once_there_are_enough_events():
    assert said(Quality([CLICK], events(LEAST - 1))) == []
    assert said(Quality([CLICK], events(LEAST))) == [
        "click id of purchase: never there: does the landing page keep it from the ad's address until the order?"
    ]
    assert said(Quality([CLICK], [*events(LEAST), *events(1, "click id")])) == []


def test_what_is_there_and_not_as_the_platform_takes_it_is_said_with_its_part():
    found = Quality([PHONE], [*events(12, "phone"), *events(8, given=("phone",))])

    assert said(found) == ["phone of purchase: present in 40 %, but not as this platform takes it, and so left out"]


def test_what_a_source_told_in_vain_is_said_with_the_source_and_the_reason():
    lost = {
        ("purchase", "server"): Lost(50, {("user.phone", "no_country_code"): 20, ("user.email", "not_an_email"): 30}),
        ("purchase", "pixel"): Lost(50, {("user.phone", "no_country_code"): 1}),
        ("search", "server"): Lost(50, {("user.phone", "no_country_code"): 20}),
    }

    assert said(Quality([PHONE], events(LEAST, "phone"), lost)) == [
        "phone of purchase: told in 40 % of the copies from server, but unusable: no country code, and the event names no country"
    ]


def test_an_identifier_of_people_that_nobody_tells_is_said():
    assert said(Quality([PHONE], events(LEAST))) == ["phone of purchase: never there: can the server's event tell it?"]


def test_copies_tell_what_their_source_said_in_vain_and_no_value_of_it():
    draft = {"event_name": "purchase", "event_id": "1", "user": {"phone": "030 1234567", "email": "nobody"}}
    inlet = Inlet("shop", "capistream", "shop", "server")
    (result,) = normalize(draft, inlet, 1_795_420_800_000, {"request": "r"})
    assert isinstance(result, Normalized)

    assert result.event["unusable"] == {"user.phone": "no_country_code", "user.email": "not_an_email"}
    assert match.lost([result.event])["purchase", "server"].unusable == {
        ("user.phone", "no_country_code"): 1,
        ("user.email", "not_an_email"): 1,
    }


def test_what_is_the_same_of_several_is_said_once():
    told = [
        ("a", "phone", "x"),
        ("a", "email", "x"),
        ("b", "phone", "x"),
        ("b", "email", "x"),
        ("b", "name", "y"),
        ("c", "phone", "x"),
    ]

    assert match.together([{"event": event, "key": key, "text": text} for event, key, text in told]) == [
        (["a", "b"], ["phone", "email"], "x"),
        (["b"], ["name"], "y"),
        (["c"], ["phone"], "x"),
    ]


def test_the_newest_events_without_an_identifier_are_named():
    found = Quality([PHONE], [*events(2), *events(3, "phone"), *events(1, name="search")])

    assert [one.event_id for one in found.without("purchase", "phone")] == ["e-1", "e-0"]


def test_the_newest_events_that_are_not_sent_are_named_by_their_reason():
    rest = [One(f"s-{n}", "purchase", frozenset(), frozenset(), "no_client_id") for n in range(2)]
    found = Quality([PHONE], [*events(2), *rest, rest[0]._replace(event_name="search")])

    assert [one.event_id for one in found.skipped("purchase", "no_client_id")] == ["s-1", "s-0"]
    assert found.skipped("purchase", "another") == []
