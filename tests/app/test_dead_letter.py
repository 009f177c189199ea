"""app/dead_letter.py: what a letter says, and that the same failure is one letter."""

import itertools

import orjson
import pytest

from app import keys
from app.dead_letter import DeadLetter
from app.events import Origin

ORIGIN: Origin = {"topic": "orders", "partition": 3, "offset": 4711}


def letter(**fields):
    return DeadLetter(**{"stage": "normalize", "reason": "missing", "origin": ORIGIN, **fields})


def test_a_row_says_what_went_wrong_where_and_no_more():
    one = letter(field="event_name", detail="is missing", index=2)

    key, value, timestamp = one.row(1_795_420_800.25)

    assert key == one.id.encode()
    assert timestamp == 1_795_420_800_250
    assert orjson.loads(value) == {
        "v": 1,
        "id": one.id,
        "time": 1_795_420_800_250,
        "stage": "normalize",
        "reason": "missing",
        "origin": ORIGIN,
        "index": 2,
        "field": "event_name",
        "detail": "is missing",
    }


def test_a_letter_of_a_delivery_names_event_destination_and_attempts():
    one = letter(stage="deliver", destination="meta", event_id="ev-1", event_name="purchase", attempts=3)

    said = orjson.loads(one.row(0)[1])

    assert (said["destination"], said["event_id"], said["event_name"], said["attempts"]) == (
        "meta",
        "ev-1",
        "purchase",
        3,
    )


def test_without_a_time_it_is_now(monkeypatch):
    monkeypatch.setattr("time.time", lambda: 1.5)

    assert letter().row()[2] == 1500


def test_the_same_failure_seen_twice_is_one_letter():
    again = letter(origin=dict(reversed(ORIGIN.items())), reason="wrong_type", detail="after an upgrade", attempts=5)

    assert again.id == letter().id


def test_another_origin_index_or_destination_is_another_letter():
    letters = [
        letter(),
        letter(index=1),
        letter(destination="meta"),
        letter(destination="ga4"),
        letter(origin={**ORIGIN, "offset": 4712}),
        letter(origin={**ORIGIN, "partition": 4}),
        letter(origin={**ORIGIN, "topic": "leads"}),
        letter(origin={"request": "6f1c2a9e"}),
        letter(origin={}),
    ]

    assert all(a.id != b.id for a, b in itertools.combinations(letters, 2))


@pytest.mark.parametrize("partitions", [1, 12])
def test_a_letter_lies_where_its_id_says(partitions):
    assert letter().partition(partitions) == keys.partition(letter().id, partitions)
