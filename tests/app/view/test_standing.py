"""How destinations stand, at all workers together."""

import pytest

from app.view import standing

OK = {
    "state": "ok", "reason": "", "waiting": 1, "in_flight": 2, "parked": 0, "lag": 3, "oldest": 5.0, "spent": 0.01,
    "without_topic": False, "answers": {"200": 10}, "outcomes": {"delivered": 9},
    "seconds": {"0.1": 5, "0.5": 9, "10.0": 10, "+Inf": 10}, "per_second": 1.5, "failed_at": 1.0, "failure": "away",
}  # fmt: skip
HALTED = OK | {
    "state": "halted",
    "reason": "no access",
    "oldest": 60.0,
    "answers": {"200": 1, "401": 4},
    "without_topic": True,
    "failed_at": 2.0,
    "failure": "no access",
}


def test_the_worst_worker_says_how_it_stands_and_counts_are_added_up():
    said = standing.together([("a", {"ads": OK}), ("b", {"ads": HALTED})], "ads")

    assert (said["state"], said["reason"], said["oldest"], said["without_topic"]) == ("halted", "no access", 60.0, True)
    assert (said["waiting"], said["in_flight"], said["lag"]) == (2, 4, 6)
    assert said["answers"] == {"200": 11, "401": 4}
    assert (said["per_second"], said["failure"], said["failed_at"]) == (3.0, "no access", "1970-01-01T00:00:02.000Z")
    assert said["workers"] == [
        {"worker": "a", "state": "ok", "reason": ""},
        {"worker": "b", "state": "halted", "reason": "no access"},
    ]


def test_answers_within_are_told_by_percentiles():
    assert standing.together([("a", {"ads": OK})], "ads")["latency"] == {"p50": 0.1, "p95": 10.0, "p99": 10.0}
    slow = OK | {"seconds": {"10.0": 0, "+Inf": 3}}
    assert standing.together([("a", {"ads": slow})], "ads")["latency"] == {"p50": None, "p95": None, "p99": None}


@pytest.mark.parametrize("told", [[], [("a", {})], [("a", {"other": OK})]])
def test_of_what_no_worker_told_nothing_is_known(told):
    said = standing.together(told, "ads")

    assert (said["state"], said["waiting"], said["latency"], said["workers"]) == ("unknown", 0, {}, [])
