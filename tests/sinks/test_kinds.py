"""sinks/_kinds.py, and that what sinks say of their fields is what their emulators, written from the platforms' rules, say."""

import math
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.mapping import mapped
from app.sandbox import meta as emulated_meta
from app.sandbox import pinterest as emulated_pinterest
from app.sandbox import tiktok as emulated_tiktok
from app.sandbox._base import Problem
from sinks import _kinds as kinds
from sinks._kinds import misfit
from sinks.meta import Meta
from sinks.pinterest import Pinterest
from sinks.tiktok import TikTok
from tests.factories import make_event, payload, sha
from tests.sinks import test_meta, test_pinterest, test_tiktok

VALUES: list[Any] = ["a", "", 1, 1.5, True, math.inf, sha("a"), [], ["a"], [1], [sha("a")], [{}], {}]


@pytest.mark.parametrize(
    ("kind", "fitting"),
    [
        (kinds.TEXT, ["a", "", sha("a")]),
        (kinds.WHOLE, [1]),
        (kinds.NUMBER, [1, 1.5]),
        (kinds.FLAG, [True]),
        (kinds.SCALAR, ["a", "", 1, 1.5, True, sha("a")]),
        (kinds.ID, ["a", "", 1, sha("a")]),
        (kinds.OBJECT, [{}]),
        (kinds.TEXTS, [[], ["a"], [sha("a")]]),
        (kinds.IDS, [[], ["a"], [1], [sha("a")]]),
        (kinds.OBJECTS, [[], [{}]]),
        (kinds.DIGEST, [sha("a")]),
        (kinds.DIGESTS, [[], [sha("a")]]),
        (kinds.DIGEST_OR_DIGESTS, [sha("a"), [], [sha("a")]]),
        (kinds.TEXT_OR_TEXTS, ["a", "", sha("a"), [], ["a"], [sha("a")]]),
    ],
)
def test_a_kind_is_a_type_of_json_and_no_other(kind, fitting):
    assert [value for value in VALUES if kind.fits(value)] == fitting


def test_a_name_that_an_event_may_have_made_is_not_told():
    assert misfit({"data": {"ada@example.com": None}}, {"data": kinds.OBJECT}) == "data holds a null"
    assert misfit({"data": {"ada@example.com": []}}, {"data.*": kinds.TEXT}) == "data.* is not a text"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(allow_nan=False) | st.sampled_from(["x", sha("x")]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["id", "x"]), inner, max_size=2),
    max_leaves=4,
)


@given(value=JSON)
def test_any_json_is_judged(value):
    for sink in (Meta, TikTok, Pinterest):
        assert isinstance(misfit({"custom_data": value, "properties": value, "user_data": value}, sink.fields), str)


@pytest.mark.parametrize(
    ("make", "check"),
    [
        (test_meta.make_sink, emulated_meta.check_event),
        (test_tiktok.make_sink, emulated_tiktok.check_event),
        (test_pinterest.make_sink, emulated_pinterest.EVENT),
    ],
)
def test_what_fits_a_field_is_of_the_type_that_the_emulator_wants(make, check):
    sink, event = make(), make_event()
    body = payload(sink, event).body
    for path in (path for path in sink.fields if "[]" not in path and "*" not in path):
        for value in (value for value in VALUES if value != ""):
            filled = mapped(body, {**event, "custom": {"x": value}}, {path: "custom.x"})
            if misfit(filled, sink.fields) == "":
                now = (event["time"] / 1000,) if check is not emulated_pinterest.EVENT else ()
                assert [one for one in check(filled, "", *now) if _of_type(one)] == [], (path, value)


def _of_type(problem: Problem) -> bool:
    """What the value of the right type means is not asked here."""
    words = "a string|a number|an integer|an array|an object|true or false"
    return re.match(f"must be ({words})", problem.reason) is not None
