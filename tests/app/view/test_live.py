"""The window of the newest conversions: what became of each, the funnel, the rates, the filter."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import keys, receipts
from app.routing import Route
from app.view import charts, live
from app.view.feed import share
from app.view.live import Filter, Window
from tests.app.view.journeys import START, make_copy, record

QUEUED = Route("queued")


def order(number, *sources, **routes):
    """(key, value) of a conversion of these sources."""
    copies = [
        make_copy(source, after=n, commerce={"transaction_id": number, "value": 5.0, "currency": "EUR"}, event_id=f"e-{number}")
        for n, source in enumerate(sources or ("pixel", "server"))
    ]  # fmt: skip
    said = record(copies, **(routes or {"ads": QUEUED}))
    return keys.key(said["event"]), said


def receipt(said, destination, outcome, **more):
    return receipts.row(said["event"], destination, outcome, now=START, config="c", **more)[:2]


def put(window, row, at=START):
    key, value = row
    window.receipt(key, value, at)


def filled(*orders, outcomes=()):
    window = Window()
    for n, (key, said) in enumerate(orders):
        window.conversion(key, orjson.dumps(said), START + n * 1000)
    for n, row in enumerate(outcomes):
        put(window, row, START + n * 1000)
    return window


def ids(window, **chosen):
    return [line.id for line in window.lines() if Filter(**chosen).takes(line)]


def test_a_conversion_is_shown_with_what_became_of_it():
    key, said = order("1", ads=QUEUED, stats=Route("held_back", "consent_denied"))
    (line,) = filled((key, said), outcomes=[receipt(said, "ads", "delivered", name="Purchase")]).lines()

    assert line.as_json() == {
        "at": "2026-11-23T08:00:00.000Z", "id": "1", "site": "shop", "event_name": "purchase", "value": "5.0", "currency": "EUR",
        "sources": ["pixel", "server"], "received": 2, "closed": "complete",
        "destinations": {"ads": {"state": "delivered"}, "stats": {"state": "held_back", "reason": "consent_denied"}},
    }  # fmt: skip


def test_of_several_names_the_worst_is_told():
    key, said = order("1")
    rows = [
        receipt(said, "ads", "delivered", name="Purchase"),
        receipt(said, "ads", "rejected", name="Lead", reason="bad"),
    ]

    for some in (rows, rows[::-1]):
        (line,) = filled((key, said), outcomes=some).lines()
        assert line.there["ads"].state == ("rejected", "bad")


def test_a_receipt_that_is_read_before_its_conversion_waits_for_it():
    key, said = order("1")
    window = Window()
    put(window, receipt(said, "ads", "delivered"))
    window.conversion(key, orjson.dumps(said), START)

    (line,) = window.lines()
    assert line.there["ads"].state == ("delivered", "")


def test_what_a_late_copy_changes_is_of_the_same_conversion():
    key, said = order("1", "pixel", ads=Route("held_back", "consent_absent"), stats=QUEUED)
    _, more = order("1", "pixel", "server", ads=QUEUED)
    window = filled((key, said), outcomes=[receipt(said, "ads", "held_back", reason="consent_absent")])
    window.conversion(key, orjson.dumps(more | {"closed": "updated", "received": 2}), START)

    (line,) = window.lines()
    assert {name: there.state for name, there in line.there.items()} == {"ads": ("queued", ""), "stats": ("queued", "")}
    assert line.received == 2


def test_a_change_of_a_conversion_before_the_window_is_no_conversion():
    key, said = order("1")

    assert list(filled((key, said | {"closed": "updated"})).lines()) == []


def test_a_record_that_is_written_again_counts_once():
    key, said = order("1")
    window = filled((key, said), (key, said))

    assert len(list(window.lines())) == 1
    assert window.rates(START, 0)[-1]["conversions"] == 1


@pytest.mark.parametrize("value", [None, b"", b"no json", b"[]", b"{}", b'{"event": {}, "closed": 1}', b"7"])
def test_what_somebody_else_wrote_there_is_passed_over(value):
    window = Window()
    window.conversion(b"a\x1fb\x1fc", value, START)
    window.conversion(b"", orjson.dumps(order("1")[1]), START)
    window.receipt(b"a\x1fb\x1fc", value, START)

    assert list(window.lines()) == []


def test_the_window_is_bounded_and_says_that_it_is_full():
    window = Window(most=3)
    for n in range(5):
        key, said = order(str(n))
        window.conversion(key, orjson.dumps(said), START + n)

    assert [line.id for line in window.lines()] == ["4", "3", "2"]
    assert (window.full, window.since) == (True, START + 2)
    assert window.rates(START, 0)[-1]["conversions"] == 5, "counts are of all of them"


def test_receipts_without_a_conversion_do_not_pile_up(monkeypatch):
    monkeypatch.setattr(live, "EARLY", 10)
    window = Window()
    for n in range(50):
        put(window, receipt(order(str(n))[1], "ads", "delivered"))

    assert len(window._early) == 10


def test_filters_choose_by_what_is_shown():
    one, two = order("1"), order("2", "server", ads=Route("held_back", "consent_denied"), stats=QUEUED)
    three = order("3", "server", ads=QUEUED, stats=QUEUED)
    three[1]["received"] = 4
    three[1]["event"]["labels"] = ["bot"]
    window = filled(one, two, three, outcomes=[receipt(three[1], "stats", "accepted")])

    assert ids(window) == ["3", "2", "1"]
    assert ids(window, source="pixel") == ["1"]
    assert ids(window, copies="single") == ["3", "2"]
    assert ids(window, copies="repeated") == ["3"]
    assert ids(window, destination="stats") == ["3", "2"]
    assert ids(window, outcome="queued") == ["3", "2", "1"], "at any destination"
    assert ids(window, destination="ads", outcome="queued") == ["3", "1"]
    assert ids(window, destination="stats", reached="delivered") == ["3"]
    assert ids(window, destination="ads", reached="queued") == ["3", "1"]
    assert ids(window, destination="stats", reached="consented") == ["3", "2"]
    assert ids(window, reason="consent_denied") == ["2"]
    assert ids(window, closed="complete", label="bot") == ["3"]
    assert ids(window, closed="hold_ended") == ids(window, label="test") == []
    assert ids(window, event="refund") == ids(window, site="other") == ids(window, destination="nobody") == []


def test_each_loss_is_told_with_its_reason_and_leads_to_what_it_counts():
    orders = [
        order("1"), order("2", ads=Route("held_back", "consent_denied")), order("3", ads=Route("filtered", "label_bot")),
        order("4"), order("5"), order("6", "pixel"),
    ]  # fmt: skip
    window = filled(
        *orders,
        outcomes=[
            receipt(orders[0][1], "ads", "delivered"),
            receipt(orders[3][1], "ads", "rejected", reason="bad"),
            receipt(orders[4][1], "ads", "held_back", reason="withdrawn"),
        ],
    )
    found = live.funnel(window.lines(), ["ads", "late"])
    ads, late = found["destinations"]

    assert (found["copies"], found["joined"], found["repeats"], found["unique"]) == (11, 5, 0, 6)
    assert [ads[step] for step in ("unique", "consented", "queued", "delivered", "waiting")] == [6, 4, 3, 1, 1]
    assert {(one["step"], one["state"], one["reason"]) for one in ads["lost"]} == {
        ("consented", "held_back", "consent_denied"), ("queued", "filtered", "label_bot"),
        ("consented", "held_back", "withdrawn"), ("delivered", "rejected", "bad"),
    }  # fmt: skip
    for one in ads["lost"]:
        assert len(ids(window, destination="ads", outcome=one["state"], reason=one["reason"])) == one["conversions"]
    for step in live.STEPS:
        assert len(ids(window, destination="ads", reached=step)) == ads[step]
    assert late["lost"] == [{"step": "queued", "state": "filtered", "reason": "not_configured", "conversions": 6}]


_states = st.tuples(
    st.sampled_from(["queued", "held_back", "filtered", "parked", "erased"]),
    st.sampled_from(
        ["", "delivered", "accepted", "rejected", "skipped", "shadowed", "held_back", "erased", "later_invented"]
    ),
    st.lists(st.sampled_from(["pixel", "server", "app"]), min_size=1, max_size=4),
    st.integers(0, 3),
)


@given(st.lists(_states, max_size=12))
def test_the_funnel_adds_up(states):
    window = Window()
    for n, (route, outcome, sources, repeats) in enumerate(states):
        key, said = order(str(n), *sources, ads=Route(route, "why"))
        said["received"] += repeats
        window.conversion(key, orjson.dumps(said), START)
        if outcome:
            put(window, receipt(said, "ads", outcome))
    found = live.funnel(window.lines(), ["ads"])
    (ads,) = found["destinations"]
    lost = dict.fromkeys(live.STEPS, 0)
    for one in ads["lost"]:
        lost[one["step"]] += one["conversions"]

    assert (
        found["copies"]
        == found["unique"] + found["joined"] + found["repeats"]
        == sum(line.received for line in window.lines())
    )
    assert ads["unique"] == found["unique"] == len(states)
    assert ads["unique"] - lost["consented"] == ads["consented"]
    assert ads["consented"] - lost["queued"] == ads["queued"]
    assert ads["queued"] - lost["delivered"] - ads["waiting"] == ads["delivered"] >= 0
    for step in live.STEPS:
        assert len(ids(window, destination="ads", reached=step)) == ads[step]


def test_rates_are_by_minute_and_say_what_was_not_read():
    window = filled(order("1"), order("2"), outcomes=[receipt(order("1")[1], "ads", "delivered")])
    key, said = order("3", "pixel")
    window.conversion(key, orjson.dumps(said), START + live.MINUTE)
    *_, before, last = window.rates(START + live.MINUTE + 5000, since=START - 1)

    assert before | {"at": ""} == {"at": "", "copies": 4, "conversions": 2, "delivered": 1, "not_delivered": 0}
    assert (last["copies"], last["conversions"]) == (1, 1)
    assert window.rates(START, since=START - 1)[0]["copies"] is None
    assert len(window.rates(START, 0)) == live.MINUTES


def test_counts_of_the_past_are_forgotten():
    window = filled(order("1"))
    key, said = order("2")
    window.conversion(key, orjson.dumps(said), START + 60 * live.MINUTE)

    assert len(window._minutes) == 1


def test_a_query_is_read_and_written_the_same():
    chosen = live.parse({"event": " purchase ", "destination": "ads", "odd": "x", "site": "s" * 1000})

    assert chosen == Filter(event="purchase", destination="ads", site="s" * 200)
    assert live.link(Filter(event="a"), reached="queued", event="") == {"reached": "queued"}


def test_a_busy_place_is_read_in_part():
    assert share(100, 12) == 12
    assert share(6000, 12, budget=2000) == 4
    assert share(1e9, 12) == 1


def test_bars_fit_their_drawing_and_the_smallest_can_be_seen():
    drawn = charts.bars("x", [0, 1, 100_000, None], ["a", "b", "c", "d"])
    none, small, high, unknown = drawn.bars

    assert (none.height, high.height, high.y) == (0, charts.HEIGHT, 0)
    assert small.height > 1
    assert unknown.value is None
    assert drawn.highest == 100_000
    assert all(bar.x >= 0 and bar.x + bar.width <= charts.WIDTH for bar in drawn.bars)
    assert charts.bars("x", [None, 0], ["a", "b"]).known[0].height == 0
