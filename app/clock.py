"""Time as records of the log: watermarks in, one clock out. Pure; the wall clock is an argument.

A watermark says: every copy of that source partition whose record time lies before it is in `capistream.events`. The clock is
the least of all watermarks and the owner's own wall clock, so a merge closes when no copy that belongs to it can still come:
whether the source is slow, the worker was down, or a backlog is read. A collector that sends what its disk kept says so, too.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

import orjson

SLACK = 500  # milliseconds: a record is stamped before it is in Kafka, by at most so much
INTERVAL = 1.0  # seconds between clock rounds
INTERRUPTED = 3.0  # seconds without a clock round: Kafka or we stood still
#: Seconds after an interruption in which nobody claims anything: producers need as long to reconnect and send again.
SETTLE = 3.0
#: Milliseconds after which a collector that said that it has copies on its disk, and nothing since, is not waited for any more.
SILENT = 10_000


def encode(now: int) -> bytes:
    """The clock record of `capistream.events`; its key is null."""
    return orjson.dumps({"clock": now})


def decode(value: bytes) -> int:
    return int(orjson.loads(value)["clock"])


def told_by_spool(name: str, oldest: int | None, now: int) -> bytes:
    """A record of `capistream.clock`: receipt of the oldest copy on a collector's disk while it sends them; None: no more."""
    return orjson.dumps({"marks": {}, "spools": {name: oldest}, "at": now})


@dataclass
class Watermarks:
    """What all workers say of their source partitions, as read from `capistream.clock`."""

    max_lag: int  # milliseconds; a source partition further behind is left out
    marks: dict[str, int] = field(default_factory=dict)  # "topic-partition" -> milliseconds
    spools: dict[str, tuple[int, int]] = field(default_factory=dict)  # of collectors -> (milliseconds, when it said so)
    left_out: tuple[str, ...] = ()
    begun: int | None = None  # when this worker began to listen
    unreadable: int = 0  # records that say nothing: what they were to say is waited for

    def read(self, value: bytes | None) -> None:
        try:
            said = orjson.loads(value or b"")
            marks = {str(name): int(mark) for name, mark in said["marks"].items()}
            spools = {str(name): mark and (int(mark), int(said["at"])) for name, mark in said.get("spools", {}).items()}
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError):
            self.unreadable += 1
            return
        for name, mark in marks.items():
            self.marks[name] = max(mark, self.marks.get(name, 0))
        self.spools = {name: one for name, one in (self.spools | spools).items() if one}

    def clock(self, wall: int, needed: Iterable[str]) -> int | None:
        """The clock in milliseconds, or None while a source partition has not been heard from.

        `wall` is the wall clock less the slack.
        """
        if self.begun is None:
            self.begun = wall
        # one never heard counts as standing where we began to listen: waited for, but not for ever
        heard: dict[str, int | None] = {name: self.marks.get(name) for name in needed}
        self.spools = {name: (mark, at) for name, (mark, at) in self.spools.items() if wall - at <= SILENT}
        heard |= {name: mark for name, (mark, _) in self.spools.items()}
        self.left_out = tuple(
            name for name, mark in heard.items() if wall - (self.begun if mark is None else mark) > self.max_lag
        )
        left_out = set(self.left_out)
        counted = [mark for name, mark in heard.items() if name not in left_out]
        known = [mark for mark in counted if mark is not None]
        if len(known) < len(counted):
            return None
        return min([wall, *known])
