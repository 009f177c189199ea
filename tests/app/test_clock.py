"""app/clock.py: watermarks in, one clock out."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import clock
from app.clock import Watermarks

LAG = 300_000  # milliseconds
WALL = 1_000_000


def marks(**by_source: int) -> bytes:
    return orjson.dumps({"marks": by_source})


def heard(**by_source: int) -> Watermarks:
    """Whoever has listened for long, and read these."""
    watermarks = Watermarks(LAG, begun=0)
    watermarks.read(marks(**by_source))
    return watermarks


@pytest.mark.parametrize("now", [0, 1, 1_795_420_800_123])
def test_a_clock_record_reads_as_it_was_written(now):
    assert clock.decode(clock.encode(now)) == now


# the clock


def test_a_source_not_yet_heard_is_waited_for():
    watermarks = Watermarks(LAG)
    watermarks.read(marks(a=WALL))

    assert watermarks.clock(WALL, ["a", "b"]) is None
    assert watermarks.left_out == ()


def test_a_source_never_heard_is_left_out_after_the_longest_lag_since_we_began_to_listen():
    watermarks = Watermarks(LAG)
    watermarks.read(marks(a=WALL + LAG))

    moments = [watermarks.clock(WALL + passed, ["a", "b"]) for passed in (0, LAG, LAG + 1)]

    assert moments == [None, None, WALL + LAG]
    assert watermarks.left_out == ("b",)


def test_the_slowest_source_holds_back():
    assert heard(a=WALL, b=WALL - 70_000, c=WALL - 1).clock(WALL, ["a", "b", "c"]) == WALL - 70_000


def test_a_source_too_far_behind_is_left_out_and_named():
    watermarks = heard(a=WALL - 5, b=WALL - LAG - 1)

    assert watermarks.clock(WALL, ["a", "b"]) == WALL - 5
    assert watermarks.left_out == ("b",)


def test_a_source_as_far_behind_as_it_may_be_holds_back():
    watermarks = heard(a=WALL, b=WALL - LAG)

    assert watermarks.clock(WALL, ["a", "b"]) == WALL - LAG
    assert watermarks.left_out == ()


def test_a_source_that_catches_up_counts_again_and_the_clock_may_fall_back():
    watermarks = heard(a=WALL, b=0)
    before = watermarks.clock(WALL, ["a", "b"])

    watermarks.read(marks(b=WALL - LAG))

    assert before == WALL
    assert watermarks.clock(WALL, ["a", "b"]) == WALL - LAG
    assert watermarks.left_out == ()


def test_with_all_sources_left_out_the_wall_clock_counts():
    watermarks = heard(a=0, b=1)

    assert watermarks.clock(WALL, ["a", "b"]) == WALL
    assert watermarks.left_out == ("a", "b")


def test_with_no_source_topics_the_wall_clock_counts():
    assert Watermarks(LAG).clock(WALL, []) == WALL


def test_the_clock_is_never_ahead_of_our_own_wall_clock():
    assert heard(a=WALL + 60_000).clock(WALL, ["a"]) == WALL


def test_sources_that_are_not_needed_hold_nobody_back():
    assert heard(a=WALL, gone=WALL - 100_000).clock(WALL, ["a"]) == WALL


def test_a_watermark_of_zero_is_one_that_was_heard():
    watermarks = Watermarks(max_lag=10, begun=45, marks={"a": 0})

    assert watermarks.clock(50, ["a"]) == 50
    assert watermarks.left_out == ("a",)


@given(
    st.dictionaries(st.sampled_from("abcd"), st.integers(0, 2 * WALL)),
    st.sets(st.sampled_from("abcd")),
    st.integers(0, WALL),
    st.integers(0, WALL),
)
def test_the_clock_is_at_most_every_watermark_that_counts(by_source, needed, begun, wall):
    watermarks = Watermarks(LAG, dict(by_source), begun=begun)

    moment = watermarks.clock(wall, needed)

    counted = needed - set(watermarks.left_out)
    if moment is None:
        assert counted - set(by_source)
    else:
        assert moment == min([wall, *(by_source[name] for name in counted)])
    assert all(wall - by_source.get(name, begun) > LAG for name in watermarks.left_out)


# reading


def test_a_watermark_never_goes_back():
    watermarks = heard(a=WALL - 10)

    watermarks.read(marks(a=WALL - 50, b=WALL))

    assert watermarks.marks == {"a": WALL - 10, "b": WALL}


@given(st.permutations([marks(a=5), marks(a=3, b=9), marks(b=2), marks(c=1)]))
def test_watermarks_may_come_in_any_order(records):
    watermarks = Watermarks(LAG)

    for record in records:
        watermarks.read(record)

    assert watermarks.marks == {"a": 5, "b": 9, "c": 1}


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"\xff\xfe",
        b"{",
        b"null",
        b"[]",
        b"7",
        b'"marks"',
        b"{}",
        b'{"marks": null}',
        b'{"marks": [1]}',
        b'{"marks": 5}',
        b'{"marks": {"a": null}}',
        b'{"marks": {"a": "soon"}}',
        b'{"marks": {"a": {}}}',
        b'{"marks": {"a": 900000, "b": "soon"}}',
    ],
)
def test_a_record_that_cannot_be_read_is_counted_and_changes_nothing(value):
    watermarks = heard(a=1)

    watermarks.read(value)

    assert watermarks.marks == {"a": 1}
    assert watermarks.unreadable == 1


@given(st.binary(max_size=40))
def test_no_record_whatever_it_holds_stops_the_reader(value):
    Watermarks(LAG).read(value)


# what collectors have on their disks


def with_spool(oldest: int | None, at: int = WALL) -> Watermarks:
    watermarks = heard(a=WALL)
    watermarks.read(clock.told_by_spool("one", oldest, at))
    return watermarks


def test_a_collector_that_sends_what_its_disk_kept_is_waited_for():
    assert with_spool(WALL - 60_000).clock(WALL, ["a"]) == WALL - 60_000


def test_without_a_source_it_is_waited_for_as_well():
    assert with_spool(WALL - 60_000).clock(WALL, []) == WALL - 60_000


def test_it_is_waited_for_until_it_is_through():
    watermarks = with_spool(WALL - 60_000)
    watermarks.read(clock.told_by_spool("one", WALL - 30_000, WALL + 1))
    assert watermarks.clock(WALL, ["a"]) == WALL - 30_000

    watermarks.read(clock.told_by_spool("one", None, WALL + 2))

    assert watermarks.clock(WALL, ["a"]) == WALL


def test_one_that_says_nothing_more_is_not_waited_for():
    assert with_spool(WALL - 60_000, at=WALL - clock.SILENT - 1).clock(WALL, ["a"]) == WALL


def test_what_is_too_old_is_not_waited_for_and_named():
    watermarks = with_spool(WALL - LAG - 1)

    assert watermarks.clock(WALL, ["a"]) == WALL
    assert watermarks.left_out == ("one",)


@pytest.mark.parametrize(
    "value",
    [b'{"marks":{},"spools":{"one":1}}', b'{"marks":{},"spools":{"one":"x"},"at":1}', b'{"marks":{},"spools":[]}'],
)
def test_a_word_of_a_collector_that_says_nothing_is_counted(value):
    watermarks = heard(a=WALL)
    watermarks.read(value)

    assert watermarks.unreadable == 1
    assert watermarks.clock(WALL, ["a"]) == WALL
