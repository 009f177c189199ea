"""app/compare.py and `capistream compare`: what another system sends, against what we would send."""

import csv
import io
from typing import Any

import orjson
import pytest
from click.testing import CliRunner

from app import compare, topics
from app.cli import main
from app.compare import Report, Span
from app.exports import Export, Sent
from app.identity import sha256
from app.settings import parse

NOW = 1_795_420_800_000
CONFIG = """
[sites.shop]
write_key = "wk_12345678"
secret_key = { env = "NOBODY_SETS_THIS" }

[destinations.ads]
sink = "meta"
mode = "shadow"
dataset_id = "1234567890"
access_token = { env = "NOBODY_SETS_THIS" }
browser_tag = "none"

[destinations.stats]
sink = "ga4"
measurement_id = "G-ABC123XYZ"
api_secret = { env = "NOBODY_SETS_THIS" }
browser_tag = "none"

[destinations.google]
sink = "google_ads"
customer_id = "1234567890"
credentials = { env = "NOBODY_SETS_THIS" }
events = { purchase = "1112223333" }
"""
SETTINGS = parse(CONFIG)


def old(order: str = "1", **more: Any) -> Sent:
    said: dict[str, Any] = {"time": NOW, "value": 10.0, "currency": "EUR"}
    return Sent(order_id=order, **said | more)


def ours(order: str = "1", **more: Any) -> Sent:
    """In shadow, as `old` has it, under an event id of its own."""
    said: dict[str, Any] = {"name": "Purchase", "event_name": "purchase", "outcome": "shadowed"}
    said |= {"event_id": f"e-{order}", "time": NOW, "value": 10.0, "currency": "EUR"}
    return Sent(order_id=order, **said | more)


def report(theirs, mine, to="ads", **more):
    return compare.compare(theirs, mine, SETTINGS.destinations[to], tolerance=60_000, **more)


def kinds(found: Report):
    return [(one.kind, (one.old or one.ours or Sent()).order_id) for one in found.findings]


def told(theirs, mine, **more):
    return [str(one) for finding in report([theirs], [mine], **more).findings for one in finding.differences]


# pairs


def test_events_are_paired_by_order_number_else_by_event_id():
    theirs = [old("1"), old("", event_id="e-2"), old("e-3")]

    assert [kind for kind, _ in kinds(report(theirs, [ours("1"), ours("2"), ours("3")]))] == ["equal"] * 3


def test_of_several_events_of_one_order_each_finds_the_one_of_its_name():
    refund = ours("1", name="Refunded", event_name="refund")

    found = report([old(name="Refunded"), old(name="Purchase")], [ours(), refund])

    assert kinds(found) == [("equal", "1"), ("equal", "1")]


def test_another_name_for_the_same_event_is_a_difference_and_the_name_of_another_event_is_none():
    assert told(old(name="CompletePayment"), ours()) == ["name differs, CompletePayment -> Purchase"]
    assert [kind for kind, _ in kinds(report([old(name="Lead")], [ours()]))] == ["only_old", "only_ours"]


def test_our_own_name_for_an_event_is_no_other_name():
    assert told(old(name="purchase"), ours(), to="ads") == []
    assert told(old(name="purchase"), ours(name="1112223333"), to="google") == []


def test_what_the_old_system_sent_again_is_told_apart():
    found = report([old(), old(), old("2"), old("2")], [ours()])

    assert kinds(found) == [("equal", "1"), ("repeated", "1"), ("repeated", "2"), ("only_old", "2")]
    assert compare.differs(report([old(), old()], [ours()]), Export()) is False


def test_what_has_no_id_is_counted():
    assert report([old("")], [ours()]).unpairable == 1


# differences


def test_equal_is_what_says_the_same():
    found = report([old(value=10.004, time=NOW + 60_000)], [ours()])

    assert kinds(found) == [("equal", "1")]
    assert compare.differs(found, Export()) is False


@pytest.mark.parametrize(
    ("theirs", "difference"),
    [
        ({"value": 11.9}, "value differs, 11.9 -> 10"),
        ({"currency": "USD"}, "currency differs, USD -> EUR"),
        ({"event_id": "x"}, "event_id differs, x -> e-1"),
        ({"time": NOW + 61_000}, "time differs, 2026-11-23T08:01:01Z -> 2026-11-23T08:00:00Z"),
    ],
)
def test_a_difference_says_what_both_say(theirs, difference):
    assert told(old(**theirs), ours()) == [difference]


def test_what_an_export_does_not_tell_is_no_difference():
    assert told(Sent(order_id="1"), ours()) == []


def body(**user: Any) -> bytes:
    event = {"event_name": "Purchase", "event_id": "e-1", "user_data": user, "custom_data": {"order_id": "1"}}
    return orjson.dumps(event)


@pytest.mark.parametrize(
    ("theirs", "mine", "differences"),
    [
        ({"em": sha256("a@x.com")}, {"em": [sha256("a@x.com")]}, []),
        ({"em": sha256("a@x.com").upper()}, {"em": [sha256("a@x.com")]}, []),
        ({"em": " A@x.com"}, {"em": [sha256("a@x.com")]}, []),
        ({"ph": "+49 30 23125001"}, {"ph": [sha256("493023125001")]}, []),
        ({"em": "b@x.com"}, {"em": [sha256("a@x.com")]}, ["user_data.em differs, and is not hashed in the old"]),
        ({"em": sha256("b@x.com")}, {"em": [sha256("a@x.com")]}, ["user_data.em differs, both hashed"]),
        ({"em": sha256(sha256("a@x.com"))}, {"em": [sha256("a@x.com")]}, ["user_data.em is hashed twice in the old"]),
        ({"em": sha256("")}, {"em": [sha256("a@x.com")]}, ["user_data.em is the hash of nothing in the old"]),
        (
            {"external_id": sha256("7")},
            {"external_id": "7"},
            ["user_data.external_id differs, and is hashed in the old only"],
        ),
        ({"em": sha256("a@x.com")}, {}, ["user_data.em is only in the old"]),
        ({"em": ""}, {"fbp": "fb.1.2.3"}, ["user_data.fbp is only in ours"]),
        ({"fbp": "fb.1.2.4"}, {"fbp": "fb.1.2.3"}, ["user_data.fbp differs"]),
    ],
)
def test_of_bodies_every_field_is_compared_and_no_value_of_a_person_is_told(theirs, mine, differences):
    assert told(old(name="Purchase", body=body(**theirs)), ours(body=body(**mine))) == differences


def test_a_field_that_is_called_like_somebody_is_not_told():
    theirs = orjson.dumps({"custom_data": {"order_id": "1", "grace@example.com": 1}})

    assert told(old(body=theirs), ours(body=body())) == ["[redacted] is only in the old"]


def test_lists_are_the_same_in_any_order_and_numbers_in_any_spelling():
    theirs = {"custom_data": {"order_id": "1", "content_ids": ["b", "a"], "num_items": 2, "predicted_ltv": "59.90"}}
    mine = {"custom_data": {"order_id": "1", "content_ids": ["a", "b"], "num_items": 2.0, "predicted_ltv": 59.9}}

    assert told(old(body=orjson.dumps(theirs)), ours(body=orjson.dumps(mine))) == []


def test_identifiers_in_objects_of_their_own_are_fields_by_name():
    one = {
        "transactionId": "1",
        "userData": {"userIdentifiers": [{"emailAddress": sha256("a")}, {"phoneNumber": sha256("7")}]},
    }
    other = {"transactionId": "o_1", "userData": {"userIdentifiers": [{"phoneNumber": sha256("7")}]}}

    assert told(old(body=orjson.dumps(one)), ours(body=orjson.dumps(other)), to="google") == [
        "order_id differs, 1 -> o_1",
        "userData.userIdentifiers.emailAddress is only in the old",
    ]


# one side only


def test_what_only_the_old_system_has_is_told_with_our_reason():
    held = ours("1", name="", outcome="held_back", reason="consent_denied")

    found = report([old("1", name="Purchase"), old("2")], [held, ours("3")])

    assert [(one.kind, one.why) for one in found.findings] == [
        ("only_old", "held_back: consent_denied"),
        ("only_old", compare.UNKNOWN),
        ("only_ours", ""),
    ]


def test_a_reason_is_found_by_the_platforms_name_of_its_event():
    held = ours("1", name="", outcome="held_back", reason="consent_denied")

    assert [one.why for one in report([old(name="1112223333")], [held], to="google").findings] == [
        "held_back: consent_denied"
    ]


def test_one_side_only_is_judged_within_the_time_of_which_both_tell():
    theirs = [old("1"), old("early", time=NOW - 7_200_000), old("3", time=NOW + 10_000)]
    mine = [ours("1"), ours("late", time=NOW + 20_000), ours("2", time=NOW + 5_000)]

    found = report(theirs, mine)

    assert kinds(found) == [("equal", "1"), ("only_old", "3"), ("only_ours", "2")]
    assert found.outside == 2
    assert report(theirs, mine, span=Span(0, 2 * NOW)).outside == 0


def test_what_both_have_is_judged_within_the_time_that_was_asked_for():
    theirs = [old("1"), old("zone", time=NOW - 3_600_000), old("before", time=NOW - 7_200_000)]
    mine = [ours("1"), ours("zone"), ours("before", time=NOW - 7_200_000, outcome="delivered")]

    asked = report(theirs, mine, span=Span(since=NOW - 1000))

    assert kinds(asked) == [("equal", "1"), ("different", "zone")]
    assert asked.outside == 1
    assert kinds(report(theirs, mine))[2:] == [("twice", "before")]


def test_only_events_that_are_named_count():
    theirs = [old("1", name="Purchase"), old("2", name="Lead")]
    mine = [ours("1"), ours("2", name="Lead", event_name="generate_lead")]

    assert kinds(report(theirs, mine, events=["generate_lead"])) == [("equal", "2")]


# while both systems send


def test_what_was_left_to_the_old_system_is_looked_for_there():
    left = [ours(n, name="", outcome="filtered", reason="before_live_from") for n in ("1", "2")]

    found = report([old("1")], left)

    assert kinds(found) == [("left", "1"), ("neither", "2")]
    assert compare.differs(report([old("1")], left[:1]), Export()) is False
    assert compare.differs(found, Export()) is True


def test_both_sent_it_once_is_what_the_platform_makes_of_one_id():
    found = report(
        [old("1", event_id="e-1"), old("2", event_id="x")], [ours(n, outcome="delivered") for n in ("1", "2")]
    )

    assert kinds(found) == [("equal", "1"), ("twice", "2")]
    assert found.merged == 1


@pytest.mark.parametrize(("event_name", "kind"), [("purchase", "equal"), ("refund", "twice")])
def test_ga4_makes_one_of_purchases_by_order_number_and_of_nothing_else(event_name, kind):
    sent = ours(name=event_name, event_name=event_name, outcome="delivered")

    assert kinds(report([old(name=event_name)], [sent], to="stats")) == [(kind, "1")]


# what is printed


def test_differences_of_one_size_are_told_as_one_cause():
    numbers = ("1", "2", "3")

    found = report(
        [old(n, value=float(n) * 11.9, time=NOW + 3_600_000) for n in numbers],
        [ours(n, value=float(n) * 10) for n in numbers],
    )

    assert compare.hints(found) == [
        "where the value differs, ours is 0.84 times the old one: gross and net, or cents?",
        "where the time differs, ours is -3600 s from the old one: a time zone?",
    ]


def test_the_page_has_the_numbers_what_differs_and_the_first_of_each_kind():
    found = report([old(n, value=11.9) for n in ("1", "2", "\x1b[2J")], [ours(n) for n in ("1", "2", "\x1b[2J")])

    lines = compare.for_people(found, Export([old()] * 3), show=1)

    assert "        3  100.0%  in both, different" in lines
    assert "        3  value differs" in lines
    assert "  order 1  Purchase 2026-11-23T08:00:00Z: value differs, 11.9 -> 10" in lines
    assert "  … 2 more: --show, or --json for all" in lines
    assert "\x1b" not in "".join(lines)


# the command


class Files:
    def __init__(self, folder):
        self.folder = folder
        self.config = self.write("capistream.toml", CONFIG)

    def write(self, name, text):
        path = self.folder / name
        path.write_text(text)
        return str(path)

    def run(self, *command):
        return CliRunner().invoke(main, [*command, "--config", self.config])


@pytest.fixture
def files(tmp_path):
    return Files(tmp_path)


EVENT = {
    "event_name": "purchase",
    "time": "2026-11-23T08:00:00Z",
    "user": {"email": "ada@example.com"},
    "context": {"ip": "203.0.113.7", "user_agent": "Mozilla/5.0"},
    "consent": {"ad_storage": "granted", "ad_user_data": "granted"},
}


def previewed(files, *orders):
    events = [
        EVENT | {"event_id": f"e-{n}", "commerce": {"transaction_id": n, "value": 10, "currency": "EUR"}}
        for n in orders
    ]
    path = files.write("events.jsonl", "\n".join(orjson.dumps(one).decode() for one in events))
    return files.write("ours.jsonl", files.run("preview", path, "--json", "--now", "2026-11-23T08:00:10Z").stdout)


def test_an_export_is_compared_with_a_preview(files):
    trace = previewed(files, "1", "2", "3")
    export = files.write(
        "old.csv", "order_id,value,currency,time\n1,10,EUR,2026-11-23T08:00:00Z\n2,12,EUR,2026-11-23T08:00:00Z\n"
    )

    result = files.run("compare", export, "--to", "ads", "--trace", trace)

    assert result.exit_code == 1
    assert "value differs, 12 -> 10" in result.stdout
    assert "order 3  Purchase" in result.stdout


def test_what_agrees_exits_0_and_everything_is_a_line_of_json(files):
    trace = previewed(files, "1")
    export = files.write("old.csv", "order_id,value\n1,10.00\n")

    result = files.run("compare", export, "--to", "ads", "--trace", trace, "--json")

    assert result.exit_code == 0
    numbers, one = map(orjson.loads, result.stdout.splitlines())
    assert (numbers["differs"], numbers["counts"]) == (False, {"equal": 1})
    assert (one["kind"], one["order_id"], one["event_id"]) == ("equal", "1", "e-1")


def test_nobody_in_an_export_is_printed(files):
    trace = previewed(files, "1", "2")
    people = {"em": "grace@example.com", "ph": "+4930111222", "client_ip_address": "198.51.100.9", "fn": "grace"}
    bodies = [
        {"data": [{"event_name": "Purchase", "event_id": n, "event_time": 1_795_420_800, "user_data": people,
                   "custom_data": {"order_id": order, "value": 10, "currency": "EUR"}}]}
        for n, order in (("e-1", "1"), ("grace@example.com", "2"), ("grace@example.com", "grace@example.com"))
    ]  # fmt: skip
    export = files.write("old.jsonl", "\n".join(orjson.dumps(one).decode() for one in bodies))

    for more in ([], ["--json"]):
        result = files.run("compare", export, "--to", "ads", "--trace", trace, *more)

        assert "user_data.em" in result.stdout
        assert "[redacted]" in result.stdout
        for personal in ("grace", "+49", "198.51"):
            assert personal not in result.output


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--to", "nobody"], "no destination is called nobody; there are ads, stats, google"),
        (["--to", "ads", "--since", "today"], "--since: ISO 8601 with a zone, for example 2026-01-31T12:00:00Z"),
        (["--to", "stats"], "nothing of ours is known of stats: is it in shadow, and did a worker have events for it?"),
    ],
)
def test_a_wrong_option_is_named(files, arguments, complaint):
    trace = files.write("empty.jsonl", "\n")
    export = files.write("old.csv", "order_id\n1\n")

    result = files.run("compare", export, "--trace", trace, *arguments)

    assert (result.exit_code, result.stderr.strip()) == (1, complaint)


def test_rows_that_cannot_be_read_are_told_and_exit_1(files):
    trace = previewed(files, "1")
    export = files.write("old.csv", "order_id,value\n1,10\n2,much\n")

    result = files.run("compare", export, "--to", "ads", "--trace", trace)

    assert (result.exit_code, result.stderr.strip()) == (1, "line 3: value is no number")


def test_ours_are_the_requests_in_shadow_and_the_receipts_that_kafka_has(place):
    names = topics.names(place.config)
    trace = {"v": 1, "destination": "ads", "event_name": "purchase", "event_id": "e-1", "transaction_id": "1", "name": "Purchase",
             "outcome": "shadowed", "body": orjson.dumps({"data": [orjson.loads(body())]}).decode()}  # fmt: skip
    receipt = {"v": 1, "destination": "ads", "event_name": "purchase", "event_id": "e-2", "transaction_id": "2",
               "event_time": NOW, "outcome": "held_back", "reason": "consent_denied"}  # fmt: skip
    shadowed = receipt | {"event_id": "e-1", "transaction_id": "1", "name": "Purchase", "outcome": "shadowed"}
    place.write(names.trace, [(b"1", orjson.dumps(row), 0) for row in (trace, trace | {"destination": "stats"})], 1)
    place.write(
        names.receipts, [(b"2", orjson.dumps(receipt), 0), (b"1", orjson.dumps(shadowed), 0), (b"3", b"nonsense", 0)]
    )
    export = place.path.parent / "old.csv"
    with io.StringIO() as text:
        csv.writer(text).writerows(
            [("order_id", "event_name"), ("1", "Purchase"), ("2", "Purchase"), ("3", "Purchase")]
        )
        export.write_text(text.getvalue())

    numbers, *lines = place.json("compare", str(export), "--to", "ads")
    since = place.json("compare", str(export), "--to", "ads", "--since", "2020-01-01T00:00:00Z")

    assert numbers["counts"] == {"equal": 1, "only_old": 2}
    assert [one.get("why") for one in lines] == [None, "held_back: consent_denied", compare.UNKNOWN]
    assert since[0]["counts"] == numbers["counts"]
