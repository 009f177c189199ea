"""Dead letters on pages: grouped by reason, filtered, one of them, and what is done about many at once.

What a letter is, and what replaying and dropping one means, is in app/letters.py.
"""

import asyncio
import contextlib
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import structlog

from app import letters
from app.dead_letter import Filed
from app.errors import CapistreamError
from app.events import Json
from app.letters import Letters, Told, Wanted
from app.settings import Settings
from app.view.fresh import Fresh
from app.view.lookup import iso

log = structlog.get_logger()

MOST = 200  # letters that a page shows
READ = 30_000  # records of which the pages know the letters: a second, and 60 MB for a minute
FRESH = 5.0  # seconds for which they are not read again
PATIENCE = 20.0  # seconds to read them
AT_ONCE = 1.5  # seconds within which most work is done, and nobody has to look how far it is
WORKS = 20  # pieces of work whose end is remembered

Do = Literal["replay", "drop"]


# Pure


def wanted(query: Mapping[str, str], ids: Sequence[str] = ()) -> Wanted:
    """Which letters a query means."""
    return Wanted(
        ids=tuple(ids),
        destination=query.get("destination", ""),
        reason=query.get("reason", ""),
        event_id=query.get("event_id", ""),
        settled=query.get("state") == "all",
    )


def overview(known: Letters, meant: Wanted, *, whole: bool = True) -> Json:
    """Those that are meant, the newest first and not too many, and how many there are of which kind. `whole`: are these all?"""
    chosen = meant.of(known)
    groups, there = Counter((one.reason, place(one)) for one in chosen), {one.destination for one in chosen}
    return {
        "total": len(chosen),
        "groups": [
            {
                "reason": reason,
                "place": where,
                "destination": where if where in there else "",
                "letters": count,
            }
            for (reason, where), count in groups.most_common(MOST)
        ],
        "letters": [as_json(one) for one in chosen[: -MOST - 1 : -1]],
        "whole": whole,
    }


def place(letter: Filed) -> str:
    """Where it was refused: the destination, the topic that it was read from, or the collector."""
    return letter.destination or letter.origin.get("topic") or letter.stage


def as_json(letter: Filed) -> Json:
    said = {name: getattr(letter, name) for name in _FIELDS}
    said |= {"id": letter.id, "time": iso(letter.time), "place": place(letter), "origin": dict(letter.origin)}
    if letter.state:
        said |= {"state": letter.state, "at": iso(letter.at), "by": letter.by}
    return {name: value for name, value in said.items() if value not in ("", 0, {})}


_FIELDS = ("stage", "reason", "field", "detail", "destination", "name", "event_id", "event_name", "attempts", "index")


@dataclass
class Work:
    """Something done about letters, which may take its time."""

    what: Do
    total: int
    id: str = field(default_factory=lambda: secrets.token_hex(6))
    done: int = 0
    why_not: Counter[str] = field(default_factory=Counter)
    failed: str = ""  # what ended it
    finished: bool = False

    def note(self, told: Told) -> None:
        self.done += 1
        if told.why:
            self.why_not[told.why] += 1

    def as_json(self) -> Json:
        return {
            "work": self.id,
            "what": self.what,
            "total": max(self.total, self.done),  # a letter takes those along that wait for the same record
            "done": self.done,
            "not_done": [{"why": why, "letters": count} for why, count in self.why_not.most_common()],
            "failed": self.failed,
            "finished": self.finished,
        }


# Kafka


class Desk:
    """The letters of this configuration, and the work on them that this worker does."""

    def __init__(self, settings: Settings, aside: Callable[[Coroutine[Any, Any, None]], None]) -> None:
        """`aside` lets a coroutine run beside everything else."""
        self._settings, self._aside = settings, aside
        self._letters = Fresh(lambda: letters.newest(settings, READ), FRESH, what="the dead letters", patience=PATIENCE)
        self._works: dict[str, Work] = {}

    async def newest(self, ids: Sequence[str] = (), *, anew: bool = False) -> tuple[Letters, bool]:
        """(the letters, are these all there are?), as of a few seconds ago, or as of now. Those that are named, by how their ids
        begin, are among them, however old they are. Raises Unavailable.
        """
        known, whole = await self._letters.get(anew=anew)
        if not whole:
            old = tuple(one for one in ids if one not in known and not any(name.startswith(one) for name in known))
            if old:
                known = {**await letters.load(self._settings, lambda letter: letter.id.startswith(old)), **known}
        return known, whole

    async def overview(self, meant: Wanted) -> Json:
        """Raises Unavailable, and CapistreamError."""
        known, whole = await self.newest(meant.ids)
        # in a thread, as the worker has other work meanwhile
        return await asyncio.to_thread(overview, known, meant, whole=whole)

    def work(self, name: str) -> Work | None:
        return self._works.get(name)

    async def begin(self, what: Do, chosen: Sequence[Filed], known: Letters, by: str) -> Work:
        """Returns when it is over, or goes on beside everything else."""
        work = Work(what, len(chosen))
        self._works[work.id] = work
        while len(self._works) > WORKS:
            del self._works[next(iter(self._works))]
        over = asyncio.Event()
        self._aside(self._run(work, chosen, known, by, over))
        with contextlib.suppress(TimeoutError):  # its page tells how far it is
            await asyncio.wait_for(over.wait(), AT_ONCE)
        return work

    async def _run(self, work: Work, chosen: Sequence[Filed], known: Letters, by: str, over: asyncio.Event) -> None:
        try:
            async for told in self._do(work.what, chosen, known, by):
                work.note(told)
        except CapistreamError as exc:
            work.failed = str(exc)
        except Exception as exc:
            log.exception("view.work_failed", work=work.id)
            work.failed = type(exc).__name__
        finally:
            work.finished = True
            self._letters.forget()
            over.set()

    async def _do(self, what: Do, chosen: Sequence[Filed], known: Letters, by: str) -> AsyncIterator[Told]:
        if what == "replay":
            async for told in letters.replay(self._settings, chosen, known, by):
                yield told
        else:
            await letters.drop(self._settings, chosen, by)
            for letter in chosen:
                yield Told(letter)
