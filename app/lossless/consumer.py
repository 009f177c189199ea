"""Batches in, commits out: the ledger of what is open decides, Faust's own acknowledgements do not."""

import asyncio
import contextlib
import time
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from aiokafka.errors import KafkaError
from faust.transport.drivers import aiokafka as stock
from faust.types import TP
from faust.types.tuples import ConsumerMessage

from app import metrics
from app.lossless.batch import Batch, Lost, die
from app.lossless.membership import ConsumerThread
from app.lossless.runs import Run

LAPSED_MAX = 45.0  # seconds without proof of membership; aiokafka's coordinator can hang in a request nobody answers
MAX_OPEN = 50  # batches of one partition handed over and not finished: the back-pressure
MAX_BYTES = 128 << 20  # of all open batches; beyond it only partitions that have none get one


class Consumer(stock.Consumer):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.open: dict[TP, list[Batch]] = {}  # handed over and not finished, in order
        self.room = asyncio.Event()  # set when a batch has been finished
        self.ready = -1  # the generation whose recovery and seek are complete; batches flow only then
        self.yielding = False  # partitions are being given up
        self.turned = 0.0  # monotonic time at which the fetch loop turned last
        super().__init__(*args, **kwargs)

    def _new_consumer_thread(self) -> ConsumerThread:
        return ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    def sources(self) -> set[TP]:
        """The partitions of ours that are no changelogs."""
        return {tp for tp in self.assignment() if not self._is_changelog_tp(tp)}

    @property
    def member(self) -> bool:
        """Recovered, and for certain still in the group."""
        return bool(self.ready == self.app.consumer_generation_id and self._thread.lease_left() > 0)

    @property
    def leaving(self) -> bool:
        """Do partitions go, or does the worker? Then what is left is the next owner's: begin nothing long."""
        return bool(self.yielding or self.app.should_stop)

    # -- ownership

    async def own(self, generation: int) -> None:
        """Call before every side effect. Waits while ownership is uncertain, raises Lost when it is gone."""
        while True:
            if self._thread.generation != generation or self.app.consumer_generation_id != generation:
                raise Lost(f"generation {generation}, now {self._thread.generation}")
            left = self._thread.lease_left()
            if left > 0:
                return
            if self.leaving:
                raise Lost("giving up without a lease")
            if left < -LAPSED_MAX:
                die(f"membership not proved for {LAPSED_MAX} s")
            await asyncio.sleep(0.05)

    # -- commits

    def finished(self, batch: Batch) -> None:
        batches = self.open.get(batch.tp, [])
        if batch in batches:  # else revoked meanwhile
            batches.remove(batch)
        self.room.set()

    def unfinished_from(self, tp: TP) -> int | None:
        """The first offset of `tp` whose work is not finished."""
        batches = self.open.get(tp)
        return min(b.first for b in batches) if batches else self._read_offset.get(tp)

    def committable(self) -> dict[TP, int]:
        return {tp: offset for tp in self.sources() if (offset := self.unfinished_from(tp)) is not None}

    def committed_to(self) -> dict[TP, int]:
        """Of our source partitions, the offsets that Kafka has from us: nobody will read what is before them."""
        return {tp: offset for tp in self.sources() if (offset := self._committed_offset.get(tp))}

    async def force_commit(self, topics: Any = None, start_new_transaction: bool = True) -> bool:  # noqa: ARG002
        """Commit what is finished. Replaces the acks and gaps of stock Faust, and its producer flush."""
        if self._thread._consumer is None or self.ready != self.app.consumer_generation_id:
            return False  # not started, or positions of an older generation
        offsets = {
            tp: offset
            for tp, offset in self.committable().items()
            if (topics is None or tp in topics or tp.topic in topics)
            and self._thread.exists(tp.topic)  # one that was deleted must not hold up the others
            # nothing committed is not the same as 0: whoever begins at 0 has to begin there after a crash, too
            and ((known := self._committed_offset.get(tp)) is None or offset > known)
        }
        if not offsets or not await self._commit(offsets):
            return False
        for tp, offset in offsets.items():
            # a seek or a revoke may have come in between: never move backwards, never revive
            if tp in self._read_offset:
                self._committed_offset[tp] = max(offset, self._committed_offset.get(tp) or 0)
        return True

    # -- rebalance

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Let begun batches end, commit what is finished, forget the rest: stock forgets before its last commit."""
        self.yielding = True
        # the agents' streams must stop even when there was no assignment yet; stock then leaves the flow on
        self.stop_flow()
        self.app.flow_control.suspend()
        self.app.flow_control.clear()
        try:
            async with asyncio.timeout(self.app.conf.broker_rebalance_timeout / 2):
                await self.app.lanes.quiesce()
                await self.force_commit()
        except TimeoutError:
            die("batches did not end in time for the rebalance")
        left = {f"{tp.topic}-{tp.partition}": len(batches) for tp, batches in self.open.items() if batches}
        self.log.info("revoked %d partitions, left open %s", len(revoked), left)
        self.ready = -1
        await super().on_partitions_revoked(revoked)
        self.open.clear()
        self.yielding = False
        self.room.set()

    async def perform_seek(self) -> None:
        """Faust calls this once, at the end of every recovery: from here on batches may flow."""
        generation = self.app.consumer_generation_id
        await super().perform_seek()
        fresh = [tp for tp in self.sources() if self._read_offset.get(tp) is None]
        # no commit yet: name the position now, so that a hole is seen there too, and a crash begins at the same place
        for asks, tps in (
            (self.highwaters, [tp for tp in fresh if tp.topic in self.app.from_end]),
            (self.offsets_at, [tp for tp in fresh if tp.topic in self.app.from_time]),
            (
                self.earliest_offsets,
                [tp for tp in fresh if tp.topic not in self.app.from_end | self.app.from_time.keys()],
            ),
        ):
            for tp, offset in (await asks(*tps)).items() if tps else ():
                self._read_offset[TP(*tp)] = offset or 0
                await self._seek_in_thread(TP(*tp), offset or 0)
        self.begin(generation)
        await self.force_commit()

    def begin(self, generation: int) -> None:
        """Recovered and, where there are partitions, at the right places."""
        for tell in self.app.on_ready:
            tell(generation)
        self.ready = generation

    async def offsets_at(self, *tps: TP) -> dict[TP, int]:
        """Where the first record stands that is not older than the topic's `from_time`; where there is none, the end."""
        ends = await self.highwaters(*tps)  # asked first: what comes in between is not older, and must not be left out
        times = {stock.ensure_aiokafka_TP(tp): self.app.from_time[tp.topic] for tp in tps}
        found = await self._thread.call_thread(self._thread._consumer.offsets_for_times, times)
        at = {TP(*tp): one.offset for tp, one in found.items() if one is not None}
        return {TP(*tp): at.get(TP(*tp), offset or 0) for tp, offset in ends.items()}

    async def _seek_in_thread(self, tp: TP, offset: int) -> None:
        # stock's seek() touches aiokafka from the wrong thread; its seek_wait() deletes the read offset of 0
        await self._thread.call_thread(self._thread._consumer.seek, stock.ensure_aiokafka_TP(tp), offset)

    # -- delivery

    def _wanted(self) -> set[TP]:
        ready = self.ready == self.app.consumer_generation_id
        most = 2 * self.app.lanes.most
        full = sum(batch.bytes for batches in self.open.values() for batch in batches) > MAX_BYTES

        def has_room(tp: TP) -> bool:
            batches = self.open.get(tp)
            if not batches or full:
                return not batches
            return len(batches) < MAX_OPEN and sum(len(batch.records) for batch in batches) < most

        return {tp for tp in self._get_active_partitions() if self._is_changelog_tp(tp) or (ready and has_room(tp))}

    async def _drain_messages(self, fetcher: Any) -> None:
        """Replaces stock's loop, which makes four tasks per record and acknowledges what it drops."""
        try:
            while not (self._stopped.is_set() or fetcher._stopped.is_set()):
                await asyncio.sleep(0)
                self.turned = time.monotonic()
                if not self.flow_active:
                    await self.wait(self.can_resume_flow, timeout=1.0)
                    continue
                self.room.clear()
                wanted = self._wanted()
                if not wanted:  # an empty set would mean "all" to aiokafka
                    await self._wait_for_room()
                    continue
                full = len(wanted) < len(self._active_partitions or ())
                runs = await self._getmany(active_partitions=wanted, timeout=0.1 if full else 0.5)
                batches = list[Batch]()
                for tp, run in (runs or {}).items():
                    if not self.flow_active or self._stopped.is_set():
                        break  # a rebalance: aiokafka forgets its positions, perform_seek follows
                    if (batch := await self._take(TP(tp.topic, tp.partition), run)) is not None:
                        batches.append(batch)
                if batches:
                    await self._hand_over(batches)
        except self.consumer_stopped_errors:
            if not self.app.should_stop:
                raise
        except asyncio.CancelledError:
            if not self.app.should_stop:
                raise

    async def _wait_for_room(self) -> None:
        # aiokafka leaves the group when nobody polls for max_poll_interval; waiting for room is no such thing
        with self._thread._consumer._fetcher._subscriptions.fetch_context():
            pass
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.room.wait(), 0.1)

    async def _take(self, tp: TP, run: Run) -> Batch | None:
        """The batch that this run is for an agent, if it is one."""
        if not self._is_changelog_tp(tp):
            return await self._batch(tp, run)
        if tp in self._get_active_partitions() and (expected := self.app.recovers_from(tp)) is not None:
            if run.start > expected:
                self.app.recovered_to(tp, await self._find_again(tp, run.start, expected))
                return None
            self._read_offset[tp] = run.end
            self.app.recover(tp, run)
        return None

    async def _find_again(self, tp: TP, found: int, expected: int) -> int:
        """The fetcher stands at `found`, we at `expected`: go on where nothing is skipped. Returns our offset.

        Usually records were fetched and dropped on the way: by a cancelled fetch, a pause, a rebalance. Only the log
        itself may say that an offset is gone.
        """
        try:
            first, end = (await self.earliest_offsets(tp))[tp], (await self.end_offsets([tp]))[tp]
            offset = expected if first <= expected <= end else first
            if expected < first:
                metrics.UNREAD.labels(tp.topic).inc(first - expected)
                self.log.error("%s lost offsets %d to %d unread: to retention, or deleted", tp, expected, first - 1)
            elif end < expected:
                self.log.error("%s ends at %d, where %d had been read: a new log, read as one", tp, end, expected)
            else:
                self.log.info("%s: expected %d, got %d: reading again", tp, expected, found)
            await self._seek_in_thread(tp, offset)
        except (KafkaError, TimeoutError) as exc:  # the next fetch comes here again
            self.log.warning("%s: expected %d, got %d, and cannot ask: %r", tp, expected, found, exc)
            return expected
        return offset

    async def _batch(self, tp: TP, run: Run) -> Batch | None:
        generation = self.app.consumer_generation_id
        if self.ready != generation:
            return None  # not recovered yet: perform_seek will bring them again
        expected = self._read_offset.get(tp) or 0
        if run.start != expected:
            offset = await self._find_again(tp, run.start, expected)
            if self.ready == self.app.consumer_generation_id == generation and offset != expected:
                self._read_offset[tp] = offset
                self._committed_offset.pop(tp, None)  # it may lie beyond the end of a new log
            return None
        if tp not in self._get_active_partitions():  # paused while the fetch was under way
            await self._seek_in_thread(tp, expected)
            return None
        if not run.records:
            self._read_offset[tp] = run.end  # transaction markers, aborted or compacted records: nothing to wait for
            return None
        batch = Batch(tp, run.records, generation, self.finished)
        self.open.setdefault(tp, []).append(batch)  # before anyone can see it, and before the position moves
        self._read_offset[tp] = run.end
        return batch

    async def _hand_over(self, batches: Sequence[Batch]) -> None:
        """All at once, those of one topic as one event of its stream: what came together, begins together."""
        by_topic = defaultdict[str, list[Batch]](list)
        for batch in batches:
            by_topic[batch.tp.topic].append(batch)
        # the conductor may block while the flow is suspended: never wait for it alone
        handing = asyncio.gather(*(self.callback(_message(some)) for some in by_topic.values()))
        await self.wait_first(handing, self.suspend_flow.wait())

    async def end_offsets(self, tps: list[TP]) -> dict[TP, int]:
        """Log ends now, records of open transactions included. Raises KafkaError or TimeoutError."""
        return {TP(*tp): offset for tp, offset in (await self._thread.log_ends(tps)).items()}

    async def readable_ends(self, tps: list[TP]) -> dict[TP, int]:
        """Where reading has to stop for now: log ends, or where the first open transaction begins. Raises as above."""
        # not by call_thread: a question without an answer would hold one of its two workers, and fetches need one
        asked = asyncio.run_coroutine_threadsafe(self._thread._highwaters(tps), self._thread.thread_loop)
        return {TP(*tp): offset or 0 for tp, offset in (await asyncio.wrap_future(asked)).items()}


def _message(batches: Sequence[Batch]) -> ConsumerMessage:
    """Batches of one topic, as what Faust passes on to a stream. Its partition and offset are those of one of them; no one asks.

    Its generation is the newest, that of the last one: Faust drops a message of an older one, and nobody would end what is newer in
    it. A batch of an older one ends itself, as lost.
    """
    newest = batches[-1]
    tp, last = newest.tp, newest.records[-1]
    return ConsumerMessage(
        tp.topic,
        tp.partition,
        last.offset,
        last.timestamp / 1000.0,
        last.timestamp_type,
        [],
        None,
        batches,
        None,
        0,
        0,
        tp,
        generation_id=newest.generation,
    )
