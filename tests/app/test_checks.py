"""app/checks.py: which requests are put to the platform's validation, and how its complaints are told."""

import random

import pytest
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from app.checks import AT_ONCE, EVERY, MOST, OTHER, Checks
from tests.app.test_delivery import Moved


def counted(metric: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"capistream_{metric}_total", labels) or 0.0


@pytest.mark.parametrize(("share", "least", "most"), [(0.0, 0, 0), (0.1, 50, 150), (1.0, 1000, 1000)])
def test_that_part_of_the_requests_is_checked(share, least, most):
    checks = Checks("ga4", share, Moved(), random.Random(1))
    chosen = 0
    for _ in range(1000):
        if checks.begin():
            chosen += 1
            checks.end()

    assert least <= chosen <= most


def test_a_validation_that_hangs_gets_no_more():
    checks = Checks("ga4", 1.0, Moved())

    assert [checks.begin() for _ in range(AT_ONCE + 1)] == [True] * AT_ONCE + [False]
    checks.end()
    assert checks.begin()


def test_a_complaint_is_counted_each_time_and_logged_once_a_minute():
    clock = Moved()
    checks = Checks("seldom", 1.0, clock)
    with capture_logs() as logs:
        for passed in (0.0, 1.0, EVERY - 1, EVERY):
            clock.passed = passed
            checks.found(["VALUE_INVALID", "NAME_INVALID"] if passed == 1.0 else ["VALUE_INVALID"])

    assert [(one["event"], one["complaint"], one["times"]) for one in logs] == [
        ("delivery.complaint", "VALUE_INVALID", 1),
        ("delivery.complaint", "NAME_INVALID", 1),
        ("delivery.complaint", "VALUE_INVALID", 3),
    ]
    assert counted("complaints", destination="seldom", complaint="VALUE_INVALID") == 4


def test_no_more_than_so_many_are_told_apart():
    checks = Checks("many", 1.0, Moved())
    with capture_logs() as logs:
        checks.found(f"complaint {number}" for number in range(MOST + 10))
        checks.found(["complaint 3"])

    assert counted("complaints", destination="many", complaint=OTHER) == 10
    assert counted("complaints", destination="many", complaint="complaint 3") == 2
    assert len(logs) == MOST + 1
