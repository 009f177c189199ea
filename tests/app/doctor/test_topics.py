"""app/doctor/topics.py: what is judged of the topics."""

import pytest

from app.doctor import topics
from app.doctor.place import Refused
from app.topics import plan
from tests.app.doctor.facts import cluster, configs, only, partition, settings, states

LOADED = settings()
EVENTS, TO, HELD = "capistream.events", "capistream.to.ads", "capistream-held-changelog"
SEEN, OUTCOMES = "capistream-seen-changelog", "capistream-outcomes.ads-changelog"


def without(*names):
    known = cluster(LOADED)
    return cluster(LOADED, topics={name: one for name, one in known.topics.items() if name not in names})


def changed(name, **more):
    known = configs(LOADED)
    return {**known, name: {**known[name], **{key.replace("_", "."): value for key, value in more.items()}}}


def judged(cluster, configs, loaded=LOADED):
    return [
        *topics.judge_existence(loaded, cluster),
        *topics.judge_plan(loaded, cluster, configs),
        *topics.judge_copies(loaded, cluster, configs),
        *topics.judge_sources(loaded, configs),
        *topics.judge_strangers(loaded, cluster),
    ]


def test_topics_as_they_should_be_are_fine():
    assert states(judged(cluster(LOADED), configs(LOADED))) == []


def test_before_the_first_worker_there_are_none_and_that_is_fine():
    nothing = cluster(LOADED, topics={"shop.orders": (partition(),)})

    assert states(judged(nothing, {})) == []


def test_one_that_is_missing_among_others_is_a_warning_as_the_next_worker_makes_it_empty():
    found = only(topics.judge_existence(LOADED, without(SEEN)))

    assert (found.state, SEEN in found.detail) == ("warning", True)


def test_where_none_may_be_made_a_missing_one_is_a_problem():
    loaded = settings(create_topics="false")

    assert states(topics.judge_existence(loaded, without(EVENTS))) == [("problem", "our topics")]


def test_a_source_without_its_topic_is_a_problem():
    found = only(topics.judge_existence(LOADED, without("shop.orders")))

    assert (found.state, found.what, "shop.orders" in found.detail) == ("problem", "sources.orders.topic", True)


def test_a_topic_that_an_acl_hides_is_no_missing_one():
    known = without(EVENTS)
    hidden = cluster(LOADED, topics=known.topics, refused=frozenset({EVENTS}))

    assert states(topics.judge_existence(LOADED, hidden)) == []


@pytest.mark.parametrize("name", [EVENTS, TO, "capistream.conversions", SEEN, HELD, OUTCOMES, "capistream.clock"])
def test_a_topic_with_another_number_of_partitions_is_a_problem(name):
    known = cluster(LOADED)
    wrong = cluster(LOADED, topics={**known.topics, name: (partition(),) * 5})

    found = only(topics.judge_plan(LOADED, wrong, configs(LOADED)))

    assert (found.state, found.what, "has 5 partitions" in found.detail) == ("problem", f"topic {name}", True)


def test_where_all_have_another_number_that_is_told_once():
    loaded = settings(partitions="6")

    found = only(topics.judge_plan(loaded, cluster(LOADED), configs(LOADED)))

    assert (found.state, "set kafka.partitions = 4" in found.remedy) == ("problem", True)


def test_a_difference_that_apply_sets_right_names_the_command():
    found = only(
        topics.judge_plan(LOADED, cluster(LOADED), changed(SEEN, cleanup_policy="compact,delete", retention_ms="60000"))
    )

    assert (found.state, found.what, "1 min" in found.detail) == ("problem", f"topic {SEEN}", True)
    assert "capistream topics apply" in found.remedy


def test_a_note_of_the_plan_is_a_warning():
    assert only(topics.judge_plan(LOADED, cluster(LOADED), changed(SEEN, segment_ms="604800000"))).state == "warning"


def test_a_topic_that_does_not_tell_its_settings_is_told_with_what_grants_it():
    found = only(
        topics.judge_plan(
            LOADED, cluster(LOADED), {**configs(LOADED), EVENTS: Refused("TopicAuthorizationFailedError")}
        )
    )

    assert (found.state, found.what) == ("warning", f"topic {EVENTS}")
    assert found.remedy.startswith("`capistream topics acls --role operator`")


@pytest.mark.parametrize(
    ("one", "least", "state", "said"),
    [
        (partition(leader=-1), "2", "problem", "no leader"),
        (partition(in_sync=1), "2", "problem", "fewer than 2 copies in sync"),
        (partition(copies=1), "2", "problem", "fewer than 2 copies in sync"),
        (partition(in_sync=2), "2", "warning", "lag behind"),
    ],
)
def test_partitions_without_a_leader_or_with_copies_away_are_told(one, least, state, said):
    known = cluster(LOADED)
    broken = cluster(LOADED, topics={**known.topics, EVENTS: (one, partition())})

    found = only(topics.judge_copies(LOADED, broken, changed(EVENTS, min_insync_replicas=least)))

    assert (found.state, found.what, said in found.detail) == (state, f"topic {EVENTS}", True)


def test_one_copy_where_one_is_wanted_is_fine():
    loaded = settings(replication="1")
    known = {topic.name: (partition(copies=1),) * topic.partitions for topic in plan(loaded)}
    once = {name: {**one, "min.insync.replicas": "1"} for name, one in configs(loaded).items()}

    assert states(topics.judge_copies(loaded, cluster(loaded, topics=known), once)) == []
    assert states(topics.judge_plan(loaded, cluster(loaded, topics=known), once)) == []


@pytest.mark.parametrize(
    ("more", "wrong"),
    [
        ({"retention_ms": "3600000"}, True),
        ({"retention_ms": "-1"}, False),
    ],
)
def test_a_source_that_is_kept_shorter_than_an_outage_may_last_is_a_warning(more, wrong):
    assert states(topics.judge_sources(LOADED, changed("shop.orders", **more))) == (
        [("warning", "sources.orders")] if wrong else []
    )


def test_a_compacted_source_is_kept_and_may_lose_events_of_one_key():
    assert "compacted" in only(topics.judge_sources(LOADED, changed("shop.orders", cleanup_policy="compact"))).detail


@pytest.mark.parametrize(
    ("name", "strange"),
    [
        ("capistream.to.old", True),
        ("capistream-outcomes.old-changelog", True),
        ("capistream-staging.to.ads", False),
        ("capistream-staging-seen-changelog", False),
        ("capistream.of.somebody", False),
    ],
)
def test_topics_of_a_destination_that_is_gone_are_named(name, strange):
    known = cluster(LOADED)
    found = list(topics.judge_strangers(LOADED, cluster(LOADED, topics={**known.topics, name: (partition(),)})))

    assert [one.state for one in found] == (["warning"] if strange else [])
