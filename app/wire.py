"""Requests to Kafka that aiokafka does not have: https://kafka.apache.org/protocol#protocol_messages.

`Look` shows topics as they are, and what we may do with them (KIP-430), and creates none of them. `Group` shows what we may do
with a group: aiokafka asks, and does not read the answer. `Change` sets single settings of topics (KIP-339), where aiokafka's own
request resets all others. `Quorum` has the controller's time (KIP-836).
"""

from collections.abc import Mapping
from typing import Any

from aiokafka.protocol.admin import DescribeGroupsRequest_v3, DescribeGroupsResponse_v3
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.metadata import MetadataRequest_v5
from aiokafka.protocol.types import (
    Array,
    Boolean,
    CompactArray,
    CompactString,
    Int8,
    Int16,
    Int32,
    Int64,
    Schema,
    String,
    TaggedFields,
)

NOT_SAID = -(2**31)  # in place of operations, by a broker that cannot tell

#: Codes of operations, in the bits of what a broker says (org.apache.kafka.common.acl.AclOperation).
OPERATIONS = {
    3: "Read",
    4: "Write",
    5: "Create",
    6: "Delete",
    7: "Alter",
    8: "Describe",
    9: "ClusterAction",
    10: "DescribeConfigs",
    11: "AlterConfigs",
    12: "IdempotentWrite",
}


def operations(bits: int | None) -> frozenset[str] | None:
    """What we may do by the bits of an answer; None when it does not say."""
    if bits is None or bits == NOT_SAID:
        return None
    return frozenset(name for code, name in OPERATIONS.items() if bits >> code & 1)


class _LookAnswer(Response):
    API_KEY = 3
    API_VERSION = 8
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "brokers",
            Array(
                ("node_id", Int32),
                ("host", String("utf-8")),
                ("port", Int32),
                ("rack", String("utf-8")),
            ),
        ),
        ("cluster_id", String("utf-8")),
        ("controller_id", Int32),
        (
            "topics",
            Array(
                ("error_code", Int16),
                ("topic", String("utf-8")),
                ("is_internal", Boolean),
                (
                    "partitions",
                    Array(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", Array(Int32)),
                        ("isr", Array(Int32)),
                        ("offline_replicas", Array(Int32)),
                    ),
                ),
                ("operations", Int32),
            ),
        ),
        ("operations", Int32),
    )


class _Look(RequestStruct):
    API_KEY = 3
    API_VERSION = 8
    RESPONSE_TYPE = _LookAnswer
    SCHEMA = Schema(
        ("topics", Array(String("utf-8"))),
        ("allow_auto_topic_creation", Boolean),
        ("include_cluster_authorized_operations", Boolean),
        ("include_topic_authorized_operations", Boolean),
    )


class Look(Request[MetadataRequest_v5 | _Look]):
    """Of these topics; of a broker before Kafka 2.3 without operations."""

    API_KEY = 3

    def __init__(self, topics: list[str]) -> None:
        self._topics = topics

    def build(self, request_struct_class: Any) -> Any:
        more = (False, True) if request_struct_class.API_VERSION >= 8 else ()
        return request_struct_class(self._topics, False, *more)


class _Group(RequestStruct):
    API_KEY = 15
    API_VERSION = 3
    RESPONSE_TYPE = DescribeGroupsResponse_v3
    SCHEMA = DescribeGroupsRequest_v3.SCHEMA


class Group(Request[_Group]):
    API_KEY = 15

    def __init__(self, name: str) -> None:
        self._name = name

    def build(self, request_struct_class: Any) -> Any:
        return request_struct_class([self._name], True)


class _ChangeAnswer(Response):
    API_KEY = 44
    API_VERSION = 0
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "responses",
            Array(
                ("error_code", Int16),
                ("error_message", String("utf-8")),
                ("resource_type", Int8),
                ("resource_name", String("utf-8")),
            ),
        ),
    )


class _Change(RequestStruct):
    API_KEY = 44
    API_VERSION = 0
    RESPONSE_TYPE = _ChangeAnswer
    SCHEMA = Schema(
        (
            "resources",
            Array(
                ("resource_type", Int8),
                ("resource_name", String("utf-8")),
                (
                    "configs",
                    Array(("name", String("utf-8")), ("operation", Int8), ("value", String("utf-8"))),
                ),
            ),
        ),
        ("validate_only", Boolean),
    )


class Change(Request[_Change]):
    """Set these settings of these topics, and leave all others as they are."""

    API_KEY = 44

    def __init__(self, topics: Mapping[str, Mapping[str, str]]) -> None:
        # 2 is a topic, 0 is to set
        self._resources = [
            (2, name, [(key, 0, value) for key, value in config.items()]) for name, config in topics.items()
        ]

    def build(self, request_struct_class: Any) -> Any:
        return request_struct_class(self._resources, False)


class _QuorumAnswer(Response):
    API_KEY = 55
    API_VERSION = 1
    _REPLICAS = CompactArray(
        ("replica", Int32), ("end", Int64), ("fetched", Int64), ("caught_up", Int64), ("tags", TaggedFields)
    )
    SCHEMA = Schema(
        ("error_code", Int16),
        (
            "topics",
            CompactArray(
                ("topic", CompactString("utf-8")),
                (
                    "partitions",
                    CompactArray(
                        ("partition", Int32),
                        ("error_code", Int16),
                        ("leader", Int32),
                        ("epoch", Int32),
                        ("high_watermark", Int64),
                        ("voters", _REPLICAS),
                        ("observers", _REPLICAS),
                        ("tags", TaggedFields),
                    ),
                ),
                ("tags", TaggedFields),
            ),
        ),
        ("tags", TaggedFields),
    )


class _Quorum(RequestStruct):
    FLEXIBLE_VERSION = True
    API_KEY = 55
    API_VERSION = 1
    RESPONSE_TYPE = _QuorumAnswer
    SCHEMA = Schema(
        (
            "topics",
            CompactArray(
                ("topic", CompactString("utf-8")),
                ("partitions", CompactArray(("partition", Int32), ("tags", TaggedFields))),
                ("tags", TaggedFields),
            ),
        ),
        ("tags", TaggedFields),
    )


class Quorum(Request[_Quorum]):
    """Who leads the cluster's own log, and when it answered; of Kafka 3.3 or newer with KRaft."""

    API_KEY = 55

    def build(self, request_struct_class: Any) -> Any:
        return request_struct_class([("__cluster_metadata", [(0, {})], {})], {})
