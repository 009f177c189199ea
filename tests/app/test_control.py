"""app/control.py: orders through the real Kafka, from the command to the worker that obeys."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from app import control
from app.control import Control, Order


@asynccontextmanager
async def listening(place) -> AsyncIterator[tuple[Control, asyncio.Queue[Order]]]:
    heard: asyncio.Queue[Order] = asyncio.Queue()
    one = Control(place.config, heard.put_nowait)
    task = asyncio.create_task(one.listen(lambda: False))
    try:
        yield one, heard
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def give(place, *orders: Order) -> None:
    asyncio.run(control.give(place.config, list(orders)))


def test_an_order_comes_out_as_it_was_given(place):
    order = Order("ads", paused=True, reason="a trial", by="ada", at=1_795_420_800_000)

    give(place, order)

    assert asyncio.run(control.standing(place.config)) == {"ads": order}


def test_the_last_order_for_a_destination_stands(place):
    give(place, Order("ads", paused=True), Order("stats", paused=True), Order("ads", paused=False, accept=True))

    found = asyncio.run(control.standing(place.config))

    assert {name: (one.paused, one.accept) for name, one in found.items()} == {
        "ads": (False, True),
        "stats": (True, False),
    }


def test_nothing_stands_before_anybody_ordered_anything(place):
    assert asyncio.run(control.standing(place.config)) == {}


@pytest.mark.parametrize("value", [None, b"", b"nonsense", b"[]", b'{"destination": "ads"}', b'{"paused": true}'])
def test_what_somebody_else_wrote_is_no_order(place, value):
    give(place, Order("ads", paused=True))
    place.write(f"{place.prefix}.control", [(b"ads", value, 0)])

    assert asyncio.run(control.standing(place.config))["ads"].paused


def test_a_worker_that_begins_hears_what_is_paused_and_no_old_word_to_go_on(place):
    give(place, Order("ads", paused=True, reason="first"), Order("ads", paused=False))
    give(place, Order("stats", paused=True, reason="second"))

    async def run() -> list[Order]:
        async with listening(place) as (one, heard):
            async with asyncio.timeout(30):
                await one.heard.wait()
            return [heard.get_nowait() for _ in range(heard.qsize())]

    assert [(one.destination, one.reason) for one in asyncio.run(run())] == [("stats", "second")]


def test_a_worker_that_begins_hears_what_guards_were_told_to_let_go_on(place):
    for guard in ("rate purchase", "highest purchase EUR"):
        give(place, Order("ads", paused=True, by="guard", guard=guard), Order("ads", paused=False, at=5, accept=True))
    give(place, Order("ads", paused=True, reason="a trial"), Order("ads", paused=False, at=6))

    async def run() -> list[Order]:
        async with listening(place) as (one, heard):
            async with asyncio.timeout(30):
                await one.heard.wait()
            return [heard.get_nowait() for _ in range(heard.qsize())]

    assert asyncio.run(run()) == [
        Order("ads", paused=False, at=5, guard="rate purchase"),
        Order("ads", paused=False, at=5, guard="highest purchase EUR"),
    ]


def test_an_order_to_go_on_says_to_a_worker_that_runs_which_guard_had_held(place):
    async def run() -> list[str]:
        async with listening(place) as (one, heard), asyncio.timeout(30):
            await one.heard.wait()
            await control.give(place.config, [Order("ads", paused=True, guard="rate purchase")])
            await control.give(place.config, [Order("ads", paused=False), Order("ads", paused=False)])
            return [(await heard.get()).guard for _ in range(3)]

    assert asyncio.run(run()) == ["rate purchase", "rate purchase", ""]


def test_a_worker_that_runs_hears_every_order_in_order(place):
    async def run() -> list[bool]:
        async with listening(place) as (one, heard), asyncio.timeout(30):
            await one.heard.wait()
            for paused in (True, False, True):
                await control.give(place.config, [Order("ads", paused=paused)])
            return [(await heard.get()).paused for _ in range(3)]

    assert asyncio.run(run()) == [True, False, True]
