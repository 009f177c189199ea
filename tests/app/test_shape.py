import json
from pathlib import Path

import pytest

from app.shape import is_event
from tests.faults import strangers

EXAMPLE = json.loads((Path(__file__).parents[2] / "docs" / "event.example.json").read_text())

#: Of the right type; what numbers and texts say is not asked here.
BY_VALUE = ("time='-1'", "received='-1'", "revision='-1'", "event_id='xxx", "commerce=\"{'value': inf")


def test_an_event_of_ours_is_one():
    assert is_event(EXAMPLE)
    assert is_event(strangers.event("a"))
    assert is_event({**EXAMPLE, "commerce": {"value": 5}}), "a whole amount is a number, too"


@pytest.mark.parametrize("value", [None, [], "text", 7, {}, {"event": EXAMPLE}])
def test_anything_else_is_none(value):
    assert not is_event(value)


@pytest.mark.parametrize("part", ["v", "event_id", "event_name", "site", "source", "time", "received"])
def test_what_every_event_has_must_be_there(part):
    assert not is_event({name: value for name, value in EXAMPLE.items() if name != part})


@pytest.mark.parametrize(("what", "event"), list(strangers.nearly()))
def test_one_field_of_a_wrong_type_is_enough(what, event):
    assert is_event(event) is what.startswith(BY_VALUE)


def test_a_field_of_a_later_version_is_carried_along():
    assert is_event({**EXAMPLE, "surplus": 1, "context": {"surplus": 1}})
