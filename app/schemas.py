"""Values whose schema is in a registry -> what JSON would say. Pure, given the schemas; app/registry.py fetches those.

Confluent's wire format: a zero byte, four bytes with the schema's number, the value. In Protobuf's case a list of numbers comes
between: which message of the file, at each level. So a value says itself whether it is Avro, Protobuf or JSON.
https://docs.confluent.io/platform/current/schema-registry/fundamentals/serdes-develop/index.html#wire-format

Avro's logical types and Protobuf's well-known ones become what app/normalize.py reads: times ISO 8601, with a zone where they
have one; decimals numbers; UUIDs and enumerations text; bytes base64. Fields keep their names. As in Protobuf's own JSON a field
that has its default value, and no way to say that it was set, is absent.

Avro is read by fastavro. Protobuf's schemas are program text, and what compiles it here is Google's own compiler, as grpcio-tools
packs it: a parser of our own would be one more reading of the language. Both are asked for only when a source needs them.
"""

import base64
import binascii
import io
import math
import re
import struct
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import Any
from uuid import UUID

import orjson

from app.errors import BadEvent
from app.events import Json

Decoder = Callable[[bytes], Any]

_HEAD = struct.Struct(">BI")
#: Files that the registry has built in, so no schema refers to them; Kafka Connect's schemas import them.
#: https://docs.confluent.io/platform/current/schema-registry/fundamentals/serdes-develop/serdes-protobuf.html
_PROTO3 = 'syntax = "proto3"; '
_BUILT_IN = {
    "confluent/meta.proto": f"""{_PROTO3}package confluent; import "google/protobuf/descriptor.proto";
        message Meta {{ string doc = 1; map<string, string> params = 2; repeated string tags = 3; }}
        """
    + " ".join(
        f"extend google.protobuf.{kind}Options {{ Meta {name}_meta = 1088; }}"
        for kind, name in (
            *(("File", "file"), ("Message", "message"), ("Field", "field")),
            *(("Enum", "enum"), ("EnumValue", "enum_value")),
        )
    ),
    "confluent/type/decimal.proto": _PROTO3
    + "package confluent.type; message Decimal { bytes value = 1; uint32 precision = 2; int32 scale = 3; }",
}
_WELL_KNOWN = re.compile(r"(google/(protobuf|type)|confluent(/type)?)/\w+\.proto")
_MOST_INDEXES = 32  # levels of messages within messages
_UINT64 = 1 << 64


@dataclass(frozen=True)
class Registered:
    """A schema as a registry has it."""

    kind: str  # AVRO, PROTOBUF, JSON
    text: str
    imports: Mapping[str, str] = field(default_factory=dict)  # name -> schema, each after those that it needs


@dataclass(frozen=True)
class Undecodable:
    """Why nothing decodes the values of a number: a reason and a detail as BadEvent has them."""

    reason: str
    detail: str


#: By their numbers.
Schemas = Mapping[int, Decoder | Undecodable]


class BadSchema(ValueError):
    """Nothing can be decoded by this schema. The text is ours, without the schema's."""


def missing_packages() -> list[str]:
    """What has to be installed before anything can be decoded."""
    return [name for name in ("fastavro", "google.protobuf", "google.type", "grpc_tools") if not _is_there(name)]


def _is_there(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def number(value: bytes | None) -> int | None:
    """The number of the schema that a value is written by; None for one that is not in the wire format."""
    if value is None or len(value) < _HEAD.size:
        return None
    magic, found = _HEAD.unpack_from(value)
    return int(found) if magic == 0 else None


def numbers(values: Iterable[bytes | None]) -> set[int]:
    return {found for found in map(number, values) if found is not None}


def decoded(value: bytes | None, schemas: Schemas) -> Any:
    """Raises BadEvent; the text never quotes the value."""
    if not value:
        raise BadEvent("empty", "", "the body is empty")
    if (found := number(value)) is None:
        raise BadEvent("no_schema_id", "", "does not begin with a zero byte and the number of a schema")
    decode = schemas[found]
    if isinstance(decode, Undecodable):
        raise BadEvent(decode.reason, "", decode.detail)
    try:
        return decode(value[_HEAD.size :])
    except Exception as exc:  # noqa: BLE001 (a library may raise anything for bytes that nobody wrote; its text quotes them)
        what = f"the bytes are not as schema {found} says: {type(exc).__name__}"
        raise BadEvent("not_by_schema", "", what) from None


def decoder(schema: Registered) -> Decoder:
    """Raises BadSchema."""
    make = _KINDS.get(schema.kind)
    if make is None:
        raise BadSchema("is neither Avro nor Protobuf nor JSON Schema")
    try:
        return make(schema)
    except BadSchema:
        raise
    except OSError:  # no room for the compiler's files: the schema may be fine
        raise
    except Exception as exc:  # noqa: BLE001 (as above, for schemas)
        raise BadSchema(f"cannot be read: {type(exc).__name__}") from None


# Avro


def _avro(schema: Registered) -> Decoder:
    import fastavro

    names: dict[str, Any] = {}
    for text in schema.imports.values():
        fastavro.parse_schema(orjson.loads(text), named_schemas=names)
    # A record of one field is written like the field alone; and only of a record does fastavro keep the names that were imported.
    one = {"type": "record", "name": "CapistreamValue", "fields": [{"name": "it", "type": _json_or_name(schema.text)}]}
    parsed = fastavro.parse_schema(one, named_schemas=names)

    def decode(payload: bytes) -> Any:
        stream = io.BytesIO(payload)
        found: Any = fastavro.schemaless_reader(stream, parsed, None)
        if stream.tell() != len(payload):
            raise ValueError("there is more than the schema says")
        return plain(found["it"])

    return decode


def _json_or_name(text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text  # a registry may say "string" without its quotation marks


def plain(value: Any) -> Any:
    """As JSON has it."""
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, int):
        return value if -_UINT64 // 2 <= value < _UINT64 else str(value)
    if isinstance(value, float):
        return _shortest(value)
    if isinstance(value, Mapping):
        return {str(name): plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, Decimal):
        return plain(int(value)) if value == value.to_integral_value() else _shortest(float(value))
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, UUID):
        return str(value)
    return base64.b64encode(bytes(value)).decode()


def _shortest(value: float) -> float | None:
    """A number of 32 bits as it was written, 59.98 and not 59.97999954223633; and nothing for what is no number.

    It has become one of 64 bits by now. What 32 bits hold exactly is one, or has few digits anyway: a price that was written
    with 64 bits is such a number only when its own digits are short.
    """
    if not math.isfinite(value):
        return None
    if value.is_integer() or abs(value) > 1e30:
        return value
    if struct.unpack("f", struct.pack("f", value))[0] != value:
        return value
    for digits in range(6, 10):
        short = float(f"{value:.{digits}g}")
        if struct.unpack("f", struct.pack("f", short))[0] == value:
            return short
    return value


# Protobuf


def _protobuf(schema: Registered) -> Decoder:
    from google.protobuf import descriptor_pool, message_factory  # type: ignore[import-untyped]

    files = _descriptors(schema)
    pool = descriptor_pool.DescriptorPool()
    for file in files:
        pool.Add(file)
    classes: dict[tuple[int, ...], Any] = {}

    def decode(payload: bytes) -> Any:
        indexes, rest = _indexes(payload)
        if indexes not in classes:
            name = _full_name(files[-1], indexes)
            classes[indexes] = message_factory.GetMessageClass(pool.FindMessageTypeByName(name))
        message = classes[indexes]()
        message.ParseFromString(rest)
        return _message(message)

    return decode


def _full_name(file: Any, indexes: Sequence[int]) -> str:
    """Of the message at that place. Maps are messages, too, in a descriptor, but nobody wrote those, and they do not count."""
    names, level = [file.package] if file.package else [], file.message_type
    for index in indexes:
        one = [message for message in level if not message.options.map_entry][index]
        names.append(one.name)
        level = one.nested_type
    return ".".join(names)


def _indexes(payload: bytes) -> tuple[tuple[int, ...], bytes]:
    """(place of the message in its file, what follows). A single zero stands for the first message."""
    count, at = _varint(payload, 0)
    if count == 0:
        return (0,), payload[at:]
    if not 0 < count <= _MOST_INDEXES:
        raise ValueError("no list of places")
    found = []
    for _ in range(count):
        index, at = _varint(payload, at)
        if index < 0:
            raise ValueError("no place")
        found.append(index)
    return tuple(found), payload[at:]


def _varint(payload: bytes, at: int) -> tuple[int, int]:
    """(a zigzag number of variable length, where the next one begins)"""
    number = 0
    for shift in range(0, 35, 7):
        byte = payload[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (number >> 1) ^ -(number & 1), at
    raise ValueError("no number")


def _descriptors(schema: Registered) -> Sequence[Any]:
    """Files as Protobuf describes them, each after those that it needs.

    Clients in Python, Go and .NET register the descriptor itself, in base64; those in Java the text of the file.
    """
    texts = [*schema.imports.values(), schema.text]
    described = [_descriptor(text) for text in texts]
    if not any(described):
        return compiled(schema)
    if not all(described):
        raise BadSchema("is a descriptor that imports texts, or the other way round")
    for name, file in zip(schema.imports, described, strict=False):
        file.name = name
    return _with_well_known(described)


def _descriptor(text: str) -> Any:
    from google.protobuf.descriptor_pb2 import FileDescriptorProto  # type: ignore[import-untyped]
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        file = FileDescriptorProto.FromString(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError, DecodeError):
        return None
    file.name = file.name or "schema.proto"
    return file


def _with_well_known(files: Sequence[Any]) -> Sequence[Any]:
    """And before them the files that every registry has."""
    ours = {file.name for file in files}
    needed = sorted({name for file in files for name in file.dependency} - ours)
    if not all(map(_WELL_KNOWN.fullmatch, needed)):
        raise BadSchema("imports what it does not refer to")
    if not needed:
        return files
    *found, _ = compiled(Registered("PROTOBUF", _PROTO3 + " ".join(f'import "{name}";' for name in needed)))
    return [*found, *files]


def compiled(schema: Registered) -> Sequence[Any]:
    """The same, of the texts of files. Raises BadSchema; OSError where there is no room for them."""
    import google.type  # type: ignore[import-untyped]
    import grpc_tools
    from google.protobuf.descriptor_pb2 import FileDescriptorSet
    from grpc_tools import protoc

    well_known = [Path(grpc_tools.__file__).parent / "_proto", Path(google.type.__path__[0]).parent.parent]
    main = "schema.proto"
    while main in schema.imports:
        main = f"_{main}"
    with tempfile.TemporaryDirectory(prefix="capistream-") as folder:
        for name, text in {**_BUILT_IN, **schema.imports, main: schema.text}.items():
            if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
                raise BadSchema("imports a file outside of its folder")
            path = Path(folder, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
        out = Path(folder, ".found")
        options = [
            "--include_imports",
            f"--descriptor_set_out={out}",
            *(f"-I{place}" for place in (folder, *well_known)),
        ]
        if protoc.main(["protoc", *options, main]) != 0:
            raise BadSchema("does not compile")
        files: Sequence[Any] = FileDescriptorSet.FromString(out.read_bytes()).file
    return files


def _message(message: Any) -> Any:
    name = message.DESCRIPTOR.full_name
    if name.startswith("google.protobuf."):
        from google.protobuf import json_format

        found = json_format.MessageToDict(message, preserving_proto_field_name=True)
        # its numbers of 64 bits are texts, for JavaScript's sake
        return int(found) if name.endswith(("Int64Value", "UInt64Value")) else found
    if name == "confluent.type.Decimal":
        return plain(Decimal(int.from_bytes(message.value, "big", signed=True)).scaleb(-message.scale))
    result: Json = {}
    for of, value in message.ListFields():
        if of.is_extension:
            continue
        if of.message_type is not None and of.message_type.GetOptions().map_entry:
            of_values = of.message_type.fields_by_name["value"]
            result[of.name] = {_key(key): _single(of_values, value[key]) for key in value}
        elif of.is_repeated:
            result[of.name] = [_single(of, one) for one in value]
        else:
            result[of.name] = _single(of, value)
    return result


def _key(key: Any) -> str:
    return str(key).lower() if isinstance(key, bool) else str(key)


def _single(field: Any, value: Any) -> Any:
    if field.message_type is not None:
        return _message(value)
    if field.enum_type is not None:
        known = field.enum_type.values_by_number.get(value)
        return known.name if known else value
    return plain(value)


def _json_schema(_schema: Registered) -> Decoder:
    """The values are JSON; the producer has checked them."""
    return orjson.loads


_KINDS: dict[str, Callable[[Registered], Decoder]] = {"AVRO": _avro, "PROTOBUF": _protobuf, "JSON": _json_schema}
