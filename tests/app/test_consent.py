"""app/consent.py: what is said, purpose and policy to a verdict that fails closed; and what a sink may see of the event."""

import copy
import itertools
from typing import Any, Literal, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import consent, merge
from app.destination import ConsentPolicy, RegionalConsent
from app.events import Json, Signal
from sinks._base import Purpose
from tests.app.signals.encoder import gpp_string, tc_string, us_national
from tests.factories import events, make_event

SIGNALS = ("ad_storage", "analytics_storage", "ad_user_data", "ad_personalization")
STRINGS = ("tcf", "gpp", "us_privacy")
PURPOSES: tuple[Purpose, ...] = get_args(Purpose)
ALL = dict.fromkeys(SIGNALS, "granted")
REQUIRE, ASSUME = ConsentPolicy(absent="require"), ConsentPolicy(absent="assume")

EVERYTHING = tc_string(purposes=range(1, 12), consents=[755])
VIRGINIA = gpp_string({9: "BAgAABA"})
OPT_OUTS: list[Json] = [
    {"gpc": True},
    {"us_privacy": "1YYN"},
    {"us_privacy": "1yyn"},
    {"us_privacy": "contradictory"},
    {"us_privacy": ""},
    {"gpp": gpp_string({6: "1YYN"})},
    {"gpp": gpp_string({7: us_national(SaleOptOut=1)})},
    {"gpp": gpp_string({7: us_national(SharingOptOut=1)})},
    {"gpp": gpp_string({7: us_national(TargetedAdvertisingOptOut=1)})},
    {"gpp": gpp_string({7: us_national(SensitiveDataProcessing=[0, 2, 1] + [0] * 9)})},
    {"gpp": gpp_string({7: us_national(KnownChildSensitiveDataConsents=[0, 1])})},
    {"gpp": gpp_string({7: us_national(KnownChildSensitiveDataConsents=[2, 0])})},
    {"gpp": gpp_string({7: us_national(gpc=True)})},
]
UNREADABLE: list[Json] = [
    {"tcf": "CPXxRfAPXxRfA"},
    {"tcf": "contradictory"},
    {"gpp": "DBABMA~1YNN"},
    {"tcf": ""},
    {"gpp": "x"},
    {"gpp": VIRGINIA},
]

#: Whatever makes a denial: each for advertising, the signals for whoever needs them.
DENIALS: list[Json] = [*({signal: "denied"} for signal in SIGNALS), *OPT_OUTS, *UNREADABLE]
CONSENTS: st.SearchStrategy[Json] = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(SIGNALS, st.sampled_from(get_args(Signal))),
        "gpc": st.booleans(),
        "us_privacy": st.sampled_from(("1YNN", "1YYN", "1---", "1NNN", "?")),
        "tcf": st.sampled_from(
            ("CPx", EVERYTHING, tc_string(purposes=[1, 7]), tc_string(purposes=[1, 8], consents=[755]))
        ),
        "gpp": st.sampled_from(("DBABMA", gpp_string({7: us_national(SaleOptOut=2)}), gpp_string({2: EVERYTHING}))),
        "categories": st.dictionaries(st.just("ads"), st.booleans()),
    },
)
POLICIES = st.builds(
    ConsentPolicy,
    needs=st.none() | st.lists(st.sampled_from(SIGNALS), unique=True),
    absent=st.sampled_from(("require", "assume")),
    vendor=st.sampled_from((None, 0, 755)),
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


@pytest.mark.parametrize("opt_out", OPT_OUTS, ids=str)
@pytest.mark.parametrize("purpose", PURPOSES)
@pytest.mark.parametrize("policy", [REQUIRE, ASSUME])
def test_an_opt_out_denies_advertising_and_not_analytics(opt_out, purpose, policy):
    assert reason(ALL | opt_out, purpose, policy) == ("" if purpose == "analytics" else "consent_denied")


@pytest.mark.parametrize("unreadable", UNREADABLE, ids=str)
@pytest.mark.parametrize("purpose", PURPOSES)
@pytest.mark.parametrize("policy", [REQUIRE, ASSUME, ConsentPolicy(partial="strip"), ConsentPolicy(partial="flag")])
def test_a_string_that_cannot_be_read_denies_everything_it_might_have_spoken_of(unreadable, purpose, policy):
    assert reason(ALL | unreadable, purpose, policy) == "consent_denied"


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


def test_categories_decide_nothing_here():
    assert reason(ALL | {"categories": {"ads": False}}) == ""
    assert reason({"categories": {"ads": True}}) == "consent_absent"


def test_strings_that_contradict_each_other_after_the_merge_are_denied():
    merged = merge.merge_consent([ALL | {"us_privacy": "1YNN"}, {"us_privacy": "1NNN"}])

    assert reason(merged) == "consent_denied"


# TCF


def by_tcf(purpose: str = "advertising", policy: ConsentPolicy = REQUIRE, vendor: int | None = 755, **told: Any) -> str:
    """Why not, when a TC string is all that is told."""
    return consent.judge({"tcf": tc_string(**told)}, purpose, policy, vendor=vendor).reason


@pytest.mark.parametrize(
    ("purposes", "advertising", "analytics"),
    [
        ([1, 7], "", "consent_denied"),
        ([1, 8], "consent_denied", ""),
        ([1], "consent_denied", "consent_denied"),
        ([7, 8], "consent_denied", "consent_denied"),
        (range(2, 12), "consent_denied", "consent_denied"),
        ([], "consent_denied", "consent_denied"),
    ],
)
def test_a_tc_string_alone_grants_by_its_purposes(purposes, advertising, analytics):
    assert by_tcf(purposes=purposes, consents=[755]) == advertising
    assert by_tcf("analytics", purposes=purposes) == analytics


@pytest.mark.parametrize("signal", SIGNALS)
@pytest.mark.parametrize("purpose", range(1, 12))
def test_each_signal_hangs_on_its_purposes_and_no_other(signal, purpose):
    given = [one for one in range(1, 12) if one != purpose]

    why = by_tcf(policy=ConsentPolicy(needs=[signal]), purposes=given, consents=[755])

    assert why == ("consent_denied" if purpose in consent.TCF_PURPOSES[signal] else "")


@pytest.mark.parametrize(
    ("vendor", "setting", "consents", "expected"),
    [
        (755, None, [755], ""),
        (755, None, [804], "consent_denied"),
        (755, 804, [804], ""),
        (755, 804, [755], "consent_denied"),
        (755, 0, [], ""),
        (None, None, [], ""),
        (None, 804, [], "consent_denied"),
    ],
)
def test_the_vendor_must_be_named_where_the_platform_or_the_settings_have_one(vendor, setting, consents, expected):
    policy = ConsentPolicy(vendor=setting)

    assert by_tcf(policy=policy, vendor=vendor, purposes=[1, 7], consents=consents) == expected


@pytest.mark.parametrize(("disclosed", "expected"), [(None, ""), ([755], ""), ([], ""), ([804], "consent_denied")])
def test_a_vendor_that_was_not_shown_to_the_person_has_no_consent(disclosed, expected):
    assert by_tcf(purposes=[1, 7], consents=[755], disclosed=disclosed) == expected


@pytest.mark.parametrize(
    ("restrictions", "expected"),
    [
        ([(7, 0, [755])], "consent_denied"),
        ([(7, 1, [755])], ""),
        ([(7, 2, [755])], "consent_denied"),
        ([(7, 0, [754, 756])], ""),
        ([(2, 0, [755])], ""),
    ],
)
def test_what_the_publisher_does_not_allow_is_denied(restrictions, expected):
    assert by_tcf(purposes=[1, 7], consents=[755], restrictions=restrictions) == expected


@pytest.mark.parametrize(
    ("settings", "restrictions", "interests", "expected"),
    [
        ([], [], [755], "consent_denied"),
        ([7], [], [755], ""),
        ([7], [], [804], "consent_denied"),
        ([7], [(7, 0, [755])], [755], "consent_denied"),
        ([7], [(7, 1, [755])], [755], "consent_denied"),
        ([7], [(7, 2, [755])], [755], ""),
    ],
)
def test_legitimate_interest_will_do_only_where_the_settings_say_so(settings, restrictions, interests, expected):
    told = {"purposes": [1], "legitimate_interests": [7], "consents": [755], "interests": interests}

    assert by_tcf(policy=ConsentPolicy(legitimate_interest=settings), restrictions=restrictions, **told) == expected


def test_storage_is_never_a_legitimate_interest():
    policy = ConsentPolicy(legitimate_interest=[1])

    assert (
        by_tcf(policy=policy, purposes=[7], legitimate_interests=[1], consents=[755], interests=[755])
        == "consent_denied"
    )


def test_the_settings_can_ask_for_other_purposes_or_for_none():
    stricter = ConsentPolicy(purposes={"ad_user_data": [1, 7, 9]})
    silent = ConsentPolicy(needs=["analytics_storage"], purposes={"analytics_storage": []})

    assert by_tcf(policy=stricter, purposes=[1, 7], consents=[755]) == "consent_denied"
    assert by_tcf(policy=silent, purposes=[1, 7], consents=[755]) == "consent_absent"


@pytest.mark.parametrize("signals", [ALL, {"ad_storage": "denied"}, {"ad_user_data": "denied"}])
@pytest.mark.parametrize("purposes", [[], [1, 7]])
def test_signals_that_contradict_each_other_are_denied(signals, purposes):
    told = signals | {"tcf": tc_string(purposes=purposes)}

    assert reason(told) == ("" if signals is ALL and purposes else "consent_denied")


def test_a_european_section_of_a_gpp_string_grants_as_the_string_itself_does():
    assert reason({"gpp": gpp_string({2: EVERYTHING})}) == ""
    assert reason({"gpp": gpp_string({2: tc_string(purposes=[1])})}) == "consent_denied"


def test_a_us_section_without_an_opt_out_grants_nothing():
    told = {"gpp": gpp_string({7: us_national(SaleOptOut=2, SharingOptOut=2, TargetedAdvertisingOptOut=2, gpc=False)})}

    assert reason(told) == "consent_absent"
    assert reason(told, policy=ASSUME) == ""


# places


@pytest.mark.parametrize(
    ("place", "expected"),
    [("", "consent_absent"), ("DE", "consent_absent"), ("US", ""), ("US-NY", ""), ("US-CA", "consent_absent")],
)
def test_a_place_has_its_own_policy_and_its_part_goes_first(place, expected):
    policy = ConsentPolicy(regions={"US": {"absent": "assume"}, "US-CA": {"absent": "require"}})  # type: ignore[dict-item]

    assert consent.judge({}, "advertising", policy, place=place).reason == expected


def test_the_basis_names_the_place_whose_policy_decided():
    policy = ConsentPolicy(regions={"US": {"absent": "assume"}})  # type: ignore[dict-item]

    verdict = consent.judge({}, "advertising", policy, place="US-NY")

    assert verdict.basis == "ad_storage absent, ad_user_data absent (policy for US)"


@pytest.mark.parametrize(
    ("region", "user", "expected"),
    [
        (None, {}, ""),
        (None, {"country": "US"}, "US"),
        (None, {"country": "US", "region": "ca"}, "US-CA"),
        (None, {"country": "US", "region": "US-CA"}, "US-CA"),
        (None, {"country": "US", "region": "DE-BE"}, "US"),
        (None, {"country": "US", "region": "California"}, "US"),
        (None, {"region": "CA"}, ""),
        ("DE", {"country": "US"}, "DE"),
        ("contradictory", {"country": "US"}, ""),
    ],
)
def test_where_the_person_was(region, user, expected):
    event = make_event(user=None, consent=None) | {"user": user, "consent": {"region": region} if region else {}}

    assert consent.place_of(event) == expected


# in part


STRIP, FLAG = ConsentPolicy(partial="strip"), ConsentPolicy(partial="flag")
SOME = {"ad_storage": "granted", "ad_user_data": "denied"}


def part(signals: Json, policy: ConsentPolicy, flags: Any = ("opt_out", "signals")) -> str:
    verdict = consent.judge(signals, "advertising", policy, flags=flags)
    return verdict.part if verdict.allowed else verdict.reason


@pytest.mark.parametrize(
    ("signals", "dropped", "stripped", "flagged"),
    [
        (ALL, "", "", ""),
        (SOME, "consent_denied", "strip", "flag"),
        (ALL | {"gpc": True}, "consent_denied", "strip", "flag"),
        (SOME | {"gpc": True}, "consent_denied", "strip", "flag"),
        ({"ad_storage": "denied", "ad_user_data": "denied"}, *["consent_denied"] * 3),
        ({"ad_storage": "denied"}, *["consent_denied"] * 3),
        ({"ad_storage": "granted"}, *["consent_absent"] * 3),
        ({"gpc": True}, "consent_denied", "consent_absent", "consent_absent"),
        (ALL | {"us_privacy": "?"}, *["consent_denied"] * 3),
        (ALL | {"gpp": gpp_string({7: us_national(KnownChildSensitiveDataConsents=[1, 0])})}, *["consent_denied"] * 3),
    ],
)
def test_a_partial_consent_does_what_the_settings_say(signals, dropped, stripped, flagged):
    assert (part(signals, REQUIRE), part(signals, STRIP), part(signals, FLAG)) == (dropped, stripped, flagged)


@pytest.mark.parametrize(
    ("signals", "flags", "expected"),
    [
        (ALL | {"gpc": True}, ("opt_out",), "flag"),
        (SOME, ("opt_out",), "consent_denied"),
        (SOME | {"gpc": True}, ("opt_out",), "consent_denied"),
        (ALL | {"gpc": True}, (), "consent_denied"),
        ({"ad_storage": "denied", "ad_user_data": "granted"}, ("opt_out", "signals"), "consent_denied"),
        (SOME, (), "consent_denied"),
    ],
)
def test_what_a_platform_cannot_be_told_is_held_back(signals, flags, expected):
    assert part(signals, FLAG, flags) == expected


# what a sink sees


def seen(signals: Json, policy: ConsentPolicy = REQUIRE, vendor: int | None = None) -> Any:
    event = make_event(consent=None) | {"consent": signals}
    verdict = consent.judge(signals, "advertising", policy, flags=frozenset({"opt_out", "signals"}))
    return consent.applied(event, verdict, policy, vendor)  # type: ignore[arg-type]


def test_a_sink_finds_every_string_read_into_the_four_signals():
    text = tc_string(purposes=[1, 7, 3], consents=[755])

    assert seen({"tcf": text}, vendor=755)["consent"] == {
        "tcf": text,
        "ad_storage": "granted",
        "ad_user_data": "granted",
        "ad_personalization": "denied",
        "analytics_storage": "denied",
    }


@pytest.mark.parametrize("opt_out", OPT_OUTS, ids=str)
def test_a_sink_finds_an_opt_out_as_a_denial_of_what_is_for_advertising(opt_out):
    told = seen(ALL | opt_out)["consent"]

    assert [told[name] for name in SIGNALS] == ["denied", "granted", "denied", "denied"]


@pytest.mark.parametrize(("policy", "limited"), [(FLAG, True), (STRIP, None), (REQUIRE, None)])
def test_only_what_goes_with_a_restriction_asks_the_sink_for_it(policy, limited):
    assert seen(ALL | {"gpc": True}, policy)["consent"].get("limited") is limited


def test_what_is_stripped_has_nothing_that_tells_who_it_was():
    told = seen(SOME, STRIP)

    assert not {"user", "ids", "custom"} & set(told)
    assert not {"ip", "user_agent"} & set(told["context"])
    assert not any(
        sign in told["context"][name] for name in ("url", "referrer") for sign in "?#" if name in told["context"]
    )
    assert told["commerce"] == make_event()["commerce"]


@given(events(), POLICIES, st.sampled_from(("", "strip", "flag")))
def test_whatever_the_event_it_is_seen_without_a_change_of_its_own(event, policy, part):
    before = copy.deepcopy(event)

    consent.applied(event, consent.Verdict(allowed=True, basis="", part=part), policy, 755)

    assert event == before


# the basis


@pytest.mark.parametrize(
    ("signals", "basis"),
    [
        (ALL, "ad_storage granted, ad_user_data granted"),
        ({"ad_storage": "denied"}, "ad_storage denied, ad_user_data absent"),
        (ALL | {"gpc": True}, "gpc on"),
        (ALL | {"us_privacy": "1YYN"}, "us_privacy opted out of sale"),
        (ALL | {"us_privacy": "secret@example.com"}, "us_privacy unreadable, counts as denied"),
        (ALL | {"tcf": "secret@example.com"}, "tcf unreadable, counts as denied"),
        (ALL | {"gpp": "secret@example.com"}, "gpp unreadable, counts as denied"),
        (ALL | {"tcf": "contradictory"}, "tcf contradictory, counts as denied"),
        (ALL | {"gpp": "contradictory"}, "gpp contradictory, counts as denied"),
        (ALL | {"us_privacy": "contradictory"}, "us_privacy contradictory, counts as denied"),
        (
            ALL | {"tcf": tc_string(purposes=[1])},
            "ad_storage granted, ad_user_data denied by tcf purpose 7 (contradictory)",
        ),
        ({"tcf": EVERYTHING}, "ad_storage granted by tcf, ad_user_data granted by tcf"),
        ({"tcf": tc_string(purposes=[1])}, "ad_storage granted by tcf, ad_user_data denied by tcf purpose 7"),
        (ALL | {"gpp": VIRGINIA}, "gpp usva is not read, counts as denied"),
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


@given(CONSENTS, CONSENTS | st.sampled_from(DENIALS), st.sampled_from(PURPOSES), POLICIES, POLICIES)
def test_what_would_keep_an_event_back_in_a_late_copy_is_heard_wherever_the_person_is(
    known, late, purpose, policy, there
):
    policy = policy.model_copy(update={"regions": {"DE": RegionalConsent(needs=there.needs, absent=there.absent)}})
    narrowed = merge.merge_consent([known, merge.denials([late])])
    same = all(known.get(name, late[name]) == late[name] for name in STRINGS if name in late)

    for place in ("", "DE") if same else ():
        before, after = (consent.judge(one, purpose, policy, place=place) for one in (known, narrowed))
        if before.allowed and not after.allowed:
            assert consent.may_deny(late)
            assert consent.denies(late, purpose, policy)


@given(CONSENTS, CONSENTS)
def test_what_a_late_copy_denies_grants_no_signal(known, late):
    denied = merge.denials([late])
    narrowed = merge.merge_consent([known, denied])

    assert merge.denials([denied]) == denied
    assert not any(narrowed.get(name) == "granted" != known.get(name) for name in SIGNALS)


@pytest.mark.parametrize(
    ("said", "purpose", "flags", "expected"),
    [
        ({"ad_user_data": "denied"}, "advertising", (), True),
        ({"ad_user_data": "denied"}, "analytics", (), False),
        ({"ad_user_data": "denied"}, "analytics", ("signals",), True),  # the platform is told so
        ({"ad_personalization": "denied"}, "advertising", ("opt_out",), False),
        ({"gpc": True}, "advertising", (), True),
        ({"gpc": True}, "analytics", (), False),
        ({"gpc": True}, "analytics", ("opt_out",), True),
        ({"tcf": "?"}, "analytics", (), True),
        ({"tcf": EVERYTHING}, "advertising", ("signals",), False),
        (ALL, "advertising", ("signals",), False),
        ({}, "advertising", ("signals",), False),
    ],
)
def test_a_copy_denies_what_the_destination_needs_or_tells(said, purpose, flags, expected):
    assert consent.denies(said, purpose, REQUIRE, flags=flags) is expected


Told = Literal["granted", "denied", "absent"]


def test_the_whole_table_of_what_advertising_may_have():
    def verdict(storage: Told, data: Told, policy: ConsentPolicy) -> str:
        told: dict[str, Any] = {"ad_storage": storage, "ad_user_data": data}
        return reason({k: v for k, v in told.items() if v != "absent"}, "advertising", policy)

    for storage, data in itertools.product(get_args(Told), repeat=2):
        denied, absent = "denied" in (storage, data), "absent" in (storage, data)
        assert verdict(storage, data, ASSUME) == ("consent_denied" if denied else "")
        assert verdict(storage, data, REQUIRE) == ("consent_denied" if denied else "consent_absent" if absent else "")
