"""The live page of made-up conversions: hostile ones, none, more than can be followed."""

import pytest

from app.routing import Route
from app.view import live, on_live, site
from app.view.live import Filter
from tests.app.view.journeys import START
from tests.app.view.test_live import filled, order
from tests.app.view.test_templates import EVIL, checked, render


def page(window, chosen=None, **more):
    chosen = chosen or Filter()
    told = {
        "since": None, "full": False, "partitions": 4, "followed": 4, "reading": True, "why_not": "",
        "funnel": live.funnel(window.lines(), ["ads", EVIL]), "minutes": window.rates(START, START - live.MINUTE),
    }  # fmt: skip
    choices = window.choices() | {name: [EVIL] for name in ("destination", "copies", "reached")}
    values = {
        "lines": list(window.lines()),
        "chosen": chosen,
        "choices": choices,
        "most": 100,
        "here": "/live",
        "stream": "/x",
    }
    return render("live.html", **on_live._for_template(told, chosen) | values | more)


def test_nothing_that_an_event_says_becomes_a_part_of_the_page():
    _, said = order(EVIL, ads=Route("held_back", EVIL), **{EVIL: Route(EVIL, EVIL)})
    said["event"]["commerce"] |= {"value": EVIL, "currency": EVIL}
    said["copies"][0]["source"] = EVIL
    said["event"]["event_name"] = EVIL
    window = filled((f"{EVIL}\x1f{EVIL}\x1f{EVIL}\x1f{EVIL}".encode(), said))
    text = page(window, Filter(*[EVIL] * len(Filter._fields)), here=EVIL, stream=EVIL)

    assert "img" not in checked(text).seen
    assert text.count("<script") == 1
    assert text.count("&lt;script&gt;") > 10
    assert "img" not in checked(page(window, why_not=EVIL)).seen


def test_a_part_that_a_script_puts_in_is_escaped_as_well():
    key, said = order(EVIL, **{EVIL: Route(EVIL, EVIL)})
    (line,) = filled((key, said)).lines()
    row = site._templates.get_template("live_row.html").render(line=line, there=on_live._states(line))

    assert "<script" not in row
    assert row.startswith(f'<tr id="{line.row}">')


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ({}, "There are none yet"),
        ({"here": "/live?event=x"}, "None with this filter"),
        ({"reading": False}, "Kafka is being asked"),
        ({"why_not": "Kafka does not answer"}, "Nothing can be read: Kafka does not answer"),
        ({"followed": 1}, "1 of 4 partitions is followed"),
        ({"full": True}, "Older ones make room"),
    ],
)
def test_every_state_is_told(more, text):
    window = filled()
    said = page(window, **more)
    checked(said)

    assert text in said


def test_what_was_not_read_is_not_shown_as_nothing():
    text = page(filled(order("1")))

    assert text.count(">not read<") == 4 * (live.MINUTES - 2)
    assert 'class="unknown"' in text


def test_a_huge_window_is_a_page_of_bounded_size():
    window = filled(
        *(order(str(n), **{f"d{m}": Route("held_back", f"why {n}") for m in range(10)}) for n in range(300))
    )
    text = page(window, lines=list(window.lines())[: live.SHOWN])

    assert len(text) < 1_500_000
