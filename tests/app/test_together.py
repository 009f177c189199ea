"""app/together.py: group commit."""

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.lossless import Lost
from app.together import Together


class Store:
    """Keeps what is written, each write after as many turns of the loop as it is told."""

    def __init__(self, turns: int = 3) -> None:
        self.turns, self.begun, self.under_way = turns, asyncio.Event(), 0
        self.writes: list[tuple[int, list[Any]]] = []
        self.together = Together[Any, str](self.write)

    async def write(self, some, generation) -> list[str]:
        self.begun.set()
        self.under_way += 1
        assert self.under_way == 1
        for _ in range(self.turns):
            await asyncio.sleep(0)
        self.under_way -= 1
        self.writes.append((generation, list(some)))
        return [f"{one} is written" for one in some]


async def test_what_comes_during_a_write_goes_with_the_next_one_in_its_order():
    store = Store()
    first = asyncio.create_task(store.together.add("a", 1))
    await store.begun.wait()

    found = await asyncio.gather(first, *(store.together.add(one, 1) for one in "bcd"))

    assert found == [f"{one} is written" for one in "abcd"]
    assert store.writes == [(1, ["a"]), (1, ["b", "c", "d"])]


async def test_one_alone_is_written_at_once_and_is_written_when_it_returns():
    store = Store()

    await store.together.add("a", 1)
    assert store.writes == [(1, ["a"])]
    await store.together.add("b", 1)
    assert store.writes == [(1, ["a"]), (1, ["b"])]


async def test_who_waits_for_a_write_that_fails_is_told_and_nobody_else():
    refused = ["b", "c"]
    store = Store()

    async def write(some, generation) -> list[str]:
        written = await store.write(some, generation)
        if list(some) == refused:
            raise Lost("other partitions by now")
        return written

    together = Together[Any, str](write)
    first = asyncio.create_task(together.add("a", 1))
    await store.begun.wait()
    found = await asyncio.gather(*(together.add(one, 1) for one in refused), return_exceptions=True)
    await together.add("d", 1)

    assert [type(one) for one in found] == [Lost, Lost]
    await first


async def test_somebody_who_waits_no_more_takes_nothing_from_the_others():
    store = Store()
    gone, stays = (asyncio.create_task(store.together.add(one, 1)) for one in "ab")
    await store.begun.wait()

    gone.cancel()
    assert await stays == "b is written"

    assert store.writes == [(1, ["a", "b"])]
    with pytest.raises(asyncio.CancelledError):
        await gone


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(1, 3)), max_size=30), st.integers(0, 4))
def test_everything_is_written_once_in_order_and_never_with_another_generation(given, turns):
    """`given`: (turns of the loop until the next is added, generation of this one)."""

    async def run() -> list[Any]:
        store, tasks = Store(turns), []
        for number, (pause, generation) in enumerate(given):
            tasks.append(asyncio.create_task(store.together.add((number, generation), generation)))
            for _ in range(pause):
                await asyncio.sleep(0)
        await asyncio.gather(*tasks)
        return store.writes

    writes = asyncio.run(run())

    written = [one for _, some in writes for one in some]
    assert written == [(number, generation) for number, (_, generation) in enumerate(given)]
    assert all(generation == one[1] for generation, some in writes for one in some)
