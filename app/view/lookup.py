"""What is known of an id: event id, order number, or another copy's event id (alias). From the tables, at all workers."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING
from urllib.parse import quote

import orjson

from app import keys
from app.dedup import ALIAS, MEMORY
from app.events import Json
from app.lossless import Lost
from app.outcome_rows import NAME, PARKED
from app.view import peers
from app.view.access import Access

if TYPE_CHECKING:
    from agents.deliver import Deliver
    from app.main import Pipeline

MOST = 100  # conversions shown of one id: a placeholder has any number
DONE = ("delivered", "accepted")


def here(pipeline: "Pipeline", wanted: str) -> Json:
    """Every conversion that this worker has under this id, and since when it remembers, by partition, in Unix milliseconds."""
    prefix = (wanted + keys.SEPARATOR).encode()
    found: dict[bytes, Json] = {}
    since: dict[str, int] = {}
    for p in range(pipeline.partitions):
        if not pipeline.seen.has(p):
            continue
        try:
            found.update(_in_partition(pipeline, p, prefix))
            (memory,) = pipeline.seen.get(p, [MEMORY])
            since[str(p)] = orjson.loads(memory)["since"] if memory else 0
        except Lost:
            continue  # just moved away: its new owner answers
    return {"conversions": [found[key] for key in sorted(found)], "since": since}


def _in_partition(pipeline: "Pipeline", p: int, prefix: bytes) -> dict[bytes, Json]:
    wanted = {key for key, _ in islice(pipeline.seen.items(p, prefix), MOST)}
    for alias, row in islice(pipeline.seen.items(p, ALIAS + prefix), MOST):
        _, site, name = keys.parts(alias.removeprefix(ALIAS))
        wanted.add(keys.SEPARATOR.join((orjson.loads(row)["="], site, name)).encode())
    ordered = sorted(wanted)
    rows = zip(ordered, pipeline.seen.get(p, ordered), pipeline.held.get(p, ordered), strict=True)
    return {key: _conversion(pipeline, p, key, orjson.loads(row), hold) for key, row, hold in rows if row is not None}


def _conversion(pipeline: "Pipeline", p: int, key: bytes, row: Json, hold: bytes | None) -> Json:
    conversion, site, event_name = keys.parts(key)
    said: Json = {
        "id": conversion,
        "site": site,
        "event_name": event_name,
        "apart": keys.apart(key),
        "partition": p,
        "state": {None: "held", "unconfirmed": "parked"}.get(row["s"], "closed"),
        "copies": [
            {
                "source": source,
                "received": iso(received),
                "event_id": event_id or conversion,
                "offset": offset,
                "origin": _origin(origin),
            }
            for source, received, offset, event_id, origin in row["c"]
        ],
        "received": row["n"],
        "people": row.get("g", 1),
        "hot": "h" in row,
        "revisions": row.get("u", 0),
        "records": row.get("x", []),
        "destinations": {},
    }
    if row["s"]:
        said["decision"] = {"how": row["s"], "at": iso(row["t"])}
    elif hold is not None:
        held = orjson.loads(hold)
        deadline = held["d"]
        said["waits_for"] = "confirmation" if "k" in held else "copies"
        said["held_until"] = iso(deadline)
        said["seconds_left"] = max(0.0, round(deadline / 1000 - time.time(), 1))
    for name, deliver in pipeline.deliver.items():
        said["destinations"][name] = _destination(deliver, p, key, row, name)
    return said


def _destination(deliver: "Deliver", p: int, key: bytes, row: Json, name: str) -> Json:
    """What became of it there; the worst first, where the platform has several names for it."""
    said = [
        _outcome(row_key.split(NAME, 1)[1].decode(), orjson.loads(value))
        for row_key, value in deliver.outcomes.items(p, key + NAME)
        if deliver.waits(row_key) is None  # else it is sent anew
    ]
    said += _waiting(deliver, p, key, keys.parts(key)[2])
    if said:
        worst = min(said, key=lambda one: one["state"] in DONE)
        return worst | ({"names": said} if len(said) > 1 else {})
    if not row["s"]:
        return {"state": "held"}
    if name in row.get("r", {}):
        state, reason = row["r"][name]
        return {"state": state, "reason": reason}
    return _stopped(deliver, {"state": "queued"})


def _outcome(name: str, said: Json) -> Json:
    shown = {
        "state": said["o"],
        "name": name,
        "at": iso(said["t"]),
        "attempts": said["n"],
        "reason": said["r"],
        "detail": said["d"],
        "traces": said.get("x"),
    }
    return {k: v for k, v in shown.items() if v not in ("", None)}


def _waiting(deliver: "Deliver", p: int, key: bytes, event_name: str) -> Iterator[Json]:
    """What is on its way there: in the queue, in a request, or set aside."""
    for name in deliver.settings.platform_names(deliver.sink.names, event_name):
        if (said := deliver.waits(key + NAME + name.encode())) is not None:
            shown = {"state": "queued", "name": name, "attempts": said["attempts"], "traces": said["traces"]}
            due = {"under_way": True} if said["under_way"] else {"next_try": iso(said["next"] * 1000)}
            yield _stopped(deliver, shown | due)
    for row_key, value in deliver.outcomes.items(p, PARKED + key + NAME):
        if deliver.waits(row_key.removeprefix(PARKED)) is None:
            said, name = orjson.loads(value), row_key.split(NAME, 1)[1].decode()
            shown = {
                "state": "queued",
                "name": name,
                "set_aside": True,
                "attempts": said["n"],
                "traces": said.get("x", []),
            }
            yield _stopped(deliver, shown | {"next_try": iso(said["until"] * 1000)})


def _stopped(deliver: "Deliver", said: Json) -> Json:
    """The same, where the destination as a whole stands still, or is slow: that is why it waits."""
    if deliver.halted:
        return {**said, "state": "halted", "reason": deliver.halted}
    _, why = deliver.queue.standing_now()
    return {**said, "reason": why} if why else said


def _origin(place: str) -> Json:
    """Where a copy was read, as app.dedup writes it: topic/partition/offset, or the collector's id of the request."""
    if "/" not in place:
        return {"request": place} if place else {}
    topic, partition, offset = place.rsplit("/", 2)
    return {"topic": topic, "partition": int(partition), "offset": int(offset)}


def iso(milliseconds: float) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


async def everywhere(pipeline: "Pipeline", access: Access, wanted: str) -> Json:
    """What all workers know of this id."""
    answers = await peers.ask(pipeline, access, f"/local.json?id={quote(wanted, safe='')}")
    told = [here(pipeline, wanted), *filter(None, answers.values())]
    unique = {
        (one["id"], one["site"], one["event_name"], one["apart"]): one for some in told for one in some["conversions"]
    }
    since = max((at for some in told for at in some["since"].values()), default=0)
    said: Json = {
        "id": wanted,
        "conversions": [unique[key] for key in sorted(unique)],
        "workers_asked": 1 + len(answers),
        "workers_silent": sum(answer is None for answer in answers.values()),
    }
    return said | ({"since": iso(since)} if since else {})
