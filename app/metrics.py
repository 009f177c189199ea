"""Every metric, with its unit and what to do about it. docs/metrics.md is generated from here."""

from prometheus_client import Counter, Gauge, Histogram

RECORDS = Counter("capistream_records_total", "Kafka records finished, by topic", ["topic"])
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
    "Merged events, by name and why they closed (complete, no_hold, hold_ended)",
    ["event", "closed"],
)
DUPLICATES = Counter(
    "capistream_duplicates_total",
    "Copies that changed nothing: `repeat` while held, `late` after closing",
    ["event", "kind"],
)
HELD = Gauge("capistream_held", "Conversions waiting for their other copies, by partition", ["partition"])
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
HALTED = Gauge("capistream_halted", "1 while a destination is halted: somebody must act", ["destination"])
