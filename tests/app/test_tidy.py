"""agents/tidy.py: which records of a destination's topic nobody needs any more."""

import asyncio
import time
from typing import Any

from aiokafka import TopicPartition
from hypothesis import given
from hypothesis import strategies as st

from agents.tidy import _delete, _since, trimmed
from app import records

TP = TopicPartition("capistream.to.ads", 0)
OFFSETS = st.integers(0, 1000)


@given(OFFSETS, OFFSETS)
def test_only_what_is_finished_and_older_than_the_window_goes(done, young):
    before = trimmed({TP: done}, {TP: young}).get(TP, 0)

    assert before <= done
    assert before <= young
    assert before in (done, young)


def test_a_partition_of_which_kafka_says_nothing_is_left_alone():
    assert trimmed({TP: 10, TopicPartition("capistream.to.ads", 1): 10}, {TP: 7}) == {TP: 7}


def test_kafka_deletes_what_is_finished_and_gives_the_rest_as_before(place):
    topic = f"{place.prefix}.to.ads"
    tp = TopicPartition(topic, 0)
    place.write(topic, [(b"key", b"%d" % n, 0) for n in range(5)])

    async def run() -> None:
        assert await _since(place.config, [tp], time.time() + 60) == {tp: 5}
        first = await _since(place.config, [tp], time.time() - 60)
        assert first == {tp: 0}
        await _delete(place.config, trimmed({tp: 3}, first))  # all of it is young
        assert len(await _left(place)) == 5
        await _delete(place.config, trimmed({tp: 3}, {tp: 5}))

    asyncio.run(run())

    assert [one.value for one in place.read(topic)] == [b"3", b"4"]


async def _left(place) -> list[Any]:
    async with records.reader(place.config) as reader:
        return [one async for one in records.everything(reader, f"{place.prefix}.to.ads", [0])]
