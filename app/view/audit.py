"""Who looked at what, and did what: a line of the log, and a record of `<prefix>.audit`, which operators read on a page.

A record, with the name of who did it as its key:

    {"v": 1, "time": Unix milliseconds, "who", "role", "how": token, session, proxy or local, "what", "object", "from", ...}

`object` is the key of a conversion, the id of a letter or the name of a destination, never what somebody typed, which may be
anything. `from` is an address without what tells of one person. Records of deeds are written before them: what cannot be recorded
is not done. What is only looked at is shown all the same.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import orjson
import structlog
from aiokafka import TopicPartition

from app import intake, records, topics
from app.errors import Unavailable
from app.events import Json
from app.log import cut
from app.settings import Settings
from app.view.access import Who

log = structlog.get_logger()

NEWEST = 500  # records that the page shows
PATIENCE = 5.0  # seconds for Kafka to give them

#: Appends rows to a partition of a topic. Returns an empty text, or why Kafka did not take them.
Offer = Callable[[str, int, list[intake.Row]], Awaitable[str]]


class Deed(NamedTuple):
    """What somebody did or looked at."""

    what: str  # looked, replayed, logged in, refused, ...
    object: str = ""
    more: dict[str, Any] = {}


class Audit:
    def __init__(self, settings: Settings, offer: Offer) -> None:
        self._settings, self._offer = settings, offer
        self._topic = topics.names(settings).audit

    async def looked(self, who: Who, address: str, deed: Deed) -> None:
        """Also where Kafka does not take it: the line stays."""
        await self._write(who, address, deed)

    async def must_note(self, who: Who, address: str, deed: Deed) -> None:
        """Before the deed. Raises Unavailable: then it is not to be done."""
        if refused := await self._write(who, address, deed):
            raise Unavailable(f"nothing was done, as it could not be recorded: {refused}")

    async def _write(self, who: Who, address: str, deed: Deed) -> str:
        now = int(time.time() * 1000)
        said: Json = {"who": who.name, "role": who.role, "how": who.how, "what": deed.what, "object": deed.object}
        said |= {"from": cut(address), **deed.more}
        said = {name: value for name, value in said.items() if value != ""}
        log.info("view.audit", **said)
        row = who.name.encode(), orjson.dumps({"v": 1, "time": now, **said}), now
        if refused := await self._offer(self._topic, 0, [row]):
            log.warning("view.audit_not_kept", reason=refused)
        return refused


async def newest(settings: Settings) -> list[Json]:
    """The newest records, newest first. Raises Unavailable."""
    tp = TopicPartition(topics.names(settings).audit, 0)
    try:
        async with asyncio.timeout(PATIENCE), records.reader(settings) as consumer:
            await records.must_exist(consumer._client, tp.topic)
            end = (await consumer.end_offsets([tp]))[tp]
            wanted = range(max(0, end - NEWEST), end)
            found = [record async for record in records.single(consumer, {tp: wanted})]
    except TimeoutError:
        raise Unavailable("Kafka does not answer") from None
    return [said for record in reversed(found) if (said := _read(record.value))]


def _read(value: bytes | None) -> Json | None:
    """None for what somebody else wrote into our topic."""
    try:
        said = orjson.loads(value or b"")
        known = {"time": int(said["time"]), "who": str(said["who"]), "what": str(said["what"])}
    except (TypeError, ValueError, KeyError):
        return None
    return {name: value for name, value in said.items() if isinstance(value, str | int | float)} | known
