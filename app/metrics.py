"""Every metric, with its unit and what to do about it. docs/metrics.md is generated from here."""

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, Counter, Gauge, Histogram, generate_latest

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
COPIES = Counter("capistream_copies_total", "Copies of events accepted, by event name and source", ["event", "source"])
REFUSED = Counter(
    "capistream_refused_total",
    "Events that could not be taken, by reason; each is a dead letter or was answered 4xx. Look at `capistream.dead`",
    ["reason"],
)
IGNORED = Counter(
    "capistream_ignored_total", "Messages that report nothing to deliver (identify, group, alias)", ["kind"]
)
FIELDS_DROPPED = Counter(
    "capistream_fields_dropped_total", "Parts of accepted events that could not be used", ["field", "reason"]
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
    "many: a placeholder), and why they were parked: beyond_horizon, before_memory, unconfirmed",
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
    "Final outcomes, by destination and kind (delivered, rejected, skipped, held_back)",
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
FOREIGN = Counter(
    "capistream_foreign_rows_total",
    "Rows that another worker wrote into a table's changelog after it had lost the partition, overwritten since. Some follow a "
    "worker that was stopped or cut off; many mean that workers cannot keep their partitions",
    ["table"],
)
HALTED = Gauge("capistream_halted", "1 while a destination is halted: somebody must act", ["destination"])
LAG = Gauge(
    "capistream_lag_records",
    "Records of a source partition of this worker that are not finished, read or not",
    ["topic", "partition"],
)
STALLED = Gauge(
    "capistream_stalled_partitions",
    "Source partitions in which nothing moved for `stall_after`, though there is something to do; `/readyz` names them",
)


async def page(_request: web.Request) -> web.Response:
    """`/metrics`."""
    return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})
