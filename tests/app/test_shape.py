import json
from pathlib import Path
from typing import Any

import pytest

from app import keys
from app.shape import is_event, routed
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


# records of a destination's topic


WRONG_REPLAYS: list[Any] = [-1, 2**53, 1.5, True, "7", None, []]
WRONG_EVENTS: list[Any] = [None, [], {}, {**EXAMPLE, "time": -1}, {**EXAMPLE, "user": 7}]


def record(**more):
    return json.dumps({"v": 1, "event": EXAMPLE, "basis": "ad_storage granted", **more}).encode()


def test_a_record_of_a_destinations_topic_is_read_with_its_replay():
    found, again = routed(keys.key(EXAMPLE), record()), routed(keys.key(EXAMPLE), record(replay=2**53 - 1))

    assert found
    assert (found.event, found.replay) == (EXAMPLE, 0)
    assert again
    assert again.replay == 2**53 - 1


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"no JSON",
        b"[1]",
        b"{}",
        b"\xff",
        b"[" * 100_000,
        *(record(replay=wrong) for wrong in WRONG_REPLAYS),
        *(record(event=wrong) for wrong in WRONG_EVENTS),
    ],
)
def test_any_other_record_there_is_none(value):
    assert routed(keys.key(EXAMPLE), value) is None


def test_a_record_under_the_key_of_another_conversion_is_none():
    assert routed(keys.key(EXAMPLE | {"site": "other"}), record()) is None


@pytest.mark.parametrize(("what", "event"), list(strangers.nearly()))
def test_one_field_of_a_wrong_type_is_enough_there_too(what, event):
    if not what.startswith(BY_VALUE):
        assert routed(keys.key(EXAMPLE), json.dumps({"event": event}).encode()) is None
