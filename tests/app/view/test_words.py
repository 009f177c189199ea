"""Codes in words, and how values are written."""

from itertools import product
from typing import get_args, get_type_hints

import pytest

from app.view import api, words


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 ms"), (0.45, "450 ms"), (3.2, "3.2 s"), (5.0, "5 s"), (61, "1 min 1 s"), (7800, "2 h 10 min"), (273600, "3 d 4 h"),
        (2592000, "30 d"),
    ],
)  # fmt: skip
def test_a_span_is_written_in_units_that_people_use(seconds, text):
    assert words.span(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("2026-11-23T08:00:00.123Z", "2026-11-23 08:00:00.123"),
        (1_795_420_800_123, "2026-11-23 08:00:00.123"),
        (None, ""),
        ("", ""),
        ("never", "never"),
        (1e300, "1e+300"),
    ],
)
def test_a_moment_is_written_in_utc_and_what_is_none_as_it_is(value, text):
    assert words.moment(value) == text


def test_numbers_are_grouped_and_counted():
    assert words.plural(1, "copy", "copies") == "1 copy"
    assert [words.number(one) for one in (83.3333, 5.0, 12)] == ["83.3", "5", "12"]
    assert words.plural(1_234_567, "copy", "copies") == "1\u202f234\u202f567 copies"


def test_every_verdict_on_a_tag_has_words():
    tag = get_type_hints(api.BrowserTag)
    for verdict, expected in product(get_args(tag["verdict"]), get_args(tag["expected"])):
        assert words.tag_words({"verdict": verdict, "expected": expected, "event_id": "e9"})
    assert "e9" in words.tag_words({"verdict": "another id", "expected": "none", "event_id": "e9"})


def test_every_way_to_close_has_words():
    assert set(words.CLOSED) == set(get_args(get_type_hints(api.Decision)["how"]))


def test_a_reason_without_words_is_its_code():
    assert words.reason("sink_failed") == "sink failed"
    assert words.reason("label_bot") == "it is of a bot"
