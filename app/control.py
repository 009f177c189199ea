"""What people, and guards, want of destinations: pause, and go on. In `capistream.control`, read by every worker from its
beginning before it sends anything; the last word on a destination counts.
"""

import asyncio
import getpass
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import orjson
import structlog
from aiokafka.errors import KafkaError

from app import bus, records, topics
from app.settings import Settings

log = structlog.get_logger()


@dataclass(frozen=True)
class Order:
    destination: str
    paused: bool
    reason: str = ""
    by: str = ""  # "guard", or who gave the command
    at: int = 0  # Unix milliseconds
    accept: bool = False  # go on although what it was stopped for is still so
    guard: str = ""  # which one holds the destination, or is told to let it go on

    def row(self) -> tuple[bytes, bytes, int]:
        """(key, value, timestamp) as the producer wants it."""
        return self.destination.encode(), orjson.dumps({"v": 1, **asdict(self)}), self.at


def _order(value: bytes | None) -> Order | None:
    """None for what somebody else wrote into our topic."""
    try:
        said = orjson.loads(value or b"")
        return Order(
            str(said["destination"]),
            bool(said["paused"]),
            str(said.get("reason", "")),
            str(said.get("by", "")),
            int(said.get("at", 0)),
            bool(said.get("accept", False)),
            str(said.get("guard", "")),
        )
    except (TypeError, ValueError, KeyError):
        return None


async def give(settings: Settings, orders: list[Order]) -> None:
    """Raises Unavailable when Kafka does not take them."""
    name = topics.names(settings).control
    try:
        async with bus.of(settings).producer(acks="all") as producer:
            await records.must_exist(producer.client, name)
            for order in orders:
                key, value, at = order.row()
                await producer.send_and_wait(name, value, key=key, partition=0, timestamp_ms=at)
    except KafkaError as exc:
        raise bus.problem(exc, "Kafka does not take the order") from exc


async def standing(settings: Settings) -> dict[str, Order]:
    """Destination -> the last order. Raises Unavailable."""
    found: dict[str, Order] = {}
    try:
        async for _, order in _read(settings, follow=False):
            found[order.destination] = order
    except KafkaError as exc:
        raise bus.problem(exc, "Kafka does not say what is paused") from exc
    return found


async def _read(
    settings: Settings, *, follow: bool, at_end: Callable[[], Any] = lambda: None
) -> AsyncIterator[tuple[int, Order]]:
    """All orders with their offsets, and with `follow` those to come; calls `at_end` when all that were there are read."""
    name = topics.names(settings).control
    async for record in records.one_for_all(settings, name, follow=follow, at_end=at_end):
        if order := _order(record.value):
            yield record.offset, order


class Control:
    """Follows the orders for as long as a worker runs, and passes them on."""

    def __init__(self, settings: Settings, obey: Callable[[Order], None]) -> None:
        self._settings, self._obey = settings, obey
        self._last: dict[str, Order] = {}
        self._let: dict[tuple[str, str], Order] = {}  # by destination and guard, the last word to let it go on
        self._next = 0  # offset of the first order that is not known yet
        self.heard = asyncio.Event()  # all that had been said is known

    def last(self, destination: str) -> Order | None:
        """The last word on it."""
        return self._last.get(destination)

    async def listen(self, stopping: Callable[[], bool]) -> None:
        while not stopping():
            try:
                async for offset, order in _read(self._settings, follow=True, at_end=self._caught_up):
                    if offset < self._next:
                        continue  # read again after an outage
                    self._next = offset + 1
                    before = self._last.get(order.destination)
                    if before and before.paused and not order.paused:
                        order = replace(order, guard=before.guard)  # noqa: PLW2901 (who says so need not know what held)
                    self._last[order.destination] = order
                    if order.guard and not order.paused:
                        self._let[order.destination, order.guard] = order
                    if self.heard.is_set():
                        self._obey(order)
            except KafkaError as exc:
                log.warning("control.unheard", error=repr(exc))
                await asyncio.sleep(0.5)

    def _caught_up(self) -> None:
        if not self.heard.is_set():
            # an old word to go on is no news to a worker that begins, but for what a guard was to let through
            for order in self._let.values():
                self._obey(replace(order, accept=False))
            for order in self._last.values():
                if order.paused:
                    self._obey(order)
            self.heard.set()


def now() -> int:
    return int(time.time() * 1000)


def who() -> str:
    """Who gives a command, as this machine knows them."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container may run a user that has no name
        return "unknown"
