"""What stands still, and for how long: app/health.py without a worker."""

import asyncio
import itertools

from hypothesis import given
from hypothesis import strategies as st

from app.health import Place, Question, Standing, Trouble

GAP = 10.0
#: looks: seconds since the last one, and what each of three things shows (None: it need not move)
looks = st.lists(
    st.tuples(
        st.floats(0, 40), st.dictionaries(st.sampled_from("abc"), st.one_of(st.none(), st.integers(0, 2)), max_size=3)
    ),
    max_size=40,
)


@given(looks)
def test_what_stands_has_stood_for_the_time_that_somebody_was_looking(seen):
    standing: Standing[str] = Standing(GAP)
    now = 1000.0
    history = []
    for passed, marks in seen:
        now += passed
        standing.look(now, marks)
        history.append((now, marks))

    last = history[-1][1] if history else {}
    assert set(standing.seconds) == set(last)
    for key, mark in last.items():
        expected = 0.0
        for (before, marks), (after, _) in reversed(list(itertools.pairwise(history))):
            if mark is None or marks.get(key) != mark:
                break
            expected += min(after - before, GAP)
        assert abs(standing.seconds[key] - expected) < 1e-6


@given(looks, st.floats(0, 200))
def test_over_names_what_reached_the_limit(seen, limit):
    standing: Standing[str] = Standing(GAP)
    now = 0.0
    for passed, marks in seen:
        now += passed
        standing.look(now, marks)

    assert set(standing.over(limit)) == {key for key, seconds in standing.seconds.items() if seconds >= limit}


def places(*seen: Place) -> float:
    standing: Standing[str] = Standing(GAP)
    for number, place in enumerate(seen):
        standing.look(5.0 * number, {"p": place.mark})
    return standing.seconds["p"]


def test_one_unread_record_is_enough_to_stand_still_by():
    assert places(Place(7, 6), Place(7, 6), Place(7, 6)) == 10


def test_an_idle_partition_does_not_stand_still():
    assert places(Place(7, 7), Place(7, 7), Place(7, 7)) == 0


def test_a_log_that_grows_makes_no_progress():
    assert places(Place(7, 6), Place(8, 6), Place(900, 6)) == 10


def test_an_offset_that_moves_is_progress_however_far_behind():
    assert places(Place(700, 6), Place(800, 7), Place(900, 8)) == 0


def test_a_step_of_an_unfinished_batch_is_progress():
    assert places(Place(9, 6, steps=1), Place(9, 6, steps=2), Place(9, 6, steps=3)) == 0


def test_what_is_held_on_purpose_does_not_stand_still_and_begins_anew_after():
    held, free = Place(9, 6, held=True), Place(9, 6)
    assert places(free, free, held, free, free) == 5


def test_a_log_end_older_than_the_offset_is_no_lag():
    assert Place(5, 9).lag == 0


def test_a_process_that_was_stopped_finds_nothing_stuck_when_it_goes_on():
    standing: Standing[str] = Standing(GAP)
    standing.look(0.0, {"p": 1})
    standing.look(3600.0, {"p": 1})

    assert standing.seconds == {"p": GAP}


async def test_a_question_is_never_put_twice_at_a_time():
    asked, answer = 0, asyncio.Event()

    async def ask() -> int:
        nonlocal asked
        asked += 1
        await answer.wait()
        return asked

    question = Question(ask)
    assert [await question.within(0.01), await question.within(0.01)] == [None, None]
    answer.set()

    assert await question.within(5) == 1
    assert await question.within(5) == 2
    assert question.answers == asked == 2


async def test_a_failure_is_no_answer():
    async def ask() -> int:
        raise RuntimeError("not started")

    question = Question(ask)

    assert await question.within(5) is None
    assert question.answers == 0


async def test_a_question_that_somebody_cancelled_is_no_answer():
    async def ask() -> int:
        raise asyncio.CancelledError

    assert await Question(ask).within(5) is None


def test_what_is_told_stays_short():
    many = {f"capistream.events-{n:04}": 1 for n in range(1000)}

    told = Trouble("standstill", 125.4, many).told()

    assert (told["reason"], told["seconds"], len(told["partitions"])) == ("standstill", 125, 20)
