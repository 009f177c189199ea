"""Does this worker get on? What `/readyz`, `/livez` and `restart_when_stuck` answer by.

Ready is a worker that has its state and whose work moves. A source partition stands still when no offset of it moved for
`stall_after` while anything of it is unread or unfinished, however little: at night no more may come. What waits on purpose
(a halted destination, a schema registry that is away, the pause between two attempts) does not count. That Kafka does not
answer, or that the group does not have us, are reasons of their own, or a dead consumer would look like an idle one.

Alive is a worker whose loops turn, whatever is delivered.

A restart helps against neither a platform nor a broker that is away. So a worker that is told to restart itself does so only
while Kafka answers it, or does not although it answers a client that has just begun.
"""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import structlog
from aiokafka import TopicPartition
from faust.types import TP

from app import bus, metrics
from app.lossless import die

if TYPE_CHECKING:
    from app.main import Pipeline

log = structlog.get_logger()

LOOK = 5.0  # seconds between looks, and for an answer
LOOPS_MAX = 120.0  # seconds in which a loop that lives has turned: none of its waits is longer
NO_LOOPS = ("kafka", "client", "group")  # among what is watched
NAMED = 20  # partitions that an answer names

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class Standing(Generic[K]):
    """How long each thing has stood still, as far as somebody was looking. Pure; the time is an argument.

    Of the time between two looks at most `gap` seconds count: a process that was stopped finds nothing stuck when it goes on.
    """

    def __init__(self, gap: float) -> None:
        self._gap = gap
        self._looked: float | None = None
        self._marks: Mapping[K, Hashable] = {}
        self.seconds: dict[K, float] = {}

    def look(self, now: float, marks: Mapping[K, Hashable]) -> None:
        """A mark changes when its thing moves; None: it need not move now. What is not named any more is forgotten."""
        passed = 0.0 if self._looked is None else min(max(0.0, now - self._looked), self._gap)
        self.seconds = {
            key: self.seconds[key] + passed if mark is not None and mark == self._marks.get(key) else 0.0
            for key, mark in marks.items()
        }
        self._looked, self._marks = now, dict(marks)

    def over(self, limit: float) -> list[K]:
        """What stands for `limit` seconds or longer."""
        return [key for key, seconds in self.seconds.items() if seconds >= limit]


@dataclass(frozen=True)
class Place:
    """A source partition at one moment."""

    end: int  # of what can be read of the log
    done: int  # the first offset that is not finished
    held: bool = False  # on purpose
    steps: int = 0  # changes while a batch is being worked off

    @property
    def lag(self) -> int:
        return max(0, self.end - self.done)

    @property
    def mark(self) -> Hashable:
        """For `Standing`."""
        return (self.done, self.steps) if self.lag and not self.held else None


@dataclass(frozen=True)
class Trouble:
    """Why a worker is not ready. docs/operations.md tells what each reason means."""

    reason: str
    seconds: float = 0.0
    partitions: dict[str, int] = field(default_factory=dict)  # those that stand still: records waiting
    loops: list[str] = field(default_factory=list)  # those that do not turn

    def told(self) -> dict[str, Any]:
        """What there is to say, briefly."""
        said: dict[str, Any] = {"reason": self.reason, "seconds": round(self.seconds)}
        if self.partitions:
            said["partitions"] = dict(sorted(self.partitions.items())[:NAMED])
        if self.loops:
            said["loops"] = self.loops
        return said


class Question(Generic[T]):
    """Put to somebody who may not answer, never twice at a time."""

    def __init__(self, ask: Callable[[], Awaitable[T]]) -> None:
        self._ask = ask
        self._asked: asyncio.Future[T] | None = None
        self.answers = 0

    async def within(self, seconds: float) -> T | None:
        """The answer, or None while there is none; it may come at a later call."""
        if self._asked is None:
            self._asked = asyncio.ensure_future(self._ask())
        await asyncio.wait({self._asked}, timeout=seconds)
        if not self._asked.done():
            return None
        asked, self._asked = self._asked, None
        if asked.cancelled() or asked.exception() is not None:
            return None  # whatever went wrong: it is no answer
        self.answers += 1
        return asked.result()


class Health:
    def __init__(self, pipeline: "Pipeline") -> None:
        worker = pipeline.settings.worker
        self.pipeline = pipeline
        self.stall_after, self.restart = worker.stall_after, worker.restart_when_stuck
        # the group gives up a killed member only after its session, and waits for slow ones
        conf = pipeline.app.conf
        self.join_after = max(self.stall_after, conf.broker_session_timeout + conf.broker_rebalance_timeout)
        self.interval = min(LOOK, self.stall_after / 5)
        gap = 4 * self.interval  # a look waits for two answers at most
        self.places: dict[TP, Place] = {}
        self._partitions: Standing[TP] = Standing(gap)
        self._parts: Standing[str] = Standing(gap)
        self._ends = Question(self._log_ends)
        self._anew = Question(self._log_ends_anew)
        self._delivering = {one.topic: one for one in pipeline.deliver.values()}
        self._looked = time.monotonic()
        self._told: Trouble | None = None

    # -- what others ask

    def trouble(self) -> Trouble | None:
        """Why this worker is not ready."""
        app, stands, limit = self.pipeline.app, self._parts.seconds, self.stall_after
        if app.should_stop:
            return Trouble("stopping")
        if (unseen := time.monotonic() - self._looked) >= limit:
            return Trouble("not_watched", unseen)
        if stands.get("kafka", 0.0) >= limit:
            return Trouble("kafka_silent", stands["kafka"])
        if not self._recovered:
            return Trouble("recovering", stands.get("group", 0.0))
        if stands.get("group", 0.0) >= self.join_after:
            return Trouble("not_in_group", stands["group"])
        if loops := self._loops(limit):
            return Trouble("loop_dead", max(stands[loop] for loop in loops), loops=loops)
        if standing := self._partitions.over(limit):
            return Trouble(
                "standstill",
                max(self._partitions.seconds[tp] for tp in standing),
                {f"{tp.topic}-{tp.partition}": self.places[tp].lag for tp in standing},
            )
        return None

    def dead(self) -> Trouble | None:
        """Why this worker is not alive."""
        loops = self._loops(LOOPS_MAX)
        seconds = max((self._parts.seconds[loop] for loop in loops), default=0.0)
        if (unseen := time.monotonic() - self._looked) >= LOOPS_MAX:
            loops, seconds = [*loops, "watch"], max(seconds, unseen)
        return Trouble("loop_dead", seconds, loops=loops) if loops else None

    def stuck(self) -> Trouble | None:
        """Why a restart would help."""
        seconds = self._parts.seconds
        if seconds.get("client", 0.0) >= self.stall_after:
            return Trouble("client_dead", seconds["client"])
        if self._silent:
            return None
        if seconds.get("group", 0.0) >= self.join_after:
            return Trouble("recovering" if not self._recovered else "not_in_group", seconds["group"])
        found = self.trouble()
        return found if found is not None and found.reason in ("loop_dead", "standstill") else None

    @property
    def _recovered(self) -> bool:
        app = self.pipeline.app
        return bool(app.consumer.ready == app.consumer_generation_id)

    @property
    def _silent(self) -> bool:
        return self._parts.seconds.get("kafka", 0.0) >= 2 * self.interval

    def _loops(self, limit: float) -> list[str]:
        return [part for part in self._parts.over(limit) if part not in NO_LOOPS]

    # -- looking

    async def watch(self) -> None:
        """For as long as the worker runs."""
        if self.restart:
            threading.Thread(target=self._watch_from_outside, name="health", daemon=True).start()
        while not self.pipeline.app.should_stop:
            await asyncio.sleep(self.interval)
            await self._look()
            self._tell()
            if self.restart and (why := self.stuck()):
                die("stuck", **why.told())

    async def _look(self) -> None:
        app, consumer = self.pipeline.app, self.pipeline.app.consumer
        ends = await self._ends.within(self.interval)
        silent = ends is None and self._silent
        away = silent and await self._anew.within(self.interval) is None
        now, recovered = time.monotonic(), self._recovered
        # Nobody can be blamed while Kafka is away; and in a recovery, or a rebalance, its progress is what counts.
        marks: dict[str, Hashable] = {
            "kafka": self._ends.answers,
            "client": True if silent and not away else None,
            # a member without partitions cannot prove that it is one, and has none to lose
            "group": None
            if away or consumer.member or (recovered and not consumer.sources())
            else (app.consumer_generation_id, app.tables.recovery.active_remaining_total()),
        }
        turned = {"fetch": consumer.turned, "clock": self.pipeline.clock.turned}
        turned |= {f"deliver.{name}": one.turned for name, one in self.pipeline.deliver.items()}
        marks |= {loop: turns if recovered and not away else None for loop, turns in turned.items()}
        self._parts.look(now, marks)
        self._looked = now
        if ends is not None and recovered:
            self._look_at({tp: self._place(tp, ends[tp]) for tp in consumer.sources() if tp in ends}, now)

    def _look_at(self, places: dict[TP, Place], now: float) -> None:
        for tp in self.places.keys() - places.keys():
            metrics.LAG.remove(tp.topic, str(tp.partition))
        for tp, place in places.items():
            metrics.LAG.labels(tp.topic, str(tp.partition)).set(place.lag)
        self.places = places
        self._partitions.look(now, {tp: place.mark for tp, place in places.items()})
        metrics.STALLED.set(len(self._partitions.over(self.stall_after)))

    def _place(self, tp: TP, end: int) -> Place:
        done, one = self.pipeline.app.consumer.unfinished_from(tp) or 0, self._delivering.get(tp.topic)
        if one is None:
            return Place(end, done, held=tp in self.pipeline.normalize.waiting)
        return Place(end, done, one.held(tp.partition), one.steps(tp.partition))

    async def _log_ends(self) -> dict[TP, int]:
        return dict(await self.pipeline.app.consumer.readable_ends(self._asked_for()))

    async def _log_ends_anew(self) -> dict[TP, int]:
        """The same question from a client of its own: who is silent, Kafka or ours?"""
        reader = bus.of(self.pipeline.settings).consumer(group_id=None)
        try:
            await reader.start()
            return dict(await reader.end_offsets([TopicPartition(*tp) for tp in self._asked_for()]))
        finally:
            await reader.stop()

    def _asked_for(self) -> list[TP]:
        # a worker without partitions asks, too: what is always there, and always subscribed
        return list(self.pipeline.app.consumer.sources() | {TP(self.pipeline.names.events, 0)})

    def _tell(self) -> None:
        found = self.trouble()
        if found is not None and found.reason in ("recovering", "stopping"):
            return  # told elsewhere, and no trouble
        if found is not None and (self._told is None or self._told.reason != found.reason):
            log.error("worker.stands_still", **found.told())
        elif found is None and self._told is not None:
            log.warning("worker.moves_again", after=self._told.reason)
        self._told = found

    def _watch_from_outside(self) -> None:
        """A thread: the event loop cannot tell that it is blocked itself."""
        standing: Standing[str] = Standing(4 * self.interval)
        while True:
            time.sleep(self.interval)
            standing.look(time.monotonic(), {"watch": self._looked})
            if standing.over(self.stall_after):
                die("stuck", **Trouble("loop_dead", standing.seconds["watch"], loops=["watch"]).told())
