"""What Kafka did not take, on this machine's disk, until it does: files of rows, each process its own folder.

    <spool>/.lock              whoever starts holds it, so that no two adopt the same folder
    <spool>/<process>/lock     held as long as the process lives: the kernel lets go of it, however that ends
    <spool>/<process>/*.rows   rows in the order in which they were answered for; the name begins with the time of the first

A put is answered when it is on the disk (fdatasync); those that come meanwhile share the next one. A file is removed when Kafka
has all of it, so an end in between repeats rows, and dedup knows them again. What is in a file came through normalize: nothing
personal in clear (P4). Rows of dead processes are adopted at the next start of any.

A frame is its size, its number of rows, the CRC-32 of both and of what follows, and the rows as JSON. A frame that does not add
up is the torn end of a write: nobody was told that we have it.
"""

import asyncio
import os
import secrets
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import orjson
import structlog

from app import metrics
from app.errors import SettingsError
from app.intake import Row, Rows

log = structlog.get_logger()

T = TypeVar("T")
#: Why a put was refused.
Refusal = Literal["spool_full", "spool_failed"]
#: (topic, partition, row)
Entry = tuple[str, int, Row]

SEGMENT = 4 << 20  # bytes of a file, about: a kill while it drains repeats so much
MOST_WAITING = 64 << 20  # bytes that wait for a slow disk
_HEAD = struct.Struct(">III")


def encode(rows: Rows) -> tuple[bytes, int]:
    """(frame, rows in it)."""
    entries = [
        (topic, partition, *(None if text is None else text.decode() for text in row[:2]), row[2])
        for (topic, partition), some in rows.items()
        for row in some
    ]
    body = orjson.dumps(entries)
    return _HEAD.pack(len(body), len(entries), _sum(len(entries), body)) + body, len(entries)


def frames(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """(rows, bytes with its head, body) of each whole frame, up to the first that is not."""
    at = 0
    while at + _HEAD.size <= len(data):
        size, count, checksum = _HEAD.unpack_from(data, at)
        body = data[at + _HEAD.size : at + _HEAD.size + size]
        if len(body) < size or _sum(count, body) != checksum:
            return
        yield count, _HEAD.size + size, body
        at += _HEAD.size + size


def decode(body: bytes) -> Iterator[Entry]:
    for topic, partition, key, value, timestamp in orjson.loads(body):
        texts = (None if text is None else text.encode() for text in (key, value))
        yield topic, partition, (*texts, timestamp)


def _sum(count: int, body: bytes) -> int:
    return zlib.crc32(body, zlib.crc32(_HEAD.pack(len(body), count, 0)))


@dataclass
class Segment:
    """One file. `rows` and `size` are of what is whole in it."""

    path: Path
    rows: int = 0
    size: int = 0

    @property
    def since(self) -> float:
        """Unix time at which it was begun."""
        return int(self.path.name.partition("-")[0]) / 1000


class Spool:
    """This process's part of the spool. Not for more than one event loop."""

    def __init__(self, folder: Path, most: int) -> None:
        self._root, self._most = folder, most
        self._own = folder / f"{os.getpid()}-{secrets.token_hex(4)}"
        self._held: list[int] = []  # descriptors of locks
        self._segments: list[Segment] = []  # oldest first
        self._open: tuple[Segment, int] | None = None  # the newest, and its descriptor
        self._waiting: list[tuple[bytes, int, asyncio.Future[Refusal | None]]] = []
        self._waits = 0  # bytes of those
        self._writer: asyncio.Task[None] | None = None
        self._failing = False  # the last write
        # one thread, so that what touches the files takes turns
        self._disk = ThreadPoolExecutor(1, "spool")

    async def start(self) -> None:
        """Take a folder, and what dead processes left. Raises SettingsError when that cannot be."""
        try:
            await self._on_disk(self._take_places)
        except OSError as exc:
            raise SettingsError([f"collector.spool: {exc.filename or self._root}: {exc.strerror}"]) from exc
        if self._segments:
            log.info("spool.adopted", rows=self.rows, files=len(self._segments))
        self.tell()

    async def stop(self) -> None:
        """What is in it stays, for the next start."""
        if self._writer is not None:
            await self._writer
        await self._on_disk(self._leave)
        self._disk.shutdown()

    # -- what there is

    @property
    def name(self) -> str:
        """Of this process's part; nobody else has it."""
        return self._own.name

    @property
    def rows(self) -> int:
        return sum(one.rows for one in self._segments)

    @property
    def size(self) -> int:
        return sum(one.size for one in self._segments)

    @property
    def empty(self) -> bool:
        return not self._segments

    @property
    def full(self) -> bool:
        return self.size + self._waits >= self._most

    def tell(self) -> None:
        """To the metrics."""
        metrics.SPOOL_ROWS.set(self.rows)
        metrics.SPOOL_BYTES.set(self.size)
        metrics.SPOOL_OLDEST.set(max(0.0, time.time() - self._segments[0].since) if self._segments else 0)

    # -- in

    async def put(self, rows: Rows) -> Refusal | None:
        """None when all of it is on the disk. Together or not at all, as far as anybody is told."""
        frame, count = encode(rows)
        if self.size + self._waits + len(frame) > self._most or self._waits > MOST_WAITING:
            metrics.SPOOLED.labels("spool_full").inc(count)
            return "spool_full"
        done: asyncio.Future[Refusal | None] = asyncio.get_running_loop().create_future()
        self._waiting.append((frame, count, done))
        self._waits += len(frame)
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write_waiting())
        refusal = await done
        metrics.SPOOLED.labels(refusal or "spooled").inc(count)
        return refusal

    async def _write_waiting(self) -> None:
        """Until nothing waits: one write and one fdatasync for whatever came during the last."""
        while self._waiting:
            group, self._waiting = self._waiting, []
            data = b"".join(frame for frame, _, _ in group)
            refusal: Refusal | None = None
            try:
                await self._on_disk(self._append, data, sum(count for _, count, _ in group))
            except OSError as exc:
                refusal = "spool_failed"
                if not self._failing:
                    log.warning("spool.not_written", error=exc.strerror)
            self._failing = refusal is not None
            self._waits -= len(data)
            for _, _, done in group:
                if not done.done():
                    done.set_result(refusal)
            self.tell()

    def _append(self, data: bytes, count: int) -> None:
        """Raises OSError; then nothing of it is there, as far as we can see to that."""
        if self._open is None or self._open[0].size >= SEGMENT:
            self._close()
            self._open = self._begin()
        segment, file = self._open
        try:
            left = memoryview(data)
            while left:
                left = left[os.write(file, left) :]
            _flush(file)
        except OSError:
            # after a failed fsync nobody knows what is on the disk: nothing more goes into this file
            try:
                os.ftruncate(file, segment.size)
            finally:
                self._close()
                if not segment.size:
                    self._segments.remove(segment)
                    segment.path.unlink(missing_ok=True)
            raise
        segment.size += len(data)
        segment.rows += count

    def _begin(self) -> tuple[Segment, int]:
        segment = Segment(self._own / f"{int(time.time() * 1000):013d}-{secrets.token_hex(4)}.rows")
        file = os.open(segment.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        try:
            # or the file's name is gone after a power cut, and with it all that was answered for
            _sync_folder(self._own)
        except OSError:
            os.close(file)
            raise
        self._segments.append(segment)
        return segment, file

    # -- out

    async def oldest(self) -> tuple[Segment, list[Entry]] | None:
        """The rows of the oldest file, which gets no more of them."""
        if not self._segments:
            return None
        segment = self._segments[0]
        return segment, await self._on_disk(self._read, segment)

    async def done(self, segment: Segment) -> None:
        """Kafka has all of it."""
        await self._on_disk(segment.path.unlink, True)
        if segment in self._segments:
            self._segments.remove(segment)
        self.tell()

    def _read(self, segment: Segment) -> list[Entry]:
        if self._open is not None and self._open[0] is segment:
            self._close()
        if segment not in self._segments:  # its first write has just failed
            return []
        data = segment.path.read_bytes()
        return [entry for _, _, body in frames(data) for entry in decode(body)]

    # -- places

    def _take_places(self) -> None:
        # late, and here only: Windows has none
        import fcntl

        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        gate = os.open(self._root / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(gate, fcntl.LOCK_EX)
            self._own.mkdir(mode=0o700)
            lock = os.open(self._own / "lock", os.O_RDWR | os.O_CREAT, 0o600)
            self._held.append(lock)
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for place in self._root.iterdir():
                if place != self._own and place.is_dir():
                    self._adopt(place)
            _sync_folder(self._own)
            _sync_folder(self._root)
        finally:
            os.close(gate)
        self._segments.sort(key=lambda one: one.path.name)

    def _adopt(self, place: Path) -> None:
        """The files of this folder, if its process is dead."""
        import fcntl

        lock = os.open(place / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        finally:
            os.close(lock)  # and with it the lock: whoever starts after us waits at the gate
        for path in place.glob("*.rows"):
            segment = _measured(path.rename(self._own / path.name))
            if segment.rows:
                self._segments.append(segment)
            else:
                segment.path.unlink()
        (place / "lock").unlink()
        try:
            place.rmdir()
        except OSError:
            log.warning("spool.strange_files", folder=str(place))

    def _leave(self) -> None:
        self._close()
        if not self._segments:
            for path in (self._own / "lock", self._own):
                path.rmdir() if path.is_dir() else path.unlink(missing_ok=True)
        while self._held:
            os.close(self._held.pop())

    def _close(self) -> None:
        if self._open is not None:
            os.close(self._open[1])
            self._open = None

    async def _on_disk(self, work: Callable[..., T], *args: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._disk, work, *args)


def _measured(path: Path) -> Segment:
    data, segment = path.read_bytes(), Segment(path)
    for count, size, _ in frames(data):
        segment.rows += count
        segment.size += size
    if torn := len(data) - segment.size:
        log.warning("spool.torn", file=path.name, bytes=torn)  # the end of a write that nobody was told of
    return segment


def _flush(file: int) -> None:
    # macOS has no fdatasync
    getattr(os, "fdatasync", os.fsync)(file)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
