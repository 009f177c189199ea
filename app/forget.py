"""Who is to be forgotten: orders of people, and the topic `<prefix>.people` that every worker reads before it delivers.

What entries mean is in app/erasure.py.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson
import structlog
from aiokafka.errors import KafkaError

from app import bus, erasure, records, topics
from app.erasure import Entry, Forgotten, Prints
from app.errors import CapistreamError
from app.events import Json
from app.settings import Settings

log = structlog.get_logger()


async def give(settings: Settings, entries: Sequence[Entry]) -> None:
    """Raises Unavailable when Kafka does not take them."""
    name = topics.names(settings).people
    async with records.reader(settings) as consumer:  # a producer would make a topic of its own for a wrong prefix
        await records.must_exist(consumer._client, name)
    async with records.writer(settings) as write:
        await write({(name, 0): [entry.row() for entry in entries]})


async def standing(settings: Settings) -> Forgotten:
    """Everybody who is forgotten now. Raises Unavailable."""
    known = Forgotten()
    try:
        async for record in records.one_for_all(settings, topics.names(settings).people, follow=False):
            known.hear(record.key, record.value, record.timestamp)
    except KafkaError as exc:
        raise bus.problem(exc, "Kafka does not say who is forgotten") from exc
    return known


def prints(settings: Settings) -> Prints:
    """Raises SettingsError for a key that cannot be read."""
    privacy = settings.privacy
    return Prints(privacy.key.read() if privacy.key else "", [one.read() for one in privacy.previous_keys])


class People:
    """Follows the entries for as long as a worker runs, and tells of new ones."""

    def __init__(self, settings: Settings, changed: Callable[[], None]) -> None:
        self._settings, self._changed = settings, changed
        self.prints = prints(settings)
        self.known = Forgotten(self.prints)
        self._news = False  # not told of yet
        self.heard = asyncio.Event()  # everybody who had been forgotten is known

    async def listen(self, stopping: Callable[[], bool]) -> None:
        name = topics.names(self._settings).people
        while not stopping():
            try:
                async for record in records.one_for_all(self._settings, name, follow=True, at_end=self._caught_up):
                    self._news |= self.known.hear(record.key, record.value, record.timestamp)
            except KafkaError as exc:
                log.warning("people.unheard", error=repr(exc))
                await asyncio.sleep(0.5)

    def _caught_up(self) -> None:
        """All that is there for now is read: one word for all of it, as a list of people may come at once."""
        self.heard.set()
        if self._news:
            self._news = False
            self._changed()


# For people


def request(options: Mapping[str, Any], text: bytes, *, withdraw: bool, dry_run: bool) -> Json:
    """What the command was given, as POST /v1/forget takes it. Raises CapistreamError, which quotes nothing."""
    raw: Json = {}
    if text:
        try:
            raw = orjson.loads(text)
        except orjson.JSONDecodeError:
            raise CapistreamError("--file: not JSON") from None
        if not isinstance(raw, dict):
            raise CapistreamError("--file: not an object")
    given = {name: list(value) if isinstance(value, tuple) else value for name, value in options.items() if value}
    if pairs := given.pop("ids", []):
        if not all("=" in pair for pair in pairs):
            raise CapistreamError("--id: NAME=VALUE, for example fbp=fb.1.1700000000000.123456789")
        ids: dict[str, list[str]] = {}
        for name, _, value in (pair.partition("=") for pair in pairs):
            ids.setdefault(name, []).append(value)
        given["ids"] = ids
    flags = {name: True for name, on in (("withdraw", withdraw), ("dry_run", dry_run)) if on}
    return raw | given | flags


def answer(asked: erasure.Asked, entries: Sequence[Entry], settings: Settings) -> Json:
    """What was done, and what remains how long: for `--json` and POST /v1/forget. Holds no identifier."""
    places = erasure.remains(settings)
    counts: dict[str, Any] = {}
    for entry in entries:
        counts[entry.kind] = counts.get(entry.kind, 0) + 1
    said: Json = {"what": asked.what, "dry_run": asked.dry_run, "entries": len(entries), "kinds": counts}
    if asked.what == "erase":
        said |= {name: round(max(getattr(one, name) for one in places)) for name in ("usually", "most")}
        said["remains"] = [
            {"place": one.place, "how": one.how, "usually": round(one.usually), "most": round(one.most)}
            for one in places
        ]
    return said


def for_people(said: Json) -> list[str]:
    would, kinds = ("would be " if said["dry_run"] else ""), ", ".join(said["kinds"])
    done = {"erase": "erased", "withdraw": "withdrawn"}[said["what"]]
    lines = [f"{would}{done}: events that carry one of {said['entries']} digests ({kinds}) and were received until now"]
    if said["what"] == "withdraw":
        return [*lines, "nothing of it is delivered any more; what was received stays until it ages out"]
    last = (
        f", and where a destination stands still, after {duration(said['most'])}"
        if said["usually"] < said["most"]
        else ""
    )
    lines.append(f"nothing of it is delivered any more; anything is gone after {duration(said['usually'])}{last}")
    for one in said["remains"]:
        most = f"; at most {duration(one['most'])}" if one["usually"] < one["most"] else ""
        lines.append(f"  {duration(one['usually']):>16}  {one['place']}: {one['how']}{most}")
    return [
        *lines,
        "not reached: your own topics, what platforms have, workers that never start again (delete their state)",
    ]


def duration(seconds: float) -> str:
    """`7 d 6 h`, rounded up to the minute."""
    minutes = -int(-seconds // 60)
    parts = ((minutes // 1440, "d"), (minutes % 1440 // 60, "h"), (minutes % 60, "min"))
    return " ".join(f"{count} {unit}" for count, unit in parts if count) or "0 min"
