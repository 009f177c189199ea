"""A run of records of one partition, and the two ways not to finish it: the partition is lost, or the process dies."""

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import structlog

log = structlog.get_logger()

#: Exit status of a worker that chose to start anew (EX_SOFTWARE of sysexits.h); a supervisor restarts it.
EXIT_ANEW = 70


class Lost(Exception):
    """The partition is no longer ours, or we cannot prove that it is: drop the work, unfinished."""


def die(why: str, **fields: Any) -> NoReturn:
    """Leave at once, nothing committed, nothing flushed: what is unfinished is read again by the next owner."""
    try:
        log.critical("worker.dies", why=why, **fields)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:  # the log may be on the disk that is full
        os._exit(EXIT_ANEW)


class Batch:
    """Consecutive records of one partition, read in one generation of the group."""

    __slots__ = ("_finished", "bytes", "first", "generation", "next", "records", "tp")

    def __init__(self, tp: Any, records: Sequence[Any], generation: int, finished: Callable[["Batch"], None]) -> None:
        self.tp = tp
        self.records = records
        self.generation = generation
        self.first: int = records[0].offset
        self.next: int = records[-1].offset + 1
        self.bytes = sum(len(record.value or b"") for record in records)
        self._finished = finished

    @classmethod
    def joined(cls, batches: Sequence["Batch"]) -> "Batch":
        """Batches that follow each other as one; where that is finished, each of them is."""
        if len(batches) == 1:
            return batches[0]

        def finished(_: "Batch") -> None:
            for batch in batches:
                batch.finish()

        records = [record for batch in batches for record in batch.records]
        return cls(batches[0].tp, records, batches[0].generation, finished)

    def finish(self) -> None:
        """Everything that came of these records is acknowledged: their offsets may be committed."""
        self._finished(self)

    def __repr__(self) -> str:
        return f"<Batch {self.tp.topic}-{self.tp.partition} {self.first}..{self.next - 1} generation {self.generation}>"
