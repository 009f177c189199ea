"""What a destination answered lately, as the topic of traces still has it: a line for each event of a request. Any worker reads it.

It is a part of what was answered: the newest records, of all destinations together, and of those only what `[trace]` keeps.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from app import keys, records, topics
from app.events import Json
from app.settings import Settings
from app.view import newest
from app.view.fresh import Fresh
from app.view.lookup import iso

MOST = 10_000  # records that are read, of all destinations together: 20 MB, of which little is kept
SHOWN = 200  # lines, on a page
FRESH = 10.0  # seconds for which they are not read again
PATIENCE = 10.0  # seconds to read them


class Answer(NamedTuple):
    """To a request, of one of the events that it had."""

    key: bytes  # of the conversion
    destination: str
    at: int  # when it was sent, Unix milliseconds
    status: int  # 0: there was no answer
    seconds: float
    attempt: int
    events: int  # of the request
    outcome: str
    reason: str

    def as_json(self) -> Json:
        id_, site, event_name = keys.parts(self.key)
        said: Json = {
            "id": id_,
            "site": site,
            "event_name": event_name,
            "apart": keys.apart(self.key),
            "at": iso(self.at),
        }
        return said | {name: getattr(self, name) for name in self._fields[3:]}


def read(key: bytes | None, said: Json) -> Answer | None:
    """None for what is no answer to an attempt, or somebody else's record."""
    try:
        numbers = int(said["time"]), int(said.get("status", 0)), float(said.get("seconds", 0)), int(said["attempt"])
        at, status, seconds, attempt = numbers
        keys.parts(key or b"")
        iso(at)
        return Answer(
            key or b"", str(said["destination"]), at, status, seconds, attempt, int(said.get("events", 1)),
            str(said["outcome"]), str(said.get("reason", "")),
        )  # fmt: skip
    except (KeyError, TypeError, ValueError, OverflowError):
        return None


def told(all_: Iterable[Answer], destination: str, status: int | None, *, slowest: bool) -> Json:
    """Those of a destination, and of this status, if one is named: the newest first, or the slowest."""
    chosen = [one for one in all_ if one.destination == destination and status in (None, one.status)]
    chosen.sort(key=lambda one: (one.seconds if slowest else 0, one.at), reverse=True)
    return {
        "destination": destination,
        "status": status,
        "slowest": slowest,
        "total": len(chosen),
        "answers": [one.as_json() for one in chosen[:SHOWN]],
    }


class Lately:
    """Of one configuration; read when somebody asks."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._fresh = Fresh(self._read, FRESH, what="the newest answers", patience=PATIENCE)

    async def answers(self) -> Sequence[Answer]:
        """Raises Unavailable."""
        return await self._fresh.get()

    async def _read(self) -> list[Answer]:
        async with records.reader(self._settings) as consumer:
            found: Any = newest.last(consumer, self._settings, topics.names(self._settings).trace, MOST)
            return [answer async for _, key, said in found if (answer := read(key, said))]
