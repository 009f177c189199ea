"""app/trying.py and `capistream map try`: the event, what was not used, and what nothing reads."""

import orjson
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from app.cli import main
from app.normalize import Inlet
from app.reading import Carried, rules
from app.trying import unread_parts

CONFIG = """
[sites.shop]
write_key = "wk_12345678"
secret_key = { env = "NOBODY_SETS_THIS" }
country = "DE"

[sources.orders]
topic = "shop.orders"
site = "shop"
format = "map"
filter = "state != 'draft'"
minor_units = true
time_zone = "Europe/Berlin"

[sources.orders.map]
event_name = "state == 'cancelled' && 'refund' || 'purchase'"
event_id = "_headers.ce_id || number"
time = "placed_at"
"user.email" = "customer.mail"
"context.ip" = "customer.ip"
"commerce.transaction_id" = "number"
"commerce.value" = "total.cents"
"commerce.currency" = "total.currency"
"commerce.items[]" = "lines"
"commerce.items[].item_id" = "sku"
"commerce.items[].price" = "cents"

[sources.web]
topic = "segment.web"
site = "shop"
format = "segment"
"""
ORDER = {
    "number": "1001",
    "state": "paid",
    "placed_at": "2026-11-23T11:00:00",
    "customer": {"mail": "ada@example.com", "ip": "10.0.0.1", "nick": "ada"},
    "total": {"cents": 5998, "currency": "EUR"},
    "lines": [{"sku": "A", "cents": 2999, "shelf": 7}, {"sku": "B", "cents": 2999, "shelf": None}],
    "note": "",
}
AT = "2026-11-23T11:00:00Z"


@pytest.fixture
def map_try(tmp_path):
    def run(*values, arguments=(), source="orders", config=CONFIG):
        (tmp_path / "capistream.toml").write_text(config)
        (tmp_path / "values").write_bytes(b"\n".join(v if isinstance(v, bytes) else orjson.dumps(v) for v in values))
        command = ["map", "try", str(tmp_path / "values"), "--config", str(tmp_path / "capistream.toml"), "--now", AT]
        return CliRunner().invoke(main, [*command, "--source", source, *arguments])

    return run


def test_an_order_is_shown_as_the_event_that_it_becomes_with_what_was_left(map_try):
    result = map_try(ORDER, arguments=["--json"])

    assert result.exit_code == 0, result.output
    (told,) = map(orjson.loads, result.stdout.splitlines())
    event = told["event"]
    assert (event["event_name"], event["event_id"], event["time"]) == ("purchase", "1001", 1_795_428_000_000)
    assert event["commerce"] == {
        "value": 59.98,
        "currency": "EUR",
        "transaction_id": "1001",
        "items": [{"item_id": "A", "price": 29.99}, {"item_id": "B", "price": 29.99}],
    }
    assert "ada@" not in result.stdout
    assert told["dropped"] == [{"field": "context.ip", "reason": "private"}]
    assert told["unread"] == ["customer.nick", "lines[].shelf", "note"]


def test_people_read_the_same(map_try):
    lines = map_try(ORDER).stdout.splitlines()

    assert lines[0] == "line 1: purchase 1001"
    assert lines[-4:] == [
        "  not used: context.ip, private",
        "  nothing reads: customer.nick",
        "  nothing reads: lines[].shelf",
        "  nothing reads: note",
    ]


def test_consent_that_cannot_be_read_is_told_to_count_as_denied(map_try):
    config = CONFIG.replace("[sources.web]", '"consent.ad_storage" = "ads"\n\n[sources.web]')

    told = map_try({**ORDER, "ads": "yes"}, config=config).stdout

    assert "  not used: consent.ad_storage, unreadable, so it counts as denied\n" in told
    assert '"ad_storage": "denied"' in told


def test_why_an_event_is_refused_or_ignored_is_told_with_its_line(map_try):
    result = map_try({**ORDER, "state": "draft"}, b"{oops", {**ORDER, "total": {"cents": 1}})

    assert result.exit_code == 1
    assert result.stdout.splitlines() == [
        "line 1: ignored: filtered",
        "line 2: refused: not_json: not JSON, at character 1",
        "line 3: refused: no_currency: commerce.currency is missing, and there is a value",
    ]


def test_the_record_may_have_a_key_and_headers(map_try):
    result = map_try(ORDER, arguments=["--json", "--header", "ce_id=A=1", "--key", "k"])

    event = orjson.loads(result.stdout)["event"]
    assert event["event_id"] == "A=1"
    assert event["origin"]["headers"] == {"ce_id": "A=1"}


@pytest.mark.parametrize(
    ("arguments", "source", "said"),
    [
        (["--header", "ce_id"], "orders", "--header: NAME=VALUE"),
        ([], "ordres", "--source: no source is called ordres; there are orders, web"),
        (["--now", "today"], "orders", "--now: ISO 8601"),
    ],
)
def test_a_wrong_option_is_named(map_try, arguments, source, said):
    result = map_try(ORDER, arguments=arguments, source=source)

    assert result.exit_code == 1
    assert said in result.stderr


def test_a_formats_own_table_is_tried_like_a_map(map_try):
    call = {
        "type": "track",
        "event": "Order Completed",
        "messageId": "m-1",
        "anonymousId": "a-1",
        "properties": {"order_id": "1", "revenue": 1, "value": 2, "currency": "EUR"},
    }

    (told,) = map(orjson.loads, map_try(call, source="web", arguments=["--json"]).stdout.splitlines())

    # the order's id is the event's, and revenue outdoes value
    assert told["unread"] == ["messageId", "anonymousId", "properties.value"]


@pytest.mark.parametrize(
    "keep",
    ["a", "a == `1`", "a > `0`", "a < `100`", "!(a == `5`)", "a > `-1` || b == 'none'", "_value.a", "contains([a], `1`)"],
)  # fmt: skip
def test_what_only_the_filter_asks_for_is_read(keep):
    inlet = Inlet("t", "map", "shop", "server", rules=rules({"event_id": "id"}, keep))

    assert unread_parts({"id": "1", "a": 1, "x": 1}, inlet, Carried()) == ["x"]


def test_what_decides_by_a_word_is_read_whichever_word_stands_there():
    mapping = {"event_id": "id", "event_name": "kind == 'a' && 'one' || kind == 'b' && 'two' || 'other'"}
    inlet = Inlet("t", "map", "shop", "server", rules=rules(mapping, None))

    for kind in ("a", "b", "c"):
        assert unread_parts({"id": "1", "kind": kind, "x": 1}, inlet, Carried()) == ["x"]


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=3),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
        max_leaves=8,
    ),
    st.sampled_from(["map", "capistream", "segment", "meta", "ga4"]),
)
def test_any_json_can_be_tried(body, format_name):
    inlet = Inlet("t", format_name, "shop", "server", rules=rules({"event_id": "a", "event_name": "b[0].c"}, None))

    unread_parts(body, inlet, Carried())
