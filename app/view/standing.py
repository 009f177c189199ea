"""How destinations stand: what each worker knows of its own part, and all of it together. Pure, but for `here`."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from app import keys, metrics
from app.events import Json
from app.outcome_rows import NAME
from app.view.lookup import iso

if TYPE_CHECKING:
    from agents.deliver import Deliver
    from app.main import Pipeline

#: The worst first.
STATES = ("paused", "halted", "retrying", "slow", "ok")


def here(pipeline: "Pipeline") -> dict[str, Json]:
    """By destination, as far as this worker has its events."""
    return {name: _here(pipeline, name, one) for name, one in pipeline.deliver.items()}


def _here(pipeline: "Pipeline", name: str, one: "Deliver") -> Json:
    standing = one.queue.standing()
    lag = sum(place.lag for tp, place in pipeline.health.places.items() if tp.topic == one.topic)
    return {
        "state": standing.state,
        "reason": standing.reason,
        "waiting": standing.waiting,
        "in_flight": standing.in_flight,
        "parked": one.parked,
        "lag": lag,
        "oldest": round(max(standing.age, one.oldest_parked), 1),
        "spent": round(standing.spent, 4),
        "without_topic": one.without_topic,
        "per_second": round(one.recent.per_second(one.clock.unix()), 2),
        "failed_at": one.recent.failed_at,
        "failure": one.recent.failure,
        "answers": {str(of["status"]): count for of, count in _samples(metrics.ATTEMPTS, name, "_total")},
        "outcomes": {str(of["outcome"]): count for of, count in _samples(metrics.OUTCOMES, name, "_total")},
        "seconds": {str(of["le"]): count for of, count in _samples(metrics.REQUEST_SECONDS, name, "_bucket")},
    }


def waiting(pipeline: "Pipeline", name: str, most: int, *, under_way: bool) -> Json:
    """What waits at this worker to go there, or is in a request, the events that happened first."""
    one = pipeline.deliver[name]
    total, events = one.under_way(most) if under_way else one.waiting(most)
    return {"total": total, "events": [_waits(one["key"], one["time"], set_aside=one["set_aside"]) for one in events]}


def _waits(row_key: bytes, time: int, *, set_aside: bool) -> Json:
    key, name = row_key.split(NAME, 1)
    return {**(brief(key, time) or {}), "name": name.decode(), "set_aside": set_aside}


def brief(key: bytes | None, time: int) -> Json | None:
    """A line of a list; None where this is no conversion's key."""
    try:
        id_, site, event_name = keys.parts(key or b"")
    except ValueError:
        return None
    said: Json = {"id": id_, "site": site, "event_name": event_name, "apart": keys.apart(key or b""), "time": iso(time)}
    return said | {"name": "", "set_aside": False}


def _samples(metric: Any, name: str, kind: str) -> Iterable[tuple[Mapping[str, str], int]]:
    for family in metric.collect():
        for sample in family.samples:
            if sample.name.endswith(kind) and sample.labels.get("destination") == name:
                yield sample.labels, int(sample.value)


def together(of_workers: Sequence[tuple[str, Mapping[str, Json]]], name: str) -> Json:
    """One destination at all workers: (address, what it told). The state is that of the worst."""
    told = [(worker, some[name]) for worker, some in of_workers if name in some]
    worst = min((one for _, one in told), key=lambda one: STATES.index(one["state"]), default=None)
    failed = max((one for _, one in told), key=lambda one: one.get("failed_at", 0.0), default={})
    answers, outcomes, seconds = (_sum(one[part] for _, one in told) for part in ("answers", "outcomes", "seconds"))
    return {
        "state": worst["state"] if worst else "unknown",
        "reason": worst["reason"] if worst else "",
        **{part: sum(one[part] for _, one in told) for part in ("waiting", "in_flight", "parked", "lag")},
        "oldest": max((one["oldest"] for _, one in told), default=0.0),
        "spent": max((one["spent"] for _, one in told), default=0.0),
        "without_topic": any(one["without_topic"] for _, one in told),
        "per_second": round(sum(one.get("per_second", 0.0) for _, one in told), 2),
        "failure": failed.get("failure", ""),
        "failed_at": iso(failed["failed_at"] * 1000) if failed.get("failed_at") else "",
        "answers": answers,
        "outcomes": outcomes,
        "latency": {f"p{part}": _percentile(seconds, part / 100) for part in (50, 95, 99)} if seconds else {},
        "workers": [{"worker": worker, "state": one["state"], "reason": one["reason"]} for worker, one in told],
    }


def _sum(some: Iterable[Mapping[str, int]]) -> dict[str, int]:
    found: Counter[str] = Counter()
    for one in some:
        found.update(one)
    return dict(sorted(found.items()))


def _percentile(buckets: Mapping[str, int], part: float) -> float | None:
    """Seconds within which this part of the requests was answered, at most; None: longer than the longest that is counted."""
    ordered = sorted((math.inf if le == "+Inf" else float(le), count) for le, count in buckets.items())
    total = ordered[-1][1]
    limit = next((le for le, count in ordered if total and count >= part * total), math.inf)
    return None if limit == math.inf else limit
