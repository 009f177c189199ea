"""The fault harness, short: what `make faults` does for hours."""

import logging
import sys

import pytest

from tests.faults.harness import one_run

pytestmark = [pytest.mark.fault, pytest.mark.timeout(400)]

STOCK = [sys.executable, "-m", "tests.faults.stock"]


@pytest.fixture(autouse=True)
def quiet():
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)


@pytest.mark.parametrize("seed", [101, 102])
def test_nothing_is_lost_split_changed_or_doubled_without_a_reason(seed):
    said: list[str] = []
    verdict, this = one_run(seed, 40, said.append)

    assert verdict.good, (verdict.bad, said, this.folder)
    assert verdict.conversions > 900


def test_the_tutorials_program_loses_events_in_the_same_harness():
    """The control: a harness that sees no loss here proves nothing about us."""
    said: list[str] = []
    verdict, _ = one_run(
        103,
        40,
        said.append,
        deck=("kill", "term"),
        program=STOCK,
        ways=("collector",),
        destinations=("meta",),
        patience=45,
    )

    assert not verdict.invalid, (verdict.invalid, said)
    assert verdict.lost, said
