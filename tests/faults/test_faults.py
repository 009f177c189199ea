"""The plan follows from the seed, what is done to state folders is really done, and the table tells the truth."""

import argparse
import fcntl
import itertools
import random
from collections import Counter

import pytest

from tests.faults.__main__ import BAD, COLUMNS, report, same
from tests.faults.faults import DECK, SCALE, plan
from tests.faults.state import States


def test_a_seed_always_makes_the_same_plan_and_another_seed_another():
    assert plan(7, 60) == plan(7, 60)
    assert plan(7, 60) != plan(8, 60)


def test_every_kind_comes_up_within_a_few_runs():
    found = Counter(step.kind for seed in range(1, 11) for step in plan(seed, 60))

    assert found.keys() == set(DECK)
    assert sum(step.after for step in plan(7, 60)) <= 55


@pytest.mark.parametrize("seed", range(1, 7))
def test_workers_never_get_fewer_than_one_nor_more_than_four_when_they_come_and_go(seed):
    steps = [step.kind for step in plan(seed, 130, [SCALE])]
    there = list(itertools.accumulate(1 if kind == "join" else -1 for kind in steps))

    assert len(steps) == 18
    assert {1 + count for count in there} == {1, 2, 3, 4}
    assert there[5::6] == [0, 0, 0]
    assert [steps[n : n + 6].count("lose") for n in (0, 6, 12)] == [1, 1, 1]


def make(tmp_path, *names):
    states = States(tmp_path / "state")
    for name in names:
        (tmp_path / "state" / name / "tables").mkdir(parents=True)
        (tmp_path / "state" / name / "lock").touch()
        (tmp_path / "state" / name / "tables" / "rows").write_text(name)
    return states


def rows(states):
    return {path.parent.parent.name: path.read_text() for path in states.folder.glob("*/tables/rows")}


def test_wiping_leaves_nothing_but_the_locks(tmp_path):
    states = make(tmp_path, "worker-1", "worker-2")

    assert states.wipe()
    assert [path.name for path in states.folder.rglob("*") if path.is_file()] == ["lock", "lock"]
    assert not states.wipe()


def test_a_folder_that_a_worker_has_is_left_alone(tmp_path):
    states = make(tmp_path, "worker-1", "worker-2")
    with (states.folder / "worker-1" / "lock").open() as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)

        assert states.wipe()
        assert not states.swap()

    assert rows(states) == {"worker-1": "worker-1"}


def test_folders_are_swapped(tmp_path):
    states = make(tmp_path, "worker-1", "worker-2")

    assert states.swap()
    assert rows(states) == {"worker-1": "worker-2", "worker-2": "worker-1"}


def test_an_old_state_comes_back_to_another_worker(tmp_path):
    states = make(tmp_path, "worker-1", "worker-2")
    assert not states.put_back()

    assert states.set_aside()
    assert states.put_back()
    assert rows(states) == {"worker-1": "worker-1", "worker-2": "worker-1"}


def test_a_disturbance_says_what_it_did(tmp_path):
    states = make(tmp_path, "worker-1", "worker-2")

    assert {states.disturb(random.Random(seed)) for seed in range(9)} >= {"", "wiped"}
    assert rows(states) == {}


def row(seed, **more):
    return {"seed": seed, "invalid": [], **dict.fromkeys(COLUMNS, 0), "faults": 9, "conversions": 1500, **more}


def test_the_last_line_sums_up_and_a_good_table_exits_with_0(capsys):
    assert report([row(1), row(2)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "lost 0, unexplained doubles 0, faults 18, conversions 3000"


@pytest.mark.parametrize("bad", [{name: 1} for name in BAD] + [{"invalid": ["only 2 faults in 60 s"]}])
def test_one_bad_run_is_enough_to_fail(bad):
    assert report([row(1), row(2, **bad)]) == 1


def test_a_takeover_that_takes_too_long_fails(capsys):
    assert report([row(1, takeovers=[11.2]), row(2)]) == 0
    assert "1 takeovers after a kill, the longest 11.2 s" in capsys.readouterr().out
    assert report([row(1, takeovers=[11.2, 15.1])]) == 1


@pytest.mark.parametrize(
    ("more", "known"),
    [
        ({}, True),
        ({"commit": "other"}, False),
        ({"commit": "here+"}, False),  # the tree had changed
        ({"mix": "kill"}, False),
        ({"seconds": 30.0}, False),
        ({"invalid": ["only 2 faults in 60 s"]}, False),
    ],
)
def test_only_the_very_same_run_is_not_done_again(more, known):
    there = row(1, commit="here", seconds=60.0, mix="own") | more
    options = argparse.Namespace(seconds=60.0, mix="own")

    assert same(there, 1, there["commit"] if "+" in there["commit"] else "here", options) is known
