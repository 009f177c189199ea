"""sinks/_base.py: what all sinks are made of."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sinks._base import Payload, currency_code, hashed, hashed_lists, listed

BODIES = st.dictionaries(st.text(max_size=3), st.text(max_size=3) | st.integers(0, 9) | st.none(), max_size=3)


@given(st.lists(BODIES, max_size=3))
def test_the_list_of_a_request_says_what_its_events_say(bodies):
    batch = [Payload("id", body) for body in bodies]

    assert orjson.loads(orjson.dumps({"data": listed(batch)})) == {"data": bodies}
    assert [payload.body for payload in batch] == bodies


@given(BODIES, BODIES)
def test_payloads_are_equal_that_say_the_same_in_whatever_order(body, other):
    turned = dict(reversed(body.items()))

    assert Payload("id", body, ("group",)) == Payload("id", orjson.dumps(turned), ("group",))
    assert (Payload("id", body) == Payload("id", other)) is (body == other)


@pytest.mark.parametrize(
    "other", [Payload("b", {}), Payload("a", {}, ("g",)), Payload("a", {}, (), 7), Payload("a", {}, (), None, 7)]
)
def test_payloads_differ_by_all_that_they_hold(other):
    assert Payload("a", {}) != other


def test_with_another_body_it_stays_the_same_event():
    payload = Payload("a", {"x": 1}, ("g",), 7, 9)

    assert payload.with_body({"y": 2}) == Payload("a", {"y": 2}, ("g",), 7, 9)
    assert payload.with_body({"y": 2}, ("h",)) == Payload("a", {"y": 2}, ("h",), 7, 9)
    assert payload.body == {"x": 1}


def test_what_no_json_can_hold_is_no_payload():
    with pytest.raises(TypeError):
        Payload("a", {"x": object()})


USER = {"email": {"plain": "e1", "gmail": "e2"}, "phone": {"given": "p"}, "gender": {"letter": "g"}, "birth_date": {}}


def test_each_identifier_is_taken_in_the_variant_that_is_wanted_else_as_it_was_given():
    assert hashed(
        USER, {"email": "gmail", "phone": "digits", "gender": "other", "birth_date": "ymd", "street": "plain"}
    ) == {
        "email": "e2",
        "phone": "p",
    }
    assert hashed_lists(USER, {"email": ("plain", "em"), "phone": ("e164", "ph"), "gender": ("other", "ge")}) == {
        "em": ["e1"],
        "ph": ["p"],
    }


@pytest.mark.parametrize(
    ("text", "code"), [("EUR", "EUR"), ("usd", "USD"), ("EU", ""), ("EURO", ""), ("", ""), ("E1R", "")]
)
def test_a_currency_is_three_letters(text, code):
    assert currency_code(text) == code
