"""The RocksDB databases under the tables, one a partition: what cannot be believed is built anew from the changelog.

A database is a copy of its changelog up to an offset that it holds itself. It is thrown away, never repaired, when

    it cannot be opened, or reading or writing it told of damage (the process dies, the next start throws away)
    its MANIFEST has become shorter: RocksDB would take that for an older state, and miss rows in the middle
    it is not a copy of this changelog: that ends before its offset, begins after it, or has another record there
    it is so old that the changelog may have dropped deletions that it never saw
"""

import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

import faust
from faust.stores import rocksdb as stock
from faust.tables import recovery
from faust.tables.manager import TableManager
from rocksdict import DbClosedError, Rdict

from app.lossless.batch import Lost, die

DAMAGED = "DAMAGED"  # a file in a database's folder: what was noticed
IN_STEP = "IN_STEP"  # one with the time at which it last said what its changelog says, and its MANIFEST's name and size

FILES = 8  # on the first level until they are merged into the second

FULL = ("No space left on device", "Disk quota exceeded")
NOT_ITS_FAULT = ("Permission denied", "Read-only file system", "Too many open files", "Cannot allocate memory")


class Options(stock.RocksDBOptions):
    def as_options(self) -> Any:
        options = super().as_options()
        # Keys are random, so files of the first level are merged into all of the second: seldom, and into not more than they are
        # themselves. With RocksDB's 4 files and 256 MiB a key among five millions costs as much again for being rewritten.
        options.set_level_zero_file_num_compaction_trigger(FILES)
        options.set_max_bytes_for_level_base(FILES * self.write_buffer_size)
        # Most keys are asked for once, before they are there: a filter over what is in memory, too, answers in a third of the time.
        options.set_memtable_whole_key_filtering(True)
        options.set_memtable_prefix_bloom_ratio(0.02)
        # A stretch of many deletions is compacted soon: expired rows would else fill the disk until new ones push them out.
        options.add_compact_on_deletion_collector_factory(10_000, 5_000, 0.5)
        return options

    def open(self, path: Path, *, read_only: bool = False) -> Any:  # noqa: ARG002 (Faust's)
        # Its one family is named, as rocksdict else opens what is there with the options in its file. Those name no filter and no
        # collector: after the first restart every look for a new key would read from the disk.
        options = self.as_options()
        return Rdict(str(path), options, {"default": options})


class Store(stock.Store):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.rocksdb_options = Options(**self.options, use_rocksdict=True)
        self.cursors: dict[int, bytes] = {}  # partition -> where its next sweep begins

    @contextmanager
    def using(self, partition: int) -> Iterator[Any]:
        """The database of a partition. Raises Lost when it is closed; ends the process when it is damaged or full."""
        db = self._dbs.get(partition)
        if db is None:  # never reopen: that would take the lock of the time of another owner
            raise Lost(f"{self.table_name}-{partition} is closed")
        try:
            yield db
        except DbClosedError as exc:
            raise Lost(f"{self.table_name}-{partition} is closed") from exc
        except Exception as exc:
            self._die_of_surroundings(partition, str(exc))
            if str(exc).startswith(("Corruption", "IO error")):
                self.damaged(partition, str(exc))
            raise

    def damaged(self, partition: int, why: str) -> NoReturn:
        with suppress(OSError):
            (self.partition_path(partition) / DAMAGED).write_text(why)
        die(
            "local state is damaged: the next start builds it anew",
            table=self.table_name,
            partition=partition,
            error=why,
        )

    def passed(self, partition: int, offset: int) -> None:
        """Up to this offset the changelog holds nothing more for us: the next write must not see somebody else's rows there."""
        if partition in self._dbs:
            with self.using(partition) as db:
                known = db.get(self.offset_key)
                if known is None or int(known) < offset:
                    db.put(self.offset_key, b"%d" % offset)

    def in_step(self, partition: int, now: float) -> None:
        """At this time the database said what its changelog says."""
        path = self.partition_path(partition)
        name, size = _manifest(path)
        try:
            (path / f"{IN_STEP}.new").write_text(f"{now:.0f} {name} {size}\n")
            (path / f"{IN_STEP}.new").replace(path / IN_STEP)
        except OSError as exc:
            self.log.warning("cannot write %s: %r", path / IN_STEP, exc)

    def too_old(self, partition: int) -> bool:
        """May the changelog have dropped deletions since? Half of the time they are kept, since a clock may be wrong."""
        since, _, _ = _last_in_step(self.partition_path(partition))
        return bool(abs(time.time() - since) > self.app.deletions_kept / 2)

    def rebuild(self, partition: int, why: str) -> None:
        """Begin anew with an empty database."""
        db = self._dbs.pop(partition, None)
        if db is not None:
            with suppress(Exception):  # a damaged one may refuse even this
                db.close()
        self._throw_away(partition, why)
        self._db_for_partition(partition)

    # -- replacing what Faust does

    def persisted_offset(self, tp: Any) -> int | None:
        self._db_for_partition(tp.partition)
        with self.using(tp.partition) as db:
            offset = db.get(self.offset_key)
        return None if offset is None else int(offset)

    def revoke_partitions(self, table: Any, tps: set[Any]) -> None:
        for tp in tps:
            if tp.topic in table.changelog_topic.topics:
                self.cursors.pop(tp.partition, None)
        super().revoke_partitions(table, tps)

    def _open_for_partition(self, partition: int) -> Any:
        path = self.partition_path(partition)
        for left in path.parent.glob(f"{path.name}.gone.*"):
            _delete(left)
        if path.exists() and (why := _unfit(path)):
            self._throw_away(partition, why)
        new = not path.exists()
        try:
            db = super()._open_for_partition(partition)
        except Exception as exc:  # rocksdict raises no other
            self._die_of_surroundings(partition, str(exc))
            if "/LOCK:" in str(exc):
                raise  # another process still has it: Faust tries again
            self._throw_away(partition, str(exc))
            new = True
            db = super()._open_for_partition(partition)
        if new:
            self.in_step(partition, time.time())  # an empty one has missed nothing yet
        return db

    def _die_of_surroundings(self, partition: int, text: str) -> None:
        """When the database is not to blame."""
        where = str(self.partition_path(partition))
        if any(sign in text for sign in FULL):
            die("the disk is full: no state can be stored, and nothing is done without", folder=where, error=text)
        if any(sign in text for sign in NOT_ITS_FAULT):
            die("local state cannot be read or written", folder=where, error=text)

    def _throw_away(self, partition: int, why: str) -> None:
        path = self.partition_path(partition)
        self.log.warning("local state of %s-%s is built anew from the changelog: %s", self.table_name, partition, why)
        gone = path.with_name(f"{path.name}.gone.{time.time_ns()}")
        path.rename(gone)  # in one step: half a database must not be opened
        _delete(gone)


class Table(faust.Table):
    def _new_store_by_url(self, url: Any) -> Store:
        return Store(
            url,
            self.app,
            self,
            table_name=self.name,
            key_type=self.key_type,
            key_serializer=self.key_serializer,
            value_serializer=self.value_serializer,
            value_type=self.value_type,
            loop=self.loop,
            options=self.options,
        )


class Recovery(recovery.Recovery):
    def _set_recovery_started(self) -> None:
        super()._set_recovery_started()
        # Stock leaves the last recovery's signal standing for up to 5 s. A recovery that begins within them would take it
        # for its own, and go on with tables that lack rows.
        self.signal_recovery_end.clear()

    async def _wait(self, coro: Any, timeout: Any = None) -> None:
        try:
            await super()._wait(coro, timeout)
        except recovery.ServiceStopped:
            if self.should_stop or self.crashed:
                raise
            # Stock takes a time-out for the end of the service. Its task would end, without a word, and our partitions
            # would wait for it for as long as we are a member of the group.
            self.log.warning("Kafka did not answer within %s s: recovery begins again", timeout)
            self.signal_recovery_start.set()
            raise recovery.RebalanceAgain from None

    async def _build_offsets(self, consumer: Any, tps: set[Any], destination: Any, title: str) -> None:
        """First compare what each database says of itself with the changelog."""
        starts = await consumer.earliest_offsets(*tps)
        for tp in tps:
            why = self._unfit(tp, destination[tp], starts.get(tp) or 0, self.active_highwaters[tp] + 1)
            if why:
                self.tp_to_table[tp].data.rebuild(tp.partition, why)
                destination[tp] = None
        await super()._build_offsets(consumer, tps, destination, title)

    def _unfit(self, tp: Any, offset: int | None, start: int, end: int) -> str:
        if offset is None:
            return ""
        if offset >= end:
            return f"it has offset {offset}, and the changelog ends at {end}: another one of the same name"
        if offset + 1 < start:
            return f"it ends with offset {offset}, and the changelog begins at {start}"
        if offset + 1 < end and self.tp_to_table[tp].data.too_old(tp.partition):
            return "it is too old: the changelog may have dropped deletions since"
        return ""

    async def on_recovery_completed(self, generation_id: int = 0) -> None:
        for tp in self.active_tps:
            offset = self.active_offsets[tp]
            if offset is not None and offset >= 0:
                self.tp_to_table[tp].data.passed(tp.partition, offset)
        await super().on_recovery_completed(generation_id)
        # Stock seeks, and with that makes us ready, only where there is a partition. Who has none has all that it needs.
        if self.app.consumer_generation_id == generation_id and not self.app.consumer.assignment():
            self.app.consumer.begin(generation_id)


class Tables(TableManager):
    _recovery: Recovery | None

    @property
    def recovery(self) -> Recovery:
        if self._recovery is None:
            self._recovery = Recovery(self.app, self, beacon=self.beacon, loop=self.loop)
        return self._recovery


def _manifest(path: Path) -> tuple[str, int]:
    """Name and size of the file that lists a database's files; nothing if there is none."""
    try:
        name = (path / "CURRENT").read_text(errors="replace").strip()
        return name, (path / name).stat().st_size
    except (OSError, ValueError):
        return "none", 0


def _last_in_step(path: Path) -> tuple[float, str, int]:
    try:
        time_, name, size = (path / IN_STEP).read_text(errors="replace").split()
        return float(time_), name, int(size)
    except (OSError, ValueError):
        return 0.0, "", 0


def _unfit(path: Path) -> str:
    """Why this folder should not even be opened."""
    with suppress(OSError):
        return f"damage was noticed: {(path / DAMAGED).read_text(errors='replace')}"
    since, name, size = _last_in_step(path)
    if not since:
        return "nobody knows when it was last used"
    now = _manifest(path)
    if now[0] == name and now[1] < size:
        return f"{name} is cut short"
    return ""


def _delete(folder: Path) -> None:
    """In the background: it may take long, and what a crash leaves is deleted at the next opening."""
    threading.Thread(target=shutil.rmtree, args=(folder,), kwargs={"ignore_errors": True}, daemon=True).start()
