"""app/consent.py: signals, purpose and policy to a verdict that fails closed."""

import itertools
from typing import Any, Literal, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import consent, merge
from app.events import Json, Signal
from app.settings import ConsentPolicy
from sinks._base import Purpose

SIGNALS = ("ad_storage", "analytics_storage", "ad_user_data", "ad_personalization")
PURPOSES: tuple[Purpose, ...] = get_args(Purpose)
ALL = dict.fromkeys(SIGNALS, "granted")
REQUIRE, ASSUME = ConsentPolicy(absent="require"), ConsentPolicy(absent="assume")

#: Whatever makes a denial: each for advertising, the signals for whoever needs them.
DENIALS: list[Json] = [
    *({signal: "denied"} for signal in SIGNALS),
    {"gpc": True},
    {"us_privacy": "1YYN"},
    {"us_privacy": "1yyn"},
    {"us_privacy": "contradictory"},
    {"us_privacy": ""},
    {"tcf": "CPXxRfAPXxRfA"},
    {"gpp": "DBABMA~1YNN"},
]
CONSENTS: st.SearchStrategy[Json] = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(SIGNALS, st.sampled_from(get_args(Signal))),
        "gpc": st.booleans(),
        "us_privacy": st.sampled_from(("1YNN", "1YYN", "1---", "1NNN", "?")),
        "tcf": st.just("CPx"),
        "gpp": st.just("DBABMA"),
        "categories": st.dictionaries(st.just("ads"), st.booleans()),
    },
)
POLICIES = st.builds(
    ConsentPolicy,
    needs=st.none() | st.lists(st.sampled_from(SIGNALS), unique=True),
    absent=st.sampled_from(("require", "assume")),
)


def reason(signals: Json, purpose: str = "advertising", policy: ConsentPolicy = REQUIRE) -> str:
    """Why not, or "" when allowed."""
    verdict = consent.judge(signals, purpose, policy)
    assert verdict.allowed == (verdict.reason == "")
    assert verdict.basis
    return verdict.reason


# signals, purposes, policy


@pytest.mark.parametrize(
    ("purpose", "needs"),
    [
        ("advertising", {"ad_storage", "ad_user_data"}),
        ("analytics", {"analytics_storage"}),
        ("other", {"ad_user_data"}),
    ],
)
@pytest.mark.parametrize("signal", SIGNALS)
def test_each_purpose_needs_its_own_signals_and_no_other(purpose, needs, signal):
    without = {name: "granted" for name in SIGNALS if name != signal}

    assert reason(ALL, purpose) == ""
    assert reason(ALL | {signal: "denied"}, purpose) == ("consent_denied" if signal in needs else "")
    assert reason(without, purpose) == ("consent_absent" if signal in needs else "")
    assert reason(without, purpose, ASSUME) == ""


def test_every_purpose_of_a_sink_has_its_needs():
    assert set(consent.DEFAULT_NEEDS) == set(PURPOSES)


@pytest.mark.parametrize("purpose", PURPOSES)
@pytest.mark.parametrize(("policy", "expected"), [(REQUIRE, "consent_absent"), (ASSUME, "")])
def test_no_consent_at_all_is_judged_by_policy(purpose, policy, expected):
    assert reason({}, purpose, policy) == expected


@pytest.mark.parametrize("policy", [REQUIRE, ASSUME])
def test_a_denial_weighs_more_than_another_signals_absence(policy):
    assert reason({"ad_storage": "denied"}, "advertising", policy) == "consent_denied"


@pytest.mark.parametrize("purpose", PURPOSES)
@pytest.mark.parametrize("signal", SIGNALS)
def test_a_policy_of_its_own_replaces_the_needs_of_the_purpose(purpose, signal):
    policy = ConsentPolicy(needs=[signal])

    assert reason({signal: "granted"}, purpose, policy) == ""
    assert reason(ALL | {signal: "denied"}, purpose, policy) == "consent_denied"


@pytest.mark.parametrize("purpose", PURPOSES)
def test_a_policy_that_needs_nothing_lets_events_through_but_no_opt_out(purpose):
    policy = ConsentPolicy(needs=[])

    assert consent.judge({}, purpose, policy).basis == "no signal needed"
    assert reason(dict.fromkeys(SIGNALS, "denied"), purpose, policy) == ""
    assert reason({"gpc": True}, purpose, policy) == ("" if purpose == "analytics" else "consent_denied")


@pytest.mark.parametrize("value", ["", "GRANTED", "yes", "unknown", "contradictory", True, 1, [], {}])
@pytest.mark.parametrize("policy", [REQUIRE, ASSUME])
def test_a_signal_that_cannot_be_read_is_a_denial(value, policy):
    assert reason(ALL | {"ad_storage": value}, "advertising", policy) == "consent_denied"


# opt-outs


@pytest.mark.parametrize("opt_out", DENIALS[len(SIGNALS) :], ids=str)
@pytest.mark.parametrize("purpose", PURPOSES)
@pytest.mark.parametrize("policy", [REQUIRE, ASSUME])
def test_an_opt_out_or_a_string_that_is_not_read_denies_advertising_and_not_analytics(opt_out, purpose, policy):
    assert reason(ALL | opt_out, purpose, policy) == ("" if purpose == "analytics" else "consent_denied")


@pytest.mark.parametrize(
    ("us_privacy", "expected"),
    [
        ("1YNN", ""),
        ("1YNY", ""),
        ("1NNN", ""),
        ("1ynn", ""),
        ("1---", ""),
        ("1Y-N", ""),
        ("1YYN", "consent_denied"),
        ("1NYN", "consent_denied"),
        ("1-Y-", "consent_denied"),
        ("1yyn", "consent_denied"),
        # not read
        ("", "consent_denied"),
        ("1", "consent_denied"),
        ("1YN", "consent_denied"),
        ("1YNNN", "consent_denied"),
        ("1YNN\n", "consent_denied"),
        ("2YNN", "consent_denied"),
        ("-YNN", "consent_denied"),
        ("1XNN", "consent_denied"),
        ("1YXN", "consent_denied"),
        ("1YNX", "consent_denied"),
        ("1Y N", "consent_denied"),
        ("contradictory", "consent_denied"),
    ],
)
def test_us_privacy_strings(us_privacy, expected):
    assert reason(ALL | {"us_privacy": us_privacy}) == expected


def test_privacy_control_that_is_off_is_no_denial():
    assert reason(ALL | {"gpc": False}) == ""


def test_categories_decide_nothing():
    assert reason(ALL | {"categories": {"ads": False}}) == ""
    assert reason({"categories": {"ads": True}}) == "consent_absent"


def test_strings_that_contradict_each_other_after_the_merge_are_denied():
    merged = merge.merge_consent([ALL | {"us_privacy": "1YNN"}, {"us_privacy": "1NNN"}])

    assert reason(merged) == "consent_denied"


# the basis


@pytest.mark.parametrize(
    ("signals", "basis"),
    [
        (ALL, "ad_storage granted, ad_user_data granted"),
        ({"ad_storage": "denied"}, "ad_storage denied, ad_user_data absent"),
        (ALL | {"gpc": True}, "gpc on"),
        (ALL | {"us_privacy": "1YYN"}, "us_privacy opted out of sale"),
        (ALL | {"us_privacy": "secret@example.com"}, "us_privacy unreadable"),
        (ALL | {"tcf": "secret@example.com"}, "tcf string not decoded, counts as denied"),
    ],
)
def test_the_basis_tells_what_was_decided_on_and_quotes_no_string(signals, basis):
    assert consent.judge(signals, "advertising", REQUIRE).basis == basis


# P5: nothing added to a denial makes it a grant, and no denial added makes one


@given(CONSENTS, st.sampled_from(DENIALS), st.sampled_from(PURPOSES), POLICIES)
def test_a_denial_more_never_allows_what_was_denied(signals, denial, purpose, policy):
    if consent.judge(signals | denial, purpose, policy).allowed:
        assert consent.judge(signals, purpose, policy).allowed


@given(CONSENTS, st.sampled_from(DENIALS), st.sampled_from(PURPOSES), POLICIES)
def test_another_copy_with_a_denial_never_allows_what_was_denied(signals, denial, purpose, policy):
    merged = merge.merge_consent([signals, denial])

    if consent.judge(merged, purpose, policy).allowed:
        assert consent.judge(signals, purpose, policy).allowed


@given(CONSENTS, CONSENTS, st.sampled_from(PURPOSES), POLICIES)
def test_another_copy_never_allows_what_was_denied_outright(signals, others, purpose, policy):
    merged = merge.merge_consent([signals, others])

    if reason(signals, purpose, policy) == "consent_denied":
        assert reason(merged, purpose, policy) == "consent_denied"


@given(CONSENTS, st.sampled_from(PURPOSES), POLICIES)
def test_requiring_allows_no_more_than_assuming(signals, purpose, policy):
    stricter = policy.model_copy(update={"absent": "require"})

    if consent.judge(signals, purpose, stricter).allowed:
        assert consent.judge(signals, purpose, policy).allowed


Told = Literal["granted", "denied", "absent"]


def test_the_whole_table_of_what_advertising_may_have():
    def verdict(storage: Told, data: Told, policy: ConsentPolicy) -> str:
        told: dict[str, Any] = {"ad_storage": storage, "ad_user_data": data}
        return reason({k: v for k, v in told.items() if v != "absent"}, "advertising", policy)

    for storage, data in itertools.product(get_args(Told), repeat=2):
        denied, absent = "denied" in (storage, data), "absent" in (storage, data)
        assert verdict(storage, data, ASSUME) == ("consent_denied" if denied else "")
        assert verdict(storage, data, REQUIRE) == ("consent_denied" if denied else "consent_absent" if absent else "")
