"""What could not be taken or delivered: reason, field and origin; never the payload, so no personal data.

The payload stays where it was read (the origin), and a replay reads it there again. The id is made of origin and destination, so
the same failure seen twice is one letter.
"""

import hashlib
import time
from dataclasses import dataclass

import orjson

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
    event_id: str = ""
    event_name: str = ""
    attempts: int = 0

    @property
    def id(self) -> str:
        text = orjson.dumps([self.origin, self.index, self.destination], option=orjson.OPT_SORT_KEYS)
        return hashlib.sha256(text).hexdigest()[:24]

    def row(self, now: float | None = None) -> tuple[bytes, bytes, int]:
        """(key, value, timestamp) as the producer wants it."""
        milliseconds = int((time.time() if now is None else now) * 1000)
        said = {name: getattr(self, name) for name in self.__dataclass_fields__ if getattr(self, name)}
        value = {"v": 1, "id": self.id, "time": milliseconds, **said}
        return self.id.encode(), orjson.dumps(value), milliseconds

    def partition(self, partitions: int) -> int:
        return keys.partition(self.id, partitions)
