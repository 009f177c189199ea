"""app/doctor/groups.py: what is judged of the workers' group."""

import orjson
import pytest
from aiokafka.coordinator.protocol import ConsumerProtocolMemberMetadata

from app.control import Order
from app.doctor import groups
from app.doctor.groups import Member, Position
from tests.app.doctor.facts import only, settings, states

LOADED = settings()
READ = frozenset(
    {"shop.orders", "capistream.events", "capistream.to.ads", "capistream-seen-changelog", "capistream-held-changelog"}
)
TOPIC = ("capistream.events", 0)


def member(n=1, **more):
    return Member(**{"host": f"10.0.0.{n}", "topics": READ, "url": f"http://worker-{n}:6066", **more})


def judged(*members, state="Stable"):
    return list(groups.judge_members(LOADED, state, members))


def test_workers_that_read_the_same_are_fine_and_counted():
    found = judged(member(1), member(2))

    assert states(found) == []
    assert found[-1].detail == "2 workers on 2 hosts"


def test_no_worker_is_no_problem_by_itself():
    assert states(judged(state="Empty")) == []


def test_a_worker_with_another_destination_runs_another_configuration():
    found = only(judged(member(1), member(2, topics=READ | {"capistream.to.old"})))

    assert found.state == "warning"
    assert "1 of 2 workers" in found.detail
    assert "also capistream.to.old" in found.detail


def test_a_worker_that_does_not_read_a_new_destination_has_to_be_started_anew():
    assert "not capistream.to.ads" in only(judged(member(topics=READ - {"capistream.to.ads"}))).detail


def test_another_program_in_the_group_takes_partitions_away():
    found = only(judged(member(1), member(2, ours=False)))

    assert (found.state, "10.0.0.2" in found.detail) == ("problem", True)


def test_two_workers_with_one_address_overwrite_each_other():
    assert only(judged(member(1), member(2, url="http://worker-1:6066"))).state == "problem"


@pytest.mark.parametrize(("hosts", "wrong"), [((1, 2), True), ((1, 1), False)])
def test_workers_on_several_hosts_need_addresses_that_the_others_reach(hosts, wrong):
    found = judged(*(member(n, url=f"http://127.0.0.1:{6066 + i}") for i, n in enumerate(hosts)))

    assert [one.state for one in found if one.state != "ok"] == (["warning"] if wrong else [])


def test_workers_beyond_the_number_of_partitions_have_nothing_to_do():
    found = only(judged(*(member(n) for n in range(6))))

    assert "6 workers share 4 partitions: 2 have nothing to do" in found.detail


def test_a_group_that_is_sharing_out_is_told():
    assert only(judged(member(), state="PreparingRebalance")).state == "warning"


def test_one_that_has_just_joined_is_not_blamed_for_what_it_has_not_said_yet():
    assert states(judged(member(topics=frozenset(), url=""))) == []


def said(*topics, url="http://worker-1:6066"):
    words = ConsumerProtocolMemberMetadata(4, list(topics), orjson.dumps({"url": url, "assignment": {}}))
    return ("member-1", "faust", "/10.0.0.1", words.encode(), b"")


def test_a_worker_says_what_it_reads_and_where_it_is():
    found = groups._member(said("capistream.events"), ours=True)

    assert found == Member("10.0.0.1", frozenset({"capistream.events"}), "http://worker-1:6066")


@pytest.mark.parametrize(("words", "ours"), [(b"", True), (b"nonsense", False)])
def test_one_that_says_something_else_is_no_worker(words, ours):
    assert groups._member(("member-1", "client", "/10.0.0.1", words, b""), ours=True) == Member("10.0.0.1", ours=ours)


def test_a_consumer_of_another_kind_is_no_worker():
    console = ConsumerProtocolMemberMetadata(1, ["capistream.events"], b"").encode()

    assert not groups._member(("member-1", "console", "/10.0.0.2", console, b""), ours=True).ours


def test_what_waits_is_told_by_topic():
    positions = {TOPIC: Position(0, 1500, 500), ("shop.orders", 0): Position(3, 5), ("shop.orders", 1): Position(0, 0)}

    (found,) = groups.judge_positions(positions, workers=1)

    assert (found.state, found.detail) == ("ok", "capistream.events 1,000, shop.orders 2")


def test_records_that_wait_while_no_worker_runs_are_a_warning():
    assert only(groups.judge_positions({TOPIC: Position(0, 5, 0)}, workers=0)).state == "warning"


def test_nothing_that_waits_is_fine_without_workers_too():
    assert states(groups.judge_positions({TOPIC: Position(5, 5, 5)}, workers=0)) == []


def test_records_that_were_deleted_unread_are_a_problem():
    found = only(groups.judge_positions({TOPIC: Position(1000, 1500, 400)}, workers=1))

    assert (found.state, found.detail) == ("problem", "600 records were deleted before they were read")


def test_a_group_that_stands_behind_the_end_of_a_topic_is_a_problem():
    found = only(groups.judge_positions({TOPIC: Position(0, 10, 400)}, workers=1))

    assert (found.state, "390" in found.detail) == ("problem", True)


def test_a_paused_destination_is_told_with_who_and_why():
    order = Order("ads", paused=True, reason="a trial", by="ada", at=1_795_420_800_000)

    found = only(groups.judge_orders(LOADED, {"ads": order}))

    assert found.detail == "paused by ada since 2026-11-23T08:00:00Z: a trial"
    assert states(groups.judge_orders(LOADED, {"ads": Order("ads", paused=False), "old": order})) == []
