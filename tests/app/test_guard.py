"""app/guard.py: what looks too wrong to be sent, on a clock that goes through weeks."""

from collections import Counter
from itertools import count
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import destination
from app.guard import CURRENCIES, HOUR, KEPT, NAMES, WEEK, Guard
from tests.factories import make_event

START = 498_728  # an hour since 1970
PARTITIONS = (0, 1, 2)


def an_event(
    event_id: str = "sample-1", name: str = "purchase", value: float | None = 50.0, currency: str = "EUR"
) -> Any:
    commerce = {} if value is None else {"value": value, "currency": currency}
    return make_event(event_id=event_id, event_name=name, commerce=commerce)


class Bench:
    """A guard, the clock, and the rows that it has in its table."""

    def __init__(self, partitions: tuple[int, ...] = PARTITIONS, **settings: Any) -> None:
        self.settings = destination.Guard(**settings)
        self.now = START * HOUR
        self.rows: dict[int, dict[bytes, bytes]] = {p: {} for p in partitions}
        self._ids = count()
        self.restart()

    def restart(self) -> None:
        self.guard = Guard(self.settings)
        self.guard.recall({p: list(rows.items()) for p, rows in self.rows.items()})

    def later(self, hours: float) -> None:
        self.now += int(hours * HOUR)

    def enter(self, times: int = 1, p: int | None = None, **event: Any) -> list[bytes]:
        keys = []
        for number in range(times):
            keys.append(b"%d" % next(self._ids))
            where = list(self.rows)[number % len(self.rows)] if p is None else p
            self.guard.enter(keys[-1], where, an_event(**event))
        return keys

    def settle(self, keys: list[bytes]) -> None:
        for p, key, value in self.guard.sent(keys, self.now):
            if value is None:
                del self.rows[p][key]
            else:
                self.rows[p][key] = value
        for key in keys:
            self.guard.leave(key)

    def send(self, times: int = 1, p: int | None = None, **event: Any) -> None:
        self.settle(self.enter(times, p, **event))

    def held(self, arrived: int = 0, **event: Any) -> str:
        """Which guard holds such an event now."""
        hold = self.guard.judge(an_event(**event), self.now, arrived)
        return hold.guard if hold else ""

    def week(self, times: int = 60, **event: Any) -> None:
        """An hour with a few events, one with so many, and a week until that hour again."""
        self.send(3, name="page_view", value=None)
        self.later(1)
        self.send(times, **event)
        self.later(WEEK)


# the highest value


@pytest.mark.parametrize(
    ("event", "held"),
    [
        ({"value": 100.0}, ""),
        ({"value": 100.01}, "highest purchase EUR"),
        ({"value": 500.0, "currency": "USD"}, ""),
        ({"value": 500.0, "name": "subscribe"}, ""),
        ({"value": None}, ""),
        ({"value": -500.0}, ""),
    ],
)
def test_a_value_above_the_highest_is_held(event, held):
    assert Bench(highest={"purchase": {"EUR": 100}}).held(**event) == held


def test_the_reason_names_the_limit_and_an_event_and_no_value():
    hold = Guard(destination.Guard(highest={"purchase": {"EUR": 100}})).judge(an_event("order-7", value=4711.0), 0)

    assert hold
    assert hold.reason == "guard: a purchase is worth more than 100 EUR: event order-7"


def test_what_was_there_when_somebody_looked_passes_and_what_comes_later_is_held_again():
    bench = Bench(highest={"purchase": {"EUR": 100}, "subscribe": {"EUR": 100}})
    bench.guard.let("highest purchase EUR", bench.now)

    assert bench.held(value=500.0, arrived=bench.now) == ""
    assert bench.held(value=500.0, arrived=bench.now + 1) == "highest purchase EUR"
    assert bench.held(value=500.0, arrived=bench.now, name="subscribe") == "highest subscribe EUR"


def test_an_earlier_word_to_go_on_takes_nothing_back():
    bench = Bench(highest={"purchase": {"EUR": 100}})
    bench.guard.let("highest purchase EUR", bench.now)
    bench.guard.let("highest purchase EUR", bench.now - 10)

    assert bench.held(value=500.0, arrived=bench.now) == ""


# the rate


def test_more_events_in_an_hour_than_so_many_times_last_weeks_are_held():
    bench = Bench(rate=2)
    bench.week(60)

    bench.send(120)
    assert bench.held() == ""

    bench.send(1)
    assert bench.held() == "rate purchase"
    assert bench.held(name="page_view") == ""


def test_the_reason_of_a_rate_names_both_numbers_and_an_event():
    bench = Bench(rate=2)
    bench.week(60)
    bench.send(121)

    hold = bench.guard.judge(an_event("order-7"), bench.now)

    assert hold
    assert hold.reason == (
        "guard: 121 purchase in this hour, more than 2 times the 60 of the same hour last week; "
        "one of them is event order-7"
    )


def test_events_on_their_way_count_before_any_is_delivered():
    bench = Bench(rate=2)
    bench.week(60)

    keys = bench.enter(121)

    assert bench.held() == "rate purchase"
    bench.settle(keys)
    assert bench.held() == "rate purchase"


def test_what_is_rejected_counts_no_more():
    bench = Bench(rate=2)
    bench.week(60)

    for key in bench.enter(121):
        bench.guard.leave(key)

    assert bench.held() == ""
    assert all(b'"purchase":{"n":0' not in row for rows in bench.rows.values() for row in rows.values())


def test_an_event_counts_once_however_often_its_outcome_is_told():
    bench = Bench(rate=2)
    bench.week(60)
    keys = bench.enter(120)

    for _ in range(3):
        bench.settle(keys)

    assert bench.held() == ""


def test_an_event_that_enters_again_counts_once():
    bench = Bench(rate=2)
    bench.week(60)

    for _ in range(3):
        for number in range(120):
            bench.guard.enter(b"again %d" % number, 0, an_event())

    assert bench.held() == ""


@pytest.mark.parametrize(("times", "held"), [(49, ""), (50, "rate purchase")])
def test_too_few_events_last_week_are_nothing_to_compare_with(times, held):
    bench = Bench(rate=2)
    bench.week(times)
    bench.send(1000)

    assert bench.held() == held


def test_the_next_hour_begins_anew_and_has_another_to_compare_with():
    bench = Bench(rate=2)
    bench.send(3)
    bench.later(1)
    bench.send(60)
    bench.later(1)
    bench.send(600)
    bench.later(WEEK - 1)
    bench.send(121)
    assert bench.held() == "rate purchase"

    bench.later(1)
    assert bench.held() == ""
    bench.send(1200)
    assert bench.held() == ""
    bench.send(1)
    assert bench.held() == "rate purchase"


def test_what_waits_over_the_hour_counts_in_the_hour_in_which_it_goes_out():
    bench = Bench(rate=2)
    bench.send(3)
    bench.later(1)
    bench.send(60)
    bench.later(1)
    bench.send(60)
    bench.later(WEEK - 1)

    waiting = bench.enter(100)
    bench.later(1)
    bench.send(21)
    assert bench.held() == "rate purchase"

    bench.settle(waiting)
    assert bench.held() == "rate purchase"
    bench.now -= HOUR  # a clock may be set back
    assert bench.held() == ""


# the mean


@pytest.mark.parametrize(
    ("value", "held"),
    [
        (50.0, ""),
        (499.0, ""),
        (501.0, "mean purchase EUR"),
        (5.01, ""),
        (4.99, "mean purchase EUR"),
        (0.0, "mean purchase EUR"),
        (-50.0, "mean purchase EUR"),
    ],
)
def test_a_mean_far_above_or_below_last_weeks_is_held(value, held):
    bench = Bench(mean=10)
    bench.week(60, value=50.0)
    bench.send(60, value=value)

    assert bench.held() == held
    assert bench.held(currency="USD") == ""
    assert bench.held(value=None) == ""


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (5000.0, "5000 EUR in the mean of this hour, more than 10 times"),
        (0.5, "0.5 EUR in the mean of this hour, less than 0.1 times"),
    ],
)
def test_the_reason_of_a_mean_names_both_means_and_an_event(value, said):
    bench = Bench(mean=10)
    bench.week(60, value=50.0)
    bench.send(60, value=value)

    hold = bench.guard.judge(an_event("order-7"), bench.now)

    assert hold
    assert hold.reason == (
        f"guard: a purchase is worth {said} the 50 of the same hour last week; one of them is event order-7"
    )


@pytest.mark.parametrize(("then", "so_far", "held"), [(50, 49, ""), (49, 50, ""), (50, 50, "mean purchase EUR")])
def test_a_mean_needs_enough_events_on_both_sides(then, so_far, held):
    bench = Bench(mean=10)
    bench.week(then)
    bench.send(then, value=None)  # without a value they are none to take the mean of
    bench.send(so_far, value=5000.0)

    assert bench.held() == held


def test_a_mean_of_nothing_is_nothing_to_compare_with():
    bench = Bench(mean=10)
    bench.week(60, value=0.0)
    bench.send(60, value=5000.0)

    assert bench.held() == ""


def test_refunds_below_nothing_are_compared_like_others():
    bench = Bench(mean=10)
    bench.week(60, name="refund", value=-50.0)
    bench.send(60, name="refund", value=-60.0)
    assert bench.held(name="refund") == ""

    bench.send(600, name="refund", value=-6000.0)
    assert bench.held(name="refund") == "mean refund EUR"


def test_a_mean_alone_says_nothing_of_the_rate():
    bench = Bench(mean=10)
    bench.week(60)
    bench.send(6000)

    assert bench.held() == ""


# to go on


def test_the_guard_that_held_is_silent_for_the_rest_of_the_hour_in_which_somebody_looked():
    bench = Bench(rate=2, mean=10)
    bench.send(3)
    bench.later(1)
    for _ in range(2):
        bench.send(60)
        bench.later(1)
    bench.later(WEEK - 2)
    bench.send(121)
    assert bench.held() == "rate purchase"
    bench.guard.let("rate purchase", bench.now + HOUR // 2)

    bench.later(0.99)
    assert bench.held() == ""
    bench.later(0.01)
    bench.send(121)
    assert bench.held() == "rate purchase"


def test_another_guard_is_not_silent():
    bench = Bench(rate=2, mean=10)
    bench.week(60)
    bench.guard.let("rate purchase", bench.now)
    bench.guard.let("mean purchase USD", bench.now)

    bench.send(121, value=5000.0)

    assert bench.held() == "mean purchase EUR"


# the memory


def test_a_restart_forgets_nothing_but_what_was_on_its_way():
    bench = Bench(rate=2)
    bench.week(60)
    bench.send(120)
    bench.restart()
    assert bench.held() == ""

    bench.send(1)
    bench.restart()
    assert bench.held() == "rate purchase"

    other = Bench(rate=2)
    other.week(60)
    other.enter(121)
    other.restart()
    assert other.held() == ""


def test_the_first_hour_of_a_memory_is_not_compared_with_because_it_may_have_begun_in_its_middle():
    bench = Bench(rate=2)
    bench.send(60)
    bench.later(WEEK)
    bench.send(1000)

    assert bench.held() == ""


def test_a_partition_without_a_memory_of_that_hour_counts_on_neither_side():
    bench = Bench((0, 1), rate=2)
    bench.send(1, p=0)
    bench.later(1)
    bench.send(60, p=0)
    bench.later(1)
    bench.send(60, p=1)
    bench.later(WEEK - 1)

    bench.send(1000, p=1)
    bench.send(120, p=0)
    assert bench.held() == ""

    bench.send(1, p=0)
    assert bench.held() == "rate purchase"


def test_a_partition_that_is_gone_counts_on_neither_side():
    bench = Bench((0, 1), rate=2)
    bench.week(120)
    bench.send(240)
    del bench.rows[1]
    bench.restart()
    assert bench.held() == ""

    bench.send(1)
    assert bench.held() == "rate purchase"


def test_a_quiet_hour_of_a_partition_that_remembers_counts_as_none():
    bench = Bench((0, 1), rate=2)
    bench.send(2)
    bench.later(1)
    bench.send(60, p=0)
    bench.later(WEEK)

    bench.send(121, p=1)

    assert bench.held() == "rate purchase"


def test_an_hour_is_one_row_of_its_partition_and_forgotten_after_eight_days():
    bench = Bench((0, 1), rate=2)
    for _ in range(3 * WEEK):
        bench.send(4)
        bench.later(1)

    assert [len(rows) for rows in bench.rows.values()] == [KEPT + 1] * 2
    last = bench.now // HOUR - 1
    assert bench.rows[0].keys() == {b"%d" % hour for hour in range(last - KEPT, last + 1)}
    row = orjson.loads(bench.rows[0][b"%d" % last])
    assert row == {"v": 1, "t": last * HOUR, "names": {"purchase": {"n": 2, "m": {"EUR": [2, 100.0]}}}}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (b"nonsense", b'{"names": {}}'),
        *((b"498896", value) for value in (b"", b"[]", b"{}", b'{"names": {"a": 1}}', b'{"names": []}')),
    ],
)
def test_rows_of_strangers_are_no_memory(key, value):
    bench = Bench(rate=2)
    bench.week(60)
    bench.rows[0][key] = value
    bench.restart()
    bench.send(121)

    assert bench.held() == "rate purchase"


def test_made_up_names_and_currencies_do_not_make_rows_without_end():
    bench = Bench((0,), rate=2)
    for number in range(NAMES + 100):
        bench.send(1, name=f"made-up-{number}")
    for number in range(CURRENCIES + 100):
        bench.send(1, name="made-up-1", currency=f"X{number:02}")

    (row,) = (orjson.loads(value)["names"] for value in bench.rows[0].values())
    assert len(row) == NAMES
    assert len(row["made-up-1"]["m"]) == CURRENCIES


@pytest.mark.parametrize("settings", [{}, {"highest": {"purchase": {"EUR": 100}}}])
def test_without_a_rate_or_mean_there_is_nothing_to_remember(settings):
    guard = Guard(destination.Guard(**settings))

    assert not guard.compares
    assert guard.off == (not settings)
    assert guard.sent([b"1"], START * HOUR) == []


# all of it against a plain count of everything that ever happened

steps = st.lists(
    st.tuples(
        st.sampled_from(["send", "send", "send", "enter", "reject", "deliver", "later", "week", "restart"]),
        st.sampled_from(PARTITIONS),
        st.sampled_from(["purchase", "refund"]),
        st.sampled_from([None, 1.0, 50.0, 100.0]),
        st.integers(1, 5),
    ),
    max_size=60,
)


@given(steps)
def test_it_holds_as_a_plain_count_of_the_past_says(steps):
    bench = Bench(rate=2, mean=4, least=2)
    past: list[tuple[int, int, str, float | None]] = []  # hour, partition, name, value
    way: list[tuple[list[bytes], int, str, float | None]] = []

    for what, p, name, value, times in steps:
        hour = bench.now // HOUR
        if what == "send":
            bench.send(times, p, name=name, value=value)
            past += [(hour, p, name, value)] * times
        elif what == "enter":
            way.append((bench.enter(times, p, name=name, value=value), p, name, value))
        elif what in ("reject", "deliver") and way:
            keys, *of = way.pop(0)
            if what == "deliver":
                bench.settle(keys)
                past += [(hour, *of)] * len(keys)  # type: ignore[list-item]
            for key in keys:
                bench.guard.leave(key)
        elif what == "later":
            bench.later(times)
        elif what == "week":
            bench.later(WEEK - times)
        elif what == "restart":
            bench.restart()
            way = []
        for one in ("purchase", "refund"):
            assert bench.held(name=one) == expected(one, bench.now // HOUR, past, way), (what, one)


def expected(name: str, hour: int, past: list[Any], way: list[Any]) -> str:
    then = hour - WEEK
    whole = {p for at, p, _, _ in past if hour - KEPT <= at < then}
    before = [value for at, p, one, value in past if at == then and p in whole and one == name]
    so_far = [value for at, p, one, value in past if at == hour and p in whole and one == name]
    so_far += [value for keys, p, one, value in way if p in whole and one == name for _ in keys]
    if len(before) < 2:
        return ""
    if len(so_far) > 2 * len(before):
        return f"rate {name}"
    worth, worth_then = ([value for value in some if value is not None] for some in (so_far, before))
    if min(len(worth), len(worth_then)) >= 2:
        times = (sum(worth) / len(worth)) / (sum(worth_then) / len(worth_then))
        if times > 4 or times < 1 / 4:
            return f"mean {name} EUR"
    return ""


@given(st.lists(st.integers(0, 7), max_size=50), st.integers(1, 4))
def test_each_of_so_many_workers_holds_for_the_same_growth(traffic, workers):
    sides = Counter(p % workers for p in traffic)
    for worker in range(workers):
        mine = tuple(range(worker, 8, workers))
        bench = Bench(mine, rate=2, least=1)
        for p in mine:
            bench.send(1, p, name="page_view")
        bench.later(1)
        for p in traffic:
            if p in mine:
                bench.send(1, p)
        bench.later(WEEK)
        for p in traffic:
            if p in mine:
                bench.send(2, p)
        assert bench.held() == ""
        bench.send(1, mine[0])
        assert bench.held() == ("rate purchase" if sides[worker] else "")
