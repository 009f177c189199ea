"""docs/scaling.md: its table is what docs/scaling.py works out."""

import importlib.util
from pathlib import Path

import pytest

from app import topics

DOCS = Path(__file__).parent.parent / "docs"

_spec = importlib.util.spec_from_file_location("scaling", DOCS / "scaling.py")
assert _spec
assert _spec.loader
scaling = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(scaling)


def test_the_table_of_the_page_is_up_to_date():
    assert scaling.table(scaling.RATES) in (DOCS / "scaling.md").read_text(), "paste what docs/scaling.py prints"


def test_it_knows_which_topics_are_compressed():
    known = scaling.config()
    packed = [topic.name for topic in topics.plan(known) if "compression.type" in topic.config]

    assert packed == [f"{known.kafka.prefix}.{name}" for name in scaling.PACKED]


@pytest.mark.parametrize("name", ["written", "logs", "rows", "platforms"])
def test_ten_times_as_many_events_are_ten_times_as_much(name):
    one, ten = (scaling.plan(rate)[name] for rate in (1_000, 10_000))

    assert ten == pytest.approx(10 * one, rel=0.05)


def test_a_faster_worker_makes_fewer_of_them_and_larger_ones():
    slow, fast = (scaling.plan(10_000, per_worker=each) for each in (1_000, 4_000))

    assert (slow["workers"], fast["workers"]) == (20, 5)
    assert fast["disk"] == pytest.approx(4 * slow["disk"], rel=0.01)


def test_fewer_destinations_remember_less():
    assert scaling.plan(100, destinations=2)["rows"] < scaling.plan(100, destinations=5)["rows"]
