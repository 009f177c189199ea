"""app/erasure.py: what people give of a person, which events and rows that reaches, and what remains."""

from typing import Any

import msgspec
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import erasure, keys, settings, topics
from app.dedup import ALIAS, MEMORY, Closing, Decision, Partition
from app.erasure import KINDS, Entry, Forgotten, Prints, entry, marks, read
from app.errors import BadEvent, SettingsError
from app.normalize import Inlet, Normalized, normalize
from app.routing import Route
from app.settings import EventRule
from app.shape import from_event
from tests.factories import events, make_event, sha

NOW = 1_795_420_802_000  # after the sample event was received
HOUR, DAY = 3600.0, 86_400.0
KEY = "a-key-of-enough-length"


def forgotten(*entries: Entry, prints: Prints | None = None, appended: int = NOW) -> Forgotten:
    known = Forgotten(prints)
    for one in entries:
        key, value, _ = one.row()
        known.hear(key, value, appended)
    return known


def known_by(at: int = NOW, site: str = "", prints: Prints | None = None, **raw: Any) -> Forgotten:
    return forgotten(*read(raw).entries(at, "ada", site), prints=prints)


def normalized(**draft: Any) -> Any:
    inlet = Inlet("test", "capistream", "shop", "server", frozenset({"server"}), country="DE")
    body = {"event_name": "login", "event_id": "l-1", **draft}
    (result,) = normalize(body, inlet, NOW - 1000, {"request": "r"}, None)
    assert isinstance(result, Normalized), result
    return result.event


# Who is meant


@pytest.mark.parametrize(
    ("given_", "draft"),
    [
        ({"email": " Ada.L+shop@GMail.com"}, {"user": {"email": "ada.l+shop@gmail.com"}}),
        ({"email": "adal@gmail.com"}, {"user": {"email": "Ada.L+shop@gmail.com"}}),
        ({"email": sha("ada@example.com")}, {"user": {"email": "ada@example.com"}}),
        ({"email": "ada@example.com"}, {"user": {"email": sha("ada@example.com").upper()}}),
        ({"email": "ada@example.com"}, {"user": {"user_id": "Ada@example.com"}}),
        ({"phone": "+49 30 123456"}, {"user": {"phone": "030 123456"}}),
        ({"phone": "030 123456", "country": "de"}, {"user": {"phone": "+4930123456"}}),
        ({"phone": sha("4930123456")}, {"user": {"phone": "+4930123456"}}),
        ({"phone": "+49 30 123456"}, {"user": {"user_id": "030/123456"}}),
        ({"external_id": "tel:+49-30-123456"}, {"user": {"user_id": "0049 30 123456"}}),
        ({"external_id": "customer-7"}, {"user": {"user_id": "customer-7"}}),
        ({"external_id": 7}, {"user": {"user_id": 7}}),
        ({"external_id": "ada@example.com"}, {"user": {"user_id": "ada@example.com"}}),
        ({"external_id": sha("customer-7")}, {"user": {"user_id": "customer-7"}}),
        ({"external_id": sha("customer-7")}, {"user": {"user_id": sha("customer-7")}}),
        ({"client_id": "GA1.1.12345.67890"}, {"ids": {"ga_client_id": "12345.67890"}}),
        ({"client_id": "GA1.2-2.12345.67890"}, {"ids": {"ga_client_id": "12345.67890"}}),
        ({"client_id": "004930.1699999999"}, {"ids": {"ga_client_id": "004930.1699999999"}}),
        ({"ids": {"gclid": "GCL.1700000000.Cj0K"}}, {"ids": {"gclid": "Cj0K"}}),
        ({"ids": {"fbp": "fb.1.2.3"}}, {"ids": {"fbp": "fb.1.2.3"}}),
        ({"ids": {"gclid": ["x", "abc"]}}, {"context": {"url": "https://shop.example/?gclid=abc"}}),
        ({"order": "1001"}, {"event_name": "purchase", "commerce": {"transaction_id": "1001"}}),
        ({"event_id": ["l-0", "l-1"]}, {}),
    ],
)
def test_what_is_given_in_clear_or_hashed_reaches_the_event_that_carries_it(given_, draft):
    assert known_by(**given_).of(normalized(**draft)) == "erase"


@pytest.mark.parametrize(
    "given_",
    [
        {"email": "grace@example.com"},
        {"phone": "+4930123457"},
        {"external_id": "customer-70"},
        {"ids": {"fbp": "customer-7"}},
        {"order": "order-1001"},
        {"event_id": "1001"},
    ],
)
def test_an_event_that_shares_no_identifier_is_not_reached(given_):
    assert known_by(**given_).of(make_event()) is None


@given(events(), st.data())
def test_any_one_identifier_of_an_event_is_enough_and_its_kind_counts(event, data):
    found = sorted(marks(event))
    one = data.draw(st.sampled_from(found))
    kind, digest = one.split(":")

    entries = [Entry("erase", kind, digest, event["received"])]
    assert forgotten(*entries, appended=2**60).of(event) == "erase"
    others = [Entry("erase", other, digest, event["received"]) for other in KINDS if f"{other}:{digest}" not in found]
    assert forgotten(*others, appended=2**60).of(event) is None


@given(st.text(max_size=40), st.sampled_from(["email", "phone", "external_id", "client_id", "order", "event_id"]))
def test_nothing_clear_is_in_an_entry_nor_in_what_is_said_of_a_wrong_one(text, name):
    assert "planted" not in said_of({name: f"planted{text}"})


def said_of(raw: Any) -> str:
    """All that is left of a request."""
    try:
        return repr([one.row() for one in read(raw).entries(NOW, "ada")])
    except BadEvent as exc:
        return f"{exc} {exc.reason} {exc.field}"


@pytest.mark.parametrize(
    ("raw", "reason", "place"),
    [
        ([], "wrong_type", ""),
        ({}, "missing", ""),
        ({"withdraw": True}, "missing", ""),
        ({"email": "nobody"}, "not_an_email", "email"),
        ({"email": ["ada@example.com", 7.5]}, "wrong_type", "email"),
        ({"email": None}, "wrong_type", "email"),
        ({"email": ""}, "missing", "email"),
        ({"phone": "030 123456"}, "no_country_code", "phone"),
        ({"phone": "030 123456", "country": "Germany"}, "wrong_type", "country"),
        ({"external_id": "undefined"}, "missing", "external_id"),
        ({"order": "ada@example.com"}, "personal_id", "order"),
        ({"ids": "fbp"}, "wrong_type", "ids"),
        ({"ids": {"ga_session_id": "1"}}, "unknown_field", "ids"),
        ({"name": "Ada"}, "unknown_field", ""),
        ({"email": "ada@example.com", "withdraw": "yes"}, "wrong_type", "withdraw"),
    ],
)
def test_a_wrong_request_is_refused_with_its_place(raw, reason, place):
    with pytest.raises(BadEvent) as refused:
        read(raw)

    assert (refused.value.reason, refused.value.field) == (reason, place)


# What is reached


def test_an_event_received_after_the_entry_goes_out():
    event = make_event()

    assert known_by(at=event["received"], order="1001").of(event) == "erase"
    assert known_by(at=event["received"] - 1, order="1001").of(event) is None


def test_an_entry_of_one_site_reaches_no_other():
    assert known_by(site="shop", order="1001").of(make_event()) == "erase"
    assert known_by(site="other", order="1001").of(make_event()) is None


def test_an_erasure_goes_before_a_withdrawal():
    known = forgotten(
        *read({"order": "1001", "withdraw": True}).entries(NOW, "ada"),
        *read({"external_id": "customer-7"}).entries(NOW, "ada"),
    )

    assert known.of(make_event()) == "erase"
    assert known.of(make_event(user=None)) == "withdraw"
    assert known.erasures == 1


def test_a_time_to_come_counts_as_the_time_at_which_kafka_took_the_entry():
    key, value, _ = Entry("withdraw", "user_id", sha("customer-7"), NOW + 1_000_000).row()
    known = Forgotten()
    known.hear(key, value, NOW)

    assert known.of(make_event(received=NOW)) == "withdraw"
    assert known.of(make_event(received=NOW + 1)) is None


def test_a_record_without_a_value_takes_its_entry_back():
    known = known_by(order="1001")
    (one,) = read({"order": "1001"}).entries(NOW, "ada")

    assert not known.hear(one.row()[0], None, NOW)

    assert known.of(make_event()) is None
    assert len(known) == 0


def test_an_entry_heard_again_is_no_news():
    (one,) = read({"order": "1001"}).entries(NOW, "ada")
    known = Forgotten()

    assert [known.hear(*one.row()[:2], NOW) for _ in range(2)] == [True, False]
    assert known.erasures == 1


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"nonsense",
        b"[]",
        b'{"what": "erase", "kind": "email"}',
        orjson.dumps({"what": "erase", "kind": "email", "digest": 7}),
        orjson.dumps({"what": "erase", "kind": "email", "digest": "ada@example.com"}),
        orjson.dumps({"what": "praise", "kind": "email", "digest": "a" * 64}),
        orjson.dumps({"what": "erase", "kind": "session", "digest": "a" * 64}),
        orjson.dumps({"what": ["erase"], "kind": "email", "digest": "a" * 64}),
    ],
)
def test_what_is_no_entry_is_none(value):
    assert entry(value, NOW) is None


def test_an_entry_that_somebody_writes_by_hand_needs_neither_time_nor_name():
    value = orjson.dumps({"what": "withdraw", "kind": "email", "digest": sha("ada@example.com").upper()})

    assert entry(value, NOW) == Entry("withdraw", "email", sha("ada@example.com"), NOW)


@given(
    st.sampled_from(["erase", "withdraw"]), st.sampled_from(KINDS), st.integers(0, NOW), st.sampled_from(["", "shop"])
)
def test_a_row_is_read_as_the_entry_that_was_written(what, kind, at, site):
    one = Entry(what, kind, sha("x"), at, "ada", site)

    assert entry(one.row()[1], NOW) == (one if at else Entry(what, kind, sha("x"), NOW, "ada", site))


# What leaves


def test_only_what_was_to_go_out_is_kept_back():
    found = {"ads": Route("queued", basis="x"), "stats": Route("held_back", "consent_denied", "y")}

    assert erasure.routes(found, None) == found
    assert erasure.routes(found, "withdraw") == found | {"ads": Route("held_back", "withdrawn", "x")}
    assert erasure.routes(found, "erase") == found | {"ads": Route("erased", "erasure", "x")}


def test_events_of_people_who_are_not_forgotten_share_their_decision_still():
    known, asked = known_by(email="ada@example.com"), list[str]()
    partition = Partition(
        lambda _name: EventRule(),
        lambda event: asked.append(event["event_id"]) or {},  # type: ignore[func-returns-value]
        alike=erasure.alike(lambda event: event.event_name, known),
    )
    for event_id, email in (("1", "bob"), ("2", "ada"), ("3", "eve"), ("4", "ada")):
        partition.decide(from_event(normalized(event_id=event_id, user={"email": f"{email}@example.com"})))

    assert asked == ["1", "2", "4"]


def test_of_an_erased_conversion_stays_what_it_was_worth():
    event = make_event()
    copy = from_event(event)
    closing = Closing(
        keys.key(event), copy, "complete", Decision({"ads": Route("erased", "erasure")}), [copy, copy], received=2
    )

    record = orjson.loads(msgspec.json.encode(erasure.bare(closing).record()))

    assert record["closed"] == "erased"
    assert record["copies"] == []
    assert set(record["event"]) == {"v", "event_id", "event_name", "site", "source", "time", "received", "commerce"}
    assert record["event"]["commerce"] == {"transaction_id": "1001", "value": 59.98, "currency": "USD"}
    assert keys.key(record["event"]) == closing.key


# Rows that outlive the data


def row(**more: Any) -> bytes:
    return orjson.dumps({"v": 1, "c": [["server", NOW - 1000, 0, "", "r"]], "n": 1, "o": 0, "s": "complete", **more})


def test_a_row_is_found_by_a_keyed_hash_under_the_key_in_use_or_one_before():
    prints = Prints(KEY).of_copies([make_event(user={"email": None, "phone": None})])
    (conversion,) = [keys.key(make_event())]
    value = row(f=prints)

    for now in (Prints(KEY), Prints("another-key-of-some-length", [KEY])):
        assert known_by(prints=now, external_id="customer-7").erases_row(conversion, value)
        assert not known_by(prints=now, external_id="customer-8").erases_row(conversion, value)
        assert not known_by(prints=now, external_id="customer-7", at=1).erases_row(conversion, value)
        assert not known_by(prints=now, external_id="customer-7", withdraw=True).erases_row(conversion, value)
    assert not known_by(prints=Prints("another-key-of-some-length"), external_id="customer-7").erases_row(
        conversion, value
    )


def test_keyed_hashes_are_short_few_and_none_that_is_known_without_the_key():
    copies = [make_event(ids={"fbp": f"fb.1.2.{n}"}) for n in range(30)]
    prints = Prints(KEY).of_copies(copies)

    assert len(prints) == erasure.MOST_PRINTS < 30
    assert all(len(one) == erasure.PRINT for one in prints)
    assert not any(one in mark for one in prints for copy in copies for mark in marks(copy))
    assert Prints().of_copies(copies) == []


def test_a_row_is_found_by_its_own_number_without_any_key():
    known = known_by(order="1001")

    assert known.erases_row(keys.key(make_event()), row())
    assert not known.erases_row(keys.key(make_event(commerce={"transaction_id": "1002"})), row())


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (MEMORY, orjson.dumps({"since": 0})),
        (ALIAS + keys.key(make_event()), orjson.dumps({"=": "1001", "t": NOW})),
        (keys.key(make_event()), row(s=None)),
        (keys.key(make_event()), row(c=[["server", NOW - 1000, 0, "", ""]])),
    ],
)
def test_a_row_that_is_open_or_says_nothing_of_a_person_is_left_alone(key, value):
    assert not known_by(order="1001").erases_row(key, value)


def test_a_key_that_is_too_short_is_refused():
    with pytest.raises(SettingsError, match="16 characters"):
        Prints("short")


# What remains


def remains(text: str = "") -> dict[str, erasure.Remains]:
    ads = '[destinations.ads]\nsink = "meta"\ndataset_id = "1234567890"\naccess_token = { env = "X" }\nbrowser_tag = "none"\n'
    return {one.place: one for one in erasure.remains(settings.parse(ads + text, "here"))}


def test_every_topic_that_holds_data_of_people_is_told_of():
    assert [place for place in remains() if place.startswith("capistream")] == [
        "capistream.events",
        "capistream.conversions",
        "capistream.trace",
        "capistream-seen-changelog",
        "capistream-held-changelog",
        "capistream.to.ads",
        "capistream-outcomes.ads-changelog",
    ]
    assert "capistream.trace" not in remains('[trace]\nrequests = "none"\n')
    assert "capistream.trace" in remains('mode = "shadow"\n[trace]\nrequests = "none"\n')


def test_how_long_anything_remains_follows_from_the_configuration():
    usual = remains()

    assert usual["capistream.events"].most == 3 * DAY + 6 * HOUR + 900
    assert usual["capistream.to.ads"].usually == 7 * DAY + 6 * HOUR + 300 + 3660 + 900
    assert usual["capistream.to.ads"].most > 60 * DAY
    assert usual["capistream-held-changelog"].most == DAY + HOUR + HOUR + 3660 + 900


def test_what_is_kept_for_minutes_is_gone_in_minutes():
    short = remains(
        '[kafka]\nkeep_events = "2min"\nreplay_window = "2min"\ncompact_within = "60s"\n[trace]\nkeep = "2min"\n'
    )

    longest = max(one.usually for one in short.values()) - erasure.KAFKA_LOOKS
    assert longest < 5 * 60


@given(*[st.floats(60, 7 * DAY)] * 3)
def test_whatever_can_hold_a_person_ages_whatever_the_configuration(keep, window, lag):
    kafka = {"keep_events": keep, "replay_window": window, "compact_within": lag}
    config = settings.Settings.model_validate({"kafka": kafka})
    told = {one.place: one for one in erasure.remains(config)}
    names = topics.names(config)
    without = {names.dead, names.receipts, names.clock, names.control, names.people, names.trace, names.audit}

    for topic in topics.plan(config):
        assert (topic.name in told) != (topic.name in without), topic.name
        if topic.name in told:
            limits = (topic.config.get(name, "inf") for name in ("retention.ms", "max.compaction.lag.ms"))
            roll, kept = float(topic.config["segment.ms"]) / 1000, min(map(float, limits)) / 1000
            assert roll <= kept
            assert told[topic.name].most >= roll + kept
