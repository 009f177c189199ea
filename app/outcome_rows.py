"""The rows of a destination's table `outcomes.<destination>`: how they are keyed, and what they hold. Pure.

By conversion key and platform's name: what became of the event there. Other kinds of rows have a prefix of their own before that
key, so that each kind is found again by a scan:

    PARKED   an event that waits outside of the queue, with all it takes to send it
    UNCLEAR  since when nobody knows whether the platform has an event
    ASKED    by the platform's reference: a request that it has queued, and what it takes to write down what it says of it later
    NUDGE    none: the key of a deletion of what never was, which only makes Kafka begin a new segment (agents/tidy.py)
    HOURS    by the hour since 1970 in decimal digits: what was sent in it, for the guard to compare with (app/guard.py)

Conversion keys begin with a printable character, so no prefix is one of theirs.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import orjson

from app import receipts
from app.delivery import Job
from app.events import Event, Json
from app.prepare import Final
from sinks._base import Followed, Payload

NAME = b"\x1d"  # between conversion key and platform's name
PARKED = b"\x1cparked\x1f"
UNCLEAR = b"\x1cunclear\x1f"
ASKED = b"\x1casked\x1f"
HOURS = b"\x1chours\x1f"
NUDGE = b"\x1cnudge"

TOGETHER = 200_000  # bytes of the events in one ASKED row
LOOK = 1_000  # milliseconds between two looks at rows
LONGEST_REST = 3_600_000  # milliseconds: a few rows say a time before that of their writing


class _Outcome(msgspec.Struct, omit_defaults=True):
    v: int  # version
    o: str  # outcome
    t: int  # when
    n: int  # attempts
    r: str  # reason
    d: str  # detail
    u: int = 0  # revision
    p: int = 0  # replay
    x: list[int] = []  # offsets in the topic of traces


_JSON = msgspec.json.Encoder()


def outcome(job: Job, final: Final, now: int) -> bytes:
    """The row of what became of it."""
    result, reason, detail = final.outcome, final.reason, final.detail
    return _JSON.encode(_Outcome(1, result, now, job.attempts, reason, detail, job.revision, job.replay, job.traces))


def settles(row: bytes | None, job: Job) -> bool:
    """Is this outcome the last word on this job?"""
    if row is None:
        return False
    said = orjson.loads(row)
    if said.get("u", 0) < job.revision:
        return False
    return said["o"] in ("delivered", "accepted") or job.replay <= said.get("p", 0)


def is_of_a_later_revision(row: bytes | None, job: Job) -> bool:
    return row is not None and orjson.loads(row).get("u", 0) > job.revision


def recorded(row: bytes) -> float:
    """When a row was written, in Unix milliseconds; never, for a stranger's."""
    try:
        return float(orjson.loads(row)["t"])
    except (TypeError, ValueError, KeyError):
        return math.inf


class Sweep:
    """When the rows of a partition are to be looked at again, whether they may be forgotten: a second after the last look, and
    when a whole pass is over, not before the oldest of them can be old enough. Times in Unix milliseconds.
    """

    def __init__(self) -> None:
        self.again = 0.0
        self._oldest = -math.inf  # of this pass; of one that may have begun in the middle nothing is known

    def looked(self, recorded: Iterable[float], now: float, kept: float, *, ended: bool) -> None:
        """At rows that were recorded then and are kept for so long. `ended`: these were the last ones, the next are the first."""
        self.again = now + LOOK
        self._oldest = min(self._oldest, min((at for at in recorded if at >= now - kept), default=math.inf))
        if ended:
            self.again = max(self.again, min(self._oldest + kept, now + LONGEST_REST))
            self._oldest = now  # rows that are written from now on, the next pass may not see


def parked(job: Job, until: float, now: int) -> bytes:
    said: Json = {
        "v": 1,
        "t": now,
        "until": until,
        "event": job.event,
        "offset": job.offset,
        "replay": job.replay,
        "n": job.attempts,
        "f": job.failures,
        "unclear": job.unclear_since,
        "x": job.traces,
    }
    return orjson.dumps(said)


def unclear(job: Job) -> bytes:
    return orjson.dumps({"v": 1, "t": int((job.unclear_since or 0) * 1000)})


def unclear_since(row: bytes) -> float:
    """Unix time."""
    return float(orjson.loads(row)["t"]) / 1000


def asked(reference: str, jobs: Sequence[Job], until: float, now: int) -> list[tuple[bytes, bytes]]:
    """Rows about jobs of one partition, each of a size that Kafka takes."""
    rows: list[tuple[bytes, bytes]] = []
    some: list[Json] = []
    size = 0
    for job in jobs:
        said = _brief(job)
        more = len(orjson.dumps(said))
        if some and size + more > TOGETHER:
            rows.append(_asked(reference, some, until, now))
            some, size = [], 0
        some.append(said)
        size += more
    return [*rows, _asked(reference, some, until, now)]


def _asked(reference: str, jobs: list[Json], until: float, now: int) -> tuple[bytes, bytes]:
    key = ASKED + reference.encode() + b"\x1f" + jobs[0]["k"].encode()
    return key, orjson.dumps({"v": 1, "t": now, "until": until, "tries": 0, "ref": reference, "jobs": jobs})


def _brief(job: Job) -> Json:
    """What it takes to write down an outcome of this job."""
    said = {"k": job.key.decode(), "e": receipts.brief(job.event), "b": job.basis, "o": job.offset}
    return said | {"n": job.attempts, "p": job.replay, "x": job.traces}


def jobs_asked_about(p: int, said: Any) -> list[Job]:
    return [_job(p, one) for one in said["jobs"]]


def _job(p: int, said: Json) -> Job:
    key: str = said["k"]
    event: Event = said["e"]
    payload, name = Payload(event["event_id"], {}), key.split(NAME.decode(), 1)[1]
    more = {"attempts": said["n"], "traces": said.get("x", [])}
    return Job(key.encode(), p, event, name, said["b"], payload, 0, said["o"], said["p"], **more)


def told_later(followed: Followed) -> Final:
    """What the platform says of a request as a whole. It names no events: of a part that failed nobody knows which it is."""
    reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(followed.failed.items()))
    if followed.status == "success":
        return Final("delivered", detail="confirmed by the platform")
    if followed.status == "failed":
        most = max(followed.failed, key=lambda reason: followed.failed[reason], default="failed_at_the_platform")
        return Final("rejected", most, reasons)
    of = f"of {followed.events} events" if followed.events else "some events"
    return Final("accepted", detail=f"{of} failed: {reasons or 'no reason told'}")
