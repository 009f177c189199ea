"""The page about dedup: hostile names, nothing there yet, and numbers that lead somewhere."""

import re
from typing import Any

from app.settings import EventRule
from app.view import on_dedup, pairs
from app.view.lookup import iso
from tests.app.view.journeys import START
from tests.app.view.test_pairs import RULE, copy, judged, pair
from tests.app.view.test_templates import EVIL, checked, render

WINDOW = {
    "copies": 2,
    "conversions": 1,
    "since": iso(START),
    "until": iso(START),
    "whole": True,
    "read": 4,
    "partitions": 4,
}
STATE = {"partition": 0, "worker": "a", "open": 1, "keys": 5, "bytes": 7, "clock": iso(START), "since": None}
CLOCK = {"source": "orders-0", "mark": iso(START), "behind": 0.5, "left_out": False, "worker": "a"}


def page(*copies, rule=RULE, asked=None, **more: Any):
    events = [pairs.health("purchase", judged(*copies, rule=rule), rule, asked)] if copies else []
    counted = {"since": iso(START), "oldest": iso(START), "events": []}
    values = {
        "window": WINDOW, "events": events, "events_left_out": 0, "counted": counted, "clocks": [], "partitions": [STATE],
        "workers_asked": 1, "workers_silent": 0, "asked": asked, "max_lag": 300.0, "kept": 2592000.0,
        "charts": [on_dedup._chart(one) for one in events],
    }  # fmt: skip
    return render("dedup.html", **values | more)


def test_nothing_that_an_event_says_becomes_a_part_of_the_page():
    clock = CLOCK | {"source": EVIL, "worker": EVIL, "left_out": True}
    row = {"event": EVIL, "closed": {EVIL: 1}, "hold_ended_share": 0.5, "duplicates": {EVIL: 1}, "flagged": {EVIL: 1}}
    one = pairs.health(EVIL, judged(*pair(EVIL, 1), copy(f"#{EVIL}!", "pixel"), copy(f"{EVIL}?", "server")), RULE)
    one |= {
        "forms": {EVIL: [{"form": EVIL, "conversions": 1}]},
        "advice": [EVIL],
        "missing": {EVIL: 1},
        "expect": [EVIL],
    }
    text = page(
        events=[one, one | {"expect": []}], charts=[on_dedup._chart(one)] * 2, clocks=[clock],
        counted={"since": EVIL, "oldest": EVIL, "events": [row]}, partitions=[STATE | {"worker": EVIL}],
    )  # fmt: skip
    met = {"id": EVIL, "site": EVIL, "event_name": EVIL, "first": EVIL, "sources": [EVIL], "copies": 2, "gap": 1.0}
    list_ = render("dedup_list.html", window=WINDOW, event=EVIL, what=EVIL, longer=None, total=2, conversions=[met])

    assert one["near"], "an example with an id is on it"
    for said in (text, list_):
        assert "img" not in checked(said).seen
        assert said.count("<script") == 1
        assert "&lt;script&gt;" in said


def test_an_empty_place_says_so():
    text = page(partitions=[])
    checked(text)

    for told in ("No copy has come yet", "Nothing yet.", "No source is configured"):
        assert told in text
    assert "There are none" in render(
        "dedup_list.html", window=WINDOW, event="x", what="", longer=None, total=0, conversions=[]
    )


def test_each_number_leads_to_what_it_counts():
    copies = [*pair("1", 1), *pair("2", 4), *pair("3", 20), copy("4", "pixel")]
    text = page(*copies, asked=3.5)
    checked(text)

    for what in ("together", "late", "missing%20server"):
        assert f'/dedup/list?event=purchase&amp;what={what}"' in text
    assert '/dedup/list?event=purchase&amp;longer=3.5">2</a>' in text
    found = {
        what: [one for said, one in judged(*copies) if on_dedup._is_meant(said, one, what, RULE)]
        for what in ("together", "late")
    }
    assert (len(found["together"]), len(found["late"])) == (2, 1)
    longer = [one for said, one in judged(*copies) if on_dedup._longer(said, one.gap(RULE.expect), 3.5)]
    assert len(longer) == 2


def test_open_holds_lead_to_the_conversions_that_wait():
    assert '<a href="/dedup/held?partition=0">1<' in page(partitions=[STATE])
    assert "/dedup/held" not in page(partitions=[STATE | {"open": 0}])


def test_each_counter_leads_to_the_newest_of_what_it_counts():
    row = {
        "event": "purchase", "closed": {"hold_ended": 2}, "hold_ended_share": 1.0, "duplicates": {"late": 3, "repeat": 4},
        "flagged": {"several_people": 5, "beyond_horizon": 6},
    }  # fmt: skip
    counted = {"since": iso(START), "oldest": iso(START), "events": [row, row | {"event": "custom"}]}
    text = page(counted=counted)
    checked(text)

    for number, where in {
        2: "/live?event=purchase&amp;closed=hold_ended",
        3: "/dedup/list?event=purchase&amp;what=after_closing",
        4: "/dedup/list?event=purchase&amp;what=repeats",
        5: "/live?event=purchase&amp;label=several_people",
        6: "/live?event=purchase&amp;outcome=parked&amp;reason=beyond_horizon",
    }.items():
        assert re.search(f'<a href="{re.escape(where)}">(<span class="wait">)?{number} ', text), where
    assert "event=custom" not in text, "many names are counted under it"


def test_every_state_of_a_clock_is_told():
    text = page(
        clocks=[CLOCK, CLOCK | {"mark": None, "behind": None}, CLOCK | {"left_out": True, "behind": 500.0}],
        partitions=[STATE, STATE | {"clock": None, "since": iso(START)}],
    )
    checked(text)

    for told in (
        "500 ms",
        "not heard from yet",
        "left out, its copies may come too late",
        "the first record",
        "not heard yet",
    ):
        assert told in text


def test_a_window_that_is_a_part_says_so():
    text = page(*pair("1", 1), window=WINDOW | {"read": 1, "whole": False})

    assert "of 1 of 4 partitions, which is a fair sample" in text
    assert "What came before is not in it" in text


def test_names_that_are_not_held_are_a_table_of_their_own():
    text = page(*pair("1", 1), rule=EventRule())
    checked(text)

    assert "Not held" in text
    assert "what=several" in text
    assert "no pair yet" not in text


def test_only_a_sensible_hold_can_be_asked_for():
    asked = {"3": 3.0, "2.5": 2.5, "-1": None, "x": None, "": None, "1e9": None, "nan": None, "inf": None}

    assert {text: on_dedup._seconds(text) for text in asked} == asked
