"""One Faust table, read and written in bulk. There is one writer per table: the agent that owns the partition."""

import asyncio
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rocksdict import WriteBatch

from app.lossless.batch import Lost


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
                "bloom_filter_size": 10,
            },
        )
        app.rows[self.changelog] = self
        self._locks: dict[int, asyncio.Lock] = {}
        self._frozen: dict[int, int] = {}  # partition -> generation in which its recovered offset stopped moving

    @property
    def changelog(self) -> str:
        return str(self._table.changelog_topic_name)

    def _db(self, partition: int) -> Any:
        db = self._table.data._dbs.get(partition)
        if db is None:  # never reopen: that would take the lock of the time of another owner
            raise Lost(f"{self._table.name}-{partition} is closed")
        return db

    def has(self, partition: int) -> bool:
        return partition in self._table.data._dbs

    def get(self, partition: int, keys: Sequence[bytes]) -> list[bytes | None]:
        """Values in the order of `keys`."""
        return list(self._db(partition).get(list(keys))) if keys else []

    def items(self, partition: int, prefix: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """Rows whose key begins with `prefix`, in the order of keys."""
        offset_key = self._table.data.offset_key
        for key, value in self._db(partition).items(from_key=prefix or None):
            if not key.startswith(prefix):
                return
            if key != offset_key:
                yield key, value

    def restore(self, partition: int, records: Sequence[Any]) -> None:
        """Take rows over from the changelog, in one write with the offset that recovery goes on from."""
        batch = _changes((record.key, record.value) for record in records)
        batch.put(self._table.data.offset_key, b"%d" % records[-1].offset)
        self._db(partition).write(batch)

    async def write(self, partition: int, rows: Mapping[bytes, bytes | None], generation: int) -> None:
        """Changelog first and acknowledged, then the local store with its changelog offset, in one write.

        Raises Lost when the partition is no longer ours.
        """
        if not rows:
            return
        async with self._locks.setdefault(partition, asyncio.Lock()):
            await self._app.consumer.own(generation)
            now = int(time.time() * 1000)
            first, count = await self._app.producer.write(
                self.changelog, partition, ((key, value, now) for key, value in rows.items())
            )
            self._store(partition, rows, first, count, generation)

    def _store(
        self, partition: int, rows: Mapping[bytes, bytes | None], first: int, count: int, generation: int
    ) -> None:
        db, offset_key = self._db(partition), self._table.data.offset_key
        batch = _changes(rows.items())
        recovered = db.get(offset_key)
        expected = int(recovered) + 1 if recovered is not None else 0
        if first != expected and self._frozen.get(partition) != generation:
            # Somebody else wrote here since our recovery: he or we woke up too late. The offset must not jump over his
            # rows, so it stays, and the next recovery reads from there.
            self._table.log.warning(
                "foreign write in %s-%d: expected offset %d, got %d", self.changelog, partition, expected, first
            )
            self._frozen[partition] = generation
        if self._frozen.get(partition) != generation:
            batch.put(offset_key, str(first + count - 1).encode())
        db.write(batch)


def _changes(rows: Iterable[tuple[bytes, bytes | None]]) -> Any:
    """A WriteBatch of them, in order."""
    batch = WriteBatch(raw_mode=True)
    for key, value in rows:
        if value is None:
            batch.delete(key)
        else:
            batch.put(key, value)
    return batch
