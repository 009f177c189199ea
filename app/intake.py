"""From what normalize found to rows for Kafka, counted: the same for the collector and the normalize agent."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice

import structlog

from app import keys, metrics
from app.dead_letter import DeadLetter
from app.events import CANONICAL_NAMES, Origin
from app.formats import Ignored
from app.normalize import Normalized, Result
from app.topics import Names
from app.traffic import LABELS

log = structlog.get_logger()

#: (key, value, timestamp in Unix milliseconds)
Row = tuple[bytes | None, bytes | None, int]
#: (topic, partition) -> rows in order
Rows = dict[tuple[str, int], list[Row]]
#: (topic, partition) -> the offset of each row that was written there; -1, or none at all, where Kafka does not tell it
Places = Mapping[tuple[str, int], Sequence[int]]


def label(event_name: str) -> str:
    """The event name as a metric label: custom names would make endless series."""
    return event_name if event_name in CANONICAL_NAMES else "custom"


def collect(
    rows: Rows, results: Iterable[Result], origin: Origin, stage: str, names: Names, partitions: int, now: int
) -> None:
    """Add the rows of these results to `rows`."""
    for result in results:
        if isinstance(result, Normalized):
            event = result.event
            p = keys.partition(keys.conversion_id(event), partitions)
            rows[names.events, p].append((keys.key(event), result.json, now))
            metrics.series(metrics.COPIES, label(event["event_name"]), event["source"]).inc()
            for one in event.get("labels", ()):
                if one in LABELS:
                    metrics.LABELLED.labels(one).inc()
            for field, reason in result.drops:
                metrics.FIELDS_DROPPED.labels(field, reason).inc()
        elif isinstance(result, Ignored):
            metrics.IGNORED.labels(result.kind).inc()
        else:
            letter = DeadLetter(stage, result.reason, origin, result.index, result.field, result.detail)
            refuse(rows, letter, names, partitions)


def refuse(rows: Rows, letter: DeadLetter, names: Names, partitions: int) -> None:
    """Add a letter to `rows`; counted and logged."""
    metrics.REFUSED.labels(letter.reason).inc()
    log.warning("event.refused", stage=letter.stage, reason=letter.reason, field=letter.field, origin=letter.origin)
    rows[names.dead, letter.partition(partitions)].append(letter.row())


def new_rows() -> Rows:
    return defaultdict(list)


def joined(several: Iterable[Rows]) -> Rows:
    """All of them, in this order."""
    rows = new_rows()
    for some in several:
        for place, more in some.items():
            rows[place] += more
    return rows


def of_each(places: Places, several: Iterable[Rows]) -> list[Places]:
    """Where the rows of each stand, by what Kafka told of all of them when they were written as `joined`."""
    left = {place: iter(offsets) for place, offsets in places.items()}
    return [
        {place: list(islice(left[place], len(its))) for place, its in some.items() if place in left} for some in several
    ]
