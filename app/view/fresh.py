"""What was read a moment ago: it is not read again for everybody who looks, nor kept when nobody does any more."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from app.errors import Unavailable

T = TypeVar("T")

KEPT = 60.0  # seconds after the last reading: what is large does not stay in a worker's memory


class Fresh(Generic[T]):
    def __init__(
        self,
        read: Callable[[], Awaitable[T]],
        seconds: float,
        kept: float = KEPT,
        *,
        what: str = "what is asked for",
        patience: float | None = None,
    ) -> None:
        """What `read` returned is good for so many seconds. `what` it reads is told when `patience` seconds are not enough."""
        self._read, self._seconds, self._kept = read, seconds, kept
        self._what, self._patience = what, patience
        self._found: T | None = None
        self._at = float("-inf")  # when it was read, by the loop's clock
        self._reading = asyncio.Lock()
        self._end: asyncio.TimerHandle | None = None

    async def get(self, *, anew: bool = False) -> T:
        """As of a few seconds ago; with `anew` as of now. Raises what `read` raises, and Unavailable."""
        loop = asyncio.get_running_loop()
        async with self._reading:
            found = self._found
            if anew or found is None or loop.time() - self._at > self._seconds:
                self.forget()
                try:
                    async with asyncio.timeout(self._patience):
                        self._found = found = await self._read()
                except TimeoutError:
                    raise Unavailable(f"Kafka did not give {self._what} in time") from None
                self._at = loop.time()
                self._end = loop.call_later(self._kept, self.forget)
            return found

    def forget(self) -> None:
        """It is no longer true, or no longer wanted."""
        self._found = None
        if self._end:
            self._end.cancel()
