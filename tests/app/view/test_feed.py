"""Following the ends of two topics, on a real Kafka: what is read, and for how long."""

import asyncio
import time

import orjson
import pytest

from app import intake, keys, records, settings, topics
from app.routing import Route
from app.view import feed
from app.view.feed import Feed
from tests.app.view.test_live import order, receipt


@pytest.fixture
async def place(kafka, prefix):
    """(feed, a function that appends orders and their outcomes, the tasks of the feed)"""
    config = settings.parse(
        f'[kafka]\nbrokers = "{kafka.brokers}"\nprefix = "{prefix}"\npartitions = 3\nreplication = 1'
    )
    await topics.apply(config)
    names, tasks = topics.names(config), set()
    stopping = asyncio.Event()

    async def append(*numbers, outcome="", **routes):
        rows, now = intake.new_rows(), int(time.time() * 1000)
        for number in numbers:
            key, said = order(number, **routes)
            p = keys.partition(number, 3)
            rows[names.conversions, p].append((key, orjson.dumps(said), now))
            if outcome:
                rows[names.receipts, p].append((*receipt(said, "ads", outcome), now))
        async with records.writer(config) as write:
            await write(rows)

    def aside(work):
        tasks.add(asyncio.create_task(work))

    yield Feed(config, aside, stopping.is_set), append, tasks
    stopping.set()
    await asyncio.gather(*tasks)


async def until(check, patience=15.0):
    end = time.monotonic() + patience
    while not check():
        assert time.monotonic() < end
        await asyncio.sleep(0.05)


def states(window):
    return {line.id: line.there["ads"].state[0] for line in window.lines()}


async def test_what_is_there_is_read_and_then_what_comes(place):
    follower, append, tasks = place
    await append(*"0123", outcome="delivered")
    assert tasks == set(), "nothing is read while nobody looks"

    follower.look()
    await follower.begun(15)
    assert states(follower.window) == dict.fromkeys("0123", "delivered")
    assert follower.since == 0, "all of it, so the charts know everything"

    await append("new", outcome="rejected", ads=Route("queued"))
    await until(lambda: follower.look() and states(follower.window).get("new") == "rejected")
    assert next(iter(follower.window.lines())).id == "new"
    assert len(tasks) == 1, "one reader, however often somebody looks"


async def test_when_nobody_looks_any_more_nothing_is_read_nor_kept(place, monkeypatch):
    follower, append, tasks = place
    await append("1")
    follower.look()
    await follower.begun(15)
    monkeypatch.setattr(feed, "IDLE", 0.3)
    assert states(follower.window)

    await until(lambda: all(task.done() for task in tasks))
    assert states(follower.window) == {}

    monkeypatch.undo()
    follower.look()
    await follower.begun(15)
    assert states(follower.window) == {"1": "queued"}


async def test_of_many_only_the_newest_are_read_and_the_charts_say_so(place, monkeypatch):
    follower, append, _ = place
    monkeypatch.setattr(feed, "MOST", 6)
    await append(*map(str, range(20)), outcome="delivered")
    follower.look()
    await follower.begun(15)

    shown = states(follower.window)
    assert 0 < len(shown) <= 6
    assert set(shown.values()) == {"delivered"}
    assert follower.since > 0


async def test_of_receipts_without_end_only_the_newest_are_read_to_begin_with(place, monkeypatch):
    follower, append, _ = place
    monkeypatch.setattr(feed, "RECEIPTS", 3)
    await append(*map(str, range(20)), outcome="delivered")
    follower.look()
    await follower.begun(15)

    told = list(states(follower.window).values())
    assert (told.count("delivered"), len(told)) == (3, 20)


async def test_of_too_much_a_part_of_the_partitions_is_read_with_its_receipts(place, monkeypatch):
    follower, append, _ = place
    monkeypatch.setattr(feed, "share", lambda _rate, _partitions: 1)
    await append(*map(str, range(12)), outcome="delivered")
    follower.look()
    await follower.begun(15)

    assert follower.partitions == (0,)
    assert states(follower.window) == {str(n): "delivered" for n in range(12) if keys.partition(str(n), 3) == 0}


async def test_a_kafka_that_is_away_is_told_and_asked_again(monkeypatch):
    monkeypatch.setattr(feed, "AGAIN", 0.2)
    monkeypatch.setattr(feed, "PATIENCE", 1.0)
    config = settings.parse('[kafka]\nbrokers = "127.0.0.1:1"')
    tasks = []
    follower = Feed(config, lambda work: tasks.append(asyncio.create_task(work)), lambda: False)
    follower.look()
    await follower.begun(15)
    assert follower.why_not

    await until(lambda: follower.look() and len(tasks) > 1)
    await asyncio.gather(*tasks)
