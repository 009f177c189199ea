"""app/delivery.py: what is sent next, when, and what an answer means for the queue."""

import math
import random
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.delivery import BREAK_AFTER, PARK_AFTER, PROBE, VALVE, Clock, Dates, Job, Parked, Policy, Queue, Queued
from app.prepare import Final
from sinks._base import Accepted, Delivered, Halt, Limits, Payload, Rejected, Retry
from tests.factories import make_event

LIMITS = Limits(events=10, bytes=10_000, max_age=7 * 86_400, dedup_window=2 * 86_400)
START = 1_795_420_900.0
OK, BAD, AGAIN = Delivered(), Rejected("bad"), Retry("HTTP 500")


class Moved(Clock):
    def __init__(self):
        self.passed = 0.0

    def steady(self) -> float:
        return 1000.0 + self.passed

    def unix(self) -> float:
        return START + self.passed


class Bench:
    """A queue, a clock, and what became of each job."""

    def __init__(self, **policy):
        self.clock = Moved()
        limits = policy.pop("limits", LIMITS)
        self.queue = Queue(Policy(limits, **policy), self.clock, random.Random(1))
        self.results: dict[str, list[Any]] = {}

    def add(self, *names, age=0.0, group=(), size=100, **more):
        for name in names:
            event = make_event(event_id=name, time=int((self.clock.unix() - age) * 1000))
            payload = Payload(name, {}, group, more.get("dedup_window"))
            self.queue.add(Job(name.encode(), 0, event, "Purchase", "", payload, size))

    def take(self):
        jobs, ended = self.queue.take()
        self.note(ended)
        return jobs

    def names(self):
        return [job.payload.event_id for job in self.take()]

    def answer(self, jobs, *outcomes, **more):
        outcomes = outcomes * len(jobs) if len(outcomes) == 1 else outcomes
        settled = self.queue.settle(jobs, outcomes, **more)
        self.queue.release()
        self.note(settled)
        return settled

    def note(self, settled):
        for job, result in settled:
            self.results.setdefault(job.payload.event_id, []).append(result)

    def later(self, seconds):
        self.clock.passed += seconds

    def until_ready(self, most=1e6):
        """Let the time pass that the queue says it waits; how much."""
        wait = self.wait()
        assert wait <= most
        self.later(wait + 1e-6)
        return wait

    def wait(self) -> float:
        """As long as the queue says, and that it says so."""
        wait = self.queue.wait()
        assert wait is not None
        return wait

    def next(self):
        """The next request, after as much time as it takes."""
        for _ in range(1000):
            if jobs := self.take():
                return jobs
            self.until_ready()
        raise AssertionError("nothing comes")

    def fail(self, times, outcome=AGAIN):
        for _ in range(times):
            self.answer(self.next(), outcome)


# batches


def test_events_of_one_group_share_a_request_up_to_the_platforms_number():
    bench = Bench()
    bench.add(*"abcdefghijklm")

    assert bench.names() == list("abcdefghij")
    assert bench.names() == list("klm")
    assert bench.names() == []


def test_a_request_stays_below_the_platforms_bytes():
    bench = Bench()
    bench.add("a", "b", "c", size=4000)

    assert bench.names() == ["a", "b"]
    assert bench.names() == ["c"]


def test_an_event_larger_than_that_goes_alone():
    bench = Bench()
    bench.add("a", size=20_000)
    bench.add("b")

    assert bench.names() == ["a"]
    assert bench.names() == ["b"]


def test_groups_do_not_mix_and_take_turns():
    bench = Bench(limits=replace(LIMITS, events=2))
    bench.add("a1", "a2", "a3", group=("a",))
    bench.add("b1", group=("b",))

    assert [bench.names() for _ in range(3)] == [["a1", "a2"], ["b1"], ["a3"]]


def test_an_event_lingers_for_company_and_no_longer():
    bench = Bench(linger=2.0)
    bench.add("a")

    assert bench.names() == []
    assert bench.queue.wait() == pytest.approx(2.0)
    bench.later(1.0)
    bench.add("b")
    assert bench.names() == []
    bench.until_ready(1.0)
    assert bench.names() == ["a", "b"]


def test_a_full_request_does_not_linger():
    bench = Bench(linger=60.0)
    bench.add(*"abcdefghij")

    assert len(bench.take()) == 10


def test_no_more_requests_are_in_flight_than_allowed():
    bench = Bench(concurrency=2, limits=replace(LIMITS, events=1))
    bench.add("a", "b", "c")
    first, second = bench.take(), bench.take()

    assert bench.take() == []
    assert bench.queue.wait() is None
    bench.answer(first, OK)
    assert bench.take()
    assert second


def test_a_request_keeps_its_place_until_what_came_of_it_is_recorded():
    bench = Bench(concurrency=1, limits=replace(LIMITS, events=1))
    bench.add("a", "b")
    bench.queue.settle(bench.take(), [OK])

    assert bench.take() == []
    bench.queue.release()
    assert bench.names() == ["b"]


# what becomes of them


def test_final_outcomes_leave_the_queue():
    bench = Bench()
    bench.add("a", "b", "c")

    bench.answer(bench.take(), Delivered("receipt"), Rejected("bad", detail="x"), Accepted("r-1"))

    assert bench.results == {
        "a": [Final("delivered", detail="receipt")],
        "b": [Final("rejected", "bad", "x")],
        "c": [Queued(Final("accepted"), "r-1")],
    }
    assert len(bench.queue) == 0


KINDS = (
    OK,
    Accepted("r-1"),
    BAD,
    Rejected("bad", whole=True),
    AGAIN,
    Retry("slow", 2.0, throttled=True),
    Halt("token"),
)


@given(st.lists(st.sampled_from(KINDS), min_size=1, max_size=10))
def test_one_outcome_for_several_events_is_as_one_for_each(outcomes):
    """Sinks most often give all events of a request the very same object."""
    found = []
    for said in (outcomes, [replace(one) for one in outcomes]):
        bench = Bench()
        bench.add(*"abcdefghij"[: len(said)])
        jobs = bench.take()
        bench.answer(jobs, *said)
        found.append((bench.results, bench.queue.standing(), [(job.attempts, job.failures) for job in jobs]))

    assert found[0] == found[1]


def test_a_refused_event_comes_again_later_and_later():
    bench = Bench()
    bench.add("a")
    waits = []
    for _ in range(4):
        bench.answer(bench.next(), AGAIN)
        waits.append(bench.wait())

    assert all(0 <= wait <= 0.5 * 2 ** (n + 1) for n, wait in enumerate(waits))
    assert bench.results == {}


def test_it_waits_at_least_as_long_as_the_platform_says():
    bench = Bench()
    bench.add("a")

    bench.answer(bench.take(), Retry("later", after=30.0))

    assert bench.wait() >= 30.0


def test_a_request_failed_as_a_whole_is_halved_until_the_bad_event_stands_alone():
    bench = Bench()
    bench.add(*"abcdefghij")
    for _ in range(40):
        if jobs := bench.take():
            bad = any(job.payload.event_id == "g" for job in jobs)
            bench.answer(jobs, Rejected("bad", whole=True) if bad else OK)

    assert bench.results.pop("g") == [Final("rejected", "bad")]
    assert bench.results == {name: [Final("delivered")] for name in "abcdefhij"}


def test_the_good_events_beside_a_bad_one_go_again_at_once_and_have_not_failed():
    bench = Bench()
    bench.add("a", "b", "c")

    bench.answer(bench.take(), Retry("fell with others", after=0), BAD, Retry("fell with others", after=0))

    jobs = bench.take()
    assert [job.payload.event_id for job in jobs] == ["a", "c"]
    assert [job.failures for job in jobs] == [0, 0]


def test_what_has_failed_goes_in_smaller_requests():
    bench = Bench()
    bench.add(*"abcdefghij")
    sizes = []
    for _ in range(60):
        jobs = bench.next()
        sizes.append(len(jobs))
        bench.answer(jobs, AGAIN if any(job.payload.event_id == "g" for job in jobs) else OK)
        if set(bench.results) >= set("abcdefhij"):
            break

    assert set(bench.results) >= set("abcdefhij"), sizes
    assert bench.results.get("g") != [Final("delivered")]


# age and ambiguity


def test_an_event_that_has_become_too_old_is_given_up_without_another_attempt():
    bench = Bench()
    bench.add("a", age=7 * 86_400 - 10)
    bench.answer(bench.take(), AGAIN)
    bench.later(11)

    assert bench.take() == []
    assert bench.results == {"a": [Final("rejected", "too_old")]}


def test_after_an_unclear_attempt_it_is_sent_only_as_long_as_the_platform_would_know_it():
    bench = Bench()
    bench.add("a")
    bench.answer(bench.take(), Retry("no answer", unclear=True))
    bench.later(2 * 86_400 - 1)
    bench.answer(bench.next(), Retry("no answer", unclear=True))
    bench.later(60)

    bench.take()

    assert [result.reason for result in bench.results["a"]] == ["unknown_outcome"]


def test_after_a_clean_refusal_it_is_sent_until_it_is_too_old():
    bench = Bench()
    bench.add("a")
    bench.answer(bench.take(), AGAIN)
    bench.later(3 * 86_400)

    assert bench.names() == ["a"]


@pytest.mark.parametrize(("on_ambiguous", "given_up"), [("retry", False), ("give_up", True)])
def test_where_the_platform_knows_no_repetition_the_settings_decide(on_ambiguous, given_up):
    bench = Bench(limits=replace(LIMITS, dedup_window=0), on_ambiguous=on_ambiguous)
    bench.add("a")

    bench.later(1)
    bench.answer(bench.take(), Retry("no answer", unclear=True))
    bench.later(120)
    bench.take()

    assert bool(bench.results) is given_up


def test_an_event_can_have_a_window_of_its_own():
    bench = Bench(limits=replace(LIMITS, dedup_window=0), on_ambiguous="give_up")
    bench.add("order", dedup_window=3 * 86_400)

    bench.answer(bench.take(), Retry("no answer", unclear=True))
    bench.later(86_400)

    assert bench.names() == ["order"]


# pace


def test_a_throttled_destination_waits_and_has_fewer_requests_in_flight():
    bench = Bench(concurrency=8, limits=replace(LIMITS, events=1))
    bench.add(*[f"e{n}" for n in range(20)])

    bench.answer(bench.take(), Retry("throttled", after=7.0, throttled=True))

    assert bench.take() == []
    assert bench.queue.standing().state == "slow"
    bench.until_ready()
    assert bench.clock.passed >= 7.0
    assert len([1 for _ in range(20) if bench.take()]) == 4


def test_throttling_is_not_the_events_fault():
    bench = Bench()
    bench.add("a", "b")
    for _ in range(3 * PARK_AFTER):
        bench.answer(bench.next(), Retry("throttled", throttled=True))
    (first, *_), bench.queue.open = bench.next(), False

    assert first.failures == 0
    assert bench.results == {}


def test_good_answers_widen_the_window_again():
    bench = Bench(concurrency=4, limits=replace(LIMITS, events=1))
    bench.add(*[f"e{n}" for n in range(60)])
    bench.answer(bench.take(), Retry("throttled", throttled=True))
    for _ in range(20):
        bench.answer(bench.next(), OK)

    assert bench.queue.standing().state == "ok"


def test_it_slows_down_before_the_limit_is_used_up():
    bench = Bench(concurrency=8)
    bench.add("a")

    bench.answer(bench.take(), OK, usage=0.8)

    assert bench.queue.standing().state == "slow"


def test_no_more_requests_a_second_than_allowed():
    bench = Bench(rate=2.0, concurrency=100, limits=replace(LIMITS, events=1))
    bench.add(*[f"e{n}" for n in range(100)])
    sent = 0
    while bench.clock.passed < 10:
        while bench.take():
            sent += 1
        bench.until_ready()

    assert 20 <= sent <= 23


# breaker and parking


def test_when_nothing_passes_one_event_at_a_time_is_tried_and_another_one_each_time():
    bench = Bench(concurrency=4, limits=replace(LIMITS, events=2))
    bench.add(*[f"e{n}" for n in range(40)])
    bench.fail(BREAK_AFTER)

    tried = []
    for _ in range(8):
        jobs = bench.next()
        assert bench.take() == []
        tried += [job.payload.event_id for job in jobs]
        bench.answer(jobs, AGAIN)

    assert len(tried) == 8 == len(set(tried))
    assert bench.queue.standing().state == "retrying"


def test_one_success_opens_the_way_for_all():
    bench = Bench(concurrency=4, limits=replace(LIMITS, events=2))
    bench.add(*[f"e{n}" for n in range(40)])
    bench.fail(BREAK_AFTER + 3)

    bench.answer(bench.next(), OK)

    assert [len(bench.take()) for _ in range(5)] == [2, 2, 2, 2, 0]


def test_probes_become_rarer_up_to_a_minute():
    bench = Bench()
    bench.add(*[f"e{n}" for n in range(40)])
    bench.fail(30)
    begun = bench.clock.passed
    bench.fail(100)

    assert 100 * 15 < bench.clock.passed - begun <= 100 * 60.1


def test_an_event_that_fails_while_others_pass_is_parked():
    bench = Bench(limits=replace(LIMITS, events=1))
    bench.add("poison")
    for n in range(200):
        bench.add(f"good{n}")
        jobs = bench.next()
        bench.answer(jobs, AGAIN if jobs[0].payload.event_id == "poison" else OK)
        if "poison" in bench.results:
            break
        bench.later(5)

    (parked,) = bench.results["poison"]
    assert isinstance(parked, Parked)
    assert parked.until > bench.clock.unix()
    assert bench.queue.standing().state == "ok"


def test_nothing_is_parked_because_the_platform_is_away():
    bench = Bench()
    bench.add(*[f"e{n}" for n in range(5)])

    bench.fail(20 * PARK_AFTER)

    assert bench.results == {}


def test_a_parked_event_that_fails_again_is_parked_again():
    bench = Bench()
    bench.add("a")
    (job,) = bench.take()
    job.parked, job.failures = True, 7

    bench.answer([job], AGAIN)

    assert isinstance(bench.results["a"][0], Parked)


def test_an_event_that_the_platform_wants_hours_later_does_not_hold_up_its_partition():
    bench = Bench()
    bench.add("a")

    bench.answer(bench.take(), Retry("too recent", after=6 * 3600.0))

    (parked,) = bench.results["a"]
    assert parked.until >= bench.clock.unix() + 6 * 3600


# halt, valve, pause


def test_a_halt_keeps_everything_and_tries_one_event_now_and_then():
    bench = Bench(limits=replace(LIMITS, events=2))
    bench.add(*"abcd")
    bench.answer(bench.take(), Halt("the token has expired"))

    assert bench.take() == []
    assert bench.queue.standing().state == "halted"
    assert bench.until_ready() == pytest.approx(PROBE)
    assert len(bench.take()) == 1
    assert len(bench.queue) == 3


def test_a_halt_ends_when_an_event_passes():
    bench = Bench()
    bench.add(*"abcd")
    bench.answer(bench.take(), Halt("the token has expired"))
    bench.answer(bench.next(), OK)

    assert bench.queue.halted == ""
    assert len(bench.take()) == 3


def test_the_only_event_that_halts_it_is_parked_and_stops_the_others_no_more():
    bench = Bench(limits=replace(LIMITS, events=1))
    bench.add("poison")
    for n in range(200):
        bench.add(f"good{n}")
        jobs = bench.next()
        bench.answer(jobs, Halt("the account may not do this") if jobs[0].payload.event_id == "poison" else OK)
        if "poison" in bench.results:
            break

    (parked,) = bench.results["poison"]
    assert isinstance(parked, Parked)
    assert parked.reason == "the account may not do this"
    bench.answer(bench.next(), OK)
    assert bench.queue.standing().state == "ok"


def test_a_long_halt_parks_nothing():
    bench = Bench()
    bench.add(*"abc")
    bench.answer(bench.take(), OK)
    bench.add(*[f"e{n}" for n in range(3)])
    for _ in range(20 * PARK_AFTER):
        bench.answer(bench.next(), Halt("the token has expired"))

    assert len(bench.queue) == 3
    assert not any(isinstance(one, Parked) for results in bench.results.values() for one in results)


def test_when_one_event_after_the_other_is_rejected_the_rest_is_kept():
    bench = Bench(limits=replace(LIMITS, events=1))
    bench.add(*[f"e{n}" for n in range(100)])
    for _ in range(VALVE + 30):
        bench.answer(bench.next(), BAD)

    assert len(bench.results) == VALVE - 1
    assert len(bench.queue) == 100 - (VALVE - 1)
    assert bench.queue.standing().state == "halted"


@pytest.mark.parametrize(
    ("taken", "rejected", "state"), [(1, 2, "halted"), (2, 3, "halted"), (1, 1, "ok"), (3, 1, "ok")]
)
def test_when_most_events_are_rejected_the_rest_is_kept(taken, rejected, state):
    bench = Bench(limits=replace(LIMITS, events=1))
    bench.add(*[f"e{n}" for n in range(400)])
    for _ in range(4 * VALVE):
        for outcome in [OK] * taken + [BAD] * rejected:
            if not bench.queue.halted:
                bench.answer(bench.next(), outcome)

    assert bench.queue.standing().state == state


def test_a_delivery_ends_that():
    bench = Bench(limits=replace(LIMITS, events=1))
    bench.add(*[f"e{n}" for n in range(100)])
    for _ in range(VALVE):
        bench.answer(bench.next(), BAD)
    bench.answer(bench.next(), OK)

    assert bench.queue.standing().state == "ok"


def test_whoever_accepts_the_rejections_lets_them_become_letters():
    bench = Bench(limits=replace(LIMITS, events=1))
    bench.add(*[f"e{n}" for n in range(50)])
    for _ in range(VALVE):
        bench.answer(bench.next(), BAD)

    bench.queue.resume(accept=True)
    for _ in range(31):
        bench.answer(bench.next(), BAD)

    assert len(bench.results) == 50


def test_accepted_rejections_count_again_when_most_events_are_taken_again():
    bench = Bench(limits=replace(LIMITS, events=1))
    bench.add(*[f"e{n}" for n in range(400)])
    bench.queue.resume(accept=True)

    bench.fail(VALVE, BAD)
    bench.fail(1, OK)
    bench.fail(VALVE, BAD)
    assert bench.queue.standing().state == "ok"
    bench.fail(2 * VALVE, OK)
    bench.fail(2 * VALVE, BAD)
    assert bench.queue.standing().state == "halted"


def test_a_paused_destination_sends_nothing_until_it_goes_on():
    bench = Bench()
    bench.add("a")
    bench.queue.pause("somebody wanted it")

    assert bench.take() == []
    assert bench.queue.wait() is None
    bench.queue.resume()
    assert bench.names() == ["a"]


def test_another_worker_has_the_partitions_then_nothing_is_left():
    bench = Bench()
    bench.add(*"ab")
    bench.answer(bench.take(), AGAIN)
    bench.add("c")

    bench.queue.forget()

    assert len(bench.queue) == 0
    assert bench.take() == []


# hours


def test_a_platform_that_is_away_for_hours_gets_everything_afterwards_and_once():
    """Ten hours without an answer, an event a minute: few attempts, nothing given up, and all is through soon after."""
    bench = Bench(concurrency=4)
    attempts = 0
    accepted: Counter[str] = Counter()
    minute = 0
    while minute < 600 or len(bench.queue):
        while minute <= bench.clock.passed / 60 and minute < 600:
            bench.add(f"e{minute}")
            minute += 1
        if jobs := bench.take():
            attempts += 1
            away = bench.clock.passed < 10 * 3600 - 60
            if not away:
                accepted.update(job.payload.event_id for job in jobs)
            bench.answer(jobs, Retry("no answer: TimeoutError", unclear=True) if away else OK)
            continue
        wait = bench.queue.wait()
        next_event = (minute * 60 - bench.clock.passed) if minute < 600 else float("inf")
        bench.later(min(next_event, 3600.0 if wait is None else wait) + 1e-6)
        assert bench.clock.passed < 11 * 3600

    assert set(accepted.values()) == {1}
    assert len(accepted) == 600 == len(bench.results)
    assert bench.clock.passed < 10 * 3600 + 120
    assert 600 < attempts < 4000


@given(
    answers=st.lists(
        st.sampled_from(
            [
                OK,
                BAD,
                AGAIN,
                Retry("x", throttled=True),
                Retry("x", after=0),
                Retry("x", after=99.0),
                Retry("x", unclear=True),
                Rejected("w", whole=True),
                Halt("h"),
                Accepted("r"),
            ]
        ),
        max_size=60,
    ),
    mixed=st.booleans(),
    groups=st.integers(1, 3),
)
def test_whatever_comes_back_no_job_is_lost_or_doubled(answers, mixed, groups):
    bench = Bench(limits=replace(LIMITS, events=4))
    names = [f"e{n}" for n in range(15)]
    for n, name in enumerate(names):
        bench.add(name, group=(str(n % groups),))
    dice = random.Random(len(answers))
    for answer in answers:
        if not len(bench.queue):
            break
        jobs = bench.next()
        outcomes = [dice.choice(answers) if mixed else answer for _ in jobs]
        if any(isinstance(one, Rejected) and one.whole for one in outcomes):
            outcomes = [next(one for one in outcomes if isinstance(one, Rejected) and one.whole)] * len(jobs)
        bench.answer(jobs, *outcomes) if len(jobs) > 1 else bench.answer(jobs, outcomes[0])
        assert bench.queue.in_flight == 0

    left = [job.payload.event_id for job in bench.queue]
    assert sorted(left + list(bench.results)) == sorted(names)
    assert all(len(results) == 1 for results in bench.results.values())


# what a platform says that no platform should


def test_a_wait_of_years_ends_when_the_event_is_too_old():
    bench = Bench()
    bench.add("a")

    bench.answer(bench.take(), Retry("HTTP 503", after=1e10))

    (parked,) = bench.results["a"]
    assert parked.until == pytest.approx(bench.clock.unix() + LIMITS.max_age, abs=10)


def test_a_throttle_of_years_is_looked_at_again_within_the_hour():
    bench = Bench()
    bench.add("a")

    bench.answer(bench.take(), Retry("HTTP 429", after=1e10, throttled=True))

    assert bench.until_ready() <= 3600
    assert bench.names() == ["a"]


def test_while_nothing_passes_the_next_probe_waits_as_long_as_the_platform_says():
    bench = Bench()
    bench.add(*"abcdef")
    bench.fail(BREAK_AFTER)

    bench.answer(bench.next(), Retry("HTTP 503", after=500.0))

    assert bench.until_ready() == pytest.approx(500.0, abs=60)


def test_a_bad_event_among_a_thousand_stands_alone_after_few_requests():
    bench = Bench(limits=replace(LIMITS, events=1000, bytes=10**7))
    bench.add(*(f"e{n}" for n in range(1000)))

    requests = 0
    while "e700" not in bench.results:
        jobs = bench.next()
        requests += 1
        bench.answer(jobs, Rejected("bad", whole=True) if any(job.payload.event_id == "e700" for job in jobs) else OK)

    assert requests < 20


def test_a_full_group_goes_before_those_that_linger():
    bench = Bench(linger=60.0)
    for n in range(100):
        bench.add(f"lingers-{n}", group=(f"g{n}",))
    bench.add(*(f"full-{n}" for n in range(10)), group=("full",))

    assert bench.names() == [f"full-{n}" for n in range(10)]


@pytest.mark.parametrize("outcome", [Retry("HTTP 502", unclear=True), Halt("not understood", unclear=True)])
def test_an_answer_that_leaves_open_what_was_taken_counts_as_none(outcome):
    bench = Bench(on_ambiguous="give_up", limits=replace(LIMITS, dedup_window=0))
    bench.add("a")
    bench.answer(bench.take(), outcome)
    for _ in range(3):
        if bench.queue.wait() is None:
            break
        bench.until_ready()
        bench.take()

    assert bench.results == {
        "a": [Final("rejected", "unknown_outcome", "the platform may have it, and would not recognise it any more")]
    }


def test_questions_go_at_the_rate_of_requests_and_not_while_it_stands_still():
    bench = Bench(rate=2.0)

    assert [bench.queue.may_ask() for _ in range(4)] == [True, True, False, False]
    bench.later(10)
    bench.queue.pause("a pause")
    assert not bench.queue.may_ask()


# how it does


def test_it_tells_how_much_of_its_time_an_event_has_waited_away():
    bench = Bench(limits=replace(LIMITS, max_age_by_source={"server": 1000}))
    bench.add("a", age=250.0)

    standing = bench.queue.standing()

    assert standing.waiting == 1
    assert standing.age == pytest.approx(250, abs=0.1)
    assert standing.spent == pytest.approx(0.25, abs=0.001)
    assert Bench().queue.standing().age == 0


# people who are forgotten


def forget(bench, *names) -> list[str]:
    return [job.payload.event_id for job in bench.queue.remove(lambda job: job.payload.event_id in names)]


def test_what_is_removed_is_not_sent_and_the_rest_goes_on_in_its_order():
    bench = Bench()
    bench.add(*"abcde")
    bench.add(*"xyz", group=("other",))

    assert forget(bench, "b", "d", "x") == ["b", "d", "x"]

    assert (bench.names(), bench.names(), bench.names()) == (["a", "c", "e"], ["y", "z"], [])


def test_a_group_of_which_nothing_is_left_makes_no_request():
    bench = Bench()
    bench.add("a")

    forget(bench, "a")

    assert bench.queue.wait() is None
    assert bench.names() == []


def test_what_is_removed_while_it_waits_for_its_next_attempt_is_not_tried_again():
    bench = Bench()
    bench.add("a", "b")
    bench.answer(bench.take(), AGAIN)

    assert forget(bench, "a") == ["a"]

    tried: list[str] = []
    while len(bench.queue):
        jobs = bench.next()
        tried += [job.payload.event_id for job in jobs]
        bench.answer(jobs, OK)
    assert tried == ["b"]


def test_what_is_removed_from_a_split_request_is_in_none_of_its_parts():
    bench = Bench()
    bench.add(*"abcd")
    bench.answer(bench.take(), Rejected("bad", whole=True))

    assert sorted(forget(bench, "a", "b", "c")) == ["a", "b", "c"]

    assert bench.names() == ["d"]
    assert bench.names() == []


@pytest.mark.parametrize("stop", ["paused", "halted"])
def test_a_destination_that_stands_still_lets_go_of_what_is_removed(stop):
    bench = Bench()
    setattr(bench.queue, stop, "why")
    bench.add("a", "b")

    assert forget(bench, "a") == ["a"]
    assert [job.payload.event_id for job in bench.queue] == ["b"]


@given(st.lists(st.sampled_from(("add", "take", "fail", "whole", "remove", "later")), max_size=40), st.randoms())
def test_nothing_is_sent_after_it_was_removed_and_nothing_else_is_missing(steps, dice):
    bench, number, gone = Bench(), 0, set[str]()
    sent = Counter[str]()
    for step in [*steps, *["later", "take"] * 60]:
        if step == "add":
            bench.add(f"e{number}", group=(str(dice.randint(0, 2)),))
            number += 1
        elif step == "remove":
            gone |= set(forget(bench, *(f"e{n}" for n in range(number) if dice.random() < 0.3)))
        elif step == "later":
            bench.later(60.0)
        elif jobs := bench.take():
            outcome = {"fail": AGAIN, "whole": Rejected("bad", whole=True)}.get(step, OK)
            for job in jobs:
                assert job.payload.event_id not in gone
            for job, _ in bench.answer(jobs, outcome):
                sent[job.payload.event_id] += 1
    assert gone.isdisjoint(sent)
    assert set(sent) | gone | {job.payload.event_id for job in bench.queue} == {f"e{n}" for n in range(number)}
    assert max(sent.values(), default=1) == 1


# for the page of an event


def test_the_next_attempt_of_an_event_is_known_unless_it_is_under_way():
    bench = Bench()
    bench.add("a")
    (job,) = list(bench.queue)
    assert bench.queue.due(job) == START

    jobs = bench.take()
    assert bench.queue.due(job) is None
    bench.answer(jobs, Retry("away", after=30.0))
    assert bench.queue.due(job) == START + 30

    bench.later(10)
    assert bench.queue.due(job) == START + 30


def test_the_next_attempt_at_a_halted_destination_is_its_next_probe():
    bench = Bench()
    bench.add("a", "b")
    bench.answer(bench.take(), Halt("no access"))

    assert [bench.queue.due(job) for job in bench.queue] == [START + 15] * 2


# what is taken up again


def test_of_what_is_due_the_earliest_is_taken_up_first_and_so_many_at_once():
    dates = Dates()
    for at in (3, 1, 5, 2, 4):
        dates.add(at, b"%d" % at)

    assert dates.wait(0.5) == 0.5
    assert dates.due(4, most=3) == [b"1", b"2", b"3"]
    assert dates.wait(4) == 0
    assert dates.due(4, most=3) == [b"4"]
    assert dates.wait(4) == 1
    assert dates.due(5, most=0) == []
    assert dates.due(5, most=1) == [b"5"]
    assert dates.wait(5) == math.inf
