"""How values look on a page."""

import json

import pytest
from hypothesis import given, settings

from app.view import shown
from sinks.samples import events
from tests.app.view.journeys import mark
from tests.factories import make_event, sha


def test_nothing_of_a_person_is_shown_in_clear():
    event = make_event()

    said = json.dumps(shown.fields(event, mark))

    for text in ("203.0.113.7", "Mozilla/5.0 (X11; Linux x86_64)", "Menlo Park", "94025", sha("ada@example.com")):
        assert text not in said
    assert shown.fields(event, mark)["context.ip"] == "203.0.113.0/24"
    assert shown.fields(event, mark)["user.email"].startswith(f"plain {sha('ada@example.com')[:8]}…, gmail ")


def test_what_is_hidden_can_be_compared():
    one, same, other = (
        shown.fields(make_event(user={"city": city}), mark)["user.city"] for city in ("Berlin", "Berlin", "Bremen")
    )

    assert one == same
    assert one != other
    assert one.startswith("given, 6 characters, mark ")


def test_what_is_looked_for_is_shown():
    said = shown.fields(make_event(labels=["test"]), mark)

    assert said["ids.gclid"] == "Cj0KCQ-gclid"
    assert said["commerce.items[0]"] == "2 SKU-1 Shirt at 29.99, brand Acme, category Clothing, variant red"
    assert said["tags.meta"] == "ran, with id order-1001"
    assert said["labels"] == "test"
    assert said["time"] == "2026-11-23 08:00:00.123"


def test_long_values_and_many_of_them_are_cut():
    event = make_event(
        custom={f"k{n}": "v" for n in range(200)},
        consent={"tcf": "C" * 3000},
        commerce={"items": [{"item_id": "x"}] * 100},
    )

    said = shown.fields(event, mark)

    assert said["consent.tcf"].endswith("… (3000 characters)")
    assert said["custom"] == "and 150 more"
    assert said["commerce.items[20]"] == "and 80 more"
    assert shown.field_of("commerce.items[20]") == "commerce.items"


@settings(max_examples=30, deadline=None)
@given(events())
def test_any_event_that_fits_the_schema_can_be_shown(event):
    assert all(isinstance(value, str) for value in shown.fields(event, mark).values())


# requests


def test_a_request_is_shown_as_json_without_hashes_and_addresses():
    body = json.dumps(
        {"em": [sha("a")], "ip": "198.51.100.7", "v6": "2001:db8::1", "n": 1, "deep": {"x": [True, None]}}
    )

    assert json.loads(shown.request_body(body, None)) == {
        "em": [sha("a")[:8] + "…"], "ip": "198.51.100.0/24", "v6": "2001:db8::/48", "n": 1, "deep": {"x": [True, None]},
    }  # fmt: skip


@pytest.mark.parametrize("as_json", [True, False])
def test_what_a_destination_in_shadow_would_have_sent_is_shown_without_what_its_event_says_in_clear(as_json):
    event = make_event()
    agent, city = event["context"]["user_agent"], event["user"]["city"]
    body = json.dumps({"ua": agent, "town": city.lower()}) if as_json else f"ua={agent}&town={city}&em={sha('a')}"

    said = shown.request_body(body, event)

    assert "[not kept]" in said
    for text in (agent, city.lower(), city, sha("a")):
        assert text not in said
