"""app/signals/: the short strings, Google's and the older one for the US, and telling all kinds apart."""

import json
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import signals
from app.signals import Unreadable, google, us_privacy

VECTORS = json.loads(Path(__file__).with_name("vectors.json").read_text())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("G111", {"ad_storage": "granted", "analytics_storage": "granted"}),
        ("G110", {"ad_storage": "granted", "analytics_storage": "denied"}),
        ("G101", {"ad_storage": "denied", "analytics_storage": "granted"}),
        ("G100", {"ad_storage": "denied", "analytics_storage": "denied"}),
        ("G1--", {}),
        ("G1-1", {"analytics_storage": "granted"}),
        ("G12x", {"ad_storage": "denied", "analytics_storage": "denied"}),
    ],
)
def test_gcs_is_read_and_an_unknown_sign_denies(text, expected):
    assert google.gcs(text) == expected


@pytest.mark.parametrize(
    ("letter", "said"),
    [
        *((letter, "denied") for letter in "pqmu"),
        *((letter, "granted") for letter in "trnv"),
        *((letter, "denied") for letter in "aezPRV"),
    ],
)
def test_a_letter_of_gcd_is_the_last_word_on_its_signal(letter, said):
    assert google.gcd(f"13{letter}3l3l3l1l1") == {"ad_storage": said}


def test_gcd_tells_the_four_signals_in_order():
    assert google.gcd("11p1t1q1v5") == {
        "ad_storage": "denied",
        "analytics_storage": "granted",
        "ad_user_data": "denied",
        "ad_personalization": "granted",
    }


@pytest.mark.parametrize("text", ["", "G1", "G11", "G1111", "G211", "g111", "111"])
def test_what_is_no_gcs_is_unreadable(text):
    with pytest.raises(Unreadable):
        google.gcs(text)


@pytest.mark.parametrize(
    "text", ["", "11p1t1q1", "11p1t1q1v", "21p1t1q1v5", "11p1t1q1v5!", "11p1t11v5", "11p1t1q1v5" + "l1" * 11]
)
def test_what_is_no_gcd_is_unreadable(text):
    with pytest.raises(Unreadable):
        google.gcd(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1YNN", us_privacy.UsPrivacy(notice=True, opt_out_sale=False, lspa=False)),
        ("1nyy", us_privacy.UsPrivacy(notice=False, opt_out_sale=True, lspa=True)),
        ("1---", us_privacy.UsPrivacy(notice=None, opt_out_sale=None, lspa=None)),
    ],
)
def test_us_privacy_is_read(text, expected):
    assert us_privacy.decode(text) == expected


@pytest.mark.parametrize("text", ["", "1", "1YN", "1YNNN", "1YNN\n", "2YNN", "1XNN", "1Y N", "1ＹNN"])
def test_what_is_no_us_privacy_string_is_unreadable(text):
    with pytest.raises(Unreadable):
        us_privacy.decode(text)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("us_privacy", "1YNN"),
        ("us_privacy", "1---"),
        ("gcs", "G100"),
        ("gcd", "13r3r3r2r5l1"),
        *(("tcf", one["string"]) for one in VECTORS["tcf"].values()),
        *(("gpp", one["string"]) for one in VECTORS["gpp"].values()),
    ],
)
def test_a_string_tells_its_kind_by_its_beginning(kind, text):
    assert signals.kind_of(text) == kind
    assert signals.told(kind, text) is not None


@pytest.mark.parametrize("text", ["", "2~1.35.41~dv.", "yes", "contradictory"])
def test_a_string_of_no_kind_that_is_read_says_so(text):
    with pytest.raises(Unreadable):
        signals.kind_of(text)


def test_a_tc_string_of_version_1_is_told_apart_and_not_read():
    text = "BOEFEAyOEFEAyAHABDENAI4AAAB9vABAASA"

    assert signals.kind_of(text) == "tcf"
    with pytest.raises(Unreadable, match="is of version 1; version 2 is read"):
        signals.told("tcf", text)


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        ("tcf", VECTORS["tcf"]["segments"]["string"], True),
        ("gpp", VECTORS["gpp"]["several"]["string"], True),
        ("us_privacy", "1yn-", True),
        ("tcf", "1YNN", False),
        ("gpp", VECTORS["tcf"]["segments"]["string"], False),
        ("us_privacy", "1YN", False),
        ("tcf", "CQ ada@example.com", False),
        ("tcf", "YWRhQGV4YW1wbGUuY29t", False),  # an address in base64
        ("tcf", 7, False),
    ],
)
def test_what_cannot_be_a_string_of_its_kind_is_seen_at_once(kind, text, expected):
    assert signals.looks_like(kind, text) is expected


@given(st.sampled_from(sorted(signals.KINDS)), st.text(max_size=60))
def test_no_string_raises_anything_else(kind, text):
    with suppress(Unreadable):
        signals.told(kind, text)
