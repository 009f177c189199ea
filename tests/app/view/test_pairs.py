"""How copies meet: who is missing, percentiles of the gaps, other holds, ids that differ by their form."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import keys
from app.settings import EventRule
from app.view import pairs, tail
from app.view.pairs import Copy

END = 10_000_000  # when it was read
RULE = EventRule(expect=["pixel", "server"], merge_window=10.0)
FREE = EventRule()


def copy(id_, source, at=1000.0, name="purchase", *, pairs=True, event_id=""):
    key = keys.SEPARATOR.join((id_, "shop", name)).encode()
    return Copy(key, source, int(at * 1000), event_id or f"e-{id_}", pairs)


def pair(id_, gap, first="pixel", at=1000.0):
    other = "server" if first == "pixel" else "pixel"
    return [copy(id_, first, at), copy(id_, other, at + gap)]


def judged(*copies, rule=RULE, since=0, until=END):
    return pairs.judged(pairs.meetings(copies), lambda _: rule, since, until).get("purchase", [])


def health(*copies, rule=RULE, asked=None, **more):
    return pairs.health("purchase", judged(*copies, rule=rule, **more), rule, asked)


def what(*copies, **more):
    return {keys.parts(one.key)[0]: said for said, one in judged(*copies, **more)}


@pytest.mark.parametrize(
    ("copies", "rule", "after"),
    [
        (pair("1", 2), RULE, False),
        (pair("1", 11), RULE, True),
        ([*pair("1", 2), copy("1", "pixel", 1003)], RULE, True),
        ([*pair("1", 2), copy("1", "pixel", 1001)], RULE, False),
        ([copy("1", "pixel"), copy("1", "pixel", 1009)], RULE, False),
        ([copy("1", "pixel"), copy("1", "pixel", 1011)], RULE, True),
        ([copy("1", "pixel")], FREE, False),
        ([copy("1", "pixel"), copy("1", "pixel")], FREE, True),
    ],
)
def test_a_copy_after_closing_is_one_after_the_last_expected_one_or_after_the_hold(copies, rule, after):
    (one,) = pairs.meetings(copies)

    assert one.came_after_closing(rule) is after


def test_each_conversion_is_in_one_class():
    found = what(
        *pair("ok", 2), *pair("late", 11), copy("p", "pixel"), copy("s", "server"), copy("crm", "crm"),
        copy("made", "pixel", pairs=False, event_id="made"), copy("order", "pixel", pairs=False),
        copy("new", "pixel", END / 1000 - 5),
    )  # fmt: skip

    assert found == {
        "ok": "together", "late": "late", "p": "missing server", "s": "missing pixel", "crm": "alone", "made": "alone",
        "order": "missing server", "new": "open",
    }  # fmt: skip


def test_the_second_copy_of_something_before_the_window_is_not_taken_for_a_lone_one():
    assert what(copy("1", "server", 1000), copy("2", "server", 2000), since=990_000) == {
        "1": "open",
        "2": "missing pixel",
    }


def test_a_copy_that_joins_after_the_deadline_is_late_and_on_it_is_not():
    assert what(*pair("on", 10), *pair("after", 10.001)) == {"on": "together", "after": "late"}


def test_a_copy_that_was_received_before_the_first_of_the_log_is_no_gap():
    (one,) = pairs.meetings(pair("1", -3))

    assert one.gap(["pixel", "server"]) == 0


def test_a_repeat_moves_no_gap():
    found = health(*pair("1", 2), copy("1", "server", 1008), copy("1", "pixel", 1009))

    assert (found["gaps"]["p50"], found["repeats"], found["together"]) == (2.0, 2, 1)


def test_the_share_is_of_those_that_could_have_all_copies():
    found = health(
        *pair("1", 1),
        *pair("2", 1),
        *pair("3", 20),
        copy("4", "pixel"),
        copy("5", "crm"),
        copy("6", "pixel", END / 1000),
    )

    assert (found["share"], found["merged"]) == (0.75, 0.5)
    assert (found["together"], found["late"], found["missing"]) == (2, 1, {"server": 1})
    assert (found["alone"], found["open"]) == (1, 1)
    assert health(copy("6", "crm"))["share"] is None


def test_a_name_that_is_not_held_has_no_advice_and_shows_what_could_be():
    found = health(*pair("1", 1), copy("2", "pixel"), rule=FREE)

    assert (found["not_held"], found["of_several_sources"], found["share"]) == (2, 1, None)
    assert (found["gaps"], found["advice"]) == ({}, [])


@pytest.mark.parametrize(("part", "expected"), [(50, 50), (97, 97), (99, 99), (100, 100), (0, 1)])
def test_percentiles_are_values_that_there_were(part, expected):
    assert pairs.percentile(range(1, 101), part) == expected
    assert pairs.percentile([7], part) == 7
    assert pairs.percentile([], part) == 0
    assert pairs.percentile([1, 2, 3], 50) == 2


def test_another_hold_is_told_by_what_it_would_have_split():
    found = health(*pair("1", 1), *pair("2", 2.9), *pair("3", 3.1), *pair("4", 12), asked=3.5)
    holds = {row["hold"]: (row["together"], row["split"]) for row in found["holds"]}

    assert holds[3.0] == (2, 2)
    assert holds[3.5] == (3, 1), "the one that was asked for"
    assert holds[10.0] == (found["together"], found["late"]), "the one of the configuration"
    assert holds[0.0] == (0, 4)


def test_the_advice_says_where_pairs_meet_and_what_a_shorter_hold_would_do():
    quick = [one for n in range(97) for one in pair(str(n), 3.2 if n == 96 else 1)]
    slow = [one for n in range(97, 100) for one in pair(str(n), 4)]

    assert health(*quick, *slow)["advice"] == [
        "97 % of pairs meet within 3.2 s; your hold is 10 s",
        "a hold of 4 s would keep 99 % together, and send what stays alone 6 s earlier",
    ]


def test_the_advice_says_which_hold_would_have_kept_pairs_together():
    found = health(*[one for n in range(40) for one in pair(str(n), 25 if n % 4 == 0 else 1)])

    assert "10 pairs came apart: a hold of 25 s would have kept 99 % together" in found["advice"]


def test_few_pairs_are_no_ground_for_advice():
    assert health(*pair("1", 1))["advice"] == ["1 pair is too few to say more; 20 would do"]


def test_ids_that_differ_by_their_form_alone_are_found():
    found = health(
        copy("A-0017", "pixel"), copy("a17", "server"), copy("#0042", "pixel"), copy("42", "server"),
        copy("7", "pixel"), copy("0007", "pixel"), copy("x", "server"), *pair("a-0017x", 1),
    )  # fmt: skip

    assert [set(one) for one in found["near"]] == [{"#0042", "42"}]
    assert found["near_total"] == 1
    assert {"form": "#9999", "conversions": 1} in found["forms"]["pixel"]
    assert "1 more would be pairs" in found["advice"][0]


@pytest.mark.parametrize(
    ("id_", "form"),
    [("1001", "9999"), ("EV-1001", "AA-9999"), ("x" * 40, "aaaaaaaaaaaaaaaaaaaa… (40 characters)"), ("Ü1", "A9"),
     ("0f8fad5b-d9cb-469f-a165-70867728950e", "a UUID")],
)  # fmt: skip
def test_the_form_of_an_id_tells_what_kind_it_is(id_, form):
    assert pairs.form(id_) == form


_copies = st.lists(
    st.builds(
        lambda id_, source, at, made_up: copy(id_, source, at, pairs=not made_up, event_id=id_ if made_up else ""),
        st.sampled_from("abcdef"),
        st.sampled_from(["pixel", "server", "app", "crm"]),
        st.integers(0, 9000),
        st.booleans(),
    ),
    max_size=30,
)


@given(_copies, st.integers(0, 5000), st.floats(0, 3600))
def test_the_classes_add_up_to_the_conversions_and_the_holds_to_the_pairs(copies, since, asked):
    found = health(*copies, since=since * 1000, asked=asked)
    classes = ("together", "late", "alone", "open", "not_held")

    assert found["conversions"] == len({one.key for one in copies})
    assert found["conversions"] == sum(found[name] for name in classes) + sum(found["missing"].values())
    for row in found["holds"]:
        assert row["together"] + row["split"] == found["together"] + found["late"]
    splits = [row["split"] for row in found["holds"]]
    assert splits == sorted(splits, reverse=True), "a longer hold splits no more"
    assert sum(row["pairs"] for row in found["histogram"]) == found["together"] + found["late"]
    assert found["repeats"] == len(copies) - len({(one.key, one.source) for one in copies})


def test_what_workers_counted_is_summed_by_name_and_kind():
    some = [{"purchase": {"late": 1}}, {"purchase": {"late": 2, "repeat": 1}, "refund": {"late": 1}}]

    assert pairs.summed(some) == {"purchase": {"late": 3, "repeat": 1}, "refund": {"late": 1}}


def test_of_a_small_log_all_is_read_and_of_a_busy_one_whole_partitions():
    assert tail.plan([0, 0], [90, 90], [100, 100], most=1000) == {0: 0, 1: 0}
    assert tail.plan([0, 50], [900, 900], [1000, 1000], most=400) == {0: 800, 1: 800}
    assert tail.plan([0] * 4, [0] * 4, [1000] * 4, most=2000) == {0: 0, 1: 0}
    assert tail.plan([0] * 4, [0] * 4, [1000] * 4, most=500) == {0: 500}
    assert tail.plan([0], [0], [0]) == {0: 0}
