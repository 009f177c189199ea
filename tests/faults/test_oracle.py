"""The oracle would notice: a judge that never finds anything proves nothing. Every test but the first few plants a lie."""

import json
from dataclasses import replace

import pytest

from app.merge import merge
from app.normalize import Inlet, Normalized, normalize
from sinks import SINKS
from sinks._base import Payload
from tests.factories import encode
from tests.faults.conversions import SOURCES, Attempt, Conversion
from tests.faults.oracle import Evidence, Fault, Logged, Oracle, delivery, too_few

NOW = 1_795_420_800.0
PID, OTHER = 4711, 4712
SETTINGS = {
    "meta": {"dataset_id": "1234567890", "access_token": {"env": "X"}},
    "ga4": {"measurement_id": "G-DEMO123456", "api_secret": {"env": "X"}},
}


def sink(name):
    kind = SINKS[name]
    return kind(kind.Settings.model_validate({"sink": name, "browser_tag": "none", **SETTINGS[name]}))


def delivered(one, *sources, to="meta", at=NOW + 4, by=PID, again=False):
    """What the platform would list, had these copies been merged and sent by our own code."""
    events = []
    for attempt in (attempt for attempt in one.attempts if attempt.source in sources):
        inlet = Inlet("t", "capistream", "shop", attempt.source)
        body = one.copy(attempt.source) | {"time": int(attempt.begun * 1000)}
        (result,) = normalize(body, inlet, int(attempt.begun * 1000), {"request": attempt.origin})
        assert isinstance(result, Normalized)
        events.append(result.event)
    payload = encode(sink(to), merge(events))
    assert isinstance(payload, Payload), payload
    body = json.loads(sink(to).request([payload], {"access_token": "T", "api_secret": "T"}).body)
    (event,) = body.pop("events", None) or body.pop("data")
    return delivery(
        to,
        {
            "event_id": event.get("event_id"),
            "received": at,
            "duplicate": again,
            "event": event,
            "request": {"envelope": body, "headers": {"X-Worker": str(by)}},
        },
    )


class Case:
    """One purchase, both copies of which were acknowledged a second apart, and what the world says of it."""

    def __init__(self, **more):
        self.oracle = Oracle(1)
        self.one = self.oracle.conversions["c1"] = Conversion("c1", **more)
        self.one.attempts = [
            Attempt(source, "bus", NOW + n, NOW + n + 0.01, f"orders/0/{n}") for n, source in enumerate(SOURCES)
        ]
        self.logged = [Logged(a.source, a.origin, a.begun, a.begun + 0.02) for a in self.one.attempts]
        self.deliveries = [delivered(self.one, *SOURCES, to=to) for to in self.oracle.destinations]
        self.receipts = {("c1", to): {"delivered"} for to in self.oracle.destinations}
        self.recorded = {("c1", to): [NOW + 4.1] for to in self.oracle.destinations}
        self.faults = []

    def verdict(self):
        evidence = Evidence(self.deliveries, self.faults, {"c1": self.logged}, self.receipts, self.recorded)
        return self.oracle.judge(evidence)

    def instead(self, to, *deliveries):
        self.deliveries = [d for d in self.deliveries if d.destination != to] + list(deliveries)

    def again(self, *, after=5.0, by=PID, to="meta"):
        self.deliveries.append(delivered(self.one, *SOURCES, to=to, at=NOW + 4 + after, by=by, again=to == "meta"))


@pytest.mark.parametrize(
    "more", [{}, {"same_id": False}, {"name": "add_to_cart"}], ids=["purchase", "two event ids", "no hold"]
)
def test_complete_deliveries_are_good(more):
    case = Case(**more)

    verdict = case.verdict()

    assert verdict.good, verdict.bad
    assert (verdict.conversions, verdict.copies, verdict.repeated_requests, verdict.doubles_left) == (1, 2, 0, 0)


def test_what_was_never_acknowledged_is_no_obligation():
    case = Case()
    case.one.attempts = [replace(attempt, origin="") for attempt in case.one.attempts]
    case.deliveries, case.receipts = [], {}

    assert case.verdict().good


def test_and_yet_it_may_arrive():
    case = Case()
    case.one.attempts = [replace(attempt, origin="") for attempt in case.one.attempts]

    assert case.verdict().good


# -- lost


@pytest.mark.parametrize("to", ["meta", "ga4"])
def test_a_missing_delivery_is_lost(to):
    case = Case()
    case.instead(to)

    assert case.verdict().lost == [f"c1 at {to}"]


def test_an_acknowledged_copy_that_never_reached_the_log_is_lost_though_the_conversion_arrived():
    case = Case(name="add_to_cart")
    case.instead("meta", delivered(case.one, "pixel"))
    case.instead("ga4", delivered(case.one, "pixel", to="ga4"))
    case.logged = case.logged[:1]

    assert case.verdict().lost == ["c1: the server's copy orders/0/1"]


# -- split


def test_a_delivery_without_a_copy_of_its_hold_is_split():
    case = Case()
    case.instead("ga4", delivered(case.one, "pixel", to="ga4"))

    verdict = case.verdict()

    assert verdict.split == ["c1 at ga4 lacks server"]
    assert not verdict.tardy


def test_a_copy_that_came_after_the_hold_may_be_missing():
    case = Case()
    case.logged[1] = replace(case.logged[1], received=NOW + 3.5)
    for to in case.oracle.destinations:
        case.instead(to, delivered(case.one, "pixel", to=to))

    assert case.verdict().good


def test_a_hold_begins_with_the_first_copy_in_the_log_even_if_nobody_acknowledged_it():
    case = Case()
    case.logged.insert(0, Logged("pixel", "request-nobody-answered", NOW - 2.5, NOW - 2.4))
    case.logged = [case.logged[0], case.logged[2]]
    case.one.attempts.insert(0, Attempt("pixel", "collector", NOW - 2.6, NOW - 2, ""))
    del case.one.attempts[1]
    for to in case.oracle.destinations:
        case.instead(to, delivered(case.one, "pixel", to=to))

    assert case.verdict().good, "the server's copy came 3.5 s after it"


@pytest.mark.parametrize("way", ["bus", "collector"])
def test_a_copy_that_was_longer_on_its_way_than_the_clock_waits_for_is_counted_apart(way):
    case = Case()
    origin = "orders/0/1" if way == "bus" else "request"
    case.one.attempts[1] = Attempt("server", way, NOW + 1, NOW + 6, origin)
    case.logged[1] = Logged("server", origin, NOW + 1, NOW + 6)
    for to in case.oracle.destinations:
        case.instead(to, delivered(case.one, "pixel", to=to))

    verdict = case.verdict()

    assert verdict.good
    assert verdict.tardy == ["c1 at meta lacks server", "c1 at ga4 lacks server"]


# -- doubled


def test_a_second_delivery_without_a_fault_is_unexplained():
    case = Case()
    case.again()

    verdict = case.verdict()

    assert len(verdict.unexplained) == 1
    assert (verdict.repeated_requests, verdict.doubles_left) == (1, 0)


def test_a_double_that_the_platform_does_not_recognise_is_counted():
    case = Case(name="add_to_cart")
    case.again(to="ga4")

    assert case.verdict().doubles_left == 1


def around(kind, **more):
    """A fault that struck half a second after the first delivery."""
    return Fault(kind, NOW + 4.5, NOW + 4.6, **more)


@pytest.mark.parametrize(
    ("fault", "explains"),
    [
        (around("kill", pid=PID), True),
        (around("kill", pid=OTHER), False),  # somebody else died
        (around("exit", pid=PID), True),
        (around("term-hard", pid=PID), True),
        (around("term", pid=PID), False),  # it ended in good order
        (around("stop", pid=PID), True),
        (around("broker"), True),
        (around("offsets"), False),  # reading again is no reason to send again
        (around("join"), False),
        (around("collector"), False),
        (around("poison"), False),
        (around("latency", destination="meta"), False),
        (around("throttle", destination="meta"), False),
        (Fault("reset", NOW + 3, NOW + 5, destination="meta"), True),
        (Fault("reset", NOW + 3, NOW + 5, destination="ga4"), False),  # another platform's
        (Fault("timeout", NOW + 3, NOW + 5, destination="meta"), True),
        (Fault("kill", NOW + 60, NOW + 60, pid=PID), False),  # of another time
        (Fault("stop", NOW - 10, NOW + 5, pid=OTHER), False),
    ],
)
def test_a_second_delivery_is_explained_by_what_kept_its_sender_from_recording_the_first(fault, explains):
    case = Case()
    case.recorded = {("c1", "meta"): [NOW + 9.1], ("c1", "ga4"): [NOW + 4.1]}
    case.faults = [fault]
    case.again(by=OTHER)

    verdict = case.verdict()

    assert verdict.good is explains, verdict.bad
    assert sum(verdict.explained.values()) == explains


def test_what_a_sleeper_sends_with_its_first_breath_is_explained_and_nothing_later():
    case = Case()
    case.faults = [Fault("own", NOW - 6, NOW + 9, pid=OTHER)]
    case.recorded = {}
    case.again(by=OTHER, after=5.2)
    late = Case()
    late.faults, late.recorded = case.faults, {}
    late.again(by=OTHER, after=8)

    assert case.verdict().good
    assert late.verdict().unexplained


def test_whoever_slept_until_it_sent_could_not_know_what_was_recorded_meanwhile():
    case = Case()
    case.again(by=OTHER)
    case.recorded = {("c1", "meta"): [NOW + 4.1]}
    case.faults = [Fault("own", NOW - 6, NOW + 9, pid=OTHER)]

    assert case.verdict().good

    case.faults = [Fault("own", NOW - 6, NOW + 9, pid=PID)]

    assert case.verdict().unexplained


def test_no_fault_excuses_a_delivery_whose_outcome_had_been_recorded_before():
    case = Case()
    case.faults = [around("kill", pid=PID)]
    case.again(by=OTHER)

    assert case.verdict().unexplained, "Kafka had the row 0.4 s before the kill"


def test_but_a_row_may_come_too_late_for_whoever_took_over():
    case = Case()
    case.faults = [Fault("stop", NOW + 4, NOW + 16, pid=PID)]
    case.recorded = {("c1", "meta"): [NOW + 16.2]}
    case.again(by=OTHER, after=14)

    assert case.verdict().good


def nine_repeated(*faults):
    """By whoever took over from PID."""
    case = Case()
    case.faults, case.recorded = list(faults), {}
    for n in range(9):
        one = case.oracle.conversions[f"d{n}"] = Conversion(f"d{n}")
        one.attempts = case.one.attempts
        for at, by in ((NOW + 4 + n / 100, PID), (NOW + 20, OTHER)):
            case.deliveries.append(delivered(one, *SOURCES, at=at, by=by, again=by == OTHER))
    return case.oracle.judge(Evidence(case.deliveries, case.faults))


def test_one_kill_explains_no_more_requests_than_one_worker_has_under_way():
    (said,) = nine_repeated(around("kill", pid=PID)).unexplained

    assert said == f"9 requests of {PID} to meta repeated for one kill"


@pytest.mark.parametrize(
    "other", [Fault("reset", NOW + 4, NOW + 5, destination="meta"), Fault("broker", NOW + 4, NOW + 5)]
)
def test_what_a_reset_or_an_outage_explains_is_not_put_down_to_the_kill_of_its_sender(other):
    verdict = nine_repeated(around("kill", pid=PID), other)

    assert (verdict.unexplained, verdict.explained) == ([], {other.kind: 9})


# -- changed, invented, unlawful


def test_an_invented_event_is_wrong():
    case = Case()
    case.deliveries.append(delivered(replace(case.one, id="nobody"), *SOURCES))

    assert case.verdict().wrong == ["nobody: never issued"]


def change(there, *path):
    """The delivery with another value at this place of its event."""
    event = {**there.event}
    part = event
    for name in path[:-1]:
        part[name] = part[name].copy()
        part = part[name]
    part[path[-1]] = "changed"
    return replace(there, event=event)


@pytest.mark.parametrize(
    ("to", "path"),
    [
        ("meta", ("custom_data", "value")),
        ("meta", ("custom_data", "contents")),
        ("meta", ("custom_data", "currency")),
        ("meta", ("user_data", "em")),
        ("meta", ("user_data", "fbp")),
        ("meta", ("user_data", "client_ip_address")),
        ("meta", ("event_source_url",)),
        ("meta", ("event_id",)),
        ("meta", ("event_name",)),
        ("meta", ("surplus",)),
        ("ga4", ("params", "value")),
        ("ga4", ("params", "items")),
        ("ga4", ("params", "page_location")),
        ("ga4", ("consent",)),
        ("ga4", ("client_id",)),
        ("ga4", ("params", "surplus")),
    ],
)
def test_a_changed_payload_is_wrong(to, path):
    case = Case()
    case.instead(to, change(delivered(case.one, *SOURCES, to=to), *path))

    (said,) = case.verdict().wrong

    assert path[0] in said


@pytest.mark.parametrize("to", ["meta", "ga4"])
def test_the_time_of_another_copy_is_wrong(to):
    case = Case()
    there = delivered(case.one, *SOURCES, to=to)
    case.instead(to, replace(there, time=there.time - (1 if to == "meta" else 1_000_000)))

    assert "which no copy of the server has" in case.verdict().wrong[0]


def test_the_money_of_the_page_in_place_of_the_back_ends_is_wrong():
    case = Case()
    there = delivered(case.one, *SOURCES)
    case.instead("meta", replace(there, event=there.event | {"custom_data": there.event["custom_data"] | {"value": 1}}))

    assert case.one.value("pixel") != case.one.value("server")
    assert case.verdict().wrong


def test_a_repetition_with_other_content_is_wrong_even_where_each_is_right_by_itself():
    case = Case()
    case.faults, case.recorded = [around("kill", pid=PID)], {}
    case.deliveries.append(delivered(case.one, "server", at=NOW + 9, by=OTHER))

    assert case.verdict().wrong == ["c1 at meta: repeated with other content"]


def test_a_delivery_against_consent_is_wrong_and_holding_it_back_is_no_loss():
    case = Case(denies=frozenset({"pixel"}))
    sent = case.verdict()
    case.instead("meta")
    case.receipts["c1", "meta"] = {"held_back"}
    held_back = case.verdict()

    assert sent.wrong[0] == "c1 at meta: sent against consent"
    assert held_back.good, "analytics may have it"


def test_what_a_late_copy_denies_may_be_told_with_an_event_that_lacks_it():
    case = Case(denies=frozenset({"pixel"}))
    case.instead("meta")
    case.receipts["c1", "meta"] = {"held_back"}
    alone = delivered(case.one, "server", to="ga4")
    case.instead("ga4", replace(alone, event=alone.event | {"consent": case.one.ga4_consent({"pixel"})}))

    assert alone.event["consent"] != case.one.ga4_consent({"pixel"})
    assert not [said for said in case.verdict().wrong if "consent" in said]


def test_who_cannot_know_that_it_arrived_may_hold_it_back_when_a_late_copy_denies_it():
    case = Case(name="add_to_cart", denies=frozenset({"pixel"}))
    case.instead("meta", delivered(case.one, "server"))
    case.receipts["c1", "meta"] = {"held_back"}
    known = case.verdict()
    case.faults.append(Fault("timeout", NOW + 3, NOW + 5, destination="meta"))
    unknown = case.verdict()

    assert known.wrong == ["c1 at meta: the receipt says held_back, the platform does not"]
    assert unknown.good


@pytest.mark.parametrize(
    ("outcomes", "said"), [(set(), "no receipt"), ({"rejected"}, "the receipt says rejected, the platform does not")]
)
def test_books_that_do_not_say_what_the_platform_says_are_wrong(outcomes, said):
    case = Case()
    case.receipts["c1", "meta"] = outcomes

    assert case.verdict().wrong == [f"c1 at meta: {said}"]


# -- too few


@pytest.mark.parametrize(
    ("wanted", "issued", "acknowledged", "kinds", "valid"),
    [
        (1500, 1500, 1490, {"kill": 3, "own (rows)": 1, "reset meta": 1}, True),
        (1500, 800, 800, {"kill": 5}, False),  # the load was not there
        (1500, 1500, 1000, {"kill": 5}, False),  # nobody took it
        (1500, 1500, 1490, {"kill": 2}, False),  # too little happened
        (1500, 1500, 1490, {"kill": 1, "state wiped": 9}, False),
        (1500, 1500, 1490, {"latency ga4": 3, "poison": 4}, False),  # nothing was ended
    ],
)
def test_a_run_in_which_too_little_happened_proves_nothing(wanted, issued, acknowledged, kinds, valid):
    assert (not list(too_few(wanted, issued, acknowledged, 60, kinds))) is valid
