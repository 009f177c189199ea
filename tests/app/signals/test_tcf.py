"""app/signals/tcf.py: TC strings of the IAB's own encoder, of ours, and garbage."""

import json
import tracemalloc
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.signals import Unreadable, tcf
from tests.app.signals import encoder

VECTORS = json.loads(Path(__file__).with_name("vectors.json").read_text())["tcf"]
VENDORS = st.lists(st.integers(1, 2000), unique=True, max_size=40)
PURPOSES = st.lists(st.integers(1, 24), unique=True, max_size=24)


def read(text: str) -> dict[str, Any]:
    return tcf.decode(text).as_json()


@pytest.mark.parametrize("name", VECTORS)
def test_what_the_iabs_encoder_wrote_is_read(name):
    told, read_back = VECTORS[name]["given"], read(VECTORS[name]["string"])

    assert read_back["purposes"] == {
        "consent": told.get("purposeConsents", []),
        "legitimate_interest": told.get("purposeLegitimateInterests", []),
    }
    assert read_back["vendors"] == {
        "consent": told.get("vendorConsents", []),
        "legitimate_interest": told.get("vendorLegitimateInterests", []),
        "disclosed": told.get("vendorsDisclosed"),
        "allowed": told.get("vendorsAllowed"),
    }
    assert read_back["special_feature_opt_ins"] == told.get("specialFeatureOptins", [])
    assert read_back["purpose_one_treatment"] == told.get("purposeOneTreatment", False)
    assert read_back["publisher_country"] == told.get("publisherCountryCode", "DE")


def test_everything_else_in_the_core_is_read():
    told = read(VECTORS["nothing"]["string"])

    assert {name: value for name, value in told.items() if name not in ("purposes", "vendors")} == {
        "created": "2026-02-03T00:00:00Z",
        "last_updated": "2026-02-03T00:00:00Z",
        "cmp_id": 31,
        "cmp_version": 640,
        "consent_screen": 1,
        "consent_language": "EN",
        "vendor_list_version": 142,
        "policy_version": 5,
        "is_service_specific": True,
        "use_non_standard_texts": False,
        "special_feature_opt_ins": [],
        "purpose_one_treatment": False,
        "publisher_country": "DE",
        "publisher_restrictions": [],
    }


def test_publisher_restrictions_are_read():
    assert read(VECTORS["restricted"]["string"])["publisher_restrictions"] == [
        {"purpose": 7, "type": "not_allowed", "vendors": [755, 756]},
        {"purpose": 2, "type": "require_consent", "vendors": [10]},
    ]


def test_what_the_publisher_itself_was_allowed_is_read():
    assert read(VECTORS["segments"]["string"])["publisher"] == {
        "purposes": {"consent": [1, 3], "legitimate_interest": [2]},
        "custom_purposes": {"consent": [2], "legitimate_interest": [1, 3]},
    }


@given(PURPOSES, PURPOSES, VENDORS, VENDORS, st.none() | VENDORS, st.booleans())
def test_whatever_is_encoded_is_read_back(purposes, interests, consents, others, disclosed, ranges):
    told = read(
        encoder.tc_string(
            purposes=purposes,
            legitimate_interests=interests,
            consents=consents,
            interests=others,
            disclosed=disclosed,
            ranges=ranges,
        )
    )

    assert told["purposes"] == {"consent": sorted(purposes), "legitimate_interest": sorted(interests)}
    assert told["vendors"] == {
        "consent": sorted(consents),
        "legitimate_interest": sorted(others),
        "disclosed": None if disclosed is None else sorted(disclosed),
        "allowed": None,
    }


def test_a_restriction_told_in_two_parts_is_one():
    text = encoder.tc_string(restrictions=[(7, 0, [755]), (7, 2, [9]), (7, 0, [3, 4])])

    assert read(text)["publisher_restrictions"] == [
        {"purpose": 7, "type": "not_allowed", "vendors": [3, 4, 755]},
        {"purpose": 7, "type": "require_legitimate_interest", "vendors": [9]},
    ]


WHOLE = VECTORS["segments"]["string"]
CORE = WHOLE.partition(".")[0]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "core: ends too early"),
        ("C", "core: ends too early"),
        ("CQ" + "*" * 40, "core: has a character that is not of base64url"),
        (CORE + "=", "core: has a character that is not of base64url"),
        (encoder.tc_string(version=1), "core: is of version 1; version 2 is read"),
        (encoder.tc_string(language="E\x7f"), "core: has a letter that is none"),
        (encoder.tc_string(restrictions=[(0, 0, [1])]), "core: has a publisher restriction that is none"),
        (encoder.tc_string(restrictions=[(25, 0, [1])]), "core: has a publisher restriction that is none"),
        (encoder.tc_string(restrictions=[(1, 3, [1])]), "core: has a publisher restriction that is none"),
        (encoder.tc_string(restrictions=[(1, 0, [0])]), "core: has a range that is none"),
        (CORE + "AAAAAA", "core: has something behind its end"),
        (CORE + "B", "core: has something behind its end"),
        (CORE + ".", "segment 2: ends too early"),
        (CORE + ".AAAA", "segment 2: is of a type that is not known"),
        (CORE + ".gAAA", "segment 2: is of a type that is not known"),
        (CORE + ".IAAA.IAAA", "segment 3: comes twice"),
        (CORE + ".I___", "disclosed_vendors: ends too early"),
        ("C" * 20_001, "core: is too long"),
    ],
)
def test_what_is_not_as_it_must_be_is_unreadable(text, why):
    with pytest.raises(Unreadable) as caught:
        tcf.decode(text)

    assert str(caught.value) == why


@pytest.mark.parametrize("name", VECTORS)
def test_a_string_that_was_cut_is_unreadable(name):
    """Wherever it was cut within a segment: what fills up its last byte is not told from its end."""
    *others, last = VECTORS[name]["string"].split(".")

    for length in range(len(last) - 4):
        with pytest.raises(Unreadable):
            tcf.decode(".".join([*others, last[:length]]))


@given(st.text(max_size=300) | st.text(encoder.ALPHABET + ".~", max_size=300).map("C{}".format))
def test_garbage_raises_nothing_else(text):
    with suppress(Unreadable):
        tcf.decode(text)


@given(st.integers(0, len(WHOLE) - 1), st.sampled_from(encoder.ALPHABET + ".=~ "))
def test_no_changed_character_raises_anything_else(place, character):
    with suppress(Unreadable):
        tcf.decode(WHOLE[:place] + character + WHOLE[place + 1 :])


def test_a_short_string_that_names_all_vendors_there_can_be_is_read_at_once():
    text = encoder.tc_string(restrictions=[(1 + n % 24, n % 3, range(1, 65536)) for n in range(600)])

    assert len(tcf.decode(text).restrictions) == 24


def test_a_string_that_names_very_many_vendors_takes_little_memory():
    """The last thousand are remembered."""
    every_other = range(1, 50_000, 2)
    string = encoder.tc_string(consents=every_other, interests=every_other, ranges=False)

    tracemalloc.start()
    try:
        said = tcf.decode(string)
        assert list(said.vendor_consents) == list(every_other)
        assert tracemalloc.get_traced_memory()[0] < 5 * len(string)
    finally:
        tracemalloc.stop()
