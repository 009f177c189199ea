"""One Faust table, read and written in bulk. There is one writer per table: the agent that owns the partition."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import islice
from typing import Any, TypeVar

import structlog
from aiokafka.errors import KafkaError
from faust.types import TP
from rocksdict import WriteBatch

from app import metrics
from app.lossless import foreign
from app.lossless.batch import Lost, die

log = structlog.get_logger()

ANSWER_MAX = 10.0  # seconds for one try to read a changelog
PATIENCE = 60.0  # seconds for which a changelog may refuse to be read before the process dies
PAUSE = 0.5  # seconds between two tries to read it

T = TypeVar("T")


class Rows:
    """Rows are bytes by key within a partition; None deletes."""

    def __init__(self, app: Any, name: str, help: str) -> None:  # noqa: A002 (Faust's word)
        self._app = app
        self._table = app.Table(
            name,
            key_type=bytes,
            value_type=bytes,
            partitions=app.conf.topic_partitions,
            help=help,
            # per partition: rocksdict's defaults reserve gigabytes
            options={
                "driver": "rocksdict",
                "block_cache_size": 8 << 20,
                "write_buffer_size": 8 << 20,
                "max_write_buffer_number": 2,
                "target_file_size_base": 16 << 20,
                "bloom_filter_size": 10,
            },
        )
        app.rows[self.changelog] = self
        self._locks: dict[int, asyncio.Lock] = {}

    @property
    def changelog(self) -> str:
        return str(self._table.changelog_topic_name)

    # -- reading

    def has(self, partition: int) -> bool:
        return partition in self._table.data._dbs

    def partitions(self) -> list[int]:
        """Those that are open here."""
        return list(self._table.data._dbs)

    def size(self, partition: int) -> tuple[int, int]:
        """(rows, bytes on disk), as RocksDB estimates them."""
        with self._table.data.using(partition) as db:
            told = (db.property_int_value(f"rocksdb.{name}") for name in ("estimate-num-keys", "total-sst-files-size"))
            rows, size = (int(value or 0) for value in told)
        return rows, size

    def get(self, partition: int, keys: Sequence[bytes]) -> list[bytes | None]:
        """Values in the order of `keys`."""
        if not keys:
            return []
        with self._table.data.using(partition) as db:
            return list(db.get(list(keys)))

    def items(self, partition: int, prefix: bytes = b"", start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """Rows whose key begins with `prefix`, from `start` on, in the order of keys."""
        offset_key = self._table.data.offset_key
        with self._table.data.using(partition) as db:
            # not db.items(), which takes damage for the end
            cursor = db.iter()
            cursor.seek(max(prefix, start))
            while cursor.valid() and (key := cursor.key()).startswith(prefix):
                if key != offset_key:
                    yield key, cursor.value()
                cursor.next()
            cursor.status()  # raises if that was not the end

    def sweep(self, partition: int, limit: int, expired: Callable[[bytes, bytes], bool]) -> list[bytes]:
        """Keys of expired rows among the next `limit` ones; after the last row it begins anew. Deletes nothing.

        The owner adds deletions of them to a write of its own, with nothing awaited in between: then no row can have
        changed meanwhile.
        """
        cursors = self._table.data.cursors
        rows, cursor = self.page(partition, cursors.pop(partition, b""), limit)
        if cursor is not None:
            cursors[partition] = cursor
        return [key for key, value in rows if expired(key, value)]

    def page(self, partition: int, start: bytes, limit: int) -> tuple[list[tuple[bytes, bytes]], bytes | None]:
        """(`limit` rows from `start` on, where the next page begins); None: these were the last ones."""
        rows = list(islice(self.items(partition, start=start), limit + 1))
        return (rows[:limit], rows[limit][0]) if len(rows) > limit else (rows, None)

    def scrub(self, partition: int) -> None:
        """Rewrite the local files, so that no deleted row stays in them. Takes its time: call it in a thread."""
        with suppress(Lost), self._table.data.using(partition) as db:
            db.compact_range(None, None)

    # -- recovery

    def restore(self, partition: int, records: Sequence[Any]) -> None:
        """Take rows over from the changelog, in one write with the offset that recovery goes on from."""
        self._store(partition, ((record.key, record.value) for record in records), records[-1].offset + 1)

    def recognise(self, partition: int, records: Sequence[Any]) -> None:
        """A recovery begins with the record at our own offset. Unless that is what we have, this is another changelog."""
        if not records or records[0].offset != self._end(partition) - 1:
            return
        with self._table.data.using(partition) as db:
            known = db.get(records[0].key)
        if known != records[0].value:
            self._table.data.damaged(partition, f"the changelog has another record at offset {records[0].offset}")

    def in_step(self, partition: int, now: float) -> None:
        """At that time it was certain that we say what our changelog says."""
        self._table.data.in_step(partition, now)

    # -- writing

    async def write(self, partition: int, rows: Mapping[bytes, bytes | None], generation: int) -> None:
        """Changelog first and acknowledged, then the local store with its changelog offset, in one write.

        Raises Lost when the partition is no longer ours.
        """
        if not rows:
            return
        async with self._lock(partition):
            known = self._end(partition)
            first, end = await self._append(partition, rows, generation, known)
            if first != known:
                end = await self._overwrite(partition, end, generation, rows)
            self._store(partition, rows.items(), end)

    async def agree(self, partition: int, end: int, generation: int) -> None:
        """The changelog has been seen to end at `end`. What it has beyond our own rows is overwritten. Raises Lost."""
        async with self._lock(partition):  # with a write under way it would have more than we know of
            if end > self._end(partition):
                self._store(partition, (), await self._overwrite(partition, end, generation, {}))

    def _lock(self, partition: int) -> asyncio.Lock:
        return self._locks.setdefault(partition, asyncio.Lock())

    def _end(self, partition: int) -> int:
        """Of the changelog, as far as we know it: local rows are what it says up to there."""
        with self._table.data.using(partition) as db:
            offset = db.get(self._table.data.offset_key)
        return 0 if offset is None else int(offset) + 1

    def _store(self, partition: int, rows: Iterable[tuple[bytes, bytes | None]], end: int) -> None:
        batch = WriteBatch(raw_mode=True)
        for key, value in rows:
            if value is None:
                batch.delete(key)
            else:
                batch.put(key, value)
        batch.put(self._table.data.offset_key, b"%d" % (end - 1))
        with self._table.data.using(partition) as db:
            db.write(batch)

    async def _append(
        self, partition: int, rows: Mapping[bytes, bytes | None], generation: int, known: int
    ) -> tuple[int, int]:
        """To a changelog that ended at `known` or later. Returns (offset of the first, end of the changelog after them).

        The first one is at `known` only if nobody else wrote in between: when Kafka does not say where the rows are, or
        when they are not beside each other, it is where it would be if they were the last ones.
        """
        await self._app.consumer.own(generation)
        now = int(time.time() * 1000)
        first, end = await self._app.producer.write(
            self.changelog, partition, ((key, value, now) for key, value in rows.items())
        )
        if 0 <= first < known:
            # cut off, or deleted and created anew: what we wrote before is no longer there
            die("a changelog ends before our last row", changelog=self.changelog, partition=partition, end=first)
        if first < 0:
            end = await self._answer(partition, generation, partial(self._ask_end, partition, known + len(rows)))
            first = end - len(rows)
        return first, end

    async def _ask_end(self, partition: int, least: int) -> int:
        tp = TP(self.changelog, partition)
        end: int = (await self._app.consumer.readable_ends([tp]))[tp]
        if end < least:
            raise TimeoutError("Kafka does not show yet what it has acknowledged")  # a new leader does so
        return end

    async def _overwrite(self, partition: int, end: int, generation: int, ours: Mapping[bytes, bytes | None]) -> int:
        """Somebody else wrote before `end`: append what we have of those keys, until nobody came in between.

        `ours` are rows that we have just written and not stored yet. Returns the end up to which the changelog says what
        we say. The lock of the partition is held. Raises Lost when the partition is no longer ours: then nothing was
        stored, and our offset stands before the strange rows.
        """
        tp, begin, written, strange = TP(self.changelog, partition), self._end(partition), len(ours), 0
        while True:
            keys = await self._answer(partition, generation, partial(foreign.read, self._app, tp, begin, end))
            strange += len(keys) - written
            theirs = list(dict.fromkeys(keys))
            rows = dict(zip(theirs, self.get(partition, theirs), strict=True))
            rows.update((key, value) for key, value in ours.items() if key in rows)
            if not rows:
                break
            first, after = await self._append(partition, rows, generation, end)
            begin, end, written = end, after, len(rows)
            if first == begin:
                break
        await self._app.consumer.own(generation)
        metrics.FOREIGN.labels(self._table.name).inc(strange)
        log.warning("rows.foreign", changelog=self.changelog, partition=partition, rows=strange, said_again_to=end)
        return end

    async def _answer(self, partition: int, generation: int, ask: Callable[[], Awaitable[T]]) -> T:
        """What Kafka answers. Raises Lost when the partition goes before."""
        consumer, until = self._app.consumer, time.monotonic() + PATIENCE
        while True:
            try:
                async with asyncio.timeout(ANSWER_MAX):
                    return await ask()
            except (KafkaError, TimeoutError) as exc:
                log.warning("rows.no_answer", changelog=self.changelog, partition=partition, error=repr(exc))
                if time.monotonic() > until:
                    die("a changelog cannot be read", changelog=self.changelog, partition=partition)
            if consumer.leaving:
                raise Lost("giving up before strange rows are overwritten")
            await asyncio.sleep(PAUSE)
            await consumer.own(generation)
