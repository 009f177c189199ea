"""Fetching, with the knowledge of which offsets a fetch has covered; and where logs really end.

Offsets may be missing from what a consumer gets: transaction markers, aborted records, records that compaction or
retention removed. They look like records that were fetched and dropped on the way, which must not be skipped. What tells
them apart is aiokafka's position before and after a fetch, if nothing can happen in between.
"""

import asyncio
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from aiokafka.consumer.fetcher import READ_UNCOMMITTED, FetchResult, PartitionRecords

from app.lossless.fetcher import aside


class Run(NamedTuple):
    """All that a partition has to deliver from the offset `start` up to `end`: `records`, and nothing else.

    A record has `offset`, `timestamp` in Unix milliseconds, `key`, `value` and `headers`.
    """

    start: int
    records: list[Any]
    end: int


class _AsParsed(PartitionRecords):
    """Records as aiokafka's parser made them: a ConsumerRecord around each costs as much again as fetching and checking it."""

    def _consumer_record(self, _tp: Any, record: Any) -> Any:
        return record


async def fetch(
    consumer: Any, partitions: set[Any], known: Mapping[Any, int | None], timeout: float, limit: int
) -> dict[Any, Run]:
    """Runs of those partitions that stand elsewhere than `known` says; after `timeout` seconds perhaps none.

    Call it in the consumer's own thread. A run may be empty: its offsets hold nothing for us, or aiokafka was sent to
    another place.
    """
    fetcher, subscriptions = consumer._fetcher, consumer._subscription
    until = time.monotonic() + timeout
    while True:
        while subscriptions.reassignment_in_progress:
            await subscriptions.wait_for_assignment()
        assignment = subscriptions.subscription.assignment
        states = {tp: state for tp in partitions if (state := assignment.state_value(tp)) and state.has_valid_position}
        starts = {tp: state.position for tp, state in states.items()}
        for one in fetcher._records.values():
            if type(one) is FetchResult and one.has_more():
                one._partition_records.__class__ = _AsParsed
        # With a timeout of 0 and an assignment this never really awaits. So no seek, reset or rebalance comes in between,
        # and what lies between the two positions is what the broker's answer said of them: the position moves over
        # records that are handed to us here and over what aiokafka's parser saw to be no record for us.
        fetched = await fetcher.fetched_records(partitions, timeout=0, max_records=limit)
        runs = {
            tp: Run(starts[tp], fetched.get(tp, []), state.position)
            for tp, state in states.items()
            if state.position != known.get(tp)
        }
        left = until - time.monotonic()
        if left <= 0 or any(run.end != run.start for run in runs.values()):
            return runs
        waiter = fetcher._create_fetch_waiter()
        await asyncio.wait([waiter], timeout=left)
        if not waiter.done():
            waiter.cancel()
        elif fetcher._closed:
            return {}
        else:
            waiter.result()  # errors of authorization


async def log_ends(consumer: Any, partitions: list[Any]) -> dict[Any, int]:
    """The high watermarks, asked now; to a consumer that reads committed records aiokafka would give what it may read."""
    asker = aside(consumer._fetcher, "questions")
    asker._isolation_level = READ_UNCOMMITTED
    ends = await asker.end_offsets(partitions, consumer._request_timeout_ms)
    return {tp: int(offset) for tp, offset in ends.items()}
