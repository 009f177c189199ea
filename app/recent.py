"""How a destination does lately, for the pages: how much it takes, and what it said last when it did not. Pure; of one worker."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from app.delivery import TAKEN
from sinks._base import Outcome

SPAN = 60  # seconds of which the throughput is told
SLOT = 5  # seconds that are counted together


@dataclass
class Recent:
    """Times are Unix seconds."""

    failed_at: float = 0.0  # 0: nothing failed yet
    failure: str = ""  # why, the last time
    _taken: Counter[int] = field(default_factory=Counter)  # slot -> events

    def note(self, outcomes: Sequence[Outcome], now: float) -> None:
        """What came of a request."""
        slot, failures = int(now) // SLOT, [one.reason for one in outcomes if not isinstance(one, TAKEN)]
        if slot not in self._taken:
            for old in [one for one in self._taken if one <= slot - SPAN // SLOT]:
                del self._taken[old]
        self._taken[slot] += len(outcomes) - len(failures)
        if failures:
            self.failed_at, self.failure = now, failures[-1]

    def per_second(self, now: float) -> float:
        """Events that were taken, over the last minute."""
        first = int(now) // SLOT - SPAN // SLOT
        return sum(count for slot, count in self._taken.items() if slot > first) / SPAN
