"""One group, one set of topics: who gets partitions when workers of different configurations meet."""

import pytest
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment
from hypothesis import given
from hypothesis import strategies as st

from app.bus import Bus
from app.lossless import App
from app.lossless.assignor import Apart, Assignor, Member, apart, workers
from app.settings import Kafka

OLD = frozenset({"events", "to.meta", "outcomes.meta-changelog"})
NEW = OLD | {"to.hook", "outcomes.hook-changelog"}
N = 4


class Cluster:
    """What a client knows of the topics."""

    def partitions_for_topic(self, topic):
        return set(range(N))


def make(name):
    return Assignor(App(name, Bus(Kafka(), "127.0.0.1:1"), canonical_url=f"http://{name}", web_port=1))


class Group:
    """Workers that join, and a leader that assigns."""

    def __init__(self):
        self.members: dict[str, tuple[Assignor, frozenset[str]]] = {}

    def join(self, name, topics):
        self.members[name] = make(name), topics

    def rebalance(self, leader):
        told = {name: one.metadata(set(topics)) for name, (one, topics) in self.members.items()}
        assigned = self.members[leader][0].assign(Cluster(), told)
        for name, (one, _) in self.members.items():
            sent = assigned[name]
            over_the_wire = ConsumerProtocolMemberAssignment.decode(sent.encode())
            one.on_assignment(over_the_wire)
        return {name: {tuple(tp) for tp in self.members[name][0].assigned_actives()} for name in self.members}


def everything(topics):
    return {(topic, p) for topic in topics for p in range(N)}


@pytest.mark.parametrize("leader", ["a", "b", "c"])
def test_who_has_the_work_keeps_it_when_workers_with_another_destination_join_whoever_leads(leader):
    group = Group()
    group.join("a", OLD)
    group.rebalance("a")
    group.join("b", NEW)
    group.join("c", NEW)

    given = group.rebalance(leader)

    assert given == {"a": everything(OLD), "b": set(), "c": set()}
    assert group.members["b"][0].apart == Apart(("http://a",), (), ("outcomes.hook-changelog", "to.hook"))
    assert group.members["a"][0].apart is None


def test_they_take_over_together_when_the_last_of_the_others_is_gone():
    group = Group()
    group.join("a", OLD)
    group.rebalance("a")
    group.join("b", NEW)
    group.join("c", NEW)
    group.rebalance("a")
    del group.members["a"]

    given = group.rebalance("b")

    assert given["b"] | given["c"] == everything(NEW)
    assert {name: group.members[name][0].apart for name in "bc"} == {"b": None, "c": None}
    for name in "bc":  # partition n of all topics belongs to one
        shares = {frozenset(p for t, p in given[name] if t == topic) for topic in NEW}
        assert len(shares) == 1


def test_a_worker_that_goes_back_to_the_old_configuration_shares_the_work():
    group = Group()
    group.join("a", OLD)
    group.rebalance("a")
    group.join("b", NEW)
    group.rebalance("a")
    group.join("b", OLD)

    given = group.rebalance("b")

    assert {name: len(tps) for name, tps in given.items()} == {"a": 6, "b": 6}


def test_one_that_finds_no_partition_left_is_not_apart():
    group = Group()
    for name in "abcde":
        group.join(name, OLD)

    given = group.rebalance("c")

    assert sorted(len(tps) for tps in given.values()) == [0, 3, 3, 3, 3]
    assert [group.members[name][0].apart for name in "abcde"] == [None] * 5


members = st.dictionaries(
    st.sampled_from("abcdef"),
    st.builds(Member, st.sampled_from([OLD, NEW, NEW - OLD]), st.integers(0, 12)),
    min_size=1,
)


@given(members)
def test_those_who_work_have_the_same_topics_and_nobody_with_these_is_left_out(found):
    chosen = workers(found)

    (topics,) = {found[name].topics for name in chosen}
    assert chosen == {name for name, one in found.items() if one.topics == topics}


@given(members)
def test_nobody_takes_the_work_from_a_party_that_has_all_of_it(found):
    fresh = {name: Member(one.topics) for name, one in found.items()}
    incumbent = Member(frozenset({"only", "ours"}), 1)

    assert workers(fresh | {"z": incumbent}) == {"z"}


def test_where_nobody_has_any_the_larger_party_begins_and_of_equal_ones_that_with_more_topics():
    a, b, c = Member(OLD), Member(NEW), Member(OLD)

    assert workers({"a": a, "b": b, "c": c}) == {"a", "c"}
    assert workers({"a": a, "b": b}) == {"b"}
    assert workers({}) == set()


def test_apart_is_who_has_other_topics_than_those_with_partitions():
    assert apart(OLD, {"http://a": OLD, "http://b": []}) is None
    assert apart(OLD, {}) is None
    assert apart(OLD, {"http://a": NEW}) == Apart(("http://a",), ("outcomes.hook-changelog", "to.hook"), ())
