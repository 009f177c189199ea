"""app/merge.py: one conversion of any set of copies, whatever their order, number and grouping."""

import itertools
from collections.abc import Iterable
from random import Random
from typing import Any, get_args

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from app import keys, merge
from app.events import Event, Json, Signal, Source
from app.shape import as_event, from_event
from tests.factories import events, make_event

SOURCES = get_args(Source)
SIGNALS = ("ad_storage", "analytics_storage", "ad_user_data", "ad_personalization")
MONEY = ("value", "currency", "items", "tax", "shipping", "discount")
SESSION = ("ga_client_id", "ga_session_id")
PERSON = ("email", "phone", "first_name", "last_name", "birth_date", "gender")
ADDRESS = ("country", "city", "region", "postal_code", "places", "street")
HASHED = {"email", "phone", "first_name", "last_name", "birth_date", "gender", "street", "places"}
EVENT: TypeAdapter[Event] = TypeAdapter(Event)


def make_copy(source: str, **parts: Any) -> Event:
    """A copy that says nothing but what the test gives it."""
    copy: Json = {
        "v": 1,
        "event_id": "e1",
        "event_name": "purchase",
        "site": "shop",
        "source": source,
        "time": 1_000,
        "received": 2_000,
    }
    return copy | parts  # type: ignore[return-value]


def said(source: str, **consent: Any) -> Event:
    return make_copy(source, consent=consent)


def _field(name: str, who: str) -> Any:
    """A value of this field that tells which copy it is from."""
    if name in HASHED:
        return {"plain": who}
    return [{"item_id": who}] if name == "items" else float(ord(who)) if name in MONEY and name != "currency" else who


def _some(random: Random, part: Json, name: str, *groups: tuple[str, ...]) -> None:
    """Sometimes a part with some of the fields of each group, telling whose they are."""
    told = {
        name: _field(name, who)
        for who, group in ((random.choice("abc"), group) for group in groups)
        for name in group
        if random.random() < 0.4
    }
    if random.random() < 0.8:
        part[name] = told


def _consent(random: Random) -> Json:
    choices: dict[str, tuple[Any, ...]] = {
        **dict.fromkeys(SIGNALS, get_args(Signal)),
        "gpc": (True, False),
        "us_privacy": ("1YNN", "1YYN", "1---"),
        "tcf": ("CPx", "CPy"),
        "categories": ({}, {"ads": True}, {"ads": False, "stats": True}),
    }
    return {name: random.choice(values) for name, values in choices.items() if random.random() < 0.3}


def _copy(random: Random) -> Event:
    copy = make_copy(
        random.choice(SOURCES),
        event_id=random.choice(("e1", "e2", " Ünï/1 ")),
        time=random.randint(1_000, 1_002),
        received=random.randint(2_000, 2_002),
        origin={"topic": "t", "partition": 0, "offset": random.randint(0, 2)},
    )
    part: Json = {}
    _some(random, part, "user", PERSON, ADDRESS, ("user_id",))
    _some(random, part, "ids", SESSION, ("fbp", "gclid"))
    _some(random, part, "commerce", MONEY, ("coupon", "transaction_id"))
    _some(random, part, "context", ("ip", "url"))
    part |= {
        "consent": _consent(random),
        "tags": {name: {"ran": random.random() < 0.5} for name in ("ga4", "meta") if random.random() < 0.5},
        "labels": [name for name in ("test", "bot") if random.random() < 0.3],
        "custom": {name: random.randint(0, 2) for name in "xy" if random.random() < 0.5},
        "pairs": False,
    }
    return copy | {name: value for name, value in part.items() if random.random() < 0.7}  # type: ignore[return-value]


def _pool() -> list[Event]:
    """From few values, and with repetitions that were received elsewhere: copies that often agree and tie."""
    random = Random(1)
    pool = [_copy(random) for _ in range(120)]
    again = [copy | {"received": random.randint(2_000, 2_002), "origin": {"request": "r"}} for copy in pool[::3]]
    return pool + again


COPY = st.sampled_from(_pool())
COPIES = st.lists(COPY, min_size=1, max_size=6)
MANY = st.lists(COPY, min_size=merge.MAX_COPIES, max_size=3 * merge.MAX_COPIES)
fast = settings(max_examples=60, deadline=None)


def distinct(copies: Iterable[Event]) -> list[Event]:
    return [as_event(copy) for copy in merge.distinct(list(map(from_event, copies)))]


def merged_distinct(copies: Iterable[Event], cut: Json | None = None) -> Event:
    return as_event(merge.merged(list(map(from_event, copies)), cut))


def decided(copies: Iterable[Event]) -> Json:
    return merge.decided(map(from_event, copies))


def origins(copies: Iterable[Event]) -> dict[str, list[Event]]:
    found = merge.origins(list(map(from_event, copies)))
    return {path: [as_event(copy) for copy in some] for path, some in found.items()}


def without_empty(part: Any) -> Json:
    return {name: value for name, value in part.items() if value not in ({}, [])}


# P3: a function of the set


@fast
@given(st.one_of(COPIES, MANY), st.data())
def test_order_and_repetition_change_nothing(copies, data):
    again = data.draw(st.permutations(copies + data.draw(st.lists(st.sampled_from(copies), max_size=4))))

    assert merge.merge(again) == merge.merge(copies)
    assert distinct(again) == distinct(copies)


@fast
@given(COPIES, st.data())
def test_copies_known_to_be_distinct_merge_to_the_same_in_whatever_order(copies, data):
    known = data.draw(st.permutations(distinct(copies)))

    assert orjson.dumps(merged_distinct(known)) == orjson.dumps(merge.merge(copies))


@fast
@given(COPY)
def test_one_copy_and_the_same_once_more_from_elsewhere_merge_to_the_same(copy):
    for source in SOURCES:  # what says all that, asked twice
        twice = merge.merge([copy, copy | {"source": source}])
        assert twice == merge.merge([copy]) | {"source": twice["source"]}


@settings(max_examples=15, deadline=None)
@given(st.lists(events(), min_size=1, max_size=3), st.data())
def test_order_changes_not_one_byte_of_any_events_that_fit_the_schema(copies, data):
    again = data.draw(st.permutations(copies))

    assert orjson.dumps(merge.merge(again)) == orjson.dumps(merge.merge(copies))


@fast
@given(st.one_of(COPIES, MANY), COPY)
def test_copies_one_by_one_come_to_the_same_set_as_all_at_once(copies, last):
    assert distinct([*distinct(copies), last]) == distinct([*copies, last])


@fast
@given(MANY, st.data())
def test_any_grouping_merges_to_the_same_with_what_was_cut_told_apart(copies, data):
    known: list[Event] = []
    cut: Json = {}
    rest = list(copies)
    while rest:
        size = data.draw(st.integers(1, len(rest)))
        together, rest = known + rest[:size], rest[size:]
        known, cut = distinct(together), merge.merge_consent([cut, decided(together)])

    assert merged_distinct(known, cut) == merge.merge(copies)


def test_of_equal_copies_the_earliest_received_is_kept_and_its_time_counts():
    late = make_copy("server", received=3_000, time=500, origin={"request": "a"})
    early = make_copy("server", received=2_000, time=700, origin={"request": "b"})

    assert distinct([late, early]) == [early]
    assert merge.merge([late, early])["time"] == 700
    assert merge.merge([late, early])["received"] == 2_000


def test_equal_copies_received_in_the_same_millisecond_are_told_apart_by_origin():
    one, two = make_copy("server", origin={"request": "a"}), make_copy("server", origin={"request": "b"})

    assert distinct([two, one]) == distinct([one, two]) == [one]


def test_the_same_content_of_two_sources_is_two_copies():
    assert len(distinct([make_copy("server"), make_copy("pixel")])) == 2


@pytest.mark.parametrize("received", [1, 3])
def test_what_was_relayed_stays_known_whatever_other_copies_say_of_that_tag(received):
    first = make_copy("pixel", received=received, tags={"G-ABC1234567": {"relayed": True}})
    other = make_copy("pixel", received=2, tags={"G-ABC1234567": {"ran": False}, "meta": {"ran": True}})

    merged = merge.merge([first, other, make_copy("server")])

    assert merged["tags"]["G-ABC1234567"]["relayed"] is True
    assert merged["tags"]["meta"] == {"ran": True}
    assert first["tags"] == {"G-ABC1234567": {"relayed": True}}


@pytest.mark.parametrize("relayed", ["pixel", "server"])
def test_what_was_relayed_stays_known_whichever_copy_says_so(relayed):
    pixel, server = (
        from_event(make_copy(source, tags={"meta": {"ran": True} | ({"relayed": True} if source == relayed else {})}))
        for source in ("pixel", "server")
    )

    assert merge.merged([pixel, server]).tags == {"meta": {"ran": True, "relayed": True}}


def test_no_copies_are_an_error():
    with pytest.raises(ValueError, match="no copies"):
        merge.merge([])


# too many copies


@fast
@given(MANY)
def test_at_most_so_many_copies_are_kept(copies):
    assert len(distinct(copies)) <= merge.MAX_COPIES


@pytest.mark.parametrize("lonely", SOURCES)
def test_many_copies_of_the_others_do_not_push_out_the_only_one_of_a_source(lonely):
    others = [make_copy(source, custom={"n": n}) for source in SOURCES if source != lonely for n in range(20)]

    kept = distinct([*others, make_copy(lonely)])

    assert len(kept) == merge.MAX_COPIES
    assert {copy["source"] for copy in kept} == set(SOURCES)


@pytest.mark.parametrize("n", range(20))
def test_a_denial_in_a_copy_too_many_counts(n):
    copies = [make_copy("pixel", custom={"n": i}, consent={"ad_storage": "granted"}) for i in range(20)]
    copies[n]["consent"] = {"ad_storage": "denied"}

    assert merge.merge(copies)["consent"]["ad_storage"] == "denied"


def test_categories_of_copies_too_many_are_not_collected_without_end():
    copies = [make_copy("pixel", consent={"categories": {f"c{i}": True}}) for i in range(100)]

    assert decided(copies) == {}
    assert len(merge.merge(copies)["consent"]["categories"]) == merge.MAX_COPIES


# one copy


@settings(max_examples=30, deadline=None)
@given(events())
def test_one_copy_is_its_own_merge(copy):
    copy.get("consent", {}).pop("limited", None)  # comes into being after the merge
    merged = merge.merge([copy])

    origin_aside = {k: v for k, v in copy.items() if k not in ("origin", "revision")}
    expected = without_empty(origin_aside) | ({"labels": sorted(set(copy["labels"]))} if copy.get("labels") else {})
    expected.pop("unusable", None)  # what one source could not tell is no part of the conversion
    if without_empty(expected.get("consent", {})) == {}:  # nothing but empty categories
        expected.pop("consent", None)
        merged.pop("consent", None)
    assert merged == expected


def test_a_complete_event_survives_unchanged():
    event = make_event()

    merged = merge.merge([event])

    assert merged == {k: v for k, v in event.items() if k != "origin"}


# the schema


@fast
@given(st.one_of(COPIES, MANY))
def test_the_merged_event_fits_the_schema_and_json(copies):
    merged = merge.merge(copies)

    assert EVENT.validate_python(merged) == merged
    assert orjson.loads(orjson.dumps(merged)) == merged


@fast
@given(COPIES)
def test_nothing_is_invented(copies):
    merged: Json = dict(merge.merge(copies))

    for part in ("user", "context", "ids", "commerce", "custom", "tags", "consent"):
        told = {name for copy in copies for name in copy.get(part, {})}
        assert set(merged.get(part, {})) <= told
        assert merged.get(part) != {}
    if "labels" in merged:
        assert merged["labels"]


@fast
@given(COPIES)
def test_what_stands_alone_is_filled_from_whoever_has_it(copies):
    merged: Json = dict(merge.merge(copies))

    for part, names in (
        ("user", ("user_id",)),
        ("context", ("ip", "url")),
        ("ids", ("fbp", "gclid")),
        ("commerce", ("coupon", "transaction_id")),
        ("custom", ("x", "y")),
        ("tags", ("ga4", "meta")),
    ):
        for name in names:
            told = [copy[part][name] for copy in copies if name in copy.get(part, {})]
            assert (name in merged.get(part, {})) == bool(told)
            assert not told or merged[part][name] in told


# what is taken whole


@pytest.mark.parametrize(
    ("part", "group"),
    [("commerce", MONEY), ("ids", SESSION), ("user", PERSON), ("user", ADDRESS)],
    ids=["money", "session", "person", "address"],
)
@fast
@given(copies=COPIES)
def test_a_group_is_never_mixed_from_two_copies(part, group, copies):
    def of(event: Any) -> Json:
        return {name: event.get(part, {})[name] for name in group if name in event.get(part, {})}

    there = [of(copy) for copy in copies if of(copy)]

    assert of(merge.merge(copies)) in (there or [{}])


def test_money_is_the_servers():
    server = make_copy("server", commerce={"value": 10.0, "currency": "EUR"})
    pixel = make_copy("pixel", commerce={"value": 12.0, "currency": "USD", "tax": 2.0, "coupon": "X"})

    assert merge.merge([pixel, server])["commerce"] == {"value": 10.0, "currency": "EUR", "coupon": "X"}


def test_money_is_the_pixels_whole_when_the_server_knows_no_value():
    server = make_copy("server", commerce={"currency": "EUR", "shipping": 4.0, "transaction_id": "1"})
    pixel = make_copy("pixel", commerce={"value": 12.0, "currency": "USD"})

    assert merge.merge([pixel, server])["commerce"] == {"value": 12.0, "currency": "USD", "transaction_id": "1"}


def test_items_without_any_value_are_kept():
    assert merge.merge([make_copy("pixel", commerce={"items": [{"item_id": "a"}]}), make_copy("server")])[
        "commerce"
    ] == {"items": [{"item_id": "a"}]}


def test_the_session_is_the_pixels_and_never_half_of_each():
    server = make_copy("server", ids={"ga_client_id": "s", "ga_session_id": "1", "gclid": "server"})
    pixel = make_copy("pixel", ids={"ga_client_id": "p", "fbp": "pixel"})

    assert merge.merge([server, pixel])["ids"] == {"ga_client_id": "p", "fbp": "pixel", "gclid": "server"}


def test_the_person_is_the_servers_and_the_address_is_a_group_of_its_own():
    server = make_copy("server", user={"email": {"plain": "s"}, "last_name": {"plain": "s"}})
    pixel = make_copy("pixel", user={"email": {"plain": "p"}, "phone": {"e164": "p"}, "country": "DE", "city": "Ulm"})

    assert merge.merge([pixel, server])["user"] == {
        "email": {"plain": "s"},
        "last_name": {"plain": "s"},
        "country": "DE",
        "city": "Ulm",
    }


def test_context_and_cookies_are_the_browsers_first():
    server = make_copy("server", context={"ip": "203.0.113.1", "language": "de"}, ids={"fbp": "server"})
    pixel = make_copy("pixel", context={"ip": "203.0.113.2"}, ids={"fbp": "pixel"})

    merged = merge.merge([server, pixel])

    assert merged["context"] == {"ip": "203.0.113.2", "language": "de"}
    assert merged["ids"] == {"fbp": "pixel"}


# what is named by one copy


@pytest.mark.parametrize("event_id", ["order-1001", " 00017", "Ünï/1", "a|b", "1e3"])
def test_the_event_id_is_the_browsers_byte_for_byte(event_id):
    copies = [make_copy("pixel", event_id=event_id), *(make_copy(s, event_id="x") for s in SOURCES if s != "pixel")]

    for order in itertools.permutations(copies, 3):
        if any(copy["source"] == "pixel" for copy in order):
            assert merge.merge(order)["event_id"] == event_id


def test_without_a_browser_the_event_id_is_that_of_the_app_then_the_servers():
    app, server, crm = (make_copy(source, event_id=source) for source in ("app", "server", "crm"))

    assert merge.merge([crm, server, app])["event_id"] == "app"
    assert merge.merge([crm, server])["event_id"] == "server"


def test_time_and_source_are_the_servers():
    merged = merge.merge([make_copy("pixel", time=5, received=6), make_copy("server", time=3, received=9)])

    assert (merged["source"], merged["time"], merged["received"]) == ("server", 3, 6)


@pytest.mark.parametrize(("first", "second", "pairs"), [(False, False, False), (False, None, None), (None, None, None)])
def test_the_conversion_cannot_pair_only_if_none_of_its_copies_can(first, second, pairs):
    copies = [
        make_copy(source, **({} if one is None else {"pairs": one}))
        for source, one in (("pixel", first), ("server", second))
    ]

    assert merge.merge(copies).get("pairs") is pairs


def test_labels_are_those_of_all_copies_sorted():
    copies = [
        make_copy("pixel", labels=["test", "bot"]),
        make_copy("server", labels=["internal", "bot"]),
        make_copy("crm"),
    ]

    assert merge.merge(copies)["labels"] == ["bot", "internal", "test"]


@pytest.mark.parametrize("with_order", [("pixel", "server"), ("server",), ("pixel",)])
def test_the_merged_event_has_the_key_of_its_copies(with_order):
    copies = [
        make_copy(source, event_id="1001", **({"commerce": {"transaction_id": "1001"}} if source in with_order else {}))
        for source in ("pixel", "server")
    ]

    assert {keys.key(copy) for copy in copies} == {keys.key(merge.merge(copies))}


# consent


@pytest.mark.parametrize("signal", SIGNALS)
@pytest.mark.parametrize("source", SOURCES)
def test_a_denial_in_any_copy_wins_for_every_signal(signal, source):
    copies = [said(one, **dict.fromkeys(SIGNALS, "granted")) for one in SOURCES if one != source]
    copies.append(said(source, **{signal: "denied"}))

    for order in (copies, copies[::-1]):
        assert merge.merge(order)["consent"] == dict.fromkeys(SIGNALS, "granted") | {signal: "denied"}


@fast
@given(st.one_of(COPIES, MANY))
def test_a_signal_is_denied_if_denied_anywhere_granted_if_granted_and_else_absent(copies):
    consent = merge.merge(copies).get("consent", {})

    for signal in SIGNALS:
        told = {copy.get("consent", {}).get(signal) for copy in copies} - {None}
        assert consent.get(signal) == ("denied" if "denied" in told else "granted" if told else None)


@fast
@given(COPIES, st.data())
def test_consent_merges_in_any_grouping_to_the_same(copies, data):
    signals = [copy.get("consent", {}) for copy in copies]
    cut = data.draw(st.integers(0, len(signals)))

    merged = merge.merge_consent(signals)

    assert merge.merge_consent([merge.merge_consent(signals[cut:]), merge.merge_consent(signals[:cut])]) == merged
    assert merge.merge_consent([merged, merged]) == merged


def test_no_consent_told_is_no_consent():
    assert "consent" not in merge.merge([make_copy("pixel"), make_copy("server", consent={})])


@pytest.mark.parametrize(("one", "two", "merged"), [(True, False, True), (False, False, False), (True, None, True)])
def test_global_privacy_control_on_in_any_copy_is_on(one, two, merged):
    copies = [
        said(source, **({} if value is None else {"gpc": value})) for source, value in (("pixel", one), ("server", two))
    ]

    assert merge.merge(copies)["consent"]["gpc"] is merged


@pytest.mark.parametrize("name", ["tcf", "gpp", "us_privacy", "region"])
def test_strings_that_agree_stay_and_others_contradict(name):
    assert merge.merge_consent([{name: "1YNN"}, {name: "1YNN"}, {}]) == {name: "1YNN"}
    assert merge.merge_consent([{name: "1YNN"}, {name: "1YYN"}]) == {name: "contradictory"}


def test_a_category_is_granted_only_if_no_copy_refuses_it():
    assert merge.merge_consent([{"categories": {"ads": True, "stats": True}}, {"categories": {"ads": False}}]) == {
        "categories": {"ads": False, "stats": True}
    }


def test_of_two_copies_of_one_source_the_first_received_counts():
    sale = make_event(source="pixel", event_id="ev-1", received=1_000, commerce={"value": 10.0})
    reload = make_event(source="pixel", event_id="ev-2", received=2_000, commerce={"value": 20.0})

    merged = merge.merge([reload, sale])

    assert (merged["event_id"], merged["commerce"]["value"]) == ("ev-1", 10.0)


def test_of_several_browser_ids_the_one_that_the_server_knows_is_sent():
    first = make_event(source="pixel", event_id="ev-1", received=1_000)
    reload = make_event(source="pixel", event_id="ev-2", received=2_000)
    server = make_event(source="server", event_id="ev-2", received=3_000)

    assert merge.merge([first, reload, server])["event_id"] == "ev-2"
    assert merge.merge([first, server | {"event_id": "back-end"}])["event_id"] == "ev-1"


def test_the_servers_person_wins_over_the_pixels_even_without_an_email():
    pixel = make_event(source="pixel", user={"email": {"plain": "a"}, "phone": None})
    server = make_event(source="server", user={"email": None, "phone": {"e164": "b"}})

    user = merge.merge([pixel, server])["user"]

    assert "email" not in user
    assert user["phone"]["e164"] == "b"


# where each field is from


def test_each_field_of_a_merged_event_is_traced_to_its_copy():
    pixel = make_copy(
        "pixel", event_id="e2", ids={"fbp": "f", "ga_client_id": "c"}, commerce={"value": 5.0, "currency": "EUR"}
    )
    server = make_copy(
        "server", commerce={"value": 6.0, "currency": "EUR"}, user={"email": {"plain": "h"}}, labels=["test"]
    )

    found = origins([pixel, server])

    assert {path: [copy["source"] for copy in copies] for path, copies in found.items()} == {
        "event_id": ["pixel"], "time": ["server"], "ids.fbp": ["pixel"], "ids.ga_client_id": ["pixel"],
        "commerce.value": ["server"], "commerce.currency": ["server"], "user.email": ["server"], "labels": ["server"],
    }  # fmt: skip


def test_consent_is_of_all_copies_that_say_something():
    found = origins([said("pixel", ad_storage="granted"), said("server", ad_storage="denied", gpc=True)])

    assert [copy["source"] for copy in found["consent.ad_storage"]] == ["server", "pixel"]
    assert [copy["source"] for copy in found["consent.gpc"]] == ["server"]


@fast
@given(st.one_of(COPIES, MANY))
def test_what_a_field_was_taken_from_has_what_the_merged_event_has(copies):
    merged: Any = merge.merge(copies)
    found = origins(copies)

    for path, some in found.items():
        part, _, name = path.partition(".")
        if part not in ("consent", "labels"):
            values: list[Any] = [one[part][name] if name else one[part] for one in some]  # type: ignore[literal-required]
            assert values == [merged[part][name] if name else merged[part]]
    parts = ("commerce", "user", "context", "ids", "custom", "tags")
    assert {f"{part}.{name}" for part in parts for name in merged.get(part, {})} <= found.keys()
