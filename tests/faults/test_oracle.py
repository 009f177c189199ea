"""The oracle would notice: a judge that never finds anything proves nothing."""

import pytest

from app.merge import merge
from app.normalize import Inlet, Normalized, normalize
from sinks._base import Payload
from sinks.meta import Meta, Settings
from tests.faults.oracle import Acknowledged, Fault, Oracle, copy

NOW = 1_795_420_800.0
SINK = Meta(
    Settings.model_validate(
        {"sink": "meta", "dataset_id": "1234567890", "access_token": {"env": "X"}, "browser_tag": "none"}
    )
)


def delivered(one, *sources, at=NOW):
    """What the platform would list, had these copies been merged."""
    events = []
    for source in sources:
        inlet = Inlet("t", "capistream", "shop", source)
        (result,) = normalize(copy(one.id, one.name, source), inlet, int(NOW * 1000), {"request": "r"})
        assert isinstance(result, Normalized)
        events.append(result.event)
    payload = SINK.encode(merge(events))
    assert isinstance(payload, Payload)
    return {"event_id": one.id, "received": at, "event": payload.body}


@pytest.fixture
def oracle():
    one = Oracle(1)
    for _ in range(30):
        one.new()
    return one


def bought(oracle):
    """A purchase of which both copies were acknowledged within the hold."""
    one = next(one for one in oracle.conversions.values() if one.name == "purchase")
    one.copies = [Acknowledged("pixel", "bus", NOW, NOW + 0.01), Acknowledged("server", "bus", NOW + 1, NOW + 1.01)]
    return one


def test_a_complete_delivery_is_good(oracle):
    one = bought(oracle)

    verdict = oracle.judge([delivered(one, "pixel", "server")], [])

    assert verdict.good
    assert (verdict.conversions, verdict.copies) == (1, 2)


def test_a_missing_delivery_is_lost(oracle):
    one = bought(oracle)

    assert oracle.judge([], []).lost == [one.id]


def test_what_was_never_acknowledged_is_no_obligation(oracle):
    assert oracle.judge([], []).good


def test_a_delivery_without_a_copy_of_its_hold_is_split(oracle):
    one = bought(oracle)

    assert oracle.judge([delivered(one, "server")], []).split == [f"{one.id} lacks pixel"]


def test_a_copy_that_came_after_the_hold_may_be_missing(oracle):
    one = bought(oracle)
    one.copies[1] = Acknowledged("server", "bus", NOW + 3.5, NOW + 3.6)

    assert oracle.judge([delivered(one, "pixel")], []).good


def test_a_second_delivery_without_a_fault_is_unexplained(oracle):
    one = bought(oracle)
    twice = [delivered(one, "pixel", "server"), delivered(one, "pixel", "server", at=NOW + 5)]

    assert oracle.judge(twice, []).unexplained == [one.id]


@pytest.mark.parametrize(("what", "good"), [("kill worker-1", True), ("poison", False), ("collector-kill", False)])
def test_a_second_delivery_is_explained_by_faults_that_keep_a_record_from_being_written(oracle, what, good):
    one = bought(oracle)
    twice = [delivered(one, "pixel", "server"), delivered(one, "pixel", "server", at=NOW + 5)]

    assert oracle.judge(twice, [Fault(NOW + 0.5, NOW + 0.6, what)]).good is good


def test_a_fault_of_another_time_explains_nothing(oracle):
    one = bought(oracle)
    twice = [delivered(one, "pixel", "server"), delivered(one, "pixel", "server", at=NOW + 5)]

    assert not oracle.judge(twice, [Fault(NOW + 60, NOW + 61, "kill worker-1")]).good


def test_a_changed_payload_and_an_unknown_event_are_wrong(oracle):
    one = bought(oracle)
    entry = delivered(one, "pixel", "server")
    entry["event"]["custom_data"]["value"] += 1

    verdict = oracle.judge([entry, {**entry, "event_id": "nobody"}], [])

    assert len(verdict.wrong) == 2
