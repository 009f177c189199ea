"""app/lossless/consumer.py: how batches are handed over."""

import asyncio
from types import SimpleNamespace

from faust.types import TP

from app.bus import Bus
from app.lossless import App, Batch
from app.settings import Kafka


def batch(topic: str, partition: int, generation: int = 1) -> Batch:
    record = SimpleNamespace(offset=7, value=b"v", timestamp=0, timestamp_type=0)
    return Batch(TP(topic, partition), [record], generation, lambda _: None)


def handing_to(pass_on):
    app = App("consumer", Bus(Kafka(), "127.0.0.1:1"), web_enabled=False)
    consumer = app._new_transport().create_consumer(pass_on, on_partitions_revoked=None, on_partitions_assigned=None)
    return consumer._hand_over


async def test_what_came_together_of_one_topic_is_one_event_of_its_stream():
    streams, begun = [], asyncio.Event()

    async def pass_on(message):
        streams.append((message.topic, [one.tp.partition for one in message.value]))
        if len(streams) == 2:
            begun.set()
        await begun.wait()  # nobody waits for another topic

    await handing_to(pass_on)([batch("a", 2), batch("b", 0), batch("a", 0)])

    assert sorted(streams) == [("a", [2, 0]), ("b", [0])]


async def test_what_a_rebalance_came_between_is_not_dropped_with_what_is_older():
    generations = []

    async def pass_on(message):
        generations.append(message.generation_id)

    await handing_to(pass_on)([batch("a", 0, generation=1), batch("a", 1, generation=2)])

    assert generations == [2]
