"""What became of each order of a shop's list: one class each, and classes that sum to the orders."""

from collections import Counter
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import control, receipts, reconcile, topics
from app.exports import Sent
from app.orders import Order, Orders
from app.reconcile import CLASSES, HAS, Judged, Moment, Report, State, judge, share

NOW = 1_795_500_000_000
DAY = 86_400_000
MOMENT = Moment(now=NOW, kept_since=NOW - 90 * DAY, max_age=7 * DAY)


def order(
    id_: str = "1", value: float | None = 10.0, currency: str = "EUR", time: int | None = NOW - DAY, day: str = "d"
) -> Order:
    return Order(id_, 2, time, day, value, currency)


def sent(outcome: str, reason: str = "", value: float | None = 10.0, currency: str = "EUR") -> Sent:
    return Sent("1", value=value, currency=currency, event_name="purchase", outcome=outcome, reason=reason)


def closed(
    how: str = "complete", at: int = NOW - DAY, *routes: tuple[str, str], queued: bool = True, by: Any = ("server",)
) -> State:
    return State(set(by), closed=at, how={how}, routes=list(routes), queued=queued and not routes)


def kind(
    receipts_: Any = (), state: State | None = None, refused: str = "", moment: Moment = MOMENT, **of: Any
) -> tuple[str, str]:
    return judge(order(**of), receipts_, state, refused, moment)[:2]


@pytest.mark.parametrize(
    ("outcome", "reason", "expected"),
    [
        ("delivered", "", ("delivered", "")),
        ("accepted", "", ("delivered", "")),
        ("shadowed", "", ("left_out", "shadowed")),
        ("rejected", "invalid_value", ("rejected", "invalid_value")),
        ("rejected", "too_old", ("too_old", "too_old")),
        ("skipped", "no GA4 client id", ("rejected", "no GA4 client id")),
        ("held_back", "consent_denied", ("held_by_consent", "consent_denied")),
        ("erased", "", ("held_by_consent", "erasure")),
        ("filtered", "label_bot", ("bot_or_test", "label_bot")),
        ("filtered", "label_test", ("bot_or_test", "label_test")),
        ("filtered", "before_live_from", ("left_out", "before_live_from")),
        ("parked", "unconfirmed", ("pixel_only", "unconfirmed")),
        ("parked", "beyond_horizon", ("too_old", "beyond_horizon")),
    ],
)
def test_each_outcome_has_its_class(outcome, reason, expected):
    assert kind([sent(outcome, reason)], closed(queued=False)) == expected
    assert kind([sent(outcome, reason)]) == expected, "receipts outlive the state"


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (None, ("never_received", "")),
        (State({"pixel"}, held=True), ("pending", "held")),
        (closed(), ("pending", "queued")),
        (closed("complete", NOW - 8 * DAY), ("unknown", "no_outcome")),
        (closed("complete", NOW, ("held_back", "consent_absent")), ("held_by_consent", "consent_absent")),
        (closed("unconfirmed", NOW, queued=False), ("pixel_only", "unconfirmed")),
        (closed("erased", NOW, queued=False), ("held_by_consent", "erasure")),
    ],
)
def test_what_has_no_receipt_is_judged_by_the_state(state, expected):
    assert kind(state=state) == expected


def test_a_purchase_that_the_pixel_alone_claims_is_no_pending_one_where_the_server_must_confirm_it():
    must = Moment(NOW, 0, 7 * DAY, must_confirm=True)

    assert kind(state=State({"pixel"}, held=True), moment=must) == ("pixel_only", "waits")
    assert kind(state=State({"pixel", "server"}, held=True), moment=must) == ("pending", "held")


@pytest.mark.parametrize(
    ("value", "currency", "expected"),
    [
        (10.0, "EUR", ("delivered", "")),
        (10.004, "EUR", ("delivered", "")),
        (10.01, "EUR", ("differs", "value")),
        (None, "EUR", ("differs", "no_value")),
        (10.0, "USD", ("differs", "currency")),
        (10.0, "", ("delivered", "")),
    ],
)
def test_an_amount_that_differs_is_told(value, currency, expected):
    assert kind([sent("delivered", value=value, currency=currency)]) == expected


def test_what_the_list_does_not_tell_is_no_difference():
    assert kind([sent("delivered")], value=None, currency="") == ("delivered", "")


def test_what_reached_the_platform_counts_before_what_is_on_its_way_and_that_before_what_will_not_come():
    both = closed("complete", NOW, ("held_back", "consent_denied"))
    both.queued = True

    assert kind([sent("held_back", "consent_denied"), sent("delivered")], both) == ("delivered", "")
    assert kind([sent("held_back", "consent_denied")], both) == ("pending", "queued")


def test_an_order_that_was_refused_before_it_was_an_event_is_no_unknown_one():
    assert kind(refused="bad_currency") == ("rejected", "bad_currency")


def test_of_an_order_older_than_all_that_is_kept_nobody_says_that_it_never_came():
    assert kind(time=NOW - 91 * DAY) == ("unknown", "older_than_kept")
    assert kind(time=None) == ("never_received", "")


OUTCOMES = st.builds(
    sent,
    st.sampled_from(receipts.OUTCOMES),
    st.sampled_from(["", "too_old", "label_bot", "consent_denied", "unconfirmed", "x"]),
    st.none() | st.floats(0, 100),
    st.sampled_from(["", "EUR", "USD"]),
)
STATES = st.none() | st.builds(
    State,
    st.sets(st.sampled_from(["pixel", "server"])),
    st.booleans(),
    st.integers(NOW - 30 * DAY, NOW),
    st.sets(st.sampled_from(["complete", "hold_ended", "unconfirmed", "erased"])),
    st.lists(st.tuples(st.sampled_from(["filtered", "held_back", "parked"]), st.text(max_size=3)), max_size=2),
    st.booleans(),
)
ORDERS = st.builds(
    order,
    st.just("1"),
    st.none() | st.floats(0, 100),
    st.sampled_from(["", "EUR"]),
    st.none() | st.integers(NOW - 100 * DAY, NOW) | st.integers(NOW - 2 * reconcile.YOUNG, NOW),
    st.sampled_from(["", "2026-11-22", "2026-11-23"]),
)


@given(ORDERS, st.lists(OUTCOMES, max_size=3), STATES, st.sampled_from(["", "bad_value"]), st.booleans())
def test_whatever_is_known_an_order_is_in_one_class_and_what_was_sent_is_in_no_other(one, told, state, refused, must):
    found, reason, delivered = judge(one, told, state, refused, Moment(NOW, NOW - 90 * DAY, 7 * DAY, must))

    assert found in CLASSES
    assert (
        (found in HAS)
        == any(receipt.outcome in ("delivered", "accepted") for receipt in told)
        == (delivered is not None)
    )
    assert reason or found in ("delivered", "never_received")


@given(st.lists(st.tuples(ORDERS, st.sampled_from(list(CLASSES)))))
def test_classes_sum_to_the_orders_in_each_day_and_over_all(some):
    judged = [Judged(one, name) for one, name in some]
    said = Report("ads", "Meta", Orders("UTC"), judged, NOW).summary

    assert sum(said["classes"].values()) == said["orders"] == len(judged)
    assert sum(day["orders"] for day in said["days"]) == len(judged)
    for day in said["days"]:
        assert sum(day["classes"].values()) == day["orders"]
        assert day["delivered"] <= day["due"] <= day["orders"]
    for name in CLASSES:
        assert sum(day["classes"][name] for day in said["days"]) == said["classes"][name]


def test_the_share_is_of_what_the_platform_should_have():
    some = [
        ("delivered", 8),
        ("never_received", 1),
        ("pending", 1),
        ("held_by_consent", 50),
        ("bot_or_test", 3),
        ("left_out", 2),
    ]
    judged = [Judged(order(time=NOW - DAY), name) for name, count in some for _ in range(count)]
    young = Judged(order(time=NOW - 1000), "pending")

    assert share([*judged, young], NOW).part == 80
    assert Report("ads", "Meta", Orders("UTC"), judged, NOW, threshold=80).alert is False
    assert Report("ads", "Meta", Orders("UTC"), judged, NOW, threshold=81).alert is True


def test_one_day_that_is_below_the_threshold_is_enough():
    judged = [Judged(order(day="a"), "delivered")] * 99 + [Judged(order(day="b"), "never_received")]

    assert Report("ads", "Meta", Orders("UTC"), judged, NOW).alert is True


def test_what_all_that_differ_have_in_common_is_told():
    judged = [Judged(order(value=119.0), "differs", "value", sent("delivered", value=100.0))] * 5

    (hint, _) = reconcile.hints(Report("ads", "Meta", Orders("UTC"), judged, NOW))
    assert "0.84 times" in hint


# in Kafka


def receipt(id_: str, outcome: str = "delivered", destination: str = "ads", **more: Any) -> tuple[bytes, bytes, int]:
    row = {"v": 1, "destination": destination, "event_name": "purchase", "event_id": f"e-{id_}", "transaction_id": id_,
           "event_time": NOW, "value": 10, "currency": "EUR", "outcome": outcome, "name": "Purchase"} | more  # fmt: skip
    return f"{id_}\x1fshop\x1f{row['event_name']}".encode(), orjson.dumps(row), control.now()


def state(id_: str, closed_: str | None = "complete", **more: Any) -> tuple[bytes, bytes, int]:
    copies = [["pixel", NOW, 1, "", "r1"]]
    row = {"v": 1, "n": 1, "c": copies, "o": 1, "s": closed_, "t": control.now()} | more
    return f"{id_}\x1fshop\x1fpurchase".encode(), orjson.dumps(row), control.now()


@pytest.fixture
def shop(place):
    names = topics.names(place.config)
    place.write(
        names.receipts,
        [
            receipt("1"),
            receipt("2", value=12),
            receipt("3", "held_back", reason="consent_denied", name=""),
            receipt("4", destination="stats"),
            receipt("1:r-1", event_name="refund", transaction_id="1"),
            receipt("not of the list"),
            (b"nonsense", b"nonsense", 0),
        ],
    )
    place.write(
        names.changelog("seen"),
        [
            state("1"),
            state("4", r={"ads": ["filtered", "event_off"]}),
            state("5", None),
            state("6"),
            state("9"),
            (state("9")[0], None, 0),
            (b"\x1d", b'{"since": 0}', 0),
            (b"\x1e7\x1fshop\x1fpurchase", b'{"=": "1", "t": 1}', 0),
        ],
        1,
    )
    rows = "".join(f"{n},2026-11-23 12:00,10,EUR\n" for n in range(1, 8)) + "1,2026-11-23 13:00,-10,EUR\nx,,y,\n"
    place.list = place.path.parent / "orders.csv"
    place.list.write_text("order,time,total,currency\n" + rows)
    return place


def test_every_order_of_a_list_has_its_class(shop):
    numbers, *lines = shop.json("reconcile", str(shop.list), "--to", "ads", "--tz", "Europe/Berlin")

    assert [(one["order_id"], one["class"], one.get("reason", "")) for one in lines] == [
        ("1", "delivered", ""),
        ("2", "differs", "value"),
        ("3", "held_by_consent", "consent_denied"),
        ("4", "left_out", "event_off"),
        ("5", "pending", "held"),
        ("6", "pending", "queued"),
        ("7", "never_received", ""),
    ]
    assert (lines[1]["value"], lines[1]["sent_value"]) == (10.0, 12.0)
    assert Counter(one["class"] for one in lines) == Counter({k: n for k, n in numbers["classes"].items() if n})
    assert (numbers["alert"], numbers["time_zone"], numbers["from_pixel_alone"]) == (True, "Europe/Berlin", 1)
    assert (numbers["refunds"], numbers["unread"]) == (1, ["line 10: total is no number"])
    assert [day["day"] for day in numbers["days"]] == ["2026-11-23"]


def test_people_get_a_table_and_the_orders_of_one_class(shop):
    told = shop.run("reconcile", str(shop.list), "--to", "ads")
    named = shop.run("reconcile", str(shop.list), "--to", "ads", "--class", "pending", "--threshold", "1")

    assert told.exit_code == 1
    for text in (
        "never received, neither from the pixel nor from the server",
        "[never_received]",
        "Days, in UTC",
        "After delivery",
    ):
        assert text in told.stdout
    assert "line 10: total is no number" in told.stderr
    assert named.exit_code == 0
    assert [line.partition(":")[0] for line in named.stdout.splitlines()] == [
        "order 5  2026-11-23  10 EUR",
        "order 6  2026-11-23  10 EUR",
    ]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--to", "nobody"], "no destination is called nobody"),
        (["--to", "ads", "--tz", "Berlin"], "--tz: an IANA name"),
        (["--to", "ads", "--class", "lost"], "--class: one of delivered"),
        (["--to", "ads", "--column", "order_id=Number"], "names no column Number"),
    ],
)
def test_a_wrong_option_is_named(shop, arguments, complaint):
    result = shop.run("reconcile", str(shop.list), *arguments)

    assert result.exit_code == 1
    assert complaint in result.stderr
