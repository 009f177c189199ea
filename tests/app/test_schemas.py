"""app/schemas.py: what was written by a schema comes out as JSON would say it. The libraries' own writers are the witnesses."""

import base64
import io
import struct
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

import fastavro
import orjson
import pytest
from google.protobuf import descriptor_pool, message_factory  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st

from app.errors import BadEvent
from app.events import Json
from app.normalize import Inlet, Normalized, Refused, normalize_bytes
from app.reading import rules
from app.schemas import BadSchema, Registered, Schemas, Undecodable, compiled, decoded, decoder, number, numbers

RECEIVED = 1_795_428_000_000  # 2026-11-23T10:00:00Z


def framed(payload: bytes, schema: int = 7) -> bytes:
    return b"\0" + struct.pack(">I", schema) + payload


def read(schema: Registered, payload: bytes) -> Any:
    return decoded(framed(payload), {7: decoder(schema)})


# the frame


@pytest.mark.parametrize(
    ("value", "found"),
    [(framed(b"", 7), 7), (framed(b"x", 2**32 - 1), 2**32 - 1), (b"\0\0\0\0", None), (b'{"a": 1}', None), (None, None)],
)  # fmt: skip
def test_a_value_says_by_which_schema_it_is_written(value, found):
    assert number(value) == found


def test_the_schemas_of_a_batch_are_each_named_once():
    assert numbers([framed(b"a", 1), framed(b"b", 1), framed(b"c", 2), b"{}", None]) == {1, 2}


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"", "empty"),
        (None, "empty"),
        (b'{"a": 1}', "no_schema_id"),
        (framed(b"{}", 2), "unknown_schema"),
        (framed(b"{oops", 1), "not_by_schema"),
    ],
)
def test_what_cannot_be_decoded_is_refused_with_a_reason(value, reason):
    known: Schemas = {
        1: decoder(Registered("JSON", "{}")),
        2: Undecodable("unknown_schema", "the registry has no schema 2"),
    }

    with pytest.raises(BadEvent) as refused:
        decoded(value, known)

    assert refused.value.reason == reason


# Avro


def avro(schema: Any, value: Any, imports: dict[str, Any] | None = None) -> Any:
    """Written by fastavro and read by ours."""
    names: dict[str, Any] = {}
    for one in (imports or {}).values():
        fastavro.parse_schema(one, named_schemas=names)
    stream = io.BytesIO()
    fastavro.schemaless_writer(stream, fastavro.parse_schema(schema, named_schemas=dict(names)), value)
    texts = {name: orjson.dumps(one).decode() for name, one in (imports or {}).items()}
    return read(Registered("AVRO", orjson.dumps(schema).decode(), texts), stream.getvalue())


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        ("string", "é", "é"),
        ("boolean", False, False),
        ("long", 2**60, 2**60),
        ("double", 59.98, 59.98),
        ("float", 59.98, 59.98),
        ("float", 0.1, 0.1),
        ("float", 16777217.0, 16777216.0),
        ("double", float("nan"), None),
        ("double", float("inf"), None),
        ("bytes", b"\xff", "/w=="),
        (["null", "string"], None, None),
        ({"type": "array", "items": "long"}, [1, 2], [1, 2]),
        ({"type": "map", "values": "long"}, {"a": 1}, {"a": 1}),
        ({"type": "enum", "name": "E", "symbols": ["A", "B"]}, "B", "B"),
        ({"type": "fixed", "name": "F", "size": 2}, b"ab", "YWI="),
        (
            {"type": "long", "logicalType": "timestamp-millis"},
            datetime(2026, 11, 23, 10, 0, 0, 123000, UTC),
            "2026-11-23T10:00:00.123000+00:00",
        ),
        (
            {"type": "long", "logicalType": "timestamp-micros"},
            datetime(2026, 1, 1, tzinfo=UTC),
            "2026-01-01T00:00:00+00:00",
        ),
        ({"type": "long", "logicalType": "local-timestamp-millis"}, datetime(2026, 1, 1, 12), "2026-01-01T12:00:00"),  # noqa: DTZ001
        ({"type": "int", "logicalType": "date"}, date(1997, 2, 16), "1997-02-16"),
        ({"type": "int", "logicalType": "time-millis"}, time(12, 30), "12:30:00"),
        ({"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}, Decimal("59.98"), 59.98),
        ({"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}, Decimal("60.00"), 60),
        ({"type": "bytes", "logicalType": "decimal", "precision": 38, "scale": 0}, Decimal(10**30), str(10**30)),
        (
            {"type": "string", "logicalType": "uuid"},
            UUID("7b0a3f5e-0000-4000-8000-000000000001"),
            "7b0a3f5e-0000-4000-8000-000000000001",
        ),
    ],
)
def test_an_avro_value_comes_out_as_json_has_it(kind, value, expected):
    assert avro({"type": "record", "name": "R", "fields": [{"name": "x", "type": kind}]}, {"x": value}) == {
        "x": expected
    }


MONEY = {"type": "record", "name": "Money", "fields": [{"name": "cents", "type": "long"}]}


@pytest.mark.parametrize("space", ["", "io.shop."])
def test_an_avro_schema_may_import_others_and_name_itself(space):
    money = {**MONEY, "name": f"{space}Money"}
    order = {"type": "record", "name": f"{space}Order", "fields": [
        {"name": "total", "type": f"{space}Money"}, {"name": "again", "type": ["null", f"{space}Order"]},
    ]}  # fmt: skip
    value = {"total": {"cents": 1}, "again": {"total": {"cents": 2}, "again": None}}

    assert avro(order, value, {"money": money}) == value


def test_an_avro_schema_may_be_nothing_but_a_choice_of_imported_ones():
    refund = {"type": "record", "name": "Refund", "fields": [{"name": "of", "type": "string"}]}
    both = {"money": MONEY, "refund": refund}
    texts = {name: orjson.dumps(one).decode() for name, one in both.items()}

    assert read(Registered("AVRO", '["Money", "Refund"]', texts), b"\x02\x02a") == {"of": "a"}


@pytest.mark.parametrize(("text", "payload", "expected"), [('"string"', b"\x02a", "a"), ("string", b"\x02a", "a")])
def test_an_avro_schema_may_be_one_word(text, payload, expected):
    assert read(Registered("AVRO", text), payload) == expected


ORDER_AVRO: Json = {
    "type": "record",
    "name": "Order",
    "fields": [
        {"name": "id", "type": "string"},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "total", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}},
        {"name": "mails", "type": {"type": "array", "items": "string"}},
        {"name": "more", "type": ["null", {"type": "map", "values": "double"}]},
    ],
}


def test_an_avro_order_becomes_an_event_through_a_map():
    stream = io.BytesIO()
    at = datetime(2026, 11, 23, 9, 59, 59, tzinfo=UTC)
    order = {"id": "1001", "at": at, "total": Decimal("59.98"), "mails": ["ada@example.com"], "more": None}
    fastavro.schemaless_writer(stream, fastavro.parse_schema(ORDER_AVRO), order)
    mapping = {"event_name": "'purchase'", "event_id": "id", "time": "at", "user.email": "mails[0]",
               "commerce.value": "total", "commerce.currency": "'EUR'"}  # fmt: skip
    inlet = Inlet("t", "map", "shop", "server", encoding="registry", rules=rules(mapping, None))
    known = {7: decoder(Registered("AVRO", orjson.dumps(ORDER_AVRO).decode()))}

    (result,) = normalize_bytes(framed(stream.getvalue()), inlet, RECEIVED, {}, known=known)

    assert isinstance(result, Normalized)
    assert (result.event["event_id"], result.event["time"]) == ("1001", RECEIVED - 1000)
    assert result.event["commerce"] == {"value": 59.98, "currency": "EUR"}
    assert result.event["user"]["email"]


# Protobuf

COMMON = 'syntax = "proto3"; package common; message Money { int64 units = 1; string currency = 2; }'
SHOP = """
syntax = "proto3";
package shop;
import "google/protobuf/timestamp.proto";
import "google/protobuf/wrappers.proto";
import "google/protobuf/struct.proto";
import "common/money.proto";

message Heartbeat { int32 n = 1; }

message Order {
  enum State { UNKNOWN = 0; PAID = 1; }
  message Line { string sku = 1; float each = 2; }
  string id = 1;
  google.protobuf.Timestamp at = 2;
  int64 cents = 3;
  State state = 4;
  repeated Line lines = 5;
  map<string, int32> counts = 6;
  bytes raw = 7;
  optional bool gift = 8;
  google.protobuf.Int64Value points = 9;
  google.protobuf.Struct more = 10;
  common.Money total = 11;
  bool test = 12;
  oneof paid_by { string card = 13; string bank = 14; }
  map<bool, Line> by_flag = 15;
}
"""
SCHEMA = Registered("PROTOBUF", SHOP, {"common/money.proto": COMMON})


def message(name: str) -> Any:
    pool = descriptor_pool.DescriptorPool()
    for file in compiled(SCHEMA):
        pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(name))()


def order() -> Any:
    one = message("shop.Order")
    one.id, one.cents, one.state, one.raw, one.gift, one.card = "1001", 2**60, 1, b"\xff", False, "visa"
    one.at.FromJsonString("2026-11-23T09:59:59.5Z")
    one.lines.add(sku="A", each=29.99)
    one.lines.add(sku="B", each=0.1)
    one.counts["a"] = 1
    one.points.value = 2**55
    one.more.update({"tier": "gold", "n": 1})
    one.total.units = 5
    one.by_flag[True].sku = "C"
    return one


EXPECTED = {
    "id": "1001",
    "at": "2026-11-23T09:59:59.500Z",
    "cents": 2**60,
    "state": "PAID",
    "lines": [{"sku": "A", "each": 29.99}, {"sku": "B", "each": 0.1}],
    "counts": {"a": 1},
    "raw": "/w==",
    "gift": False,
    "points": 2**55,
    "more": {"tier": "gold", "n": 1},
    "total": {"units": 5},
    "card": "visa",
    "by_flag": {"true": {"sku": "C"}},
}


def test_a_protobuf_message_comes_out_as_json_has_it():
    assert read(SCHEMA, b"\x02\x02" + order().SerializeToString()) == EXPECTED


def test_a_schema_may_be_a_descriptor_in_base64_as_clients_in_python_register_it():
    files = {file.name: base64.b64encode(file.SerializeToString()).decode() for file in compiled(SCHEMA)}
    schema = Registered("PROTOBUF", files["schema.proto"], {"common/money.proto": files["common/money.proto"]})

    assert read(schema, b"\x02\x02" + order().SerializeToString()) == EXPECTED


@pytest.mark.parametrize(
    ("indexes", "expected"),
    [
        (b"\x00", {"n": 5}),  # short for the first message
        (b"\x02\x00", {"n": 5}),
        (b"\x02\x02", {}),  # the second: it has no field of that kind
        (b"\x04\x02\x00", {}),  # the first within the second
    ],
)
def test_the_list_of_places_says_which_message_of_the_file_it_is(indexes, expected):
    assert read(SCHEMA, indexes + b"\x08\x05") == expected


@pytest.mark.parametrize(
    "indexes", [b"", b"\x02", b"\x02\x0e", b"\x01\x00", b"\xff\xff\xff\xff\xff\xff", b"\x02\x01", b"\x06\x02\x00\x00"]
)
def test_a_list_of_places_that_leads_nowhere_is_refused(indexes):
    with pytest.raises(BadEvent) as refused:
        read(SCHEMA, indexes)

    assert refused.value.reason == "not_by_schema"


def test_what_the_registry_has_built_in_need_not_be_referred_to():
    text = """syntax = "proto3"; import "confluent/meta.proto"; import "confluent/type/decimal.proto";
    message M { confluent.type.Decimal total = 1 [(confluent.field_meta).doc = "gross"]; }"""

    # 5998 in two bytes, precision 9, scale 2
    assert read(Registered("PROTOBUF", text), b"\x00\x0a\x08\x0a\x02\x17\x6e\x10\x09\x18\x02") == {"total": 59.98}


def described(text: str) -> Registered:
    return Registered(
        "PROTOBUF", base64.b64encode(compiled(Registered("PROTOBUF", text))[-1].SerializeToString()).decode()
    )


@pytest.mark.parametrize("form", [lambda text: Registered("PROTOBUF", text), described])
def test_what_registries_have_built_in_may_be_imported_by_texts_and_descriptors(form):
    text = """syntax = "proto3"; import "google/type/money.proto"; import "confluent/meta.proto";
    message M { google.type.Money total = 1 [(confluent.field_meta).doc = "gross"]; }"""

    assert read(form(text), b"\x00\x0a\x07\x0a\x03EUR\x10\x05") == {"total": {"currency_code": "EUR", "units": 5}}


def test_a_descriptor_that_imports_what_it_does_not_refer_to_is_none():
    file = compiled(SCHEMA)[-1]

    with pytest.raises(BadSchema, match="does not refer to"):
        decoder(Registered("PROTOBUF", base64.b64encode(file.SerializeToString()).decode()))


@pytest.mark.parametrize("name", ["../planted.proto", "/tmp/planted.proto", "a/../../planted.proto"])
def test_no_schema_writes_outside_of_its_folder(name):
    with pytest.raises(BadSchema, match="outside of its folder"):
        decoder(Registered("PROTOBUF", SHOP, {name: COMMON}))


# what is no schema, and no value


@pytest.mark.parametrize(
    "schema",
    [
        Registered("AVRO", "{}"),
        Registered("AVRO", '{"type": "record"}'),
        Registered("AVRO", '{"type": "record", "name": "R", "fields": [{"name": "x", "type": "Zyx"}]}'),
        Registered("PROTOBUF", "message {"),
        Registered("PROTOBUF", 'syntax = "proto3"; import "none.proto"; message M {}'),
        Registered("PROTOBUF", SHOP, {"common/money.proto": base64.b64encode(b"").decode()}),
        Registered("THRIFT", ""),
    ],
)
def test_what_nothing_can_be_decoded_by_is_told_without_its_text(schema):
    with pytest.raises(BadSchema) as refused:
        decoder(schema)

    assert "Zyx" not in str(refused.value)


AVRO = decoder(Registered("AVRO", orjson.dumps(ORDER_AVRO).decode()))
PROTOBUF = decoder(SCHEMA)
JSON = decoder(Registered("JSON", '{"type": "object"}'))


@given(st.binary(max_size=60), st.sampled_from([AVRO, PROTOBUF, JSON]))
def test_no_bytes_are_more_than_refused(payload, decode):
    inlet = Inlet("t", "map", "shop", "server", encoding="registry", rules=rules({"custom": "_value"}, None))

    (result,) = normalize_bytes(framed(payload), inlet, RECEIVED, {}, known={7: decode})

    assert isinstance(result, Refused)
    assert result.reason in ("not_by_schema", "missing", "wrong_type", "bad_mapping")


def test_bytes_after_the_value_are_refused():
    with pytest.raises(BadEvent):
        read(Registered("AVRO", '"string"'), b"\x02ab")


def test_the_text_of_a_refusal_never_quotes_the_value():
    inlet = Inlet("t", "map", "shop", "server", encoding="registry")

    (result,) = normalize_bytes(framed(b'{"mail": "ada@example.com"'), inlet, RECEIVED, {}, known={7: JSON})

    assert result == Refused("not_by_schema", "", "the bytes are not as schema 7 says: JSONDecodeError")
