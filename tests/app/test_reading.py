"""app/reading.py: what a source's filter and map make of a record, for any JSON; and which headers an event keeps."""

import base64
from typing import Any, NamedTuple

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app import reading
from app.errors import BadEvent
from app.events import Json
from app.formats import Ignored
from app.normalize import Inlet, Normalized, Refused, Result, normalize, normalize_bytes
from app.reading import Carried, a_place, carried, kept, mistakes, opened, rules

RECEIVED = 1_795_428_000_000  # 2026-11-23T10:00:00Z
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
ORDER: Json = {"kind": "paid", "number": 1001, "lines": [{"sku": "a", "each": 1}, {"each": 2}, {"sku": "c"}]}


def drafted(
    one: Any, mapping: dict[str, str], format_name: str = "map", keep: str | None = None, record: Carried | None = None
) -> Json:
    draft = reading.draft(one, format_name, rules(mapping, keep), record or Carried())
    assert isinstance(draft, dict)
    return draft


def run(value: Any, record: Carried | None = None, **inlet: Any) -> list[Result]:
    one = Inlet(**{"name": "t", "format": "map", "site": "shop", "source": "server", **inlet})
    return normalize(value, one, RECEIVED, {"topic": "orders"}, carried=record or Carried())


# map


@pytest.mark.parametrize(
    ("mapping", "expected"),
    [
        ({"event_id": "number"}, {"event_id": 1001}),
        ({"event_name": "'purchase'"}, {"event_name": "purchase"}),
        ({"event_name": "kind == 'paid' && 'purchase' || 'refund'"}, {"event_name": "purchase"}),
        ({"user.email": "kind", "user.phone": "number"}, {"user": {"email": "paid", "phone": 1001}}),
        ({"custom.a.b": "kind"}, {"custom": {"a": {"b": "paid"}}}),
        ({"custom": "{a: kind, b: number}"}, {"custom": {"a": "paid", "b": 1001}}),
        ({"labels[]": "kind"}, {"labels": ["paid"]}),
        ({"labels": "[kind]"}, {"labels": ["paid"]}),
        ({"commerce.value": "sum(lines[].each)"}, {"commerce": {"value": 3}}),
        ({"event_id": "none"}, {}),
        ({"event_id": "''"}, {}),
        ({"commerce.items": "lines[].{item_id: sku}"}, {"commerce": {"items": [{"item_id": c} for c in ("a", None, "c")]}}),
    ],
)  # fmt: skip
def test_an_expression_fills_a_field(mapping, expected):
    assert drafted(ORDER, mapping) == expected


def test_a_members_expressions_are_asked_of_each_member_so_none_moves_up():
    mapping = {"commerce.items[]": "lines", "commerce.items[].item_id": "sku", "commerce.items[].price": "each"}

    assert drafted(ORDER, mapping)["commerce"]["items"] == [
        {"item_id": "a", "price": 1},
        {"price": 2},
        {"item_id": "c"},
    ]


def test_members_may_be_texts_and_know_the_record():
    mapping = {"commerce.items[]": "skus", "commerce.items[].item_id": "@"}
    assert drafted({"skus": ["a", "b"]}, mapping)["commerce"]["items"] == [{"item_id": "a"}, {"item_id": "b"}]

    mapping = {"commerce.items[]": "lines", "commerce.items[].brand": "_value.kind", "commerce.items[].coupon": "_key"}
    item = drafted(ORDER, mapping, record=Carried("k"))["commerce"]["items"][0]
    assert item == {"brand": "paid", "coupon": "k"}


@pytest.mark.parametrize("lines", [{"sku": "a"}, "a", 1, True])
def test_members_of_what_is_no_list_are_refused(lines):
    with pytest.raises(BadEvent) as refused:
        drafted({"lines": lines}, {"commerce.items[]": "lines", "commerce.items[].item_id": "sku"})

    assert (refused.value.reason, refused.value.field) == ("wrong_type", "map.commerce.items[]")


def test_a_list_that_is_missing_leaves_the_field_alone():
    assert drafted({}, {"commerce.items[]": "lines", "commerce.items[].item_id": "sku"}) == {}


def test_an_expression_may_use_key_headers_and_timestamp_of_the_record():
    record = Carried("order-7", {"ce_id": "A-1"}, 1_795_000_000_000)
    mapping = {"event_id": "_headers.ce_id", "commerce.transaction_id": "_key", "time": "_timestamp"}

    assert drafted(5, mapping, record=record) == {
        "event_id": "A-1",
        "commerce": {"transaction_id": "order-7"},
        "time": 1_795_000_000_000,
    }


def test_the_value_itself_has_a_name_also_where_it_is_no_object():
    assert drafted("A-1", {"event_id": "_value"}) == {"event_id": "A-1"}
    assert drafted({"_key": "theirs"}, {"event_id": "_value._key"}, record=Carried("ours")) == {"event_id": "theirs"}


def test_what_the_format_read_is_replaced_by_what_is_found_and_else_stays():
    event = {"event_name": "x", "event_id": "1", "commerce": {"value": 1, "currency": "EUR"}}
    before = orjson.dumps(event)

    draft = drafted(event, {"commerce.value": "total", "event_id": "id", "commerce.tax": "'2'"}, "capistream")

    assert draft == {"event_name": "x", "event_id": "1", "commerce": {"value": 1, "currency": "EUR", "tax": "2"}}
    assert orjson.dumps(event) == before


def test_an_expression_sees_one_event_of_a_batch_as_its_table_does():
    body = {
        "batch": [{"type": "track", "event": "a", "messageId": "1"}, {"type": "track", "event": "b", "messageId": "2"}]
    }

    results = run(body, format="segment", rules=rules({"custom.was": "event"}, None))

    assert [r.event["custom"]["was"] for r in results if isinstance(r, Normalized)] == ["a", "b"]


def test_an_id_that_is_mapped_can_pair_where_the_formats_own_could_not():
    call = {"type": "track", "event": "x", "messageId": "m-1", "properties": {"uid": "u-1"}}

    (plain,), (mapped,) = (
        run(call, format="segment", rules=rules(mapping, None)) for mapping in ({}, {"event_id": "properties.uid"})
    )

    assert isinstance(plain, Normalized)
    assert isinstance(mapped, Normalized)
    assert (plain.event["event_id"], plain.event.get("pairs")) == ("m-1", False)
    assert (mapped.event["event_id"], mapped.event.get("pairs")) == ("u-1", None)


def test_a_message_that_reports_nothing_stays_one():
    assert run({"type": "identify"}, format="segment", rules=rules({"event_id": "x"}, None)) == [Ignored("identify")]


def test_each_member_of_a_list_is_an_event_of_the_map():
    results = run([{"n": "1"}, {"n": "2"}], rules=rules({"event_name": "'x'", "event_id": "n"}, None))

    assert [r.event["event_id"] for r in results if isinstance(r, Normalized)] == ["1", "2"]


@pytest.mark.parametrize(
    "expression",
    ["abs(kind)", "sum(lines)", "to_number('1e999') | floor(@)", "&kind", "to_number('9e99') | ceil(@)", "nothing_such(@)"],
)  # fmt: skip
def test_an_expression_that_cannot_be_worked_out_refuses_the_event_and_quotes_nothing(expression):
    (result,) = run({"kind": "ada@example.com", "lines": [{}]}, rules=rules({"event_id": expression}, None))

    assert isinstance(result, Refused)
    assert (result.reason, result.field) == ("bad_mapping", "map.event_id")
    assert "ada" not in repr(result)


def test_what_is_mapped_is_hashed_and_redacted_like_everything():
    mapping = {"event_name": "'x'", "event_id": "'1'", "user.email": "mail", "custom.note": "note"}

    (result,) = run({"mail": "ada@example.com", "note": "to ada@example.com"}, rules=rules(mapping, None))

    assert isinstance(result, Normalized)
    assert set(result.event["user"]["email"]) == {"plain", "gmail", "strict"}
    assert "ada@" not in repr(result)


# filter


@pytest.mark.parametrize(
    ("keep", "ignored"),
    [
        ("kind == 'paid'", False),
        ("kind == 'open'", True),
        ("none", True),
        ("number", False),
        ("`0`", False),  # as JMESPath has it
        ("`false`", True),
        ("`[]`", True),
        ("`{}`", True),
        ("''", True),
        ("_headers.ce_type == 'order.paid'", False),
        ("starts_with(_key, 'de-')", False),
        ("lines[?each > `1`]", False),
        ("lines[?each > `2`]", True),
    ],
)
def test_the_filter_decides_which_events_are_read(keep, ignored):
    record = Carried("de-1", {"ce_type": "order.paid"})

    found = reading.draft(ORDER, "map", rules({"event_id": "number"}, keep), record)

    assert found == (Ignored("filtered") if ignored else {"event_id": 1001})


def test_what_the_filter_leaves_out_need_not_be_readable():
    assert run({"kind": "heartbeat"}, format="segment", rules=rules({}, "type")) == [Ignored("filtered")]


def test_a_filter_that_cannot_be_worked_out_refuses_the_event():
    (result,) = run({"kind": "x"}, rules=rules({"event_name": "'x'"}, "abs(kind)"))

    assert isinstance(result, Refused)
    assert (result.reason, result.field) == ("bad_mapping", "filter")


# sites


def test_an_event_may_name_another_site_and_is_read_by_its_rules():
    at = Inlet("t", "map", "at", "server", country="AT")
    mapping = {"event_name": "'x'", "event_id": "'1'", "site": "shop", "user.phone": "tel"}
    value = {"tel": "01 5134567"}

    (default,), (austrian,), (unknown,) = (
        run(one, country="DE", rules=rules(mapping, None), elsewhere={"at": at})
        for one in (value, {**value, "shop": "at"}, {**value, "shop": "ch"})
    )

    assert isinstance(default, Normalized)
    assert isinstance(austrian, Normalized)
    assert (default.event["site"], austrian.event["site"]) == ("shop", "at")
    assert austrian.event["user"]["phone"] != default.event.get("user", {}).get("phone")
    assert isinstance(unknown, Refused)
    assert (unknown.reason, unknown.field) == ("unknown_site", "site")


# the record, and envelopes


class Record(NamedTuple):
    key: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    timestamp: int = 7


def test_of_headers_the_last_of_a_name_counts_and_only_text():
    record = Record(b"k", (("a", b"1"), ("a", b"2"), ("b", b"\xff"), ("c", None), ("d", b"")))

    assert carried(record) == Carried("k", {"a": "2", "d": ""}, 7)
    assert carried(Record(b"\xff", ())) == Carried(None, {}, 7)
    assert carried(Record(None, ())) == Carried(None, {}, 7)
    assert carried(Record(b"\0\0\0\0\0\0\3A", ())) == Carried(None, {}, 7)


def test_attributes_of_an_envelope_read_like_the_headers_of_binary_mode():
    envelope = {"specversion": "1.0", "id": "A-1", "flag": True, "n": 5, "odd": {"x": 1}, "data": {"a": 1}}

    body, record = opened(envelope, Carried("k", {"traceparent": TRACE}))

    assert body == {"a": 1}
    assert record.headers == {
        "traceparent": TRACE,
        "ce_specversion": "1.0",
        "ce_id": "A-1",
        "ce_flag": "true",
        "ce_n": "5",
    }


def test_data_of_an_envelope_may_be_in_base64():
    data = base64.b64encode(b'{"a": 1}').decode()

    assert opened({"specversion": "1.0", "data_base64": data}, Carried())[0] == {"a": 1}


@pytest.mark.parametrize("data", ["%%%", "", "e30", base64.b64encode(b"<xml/>").decode(), 5, None, "é"])
def test_data_that_is_no_json_in_base64_is_refused(data):
    (result,) = run({"specversion": "1.0", "data_base64": data})

    assert isinstance(result, Refused)
    assert (result.reason, result.field) == ("not_json", "data_base64")


@pytest.mark.parametrize("body", [{"data": {}}, {"specversion": "1.0"}, [], None, "x"])
def test_what_is_no_envelope_stays_as_it_is(body):
    assert opened(body, Carried()) == (body, Carried())


def test_an_event_keeps_cloudevents_attributes_and_trace_context_and_no_other_header():
    headers = {"ce_id": "A-1", "traceparent": TRACE, "tracestate": "a=b", "authorization": "Bearer x", "CE_ID": "x"}

    (result,) = run({}, Carried(headers=headers), rules=rules({"event_name": "'x'", "event_id": "'1'"}, None))

    assert isinstance(result, Normalized)
    assert result.event["origin"] == {
        "topic": "orders",
        "headers": {"ce_id": "A-1", "traceparent": TRACE, "tracestate": "a=b"},
    }


def test_a_header_is_free_of_clear_addresses():
    assert kept({"ce_subject": "user/ada@example.com"}) == ({"ce_subject": "user/[redacted]"}, False)
    assert kept({"ce_subject": "+4915112345678"}) == ({"ce_subject": "[redacted]"}, False)


def test_headers_are_bounded_and_it_is_told():
    long = {"ce_a": "x" * 513, "ce_b": "y"}
    (result,) = run({}, Carried(headers=long), rules=rules({"event_name": "'x'", "event_id": "'1'"}, None))
    assert isinstance(result, Normalized)
    assert result.event["origin"]["headers"] == {"ce_b": "y"}
    assert result.drops == (("origin.headers", "too_large"),)

    found, cut = kept({f"ce_{n}": "x" * 100 for n in range(100)})
    assert cut
    assert 1800 < sum(map(len, (*found, *found.values()))) <= 2000


def test_a_dead_letters_origin_has_no_headers():
    """Its id is made of the origin, and a replay has to find the same."""
    origin: Any = {"topic": "orders"}
    inlet = Inlet("t", "map", "shop", "server")

    normalize_bytes(b"{}", inlet, RECEIVED, origin, carried=Carried(headers={"ce_id": "1"}))

    assert origin == {"topic": "orders"}


# any JSON

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["a", "b", "c"]) | st.text(max_size=3), inner),
    max_leaves=12,
)  # fmt: skip
EXPRESSIONS = st.sampled_from(
    [
        *("a", "a.b", "a[].b", "a[0]", "@", "a || b", "a && b", "!a", "a == b", "a > b", "a[?b > `1`].c", "a.*", "[a, b]"),
        *("{x: a, y: b}", "abs(a)", "sum(a)", "avg(a[].b)", "join(a, b)", "length(a)", "to_number(a)", "to_string(@)", "max(a)"),
        *("sort_by(a, &b)", "map(&b, a)", "merge(a, b)", "keys(a)", "reverse(a)", "not_null(a, b)", "type(a)", "&a", "floor(a)"),
        *("_key", "_headers.ce_id", "_timestamp", "_value", "a[::2]", "a[].b[].c", "contains(a, b)", "starts_with(a, b)"),
    ]
)  # fmt: skip
PLACES = ["event_name", "event_id", "time", "sent_at", "site", "source", "user", "user.email", "context.ip", "ids.gclid",
          "commerce", "commerce.value", "commerce.currency", "commerce.items", "consent", "consent.tcf", "consent.categories",
          "tags.meta.ran", "labels", "custom", "custom.x.y", "pairs", "commerce.items[]"]  # fmt: skip
MEMBERS = ["commerce.items[].item_id", "commerce.items[].price", "commerce.items[].quantity"]


@settings(max_examples=400)
@given(
    value=JSON,
    mapping=st.dictionaries(st.sampled_from(PLACES), EXPRESSIONS, max_size=5),
    members=st.dictionaries(st.sampled_from(MEMBERS), EXPRESSIONS, max_size=2),
    keep=st.none() | EXPRESSIONS,
    format_name=st.sampled_from(["map", "capistream", "segment", "meta", "ga4"]),
    record=st.builds(
        Carried,
        st.none() | st.text(max_size=5),
        st.dictionaries(st.sampled_from(["ce_id", "traceparent", "x"]), st.text(max_size=9)),
        st.none() | st.integers(-1, 2**50),
    ),
)
def test_no_json_and_no_map_is_more_than_refused(value, mapping, members, keep, format_name, record):
    results = run(value, record, format=format_name, rules=rules({"event_id": "a", **mapping, **members}, keep))

    for result in results:
        if isinstance(result, Normalized):
            assert orjson.loads(orjson.dumps(result.event)) == result.event
        else:
            assert isinstance(result, Refused | Ignored)


# what config check says


@pytest.mark.parametrize("place", [*PLACES, *MEMBERS, "labels[]", "consent.categories.C0004", "user", "tags"])
def test_a_field_of_an_event_can_be_mapped(place):
    assert a_place(place) == place


@pytest.mark.parametrize(
    ("place", "known"),
    [
        ("event", "event_name"),
        ("", "event_name"),
        ("commerce.valu", "commerce has value"),
        ("commerce.value.x", "commerce has value"),
        ("commerce.items.item_id", "commerce has value"),
        ("commerce.items[0].item_id", "commerce has value"),
        ("commerce.items[].sku", "item_id"),
        ("user.mail", "email"),
        ("user.", "email"),
        ("event_id.x", "event_id has none"),
        ("tags.meta.id", "tags has ran, event_id"),
        ("custom..x", "custom has none"),
        ("v", "event_name"),
        ("origin.topic", "event_name"),
    ],
)
def test_a_field_that_no_event_has_is_named_with_those_there_are(place, known):
    with pytest.raises(ValueError, match="no field of ours") as refused:
        a_place(place)

    assert known in str(refused.value)


@pytest.mark.parametrize(
    ("format_name", "mapping", "missing"),
    [
        ("map", {}, ["event_name is missing", "event_id is missing"]),
        ("map", {"event_name": "'purchase'", "commerce.transaction_id": "n"}, []),
        ("map", {"event_name": "'x'", "event_id": "n"}, []),
        ("segment", {}, []),
        ("segment", {"commerce.items[].item_id": "x"}, ['"commerce.items[]" is missing']),
        ("segment", {"commerce.items[]": "x", "commerce.items": "y"}, ['"commerce.items" and "commerce.items[]"']),
    ],
)
def test_what_a_map_lacks_is_named(format_name, mapping, missing):
    found = mistakes(format_name, mapping)

    assert len(found) == len(missing)
    assert all(one.startswith(text) for one, text in zip(found, missing, strict=True))
