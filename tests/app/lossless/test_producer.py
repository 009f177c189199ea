import asyncio
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest

from app.lossless import App


class Slow:
    """aiokafka's producer, of which each call of `send_batch` takes a while."""

    def __init__(self):
        self.waiting = self.most = 0

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
        sent.set_result(SimpleNamespace(offset=0))
        return sent


@pytest.mark.parametrize(("partitions", "most"), [([0] * 8, 1), ([0, 1, 2], 3)])
async def test_writers_to_one_partition_take_turns_and_others_do_not_wait_for_them(partitions, most):
    producer = App("producer", broker="aiokafka://127.0.0.1:1", web_enabled=False)._new_producer()
    producer._producer = slow = Slow()

    await asyncio.gather(*(producer.write("t", p, [(b"k", b"v", 0)]) for p in partitions))

    assert slow.most == most
