import asyncio
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest

from app.bus import Bus
from app.lossless import App
from app.settings import Kafka


class Slow:
    """aiokafka's producer, of which each call of `send_batch` takes a while."""

    def __init__(self):
        self.waiting = self.most = 0
        self.offsets = iter(range(0, 1000, 10))

    def create_batch(self):
        batch = MagicMock()
        batch.record_count.return_value = 1
        return batch

    async def send_batch(self, _batch, _topic, *, partition):
        self.waiting += 1
        self.most = max(self.most, self.waiting)
        await asyncio.sleep(0.01)
        self.waiting -= 1
        sent = asyncio.get_running_loop().create_future()
        sent.set_result(SimpleNamespace(offset=next(self.offsets)))
        return sent


@pytest.mark.parametrize(("partitions", "most"), [([0] * 8, 1), ([0, 1, 2], 3)])
async def test_writers_to_one_partition_take_turns_and_others_do_not_wait_for_them(partitions, most):
    producer = App("producer", Bus(Kafka(), "127.0.0.1:1"), web_enabled=False)._new_producer()
    producer._producer = slow = Slow()

    await asyncio.gather(*(producer.write("t", p, [(b"k", b"v", 0)]) for p in partitions))

    assert slow.most == most


class Small(Slow):
    """One whose batches hold two rows, and whose broker does not say where the second one went."""

    def __init__(self):
        super().__init__()
        self.offsets = iter((10, -1, 30))

    def create_batch(self):
        batch, rows = MagicMock(), list[object]()

        def append(**row):
            if len(rows) == 2:
                return None
            rows.append(row)
            return row

        batch.append.side_effect = append
        batch.record_count.side_effect = lambda: len(rows)
        return batch


async def test_the_offset_of_each_row_is_told_where_kafka_tells_it():
    producer = App("producer", Bus(Kafka(), "127.0.0.1:1"), web_enabled=False)._new_producer()
    rows = [(b"k", b"%d" % n, 0) for n in range(5)]

    producer._producer = Small()
    assert await producer.place("t", {0: rows}) == {0: [10, 11, -1, -1, 30]}
    producer._producer = Small()
    assert await producer.write("t", 0, rows) == (-1, -1)
    producer._producer = Small()
    assert await producer.place("t", {3: rows[:1], 1: rows[1:4], 2: []}) == {3: [10], 1: [-1, -1, 30], 2: []}
    assert await producer.place("t", {0: []}) == {0: []}
