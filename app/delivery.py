"""What a destination sends next, when, and what an answer means for its queue. Pure: time comes from a clock that tests move.

agents/deliver.py puts jobs in, takes requests out, sends them, and tells what came back. Decided here:

    batches     jobs of one group share a request, within the platform's limits of events and bytes; what has failed before
                goes in smaller ones, so that an event that fails all others ends up alone
    splitting   a request that the platform fails as a whole, for one event that it does not name, is halved
    retries     exponential backoff with full jitter, or as long as the platform says, until the event is too old for it
    ambiguity   after an attempt of which nobody knows the outcome only as long as the platform recognises a repetition
    pace        a window of requests in flight that a throttled answer halves and good answers widen; a rate of requests
    breaker     when nothing passes, one event at a time is tried, a different one each time
    parking     an event that fails again and again, or halts, while others pass leaves the queue: its partition goes on
    halt        credentials or account are wrong: everything stays, one event is tried now and then
    valve       when the platform rejects most of what it gets, that is a halt, too, and no letters
"""

import heapq
import itertools
import math
import random
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from app.events import Event
from app.prepare import Final
from sinks._base import Accepted, Delivered, Halt, Limits, Outcome, Payload, Rejected, Retry

BACKOFF = (0.5, 60.0)  # seconds: first and longest pause between attempts, each drawn at random from 0 up (full jitter)
PARKING = (5.0, 3600.0)  # the same between attempts of a parked event
LONG = 60.0  # seconds that an event may wait in the queue, and so hold up the offsets of its partition
MOST_ASKED = 3600.0  # seconds that a platform can make the whole destination wait at once
PROBE = 15.0  # seconds between looks whether a halted destination works again
BREAK_AFTER = 5  # requests in a row that failed until only one event at a time is tried
PARK_AFTER = 5  # attempts that failed while others passed
VALVE = 20  # events rejected, and more of them than were taken, among the last 2 * VALVE
USED_MUCH = 0.75  # of a rate limit: from here on slower, before the platform refuses
CALM = 10.0  # seconds between two steps to a slower pace for that reason

TAKEN = (Delivered, Accepted)


class Clock:
    """The real one."""

    def steady(self) -> float:
        """Seconds that only go forward."""
        return time.monotonic()

    def unix(self) -> float:
        """Seconds since 1970."""
        return time.time()


class Job(msgspec.Struct, eq=False):
    """One event on its way to the platform, under one name. It equals nothing but itself."""

    key: bytes  # of its outcome row
    partition: int
    event: Event
    name: str  # the platform's, for the event
    basis: str  # in consent
    payload: Payload
    size: int  # bytes in a request
    offset: int = -1  # of its record in the destination's topic
    replay: int = 0  # of a dead letter: when it was asked for, in Unix milliseconds
    arrived: int = 0  # when its record was written, in Unix milliseconds; 0: not known
    parked: bool = False  # it has a row of its own, and no offset waits for it
    attempts: int = 0
    failures: int = 0  # attempts in a row that were not taken, without those that the destination's limits refused
    failing_since: float = 0.0  # steady time of the first of them
    unclear_since: float | None = None  # Unix time of the first attempt of which nobody knows whether it was taken
    added: float = 0.0  # steady time
    told: str = ""  # the failure of it that was traced last
    #: Offsets of its rows in the topic of traces, the newest ones.
    traces: list[int] = msgspec.field(default_factory=list)
    looked_up: int = -1  # how many were forgotten or denied late when it was certain that this may go

    @property
    def revision(self) -> int:
        return self.event.get("revision", 0)


@dataclass(frozen=True)
class Parked:
    """Out of the queue until this Unix time."""

    until: float
    reason: str


@dataclass(frozen=True)
class Queued:
    """The platform has it and tells later what became of it."""

    final: Final
    reference: str


@dataclass(frozen=True)
class Policy:
    """What settings and platform allow. `rate` is of this worker alone."""

    limits: Limits
    concurrency: int = 8
    rate: float | None = None
    linger: float = 0.0
    on_ambiguous: Literal["retry", "give_up"] = "retry"


@dataclass
class Standing:
    """How the destination does, for pages and metrics."""

    state: Literal["ok", "slow", "retrying", "halted", "paused"]
    reason: str = ""
    waiting: int = 0
    in_flight: int = 0
    age: float = 0.0  # seconds since the oldest event that waits happened
    spent: float = 0.0  # the largest part of its maximum age that one has waited away: at 1 it is rejected


@dataclass
class _Bucket:
    """A rate with a second's worth of burst."""

    rate: float
    tokens: float = 1.0
    at: float = field(default=-math.inf)

    def wait(self, now: float) -> float:
        """Seconds until one may go."""
        most = max(1.0, self.rate)
        self.tokens = min(most, self.tokens + (now - self.at) * self.rate) if self.at > -math.inf else most
        self.at = now
        return 0.0 if self.tokens >= 1 else (1 - self.tokens) / self.rate


class Dates:
    """Keys of what is to be taken up again, each at its Unix time."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, bytes]] = []

    def add(self, at: float, key: bytes) -> None:
        heapq.heappush(self._heap, (at, key))

    def due(self, now: float, most: int) -> list[bytes]:
        """Take out those whose time has come, the earliest first: so many at most."""
        found: list[bytes] = []
        while len(found) < most and self._heap and self._heap[0][0] <= now:
            found.append(heapq.heappop(self._heap)[1])
        return found

    def wait(self, now: float) -> float:
        """Seconds until the first is due; none or less: it is."""
        return self._heap[0][0] - now if self._heap else math.inf


Settled = tuple[Job, Final | Queued | Parked]


def distinct(outcomes: Iterable[Outcome]) -> Collection[Outcome]:
    """Each of them once: a sink most often gives all events of a request the very same one."""
    return {id(one): one for one in outcomes}.values()


def _result(outcome: Delivered | Accepted) -> Final | Queued:
    if isinstance(outcome, Delivered):
        return Final("delivered", detail=outcome.detail)
    return Queued(Final("accepted", detail=outcome.detail), outcome.reference)


class Queue:
    """The jobs of one destination in one worker."""

    def __init__(self, policy: Policy, clock: Clock | None = None, dice: random.Random | None = None) -> None:
        self.policy = policy
        self._clock = clock or Clock()
        self._dice = dice or random.Random()  # noqa: S311 (no secret hangs on it)
        # by group, in the order of their first jobs
        self._ready: OrderedDict[tuple[str, ...], deque[Job]] = OrderedDict()
        self._later: list[tuple[float, int, Job]] = []  # a heap by steady time
        self._pieces: deque[list[Job]] = deque()  # halves of a request, to be sent as they are
        self._count = itertools.count()
        self._bucket = _Bucket(policy.rate) if policy.rate else None
        self.in_flight = 0  # requests
        self.halted = ""  # why, while it is
        self.paused = ""  # why, while somebody wants it
        self.open = False  # the breaker: nothing passes
        self._failed = 0  # requests in a row
        self._probes = 0  # the same since the breaker is open or the destination halted
        self._probing = False
        self._probe_at = 0.0
        self._not_before = 0.0
        self._window = float(policy.concurrency)
        self._slowed = -math.inf
        self._throttled = 0  # answers in a row
        self._passed = -math.inf  # steady time at which an event was delivered last
        self._rejections: deque[bool] = deque(maxlen=2 * VALVE)  # of the last events that had their verdict
        self._valve = True

    # -- what goes in

    def add(self, *jobs: Job) -> None:
        now, full, ready = self._clock.steady(), self.policy.limits.events, self._ready
        for job in jobs:
            job.added, key = now, job.payload.group
            group = ready.get(key)
            if group is None:
                group = ready[key] = deque()
            group.append(job)
            if len(group) == full:
                ready.move_to_end(key, last=False)  # it lingers no longer

    def pace(self, rate: float | None) -> None:
        """This worker has another share of the partitions, and so of the rate."""
        self._bucket = _Bucket(rate) if rate else None

    def forget(self) -> None:
        """The partitions go to somebody else. Halts and the breaker stay: the platform is what it was."""
        self._ready.clear()
        self._later.clear()
        self._pieces.clear()
        self.in_flight, self._probing = 0, False

    def remove(self, gone: Callable[[Job], bool]) -> list[Job]:
        """Take out those that wait and are nothing to send any more. Paused or halted, too."""
        removed = [job for job in self if gone(job)]
        if removed:
            out = set(removed)
            kept = {group: deque(job for job in jobs if job not in out) for group, jobs in self._ready.items()}
            self._ready = OrderedDict((group, jobs) for group, jobs in kept.items() if jobs)
            self._later = [one for one in self._later if one[2] not in out]
            heapq.heapify(self._later)
            pieces = ([job for job in piece if job not in out] for piece in self._pieces)
            self._pieces = deque(piece for piece in pieces if piece)
        return removed

    def pause(self, why: str) -> None:
        self.paused = why

    def resume(self, *, accept: bool = False) -> None:
        """Somebody wants it to go on. `accept`: rejections are no reason to halt until most events are taken again."""
        self.paused = ""
        if accept:
            self._valve, self.halted = False, ""
        self._rejections.clear()
        self._probe_at = self._not_before = self._clock.steady()

    # -- what comes out

    def take(self) -> tuple[list[Job], list[Settled]]:
        """(the next request, if one may go now; jobs that are given up without another attempt)."""
        now = self._clock.steady()
        while self._later and self._later[0][0] <= now:
            self._again(heapq.heappop(self._later)[2])
        ended: list[Settled] = []
        if self.paused:
            return [], ended
        if self.halted or self.open:
            return self._probe(now, ended), ended
        if self.in_flight >= int(self._window) or now < self._not_before or self._rate_wait(now):
            return [], ended
        jobs = self._request(now, ended)
        if jobs:
            self._starts()
        return jobs, ended

    def wait(self) -> float | None:
        """Seconds until `take` may give something; None: not before something else happens."""
        now = self._clock.steady()
        if self.paused or not (self._ready or self._later or self._pieces):
            return None
        if self.halted or self.open:
            return None if self.in_flight else max(0.0, self._probe_at - now)
        if self.in_flight >= int(self._window):
            return None
        waits = [max(0.0, self._not_before - now), self._rate_wait(now)]
        if not self._pieces:
            # the first most often lingers no longer, and then nobody asks the others
            lingering = (self._lingers(jobs, now) for jobs in itertools.islice(self._ready.values(), 64))
            ready = [0.0] if self._due_group(now) is not None else [*lingering]
            later = [max(0.0, self._later[0][0] - now)] if self._later else []
            waits.append(min(ready + later, default=0.0))
        return max(waits)

    def may_ask(self) -> bool:
        """May a question go now, which takes its part of the rate? Then it counts as gone."""
        if self.paused or self.halted or self.open or self._rate_wait(self._clock.steady()):
            return False
        if self._bucket:
            self._bucket.tokens -= 1
        return True

    def _starts(self) -> None:
        self.in_flight += 1
        if self._bucket:
            self._bucket.tokens -= 1

    def _rate_wait(self, now: float) -> float:
        return self._bucket.wait(now) if self._bucket else 0.0

    def _lingers(self, jobs: deque[Job], now: float) -> float:
        """Seconds that these may still wait for company."""
        if len(jobs) >= self.policy.limits.events or jobs[0].attempts:
            return 0.0
        return max(0.0, jobs[0].added + self.policy.linger - now)

    def _request(self, now: float, ended: list[Settled]) -> list[Job]:
        while self._pieces:
            if jobs := self._usable(self._pieces.popleft(), ended):
                return jobs
        while (group := self._due_group(now)) is not None:
            waiting = self._ready.pop(group)
            chosen = self._fill(waiting, ended)
            if waiting:
                self._ready[group] = waiting  # behind the others
            if chosen:
                return chosen
        return []

    def _due_group(self, now: float) -> tuple[str, ...] | None:
        """The first that lingers no longer; None: all do, or nothing is ready."""
        some = itertools.islice(self._ready.items(), 64)
        return next((group for group, jobs in some if not self._lingers(jobs, now)), None)

    def _fill(self, jobs: deque[Job], ended: list[Settled]) -> list[Job]:
        limits, size = self.policy.limits, jobs[0].payload.overhead
        chosen: list[Job] = []
        most, now = limits.events, self._clock.unix()
        while jobs and len(chosen) < most:
            job = jobs[0]
            if final := self._given_up(job, now):
                ended.append((jobs.popleft(), final))
                continue
            if job.failures > 1:
                most = min(most, max(1, limits.events >> (job.failures - 1)))
            if chosen and (len(chosen) >= most or size + job.size > limits.bytes):
                break
            chosen.append(jobs.popleft())
            size += job.size
        return chosen

    def _usable(self, jobs: Iterable[Job], ended: list[Settled]) -> list[Job]:
        found, now = [], self._clock.unix()
        for job in jobs:
            if final := self._given_up(job, now):
                ended.append((job, final))
            else:
                found.append(job)
        return found

    def _probe(self, now: float, ended: list[Settled]) -> list[Job]:
        """One event, not the one of the last probe while there are others."""
        if self.in_flight or now < self._probe_at:  # what is on its way may be an answer, too
            return []
        while job := self._next():
            if final := self._given_up(job, self._clock.unix()):
                ended.append((job, final))
                continue
            self._probing = True
            self._starts()
            return [job]
        return []

    def _next(self) -> Job | None:
        if self._pieces:
            self._ready.setdefault(self._pieces[0][0].payload.group, deque()).extendleft(self._pieces.popleft())
        for group, jobs in self._ready.items():
            job = jobs.popleft()
            del self._ready[group]
            if jobs:
                self._ready[group] = jobs
            return job
        return heapq.heappop(self._later)[2] if self._later else None

    def _given_up(self, job: Job, now: float) -> Final | None:
        """Why it is not worth another attempt at this Unix time."""
        if job.unclear_since is not None and now - job.unclear_since > self._known_for(job):
            return Final("rejected", "unknown_outcome", "the platform may have it, and would not recognise it any more")
        if now - job.event["time"] / 1000 > self.policy.limits.age_limit(job.event["source"]):
            return Final("rejected", "too_old")
        return None

    def forgets(self, job: Job) -> bool:
        """Has an attempt of which nobody knows the outcome an end to its repetitions?"""
        return job.unclear_since is not None and self._known_for(job) < math.inf

    def end_of(self, event: Event) -> float:
        """The Unix time from which on it is too old for the platform."""
        return event["time"] / 1000 + self.policy.limits.age_limit(event["source"]) + 1

    def _known_for(self, job: Job) -> float:
        """Seconds for which the platform recognises a repetition of this event."""
        window = job.payload.dedup_window
        window = self.policy.limits.dedup_window if window is None else window
        if window == 0:
            return math.inf if self.policy.on_ambiguous == "retry" else 0.0
        return window

    # -- what came back

    def release(self) -> None:
        """A request is over, and what came of it is recorded, or its partitions are gone. Only now may another take its place:
        else more could be repeated after a crash than was in flight.
        """
        self.in_flight -= 1
        self._probing = False

    def settle(self, jobs: Sequence[Job], outcomes: Sequence[Outcome], *, usage: float = 0.0) -> list[Settled]:
        """Take in the outcomes of one request; returns what became of its jobs, of those that leave the queue. `release` follows.

        `usage`: which part of its limits the account has used.
        """
        now, different = self._clock.steady(), distinct(outcomes)
        self._judge(different, now, usage, probe=self._probing)
        if len(jobs) > 1 and any(isinstance(outcome, Rejected) and outcome.whole for outcome in different):
            for job in jobs:
                job.attempts += 1
            middle = len(jobs) // 2
            self._pieces.extendleft([list(jobs[middle:]), list(jobs[:middle])])  # to the bad one first
            return []
        settled: list[Settled] = []
        spared = any(isinstance(outcome, Rejected) for outcome in different)
        for job, outcome in zip(jobs, outcomes, strict=True):
            job.attempts += 1
            if isinstance(outcome, TAKEN):
                self._taken()
                settled.append((job, _result(outcome)))
                continue
            if isinstance(outcome, Retry | Halt) and outcome.unclear and job.unclear_since is None:
                job.unclear_since = self._clock.unix()
            if isinstance(outcome, Rejected):
                self._reject(job, outcome, settled, now)
            elif isinstance(outcome, Halt):
                self._halts(job, outcome, settled, now)
            elif spared and outcome.after == 0:
                self._again(job)  # nothing was wrong with it: another one in its request was bad
            else:
                self._retry(job, outcome, settled, now)
        return settled

    def _judge(self, outcomes: Collection[Outcome], now: float, usage: float, *, probe: bool) -> None:
        """What these outcomes say of the platform as a whole."""
        halts = [one.reason for one in outcomes if isinstance(one, Halt)]
        retries = [one for one in outcomes if isinstance(one, Retry)]
        throttled = any(one.throttled for one in retries)
        asked = max((one.after or 0.0 for one in retries), default=0.0)
        if halts:
            self.halted = halts[0]
            self._probe_at = now + PROBE
        elif len(retries) == len(outcomes) and not throttled:
            self._failed += 1
            if self._failed >= BREAK_AFTER:
                self.open = True
            if probe or self._failed == BREAK_AFTER:
                self._probes += probe
                pause = PROBE if self.halted else self._backoff(self._probes, BACKOFF)
                self._probe_at = now + max(pause, min(asked, MOST_ASKED))
        elif throttled:
            self._throttled += 1
            self._slower(now)
            pause = max(min(asked, MOST_ASKED), self._backoff(self._throttled, BACKOFF))
            self._not_before = max(self._not_before, now + pause)
            self._probe_at = max(self._probe_at, self._not_before)
        else:
            self._failed = self._probes = self._throttled = 0
            self.open = False
            if self.halted and any(not isinstance(one, Rejected) for one in outcomes):
                self.halted = ""
                self._rejections.clear()
            elif self.halted and not self._rejects_most():
                self.halted = ""
            if any(isinstance(one, TAKEN) for one in outcomes):
                self._passed = now
            self._window = min(float(self.policy.concurrency), self._window + 1 / self._window)
        if usage > USED_MUCH and now - self._slowed > CALM:
            self._slower(now)

    def _slower(self, now: float) -> None:
        self._window, self._slowed = max(1.0, self._window / 2), now

    def _rejects_most(self) -> bool:
        rejected = sum(self._rejections)
        return rejected >= VALVE and 2 * rejected > len(self._rejections)

    def _taken(self) -> None:
        self._rejections.append(False)
        if not self._valve and len(self._rejections) >= VALVE:
            self._valve = 2 * sum(self._rejections) <= len(self._rejections)

    def _reject(self, job: Job, outcome: Rejected, settled: list[Settled], now: float) -> None:
        self._rejections.append(True)
        if self._valve and self._rejects_most():
            self.halted = f"most events are rejected: {outcome.reason}"
            self._probe_at = now + PROBE
            self._again(job)
        else:
            settled.append((job, Final("rejected", outcome.reason, outcome.detail)))

    def _retry(self, job: Job, outcome: Retry, settled: list[Settled], now: float) -> None:
        if final := self._given_up(job, self._clock.unix()):
            settled.append((job, final))
            return
        if outcome.throttled:
            self._again(job)
            return
        if self._fails_alone(job, now) or job.parked or (outcome.after or 0.0) > LONG:
            settled.append((job, self._parked(job, outcome.reason, outcome.after or 0.0)))
            return
        due = now + max(self._backoff(job.failures, BACKOFF), outcome.after or 0.0)
        heapq.heappush(self._later, (due, next(self._count), job))

    def _halts(self, job: Job, outcome: Halt, settled: list[Settled], now: float) -> None:
        """It stays; unless it is the only one that the platform answers so, and would stop all others again and again."""
        if self._fails_alone(job, now):
            settled.append((job, self._parked(job, outcome.reason)))
        else:
            self._again(job)

    def _fails_alone(self, job: Job, now: float) -> bool:
        """Count this attempt. Has it failed again and again while others passed?"""
        job.failing_since = job.failing_since if job.failures else now
        job.failures += 1
        return job.failures >= PARK_AFTER and self._passed > job.failing_since

    def _parked(self, job: Job, reason: str, after: float = 0.0) -> Parked:
        pause = max(self._backoff(job.failures - PARK_AFTER, PARKING), PARKING[0], after)
        return Parked(min(self._clock.unix() + pause, self.end_of(job.event)), reason)

    def _again(self, job: Job) -> None:
        self._ready.setdefault(job.payload.group, deque()).append(job)

    def _backoff(self, times: int, bounds: tuple[float, float]) -> float:
        first, longest = bounds
        return self._dice.uniform(0, min(longest, first * 2 ** min(max(times, 0), 30)))

    # -- how it does

    def __len__(self) -> int:
        return sum(map(len, self._ready.values())) + len(self._later) + sum(len(piece) for piece in self._pieces)

    def __iter__(self) -> Iterator[Job]:
        """Those that wait."""
        yield from itertools.chain.from_iterable(self._ready.values())
        yield from (job for _, _, job in self._later)
        yield from itertools.chain.from_iterable(self._pieces)

    def due(self, job: Job) -> float | None:
        """Unix time of its next attempt, at the earliest. None: it is under way."""
        now = self._clock.steady()
        later = next((at for at, _, one in self._later if one is job), None)
        if later is None and all(one is not job for one in self):
            return None
        at = max(now, later or now, self._not_before, self._probe_at if self.halted or self.open else now)
        return self._clock.unix() + at - now

    @property
    def rests(self) -> bool:
        """Does it send nothing now, on purpose?"""
        if self.in_flight:
            return False
        wait = self.wait()
        return wait is None or wait > 0

    def standing(self) -> Standing:
        now, limits = self._clock.unix(), self.policy.limits
        ages = [(now - job.event["time"] / 1000, job.event["source"]) for job in self]
        age = max((age for age, _ in ages), default=0.0)
        spent = max((age / max(1, limits.age_limit(source)) for age, source in ages), default=0.0)
        return Standing(*self.standing_now(), len(ages), self.in_flight, max(0.0, age), max(0.0, spent))

    def standing_now(self) -> tuple[Literal["ok", "slow", "retrying", "halted", "paused"], str]:
        if self.paused:
            return "paused", self.paused
        if self.halted:
            return "halted", self.halted
        if self.open:
            return "retrying", "nothing passes: one event at a time is tried"
        if int(self._window) < self.policy.concurrency or self._clock.steady() < self._not_before:
            return "slow", "the platform limits how fast it takes events"
        return "ok", ""
