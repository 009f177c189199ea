"""A collector whose Kafka goes away: what it answered 200 for arrives, whatever ends it meanwhile."""

import signal
import time

import orjson
import pytest

from app import records, topics
from app.collector import outbox
from app.collector.outbox import Outbox
from app.collector.spool import Spool
from app.intake import Row
from app.kafka import Kafka
from app.settings import parse
from tests.app.collector.running import Running, names, running, wait_for
from tests.collecting import WRITE_KEY, config

pytestmark = pytest.mark.fault


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    """One that may be killed."""
    with Kafka(tmp_path_factory.mktemp("kafka")) as one:
        yield one


async def drained(one: Running) -> bool:
    return await one.metric("capistream_spool_rows ") == 0


async def test_nothing_that_was_answered_for_is_lost_to_an_outage_and_two_kills(broker, prefix, tmp_path):
    spool = tmp_path / "spool"
    async with running(broker, prefix, tmp_path, f'spool = "{spool}"') as one:
        assert set(await one.send(names("before", 20))) == {200}

        broker.kill()
        try:
            assert set(await one.send(names("away", 200))) == {200}
            assert await one.metric("capistream_spool_rows ") > 0
            assert await one.ready()  # it takes what comes
            begun = time.monotonic()
            await one.send(["at-once"])
            assert time.monotonic() - begun < 1  # nobody waits for a Kafka that is known to be away
            one.signal(signal.SIGKILL)

            await one.start()  # without Kafka
            assert set(await one.send(names("later", 50))) == {200}
            assert await one.metric("capistream_spool_rows ") >= 251
            one.signal(signal.SIGTERM)
            assert b"ada@example.com" not in b"".join(file.read_bytes() for file in spool.glob("*/*.rows"))
        finally:
            broker.start()
        await one.start()

        await wait_for(lambda: drained(one))
        assert set(await one.send(names("after", 20))) == {200}
        assert len(one.answered) == 291
        assert set(one.answered) <= set(await one.arrived())
        assert await one.metric('capistream_spooled_total{outcome="drained"}') >= 251
        assert list(spool.glob("*/*.rows")) == []


async def test_a_kill_while_it_drains_loses_nothing(broker, prefix, tmp_path):
    async with running(broker, prefix, tmp_path, f'spool = "{tmp_path}/spool"') as one:
        broker.kill()
        try:
            for n in range(5):
                assert set(await one.send(names(f"away-{n}", 200))) == {200}
        finally:
            broker.start()
        await wait_for(lambda: one.metric('capistream_spooled_total{outcome="drained"}'), pause=0.01)
        one.signal(signal.SIGKILL)
        await one.start()

        await wait_for(lambda: drained(one))
        assert len(one.answered) == 1000
        assert set(one.answered) <= set(await one.arrived())


async def test_a_full_spool_answers_503_and_when_to_come_again(broker, prefix, tmp_path):
    async with running(broker, prefix, tmp_path, f'spool = "{tmp_path}/spool"\nspool_size = "2kB"') as one:
        broker.kill()
        try:
            answers = await one.send(names("away", 20))
            status, _, headers = await one.ask(
                "POST", "/v1/events", {"event_name": "x", "event_id": "y"}, X_Write_Key=WRITE_KEY
            )
        finally:
            broker.start()
        await wait_for(lambda: drained(one))

        assert {200, 503} == set(answers)
        assert (status, headers["Retry-After"]) == (503, "5")
        assert await one.metric('capistream_spooled_total{outcome="spool_full"}') >= 2
        assert set(one.answered) <= set(await one.arrived())


async def test_without_a_spool_it_answers_503(broker, prefix, tmp_path):
    async with running(broker, prefix, tmp_path) as one:
        broker.kill()
        try:
            status, _, headers = await one.ask(
                "POST", "/v1/events", {"event_name": "x", "event_id": "y"}, X_Write_Key=WRITE_KEY
            )
            assert (status, headers["Retry-After"]) == (503, "5")
            assert not await one.ready()
        finally:
            broker.start()
        await wait_for(one.ready)


async def test_the_logs_clock_waits_while_a_spool_is_sent_and_goes_on_after_it(kafka, prefix, tmp_path, monkeypatch):
    monkeypatch.setattr(outbox, "TELL", 0.01)
    more = f'spool = "{tmp_path}/spool"'
    settings = parse(config(kafka.brokers, prefix, more))
    left = Spool(tmp_path / "spool", 1 << 30)
    await left.start()
    for n in range(5):
        rows: list[Row] = [(b"k", b'{"n":%d}' % n, 1_700_000_000_000 + n) for n in range(2_000 * n, 2_000 * (n + 1))]
        assert await left.put({(topics.names(settings).events, 0): rows}) is None
    await left.stop()

    one = Outbox(settings)
    await one.start()

    async def told() -> list[int | None]:
        async with records.reader(settings) as reader:
            words = [orjson.loads(row.value) async for row in records.everything(reader, f"{prefix}.clock", [0])]
        return [mark for word in words for mark in word["spools"].values()]

    async def released() -> bool:
        return None in await told()

    try:
        await wait_for(released)
    finally:
        await one.stop()
    marks = await told()
    assert marks[-1] is None
    assert set(marks[:-1]) == {1_700_000_000_000 - outbox.BEHIND}
    async with records.reader(settings) as reader:
        found = [orjson.loads(row.value)["n"] async for row in records.everything(reader, f"{prefix}.events", [0])]
    assert sorted(set(found)) == list(range(10_000))
