"""Our topics, as Kafka is told of them. What that does when brokers end: tests/faults/test_brokers.py."""

import pytest

from app import settings, topics


@pytest.mark.parametrize(("replication", "wanted"), [(1, None), (2, None), (3, "2"), (5, "2")])
def test_of_three_copies_two_have_to_be_written_before_one_is_acknowledged(replication, wanted):
    for topic in topics.plan(settings.parse("", "here")):
        config = topics.config(topic, replication)
        assert config.get("min.insync.replicas") == wanted
        assert config.items() >= topic.config.items()


def test_letters_are_kept_for_thirty_days_and_the_newest_word_on_each_wins():
    (dead,) = (topic for topic in topics.plan(settings.parse("", "here")) if topic.name == "capistream.dead")

    assert dead.config["cleanup.policy"] == "compact,delete"
    assert dead.config["retention.ms"] == str(30 * topics.DAY)
