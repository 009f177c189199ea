"""app/letters.py and `capistream dead`, on the real Kafka."""

import asyncio
from dataclasses import replace
from typing import Any

import orjson
import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from hypothesis import given
from hypothesis import strategies as st

from app import dead_letter, keys, letters
from app.dead_letter import DeadLetter, Filed
from app.errors import CapistreamError
from app.events import Origin
from tests.factories import make_event

DAY = 86_400_000
ORIGIN: Origin = {"topic": "orders", "partition": 1, "offset": 4711}


def filed(n: int = 0, **more: Any) -> Filed:
    origin: Origin = {"topic": "orders", "partition": 1, "offset": n}
    return Filed(**{"stage": "normalize", "reason": "missing", "origin": origin, "time": 1000 + n, **more})


def put(place, *found: DeadLetter) -> None:
    for letter in found:
        place.write(f"{place.prefix}.dead", [letter.row(1.0)], letter.partition(2))


def put_rejected(place, *events: Any, destination: str = "ads", reason: str = "HTTP 400") -> list[DeadLetter]:
    """Events in partition 1 of the destination's topic, and the letters of their delivery."""
    topic = f"{place.prefix}.to.{destination}"
    begin = sum(one.partition == 1 for one in place.read(topic))
    rows = [(keys.key(e), orjson.dumps({"v": 1, "event": e, "basis": "ad_storage granted"}), 0) for e in events]
    place.write(topic, rows, 1)
    found = [
        DeadLetter(
            "deliver",
            reason,
            {"topic": topic, "partition": 1, "offset": begin + n},
            destination=destination,
            event_id=event["event_id"],
            event_name="purchase",
            attempts=1,
        )
        for n, event in enumerate(events)
    ]
    put(place, *found)
    return found


def put_order(place, *bodies: bytes) -> None:
    place.write(f"{place.prefix}-orders", [(None, body, 1_795_420_800_000) for body in bodies])


def refused(place, offset: int, index: int = 0, reason: str = "not_json") -> DeadLetter:
    letter = DeadLetter(
        "normalize", reason, {"topic": f"{place.prefix}-orders", "partition": 0, "offset": offset}, index
    )
    put(place, letter)
    return letter


def order(event_id: str, **more: Any) -> dict[str, Any]:
    return {"event_name": "purchase", "event_id": event_id, "user": {"email": "ada@example.com"}, **more}


def states(place) -> dict[str, str]:
    return {one["id"]: one.get("state", "") for one in place.json("dead", "list", "--all")}


# What a letter of the topic says


def test_a_row_is_read_as_the_letter_that_was_written():
    letter = DeadLetter("deliver", "HTTP 400", ORIGIN, destination="ads", event_id="o-1", attempts=2)
    key, value, _ = letter.row(5.0)

    found = dead_letter.read(key, value)

    assert found == Filed("deliver", "HTTP 400", ORIGIN, destination="ads", event_id="o-1", attempts=2, time=5000)


def test_what_became_of_a_letter_is_a_row_of_the_same_key_that_says_all_of_it_again():
    letter = filed(3, field="event_id", detail="is missing", index=2)

    key, value, _ = replace(letter, state="dropped", at=9, by="ada").row(7.0)

    assert key == letter.id.encode()
    assert orjson.loads(value) == orjson.loads(letter.row(7.0)[1]) | {"state": "dropped", "at": 9, "by": "ada"}


@given(
    st.one_of(
        st.none(), st.binary(max_size=40), st.dictionaries(st.text(max_size=8), st.text(max_size=8)).map(orjson.dumps)
    )
)
def test_what_somebody_else_wrote_is_no_letter(value):
    assert dead_letter.read(b"key", value) is None


def test_a_letter_under_the_key_of_another_is_none():
    assert dead_letter.read(filed(1).id.encode(), filed(2).row()[1]) is None


# Which letters


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({}, [0, 1, 2]),
        ({"settled": True}, [0, 1, 2, 3]),
        ({"destination": "ads"}, [1]),
        ({"reason": "not_json"}, [2]),
        ({"event_id": "o-1"}, [1]),
        ({"since": 1001}, [1, 2]),
        ({"until": 1001}, [0]),
        ({"since": 1001, "until": 1002, "destination": "stats"}, []),
    ],
)
def test_filters(wanted, found):
    stored = [
        filed(0),
        filed(1, destination="ads", event_id="o-1"),
        filed(2, reason="not_json"),
        filed(3, state="dropped"),
    ]

    chosen = letters.Wanted(**wanted).of({one.id: one for one in reversed(stored)})

    assert chosen == [stored[n] for n in found]


def test_a_letter_is_named_by_the_beginning_of_its_id_and_is_meant_even_when_it_is_settled():
    one, other = filed(1, state="replayed"), filed(2)

    assert letters.Wanted(ids=(one.id[:12],)).of({one.id: one, other.id: other}) == [one]


@pytest.mark.parametrize(("start", "said"), [("zz", "no letters"), ("", "2 letters")])
def test_an_id_of_none_or_of_several_is_an_error(start, said):
    with pytest.raises(CapistreamError, match=said):
        letters.Wanted(ids=(start,)).of({one.id: one for one in (filed(1), filed(2))})


def test_nothing_that_a_terminal_would_obey_is_printed():
    lines = letters.table([filed(1, reason="\x1b[2J")])

    assert not any("\x1b" in line for line in lines)


# The commands


def test_list_prints_letters_in_the_order_of_time_and_counts_reasons(place):
    put(place, filed(2, time=0), filed(1, destination="ads", reason="HTTP 400"), filed(3, time=0))
    put(place, replace(filed(9), state="dropped"))
    place.write(f"{place.prefix}.dead", [(b"stranger", b"{}", 0)])

    result = place.run("dead", "list")

    head, *rows, empty, first, second = result.stdout.splitlines()
    assert (result.exit_code, head.split(), empty) == (0, ["ID", "TIME", "FROM", "REASON", "EVENT"], "")
    assert len(rows) == 3
    assert (first.split(), second.split()) == (["2", "missing"], ["1", "HTTP", "400"])
    assert len(place.json("dead", "list")) == 3
    assert len(place.json("dead", "list", "--all")) == 4


def test_without_letters_the_list_is_empty(place):
    assert place.json("dead", "list") == []
    assert place.run("dead", "replay").stdout == "0 replayed, 0 stay\n"


def test_the_newest_record_of_a_letter_counts(place):
    put(place, filed(1), replace(filed(1), state="dropped"), replace(filed(1), reason="not_json"))

    (one,) = place.json("dead", "list")

    assert one["reason"] == "not_json"


def test_drop_takes_letters_off_the_list_and_tells_who_did_it(place):
    put(place, filed(1, destination="ads"), filed(2, destination="stats"))

    result = place.run("dead", "drop", "--destination", "ads", "--yes")

    assert (result.exit_code, result.stdout) == (0, "1 dropped\n")
    assert [one["destination"] for one in place.json("dead", "list")] == ["stats"]
    dropped = next(one for one in place.json("dead", "list", "--all") if one.get("state"))
    assert (dropped["state"], dropped["destination"], dropped["reason"]) == ("dropped", "ads", "missing")
    assert dropped["by"]
    assert dropped["at"] > dropped["time"]


def test_nothing_is_dropped_or_replayed_without_a_yes(place):
    put_rejected(place, make_event())

    for command in ("drop", "replay"):
        assert place.run("dead", command, input="n\n").exit_code == 1
        assert place.run("dead", command, "--dry-run").exit_code == 0
    assert list(states(place).values()) == [""]
    assert len(place.read(f"{place.prefix}.to.ads")) == 1


def test_show_tells_all_that_a_letter_says_and_whether_its_record_is_retained(place):
    (letter,) = put_rejected(place, make_event())

    result = place.run("dead", "show", letter.id[:12])

    said = dict(line.split(maxsplit=1) for line in result.stdout.splitlines())
    assert (said["id"], said["reason"], said["replay"]) == (letter.id, "HTTP 400", "its record is retained")
    assert "ada@example.com" not in result.output
    assert place.run("dead", "show", "nonsense").exit_code == 1


# Replay


def test_a_rejected_event_goes_to_its_partition_of_its_destination_again_marked_as_a_replay(place):
    events = [make_event(event_id=f"o-{n}", commerce={"transaction_id": f"o-{n}"}) for n in range(3)]
    first, _, third = put_rejected(place, *events)
    before = place.read(f"{place.prefix}.to.ads")

    result = place.run("dead", "replay", first.id, third.id, "--yes")

    assert (result.exit_code, result.stdout) == (0, "2 replayed, 0 stay\n")
    *same, one, other = place.read(f"{place.prefix}.to.ads")
    assert [record.value for record in same] == [record.value for record in before]
    assert [(r.partition, r.key) for r in (one, other)] == [(1, before[0].key), (1, before[2].key)]
    value = orjson.loads(one.value)
    assert value.pop("replay") > DAY
    assert value == orjson.loads(before[0].value)
    assert place.read(f"{place.prefix}.to.stats") == []
    assert sorted(states(place).values()) == ["", "replayed", "replayed"]


def test_letters_of_one_event_under_two_names_are_two_and_are_replayed_together(place):
    (letter,) = put_rejected(place, make_event())
    put(place, replace(letter, name="custom", reason="HTTP 422"))
    assert len(states(place)) == 2

    assert place.run("dead", "replay", "--yes", "--reason", "HTTP 422").stdout == "2 replayed, 0 stay\n"
    assert len(place.read(f"{place.prefix}.to.ads")) == 2, "the event once more, for both names"


def test_what_was_replayed_is_not_replayed_again(place):
    put_rejected(place, make_event())

    assert place.run("dead", "replay", "--yes").exit_code == 0
    assert place.run("dead", "replay", "--yes").stdout == "0 replayed, 0 stay\n"
    assert len(place.read(f"{place.prefix}.to.ads")) == 2


def test_a_dry_run_tells_and_does_nothing(place):
    put_rejected(place, make_event())
    put(place, DeadLetter("collector", "missing", {"request": "r-1"}))

    told = place.json("dead", "replay", "--dry-run")

    assert sorted(one["replayed"] for one in told) == [False, True]
    assert sorted(states(place).values()) == ["", ""]
    assert len(place.read(f"{place.prefix}.to.ads")) == 1


@pytest.mark.parametrize(
    ("letter", "why"),
    [
        (
            DeadLetter("collector", "missing", {"request": "r-1"}),
            "the collector keeps no payload: its sender was told, and may send it again",
        ),
        (DeadLetter("normalize", "missing", ORIGIN), "no source of the configuration reads its topic"),
        (DeadLetter("dedup", "not_an_event", ORIGIN), "its record is no event of ours"),
        (DeadLetter("deliver", "HTTP 400", ORIGIN, destination="gone"), "the configuration has no such destination"),
        (DeadLetter("deliver", "HTTP 400", ORIGIN, destination="ads"), "it went without its destination's topic"),
    ],
)
def test_what_cannot_be_replayed_is_told_and_stays(place, letter, why):
    put(place, letter)

    result = place.run("dead", "replay", "--yes")

    assert (result.exit_code, result.stdout) == (1, "0 replayed, 1 stay\n")
    assert why in result.stderr
    assert states(place) == {letter.id: ""}


async def _delete_before(brokers: str, topic: str, partition: int, offset: int) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=brokers)
    await admin.start()
    try:
        await admin.delete_records({TopicPartition(topic, partition): RecordsToDelete(before_offset=offset)})
    finally:
        await admin.close()


def test_a_record_that_is_no_longer_retained_is_told(place):
    gone, _ = put_rejected(place, make_event(event_id="o-1"), make_event(event_id="o-2"))
    asyncio.run(_delete_before(place.brokers, f"{place.prefix}.to.ads", 1, 1))

    told = {one["id"]: one["why"] for one in place.json("dead", "replay", "--yes")}

    assert told.pop(gone.id) == "its record is no longer retained"
    assert list(told.values()) == [""]


def test_a_strangers_record_is_not_replayed(place):
    place.write(f"{place.prefix}.to.ads", [(b"key", b"nonsense", 0)], 1)
    origin: Origin = {"topic": f"{place.prefix}.to.ads", "partition": 1, "offset": 0}
    put(place, DeadLetter("deliver", "not_an_event", origin, destination="ads"))

    (told,) = place.json("dead", "replay", "--yes")

    assert told["why"] == "its record is no event of ours"


def test_of_a_topic_that_was_made_anew_no_other_event_is_sent_in_its_place(place):
    (letter,) = put_rejected(place, make_event())
    put(place, replace(letter, event_id="somebody-elses"))

    (told,) = place.json("dead", "replay", "--yes")

    assert told["why"] == "another event stands in its place"
    assert len(place.read(f"{place.prefix}.to.ads")) == 1


def test_an_order_that_was_refused_is_normalised_again_with_the_repaired_configuration(place):
    put_order(place, orjson.dumps(order("o-1", site="second")))
    refused(place, 0, reason="unknown_site")
    place.path.write_text(
        place.path.read_text().replace("[sites.shop]", "[sites.second]").replace('"shop"', '"second"')
    )

    result = place.run("dead", "replay", "--yes")

    assert (result.exit_code, result.stdout) == (0, "1 replayed, 0 stay\n")
    (copy,) = place.read(f"{place.prefix}.events")
    event = orjson.loads(copy.value)
    assert (event["event_id"], event["site"]) == ("o-1", "second")
    assert event["origin"] == {"topic": f"{place.prefix}-orders", "partition": 0, "offset": 0}
    assert (copy.key, copy.partition) == (keys.key(event), keys.partition("o-1", 2))
    assert b"ada@example.com" not in copy.value


def test_what_is_still_refused_stays_a_letter_and_the_others_go(place):
    put_order(place, b"nonsense", orjson.dumps(order("o-1")))
    bad, good = refused(place, 0), refused(place, 1)

    result = place.run("dead", "replay", "--yes")

    assert result.exit_code == 1
    assert "still refused: not_json" in result.stderr
    assert states(place) == {bad.id: "", good.id: "replayed"}
    assert [orjson.loads(copy.value)["event_id"] for copy in place.read(f"{place.prefix}.events")] == ["o-1"]


@pytest.fixture
def batch(place):
    """A record with two good events and a bad one between them, in Segment's format of batches."""
    place.path.write_text(place.path.read_text().replace('"capistream"', '"segment"'))
    calls = [
        {
            "type": "track",
            "messageId": f"m-{n}",
            "event": "Signed Up",
            "userId": f"u-{n}",
            "timestamp": "2026-11-23T08:00:00Z",
        }
        for n in range(3)
    ]
    del calls[1]["event"]
    put_order(place, orjson.dumps({"batch": calls}))
    return place


def test_of_a_record_that_was_refused_as_a_whole_every_event_is_taken_and_the_bad_one_becomes_a_letter(batch):
    whole = refused(batch, 0)

    result = batch.run("dead", "replay", "--yes")

    assert (result.exit_code, result.stdout) == (0, "1 replayed, 0 stay\n")
    ids = sorted(orjson.loads(copy.value)["event_id"] for copy in batch.read(f"{batch.prefix}.events"))
    assert ids == ["m-0", "m-2"]
    assert [(one["index"], one["reason"]) for one in batch.json("dead", "list")] == [(1, "missing")]
    assert states(batch)[whole.id] == "replayed"


def test_an_event_of_a_record_that_was_dropped_does_not_come_back_with_its_neighbour(batch):
    first = refused(batch, 0)
    put(batch, replace(filed(0), origin=first.origin, index=2, state="dropped"))

    batch.run("dead", "replay", "--yes")

    assert [orjson.loads(copy.value)["event_id"] for copy in batch.read(f"{batch.prefix}.events")] == ["m-0"]
