"""app/signals/gpp.py: GPP strings of the IAB's own encoder, of ours, and garbage."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.signals import Unreadable, gpp
from tests.app.signals import encoder

VECTORS = json.loads(Path(__file__).with_name("vectors.json").read_text())["gpp"]
_PREFIXES = ("usnat", "usca")


def sections(text: str) -> dict[str, Any]:
    found: dict[str, Any] = gpp.decode(text).as_json()["sections"]
    return found


@pytest.mark.parametrize("name", VECTORS)
def test_what_the_iabs_encoder_wrote_is_read(name):
    told, read = VECTORS[name]["given"], sections(VECTORS[name]["string"])

    assert set(read) == set(told)
    for section in _PREFIXES:
        for field, value in told.get(section, {}).items():
            assert read[section][field] == value


def test_the_fields_that_were_not_set_are_read_too():
    assert sections(VECTORS["usca_gpc"]["string"]) == {
        "usca": {
            "Version": 1,
            "SaleOptOutNotice": 0,
            "SharingOptOutNotice": 0,
            "SensitiveDataLimitUseNotice": 0,
            "SaleOptOut": 0,
            "SharingOptOut": 0,
            "SensitiveDataProcessing": [0] * 9,
            "KnownChildSensitiveDataConsents": [0, 0],
            "PersonalDataConsents": 0,
            "MspaCoveredTransaction": 1,
            "MspaOptOutOptionMode": 0,
            "MspaServiceProviderMode": 0,
            "Gpc": True,
        }
    }


def test_a_european_section_is_a_tc_string():
    read = sections(VECTORS["several"]["string"])["tcfeuv2"]

    assert read["purposes"]["consent"] == [1, 7]
    assert read["vendors"]["consent"] == [755, 804]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # the specification's own examples
        ("DBABTA~1YNN", {"uspv1": {"Version": 1, "Notice": "Y", "OptOutSale": "N", "LspaCovered": "N"}}),
        ("DBAA", {}),
    ],
)
def test_the_specifications_examples_are_read(text, expected):
    assert sections(text) == expected


def test_the_specifications_example_of_two_sections_is_read():
    text = "DBACNY~CPXxRfAPXxRfAAfKABENB-CgAAAAAAAAAAYgAAAAAAAA~1YNN"

    assert list(sections(text)) == ["tcfeuv2", "uspv1"]


def test_sections_that_are_not_read_are_named():
    text = encoder.gpp_string({9: "BAgAABA", 5: "anything", 99: "."})

    assert sections(text) == {"tcfcav1": {"read": False}, "usva": {"read": False}, "section 99": {"read": False}}


@given(st.lists(st.integers(1, 900), unique=True, max_size=12))
def test_whatever_sections_a_header_names_are_read_back(ids):
    text = encoder.gpp_string({one: "1YNN" for one in ids if one not in (2, 7, 8)})

    named = [gpp.NAMES.get(one, f"section {one}") for one in sorted(ids) if one not in (2, 7, 8)]
    assert list(sections(text)) == named


def test_a_range_of_sections_in_a_header_is_read():
    bits = encoder.number(3, 6) + encoder.number(1, 6) + encoder.number(1, 12) + "1"
    header = encoder.base64url(bits + encoder.fibonacci(9) + encoder.fibonacci(3))

    assert list(sections(f"{header}~a~b~c~d")) == ["usva", "usco", "usut", "usct"]


@given(st.sampled_from((0, 1, 2)), st.sampled_from((0, 1, 2)), st.none() | st.booleans())
def test_whatever_is_encoded_is_read_back(sale, targeted, gpc):
    text = encoder.gpp_string({7: encoder.us_national(SaleOptOut=sale, TargetedAdvertisingOptOut=targeted, gpc=gpc)})

    read = sections(text)["usnat"]
    assert (read["SaleOptOut"], read["TargetedAdvertisingOptOut"], read.get("Gpc")) == (sale, targeted, gpc)


NATIONAL = encoder.us_national()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "header: ends too early"),
        ("DBAB", "header: ends too early"),
        ("CBAA", "header: is not of type 3"),
        ("DCAA", "header: is of version 2; version 1 is read"),
        ("DBABTA", "header: names 1 sections, and 0 follow"),
        ("DBABTA~1YNN~1YNN", "header: names 1 sections, and 2 follow"),
        ("DBABTA~1YN", "uspv1: is not a 1 and three of Y, N and -"),
        (encoder.gpp_string({2: "CQ"}), "tcfeuv2 core: ends too early"),
        (encoder.gpp_string({7: ""}), "usnat: ends too early"),
        (encoder.gpp_string({7: "DAAAAAAAAAA"}), "usnat: is of version 3, which is not read"),
        (encoder.gpp_string({8: "CAAAAAAAAAA"}), "usca: is of version 2, which is not read"),
        (encoder.gpp_string({7: encoder.us_national(SaleOptOut=3)}), "usnat: has a value that is none"),
        (encoder.gpp_string({7: NATIONAL + "____"}), "usnat: has something behind its end"),
        (
            encoder.gpp_string({7: NATIONAL + ".gA"}),
            "usnat sub-section: is not of Global Privacy Control, or comes twice",
        ),
        (
            encoder.gpp_string({7: NATIONAL + ".QA.YA"}),
            "usnat sub-section: is not of Global Privacy Control, or comes twice",
        ),
        ("D" * 20_001, "header: is too long"),
    ],
)
def test_what_is_not_as_it_must_be_is_unreadable(text, why):
    with pytest.raises(Unreadable) as caught:
        gpp.decode(text)

    assert str(caught.value) == why


@pytest.mark.parametrize("name", [name for name in VECTORS if name != "virginia"])
def test_a_string_that_was_cut_is_unreadable(name):
    text = VECTORS[name]["string"]

    for length in range(len(text) - 2):
        if not set(text[length : length + 2]) & set(
            ".~"
        ):  # what fills up the last byte of a part is not told from its end
            with pytest.raises(Unreadable):
                gpp.decode(text[:length])


@given(st.text(max_size=200) | st.text(encoder.ALPHABET + ".~", max_size=200).map("DB{}".format))
def test_garbage_raises_nothing_else(text):
    with suppress(Unreadable):
        gpp.decode(text)
