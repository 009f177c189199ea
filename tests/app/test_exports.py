"""app/exports.py: what another system sent is read from CSV and from request bodies, wherever a log has them."""

import orjson
import pytest

from app import exports
from app.errors import CapistreamError
from app.exports import Ours, Sent, Unread
from sinks import BUILT_IN
from tests.sinks.test_all import sink_settings

NOW = 1_795_420_800_000


def places(kind, **settings):
    sink = BUILT_IN[kind]
    return sink(sink.Settings.model_validate(sink_settings(kind) | settings)).places


def read(text, columns=(), zone=None, kind="meta"):
    return exports.read(text.encode(), "ads", places(kind), exports.columns(columns), zone)


def meta(**event):
    return {"event_name": "Purchase", "event_time": NOW // 1000, "event_id": "e-1"} | event


# CSV


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ("order_id,value,currency,time", {"order_id": "order_id", "time": "time", "value": "value", "currency": "currency"}),
        ("Transaction ID,Revenue", {"order_id": "Transaction ID", "value": "Revenue"}),
        ("event_timestamp,event_name,ecommerce.transaction_id,purchase_revenue",
         {"order_id": "ecommerce.transaction_id", "name": "event_name", "time": "event_timestamp", "value": "purchase_revenue"}),
        ("Event Id;Event;Created At", {"event_id": "Event Id", "name": "Event", "time": "Created At"}),
        ("\ufeffOrder\tTotal", {"order_id": "Order", "value": "Total"}),
    ],
)  # fmt: skip
def test_columns_are_found_by_what_exports_call_them(header, found):
    assert read(header + "\n").columns == found


def test_a_column_that_is_named_goes_before_one_that_is_found():
    export = read("order,our ref,net,value\n1,r-1,10,11.9\n", ["order_id=our ref", "value=net"])

    assert export.sent == [Sent(order_id="r-1", value=10.0)]


@pytest.mark.parametrize(
    ("columns", "complaint"),
    [
        (["order_id=number"], "--column: order_id: the first row names no column number"),
        (["when"], "--column: FIELD=COLUMN, with FIELD one of order_id, event_id, name, time, value, currency, not when"),
        (["price=what"], "--column: FIELD=COLUMN, with FIELD one of order_id, event_id, name, time, value, currency, not price"),
        ([], ("the first row names no column that looks like an order number or an event id; name one: "
              "--column order_id=COLUMN or event_id=COLUMN")),
    ],
)  # fmt: skip
def test_a_column_that_is_missing_is_named(columns, complaint):
    with pytest.raises(CapistreamError) as caught:
        read("when,what\n1,2\n", columns)

    assert str(caught.value) == complaint


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("59.98", 59.98),
        ("59,98", 59.98),
        ("1.234,50", 1234.5),
        ("1,234.50", 1234.5),
        ("1,234", 1234.0),
        ("-5", -5.0),
        ("", None),
    ],
)
def test_amounts_are_read_as_people_write_them(written, value):
    (one,) = read(f'order;value\n1;"{written}"\n').sent

    assert one.value == value


@pytest.mark.parametrize(
    ("written", "zone"),
    [
        ("2026-11-23T08:00:00Z", None),
        ("2026-11-23 08:00:00 UTC", None),
        ("2026-11-23T09:00:00", "Europe/Berlin"),
        ("1795420800", None),
        ("1795420800000000", None),
    ],
)
def test_times_are_read_as_programs_write_them(written, zone):
    (one,) = read(f"order,time\n1,{written}\n", zone=zone).sent

    assert one.time == NOW


def test_what_cannot_be_read_is_told_by_line_and_column_and_the_rest_is_read():
    export = read("order,Created At,Revenue\n1,yesterday,5\n2,2026-11-23T08:00:00,5\n3,,ada@example.com\n4,,7\n\n")

    assert export.unread == [
        Unread(2, "Created At", "is neither ISO 8601 nor a number"),
        Unread(3, "Created At", "has no time zone, and the source names none"),
        Unread(4, "Revenue", "is no number"),
    ]
    assert [one.order_id for one in export.sent] == ["4"]


def test_a_currency_that_is_none_is_told_and_not_shown():
    assert read("order,currency\n1,grace@example.com\n").unread == [
        Unread(2, "currency", "is not three letters (ISO 4217)")
    ]


def test_ids_that_are_none_are_no_ids():
    assert [one.order_id for one in read("order,event_id\nundefined,e-1\nnull,\n7,\n").sent] == ["", "", "7"]


def test_a_time_zone_that_is_none_is_named():
    with pytest.raises(CapistreamError, match="--time-zone: an IANA name"):
        exports.zone("Berlin")


def test_a_file_that_is_not_utf_8_is_refused():
    with pytest.raises(CapistreamError, match="the file is not UTF-8"):
        exports.read(b"order\n\xff\n", "ads", None, {})


# JSON

BODY = {"data": [meta(custom_data={"value": 59.98, "currency": "eur", "order_id": "1001"})]}
SAID = ("1001", "e-1", "Purchase", NOW, 59.98, "EUR")


def said(one):
    return one.order_id, one.event_id, one.name, one.time, one.value, one.currency


@pytest.mark.parametrize(
    "line",
    [
        BODY,
        BODY["data"][0],
        BODY["data"],
        {"Name": "Facebook", "Type": "Request", "EventName": "Purchase", "RequestBody": BODY},
        {"jsonPayload": {"message": orjson.dumps({"RequestBody": orjson.dumps(BODY).decode()}).decode()}},
        {"v": 1, "event_name": "purchase", "event_id": "e-1", "body": orjson.dumps(BODY).decode()},
        {
            "time": 1,
            "request": {"url": "https://graph.facebook.com/v26.0/1/events", "body": orjson.dumps(BODY).decode()},
        },
    ],
)
def test_a_body_is_found_wherever_a_log_has_it(line):
    (one,) = read(orjson.dumps(line).decode()).sent

    assert said(one) == SAID
    assert orjson.loads(one.body) == BODY["data"][0]


def test_each_event_of_a_request_and_each_line_counts():
    text = "\n".join(orjson.dumps({"data": [meta(event_id=f"{line}-{n}") for n in range(2)]}).decode() for line in "ab")

    assert [one.event_id for one in read(text).sent] == ["a-0", "a-1", "b-0", "b-1"]


def test_lines_without_an_event_are_counted_and_lines_that_are_no_json_are_told():
    text = "\n".join(orjson.dumps(one).decode() for one in (BODY, {"Type": "Response", "ResponseStatusCode": 200}))

    export = read(f"{text}\nnonsense\n")

    assert (len(export.sent), export.without, export.unread) == (1, 1, [Unread(3, "line", "is not JSON")])


def test_what_a_body_says_once_counts_for_each_of_its_events():
    body = {
        "client_id": "1.2",
        "timestamp_micros": NOW * 1000,
        "events": [
            {"name": "purchase", "params": {"transaction_id": n, "value": "5", "currency": "EUR"}} for n in ("1", "2")
        ],
    }

    one, other = read(orjson.dumps(body).decode(), kind="ga4").sent

    assert [said(one), said(other)] == [(n, "", "purchase", NOW, 5.0, "EUR") for n in ("1", "2")]
    assert orjson.loads(other.body)["client_id"] == "1.2"


def test_the_conversion_action_of_the_older_interface_of_google_ads_is_its_number():
    body = {"conversions": [{"conversionAction": "customers/1/conversionActions/22", "orderId": "7",
                             "conversionDateTime": "2026-11-23 08:00:00+00:00"}]}  # fmt: skip
    older = {"api": "upload_clicks", "developer_token": {"env": "TOKEN"}}

    (one,) = exports.read(orjson.dumps(body), "ads", places("google_ads", **older), {}).sent

    assert said(one) == ("7", "", "22", NOW, None, "")


def test_columns_of_a_json_file_and_bodies_of_a_sink_that_tells_no_places_are_mistakes():
    with pytest.raises(CapistreamError, match="this file is JSON"):
        read("{}", ["value=net"])
    with pytest.raises(CapistreamError, match="give CSV"):
        exports.read(b"{}", "ads", None, {})


# ours


def trace(**more):
    return {"v": 1, "destination": "ads", "event_name": "purchase", "event_id": "e-1", "transaction_id": "1001",
            "name": "Purchase", "body": orjson.dumps(BODY).decode()} | more  # fmt: skip


def receipt(outcome, **more):
    return {"v": 1, "destination": "ads", "event_name": "purchase", "event_id": "e-1", "transaction_id": "1001",
            "event_time": NOW, "value": 59.98, "currency": "EUR", "outcome": outcome} | more  # fmt: skip


def test_a_trace_says_what_its_request_says_under_our_ids():
    google = trace(name="22", body={"destinations": [{"productDestinationId": "22"}],
                                    "events": [{"transactionId": "o_1001", "eventTimestamp": "2026-11-23T08:00:00Z"}]})  # fmt: skip

    one = exports.of_trace(google, places("google_ads"))

    assert one
    assert said(one) == ("1001", "e-1", "22", NOW, None, "")
    assert (one.event_name, one.outcome) == ("purchase", "shadowed")


def test_a_line_of_a_preview_may_say_why_nothing_is_sent():
    row = {
        "destination": "ads",
        "event_name": "purchase",
        "event_id": "e-1",
        "outcome": "held_back",
        "reason": "consent_denied",
    }

    one = exports.of_trace(row, places("meta"))

    assert one
    assert (one.event_id, one.outcome, one.reason) == ("e-1", "held_back", "consent_denied")
    assert exports.of_trace({"destination": "ads", "body": "nonsense"}, places("meta")) is None


def test_what_was_really_sent_is_known_without_the_fields_that_its_trace_leaves_out():
    row = trace(outcome="delivered", attempt=1, status=200, answer="{}")

    one = exports.of_trace(row, places("meta"))

    assert one
    assert said(one) == SAID
    assert (one.outcome, one.body) == ("delivered", b"")


@pytest.mark.parametrize("outcome", ["retry", "halt"])
def test_an_attempt_that_failed_is_nothing_that_was_sent(outcome):
    assert exports.of_trace(trace(outcome=outcome, reason="HTTP 503"), places("meta")) is None


def test_a_request_in_shadow_that_was_too_long_to_be_kept_is_one_all_the_same():
    one = exports.of_trace(trace(outcome="shadowed", cut=1, body='{"data": [{"event_na'), places("meta"))

    assert one
    assert (one.order_id, one.outcome, one.body) == ("1001", "shadowed", b"")


def test_of_one_conversion_the_request_stays_and_its_outcome_is_the_receipts():
    ours = Ours()
    ours.add_trace(b"key", trace(outcome="shadowed"), places("meta"))
    ours.add_receipt(b"key", receipt("shadowed", name="Purchase"))
    ours.add_receipt(b"other", receipt("delivered", name="Purchase", event_id="e-2"))
    ours.add_receipt(b"third", receipt("held_back", event_id="e-3", reason="consent_absent"))

    assert [(one.event_id, one.outcome, bool(one.body), one.value) for one in ours.all()] == [
        ("e-1", "shadowed", True, 59.98),
        ("e-2", "delivered", False, 59.98),
        ("e-3", "held_back", False, 59.98),
    ]


def test_another_capistreams_receipts_are_an_export_of_what_was_delivered_there():
    rows = [receipt("delivered", site="shop", name="Purchase"), receipt("skipped", site="shop"),
            receipt("delivered", site="shop", destination="stats")]  # fmt: skip

    (one,) = read("\n".join(orjson.dumps(row).decode() for row in rows)).sent

    assert said(one) == SAID
    assert (one.event_name, one.outcome) == ("", "")


def test_what_was_held_back_at_first_and_sent_later_was_sent():
    ours = Ours()
    ours.add_receipt(b"key", receipt("held_back", reason="consent_absent"))
    ours.add_receipt(b"key", receipt("delivered", name="Purchase"))

    assert [one.outcome for one in ours.all()] == ["delivered"]


def test_an_id_that_is_an_address_is_not_shown():
    assert exports.shown_id("ada@example.com") == "[redacted]"
    assert exports.shown_id("1001") == "1001"
