"""Every metric, with its unit and what to do about it. docs/metrics.md is generated from here."""

import os
from functools import lru_cache

from aiohttp import web
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    CollectorRegistry,
    Counter,
    Enum,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector

RECORDS = Counter("capistream_records_total", "Kafka records finished, by topic", ["topic"])
UNREAD = Counter(
    "capistream_unread_total",
    "Offsets that were gone from a topic before they were read, by topic: retention, or somebody who deletes. Events are lost; "
    "give the topic a longer retention, the workers more time",
    ["topic"],
)
BATCH_SECONDS = Histogram(
    "capistream_batch_seconds",
    "Seconds from taking a batch to finishing it, by topic",
    ["topic"],
    buckets=(0.005, 0.02, 0.1, 0.5, 2, 10, 60),
)
REGISTRY_AWAY = Counter(
    "capistream_registry_away_total",
    "Batches that asked the schema registry in vain and wait, by topic: look whether it answers, and whether it lets us in",
    ["topic"],
)
COPIES = Counter("capistream_copies_total", "Copies of events accepted, by event name and source", ["event", "source"])
REFUSED = Counter(
    "capistream_refused_total",
    "Events that could not be taken, by reason; each is a dead letter or was answered 4xx. Look at `capistream.dead`",
    ["reason"],
)
IGNORED = Counter(
    "capistream_ignored_total",
    "Messages that report nothing to deliver (identify, group, alias), records without a value (tombstone), and what a source's "
    "`filter` leaves out (filtered)",
    ["kind"],
)
LABELLED = Counter(
    "capistream_labelled_total",
    "Copies without a person to tell of, by label: bot, prefetch, internal. `[traffic]` says which of them count",
    ["label"],
)
RELAYED = Counter(
    "capistream_relayed_total",
    "Hits of gtag and of the Measurement Protocol that came to the collector, by measurement id and what became of them at GA4: "
    "relayed; no_consent; refused (4xx); unknown (no answer in time: GA4 may have it, it is not sent again); given_up (GA4 was "
    "away for 5 min); full (too many waited: `ga4` destinations send their events instead); stopped (the collector ended)",
    ["measurement_id", "outcome"],
)
RELAY_WAITING = Gauge(
    "capistream_relay_waiting",
    "Hits that wait to be handed on to GA4, by measurement id",
    ["measurement_id"],
    multiprocess_mode="livesum",
)
SPOOLED = Counter(
    "capistream_spooled_total",
    "Rows that Kafka did not take from a collector, by what became of them: spooled (kept on its disk), drained (Kafka has them "
    "now), spool_full and spool_failed (answered 503: a bigger `spool_size`, a disk that works)",
    ["outcome"],
)
SPOOL_ROWS = Gauge(
    "capistream_spool_rows", "Rows on the collector's disk that Kafka does not have yet", multiprocess_mode="livesum"
)
SPOOL_BYTES = Gauge(
    "capistream_spool_bytes", "Bytes of those; each process keeps `spool_size` at most", multiprocess_mode="livesum"
)
SPOOL_OLDEST = Gauge(
    "capistream_spool_oldest_seconds",
    "Age of the oldest of them; 0: there are none. It grows while Kafka is away; if Kafka is not, the collector's log tells why",
    multiprocess_mode="livemax",
)
FIELDS_DROPPED = Counter(
    "capistream_fields_dropped_total",
    "Parts of accepted events that could not be used, or that were personal where nothing personal belongs",
    ["field", "reason"],
)
CONVERSIONS = Counter(
    "capistream_conversions_total",
    "Merged events, by name and why they closed (complete, no_hold, hold_ended, unconfirmed, or updated by a late copy)",
    ["event", "closed"],
)
DUPLICATES = Counter(
    "capistream_duplicates_total",
    "Copies that changed nothing: `repeat` while held, `late` after closing",
    ["event", "kind"],
)
FLAGGED = Counter(
    "capistream_flagged_total",
    "What is odd about conversions: several_people (one id, different people: look for a cached page), hot_id (one id for "
    "many: a placeholder), denied_later (a copy that came after closing denies what others allowed: "
    "what still waits is held back), and why they were parked: beyond_horizon, before_memory, unconfirmed",
    ["event", "flag"],
)
HELD = Gauge(
    "capistream_held", "Conversions that wait for other copies or are kept for late ones, by partition", ["partition"]
)
CLOCK_LAG = Gauge(
    "capistream_clock_lag_seconds",
    "How far the log's clock is behind this worker's; merges close so much later. Look at the slowest source partition",
)
SOURCES_LEFT_OUT = Gauge(
    "capistream_sources_left_out", "Source partitions too far behind to be waited for: their copies may come too late"
)
OUTCOMES = Counter(
    "capistream_outcomes_total",
    "Final outcomes, by destination and kind (delivered, rejected, skipped, held_back, erased)",
    ["destination", "outcome"],
)
ATTEMPTS = Counter(
    "capistream_requests_total",
    "Requests sent, by destination and HTTP status (0: no answer)",
    ["destination", "status"],
)
REQUEST_SECONDS = Histogram(
    "capistream_request_seconds",
    "Seconds from sending a request to its answer, by destination",
    ["destination"],
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
CHECKS = Counter(
    "capistream_checks_total",
    "Requests that were taken and also put to the platform's validation, by destination and HTTP status (0: no answer)",
    ["destination", "status"],
)
COMPLAINTS = Counter(
    "capistream_complaints_total",
    "What that validation found wrong, by destination and complaint (at most 50 different ones, then `other`). The events were "
    "delivered, and the platform may ignore them: correct what reports them",
    ["destination", "complaint"],
)
FOREIGN = Counter(
    "capistream_foreign_rows_total",
    "Rows that another worker wrote into a table's changelog after it had lost the partition, overwritten since. Some follow a "
    "worker that was stopped or cut off; many mean that workers cannot keep their partitions",
    ["table"],
)
HALTED = Gauge("capistream_halted", "1 while a destination is halted: somebody must act", ["destination"])
DESTINATION = Enum(
    "capistream_destination",
    "How a destination does in this worker: the series of its state is 1. docs/operations.md tells what stops one, and what to do",
    ["destination"],
    states=["ok", "slow", "retrying", "halted", "paused"],
)
WAITING = Gauge(
    "capistream_waiting",
    "Events of this worker that wait to be sent, by destination, without parked ones",
    ["destination"],
)
PARKED = Gauge(
    "capistream_parked",
    "Events that failed again and again while others passed, by destination; each is tried again until it is too old",
    ["destination"],
)
BYPASSED = Counter(
    "capistream_bypassed_total",
    "Events that went to a destination without its topic, which did not take them: is it there, may we write to it, are its "
    "records limited below 1 MB?",
    ["destination"],
)
OLDEST = Gauge(
    "capistream_oldest_waiting_seconds",
    "Age of the oldest event that waits or is parked, by destination; 0: none does. Compare with capistream_max_age_seconds",
    ["destination"],
)
MAX_AGE = Gauge(
    "capistream_max_age_seconds",
    "The age up to which a destination takes events; older ones are rejected",
    ["destination"],
)
SUNSET = Gauge(
    "capistream_api_sunset_timestamp_seconds",
    "When the platform stops to answer the API version in use, where it has said so, in Unix seconds: update before",
    ["destination"],
)
LAG = Gauge(
    "capistream_lag_records",
    "Records of a source partition of this worker that are not finished, read or not",
    ["topic", "partition"],
)
STALLED = Gauge(
    "capistream_stalled_partitions",
    "Source partitions in which nothing moved for `stall_after`, though there is something to do; `/readyz` names them",
)
NOT_READY = Gauge(
    "capistream_not_ready",
    "1 while this worker's `/readyz` answers 503, which tells the reason: it restores its state, or its work does not move",
)
APART = Gauge(
    "capistream_apart",
    "1 while this worker gets no work because the others have other sources or destinations. Its log says which (`worker.waits`); "
    "it takes over when they are stopped",
)


@lru_cache(maxsize=1024)
def series(counter: Counter, *labels: str) -> Counter:
    """One series of it, for labels with few values: asking for it costs more than counting."""
    return counter.labels(*labels)


async def page(_request: web.Request) -> web.Response:
    """`/metrics`: of this process, or of all that share its folder of numbers (app/collector/several.py)."""
    registry = REGISTRY
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})
