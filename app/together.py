"""Group commit: what comes while something is being written goes with the next write, all of it together."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")


class _Group(Generic[T]):
    def __init__(self, generation: int) -> None:
        self.generation = generation
        self.members: list[T] = []
        self.waiters: list[asyncio.Future[None]] = []

    def written(self, failure: BaseException | None = None) -> None:
        """Tell all that wait and are not cancelled."""
        for waiter in self.waiters:
            if waiter.done():
                continue
            if failure is None:
                waiter.set_result(None)
            else:
                waiter.set_exception(failure)


class Together(Generic[T]):
    """One write at a time: `write` gets what was added since the last one began, in that order, of one generation of the group."""

    def __init__(self, write: Callable[[Sequence[T], int], Awaitable[None]]) -> None:
        self._write = write
        self._writing = asyncio.Lock()
        self._next: _Group[T] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def add(self, one: T, generation: int) -> None:
        """Returns when it is written, and raises what its write raised."""
        group = self._next
        if group is None or group.generation != generation:
            group = self._next = _Group(generation)
            task = asyncio.create_task(self._write_next(group))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        waiter = asyncio.get_running_loop().create_future()
        group.members.append(one)
        group.waiters.append(waiter)
        await waiter

    async def _write_next(self, group: _Group[T]) -> None:
        try:
            async with self._writing:
                if self._next is group:
                    self._next = None
                await self._write(group.members, group.generation)
        except BaseException as exc:
            group.written(exc)
            if not isinstance(exc, Exception):
                raise
        else:
            group.written()
