"""What could not be taken or delivered: reason, field and origin; never the payload, so no personal data.

The payload stays where it was read (the origin), and a replay reads it there again. The id is made of origin, destination and the
platform's name for the event, so the same failure seen twice is one letter. The newest record of an id counts: what was replayed
or dropped says so there.
"""

import hashlib
import time
from dataclasses import dataclass

import orjson
from pydantic import TypeAdapter, ValidationError

from app import keys
from app.events import Origin


@dataclass(frozen=True)
class DeadLetter:
    stage: str  # collector, normalize, deliver
    reason: str  # fixed code
    origin: Origin
    index: int = 0  # which event of that record or request
    field: str = ""
    detail: str = ""  # a sentence, without values of the event
    destination: str = ""
    name: str = ""  # the platform's, for the event
    event_id: str = ""
    event_name: str = ""
    attempts: int = 0

    @property
    def id(self) -> str:
        named = [self.name] if self.name else []
        text = orjson.dumps([self.origin, self.index, self.destination, *named], option=orjson.OPT_SORT_KEYS)
        return hashlib.sha256(text).hexdigest()[:24]

    def row(self, now: float | None = None) -> tuple[bytes, bytes, int]:
        """(key, value, timestamp) as the producer wants it."""
        milliseconds = int((time.time() if now is None else now) * 1000)
        said = {name: getattr(self, name) for name in self.__dataclass_fields__ if getattr(self, name)}
        value = {"v": 1, "id": self.id, "time": milliseconds, **said}
        return self.id.encode(), orjson.dumps(value), milliseconds

    def partition(self, partitions: int) -> int:
        return keys.partition(self.id, partitions)


@dataclass(frozen=True)
class Filed(DeadLetter):
    """A letter as it stands in the topic. Its row is the letter with the same fields and what became of it."""

    time: int = 0  # when it was written, Unix milliseconds
    state: str = ""  # replayed, dropped; empty while it waits
    at: int = 0  # since when, Unix milliseconds
    by: str = ""  # who did that


_FILED = TypeAdapter(Filed)


def read(key: bytes | None, value: bytes | None) -> Filed | None:
    """The letter of a record of the topic; None for what somebody else wrote there."""
    try:
        letter = _FILED.validate_json(value or b"")
    except ValidationError:
        return None
    return letter if letter.id.encode() == key else None
