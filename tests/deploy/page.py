"""Serves the /metrics page of a worker, or of a collector, with every metric of app/metrics.py at plausible values.

python page.py PORT worker|collector

Counters rise with each scrape. A collector has only what it counts itself; the rest it shows as a process does that never
touches it: unlabelled metrics at 0, no series of the others.
"""

import sys

from aiohttp import web
from prometheus_client import Counter, Enum, Gauge, Histogram

from app import metrics

#: Label -> the values to show. Two destinations that stand, of different reasons.
VALUES = {
    "topic": ("shop.orders", "capistream.events", "capistream.to.meta"),
    "partition": ("0", "1"),
    "event": ("purchase", "page_view"),
    "source": ("pixel", "server"),
    "reason": ("missing", "not_json"),
    "kind": ("repeat", "late"),
    "field": ("user.email",),
    "closed": ("complete", "no_hold", "hold_ended", "unconfirmed", "updated"),
    "flag": ("hot_id", "several_people"),
    "destination": ("meta", "ga4"),
    "outcome": (
        "delivered",
        "accepted",
        "rejected",
        "skipped",
        "held_back",
        "relayed",
        "given_up",
        "spooled",
        "spool_full",
    ),
    "measurement_id": ("G-ABC1234567",),
    "status": ("200", "503", "0"),
    "complaint": ("value_invalid",),
    "table": ("seen",),
    "label": ("bot", "prefetch", "internal"),
}
STATES = {"meta": "halted", "ga4": "ok"}
GAUGES = {
    "capistream_max_age": 7 * 86_400.0,
    "capistream_oldest_waiting_seconds": 4 * 86_400.0,
    "capistream_api_sunset_timestamp_seconds": 2_000_000_000.0,
    "capistream_not_ready": 0.0,
    "capistream_stalled_partitions": 0.0,
}
COLLECTOR = {
    *("capistream_copies", "capistream_refused", "capistream_ignored", "capistream_fields_dropped"),
    *("capistream_relayed", "capistream_relay_waiting", "capistream_labelled"),
    *("capistream_spooled", "capistream_spool_rows", "capistream_spool_bytes", "capistream_spool_oldest_seconds"),
}


def every() -> list[Counter | Gauge | Histogram | Enum]:
    """All that app/metrics.py declares."""
    return [one for one in vars(metrics).values() if isinstance(one, Counter | Gauge | Histogram | Enum)]


def combinations(names: tuple[str, ...]) -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = [()]
    for name in names:
        found = [(*one, value) for one in found for value in VALUES[name]]
    return found


def move(role: str) -> None:
    """What happens between two scrapes."""
    for one in every():
        if role == "collector" and one._name not in COLLECTOR:
            continue
        for labels in combinations(one._labelnames):
            series = one.labels(*labels) if labels else one
            if isinstance(series, Enum):
                series.state(STATES[labels[0]])
            elif isinstance(series, Counter):
                series.inc(10)
            elif isinstance(series, Histogram):
                series.observe(0.2)
            else:
                series.set(GAUGES.get(one._name, 3.0))


def application(role: str) -> web.Application:
    async def page(request: web.Request) -> web.Response:
        move(role)
        return await metrics.page(request)

    app = web.Application()
    app.router.add_get("/metrics", page)
    return app


if __name__ == "__main__":
    web.run_app(application(sys.argv[2]), host="127.0.0.1", port=int(sys.argv[1]), print=None)
