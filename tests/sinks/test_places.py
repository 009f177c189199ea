"""sinks/_places.py: states and ZIP codes of the USA, however they were typed; hashes of places, told in clear or as such."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sinks._places import hashes_of_places, us_state, us_zip
from tests.factories import sha


@pytest.mark.parametrize(
    ("region", "state"),
    [
        ("CA", "ca"),
        ("us-ca", "ca"),
        ("California", "ca"),
        ("District of Columbia", "dc"),
        ("N.Y.", "ny"),
        ("", ""),
        ("?", ""),
    ],
)
def test_us_states_are_two_letters(region, state):
    assert us_state(region) == state


@pytest.mark.parametrize(
    ("code", "zip_code"),
    [
        ("94025", "94025"),
        ("94025-1234", "94025"),
        ("940251234", "94025"),
        (" 94025 ", "94025"),
        ("940256", ""),
        ("D-10115", ""),
    ],
)
def test_us_zips_are_five_digits(code, zip_code):
    assert us_zip(code) == zip_code


def written(city, region, postal_code, country):
    return {"ct": city.lower(), "st": region.lower(), "zp": postal_code.lower(), "country": country.lower()}


OURS = {"city": "ct", "region": "st", "postal_code": "zp", "country": "country"}
hashes = hashes_of_places(written, {"city": "ct", "region": "st", "postal_code": "zp"})
_PLACES = st.dictionaries(st.sampled_from(sorted(OURS)), st.sampled_from(("", "A", "b", "c" * 300)))


@given(_PLACES, st.dictionaries(st.sampled_from(("city", "region", "postal_code")), st.sampled_from("de").map(sha)))
def test_each_place_is_hashed_as_it_is_written_and_what_arrived_as_a_hash_fills_what_is_missing(user, arrived):
    person: Any = {**user, "places": arrived} if arrived else user
    in_clear = {OURS[name]: [sha(text.lower())] for name, text in user.items() if text}
    as_hashes = {OURS[name]: [digest] for name, digest in arrived.items()}

    for _ in range(2):  # known the second time
        assert hashes(person) == as_hashes | in_clear


def test_only_what_may_be_a_place_is_remembered():
    asked: list[str] = []

    def write(city, *_):
        asked.append(city)
        return {}

    make = hashes_of_places(write, {})
    for city in ("Lisboa", "Lisboa", "x" * 300, "x" * 300):
        make({"city": city})

    assert asked == ["Lisboa", "x" * 300, "x" * 300]
