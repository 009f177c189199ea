"""The rows of the table of outcomes."""

import orjson

from app import outcome_rows
from app.delivery import Job
from app.prepare import Final
from sinks._base import Payload
from tests.factories import make_event


def job(event_id: str = "e1", **more) -> Job:
    event = make_event(**{"event_id": event_id, **more.pop("event", {})})
    return Job(event_id.encode() + b"\x1dPurchase", 0, event, "Purchase", "basis", Payload(event_id, {}), 0, **more)


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
