"""Group commit: what comes while something is being written goes with the next write, all of it together."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass
class _Group(Generic[T]):
    generation: int
    members: list[T] = field(default_factory=list)
    written: "asyncio.Future[None] | None" = None


class Together(Generic[T]):
    """One write at a time: `write` gets what was added since the last one began, in that order, of one generation of the group."""

    def __init__(self, write: Callable[[Sequence[T], int], Awaitable[None]]) -> None:
        self._write = write
        self._writing = asyncio.Lock()
        self._next: _Group[T] | None = None

    async def add(self, one: T, generation: int) -> None:
        """Returns when it is written, and raises what its write raised."""
        group = self._next
        if group is None or group.generation != generation:
            group = self._next = _Group(generation)
            group.written = asyncio.ensure_future(self._write_next(group))
        group.members.append(one)
        assert group.written is not None
        await asyncio.shield(group.written)  # others wait for it, too

    async def _write_next(self, group: _Group[T]) -> None:
        async with self._writing:
            if self._next is group:
                self._next = None
            await self._write(group.members, group.generation)
