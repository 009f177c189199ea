"""app/topic_plan.py: each difference between the topics that are and those that have to be is named, with who does what."""

import asyncio
from typing import Any

import pytest
from aiokafka.admin import NewTopic
from click.testing import CliRunner

from app import topic_plan, topics, wire
from app.cli import main
from app.settings import Settings, parse
from app.topic_plan import Todo
from app.topics import DAY, HOUR, There, Topic
from tests.app.conftest import CONFIG

EVERYTHING = frozenset({"Read", "Write"})


def settings(**kafka: Any) -> Settings:
    made = parse(CONFIG.format(brokers="kafka:9092", prefix="c", endpoint="http://127.0.0.1:1"))
    return made.model_copy(update={"kafka": made.kafka.model_copy(update=kafka)})


def planned(name: str, config: Settings | None = None) -> Topic:
    (found,) = (topic for topic in topics.plan(config or settings()) if topic.name == name)
    return found


def todo(
    name: str, config: Settings | None = None, partitions: int | None = None, copies: int = 1, **changed: str | None
) -> list[Todo]:
    """What is to be done about a topic that is as it should be but for these (with dots as underscores)."""
    config = config or settings()
    topic = planned(name, config)
    is_: dict[str, Any] = {"max.message.bytes": "1048588", "retention.bytes": "-1", "min.insync.replicas": "1"}
    is_ |= topics.config(topic, copies) | {key.replace("_", "."): value for key, value in changed.items()}
    return topic_plan.of_ours(topic, There(partitions or topic.partitions, copies, EVERYTHING), is_, config)


def test_a_topic_that_is_as_planned_needs_nothing():
    for topic in topics.plan(settings()):
        assert todo(topic.name) == []
        assert todo(topic.name, copies=3) == [], "more copies than asked for"


def test_a_missing_topic_is_made():
    (one,) = topic_plan.of_ours(planned("c.events"), None, None, settings())

    assert one.make
    assert one.remedy == "`capistream topics apply` makes it"


@pytest.mark.parametrize(
    ("topic", "changed", "what"),
    [
        ("c.events", {"retention_ms": str(HOUR)}, "retention.ms is 1 h, should be 3 d: what is older is lost"),
        (
            "c.events",
            {"message_timestamp_type": "CreateTime"},
            "message.timestamp.type is CreateTime, should be LogAppendTime",
        ),
        ("c.people", {"cleanup_policy": "delete"}, "cleanup.policy is delete, should be compact"),
        ("c.people", {"cleanup_policy": "compact,delete"}, "cleanup.policy is compact,delete, should be compact"),
        ("c-seen-changelog", {"cleanup_policy": "delete"}, "cleanup.policy is delete, should be compact,delete"),
        (
            "c-held-changelog",
            {"max_compaction_lag_ms": str(2**63 - 1)},
            "max.compaction.lag.ms is for ever, should be 1 d",
        ),
        ("c-held-changelog", {"delete_retention_ms": "0"}, "delete.retention.ms is 0 s, should be 1 d"),
        ("c.events", {"max_message_bytes": "1000"}, "max.message.bytes is 1000, should be 1000000"),
    ],
)
def test_what_cannot_hurt_is_set_by_apply(topic, changed, what):
    (one,) = todo(topic, **changed)

    assert one.what == what
    assert one.by_apply
    assert not one.note
    assert one.config
    assert one.config[0] == next(iter(changed)).replace("_", ".")


def test_of_three_copies_two_have_to_acknowledge():
    (one,) = todo("c.events", copies=3, min_insync_replicas="1")

    assert one.config == ("min.insync.replicas", "2")


FOR_EVER = "retention.ms is for ever, should be 3 d: it keeps people's data"
POLICIES = "cleanup.policy is compact, should be compact,delete"
ROOM = "deletes what is beyond retention.bytes = 1000, however young"


@pytest.mark.parametrize(
    ("topic", "changed", "what", "option"),
    [
        ("c.events", {"retention_ms": "-1"}, FOR_EVER, "retention.ms=259200000"),
        ("c.events", {"retention_ms": str(9 * DAY)}, "retention.ms is 9 d, should be 3 d", "retention.ms=259200000"),
        (
            "c.events",
            {"cleanup_policy": "compact"},
            "cleanup.policy is compact, should be delete",
            "cleanup.policy=delete",
        ),
        ("c-seen-changelog", {"cleanup_policy": "compact"}, POLICIES, "cleanup.policy=[compact,delete]"),
        ("c.events", {"retention_bytes": "1000"}, ROOM, "retention.bytes=-1"),
    ],
)
def test_what_would_delete_or_need_room_is_left_to_people_with_the_command(topic, changed, what, option):
    (one,) = todo(topic, **changed)

    assert one.what.startswith(what)
    assert not one.by_apply
    assert one.remedy == (
        "if that is meant: kafka-configs.sh --bootstrap-server kafka:9092 --command-config admin.properties --alter "
        f"--topic {topic} --add-config '{option}'"
    )


def test_a_retention_below_what_a_destination_takes_is_named_with_it():
    (one,) = todo("c.to.ads", retention_ms=str(3 * DAY))

    assert one.what == (
        "retention.ms is 3 d, should be 63 d: ads takes events until they are 62 d old, and what waits longer than here is lost"
    )
    assert one.config == ("retention.ms", str(63 * DAY))


def test_the_spare_day_above_what_a_destination_takes_belongs_to_it_too():
    (one,) = todo("c.to.ads", retention_ms=str(62 * DAY))

    assert one.what == "retention.ms is 62 d, should be 63 d: what is older is lost"


def test_events_that_go_before_a_destination_would_refuse_them_are_a_note():
    (one,) = topic_plan.of_events(settings())

    assert one.note
    assert one.what == "what no worker reads for 3 d is lost, and would still be taken by ads (62 d)"
    assert one.remedy.startswith("kafka.keep_events")
    assert topic_plan.of_events(settings().model_copy(update={"destinations": {}})) == []


@pytest.mark.parametrize(
    "changed", [{"segment_ms": str(7 * DAY)}, {"min_cleanable_dirty_ratio": "0.5"}], ids=["segments", "cleaner"]
)
def test_what_managed_clusters_may_not_let_us_set_is_a_note(changed):
    (one,) = todo("c-held-changelog", **changed)

    assert one.note
    assert one.by_apply


@pytest.mark.parametrize(("is_", "notes"), [("producer", 1), ("uncompressed", 1), ("gzip", 0), ("zstd", 0)])
def test_receipts_that_are_not_compressed_are_a_note(is_, notes):
    found = todo("c.receipts", compression_type=is_)

    assert [(one.note, one.config) for one in found] == [(True, ("compression.type", "gzip"))] * notes


def test_another_number_of_partitions_is_told_with_the_ways_out():
    (one,) = todo("c.events", partitions=6)

    assert one.what == "has 6 partitions, should have 2 (kafka.partitions)"
    assert one.remedy.startswith("set kafka.partitions = 6 back, or choose another kafka.prefix")
    assert not one.by_apply


def test_fewer_copies_than_asked_for_are_told():
    (one,) = todo("c.events", settings(replication=3))

    assert one.what == "is kept 1 times, kafka.replication is 3"
    assert "kafka-reassign-partitions.sh" in one.remedy


def test_a_topic_that_takes_nothing_while_one_broker_is_away_is_told():
    (one,) = todo("c.events", copies=3, min_insync_replicas="3")

    assert one.what == "takes nothing while one of 3 brokers is away: min.insync.replicas"
    assert "'min.insync.replicas=2'" in one.remedy


def test_settings_that_kafka_does_not_show_are_no_reason_to_say_that_all_is_well():
    (one,) = topic_plan.of_ours(planned("c.events"), There(2, 1, None), None, settings())

    assert not one.note
    assert "`capistream topics acls --role operator`" in one.remedy


def test_a_source_is_never_ours_to_make_and_loses_events_when_it_is_compacted():
    (gone,) = topic_plan.of_source(None, None, "orders")
    (note,) = topic_plan.of_source(There(3, 3, None), {"cleanup.policy": "compact"}, "orders")

    assert (gone.by_apply, gone.note) == (False, False)
    assert "sources.orders.topic" in gone.remedy
    assert note.note
    assert topic_plan.of_source(There(3, 3, None), {"cleanup.policy": "delete"}, "orders") == []
    assert topic_plan.of_source(There(3, 3, None), None, "orders") == []


# on Kafka


@pytest.mark.fault
def test_plan_tells_apply_does_and_what_is_not_ours_stays(place):
    """One topic is gone, one too short, one too long, one has other partitions, one is a source that is missing."""
    names, missing = topics.names(place.config), f"{place.prefix}-elsewhere"
    place.path.write_text(place.path.read_text().replace(f'topic = "{place.prefix}-orders"', f'topic = "{missing}"'))
    asyncio.run(
        change(
            place,
            delete=[names.receipts, names.clock],
            make=[NewTopic(names.clock, 2, 1)],
            configs={
                names.to("ads"): {"retention.ms": str(DAY), "compression.type": "zstd"},
                names.dead: {"retention.ms": str(99 * DAY), "cleanup.policy": "compact,delete"},
            },
        )
    )

    planned = place.json("topics", "plan")
    told = {row["topic"]: [(one["what"], one["apply"]) for one in row["todo"] if not one["note"]] for row in planned}
    told = {topic: found for topic, found in told.items() if found}
    ((what, by_apply),) = told[names.to("ads")]
    assert what.startswith("retention.ms is 1 d, should be 63 d: ads takes events")
    assert by_apply
    assert told[names.receipts] == [("does not exist", True)]
    assert told[missing] == [("does not exist", False)]
    assert ("has 2 partitions, should have 1", False) in told[names.clock]
    assert any(
        what.startswith("retention.ms is 99 d, should be 30 d") and not by_apply for what, by_apply in told[names.dead]
    )
    assert place.run("topics", "plan").exit_code == 1

    applied = place.run("topics", "apply")
    left = {row["topic"]: row for row in place.json("topics", "plan") if not row["ok"]}
    assert applied.exit_code == 1
    assert set(left) == {missing, names.clock, names.dead}
    assert not any(one["apply"] for row in left.values() for one in row["todo"])
    found = {row.topic.name: row for row in asyncio.run(topic_plan.look(place.config))}
    config = found[names.to("ads")].config or {}
    assert (config["retention.ms"], config["compression.type"]) == (str(63 * DAY), "zstd"), "what was set stays"
    assert (found[names.clock].there or There(0, 0, None)).partitions == 2


def test_a_plan_that_is_fulfilled_says_so_and_exits_0(place):
    result = place.run("topics", "plan")

    assert result.exit_code == 0, result.output
    assert result.stderr == f"{len(topics.plan(place.config)) + 1} topics, nothing to do\n"
    (line,) = (line for line in result.stdout.splitlines() if line.startswith(f"{place.prefix}.to.ads "))
    assert line.split("  ")[0] == f"{place.prefix}.to.ads"
    assert [one for one in line.split(" ") if one][1:] == ["2", "1", "delete", "63", "d", "ok"]


@pytest.mark.fault
def test_with_creation_off_a_missing_topic_is_an_error_that_names_the_plan(place):
    place.path.write_text(place.path.read_text().replace("[kafka]", "[kafka]\ncreate_topics = false"))
    asyncio.run(change(place, delete=[topics.names(place.config).receipts]))

    with pytest.raises(Exception, match="create_topics is off") as caught:
        asyncio.run(topics.apply(parse(place.path.read_text())))

    assert f"there is no topic {place.prefix}.receipts: `capistream topics plan` shows" in str(caught.value)
    assert place.run("topics", "apply").exit_code == 0, "the command is allowed to: somebody gave it"


def test_what_kafka_refuses_to_make_is_told_in_a_line(place):
    config = place.config.kafka.model_copy(update={"prefix": f"{place.prefix}-more", "replication": 9})

    with pytest.raises(Exception, match="Kafka does not make") as caught:
        asyncio.run(topics.apply(place.config.model_copy(update={"kafka": config})))

    (line,) = str(caught.value).splitlines()
    assert "InvalidReplicationFactor" in line
    assert f"{place.prefix}-more.events, " in line


def test_the_commands_exist():
    for command in ("plan", "apply", "acls"):
        assert CliRunner().invoke(main, ["topics", command, "--help"]).exit_code == 0


async def change(place: Any, delete: Any = (), make: Any = (), configs: Any = None) -> None:
    """As an administrator would."""
    async with topics.administrator(place.config) as admin:

        async def until(there: bool, *names: str) -> None:
            for _ in range(200):
                found, _ = await topics.look(admin, names)
                if (found.keys() == set(names)) if there else not found:
                    return
                await asyncio.sleep(0.05)
            raise AssertionError(names)

        if delete:
            await until(True, *delete)
            await admin.delete_topics(list(delete))
            await until(False, *delete)
        if make:
            await admin.create_topics(list(make))
            await until(True, *(one.name for one in make))
        if configs:
            answer = await admin._send_request(wire.Change(configs))
            assert not any(code for code, *_ in answer.responses), answer
