"""Somebody else writes into our own topics: garbage under real keys, and events of which one part is wrong."""

import json
from collections import Counter

from aiokafka import AIOKafkaProducer

from app import keys, topics
from tests.faults import strangers
from tests.faults.conversions import Conversion
from tests.system.conftest import System


async def write(system: System, topic: str, records: list[strangers.Record]) -> None:
    """To the partition where such a key belongs."""
    producer = AIOKafkaProducer(bootstrap_servers=system.addresses["broker"], acks="all")
    await producer.start()
    try:
        for key, value in records:
            meeting_id = (key or b"").decode(errors="replace").split(keys.SEPARATOR)[0]
            await producer.send(topic, value, key=key, partition=keys.partition(meeting_id, 4))
        await producer.flush()
    finally:
        await producer.stop()


async def test_strangers_in_our_topics_become_dead_letters_and_harm_nobody(system):
    names = topics.names(system.demo.config)
    real = [Conversion(f"real-{n}") for n in range(8)]
    every = [(strangers.key_of(one), one) for _, one in strangers.nearly()]
    garbage = [(one.key, value) for one in real for value in strangers.GARBAGE]
    for one in real:
        await system.post(one.copy("pixel"), **{"User-Agent": "Mozilla/5.0", "X-Forwarded-For": "203.0.113.9"})
    await write(system, names.events, [*garbage, *((key, json.dumps(one).encode()) for key, one in every)])
    await write(
        system,
        names.to("meta"),
        [*garbage, *((key, json.dumps({"v": 1, "event": one}).encode()) for key, one in every)],
    )
    for one in real:
        await system.post(one.copy("server"), key="secret_key")

    def complete(books):
        refused = Counter(books.letters.values())["not_an_event"]
        settled = all(set(books.copies) <= set(books.outcomes[name]) for name in ("meta", "ga4"))
        return settled and len(books.copies) >= len(real) and refused >= 2 * len(garbage)

    books = await system.books(complete)

    assert system.child("worker-1").starts == 1, system.log("worker-1")[-2000:]
    assert books.strangers > len(garbage)
    for one in real:
        (at_meta,) = await system.accepted("meta", event_id=one.event_id("pixel"))
        at_meta["event"].pop("event_time")
        assert at_meta["event"] == one.at_meta({"pixel", "server"})
        (at_ga4,) = await system.accepted("ga4", event_id=one.meeting_id)
        assert at_ga4["event"]["params"] == one.at_ga4({"pixel", "server"})["params"]
