"""Writes capistream.json, the Grafana board, from the rows below: `make docs`. A test fails when it is out of date.

The JSON is Grafana's dashboard model (https://grafana.com/docs/grafana/latest/dashboards/build-dashboards/view-dashboard-json-model/).
Queries sum over workers, since each tells of its own share. Unlabelled metrics stand at 0 in the collector's page.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("capistream.json")
DATA_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
WIDE = 24  # units of Grafana's grid

PER_SECOND, COUNT, SHARE, SECONDS, BYTES, DAYS = "cps", "short", "percentunit", "s", "bytes", "suffix: d"

Steps = tuple[tuple[float | None, str], ...]  # from which value on which colour
RED: Steps = ((None, "green"), (1, "red"))
NEEDED: Steps = ((None, "red"), (1, "green"))
HALF: Steps = ((None, "green"), (0.25, "yellow"), (0.5, "red"))
SUNSET: Steps = ((None, "red"), (7, "yellow"), (60, "green"))

STATES = ("ok", "slow", "retrying", "paused", "halted")
COLOURS = ("green", "blue", "yellow", "purple", "red")


def chosen(metric: str, labels: str = "") -> str:
    """The series of the destinations that the reader has chosen."""
    return f'{metric}{{destination=~"$destination"{", " if labels else ""}{labels}}}'


def summed(series: str, by: tuple[str, ...]) -> str:
    return f"sum by ({', '.join(by)}) ({series})" if by else f"sum({series})"


def rate(series: str, *by: str) -> str:
    """A second."""
    return summed(f"rate({series}[$__rate_interval])", by)


def hour(series: str, *by: str) -> str:
    """In the hour before."""
    return summed(f"increase({series}[1h])", by)


def most(series: str, *by: str) -> str:
    """95 of 100 take less, by a histogram's buckets."""
    return f"histogram_quantile(0.95, {rate(series, *by, 'le')})"


# the worst state that any worker is in, as a number
STATE = "max by (destination) ({})".format(
    " or ".join(
        f"{number} * " + chosen("capistream_destination", f'capistream_destination="{state}"')
        for number, state in enumerate(STATES)
    )
)
OLDEST = (
    f"max by (destination) ({chosen('capistream_oldest_waiting_seconds')})"
    f" / max by (destination) ({chosen('capistream_max_age_seconds')})"
)


@dataclass(frozen=True)
class Panel:
    """One panel: queries by their legend, in one unit."""

    title: str
    description: str
    unit: str
    queries: dict[str, str]
    kind: str = "timeseries"  # or stat, bargauge, state-timeline
    width: int = 8
    stacked: bool = False
    colours: Steps = ()


def stat(title: str, description: str, unit: str, query: str, colours: Steps = ()) -> Panel:
    return Panel(title, description, unit, {"": query}, "stat", width=4, colours=colours)


OVERVIEW = [
    stat(
        "Copies in",
        "Copies of events accepted, of all sources.",
        PER_SECOND,
        rate("capistream_copies_total"),
    ),
    stat(
        "Conversions",
        "Merged events: what all those copies are.",
        PER_SECOND,
        rate("capistream_conversions_total"),
    ),
    stat(
        "Delivered",
        "Deliveries to all destinations. `accepted`: the platform queues it.",
        PER_SECOND,
        rate('capistream_outcomes_total{outcome=~"delivered|accepted"}'),
    ),
    stat(
        "Destinations that stand",
        "Halted or paused: somebody must act. Their events wait.",
        COUNT,
        "sum(max by (destination) (capistream_halted)) or vector(0)",
        RED,
    ),
    stat(
        "Workers ready",
        "Workers whose /readyz answers 200.",
        COUNT,
        'count(capistream_not_ready{job="capistream-worker"} == 0) or vector(0)',
        NEEDED,
    ),
    stat(
        "Alerts",
        "Alerts that fire; docs/runbook.md has an entry for each.",
        COUNT,
        'count(ALERTS{alertname=~"Capistream.*", alertstate="firing"}) or vector(0)',
        RED,
    ),
    Panel(
        "Copies in, by source",
        "Accepted copies by who reports them. One source that falls alone is a broken tag, or a job that stands.",
        PER_SECOND,
        {"{{source}}": rate("capistream_copies_total", "source")},
        stacked=True,
    ),
    Panel(
        "Conversions, by event",
        "Merged events by name.",
        PER_SECOND,
        {"{{event}}": rate("capistream_conversions_total", "event")},
        stacked=True,
    ),
    Panel(
        "Delivered, by destination",
        "What platforms took.",
        PER_SECOND,
        {"{{destination}}": rate(chosen("capistream_outcomes_total", 'outcome=~"delivered|accepted"'), "destination")},
    ),
    Panel(
        "Held back and skipped",
        "No consent for this destination (held back), or nothing for it (skipped). A step here is a change of the consent banner.",
        PER_SECOND,
        {
            "{{destination}} {{outcome}}": rate(
                chosen("capistream_outcomes_total", 'outcome=~"held_back|skipped"'), "destination", "outcome"
            )
        },
    ),
    Panel(
        "Rejected, by destination",
        "Events that a platform does not take, or that became too old. Each is a dead letter.",
        PER_SECOND,
        {"{{destination}}": rate(chosen("capistream_outcomes_total", 'outcome="rejected"'), "destination")},
    ),
    Panel(
        "Refused, by reason",
        "What could not be taken at all. Each is a dead letter, or was answered 4xx.",
        PER_SECOND,
        {"{{reason}}": rate("capistream_refused_total", "reason")},
    ),
    Panel(
        "Of no person, by label",
        "Copies of robots, of pages fetched in advance, of internal networks. By default no destination gets them.",
        PER_SECOND,
        {"{{label}}": rate("capistream_labelled_total", "label")},
    ),
]

DEDUP = [
    Panel(
        "Pairs, by event",
        "The part of the conversions that got all copies that were expected. Not shown below 20 in an hour.",
        SHARE,
        {"{{event}}": "capistream:pair_share:1h"},
    ),
    Panel(
        "Why conversions close",
        "complete: all copies are there. hold_ended: one did not come in time. no_hold: none was expected. unconfirmed: parked, "
        "nobody confirmed it. updated: a late copy changed something.",
        PER_SECOND,
        {"{{closed}}": rate("capistream_conversions_total", "closed")},
        stacked=True,
    ),
    Panel(
        "Copies that changed nothing",
        "repeat: came while its conversion was held. late: after it was sent; many of them, and the merge window is too short.",
        PER_SECOND,
        {"{{kind}}": rate("capistream_duplicates_total", "kind")},
    ),
    Panel(
        "Held conversions",
        "They wait for other copies, or are kept for late ones.",
        COUNT,
        {"held": "sum(capistream_held)"},
    ),
    Panel(
        "Clock lag",
        "How far the log's clock is behind: holds end so much later. The slowest source partition decides.",
        SECONDS,
        {"clock": "max(capistream_clock_lag_seconds)"},
    ),
    Panel(
        "Odd conversions",
        "several_people: one id, different people. hot_id: a placeholder. The others were parked, and why.",
        PER_SECOND,
        {"{{flag}}": rate("capistream_flagged_total", "flag")},
    ),
    Panel(
        "Sources left out",
        "Source partitions too far behind to be waited for: their copies may come too late.",
        COUNT,
        {"left out": "max(capistream_sources_left_out)"},
    ),
    Panel(
        "Parts that could not be used",
        "Fields dropped of accepted events, by reason: each makes a match less likely.",
        PER_SECOND,
        {
            "{{field}} {{reason}}": "topk(10, sum by (field, reason) (rate(capistream_fields_dropped_total[$__rate_interval])))"
        },
    ),
    Panel(
        "Schema registry away",
        "Batches that asked the registry in vain and wait.",
        PER_SECOND,
        {"{{topic}}": rate("capistream_registry_away_total", "topic")},
    ),
    Panel(
        "Ignored messages",
        "They report nothing to deliver: identify, group, alias, tombstones.",
        PER_SECOND,
        {"{{kind}}": rate("capistream_ignored_total", "kind")},
    ),
    Panel(
        "Hits handed on to GA4, by outcome",
        "What came of gtag's own reports. All but relayed and no_consent are lost for GA4.",
        PER_SECOND,
        {"{{measurement_id}} {{outcome}}": rate("capistream_relayed_total", "measurement_id", "outcome")},
    ),
    Panel(
        "Hits that wait for GA4",
        "In the collectors' memory: more than a few say that GA4 is slow or away.",
        COUNT,
        {"{{measurement_id}}": summed("capistream_relay_waiting", ("measurement_id",))},
    ),
    Panel(
        "Rows on collectors' disks",
        "What Kafka did not take, and has not got since. It rises while Kafka is away, and is nothing a minute later.",
        COUNT,
        {"rows": summed("capistream_spool_rows", ())},
    ),
    Panel(
        "Collectors' disks",
        "Bytes of those rows; each process keeps collector.spool_size at most.",
        BYTES,
        {"bytes": summed("capistream_spool_bytes", ())},
    ),
    Panel(
        "Oldest row on a disk",
        "How long the oldest of them has been there.",
        SECONDS,
        {"seconds": "max(capistream_spool_oldest_seconds)"},
    ),
    Panel(
        "Through collectors' disks, by outcome",
        "Rows that went there and came back; spool_full and spool_failed were answered 503.",
        PER_SECOND,
        {"{{outcome}}": rate("capistream_spooled_total", "outcome")},
    ),
]

DESTINATIONS = [
    Panel(
        "State",
        "The worst state in any worker. docs/operations.md tells what stops a destination, and how it goes on.",
        COUNT,
        {"{{destination}}": STATE},
        "state-timeline",
        width=WIDE,
    ),
    Panel(
        "Requests, by status",
        "Requests sent, by HTTP status. 0: no answer.",
        PER_SECOND,
        {"{{destination}} {{status}}": rate(chosen("capistream_requests_total"), "destination", "status")},
    ),
    Panel(
        "Time to answer",
        "95 of 100 requests are answered in less.",
        SECONDS,
        {"{{destination}}": most(chosen("capistream_request_seconds_bucket"), "destination")},
    ),
    Panel(
        "Waiting",
        "Events that wait to be sent, without parked ones.",
        COUNT,
        {"{{destination}}": f"sum by (destination) ({chosen('capistream_waiting')})"},
    ),
    Panel(
        "Oldest event that waits",
        "Its age, as a part of the age up to which the platform takes it. Above half, somebody is woken.",
        SHARE,
        {"{{destination}}": OLDEST},
        colours=HALF,
    ),
    Panel(
        "Parked",
        "Events that fail while others pass. Each is tried again until it is too old.",
        COUNT,
        {"{{destination}}": f"sum by (destination) ({chosen('capistream_parked')})"},
    ),
    Panel(
        "Complaints",
        "What the platform's validation finds wrong in what was delivered, in an hour.",
        COUNT,
        {"{{destination}} {{complaint}}": hour(chosen("capistream_complaints_total"), "destination", "complaint")},
    ),
    Panel(
        "Put to validation",
        "Requests that the platform's validation was asked about, too: without them no complaint means nothing.",
        PER_SECOND,
        {"{{destination}} {{status}}": rate(chosen("capistream_checks_total"), "destination", "status")},
    ),
    Panel(
        "Without their topic",
        "Events whose topic did not take them, in an hour. They are delivered, and cannot be replayed.",
        COUNT,
        {"{{destination}}": hour(chosen("capistream_bypassed_total"), "destination")},
    ),
    Panel(
        "Days to the end of the API version",
        "Where the platform has named a day. Update before.",
        DAYS,
        {
            "{{destination}}": f"(min by (destination) ({chosen('capistream_api_sunset_timestamp_seconds')}) - time()) / 86400"
        },
        "bargauge",
        colours=SUNSET,
    ),
]

WORKERS = [
    Panel(
        "Records finished, by topic",
        "Kafka records worked off.",
        PER_SECOND,
        {"{{topic}}": rate("capistream_records_total", "topic")},
    ),
    Panel(
        "Lag, by topic",
        "Records that are not finished, read or not. Those of a destination that stands wait on purpose.",
        COUNT,
        {"{{topic}}": "sum by (topic) (capistream_lag_records)"},
    ),
    Panel(
        "Time of a batch",
        "95 of 100 batches are finished in less.",
        SECONDS,
        {"{{topic}}": most("capistream_batch_seconds_bucket", "topic")},
    ),
    Panel(
        "Stalled, not ready, apart",
        "Partitions in which nothing moves although there is something to do, and workers that are not ready, or apart: without "
        "work, because the others have another configuration.",
        COUNT,
        {
            "stalled {{instance}}": "sum by (instance) (capistream_stalled_partitions)",
            "not ready {{instance}}": 'capistream_not_ready{job="capistream-worker"}',
            "apart {{instance}}": "capistream_apart",
        },
    ),
    Panel(
        "Lost before they were read",
        "Offsets that were gone from a topic, in an hour. Anything but 0 is a loss.",
        COUNT,
        {"{{topic}}": hour("capistream_unread_total", "topic")},
    ),
    Panel(
        "Foreign rows",
        "Rows written by a worker that had lost the partition, overwritten since, in an hour.",
        COUNT,
        {"{{table}}": hour("capistream_foreign_rows_total", "table")},
    ),
    Panel(
        "Processor",
        "Cores in use; a worker uses one at most.",
        COUNT,
        {"{{job}} {{instance}}": 'rate(process_cpu_seconds_total{job=~"capistream-.*"}[$__rate_interval])'},
    ),
    Panel(
        "Memory",
        "Resident memory.",
        BYTES,
        {"{{job}} {{instance}}": 'process_resident_memory_bytes{job=~"capistream-.*"}'},
    ),
    Panel(
        "Answers to Prometheus",
        "Processes that could be scraped.",
        COUNT,
        {"{{job}}": 'sum by (job) (up{job=~"capistream-.*"})'},
    ),
]

ROWS = {"Overview": OVERVIEW, "Copies and pairs": DEDUP, "Destinations": DESTINATIONS, "Workers": WORKERS}


def panel(one: Panel, number: int, x: int, y: int) -> dict[str, Any]:
    """In Grafana's words."""
    defaults: dict[str, Any] = {"unit": one.unit, "min": 0}
    options: dict[str, Any] = {}
    if one.kind == "timeseries":
        drawn = {"lineWidth": 1, "fillOpacity": 10, "showPoints": "never"}
        stacking = {"stacking": {"mode": "normal"}, "fillOpacity": 40} if one.stacked else {}
        defaults["custom"] = drawn | stacking | ({"thresholdsStyle": {"mode": "dashed"}} if one.colours else {})
        options = {
            "legend": {"displayMode": "list", "placement": "bottom"},
            "tooltip": {"mode": "multi", "sort": "desc"},
        }
    elif one.kind == "state-timeline":
        mapped = {str(n): {"text": state, "color": COLOURS[n], "index": n} for n, state in enumerate(STATES)}
        defaults["mappings"] = [{"type": "value", "options": mapped}]
    else:
        options = {"reduceOptions": {"calcs": ["lastNotNull"]}}
    if one.colours:
        steps = [{"value": value, "color": colour} for value, colour in one.colours]
        defaults["thresholds"] = {"mode": "absolute", "steps": steps}
    return {
        "id": number,
        "type": one.kind,
        "title": one.title,
        "description": one.description,
        "datasource": DATA_SOURCE,
        "gridPos": {"x": x, "y": y, "w": one.width, "h": height(one)},
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": options,
        "targets": [
            {"refId": chr(ord("A") + n), "datasource": DATA_SOURCE, "expr": query, "legendFormat": legend or "__auto"}
            for n, (legend, query) in enumerate(one.queries.items())
        ],
    }


def height(one: Panel) -> int:
    return 4 if one.kind == "stat" else 8


def panels() -> list[dict[str, Any]]:
    """Rows from top to bottom, each filled from left to right."""
    found: list[dict[str, Any]] = []
    y = 0
    for row, members in ROWS.items():
        found.append(
            {
                "id": len(found) + 1,
                "type": "row",
                "title": row,
                "collapsed": False,
                "panels": [],
                "gridPos": {"x": 0, "y": y, "w": WIDE, "h": 1},
            }
        )
        x, y, tallest = 0, y + 1, 0
        for one in members:
            if x + one.width > WIDE:
                x, y, tallest = 0, y + tallest, 0
            found.append(panel(one, len(found) + 1, x, y))
            x, tallest = x + one.width, max(tallest, height(one))
        y += tallest
    return found


def board() -> dict[str, Any]:
    """The whole board. Its variables: where the data is, and which destinations to show."""
    destination = {
        "name": "destination",
        "label": "Destination",
        "type": "query",
        "datasource": DATA_SOURCE,
        "query": {"query": "label_values(capistream_destination, destination)", "refId": "destination"},
        "refresh": 2,
        "includeAll": True,
        "allValue": ".*",
        "multi": True,
        "sort": 1,
        "current": {"text": ["All"], "value": ["$__all"]},
    }
    return {
        "uid": "capistream",
        "title": "capistream",
        "description": "Copies in, conversions out. Made by deploy/grafana/board.py.",
        "tags": ["capistream"],
        "schemaVersion": 39,
        "editable": True,
        "timezone": "browser",
        "time": {"from": "now-6h", "to": "now"},
        "refresh": "30s",
        "templating": {
            "list": [{"name": "datasource", "label": "Data", "type": "datasource", "query": "prometheus"}, destination]
        },
        "annotations": {"list": []},
        "panels": panels(),
    }


def text() -> str:
    return json.dumps(board(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    FILE.write_text(text(), "utf-8")
