"""Rows to one partition, in order, each call ends when all replicas have them."""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from faust.transport.drivers import aiokafka as stock

from app.lossless.batch import die

#: (key, value, timestamp in Unix milliseconds)
Row = tuple[bytes | None, bytes | None, int]


class RowTooLarge(ValueError):
    """A row does not fit into one request. Nothing of the call's later rows was sent."""


class Producer(stock.Producer):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._turns: dict[tuple[str, int], asyncio.Lock] = defaultdict(asyncio.Lock)
        super().__init__(*args, **kwargs)

    def _settings_extra(self) -> dict[str, Any]:
        # Faust switches idempotence on for transactions only; without it a retry can repeat or reorder rows
        return {"acks": "all", "enable_idempotence": True}

    async def write(self, topic: str, partition: int, rows: Iterable[Row]) -> tuple[int, int]:
        """Produce rows in order and wait until Kafka has acknowledged them all.

        Returns (offset of the first, offset after the last). Both are -1 when nothing was written, when somebody else's
        rows came in between, or when a retry was answered "duplicate": written, but nobody says where. A failed produce
        ends the process: an idempotent producer that gave up has a gap in its sequence and cannot go on.
        """
        producer = self._producer
        waiting: list[tuple[Any, int]] = []
        builder = None

        async def ship(full: Any) -> None:
            count = full.record_count()
            full.close()
            # One at a time: aiokafka takes its time-out from all that wait for the same partition, and takes the whole wait
            # off again each time that another was faster. Eight of them gave up after an outage of 13 s, with 60 s to wait.
            async with self._turns[topic, partition]:
                waiting.append((await producer.send_batch(full, topic, partition=partition), count))

        try:
            for key, value, timestamp in rows:
                if builder is None:
                    builder = producer.create_batch()
                if builder.append(key=key, value=value, timestamp=timestamp) is None:
                    await ship(builder)
                    builder = producer.create_batch()
                    if builder.append(key=key, value=value, timestamp=timestamp) is None:
                        raise RowTooLarge(f"{len(value or b'')} bytes do not fit one request to {topic}")
            if builder is not None:
                await ship(builder)
            done = [((await sent).offset, count) for sent, count in waiting]
        except (asyncio.CancelledError, RowTooLarge):
            raise
        except Exception as exc:  # noqa: BLE001 (whatever it is, see above)
            die(f"produce to {topic}-{partition} failed", error=repr(exc))
        return _range(done)


def _range(batches: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """(first, after the last) of (offset, count) pairs that follow each other without a gap, else (-1, -1)."""
    if not batches:
        return -1, -1
    first = end = batches[0][0]
    for offset, count in batches:
        if offset < 0 or offset != end:
            return -1, -1
        end += count
    return first, end
