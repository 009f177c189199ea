"""How a destination does lately."""

import pytest

from app.recent import SPAN, Recent
from sinks._base import Accepted, Delivered, Rejected, Retry


def test_events_that_were_taken_count_for_a_minute():
    recent = Recent()
    for second in range(0, 300, 10):
        recent.note([Delivered()] * 20 + [Accepted("r")] * 10 + [Retry("away")], 1000.0 + second)

    assert recent.per_second(1290.0) == pytest.approx(3.0, rel=0.2)
    assert recent.per_second(1290.0 + SPAN + 5) == 0.0
    assert len(recent._taken) <= 13, "what is over is not kept"


def test_the_last_failure_stays_when_it_goes_well_again():
    recent = Recent()
    assert (recent.failed_at, recent.failure) == (0.0, "")
    recent.note([Retry("away"), Delivered(), Rejected("no value")], 7.0)
    recent.note([Delivered()], 8.0)

    assert (recent.failed_at, recent.failure) == (7.0, "no value")
