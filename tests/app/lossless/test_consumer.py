"""app/lossless/consumer.py: how batches are handed over."""

import asyncio
from types import SimpleNamespace

from faust.types import TP

from app.bus import Bus
from app.lossless import App, Batch
from app.settings import Kafka


def batch(topic: str, partition: int) -> Batch:
    record = SimpleNamespace(offset=7, value=b"v", timestamp=0, timestamp_type=0)
    return Batch(TP(topic, partition), [record], 1, lambda _: None)


async def test_what_came_together_of_one_topic_is_one_event_of_its_stream():
    app = App("consumer", Bus(Kafka(), "127.0.0.1:1"), web_enabled=False)
    streams, begun = [], asyncio.Event()

    async def pass_on(message):
        streams.append((message.topic, [one.tp.partition for one in message.value]))
        if len(streams) == 2:
            begun.set()
        await begun.wait()  # nobody waits for another topic

    consumer = app._new_transport().create_consumer(pass_on, on_partitions_revoked=None, on_partitions_assigned=None)
    await consumer._hand_over([batch("a", 2), batch("b", 0), batch("a", 0)])

    assert sorted(streams) == [("a", [2, 0]), ("b", [0])]
