"""Some platforms take whatever they get, right or wrong. A part of what they took is also put to their validation.

Which part, and how its complaints are told without flooding anybody, is decided here; agents/deliver.py sends. Nothing waits for
a check, none is tried again, and none changes an outcome.
"""

import math
import random
from collections.abc import Iterable
from dataclasses import dataclass

import structlog

from app import metrics
from app.delivery import Clock

log = structlog.get_logger()

AT_ONCE = 2  # checks under way: a validation that hangs gets no more
MOST = 50  # different complaints of a destination that are told apart; the rest is `OTHER`
OTHER = "other"
EVERY = 60.0  # seconds between two lines about the same complaint


@dataclass
class _Told:
    """When a complaint was logged last, and how often it came since."""

    at: float = -math.inf
    times: int = 0


class Checks:
    """Those of one destination."""

    def __init__(self, name: str, share: float, clock: Clock, dice: random.Random | None = None) -> None:
        self.name, self.share = name, share
        self._clock = clock
        self._dice = dice or random.Random()  # noqa: S311 (no secret hangs on it)
        self._under_way = 0
        self._told: dict[str, _Told] = {}

    def begin(self) -> bool:
        """Is the request one that is checked, too? Then `end` follows."""
        chosen = self._under_way < AT_ONCE and self._dice.random() < self.share
        self._under_way += chosen
        return chosen

    def end(self) -> None:
        self._under_way -= 1

    def found(self, complaints: Iterable[str]) -> None:
        """What is wrong with one request: counted, and logged once in a while."""
        now = self._clock.steady()
        for text in complaints:
            complaint = text if text in self._told or len(self._told) < MOST else OTHER
            metrics.COMPLAINTS.labels(self.name, complaint).inc()
            told = self._told.setdefault(complaint, _Told())
            told.times += 1
            if now - told.at >= EVERY:
                log.warning("delivery.complaint", destination=self.name, complaint=complaint, times=told.times)
                told.at, told.times = now, 0
