"""app/history.py: no worker begins to send history to a live destination unless somebody wants it."""

import asyncio
import re
import subprocess
import sys

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from app import history, processes, records
from app.errors import SettingsError
from app.settings import Settings, parse
from tests.app.conftest import Place
from tests.app.test_settings import META, SITE

SOURCE = """
[sources.orders]
topic = "shop.orders"
site = "shop"
start = "{start}"
"""
OLD, NEW = 1_790_000_000_000, 1_795_000_000_000


def config(start: str, destinations: str = META) -> Settings:
    return parse(SITE + SOURCE.format(start=start) + destinations)


# Without Kafka


@pytest.mark.parametrize(
    ("start", "destinations"),
    [("latest", META), ("earliest", ""), ("earliest", META + 'mode = "shadow"'), ("earliest", META + 'mode = "off"')],
)
async def test_what_sends_no_history_asks_nobody_not_even_kafka(start, destinations):
    nobody = config(start, destinations + '\n[kafka]\nbrokers = "127.0.0.1:1"')

    await history.must_be_wanted(nobody)


@pytest.mark.parametrize(
    ("committed", "asked"),
    [
        ({}, True),
        ({("shop.orders", 0): -1}, True),
        ({("other", 0): 5}, True),
        ({("shop.orders", 0): 0}, False),
        ({("shop.orders", 1): 7}, False),  # partition 0 was added later
    ],
)
def test_a_topic_of_which_anything_was_committed_has_begun(committed, asked):
    offsets = {TopicPartition(*tp): offset for tp, offset in committed.items()}

    assert bool(history.never_read(config("earliest"), ["orders"], offsets)) == asked


def test_the_refusal_says_how_much_would_go_to_whom_and_what_to_do():
    text = history.refusal(config("2026-01-01T00:00:00Z"), "orders", 12_345, ["ads"])

    assert text.startswith("sources.orders.start: 2026-01-01T00:00:00+00:00: 12,345 records of history")
    for said in ("ads", "--backfill", 'start = "latest"', 'mode = "shadow"'):
        assert said in text


# On Kafka


def with_start(place: Place, start: str) -> Settings:
    text = re.sub("(format|start) = .*", f'start = "{start}"', place.path.read_text())
    place.path.write_text(text)
    return parse(text)


def test_history_is_counted_from_where_the_source_starts(place):
    topic = f"{place.prefix}-orders"
    place.write(topic, [(None, b"{}", OLD)] * 3)
    place.write(topic, [(None, b"{}", NEW)] * 2, 1)

    for start, count in (("earliest", 5), ("2026-11-01T00:00:00Z", 2), ("2026-01-01T00:00:00Z", 5)):
        with pytest.raises(SettingsError, match=f" {count} records of history"):
            asyncio.run(history.must_be_wanted(with_start(place, start)))
    asyncio.run(history.must_be_wanted(with_start(place, "2026-11-24T00:00:00Z")))
    asyncio.run(history.must_be_wanted(with_start(place, "latest")))


def test_an_empty_topic_has_no_history(place):
    asyncio.run(history.must_be_wanted(with_start(place, "earliest")))


def test_a_group_that_has_begun_is_not_asked_again(place):
    place.write(f"{place.prefix}-orders", [(None, b"{}", OLD)])

    async def commit() -> None:
        consumer = AIOKafkaConsumer(bootstrap_servers=place.brokers, group_id=place.prefix, enable_auto_commit=False)
        await consumer.start()
        tp = TopicPartition(f"{place.prefix}-orders", 0)
        consumer.assign([tp])
        await consumer.commit({tp: 0})
        await consumer.stop()

    asyncio.run(commit())

    assert asyncio.run(records.committed(place.config)) == {TopicPartition(f"{place.prefix}-orders", 0): 0}
    asyncio.run(history.must_be_wanted(with_start(place, "earliest")))


def test_a_worker_refuses_to_begin_with_history_and_says_why(place):
    place.write(f"{place.prefix}-orders", [(None, b"{}", OLD)] * 3)
    with_start(place, "earliest")
    text = place.path.read_text() + f'[worker]\ndata_dir = "{place.path.parent}"\n'
    place.path.write_text(text)

    command = [
        sys.executable,
        "-m",
        "app.cli",
        "worker",
        "--config",
        str(place.path),
        "--web-port",
        str(processes.free_port()),
    ]
    worker = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert worker.returncode == 1
    assert "3 records of history" in worker.stderr
    assert "--backfill" in worker.stderr
