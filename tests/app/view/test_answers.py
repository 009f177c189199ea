"""What a destination answered lately."""

import asyncio
from typing import Any

import orjson
import pytest

from app.view import answers
from app.view.answers import Lately
from tests.app.view.journeys import START

KEY = b"1001\x1fshop\x1fpurchase"
ROW = {
    "time": START,
    "destination": "ads",
    "status": 200,
    "seconds": 0.2,
    "attempt": 1,
    "events": 50,
    "outcome": "delivered",
}


def told(*rows, destination="ads", status=None, slowest=False):
    found = [answer for n, row in enumerate(rows) if (answer := answers.read(KEY, ROW | {"time": START + n} | row))]
    return answers.told(found, destination, status, slowest=slowest)


def test_each_answer_leads_to_its_event():
    (one,) = told({"status": 429, "outcome": "retry", "reason": "too many"})["answers"]

    assert one == {
        "id": "1001", "site": "shop", "event_name": "purchase", "apart": "", "at": "2026-11-23T08:00:00.000Z", "status": 429,
        "seconds": 0.2, "attempt": 1, "events": 50, "outcome": "retry", "reason": "too many",
    }  # fmt: skip


def test_those_of_a_status_are_chosen_and_no_answer_is_one():
    rows: Any = {}, {"status": 503}, {"status": 0, "seconds": 0}, {"destination": "stats"}

    assert [one["status"] for one in told(*rows)["answers"]] == [0, 503, 200]
    assert [one["status"] for one in told(*rows, status=503)["answers"]] == [503]
    assert told(*rows, status=0)["total"] == 1
    assert told(*rows, destination="nobody")["total"] == 0


def test_the_slowest_come_first_when_they_are_asked_for():
    rows = [{"seconds": seconds} for seconds in (0.1, 9.0, 0.5)]

    assert [one["seconds"] for one in told(*rows, slowest=True)["answers"]] == [9.0, 0.5, 0.1]
    assert [one["seconds"] for one in told(*rows)["answers"]] == [0.5, 9.0, 0.1]


def test_a_page_shows_a_part_of_many():
    said = told(*[{}] * 500)

    assert (said["total"], len(said["answers"])) == (500, answers.SHOWN)


@pytest.mark.parametrize(
    ("key", "row"),
    [
        (None, ROW),
        (b"x", ROW),
        (b"\xff\x1fa\x1fb", ROW),
        (KEY, {}),
        (KEY, ROW | {"time": "soon"}),
        (KEY, ROW | {"time": 10**30}),
        (KEY, ROW | {"status": [1]}),
        (KEY, {name: value for name, value in ROW.items() if name != "attempt"}),  # of a destination in shadow
    ],
)
def test_what_is_no_answer_is_passed_over(key, row):
    assert answers.read(key, row) is None


# with a Kafka


@pytest.mark.fault
def test_the_newest_are_read_of_all_partitions(place, monkeypatch):
    monkeypatch.setattr(answers, "MOST", 4)
    for p in range(2):
        rows = [ROW | {"time": START + n, "status": 200 + n} for n in range(5)]
        place.write(
            f"{place.prefix}.trace", [(KEY, orjson.dumps(row), START) for row in rows] + [(KEY, b"?", START)], p
        )

    found = asyncio.run(Lately(place.config).answers())

    assert sorted(one.status for one in found) == [204, 204], "of the last two of each, one is none of ours"
