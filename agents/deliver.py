"""capistream.to.<destination> -> the platform: the one place that sends, the same way for every sink.

One `Deliver` per destination, each with its own topic and agent, so that a slow or dead platform delays only itself. An event
leaves this stage with exactly one final outcome under each name that the platform has for it (delivered, accepted, rejected,
skipped, held back, erased, shadowed), which is written to the table `outcomes.<destination>` before its offset may be committed;
what has a final outcome is never sent again. What is sent next, when, and what an answer means is decided in app/delivery.py, what
is too wrong to be sent in app/guard.py, of whom nothing may be sent any more in app/erasure.py.

    batch     records of the topic become jobs, a few each turn; the offset of a batch waits for its jobs, the next batch does not
    run       takes requests out of the queue for as long as the worker runs
    _request  one request: send, understand, record
    _record   writes down what came of it, together with what came of other requests meanwhile

Its rows are those of app/outcome_rows.py.
"""

import asyncio
import heapq
import itertools
import math
from collections import Counter, defaultdict, deque
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson
import structlog

from app import alerts, dead_letter, dedup, erasure, intake, keys, metrics, outcome_rows, receipts, shape, topics, trace
from app.checks import Checks
from app.control import Order
from app.delivery import TAKEN, Clock, Dates, Job, Parked, Policy, Queue, Queued, Settled, distinct
from app.destination import Destination
from app.errors import CapistreamError
from app.events import Event, Json, Origin
from app.guard import Guard
from app.lossless import Batch, Lost, Rows, die
from app.outcome_rows import ASKED, HOURS, NAME, NUDGE, PARKED, UNCLEAR
from app.prepare import NO_NAME, Final, Prepared, prepare
from app.recent import Recent
from app.sending import Sender
from app.together import Together
from app.trace import Exchange
from sinks._base import Delivered, Halt, Payload, Request, Retry, Sink

if TYPE_CHECKING:
    from app.main import Pipeline

log = structlog.get_logger()

LONGEST_ASK = 86_400.0  # seconds between two questions what became of it
ASK_FOR = 7 * 86_400.0  # seconds after which nobody asks any more
ASK_AT_ONCE = 4  # questions under way
SWEEP = 500  # outcomes looked at, once a second and partition at most, whether they may be forgotten; see outcome_rows.Sweep
LOOK = 5.0  # seconds between two looks how it does
LATE = 0.5  # part of its maximum age that an event may have waited away
LATE_FOR = 60.0  # seconds for which that is so until somebody is told: a backfill may bring such events
REFUSED_FOR = 60.0  # seconds for which its topic takes nothing until somebody is told
DOUBTS = 200  # parked events that are looked at in one turn, whether they are of somebody who is forgotten
AT_ONCE = 50  # events that are made ready in one turn of the loop
#: Parked events that are in the queue at the same time: after a night without a worker all of them are due.
TAKEN_UP = 2_000
TURN = 1.0  # seconds after which the loop turns, whatever happens
#: Seconds between two fetches, see app/lossless/fetcher.py: all partitions fill the same requests.
BEAT = 0.025
MAYBE_THERE = "an earlier attempt may have reached the platform"
MOST_TRACES = 5  # that the outcome of an event names

Notes = Sequence[tuple[Job, bytes]]  # rows in the topic of traces
Tables = defaultdict[int, dict[bytes, bytes | None]]  # partition -> rows by key; None deletes


class Results(NamedTuple):
    """What there is to write down. `beside`: rows (key -> partition, value) that are written together with the outcomes."""

    finals: Sequence[tuple[Job, Final]]
    beside: Mapping[bytes, tuple[int, bytes | None]]
    notes: Notes


class Entry(NamedTuple):
    """A record of the destination's topic."""

    key: bytes
    offset: int
    event: Event
    replay: int = 0
    at: int = 0  # when it was written, in Unix milliseconds by the broker's clock


@dataclass(frozen=True, slots=True)
class Resting:
    """A parked event, as far as it is kept in memory."""

    partition: int
    time: float  # Unix time of the event
    age_limit: float  # seconds
    revision: int  # of the event in its row


@dataclass
class Refused:
    """The destination's topic takes nothing."""

    since: float  # steady time
    told: bool = False


class Overtaken(Lost):
    """Somebody was forgotten, or a late copy denied something, while a request of theirs was being made."""


class Open:
    """A batch whose jobs are under way."""

    def __init__(self) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.left = 1  # jobs, and itself until all of them are known

    def ends(self) -> bool:
        """One less is under way. Was it the last?"""
        self.left -= 1
        return not self.left


class Deliver:
    def __init__(self, pipeline: "Pipeline", name: str, settings: Destination, sink: Sink, outcomes: Rows) -> None:
        self.pipeline, self.name, self.settings, self.sink, self.outcomes = pipeline, name, settings, sink, outcomes
        self.topic = pipeline.names.to(name)
        self.clock = Clock()
        self.queue = Queue(
            Policy(sink.limits, settings.concurrency, self._rate(1.0), settings.linger, settings.on_ambiguous),
            self.clock,
        )
        self.sender = Sender(name, settings, sink, pipeline.tokens, pipeline.http, self.clock)
        self.checks = Checks(name, sink.check_share, self.clock)
        self.guard = Guard(settings.guard)
        self.recent = Recent()
        self.turned = 0  # turns of the loop
        self._looked = -math.inf  # steady time
        self._generation = -1
        self._changed = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._task_name = f"deliver {name}"
        self._jobs: dict[bytes, Job] = {}  # by key of the outcome row: those in the queue or in flight
        self._behind: dict[bytes, list[Job]] = {}  # later ones of the same key wait for what becomes of the first
        self._open: dict[Job, Open] = {}
        self._waiting: Counter[int] = Counter()  # partition -> jobs that its offsets wait for
        self._parked: dict[bytes, Resting] = {}  # by key of the outcome row
        self._unclear: dict[bytes, float] = {}  # key of the outcome row -> Unix time of the first attempt
        self._asked: dict[bytes, int] = {}  # key of the row -> partition
        self._asking = 0  # questions under way
        self._doubted: list[bytes] = []  # keys of parked events: is one of somebody who is forgotten by now?
        self._due, self._due_questions = Dates(), Dates()  # of parked events; of questions
        self._taken_up: set[bytes] = set()  # keys of parked events that are in the queue or in flight
        self._sweeps: dict[int, outcome_rows.Sweep] = {}  # by partition
        self._last_told: tuple[str, str] = ("ok", "")
        self._late_since = math.inf  # steady time since when an event is near its end; -inf: told
        self._refused: Refused | None = None  # while its topic takes nothing
        # a platform that takes one event a request would else cost as many writes as it has events
        self._results = Together(self._write_results)

    # -- for pages and health

    @property
    def halted(self) -> str:
        """Why it is, while it is; a pause is one, too."""
        return self.queue.paused or self.queue.halted

    def waits(self, key: bytes) -> Json | None:
        """What is under way under this key of an outcome row; times are Unix ones."""
        if (job := self._jobs.get(key)) is None:
            return None
        due = self.queue.due(job)
        said: Json = {"attempts": job.attempts, "traces": list(job.traces), "under_way": due is None}
        return said | ({} if due is None else {"next": due})

    def waiting(self, most: int) -> tuple[int, list[Json]]:
        """(how many events wait here or are set aside, those of them that happened first); `time` is in Unix milliseconds."""
        resting = [(int(one.time * 1000), key) for key, one in self._parked.items() if key not in self._jobs]
        queued = [(job.event["time"], job.key) for job in self.queue]
        aside = {key for _, key in resting}
        first = heapq.nsmallest(most, itertools.chain(queued, resting))
        return len(queued) + len(resting), [{"key": key, "time": at, "set_aside": key in aside} for at, key in first]

    def under_way(self, most: int) -> tuple[int, list[Json]]:
        """The same of events that are in requests now."""
        queued = {job.key for job in self.queue}
        jobs = [(job.event["time"], job.key) for job in self._jobs.values() if job.key not in queued]
        return len(jobs), [{"key": key, "time": at, "set_aside": False} for at, key in heapq.nsmallest(most, jobs)]

    def held(self, partition: int) -> bool:
        """Does it stand still on purpose, by a halt or between attempts? Then that is nothing to restart for."""
        return bool(self._waiting[partition]) and self.queue.rests

    def steps(self, partition: int) -> int:
        """Changes while a slow platform works off a batch whose offset does not move yet."""
        return self.sender.answers if self._waiting[partition] else 0

    @property
    def parked(self) -> int:
        return len(self._parked)

    @property
    def oldest_parked(self) -> float:
        """Seconds since the oldest parked event happened; 0: there is none."""
        return max((self.clock.unix() - one.time for one in self._parked.values()), default=0.0)

    @property
    def without_topic(self) -> bool:
        """Does its topic take nothing, so that its events go by the table?"""
        return self._refused is not None

    # -- partitions come and go

    def recovered(self, generation: int) -> None:
        """After recovery, before any batch of this generation: nothing is under way, and parked events are found again."""
        self.queue.forget()
        self._jobs, self._behind, self._open = {}, {}, {}
        self._waiting.clear()
        self._parked, self._unclear, self._asked, self._doubted = {}, {}, {}, []
        self._due, self._due_questions = Dates(), Dates()
        self._taken_up.clear()
        self._sweeps = {}
        # not those of its own topic: that may be gone
        sources, events = self.pipeline.app.consumer.sources(), self.pipeline.names.events
        mine = [tp.partition for tp in sources if tp.topic == events]
        for p in mine:
            for key, value in self.outcomes.items(p, PARKED):
                said = orjson.loads(value)
                self._remember(p, key.removeprefix(PARKED), said["event"], said["until"])
            for key, value in self.outcomes.items(p, UNCLEAR):
                self._unclear[key.removeprefix(UNCLEAR)] = outcome_rows.unclear_since(value)
            for key, value in self.outcomes.items(p, ASKED):
                self._ask_at(p, key, orjson.loads(value)["until"])
        if self.guard.compares:
            self.guard.recall({p: [(k.removeprefix(HOURS), v) for k, v in self.outcomes.items(p, HOURS)] for p in mine})
        self.queue.pace(self._rate(len(mine) / self.pipeline.partitions))
        metrics.MAX_AGE.labels(self.name).set(self.sink.limits.max_age)
        metrics.HALTED.labels(self.name).set(bool(self.halted))
        if sunset := self.sink.limits.sunset:
            metrics.SUNSET.labels(self.name).set(datetime.combine(sunset, datetime.min.time(), UTC).timestamp())
        self._generation = generation
        if self.pipeline.people.heard.is_set():
            self._doubted = list(self._parked)
        self._changed.set()

    async def quiesce(self) -> None:
        """Wait for requests that are under way, and for their records. Nothing new begins while partitions are given up."""
        while self._tasks:
            await asyncio.wait(self._tasks)
        await asyncio.sleep(0)  # what waited for them is finished in the loop's next turn

    def _rate(self, share: float) -> float | None:
        """Requests a second of this worker."""
        rate = self.settings.rate or self.sink.limits.rate
        return rate * share if rate and share else None

    def obey(self, order: Order) -> None:
        """Somebody, or a guard, wants it to pause or to go on."""
        if order.paused:
            self.queue.pause(order.reason or "paused")
        else:
            if order.guard:
                self.guard.let(order.guard, self._looked_at(order))
            self.queue.resume(accept=order.accept)
            self._judge(self.queue)  # what came in meanwhile, too
        self._told()
        self._changed.set()

    def _looked_at(self, order: Order) -> int:
        """Up to when what came in is let through. All that waits here when the order comes, whatever the clocks say."""
        if not self.pipeline.control.heard.is_set():
            return order.at  # an old order: what came in after it nobody has looked at
        return max([self._now(), *(job.arrived for job in self.queue)])

    # -- what comes in

    async def batch(self, batch: Batch) -> asyncio.Future[None] | None:
        """Returns what the offsets of this batch wait for, if there is anything."""
        p, generation = batch.tp.partition, batch.generation
        await self.pipeline.app.consumer.own(generation)
        newest: dict[bytes, Entry] = {}
        strangers = intake.new_rows()
        for record in batch.records:
            if record.key == NUDGE and record.value is None:
                continue
            entry = _entry(record.key, record.value, record.offset, record.timestamp)
            if entry is None:
                origin = Origin(topic=self.topic, partition=p, offset=record.offset)
                letter = dead_letter.DeadLetter("deliver", "not_an_event", origin, destination=self.name)
                intake.refuse(strangers, letter, self.pipeline.names, self.pipeline.partitions)
            elif entry.key not in newest or _order(entry) > _order(newest[entry.key]):
                newest[entry.key] = entry
        await self.pipeline.write(strangers, generation)
        entries, opened, finals = list(newest.values()), Open(), list[tuple[Job, Final]]()
        for first in range(0, len(entries), AT_ONCE):
            if first:
                await asyncio.sleep(0)  # what is ready goes out, and other destinations have their turn
            finals += await self._take_in(p, entries[first : first + AT_ONCE], opened, generation)
        # What is to be sent did not wait for these; one with the same key may have been settled meanwhile.
        rows = self.outcomes.get(p, [job.key for job, _ in finals])
        finals = [one for one, row in zip(finals, rows, strict=True) if not outcome_rows.settles(row, one[0])]
        await self._record(finals, generation)
        await self._forget(p, generation)
        return None if opened.ends() else opened.done

    async def _take_in(
        self, p: int, entries: Sequence[Entry], opened: Open, generation: int
    ) -> list[tuple[Job, Final]]:
        """What is to be sent is under way; returns what has its outcome before that. Raises Lost."""
        if generation != self._generation:
            raise Lost("other partitions by now")
        # Nothing awaits from the look at the outcomes to the judgement, and nothing is sent before it.
        jobs, finals = self._jobs_of(p, entries)
        new = [job for job in jobs if job.key not in self._parked]
        self._open.update(dict.fromkeys(new, opened))
        opened.left += len(new)
        self._waiting[p] += len(new)
        self._enter(new)
        self._judge(jobs)
        self._changed.set()
        # the parked one goes out with what this one says
        await self._replace([job for job in jobs if job.revision and job.key in self._parked], generation)
        return finals

    async def take_over(self, p: int, rows: Iterable[intake.Row], reason: str, generation: int) -> None:
        """Events that their topic did not take are parked, and so go out without it. Raises Lost."""
        entries = [entry for key, value, at in rows if (entry := _entry(key, value, -1, at))]
        jobs, finals = self._jobs_of(p, entries)
        await self._record(finals, generation)
        self._judge(jobs)
        known = [job for job in jobs if job.key in self._parked]
        await self._replace([job for job in known if job.revision], generation)
        await self._park([(job, Parked(self.clock.unix(), reason)) for job in jobs if job not in known], generation)
        metrics.BYPASSED.labels(self.name).inc(len(entries))
        self._changed.set()

    def topic_refuses(self, reason: str) -> None:
        """Its own topic takes no events; an empty reason: it does. Somebody is told when that lasts, as brokers restart."""
        refused, now = self._refused, self.clock.steady()
        if not reason:
            self._refused = None
            if refused and refused.told:
                log.warning("destination.topic_again", destination=self.name)
                self.pipeline.aside(alerts.tell(self.pipeline, self.name, "with its topic again", ""))
        elif refused is None:
            self._refused = Refused(now)
            log.warning("destination.topic_refuses", destination=self.name, reason=reason)
        elif not refused.told and now - refused.since > REFUSED_FOR:
            refused.told = True
            log.error("destination.without_topic", destination=self.name, reason=reason)
            self.pipeline.aside(alerts.tell(self.pipeline, self.name, "without its topic", reason))

    def _jobs_of(self, p: int, entries: Sequence[Entry]) -> tuple[list[Job], list[tuple[Job, Final]]]:
        """Under each name, what is to be sent, and what has its final outcome before that. What is known is left out."""
        found: list[tuple[Job, Payload | Final]] = []
        wholes: list[bytes] = []  # keys of what became of each of these events as a whole
        for entry, denied in zip(entries, self._denials(p, [entry.key for entry in entries]), strict=True):
            basis, prepared = self._prepare(entry.event, denied)
            for one in prepared:
                found.append((self._job(p, entry, basis, one), one.found))
                wholes.append(entry.key + NAME)
        rows = self.outcomes.get(p, [job.key for job, _ in found] + wholes)
        jobs: list[Job] = []
        finals: list[tuple[Job, Final]] = []
        for (job, what), of_name, of_event in zip(found, rows, rows[len(found) :], strict=False):
            if outcome_rows.settles(of_name, job) or outcome_rows.settles(of_event, job):
                continue
            if isinstance(what, Final):
                finals.append((job, what))
            else:
                jobs.append(job)
        return jobs, finals

    def _denials(self, p: int, keys_: Sequence[bytes]) -> list[Json | None]:
        """What late copies of these conversions deny. Partition n of all tables is ours, or none is."""
        return [dedup.denied_later(row) for row in self.pipeline.seen.get(p, keys_)]

    @property
    def _news(self) -> int:
        """A number that grows whenever something may not be sent any more."""
        return self.pipeline.people.known.changes + self.pipeline.dedup.denials

    def _prepare(self, event: Event, denied: Json | None) -> tuple[str, Sequence[Prepared]]:
        """Judge the event again, and put it in the platform's words; or say why not."""
        if what := self.pipeline.people.known.of(event):
            # under the platform's names, as what was delivered before stays so
            names = self.settings.platform_names(self.sink.names, event["event_name"]) or [""]
            return "", [Prepared(name, _suppressed(what)) for name in names]
        return prepare(self.name, event, self.settings, self.sink, self.clock.unix(), denied)

    def _job(self, p: int, entry: Entry, basis: str, one: Prepared) -> Job:
        payload = one.found if isinstance(one.found, Payload) else Payload(entry.event["event_id"], {})
        key = entry.key + NAME + one.name.encode()
        job = Job(key, p, entry.event, one.name, basis, payload, one.size, entry.offset, entry.replay, entry.at)
        job.unclear_since = self._unclear.get(key)
        job.looked_up = self._news  # by `_prepare`
        return job

    def _enter(self, jobs: Iterable[Job]) -> None:
        """Into the queue, or behind the one with the same key that is there."""
        first: list[Job] = []
        for job in jobs:
            if job.key in self._jobs:
                self._behind.setdefault(job.key, []).append(job)
            else:
                self._begin(job)
                first.append(job)
        self.queue.add(*first)

    def _begin(self, job: Job) -> None:
        self._jobs[job.key] = job
        # a conversion counts once, under the first of its names, and not again when it is restated
        if self.guard.compares and not job.revision:
            first = self.settings.platform_names(self.sink.names, job.event["event_name"])[:1]
            if first == [job.name]:
                self.guard.enter(job.key, job.partition, job.event)

    def _end(self, job: Job) -> None:
        self._jobs.pop(job.key, None)
        self._taken_up.discard(job.key)
        self.guard.leave(job.key)

    def _judge(self, jobs: Iterable[Job]) -> None:
        """Platforms cannot unsend: what is too wrong to be true stops the destination until somebody looked.

        While it is paused nothing is judged, nor before all orders are known: that is done when it goes on.
        """
        if self.guard.off or self.queue.paused or not self.pipeline.control.heard.is_set():
            return
        now = self._now()
        for job in jobs:
            # a parked event was judged when it came
            if not job.parked and (hold := self.guard.judge(job.event, now, job.arrived)):
                event_id = job.event["event_id"]
                log.error("destination.guarded", destination=self.name, reason=hold.reason, event_id=event_id)
                self.queue.pause(hold.reason)
                self._told()
                order = Order(self.name, paused=True, reason=hold.reason, by="guard", at=now, guard=hold.guard)
                self._task(self._announce(order))
                return

    async def _announce(self, order: Order) -> None:
        await self.pipeline.write({(self.pipeline.names.control, 0): [order.row()]}, self._generation)

    # -- what goes out

    async def run(self) -> None:
        """For as long as the worker runs."""
        app = self.pipeline.app
        await self.pipeline.people.heard.wait()
        await self.pipeline.control.heard.wait()
        self._judge(self.queue)
        while not app.should_stop:
            self._changed.clear()
            self.turned += 1
            self._look()
            if self._ours():
                self._doubt()
                self._take_up()
                self._send_out()
            wait = self.queue.wait() if self._ours() else TURN / 10
            due = self._until_due() if self._ours() else TURN
            await self._change(max(0.001, min(TURN, due, TURN if wait is None else wait)))

    def _send_out(self) -> None:
        """All that may go now."""
        jobs, ended = self.queue.take()
        while jobs or ended:
            if ended:
                self._task(self._settle(ended, self._generation))
            if jobs:
                self._task(self._request(jobs, self._generation))
            jobs, ended = self.queue.take()

    async def _change(self, seconds: float) -> None:
        """Wait for one, no longer than that."""
        timer = asyncio.get_running_loop().call_later(seconds, self._changed.set)
        try:
            await self._changed.wait()
        finally:
            timer.cancel()

    def _ours(self) -> bool:
        """May anything begin?"""
        consumer, generation = self.pipeline.app.consumer, self._generation
        ready = consumer.ready == generation == self.pipeline.app.consumer_generation_id
        return bool(ready) and not consumer.yielding

    def _task(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(self._safely(work), name=self._task_name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _safely(self, work: Coroutine[Any, Any, None]) -> None:
        """What is lost is left open; an exception that nobody understood must not commit."""
        try:
            await work
        except Lost as exc:
            log.info("delivery.lost", destination=self.name, why=str(exc))
        except asyncio.CancelledError:
            raise
        except BaseException as exc:
            log.exception("delivery.failed", destination=self.name)
            die("delivery failed", destination=self.name, error=type(exc).__name__)
        finally:
            self._changed.set()

    async def _request(self, jobs: list[Job], generation: int) -> None:
        try:
            if self.settings.mode == "shadow":
                if jobs := await self._not_forgotten(jobs, generation):
                    await self._rehearse(jobs, generation)
                return
            while True:
                jobs = await self._not_forgotten(jobs, generation)
                if not jobs:
                    return
                payloads = [job.payload for job in jobs]
                try:
                    exchange = await self.sender.attempt(payloads, partial(self._may_go, generation, jobs))
                    break
                except Overtaken:
                    continue
            if generation != self._generation:
                raise Lost("other partitions by now")
            outcomes, notes = exchange.outcomes, self._notes(jobs, exchange)
            self.recent.note(outcomes, self.clock.unix())
            settled = self.queue.settle(jobs, outcomes, usage=exchange.usage)
            self._told()
            different = distinct(outcomes)
            if any(isinstance(one, TAKEN) for one in different) and self.checks.begin():
                self.pipeline.aside(self._check(payloads))
            trouble = next((one.reason for one in different if isinstance(one, Retry | Halt)), "")
            if trouble:
                log.info("delivery.waits", destination=self.name, events=len(jobs), reason=trouble)
                await self._remember_unclear(jobs, generation)
            await self._settle(settled, generation, notes)
        finally:
            if generation == self._generation:
                self.queue.release()

    async def _not_forgotten(self, jobs: list[Job], generation: int) -> list[Job]:
        """Those that may still be sent as they are; the others have their outcome, or are made anew."""
        gone = dict(self._gone(jobs))
        if not gone:
            return jobs
        await self._settle([*gone.items()], generation)
        return [job for job in jobs if job not in gone]

    def _gone(self, jobs: Iterable[Job]) -> list[Settled]:
        """Of these, the events of people who are forgotten by now, and those of which late copies deny something."""
        news, found = self._news, list[Settled]()
        for job in jobs:
            if job.looked_up == news:
                continue
            if verdict := self._verdict(job):
                found.append((job, verdict))
            else:
                job.looked_up = news
        return found

    def _verdict(self, job: Job) -> Final | Parked | None:
        """Why it may not go as it is."""
        unclear = job.unclear_since is not None
        if what := self.pipeline.people.known.of(job.event):
            return _suppressed(what, unclear=unclear)
        (denied,) = self._denials(job.partition, [job.key.split(NAME)[0]])
        if denied is None:
            return None
        basis, prepared = self._prepare(job.event, denied)
        found = next((one.found for one in prepared if one.name in ("", job.name)), job.payload)
        if isinstance(found, Final):
            job.basis = basis
            return replace(found, detail=found.detail or (MAYBE_THERE if unclear else ""))
        # in part, or with another word on consent: in the queue it would stand in the wrong group
        return None if found == job.payload else Parked(self.clock.unix(), "a late copy denies some of it")

    def forget(self) -> None:
        """Somebody is forgotten: what waits here of the person has its outcome at once, also while nothing is sent.

        Without the partitions there is nothing to do: whoever has them reads the same entries.
        """
        if self._ours():
            self._take_out(self.queue)
            self._doubted = list(self._parked)

    def denied(self, keys_: Iterable[bytes]) -> None:
        """Late copies of these conversions deny something: the same."""
        if not self._ours():
            return
        names = self.settings.platform_names
        mine = [key + NAME + name.encode() for key in keys_ for name in names(self.sink.names, keys.parts(key)[2])]
        self._take_out([self._jobs[key] for key in mine if key in self._jobs])
        for key in mine:
            self._unpark(key)

    def _take_out(self, jobs: Iterable[Job]) -> None:
        """Those of them out of the queue that may not be sent as they are."""
        if gone := dict(self._gone(jobs)):
            removed = self.queue.remove(lambda job: job in gone)
            self._task(self._settle([(job, gone[job]) for job in removed], self._generation))
        self._changed.set()

    def _doubt(self) -> None:
        """Parked events of people who are forgotten are due now. A few at a time: their events stand in the table alone."""
        some = self._doubted[:DOUBTS]
        del self._doubted[:DOUBTS]
        for key in some:
            if key in self._parked and key not in self._jobs:
                (row,) = self.outcomes.get(self._parked[key].partition, [PARKED + key])
                if row is not None and self.pipeline.people.known.of(orjson.loads(row)["event"]):
                    self._unpark(key)

    async def _may_go(self, generation: int, jobs: Iterable[Job] = ()) -> None:
        """Raises Lost when nothing may be sent, Overtaken when some of these may not."""
        consumer = self.pipeline.app.consumer
        await consumer.own(generation)
        if consumer.leaving:
            raise Lost("leaving the rest to the next owner")
        if self._gone(jobs):
            raise Overtaken("somebody is forgotten, or has denied")

    async def _rehearse(self, jobs: Sequence[Job], generation: int) -> None:
        """In shadow: all but sending."""
        made = [self.sender.rehearse([job.payload]) for job in jobs]
        outcomes = [one if isinstance(one, Halt) else Delivered() for one in made]
        settled = self.queue.settle(jobs, outcomes)
        self._told()
        requests = {job: one for job, one in zip(jobs, made, strict=True) if isinstance(one, Request)}
        now, more = self.clock.unix(), {"outcome": "shadowed"}
        notes = [(job, trace.row(job, self.name, requests[job], now, more)) for job, _ in settled if job in requests]
        await self._settle([(job, Final("shadowed")) for job, _ in settled], generation, notes)

    def _notes(self, jobs: Sequence[Job], exchange: Exchange) -> Notes:
        """Rows of the topic of traces for these, as far as they are to be kept."""
        settings = self.pipeline.settings.trace
        kept = [pair for pair in zip(jobs, exchange.outcomes, strict=True) if trace.wanted(settings, *pair)]
        if not kept:
            return []
        answer, at = self.sender.told(exchange), exchange.at or self.clock.unix()
        alone, lists = self.sender.rehearse, self.sink.lists_events
        return trace.rows(self.name, kept, exchange, answer, at, alone, lists=lists)

    async def _check(self, payloads: Sequence[Payload]) -> None:
        """Put what was taken to the platform's validation as well, beside everything else."""
        try:
            self.checks.found(await self.sender.check(payloads))
        except CapistreamError as exc:
            log.warning("delivery.not_checked", destination=self.name, error=str(exc))
        except Exception:  # a mistake of the sink
            log.exception("sink.failed", destination=self.name)
        finally:
            self.checks.end()

    def _look(self) -> None:
        """How it does, for metrics; and a word to somebody when events have waited for half of the time that they may."""
        now = self.clock.steady()
        if now - self._looked < LOOK:
            return
        self._looked = now
        standing, parked = self.queue.standing(), self._parked.values()
        ages = [(self.clock.unix() - one.time, one.age_limit) for one in parked]
        metrics.DESTINATION.labels(self.name).state(standing.state)
        metrics.WAITING.labels(self.name).set(standing.waiting)
        metrics.PARKED.labels(self.name).set(len(parked))
        if len(self._taken_up) >= TAKEN_UP and self._ours():
            self._end_old()
        metrics.OLDEST.labels(self.name).set(max([standing.age, *(age for age, _ in ages)]))
        spent = max([standing.spent, *(age / max(1, limit) for age, limit in ages)])
        if spent < LATE:
            self._late_since = math.inf
        elif self._late_since == math.inf:
            self._late_since = now
        elif LATE_FOR < now - self._late_since < math.inf:
            self._late_since = -math.inf  # told once
            reason = f"an event has waited for {spent:.0%} of the time in which the platform takes it"
            log.error("destination.late", destination=self.name, reason=reason)
            self.pipeline.aside(alerts.tell(self.pipeline, self.name, "late", reason))

    def _told(self) -> None:
        """Log, metrics and alerts when the destination halts or goes on."""
        standing = self.queue.standing_now()
        if standing == self._last_told:
            return
        stopped, had_stopped = (one in ("halted", "paused") for one in (standing[0], self._last_told[0]))
        (state, reason), self._last_told = standing, standing
        (log.error if stopped else log.warning)(f"destination.{state}", destination=self.name, reason=reason)
        metrics.HALTED.labels(self.name).set(stopped)
        if stopped or had_stopped:
            self.pipeline.aside(alerts.tell(self.pipeline, self.name, state, reason))

    # -- what became of it

    async def _settle(self, settled: Sequence[Settled], generation: int, notes: Notes = ()) -> None:
        """Record results, then let the offsets go that waited for them. `notes`: what is to be looked at of how it came to them."""
        finals: list[tuple[Job, Final]] = []
        queued: list[tuple[Job, Queued]] = []
        parks: list[tuple[Job, Parked]] = []
        for job, one in settled:
            if isinstance(one, Final):
                finals.append((job, one))
            elif isinstance(one, Queued):
                finals.append((job, one.final))
                queued.append((job, one))
            else:
                parks.append((job, one))
        until = self.clock.unix() + self.sink.limits.follow_up_after
        asked = self._questions(queued, until)
        await self._record(finals, generation, asked, notes)
        for key, (p, _) in asked.items():
            self._ask_at(p, key, until)
        await self._park(parks, generation)
        behind: list[Job] = []
        for job, _ in settled:
            self._end(job)
            if job.key in self._behind:
                behind += self._behind.pop(job.key)
            self._resolve(job)
        for job in behind:
            (row,) = self.outcomes.get(job.partition, [job.key])
            if job.key in self._parked:
                await self._replace([job] if job.revision else [], generation)
                self._resolve(job)
            elif outcome_rows.settles(row, job):
                self._resolve(job)
            else:
                self._enter([job])

    def _resolve(self, job: Job) -> None:
        opened = self._open.pop(job, None)
        if opened is None:
            return
        self._waiting[job.partition] -= 1
        if opened.ends():
            opened.done.set_result(None)

    async def _remember_unclear(self, jobs: Sequence[Job], generation: int) -> None:
        """For whoever takes over: how long the platform would recognise a repetition of these counts from their first attempt."""
        new = [job for job in jobs if job.key not in self._unclear and self.queue.forgets(job)]
        tables: Tables = defaultdict(dict)
        for job in new:
            tables[job.partition][UNCLEAR + job.key] = outcome_rows.unclear(job)
        await self._write(tables, generation)
        self._unclear.update((job.key, job.unclear_since or 0.0) for job in new)

    async def _record(
        self,
        finals: Sequence[tuple[Job, Final]],
        generation: int,
        beside: Mapping[bytes, tuple[int, bytes | None]] | None = None,
        notes: Notes = (),
    ) -> None:
        """Returns when all of it is written. Raises Lost."""
        if finals or beside or notes:
            await self._results.add(Results(finals, beside or {}, notes), generation)

    async def _write_results(self, results: Sequence[Results], generation: int) -> Sequence[None]:
        """Dead letters and receipts first, then the outcome row: a crash in between repeats, never swallows."""
        pipeline, names, now = self.pipeline, self.pipeline.names, self._now()
        config, receipts_to, traces_to = pipeline.settings.hash, names.receipts, names.trace
        finals = [final for one in results for final in one.finals]
        notes = [note for one in results for note in one.notes]
        rows = intake.new_rows()
        tables: Tables = defaultdict(dict)
        for one in results:
            for key, (p, value) in one.beside.items():
                tables[p][key] = value
        for job, final in finals:
            p = job.partition
            rows[receipts_to, p].append(
                receipts.row(
                    job.event,
                    self.name,
                    final.outcome,
                    now=now,
                    config=config,
                    name=job.name,
                    reason=final.reason,
                    basis=job.basis,
                    detail=final.detail,
                    attempts=job.attempts,
                    key=job.key.split(NAME)[0],
                )
            )
            if final.outcome == "rejected":
                letter = self._letter(job, final)
                rows[names.dead, letter.partition(pipeline.partitions)].append(letter.row())
                log.warning(
                    "event.rejected", destination=self.name, reason=final.reason, event_id=job.event["event_id"]
                )
            if job.key in self._unclear:
                tables[p][UNCLEAR + job.key] = None
        for outcome, count in Counter([final.outcome for _, final in finals]).items():
            metrics.series(metrics.OUTCOMES, self.name, outcome).inc(count)
        for job, value in notes:
            rows[traces_to, job.partition].append((job.key.split(NAME)[0], value, now))
        self._note_places(notes, await pipeline.write_results(rows, generation))
        for job, final in finals:
            tables[job.partition][job.key] = outcome_rows.outcome(job, final, now)
        done = [job for job, _ in finals if job.parked and not self._is_overtaken(job)]
        for job in done:
            tables[job.partition][PARKED + job.key] = None
            # Before the write: what comes under its key meanwhile waits behind this job, and goes into no row that is deleted.
            self._parked.pop(job.key, None)
        sent = [job.key for job, final in finals if final.outcome in ("delivered", "accepted")]
        # Nothing awaits from here to the writes, which keep their order: no older sum may follow a newer one.
        for p, hour, value in self.guard.sent(sent, now):
            tables[p][HOURS + hour] = value
        await self._write(tables, generation)
        for job, _ in finals:
            self._unclear.pop(job.key, None)
        return [None] * len(results)

    def _note_places(self, notes: Notes, places: intake.Places) -> None:
        """Where the rows of traces stand by now; nowhere, if their topic did not take them."""
        left = {p: deque(offsets) for (topic, p), offsets in places.items() if topic == self.pipeline.names.trace}
        for job, _ in notes:  # in the order in which their rows were written
            offset = left[job.partition].popleft() if left.get(job.partition) else -1
            if offset >= 0:
                job.traces = [*job.traces, offset][-MOST_TRACES:]

    async def _write(self, tables: Tables, generation: int) -> None:
        """Rows of outcomes, all partitions at once; those of one partition in the order of calls. Raises Lost."""
        # a task for each, a single one, too: begun at once, it would overtake those that were to begin before it
        await asyncio.gather(*(self.outcomes.write(p, table, generation) for p, table in tables.items()))

    def _letter(self, job: Job, final: Final) -> dead_letter.DeadLetter:
        origin = Origin(topic=self.topic, partition=job.partition, offset=job.offset)
        if job.offset < 0:  # it went without the topic
            origin = job.event.get("origin") or Origin(request=job.event["event_id"])
        return dead_letter.DeadLetter(
            "deliver",
            final.reason,
            origin,
            detail=final.detail,
            destination=self.name,
            name=job.name,
            event_id=job.event["event_id"],
            event_name=job.event["event_name"],
            attempts=job.attempts,
        )

    # -- parked events

    async def _park(self, parks: Sequence[tuple[Job, Parked]], generation: int) -> None:
        if not parks:
            return
        tables: Tables = defaultdict(dict)
        for job, parked in parks:
            log.warning("event.parked", destination=self.name, reason=parked.reason, event_id=job.event["event_id"])
            if not self._is_overtaken(job):
                tables[job.partition][PARKED + job.key] = outcome_rows.parked(job, parked.until, self._now())
        await self._write(tables, generation)
        for job, parked in parks:
            if self._is_overtaken(job):
                self._due.add(parked.until, job.key)
            else:
                self._remember(job.partition, job.key, job.event, parked.until)

    def _is_overtaken(self, job: Job) -> bool:
        """Is what is parked under its key newer?"""
        known = self._parked.get(job.key)
        return known is not None and known.revision > job.revision

    async def _replace(self, jobs: Sequence[Job], generation: int) -> None:
        """Parked events for which something newer came: it is what will be sent."""
        tables: Tables = defaultdict(dict)
        for job in jobs:
            (row,) = self.outcomes.get(job.partition, [PARKED + job.key])
            if row is None:
                continue
            said = orjson.loads(row)
            if job.revision > self._parked[job.key].revision:
                tables[job.partition][PARKED + job.key] = orjson.dumps(
                    {**said, "event": job.event, "offset": job.offset}
                )
                # before the write: the older one may be in flight, and its outcome must not delete this row
                self._remember(job.partition, job.key, job.event, said["until"])
        await self._write(tables, generation)

    def _remember(self, p: int, key: bytes, event: Event, until: float) -> None:
        age_limit = self.sink.limits.age_limit(event["source"])
        until = min(until, self.queue.end_of(event))  # whatever the platform asked for, or the clock said then
        self._parked[key] = Resting(p, event["time"] / 1000, age_limit, event.get("revision", 0))
        self._due.add(until, key)

    def _take_up(self) -> None:
        """What is due, a few in each turn: parked events go back into the queue, and platforms are asked what became of queued
        requests.
        """
        now = self.clock.unix()
        for key in self._due.due(now, min(AT_ONCE, TAKEN_UP - len(self._taken_up))):
            self._unpark(key)
        while self._asking < ASK_AT_ONCE and self._due_questions.wait(now) <= 0 and self.queue.may_ask():
            for key in self._due_questions.due(now, 1):
                if (p := self._asked.pop(key, None)) is not None:
                    self._asking += 1
                    self._task(self._ask(p, key, self._generation))

    def _end_old(self) -> None:
        """Parked events that are too old have their outcome, although nothing goes out and there is no room in the queue."""
        now = self.clock.unix()
        old = (key for key, one in self._parked.items() if now - one.time > one.age_limit and key not in self._jobs)
        for key in list(itertools.islice(old, DOUBTS)):
            self._unpark(key)

    def _until_due(self) -> float:
        """Seconds until the next turn that may take something up. It comes sooner when something ends that is under way."""
        now = self.clock.unix()
        event = self._due.wait(now) if len(self._taken_up) < TAKEN_UP else TURN
        question = self._due_questions.wait(now)
        return min(event, question if question > 0 else TURN, TURN / 100 if self._doubted else TURN)

    def _unpark(self, key: bytes) -> None:
        """Judged again, as consent and age may have changed."""
        if key not in self._parked:
            return
        if key in self._jobs:  # an earlier one of the same key
            self._due.add(self.clock.unix() + TURN, key)
            return
        p = self._parked[key].partition
        row, outcome = self.outcomes.get(p, [PARKED + key, key])
        if row is None:
            return
        said = orjson.loads(row)
        event_key, name = key.split(NAME, 1)
        (denied,) = self._denials(p, [event_key])
        basis, prepared = self._prepare(said["event"], denied)
        entry = Entry(event_key, said["offset"], said["event"], said["replay"])
        as_named = Prepared(name.decode(), Final("skipped", NO_NAME))  # unless the settings still have that name
        one = next((one for one in prepared if one.name in ("", as_named.name)), as_named)
        job = self._job(p, entry, basis, one)
        job.key, job.name, job.parked = key, name.decode(), True
        job.attempts, job.failures, job.unclear_since = said["n"], said["f"], said["unclear"]
        job.traces = said.get("x", [])
        if outcome_rows.settles(outcome, job):  # it had been in the topic, too
            del self._parked[key]
            self._task(self.outcomes.write(p, {PARKED + key: None}, self._generation))
            return
        self._begin(job)
        self._taken_up.add(key)
        if isinstance(one.found, Final):
            self._task(self._settle([(job, one.found)], self._generation))
        else:
            self.queue.add(job)

    # -- requests that the platform has queued

    def _questions(self, queued: Sequence[tuple[Job, Queued]], until: float) -> dict[bytes, tuple[int, bytes]]:
        """Rows by key, with their partitions: what to ask later, and of which events."""
        by_request: dict[tuple[int, str], list[Job]] = defaultdict(list)
        for job, one in queued:
            by_request[job.partition, one.reference].append(job)
        return {
            key: (p, row)
            for (p, reference), jobs in by_request.items()
            for key, row in outcome_rows.asked(reference, jobs, until, self._now())
        }

    def _ask_at(self, p: int, key: bytes, until: float) -> None:
        self._asked[key] = p
        self._due_questions.add(until, key)

    async def _ask(self, p: int, key: bytes, generation: int) -> None:
        try:
            (row,) = self.outcomes.get(p, [key])
            if row is not None:
                await self._ask_about(p, key, orjson.loads(row), generation)
        finally:
            self._asking -= 1

    async def _ask_about(self, p: int, key: bytes, said: Json, generation: int) -> None:
        followed = await self.sender.ask(said["ref"], partial(self._may_go, generation))
        if followed is None:
            if self.clock.unix() - said["t"] / 1000 > ASK_FOR:
                log.warning("delivery.never_told", destination=self.name, events=len(said["jobs"]))
                await self.outcomes.write(p, {key: None}, generation)
                return
            said["tries"] += 1
            pause = min(LONGEST_ASK, self.sink.limits.follow_up_after * 2 ** min(said["tries"], 20))
            said["until"] = self.clock.unix() + pause
            await self.outcomes.write(p, {key: orjson.dumps(said)}, generation)
            self._ask_at(p, key, said["until"])
            return
        final = outcome_rows.told_later(followed)
        jobs = outcome_rows.jobs_asked_about(p, said)
        if followed.status != "success":
            log.warning("delivery.failed_later", destination=self.name, events=len(jobs), reasons=dict(followed.failed))
        rows = self.outcomes.get(p, [job.key for job in jobs])
        meant = [job for job, row in zip(jobs, rows, strict=True) if not outcome_rows.is_of_a_later_revision(row, job)]
        await self._record([(job, final) for job in meant], generation, {key: (p, None)})

    # -- forgetting

    async def _forget(self, p: int, generation: int) -> None:
        """Delete outcomes that are as old as their changelog lets them get."""
        now, kept = self._now(), topics.outcomes_kept(self.sink.limits)
        sweep = self._sweeps.setdefault(p, outcome_rows.Sweep())
        if now < sweep.again:
            return
        seen: list[float] = []

        def expired(_key: bytes, row: bytes) -> bool:
            seen.append(outcome_rows.recorded(row))
            return seen[-1] < now - kept

        gone = self.outcomes.sweep(p, SWEEP, expired)
        sweep.looked(seen, now, kept, ended=len(seen) < SWEEP)
        await self.outcomes.write(p, dict.fromkeys(gone), generation)

    def _now(self) -> int:
        return int(self.clock.unix() * 1000)


def _suppressed(what: erasure.What, *, unclear: bool = False) -> Final:
    outcome, reason = erasure.SUPPRESSED[what]
    return Final(outcome, reason, MAYBE_THERE if unclear else "")


def _entry(key: bytes | None, value: bytes | None, offset: int, at: int) -> Entry | None:
    """The event of a record, or None for what somebody else wrote into our topic."""
    if key is None or (found := shape.routed(key, value)) is None:
        return None
    return Entry(key, offset, found.event, found.replay, at)


def _order(entry: Entry) -> tuple[int, int]:
    return entry.event.get("revision", 0), entry.replay
