"""What is known of an id: event id, order number, or another copy's event id (alias)."""

import asyncio
import time
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Any

import aiohttp
import orjson
import structlog

from app import keys
from app.dedup import ALIAS
from app.events import Json
from app.lossless import Lost

if TYPE_CHECKING:
    from app.main import Pipeline

log = structlog.get_logger()

MOST = 100  # conversions shown of one id: a placeholder has any number
ASK_OTHERS = 3.0  # seconds that another worker has for its answer


def here(pipeline: "Pipeline", wanted: str) -> list[Json]:
    """Every conversion that this worker has under this id."""
    prefix = (wanted + keys.SEPARATOR).encode()
    found: dict[bytes, Json] = {}
    for p in range(pipeline.partitions):
        if not pipeline.seen.has(p):
            continue
        try:
            found.update(_in_partition(pipeline, p, prefix))
        except Lost:
            continue  # just moved away: its new owner answers
    return [found[key] for key in sorted(found)]


def _in_partition(pipeline: "Pipeline", p: int, prefix: bytes) -> dict[bytes, Json]:
    wanted = {key for key, _ in islice(pipeline.seen.items(p, prefix), MOST)}
    for alias, row in pipeline.seen.items(p, ALIAS + prefix):
        _, site, name = keys.parts(alias.removeprefix(ALIAS))
        wanted.add(keys.SEPARATOR.join((orjson.loads(row)["="], site, name)).encode())
    ordered = sorted(wanted)
    rows = zip(ordered, pipeline.seen.get(p, ordered), pipeline.held.get(p, ordered), strict=True)
    return {key: _journey(pipeline, p, key, orjson.loads(row), hold) for key, row, hold in rows if row is not None}


def _journey(pipeline: "Pipeline", p: int, key: bytes, row: Json, hold: bytes | None) -> Json:
    conversion, site, event_name = keys.parts(key)
    journey: Json = {
        "id": conversion,
        "site": site,
        "event_name": event_name,
        "apart": keys.apart(key),
        "partition": p,
        "state": {None: "held", "unconfirmed": "parked"}.get(row["s"], "closed"),
        "copies": [
            {
                "source": source,
                "received": _iso(received),
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
        "destinations": {},
    }
    if row["s"]:
        journey["decision"] = {"how": row["s"], "at": _iso(row["t"])}
    elif hold is not None:
        held = orjson.loads(hold)
        deadline = held["d"]
        journey["waits_for"] = "confirmation" if "k" in held else "copies"
        journey["held_until"] = _iso(deadline)
        journey["seconds_left"] = max(0.0, round(deadline / 1000 - time.time(), 1))
    for name, deliver in pipeline.deliver.items():
        journey["destinations"][name] = _destination(row, name, deliver.outcomes.get(p, [key])[0], deliver.halted)
    return journey


def _destination(row: Json, name: str, outcome: bytes | None, halted: str) -> Json:
    if outcome is not None:
        said = orjson.loads(outcome)
        shown = {
            "state": said["o"],
            "at": _iso(said["t"]),
            "attempts": said["n"],
            "reason": said["r"],
            "detail": said["d"],
        }
        return {k: v for k, v in shown.items() if v not in ("", None)}
    if not row["s"]:
        return {"state": "held"}
    if name in row.get("r", {}):
        state, reason = row["r"][name]
        return {"state": state, "reason": reason}
    return {"state": "halted", "reason": halted} if halted else {"state": "queued"}


def _origin(place: str) -> Json:
    """Where a copy was read, as app.dedup writes it: topic/partition/offset, or the collector's id of the request."""
    if "/" not in place:
        return {"request": place} if place else {}
    topic, partition, offset = place.rsplit("/", 2)
    return {"topic": topic, "partition": int(partition), "offset": int(offset)}


def _iso(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


async def everywhere(pipeline: "Pipeline", wanted: str) -> Json:
    """What all workers know of this id."""
    journeys = here(pipeline, wanted)
    mine = str(pipeline.app.conf.canonical_url).rstrip("/")
    others = {str(url).rstrip("/") for url in pipeline.app.assignor.tables_metadata()} - {mine}
    answers = await asyncio.gather(*(_ask(pipeline, url, wanted) for url in sorted(others)))
    for answer in answers:
        journeys += answer or []
    unique = {(j["id"], j["site"], j["event_name"], j["apart"]): j for j in journeys}
    return {
        "id": wanted,
        "conversions": [unique[key] for key in sorted(unique)],
        "workers_asked": 1 + len(others),
        "workers_silent": sum(answer is None for answer in answers),
    }


async def _ask(pipeline: "Pipeline", url: str, wanted: str) -> list[Any] | None:
    session = await pipeline.http()
    try:
        async with session.get(
            f"{url}/local.json", params={"id": wanted}, timeout=aiohttp.ClientTimeout(total=ASK_OTHERS)
        ) as response:
            if response.status != 200:
                return None
            answer: list[Any] = orjson.loads(await response.read())
            return answer
    except (aiohttp.ClientError, TimeoutError, OSError, orjson.JSONDecodeError) as exc:
        log.info("view.worker_silent", worker=url, error=type(exc).__name__)
        return None
