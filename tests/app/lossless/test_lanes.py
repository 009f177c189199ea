"""What a lane takes at once, and what of it is finished."""

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace

from faust.types import TP

from app.lossless import Batch, Lost
from app.lossless.lanes import Lanes

MOST = 20  # records
EVENTS = TP("shop.events", 0)


class Bench:
    """A lane whose work waits until it may go on."""

    def __init__(self) -> None:
        self.lanes = Lanes(MOST)
        self.worked: list[tuple[int, int]] = []  # (first offset, after the last) of each turn
        self.finished: list[int] = []  # first offsets of batches
        self.lost = False
        self.go_on = asyncio.Event()

    def submit(self, first: int, count: int = 1, generation: int = 1) -> None:
        records = [SimpleNamespace(offset=first + n, value=b"value") for n in range(count)]
        batch = Batch(EVENTS, records, generation, lambda batch: self.finished.append(batch.first))
        self.lanes.submit(batch, self.work)

    async def work(self, batch: Batch) -> None:
        self.worked.append((batch.first, batch.next))
        await self.go_on.wait()
        if self.lost:
            raise Lost("for the test")

    async def end(self) -> None:
        self.go_on.set()
        await asyncio.wait(self.lanes._running.values())


def submitted(batches: Sequence[tuple[int, int, int]], *, lost: bool = False) -> Bench:
    """What came of these (first offset, records, generation), of which the first one began before the others came."""

    async def go() -> Bench:
        bench = Bench()
        bench.lost = lost
        for number, (first, count, generation) in enumerate(batches):
            bench.submit(first, count, generation)
            if number == 0:
                await asyncio.sleep(0)
        await bench.end()
        return bench

    return asyncio.run(go())


def test_what_comes_while_a_lane_is_busy_is_one_batch() -> None:
    bench = submitted([(0, 2, 1), (2, 3, 1), (5, 1, 1)])
    assert bench.worked == [(0, 2), (2, 6)]


def test_each_batch_of_a_joined_one_is_finished() -> None:
    bench = submitted([(0, 2, 1), (2, 3, 1), (5, 1, 1)])
    assert bench.finished == [0, 2, 5]


def test_no_batch_is_joined_beyond_what_a_fetch_may_bring() -> None:
    bench = submitted([(0, 1, 1), (1, MOST - 1, 1), (MOST, 1, 1), (MOST + 1, 1, 1)])
    assert bench.worked == [(0, 1), (1, MOST + 1), (MOST + 1, MOST + 2)]


def test_batches_of_two_generations_are_not_joined() -> None:
    bench = submitted([(0, 1, 1), (1, 1, 1), (1, 1, 2)])
    assert bench.worked == [(0, 1), (1, 2), (1, 2)]


def test_a_joined_batch_that_is_lost_leaves_all_of_it_open() -> None:
    bench = submitted([(0, 1, 1), (1, 1, 1), (2, 1, 1)], lost=True)
    assert bench.finished == []
    assert bench.worked == [(0, 1)]  # and what follows in the same generation is not begun
