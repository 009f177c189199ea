"""app/people.py: which copies are of one person."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import people
from app.events import Event
from tests.factories import make_event, sha


def copy(source: str = "pixel", *, ids: dict[str, str] | None = None, **user: str) -> Event:
    hashes: dict[str, Any] = {k: v if k == "user_id" else {"plain": sha(v)} for k, v in user.items()}
    return bare(source=source, user=hashes, ids=ids or {})


def bare(**parts: Any) -> Event:
    """Without what make_event fills in."""
    return make_event(user=None, ids=None, context=None) | {k: v for k, v in parts.items() if v}  # type: ignore[return-value]


def sizes(*copies: Event) -> list[int]:
    return sorted(len(some) for _, some in people.groups(copies))


ANNA, BERT = copy(email="anna"), copy(email="bert")


@pytest.mark.parametrize(
    ("copies", "expected"),
    [
        ([ANNA], [1]),
        ([ANNA, copy("server", email="anna")], [2]),
        ([ANNA, BERT], [1, 1]),
        ([copy(), copy("server")], [2]),
        ([copy(phone="1"), copy(phone="2")], [1, 1]),
        ([copy(user_id="1"), copy(user_id="2")], [1, 1]),
        ([copy(email="anna"), copy(phone="1")], [2]),
        ([copy(email="a", phone="1"), copy(email="b", phone="1")], [2]),
        ([copy(email="a", ids={"fbp": "x"}), copy(email="b", ids={"fbp": "x"})], [2]),
        ([copy(ids={"fbp": "x"}), copy(ids={"fbp": "y"})], [2]),
        ([copy(email="a", user_id="1"), copy(user_id="1"), copy(email="b")], [1, 2]),
    ],
    ids=[
        "one_copy",
        "one_person",
        "two_emails",
        "nobody_said_who",
        "two_phones",
        "two_user_ids",
        "an_email_and_a_phone_do_not_contradict",
        "two_emails_of_one_phone",
        "two_emails_of_one_browser",
        "two_browsers_may_be_one_person",
        "by_way_of_another",
    ],
)
def test_copies_are_of_different_people_only_if_they_say_so(copies, expected):
    assert sizes(*copies) == expected


def test_a_hash_that_came_as_a_hash_ties_together_and_never_apart():
    plain = bare(user={"email": {"plain": "a", "gmail": "b"}})

    assert sizes(plain, bare(user={"email": {"given": "c"}})) == [2]
    assert sizes(plain, bare(user={"email": {"given": "a"}}), BERT) == [1, 2]


def test_an_email_in_two_forms_is_one_email():
    one, other = bare(user={"email": {"plain": "a", "gmail": "b"}}), bare(user={"email": {"given": "b"}})

    assert sizes(one, other) == [2]


def test_a_copy_that_names_nobody_goes_to_the_first_group():
    nobody = copy("server")

    (_, first), (_, second) = people.groups([BERT, nobody, ANNA])

    assert first[1:] == [nobody]
    assert [first[0], second[0]] == sorted([ANNA, BERT], key=lambda c: c["user"]["email"]["plain"])


@given(
    st.lists(
        st.builds(
            copy,
            st.sampled_from(["pixel", "server"]),
            email=st.sampled_from("ab"),
            ids=st.sampled_from([{}, {"fbp": "x"}, {"fbp": "y"}]),
        )
        | st.builds(copy, st.sampled_from(["pixel", "server"]), phone=st.sampled_from("12"))
        | st.builds(copy),
        min_size=1,
        max_size=6,
    ),
    st.randoms(),
)
def test_the_order_of_copies_changes_neither_groups_nor_marks_and_none_is_lost(copies, random):
    def known(found: list[tuple[str, list[Event]]]) -> list[tuple[str, list[str]]]:
        return [(mark, sorted(map(repr, some))) for mark, some in found]

    groups = people.groups(copies)
    random.shuffle(copies)

    assert known(people.groups(copies)) == known(groups)
    assert sum(len(some) for _, some in groups) == len(copies)


def test_the_mark_of_a_person_is_that_of_his_group():
    assert {mark for mark, _ in people.groups([ANNA, BERT])} == {people.mark(ANNA), people.mark(BERT)}
    assert people.mark(copy()) == ""


@pytest.mark.parametrize(
    ("late", "is_one"),
    [
        (copy(email="bert"), True),
        (copy(email="anna"), False),
        (copy(phone="2"), True),
        (copy(email="bert", phone="1"), False),
        (copy(user_id="7"), False),
        (copy(), False),
        (bare(user={"email": {"given": "x"}}), False),
    ],
)
def test_a_stranger_shares_nothing_with_the_person_known(late, is_one):
    known = people.marks([copy(email="anna"), copy("server", phone="1")])

    assert len(known) == 10
    assert people.stranger(known, late) is is_one
    assert not people.stranger("", late)


def test_a_visitor_is_the_person_else_the_browser_else_the_device_else_nobody():
    anna = people.visitor(ANNA)

    assert anna == people.visitor(copy("server", email="anna", ids={"fbp": "x"})) != people.visitor(BERT)
    assert people.visitor(copy(ids={"fbp": "x"})) == people.visitor(copy("server", ids={"fbp": "x"})) != ""
    assert people.visitor(bare(context={"ip": "203.0.113.1"})) != ""
    assert people.visitor(copy()) == ""


# keyed marks

OLD, NEW = b"a-key-of-some-length", b"another-one-of-some-length"


def named(**user: Any) -> Event:
    return make_event(user={"email": None, "phone": None, "user_id": None, **user})


def test_under_a_key_marks_say_the_same_and_are_none_that_are_known_without_it():
    ada, grace = named(email={"plain": "a" * 64}, user_id="7"), named(email={"plain": "b" * 64}, user_id="8")
    keyed = people.marks([ada], NEW)

    assert len(keyed) == 15
    assert keyed != people.marks([ada], OLD)
    assert "aaaa" not in keyed
    assert not people.stranger(keyed, ada, [NEW])
    assert people.stranger(keyed, grace, [NEW])
    assert people.marks([named()], NEW) == ""


def test_after_a_rotation_rows_under_the_key_before_and_without_one_still_tell_strangers():
    ada, grace = named(user_id="7"), named(user_id="8")

    for known in (people.marks([ada], OLD), people.marks([ada])):
        assert not people.stranger(known, ada, [NEW, OLD])
        assert people.stranger(known, grace, [NEW, OLD])


def test_under_a_key_that_is_gone_nobody_is_a_stranger():
    assert not people.stranger(people.marks([named(user_id="7")], OLD), named(user_id="8"), [NEW])


def test_a_visitor_is_the_same_under_one_key_and_another_under_the_next():
    one = named(user_id="7")

    assert people.visitor(one, NEW) == people.visitor(one, NEW) != people.visitor(one, OLD)
    assert len(people.visitor(one, NEW)) == 6
