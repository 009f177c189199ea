"""What was read a moment ago."""

import asyncio
import weakref

import pytest

from app.errors import Unavailable
from app.view.fresh import Fresh


class Numbers(list[int]):
    """What can be referred to weakly."""


class Source:
    def __init__(self) -> None:
        self.read = 0

    async def __call__(self) -> Numbers:
        self.read += 1
        await asyncio.sleep(0)
        return Numbers([self.read])


async def test_many_who_look_at_once_are_told_the_same():
    source = Source()
    fresh = Fresh(source, 60.0)

    assert await asyncio.gather(*(fresh.get() for _ in range(5))) == [[1]] * 5


async def test_what_is_old_or_no_longer_true_is_read_again():
    old, known = Fresh(Source(), 0.0), Fresh(Source(), 60.0)
    await old.get()
    await asyncio.sleep(0.01)

    assert await old.get() == [2]
    assert (await known.get(), await known.get(anew=True)) == ([1], [2])
    known.forget()
    assert await known.get() == [3]


async def test_when_nobody_looks_any_more_nothing_is_kept():
    fresh = Fresh(Source(), 60.0, kept=0.0)
    gone = weakref.ref(await fresh.get())
    await asyncio.sleep(0.01)

    assert gone() is None
    assert await fresh.get() == [2]


async def test_what_could_not_be_read_is_tried_again():
    failing = True

    async def read() -> int:
        if failing:
            raise Unavailable("Kafka is away")
        return 7

    fresh = Fresh(read, 60.0)
    with pytest.raises(Unavailable):
        await fresh.get()
    failing = False

    assert await fresh.get() == 7
