"""app/doctor/brokers.py: what is judged of the brokers. That they are asked: tests/system/test_doctor.py."""

import pytest
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.protocol.offset import OffsetRequest
from aiokafka.protocol.produce import ProduceRequest

from app.doctor import brokers
from app.doctor.place import Cluster, Refused
from tests.app.doctor.facts import broker, cluster, only, partition, settings, states

A, B = ("kafka-1", 9092), ("kafka-2", 9092)
#: What Kafka 4.0 says of the requests that we use: number -> oldest and newest version.
KAFKA_4 = {
    0: (0, 12),
    1: (4, 17),
    2: (1, 10),
    3: (0, 13),
    8: (2, 9),
    9: (1, 9),
    10: (0, 6),
    11: (2, 9),
    12: (0, 4),
    13: (0, 5),
    14: (0, 5),
    15: (0, 6),
    19: (2, 7),
    21: (0, 2),
    22: (0, 5),
    32: (1, 4),
}
FINE = {
    "group.min.session.timeout.ms": "6000",
    "group.max.session.timeout.ms": "1800000",
    "offsets.retention.minutes": "10080",
    "message.max.bytes": "1048588",
    "auto.create.topics.enable": "false",
    "unclean.leader.election.enable": "false",
}


def test_one_address_of_several_will_do_and_the_others_are_named():
    found = only(brokers.judge_addresses({A: "", B: "Connection refused"}))

    assert (found.state, "1 of 2" in found.detail, "kafka-2:9092: Connection refused" in found.detail) == (
        "warning",
        True,
        True,
    )


def test_without_any_address_there_is_no_kafka():
    found = only(brokers.judge_addresses({A: "its name cannot be resolved", ("::1", 1): "Connection refused"}))

    assert found.state == "problem"
    assert "kafka-1:9092: its name cannot be resolved; [::1]:1: Connection refused" in found.detail


def test_addresses_that_can_be_reached_are_fine():
    assert states(brokers.judge_addresses({A: ""})) == []


def test_a_broker_that_cannot_be_reached_where_it_says_is_a_problem():
    found = only(brokers.judge_advertised([broker(1), broker(2, trouble="no answer within 5 s")], ["kafka-1"]))

    assert (found.state, found.what) == ("problem", "broker 2")
    assert "kafka-2:9092: no answer within 5 s" in found.detail
    assert "advertised.listeners" in found.remedy


@pytest.mark.parametrize(("asked", "wrong"), [("kafka.internal", True), ("127.0.0.1", False)])
def test_a_broker_that_advertises_our_own_machine_is_a_problem_where_it_was_not_asked_there(asked, wrong):
    here = brokers.Broker(1, ("localhost", 9092))

    assert states(brokers.judge_advertised([here], [asked])) == ([("problem", "broker 1")] if wrong else [])


def test_kafka_4_is_understood():
    (found,) = brokers.judge_versions([broker(versions=KAFKA_4)])

    assert (found.state, "4.0" in found.detail) == ("ok", True)


@pytest.mark.parametrize(
    "versions", [KAFKA_4 | {ProduceRequest.API_KEY: (13, 20)}, {**KAFKA_4, FetchRequest.API_KEY: (0, -1)}]
)
def test_a_request_of_which_no_version_is_shared_is_a_problem(versions):
    found = only(brokers.judge_versions([broker(versions=versions)]))

    assert found.state == "problem"
    assert "Request" in found.detail


def test_a_server_older_than_kafka_3_is_told_as_not_tried():
    versions = KAFKA_4 | {0: (0, 9), 1: (0, 12), 2: (0, 6)}

    assert brokers.release(versions) == "2.8"
    assert only(brokers.judge_versions([broker(versions=versions)])).state == "warning"


@pytest.mark.parametrize(
    ("versions", "name"),
    [
        (KAFKA_4, "4.0"),
        ({0: (0, 11), 1: (0, 17), 2: (0, 9)}, "3.9"),
        ({0: (0, 9), 1: (0, 13), 2: (0, 7)}, "3.0"),
        ({0: (0, 7), 1: (0, 11), 2: (0, 5)}, "2.3"),
        ({}, "0.10"),
    ],
)
def test_the_release_is_told_from_the_versions_of_requests(versions, name):
    assert brokers.release(versions) == name


def test_brokers_that_said_nothing_are_judged_by_the_others():
    assert list(brokers.judge_versions([broker(trouble="away")])) == []


@pytest.mark.parametrize(
    ("copies", "size", "state"), [("3", 3, []), ("3", 2, ["problem"]), ("2", 3, ["warning"]), ("1", 1, ["warning"])]
)
def test_copies_need_brokers_and_fewer_than_three_lose_events_with_a_disk(copies, size, state):
    known = Cluster({node: (f"kafka-{node}", 9092) for node in range(size)}, {})
    found = brokers.judge_size(settings(replication=copies), known)

    assert [one.state for one in found if one.state != "ok"] == state


def test_where_our_group_was_has_to_be_kept_by_several_too():
    loaded = settings()
    known = cluster(loaded, topics={"__consumer_offsets": (partition(copies=1),) * 4})

    assert states(brokers.judge_size(loaded, known)) == [("warning", "__consumer_offsets")]


def test_a_broker_that_has_copies_and_is_not_there_is_named():
    loaded = settings()
    known = Cluster({1: A, 2: B}, cluster(loaded).topics)

    found = only(brokers.judge_size(loaded, known))

    assert (found.state, "1 of 3 are away (node 3)" in found.detail) == ("warning", True)


def test_limits_that_fit_are_fine():
    assert states(brokers.judge_limits(settings(), [broker(config=FINE)])) == []


@pytest.mark.parametrize(
    ("changed", "state", "said"),
    [
        ({"group.max.session.timeout.ms": "8000"}, "problem", "kafka.session_timeout is 10 s"),
        ({"group.min.session.timeout.ms": "30000"}, "problem", "kafka.session_timeout is 10 s"),
        ({"offsets.retention.minutes": "1440"}, "warning", "1 d after"),
        ({"message.max.bytes": "500000"}, "warning", "60,000 an event"),
        ({"auto.create.topics.enable": "true"}, "warning", "misspelt"),
        ({"unclean.leader.election.enable": "true"}, "warning", "lost"),
    ],
)
def test_a_limit_that_does_not_fit_is_told_with_its_numbers(changed, state, said):
    found = only(brokers.judge_limits(settings(), [broker(config={**FINE, **changed})]))

    assert (found.state, said in found.detail) == (state, True)
    assert found.what == "broker 1"


def test_what_is_the_same_on_all_brokers_is_told_once():
    wrong = {**FINE, "auto.create.topics.enable": "true"}

    assert states(brokers.judge_limits(settings(), [broker(n, config=wrong) for n in (1, 2, 3)])) == [
        ("warning", "3 brokers")
    ]


def test_a_server_that_does_not_know_a_setting_is_not_blamed_for_it():
    assert states(brokers.judge_limits(settings(), [broker(config={})])) == []


def test_brokers_that_do_not_tell_their_settings_are_told_with_the_reason():
    found = only(brokers.judge_limits(settings(), [broker(config=Refused("ClusterAuthorizationFailedError"))]))

    assert (found.state, "ClusterAuthorizationFailedError" in found.detail) == ("warning", True)


def test_every_request_that_we_use_can_be_compared():
    assert all(brokers._shared(request, KAFKA_4) for request in brokers.USED)
    assert OffsetRequest in brokers.USED
