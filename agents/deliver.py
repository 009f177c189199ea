"""capistream.to.<destination> -> the platform: the one place that sends, the same way for every sink.

One `Deliver` per destination, each with its own topic and agent, so that a slow or dead platform delays only itself. An event
leaves this stage with exactly one final outcome (delivered, rejected, skipped, held back), which is written to the table
`outcomes.<destination>` before the offset may be committed; what has a final outcome is never sent again.
"""

import asyncio
import math
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import aiohttp
import orjson
import structlog

from app import dead_letter, intake, keys, metrics, receipts, shape, topics
from app.errors import SettingsError
from app.events import Event, Origin
from app.lossless import Batch, Lost, Rows
from app.prepare import Final, prepare, too_old
from app.settings import Destination, Secret
from sinks._base import Delivered, Halt, Outcome, Payload, Rejected, Request, Response, Retry, Sink

if TYPE_CHECKING:
    from app.main import Pipeline

log = structlog.get_logger()

SWEEP = 500  # outcomes looked at, once a second and partition at most, whether they may be forgotten
BACKOFF = (0.5, 60.0)  # seconds: first and longest pause between attempts, each drawn at random from 0 up (full jitter)
PROBE = 15.0  # seconds between looks whether a halted destination works again
LONGEST_ANSWER = 64 * 1024  # bytes that are read of an answer


@dataclass
class Job:
    """One event on its way to the platform."""

    key: bytes
    offset: int
    event: Event
    basis: str
    payload: Payload
    attempts: int = 0

    @property
    def revision(self) -> int:
        return self.event.get("revision", 0)


class Deliver:
    def __init__(self, pipeline: "Pipeline", name: str, settings: Destination, sink: Sink, outcomes: Rows) -> None:
        self.pipeline, self.name, self.settings, self.sink, self.outcomes = pipeline, name, settings, sink, outcomes
        self.topic = pipeline.names.to(name)
        self.halted = ""  # why, while it is
        self.answers = 0  # to requests of this worker, a time-out being one, too
        self._swept: dict[int, float] = {}  # partition -> Unix milliseconds of its last sweep
        self._sending: set[int] = set()  # partitions whose batch is at the platform, or waits for it
        self._pausing = 0  # requests between two attempts
        self._slots = asyncio.Semaphore(settings.concurrency)

    def held(self, partition: int) -> bool:
        """Does it stand still on purpose, by a halt or between attempts? Then that is nothing to restart for."""
        return partition in self._sending and bool(self.halted or self._pausing)

    def steps(self, partition: int) -> int:
        """Changes while a slow platform works off a batch whose offset does not move yet."""
        return self.answers if partition in self._sending else 0

    async def batch(self, batch: Batch) -> None:
        p = batch.tp.partition
        await self.pipeline.app.consumer.own(batch.generation)
        first: dict[bytes, Job] = {}
        strangers = intake.new_rows()
        for record in batch.records:
            job = _job(record)
            if job is None:
                origin = Origin(topic=self.topic, partition=p, offset=record.offset)
                letter = dead_letter.DeadLetter("deliver", "not_an_event", origin, destination=self.name)
                intake.refuse(strangers, letter, self.pipeline.names, self.pipeline.partitions)
            elif job.key not in first or job.revision > first[job.key].revision:
                first[job.key] = job
        await self.pipeline.write(strangers, batch.generation)
        known = self.outcomes.get(p, list(first))
        jobs: list[Job] = []
        finals: list[tuple[Job, Final]] = []
        for job, outcome in zip(first.values(), known, strict=True):
            if outcome is None or orjson.loads(outcome).get("u", 0) < job.revision:
                final = self._prepare(job)
                if final is None:
                    jobs.append(job)
                else:
                    finals.append((job, final))
        await self._record(p, finals, batch.generation)
        self._sending.add(p)
        try:
            results = await asyncio.gather(
                *(self._deliver(p, chunk, batch.generation) for chunk in self._chunks(jobs)), return_exceptions=True
            )
        finally:
            self._sending.discard(p)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        await self._forget(p, batch.generation)

    def _prepare(self, job: Job) -> Final | None:
        """Judge the event again, and put it in the platform's words; or say why not."""
        job.basis, found = prepare(self.name, job.event, self.settings, self.sink, time.time())
        if isinstance(found, Final):
            return found
        job.payload = found
        return None

    def _chunks(self, jobs: Sequence[Job]) -> list[list[Job]]:
        """Requests: jobs of one group, within the platform's limits of events and bytes."""
        limits = self.sink.limits
        chunks: list[list[Job]] = []
        filling: dict[tuple[str, ...], tuple[list[Job], int]] = {}
        for job in jobs:
            size = len(orjson.dumps(job.payload.body)) + 1
            chunk, total = filling.get(job.payload.group, ([], 0))
            if not chunk or len(chunk) >= limits.events or total + size > limits.bytes - 1024:
                chunk, total = [], 0
                chunks.append(chunk)
            chunk.append(job)
            filling[job.payload.group] = chunk, total + size
        return chunks

    # -- sending

    async def _deliver(self, p: int, jobs: list[Job], generation: int) -> None:
        """Until each of these has its final outcome. Raises Lost when the partition goes."""
        async with self._slots:
            waiting, tries, first_try = jobs, 0, time.monotonic()
            while waiting:
                outcomes = await self._attempt(waiting, generation)
                again: list[Job] = []
                finals: list[tuple[Job, Final]] = []
                pause = _backoff(tries)
                for job, outcome in zip(waiting, outcomes, strict=True):
                    job.attempts += 1
                    if isinstance(outcome, Retry | Halt) and not too_old(job.event, self.sink, time.time()):
                        again.append(job)
                        if isinstance(outcome, Retry):
                            pause = max(pause, outcome.after or 0.0)
                        continue
                    finals.append((job, _final(outcome)))
                if _failed_as_one(outcomes) and len(waiting) > 1:
                    await self._split(p, waiting, generation)
                    return
                await self._record(p, finals, generation)
                halt = next((o for o in outcomes if isinstance(o, Halt)), None)
                self._set_halted(halt.reason if halt else "")
                waiting, tries = again, tries + 1
                if waiting:
                    reason = next(o.reason for o in outcomes if isinstance(o, Retry | Halt))
                    log.info(
                        "delivery.waits",
                        destination=self.name,
                        events=len(waiting),
                        reason=reason,
                        seconds=round(PROBE if halt else pause, 1),
                        since=round(time.monotonic() - first_try),
                    )
                    await self._wait(PROBE if halt else pause, generation)

    async def _split(self, p: int, jobs: list[Job], generation: int) -> None:
        """The platform failed them all for one it does not name: halve until the bad ones stand alone."""
        middle = len(jobs) // 2
        self._slots.release()  # the halves take slots of their own
        try:
            for half in (jobs[:middle], jobs[middle:]):
                await self._deliver(p, half, generation)
        finally:
            await self._slots.acquire()

    async def _attempt(self, jobs: list[Job], generation: int) -> list[Outcome]:
        payloads = [job.payload for job in jobs]
        try:
            request = self.sink.request(payloads, self._token())
        except SettingsError as exc:
            return [Halt(f"secret missing: {exc}")] * len(jobs)
        consumer = self.pipeline.app.consumer
        await consumer.own(generation)
        if consumer.yielding or self.pipeline.app.should_stop:
            raise Lost("leaving the rest to the next owner")
        begun = time.perf_counter()
        answer = await self._send(request)
        self.answers += 1
        metrics.REQUEST_SECONDS.labels(self.name).observe(time.perf_counter() - begun)
        status = answer.status if isinstance(answer, Response) else 0
        metrics.ATTEMPTS.labels(self.name, str(status)).inc()
        if isinstance(answer, Retry):
            return [answer] * len(jobs)
        return self.sink.verdict(payloads, answer)

    async def _send(self, request: Request) -> Response | Retry:
        session = await self.pipeline.http()
        try:
            async with session.request(
                request.method,
                request.url,
                headers=dict(request.headers),
                data=request.body,
                timeout=aiohttp.ClientTimeout(total=self.sink.limits.timeout),
                allow_redirects=False,
            ) as response:
                body = await _read(response)
                return Response(response.status, response.headers.copy(), body)
        except (aiohttp.ClientError, TimeoutError, OSError) as exc:
            return Retry(f"no answer: {type(exc).__name__}")  # not its text: it can hold the address, and so the secret

    def _token(self) -> str:
        """The destination's secret, read anew: a repaired one works at the next attempt. Raises SettingsError."""
        for value in (getattr(self.settings, name) for name in type(self.settings).model_fields):
            if isinstance(value, Secret):
                return value.read()
        return ""

    async def _wait(self, seconds: float, generation: int) -> None:
        """Sleep, but wake when the partitions go. Raises Lost."""
        consumer, until = self.pipeline.app.consumer, time.monotonic() + seconds
        self._pausing += 1
        try:
            while (left := until - time.monotonic()) > 0:
                if consumer.yielding or self.pipeline.app.should_stop or consumer.ready != generation:
                    raise Lost("leaving the rest to the next owner")
                await asyncio.sleep(min(left, 0.2))
        finally:
            self._pausing -= 1

    def _set_halted(self, why: str) -> None:
        if why and not self.halted:
            log.error("destination.halted", destination=self.name, reason=why)
        elif self.halted and not why:
            log.warning("destination.resumed", destination=self.name)
        self.halted = why
        metrics.HALTED.labels(self.name).set(bool(why))

    # -- what became of it

    async def _record(self, p: int, finals: Sequence[tuple[Job, Final]], generation: int) -> None:
        """Dead letters and receipts first, then the outcome row: a crash in between repeats, never swallows."""
        if not finals:
            return
        pipeline, now = self.pipeline, int(time.time() * 1000)
        rows, table = intake.new_rows(), {}
        for job, final in finals:
            rows[pipeline.names.receipts, p].append(
                receipts.row(
                    job.event,
                    self.name,
                    final.outcome,
                    now=now,
                    config=pipeline.settings.hash,
                    reason=final.reason,
                    basis=job.basis,
                    detail=final.detail,
                    attempts=job.attempts,
                )
            )
            if final.outcome == "rejected":
                letter = self._letter(p, job, final)
                rows[pipeline.names.dead, letter.partition(pipeline.partitions)].append(letter.row())
                log.warning(
                    "event.rejected", destination=self.name, reason=final.reason, event_id=job.event["event_id"]
                )
            row = {"v": 1, "o": final.outcome, "t": now, "n": job.attempts, "r": final.reason, "d": final.detail}
            if job.revision:
                row["u"] = job.revision
            table[job.key] = orjson.dumps(row)
            metrics.OUTCOMES.labels(self.name, final.outcome).inc()
        await pipeline.write(rows, generation)
        await self.outcomes.write(p, table, generation)

    async def _forget(self, p: int, generation: int) -> None:
        """Delete outcomes that are as old as their changelog lets them get."""
        now = time.time() * 1000
        if now - self._swept.get(p, 0.0) < 1000:
            return
        self._swept[p] = now
        oldest = now - topics.outcomes_kept(self.sink.limits)
        gone = self.outcomes.sweep(p, SWEEP, lambda _, row: _recorded(row) < oldest)
        await self.outcomes.write(p, dict.fromkeys(gone), generation)

    def _letter(self, p: int, job: Job, final: Final) -> dead_letter.DeadLetter:
        return dead_letter.DeadLetter(
            "deliver",
            final.reason,
            {"topic": self.topic, "partition": p, "offset": job.offset},
            detail=final.detail,
            destination=self.name,
            event_id=job.event["event_id"],
            event_name=job.event["event_name"],
            attempts=job.attempts,
        )


async def _read(response: aiohttp.ClientResponse) -> bytes:
    """The answer's body, at most LONGEST_ANSWER of it, however it drips."""
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) >= LONGEST_ANSWER:
            response.close()  # the rest would block the connection for the next request
            break
    return bytes(body[:LONGEST_ANSWER])


def _job(record: Any) -> Job | None:
    """The event of a record, or None for what somebody else wrote into our topic."""
    try:
        event: Event = orjson.loads(record.value)["event"]
        if not shape.is_event(event) or keys.key(event) != record.key or event["time"] < 0:
            return None
        return Job(record.key, record.offset, event, "", Payload(event["event_id"], {}))
    except (TypeError, ValueError, KeyError, AttributeError):
        return None


def _recorded(row: bytes) -> float:
    """When an outcome was written; never, for a stranger's row."""
    try:
        return float(orjson.loads(row)["t"])
    except (TypeError, ValueError, KeyError):
        return math.inf


def _failed_as_one(outcomes: Sequence[Outcome]) -> bool:
    return any(isinstance(outcome, Rejected) and outcome.whole for outcome in outcomes)


def _final(outcome: Outcome) -> Final:
    if isinstance(outcome, Delivered):
        return Final("delivered", detail=outcome.detail)
    if isinstance(outcome, Rejected):
        return Final("rejected", outcome.reason, outcome.detail)
    return Final("rejected", "too_old", f"last answer: {outcome.reason}")


def _backoff(tries: int) -> float:
    first, longest = BACKOFF
    return random.uniform(0, min(longest, first * 2**tries))  # noqa: S311 (no secret hangs on it)
