"""sinks/_places.py: states and ZIP codes of the USA, however they were typed."""

import pytest

from sinks._places import us_state, us_zip


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
