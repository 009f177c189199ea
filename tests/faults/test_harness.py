"""The fault harness, short: what `make faults` does for hours."""

import logging
import sys

import pytest

from tests.faults import release
from tests.faults.faults import SCALE, TAKEOVER, UPGRADE
from tests.faults.harness import one_run

pytestmark = [pytest.mark.fault, pytest.mark.timeout(400)]

STOCK = [sys.executable, "-m", "tests.faults.stock"]


@pytest.fixture(autouse=True)
def quiet():
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)


@pytest.mark.parametrize("seed", [101, pytest.param(102, marks=pytest.mark.long)])
def test_nothing_is_lost_split_changed_or_doubled_without_a_reason(seed):
    said: list[str] = []
    verdict, this = one_run(seed, 40, said.append)

    assert verdict.good, (verdict.bad, said, this.folder)
    assert verdict.conversions > 900


def test_workers_come_and_go_under_load_and_one_that_is_killed_is_replaced_in_time():
    said: list[str] = []
    verdict, this = one_run(111, 20, said.append, deck=(SCALE,), quiet=5.0)

    assert verdict.good, (verdict.bad, said, this.folder)
    assert dict(this.kinds) == {"join": 3, "leave": 2, "kill for good": 1}
    (took,) = this.takeovers
    assert took < 2 * TAKEOVER  # the goal is half of it, for a machine that has nothing else to do


@pytest.mark.long
@pytest.mark.skipif(bool(release.missing()), reason=release.missing())
def test_workers_of_the_last_release_become_ours_and_go_back_under_load_without_a_double():
    said: list[str] = []
    verdict, this = one_run(112, 30, said.append, deck=(UPGRADE,))

    assert verdict.good, (verdict.bad, said, this.folder)
    assert dict(this.kinds) == {"term for upgrade": 2, "term for back": 2}
    assert verdict.repeated_requests == 0


@pytest.mark.timeout(800)
def test_the_tutorials_program_loses_events_in_the_same_harness():
    """The control: a harness that sees no loss here proves nothing about us.

    A single kill may find it between two events by luck; that several runs of kills do is no luck any more.
    """
    said: list[str] = []
    for seed in range(103, 107):
        verdict, _ = one_run(
            seed,
            40,
            said.append,
            deck=("kill",),
            program=STOCK,
            ways=("collector",),
            destinations=("meta",),
            patience=45,
        )
        assert not verdict.invalid, (verdict.invalid, said)
        if verdict.lost:
            return
    pytest.fail(f"nothing was lost: {said}")
