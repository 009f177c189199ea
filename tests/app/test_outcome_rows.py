"""The rows of the table of outcomes."""

import math

import orjson
import pytest

from app import outcome_rows
from app.delivery import Job
from app.prepare import Final
from sinks._base import Payload
from tests.factories import make_event


def job(event_id: str = "e1", **more) -> Job:
    event = make_event(**{"event_id": event_id, **more.pop("event", {})})
    return Job(event_id.encode() + b"\x1dPurchase", 0, event, "Purchase", "basis", Payload(event_id, {}), 0, **more)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({}, {}),
        ({"event": {"revision": 2}}, {"u": 2}),
        ({"replay": 7, "traces": [3, 4]}, {"p": 7, "x": [3, 4]}),
    ],
)
def test_an_outcome_says_revision_replay_and_traces_only_where_there_are_any(more, said):
    row = outcome_rows.outcome(job(attempts=1, **more), Final("rejected", "bad"), 5)

    assert orjson.loads(row) == {"v": 1, "o": "rejected", "t": 5, "n": 1, "r": "bad", "d": "", **said}


def test_a_row_settles_a_job_of_its_revision_and_earlier_ones():
    row = outcome_rows.outcome(job(event={"revision": 1}), Final("skipped", "r"), 5)

    assert outcome_rows.settles(row, job(event={"revision": 1}))
    assert outcome_rows.settles(row, job())
    assert not outcome_rows.settles(row, job(event={"revision": 2}))
    assert outcome_rows.is_of_a_later_revision(row, job())
    assert not outcome_rows.is_of_a_later_revision(row, job(event={"revision": 1}))


def test_a_replay_goes_past_a_rejection_and_not_past_a_delivery():
    rejected = outcome_rows.outcome(job(), Final("rejected", "bad"), 5)
    delivered = outcome_rows.outcome(job(), Final("delivered"), 5)

    assert not outcome_rows.settles(rejected, job(replay=7))
    assert outcome_rows.settles(outcome_rows.outcome(job(replay=7), Final("rejected", "bad"), 9), job(replay=7))
    assert outcome_rows.settles(delivered, job(replay=7))
    assert not outcome_rows.settles(None, job())


def test_questions_about_many_events_are_rows_that_kafka_takes():
    wide = "🛒" * 190
    jobs = [job(f"{wide}{n}", event={"commerce": {"transaction_id": wide}}) for n in range(500)]

    rows = outcome_rows.asked("reference", jobs, 10.0, 5)

    assert len(rows) > 1
    assert len({key for key, _ in rows}) == len(rows)
    assert all(len(value) < 500_000 for _, value in rows)
    told = [one for _, value in rows for one in outcome_rows.jobs_asked_about(0, orjson.loads(value))]
    assert [one.event["event_id"] for one in told] == [one.event["event_id"] for one in jobs]
    assert [one.key for one in told] == [one.key for one in jobs]
    assert {(one.name, one.basis) for one in told} == {("Purchase", "basis")}


def test_a_strangers_row_is_never_old():
    assert outcome_rows.recorded(b"nonsense") == float("inf")
    assert outcome_rows.recorded(outcome_rows.outcome(job(), Final("delivered"), 5)) == 5


# when rows are looked at again

KEPT = 100_000_000.0


def looks(sweep: outcome_rows.Sweep, *passes: list[list[float]], now: float) -> float:
    """When the next look is due after these passes of looks at rows that were recorded then."""
    for pages in passes:
        for number, recorded in enumerate(pages, 1):
            sweep.looked(recorded, now, KEPT, ended=number == len(pages))
    return sweep.again - now


def test_within_a_pass_rows_are_looked_at_each_second():
    sweep = outcome_rows.Sweep()
    assert sweep.again == 0

    sweep.looked([1.0], 2.0, KEPT, ended=False)
    assert sweep.again == 2.0 + outcome_rows.LOOK


@pytest.mark.parametrize(
    ("oldest_left", "rest"),
    [
        (0.0, 60_000.0),
        (-50_000.0, 10_000.0),
        (-59_500.0, float(outcome_rows.LOOK)),
        (90_000_000.0, float(outcome_rows.LONGEST_REST)),
        (math.inf, float(outcome_rows.LONGEST_REST)),
    ],
)
def test_a_pass_is_followed_by_rest_until_the_oldest_row_can_be_old_enough(oldest_left, rest):
    now = KEPT - 60_000
    pages = [[now, oldest_left], [now - KEPT - 1]]  # of which the last is forgotten

    assert looks(outcome_rows.Sweep(), [[]], pages, now=now) == rest


def test_the_end_of_a_pass_that_may_have_begun_in_the_middle_says_nothing():
    assert looks(outcome_rows.Sweep(), [[7.0, 8.0]], now=9.0) == outcome_rows.LOOK


def test_rows_that_are_written_while_it_rests_are_not_kept_longer_for_it():
    sweep = outcome_rows.Sweep()
    for now in (0.0, 1_000.0):  # of a table that is empty
        sweep.looked([], now, 5_000.0, ended=True)

    assert sweep.again == 5_000.0
