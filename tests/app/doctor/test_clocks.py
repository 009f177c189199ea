"""app/doctor/clocks.py: what is judged of clocks, and how they are read."""

from io import BytesIO
from typing import Any

import pytest

from app import wire
from app.doctor import clocks
from app.doctor.clocks import Newest, Reading
from app.doctor.web import Answer
from tests.app.doctor.facts import only, settings, states

NOW = 1_795_420_800_000


def judged(*readings):
    return list(clocks.judge_clocks(settings(), readings))


def test_a_clock_is_known_to_within_half_of_the_time_that_its_answer_took():
    assert clocks.reading("x", 100.0, 99.0, 101.0) == Reading("x", 0.0, 1.0)


def test_a_clock_that_tells_whole_seconds_is_half_a_second_later_in_the_mean():
    found = clocks.reading("x", 100.0, 100.0, 100.2, rounded=1.0)

    assert found.ahead == pytest.approx(0.4)
    assert found.within == pytest.approx(0.6)


def test_clocks_that_agree_are_fine():
    assert states(judged(Reading("Kafka", 0.2, 0.01), Reading("a platform", -0.4, 0.6))) == []


def test_one_that_differs_is_told_with_the_seconds_and_a_direction():
    found = only(judged(Reading("Kafka", 4.0, 0.01), Reading("a platform", 0.1, 0.6)))

    assert (found.state, found.what) == ("warning", "Kafka")
    assert "Kafka is 4.0 s ahead of this machine" in found.detail


def test_one_that_differs_by_a_merge_window_parts_pairs():
    assert only(judged(Reading("Kafka", -11.0, 0.01), Reading("a platform", 0.1, 0.6))).state == "problem"


def test_where_all_differ_it_is_our_own():
    found = only(judged(Reading("Kafka", -11.0, 0.01), Reading("a platform", -10.9, 0.6)))

    assert (found.what, "this machine's" in found.remedy) == ("our clock", True)


def test_a_slow_answer_proves_nothing():
    assert states(judged(Reading("a platform", 2.5, 3.0))) == []


def test_without_any_other_clock_that_is_said():
    assert only(judged()).state == "warning"


def test_each_platform_counts_once_and_our_own_machine_is_none():
    seen = {
        "ads": Answer("a.example", "", 100.0, 100.0, 100.2),
        "more": Answer("a.example", "", 100.0, 100.0, 100.2),
        "sandbox": Answer("127.0.0.1", "", 100.0, 100.0, 100.2),
        "quiet": Answer("b.example", "", None, 100.0, 100.2),
        "away": Answer("c.example", "no answer"),
    }

    assert [one.whose for one in clocks.platforms(seen)] == ["a.example"]


def answer(code=0, leader=2, caught_up=NOW):
    replicas: list[Any] = [(1, 10, NOW - 500, NOW - 700, {}), (2, 10, -1, caught_up, {})]
    return wire._QuorumAnswer(code, [("__cluster_metadata", [(0, 0, leader, 5, 10, replicas, [], {})], {})], {})


def test_the_controller_tells_its_time_as_the_time_up_to_which_it_is_caught_up():
    assert clocks.leaders_time(answer()) == NOW


@pytest.mark.parametrize("other", [answer(code=31), answer(leader=-1), answer(caught_up=-1)])
def test_an_answer_without_the_leaders_time_says_nothing(other):
    assert clocks.leaders_time(other) is None


def test_an_answer_is_read_as_kafka_writes_it():
    written = answer().encode()

    assert clocks.leaders_time(wire._QuorumAnswer.decode(BytesIO(written))) == NOW
    assert written[:3] == b"\x00\x00\x02", "no error, and one topic, counted from one"


def test_sources_with_recent_records_are_fine():
    found = list(
        clocks.judge_sources(
            {"orders": Newest(NOW - 5_000, 9), "old": Newest(NOW - 9 * 86_400_000, 1), "new": Newest(None)}, NOW
        )
    )

    assert [(one.state, one.detail) for one in found] == [("ok", "orders 5 s ago, old 9 d ago, new has no records")]


def test_records_of_the_future_are_told():
    found = only(clocks.judge_sources({"orders": Newest(NOW + 3_600_000, 9)}, NOW))

    assert (found.state, "3,600 s in the future" in found.detail) == ("warning", True)


def test_a_stamp_in_seconds_is_told_as_what_it_is():
    found = only(clocks.judge_sources({"orders": Newest(NOW // 1000, 9)}, NOW))

    assert (found.state, "1970-01-21" in found.detail) == ("problem", True)
