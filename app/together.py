"""Group commit: what comes while something is being written goes with the next write, all of it together."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class _Group(Generic[T, R]):
    def __init__(self, generation: int) -> None:
        self.generation = generation
        self.members: list[T] = []
        self.waiters: list[asyncio.Future[R]] = []

    def waiting(self) -> Iterator[tuple[int, asyncio.Future[R]]]:
        """Those that wait and are not cancelled."""
        return ((number, waiter) for number, waiter in enumerate(self.waiters) if not waiter.done())


class Together(Generic[T, R]):
    """One write at a time: `write` gets what was added since the last one began, in that order, of one generation of the group,
    and returns a result for each.
    """

    def __init__(self, write: Callable[[Sequence[T], int], Awaitable[Sequence[R]]]) -> None:
        self._write = write
        self._writing = asyncio.Lock()
        self._next: _Group[T, R] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def add(self, one: T, generation: int) -> R:
        """Returns its result when it is written, and raises what its write raised."""
        group = self._next
        if group is None or group.generation != generation:
            group = self._next = _Group(generation)
            task = asyncio.create_task(self._write_next(group))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        waiter: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        group.members.append(one)
        group.waiters.append(waiter)
        return await waiter

    async def _write_next(self, group: _Group[T, R]) -> None:
        try:
            async with self._writing:
                if self._next is group:
                    self._next = None
                results = await self._write(group.members, group.generation)
        except BaseException as exc:
            for _, waiter in group.waiting():
                waiter.set_exception(exc)
            if not isinstance(exc, Exception):
                raise
        else:
            for number, waiter in group.waiting():
                waiter.set_result(results[number])
