"""Would a worker that begins now send history? Platforms cannot unsend, so somebody has to want it.

A source whose group has no committed offset begins where `start` says. `latest` sends nothing that happened before. Anything else
does, and where a destination is live the first worker therefore has to be told `--backfill`. Once the group has committed an
offset of the topic the question has been answered: later workers go on where others ended, and need no flag.
"""

from collections.abc import Collection, Mapping
from typing import Any

from aiokafka import TopicPartition

from app import records, topics
from app.errors import SettingsError
from app.settings import Settings


async def must_be_wanted(settings: Settings) -> None:
    """Raises SettingsError, with what would be sent to whom; Unavailable when Kafka does not answer."""
    live = [name for name, one in settings.destinations.items() if one.mode == "live"]
    starting = [name for name, source in settings.sources.items() if source.start != "latest"]
    if not live or not starting:
        return
    committed = await records.committed(settings)
    fresh = never_read(settings, starting, committed)
    if not fresh:
        return
    found = await _records(settings, fresh)
    if lines := [refusal(settings, name, count, live) for name, count in found.items() if count]:
        raise SettingsError(lines)


def never_read(settings: Settings, sources: Collection[str], committed: Mapping[Any, int]) -> list[str]:
    """Those sources of whose topic the group has no offset. A partition that was added later is new, not history."""
    begun = {tp.topic for tp, offset in committed.items() if offset >= 0}
    return [name for name in sources if settings.sources[name].topic not in begun]


def refusal(settings: Settings, source: str, count: int, live: Collection[str]) -> str:
    return (
        f"sources.{source}.start: {settings.sources[source].start}: {count:,} records of history would be read, and what is in "
        f"them sent to {', '.join(live)}. If that is meant, start this worker once with --backfill. If not, set "
        'start = "latest", or mode = "shadow" for the destinations'
    )


async def _records(settings: Settings, sources: Collection[str]) -> dict[str, int]:
    """Source -> offsets between its start and the end of its topic."""
    counts, found = await topics.partition_counts(settings), {}
    async with records.reader(settings) as consumer:
        for name in sources:
            source = settings.sources[name]
            tps = [TopicPartition(source.topic, p) for p in range(counts.get(source.topic, 0))]
            if not tps:
                continue
            consumer.assign(tps)
            ends, begins = await consumer.end_offsets(tps), await consumer.beginning_offsets(tps)
            if (since := source.start_time) is not None:
                begins = await records.written_since(consumer, since, ends)
            found[name] = sum(max(0, ends[tp] - begins[tp]) for tp in tps)
    return found
