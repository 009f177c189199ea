import json
from pathlib import Path
from typing import Any

import msgspec
import orjson
import pytest
from hypothesis import assume, given

from app import keys
from app.events import Event
from app.shape import Copy, as_event, copy, from_event, is_event, read, routed
from tests.factories import events
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


# records of capistream.events


def test_a_copy_has_the_fields_of_an_event():
    assert {*Copy.__struct_fields__} == {*Event.__annotations__}


@given(events())
def test_a_copy_is_read_as_the_event_that_it_is(event):
    event.pop("apart", None)
    assume(keys.key(event).count(b"\x1f") == 2 and keys.key(event) > b"\x1f")
    assume(event["received"] >= 0 and event["time"] >= 0)
    value = orjson.dumps(event)
    found = read(keys.key(event), value)

    assert found is not None
    assert as_event(found) == copy(keys.key(event), value) == event
    assert orjson.loads(msgspec.json.encode(found)) == event
    assert from_event(event) == found


@pytest.mark.parametrize(
    "wrong",
    [
        {"received": -1},
        {"time": -1},
        {"apart": "0a1b2c3d"},
        {"site": "other"},
        {"commerce": {"transaction_id": "another"}},
    ],
)
def test_an_event_that_is_no_copy_of_this_conversion_is_none(wrong):
    assert read(keys.key(EXAMPLE), orjson.dumps(EXAMPLE)) is not None
    assert read(keys.key(EXAMPLE), orjson.dumps(EXAMPLE | wrong)) is None


@pytest.mark.parametrize("wrong", [{"site": "a\x1fb"}, {"event_id": "\x1d", "event_name": "x"}])
def test_a_key_that_names_no_conversion_is_none_even_if_the_event_has_it(wrong):
    event = {name: said for name, said in EXAMPLE.items() if name != "commerce"} | wrong

    assert read(keys.key(event), orjson.dumps(event)) is None


@pytest.mark.parametrize(("what", "event"), list(strangers.nearly()))
def test_one_field_of_a_wrong_type_is_enough_for_a_copy(what, event):
    if not what.startswith(BY_VALUE):
        assert read(keys.key(EXAMPLE), json.dumps(event).encode()) is None


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
