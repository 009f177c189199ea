"""Who is forgotten, which events and rows are of them, and what remains how long. The pure half of `capistream forget`.

    read        what somebody gives of a person, in clear or hashed -> entries of capistream.people; nothing clear leaves it
    Forgotten   all entries -> is this event, or this row, of somebody who is forgotten?
    remains     the configuration -> where and how long anything of a person can stay

A withdrawal ends deliveries of what was received until then; an erasure also removes state. Both reach the events that carry one
of the identifiers they name, and no others. Nothing here decides a merge: dedup closes as ever, so the same log gives the same
conversions, and only what may leave changes with an entry.

A record of capistream.people, a compacted topic with one partition:

    key    `<what>:<kind>:<digest>`, and `:<site>` where it is for one site only
    value  {"v": 1, "what": "erase" or "withdraw", "kind": …, "digest": …, "at": Unix milliseconds, "by": …, "site": …}

`kind` is one of KINDS. The digest of an e-mail address or phone is its SHA-256 as events carry it (any variant of
app/identity.py), that of everything else the SHA-256 of the value as events carry it. A record without a value takes its entry
back.
"""

import hashlib
import hmac
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, get_args

import msgspec
import orjson

from app import browser_ids, identity, keys, receipts, redaction, topics
from app.dedup import ALIAS, MEMORY, Closing
from app.errors import BadEvent, SettingsError
from app.events import Event, Ids, Json
from app.formats import NOT_AN_ID
from app.routing import Route
from app.settings import Settings
from app.shape import Copy, as_event, from_event

What = Literal["erase", "withdraw"]

#: What entries name people by. A session id is missing: it is a time, which many people share.
HASHED = ("email", "phone")
IDS = tuple(name for name in Ids.__annotations__ if name not in ("ga_session_id", "__pydantic_config__"))
KINDS = (*HASHED, "user_id", *IDS, "transaction_id", "event_id")

#: What becomes of an event of somebody who is forgotten: outcome and reason.
SUPPRESSED: Mapping[What, tuple[str, str]] = {"erase": ("erased", "erasure"), "withdraw": ("held_back", "withdrawn")}

PRINT = 12  # hex digits of a keyed hash in a row: what is found by mistake loses only what no delivery needs
MOST_PRINTS = 16  # in one row
LEAST_KEY = 16  # characters of `privacy.key`


@dataclass(frozen=True)
class Entry:
    what: What
    kind: str
    digest: str
    at: int  # Unix milliseconds: it reaches what was received until then
    by: str = ""
    site: str = ""  # of which events; empty: of every site

    @property
    def mark(self) -> str:
        return f"{self.kind}:{self.digest}"

    def reaches(self, received: int, site: str) -> bool:
        return received <= self.at and self.site in ("", site)

    def row(self) -> tuple[bytes, bytes, int]:
        """(key, value, timestamp) as the producer wants it."""
        key = ":".join(filter(None, (self.what, self.kind, self.digest, self.site)))
        said = {name: getattr(self, name) for name in self.__dataclass_fields__ if getattr(self, name)}
        return key.encode(), orjson.dumps({"v": 1, **said}), self.at


def entry(value: bytes | None, appended: int) -> Entry | None:
    """The entry of a record, or None for what is none.

    `appended` is when Kafka took it. A time after that counts as that time: nobody can say yet what will be allowed then.
    """
    try:
        said = orjson.loads(value or b"")
        found = Entry(
            said["what"],
            said["kind"],
            said["digest"].lower(),
            min(int(said.get("at", appended)), appended),
            str(said.get("by", "")),
            str(said.get("site", "")),
        )
    except (TypeError, ValueError, KeyError, AttributeError):
        return None
    known = found.what in get_args(What) and found.kind in KINDS and len(found.digest) == 64
    return found if known else None


# What somebody gives


@dataclass(frozen=True)
class Asked:
    """Who shall be forgotten, as digests by kind."""

    what: What
    digests: tuple[tuple[str, str], ...]
    dry_run: bool = False

    def entries(self, at: int, by: str, site: str = "") -> list[Entry]:
        return [Entry(self.what, kind, digest, at, by, site) for kind, digest in self.digests]


#: Name in the request, and of the command's option -> kind.
NAMES = {
    "email": "email",
    "phone": "phone",
    "external_id": "user_id",
    "client_id": "ga_client_id",
    "order": "transaction_id",
    "event_id": "event_id",
}


def read(raw: Any, country: str | None = None) -> Asked:
    """What the request says: {"email": …, "phone": …, "country": …, "external_id": …, "client_id": …, "ids": {"fbp": …},
    "order": …, "event_id": …, "withdraw": false, "dry_run": false}, each identifier one value or a list.

    Raises BadEvent, which names the field and no value.
    """
    if not isinstance(raw, Mapping):
        raise BadEvent("wrong_type", "", "must be an object")
    raw = dict(raw)
    flags = {name: raw.pop(name, False) for name in ("withdraw", "dry_run")}
    if wrong := next((name for name, value in flags.items() if not isinstance(value, bool)), ""):
        raise BadEvent("wrong_type", wrong, "must be true or false")
    country = _country(raw.pop("country", None)) or country
    ids = raw.pop("ids", {})
    if not isinstance(ids, Mapping):
        raise BadEvent("wrong_type", "ids", "must be an object")
    for name in raw:
        if name not in NAMES:
            raise BadEvent("unknown_field", "", f"one of {', '.join(NAMES)}, ids, country, withdraw, dry_run")
    for name in ids:
        if name not in IDS:
            raise BadEvent("unknown_field", "ids", f"one of {', '.join(IDS)}")
    found: list[tuple[str, str]] = []
    for place, kind, values in (
        *((name, NAMES[name], values) for name, values in raw.items()),
        *((f"ids.{name}", name, values) for name, values in ids.items()),
    ):
        for value in values if isinstance(values, list) else [values]:
            found += _digests(kind, value, country, place)
    if not found:
        raise BadEvent(
            "missing", "", "nothing says who is meant: an e-mail address, a phone number or another identifier does"
        )
    return Asked("withdraw" if flags["withdraw"] else "erase", tuple(dict.fromkeys(found)), flags["dry_run"])


def _country(value: Any) -> str | None:
    if value is None:
        return None
    if not (isinstance(value, str) and len(value.strip()) == 2 and value.strip().isalpha()):
        raise BadEvent("wrong_type", "country", "must be two letters (ISO 3166)")
    return value.strip().upper()


def _digests(kind: str, value: Any, country: str | None, place: str) -> list[tuple[str, str]]:
    """Every digest under which an event may carry this identifier."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise BadEvent("wrong_type", place, "must be a text, or a list of texts")
    text = str(value).strip()
    if text.lower() in NOT_AN_ID:
        raise BadEvent("missing", place, "is missing")
    if kind in HASHED:
        try:
            hashes = list(identity.hashes(kind, text, country).values())
        except identity.Unusable as exc:
            raise BadEvent(str(exc), place, "is none that events could carry") from None
        # shops use addresses as ids of people, too, and app/normalize.py hashes those
        return [*((kind, one) for one in hashes), *(("user_id", identity.sha256(one)) for one in hashes)]
    if kind == "user_id" and (hashed := redaction.of_a_person(text, country)) != text:
        before = identity.sha256(text.lower())  # as events of earlier versions carry a phone number
        return [(kind, identity.sha256(one)) for one in dict.fromkeys((hashed, before))]
    text = browser_ids.bare(kind, text)  # as app/normalize.py does with a cookie's value
    if redaction.in_an_id(text):
        raise BadEvent("personal_id", place, "looks like an e-mail address or phone number")
    # a hash may stand for itself, where the shop's own ids are hashes, or for what was hashed
    return [
        (kind, identity.sha256(text)),
        *([(kind, text.lower())] if len(text) == 64 and identity.is_sha256(text) else []),
    ]


# Of whom is it?


def marks(event: Event, kinds: Collection[str] = KINDS) -> Iterator[str]:
    """Everything that entries of these kinds could name this event by."""
    user: Any = event.get("user", {})
    for kind in HASHED:
        if kind in kinds:
            for digest in user.get(kind, {}).values():
                yield f"{kind}:{digest}"
    if "user_id" in kinds and "user_id" in user:
        yield f"user_id:{identity.sha256(user['user_id'])}"
    for kind, value in event.get("ids", {}).items():
        if kind in kinds:
            yield f"{kind}:{identity.sha256(str(value))}"
    if "transaction_id" in kinds and (order := event.get("commerce", {}).get("transaction_id")):
        yield f"transaction_id:{identity.sha256(order)}"
    if "event_id" in kinds:
        event_id = event["event_id"]
        yield f"event_id:{identity.sha256(event_id.removesuffix('.' + event['apart']) if 'apart' in event else event_id)}"


class Prints:
    """Keyed hashes of marks, short, for rows that outlive the data. Without a key there are none."""

    def __init__(self, key: str = "", previous: Sequence[str] = ()) -> None:
        """Raises SettingsError for a key that is too short."""
        self.keys = [one.encode() for one in (key, *previous) if one]
        if any(len(one) < LEAST_KEY for one in self.keys):
            raise SettingsError([f"privacy.key: {LEAST_KEY} characters or more"])

    def of_copies(self, copies: Iterable[Event]) -> list[str]:
        """Under the key in use, of whatever names a person or a browser in these copies."""
        if not self.keys:
            return []
        found = sorted({mark for copy in copies for mark in marks(copy, _OF_PEOPLE)})
        return [_print(self.keys[0], mark) for mark in found[:MOST_PRINTS]]

    def of(self, mark: str) -> list[str]:
        """Under each key, as rows may have it."""
        return [_print(key, mark) for key in self.keys]


#: What names a person or a browser, as in app/people.py; a click id names one click.
_OF_PEOPLE = frozenset({*HASHED, "user_id", "ga_client_id", "fbp", "ttp"})


@lru_cache(maxsize=1 << 16)  # one person or browser has many events
def _print(key: bytes, mark: str) -> str:
    return hmac.digest(key, mark.encode(), hashlib.sha256).hex()[:PRINT]


class Forgotten:
    """All entries, by what they name people by."""

    def __init__(self, prints: Prints | None = None) -> None:
        self._prints = prints or Prints()
        self._entries: dict[bytes, Entry] = {}  # by key of their record, as the topic has them
        self._by_mark: dict[str, dict[bytes, Entry]] = {}
        self._by_print: dict[str, dict[bytes, Entry]] = {}  # erasures only
        self._kinds: set[str] = set()  # of any entry so far: what an event needs to be hashed for
        self.changes = 0  # heard so far; it only grows, as the next
        self.erasures = 0

    def __len__(self) -> int:
        return len(self._entries)

    def hear(self, key: bytes | None, value: bytes | None, appended: int) -> bool:
        """A record of capistream.people. Whether somebody is forgotten by it who was not before."""
        if key is None:
            return False
        before = self._entries.pop(key, None)
        if before:
            for index, names in self._indexes(before):
                for name in names:
                    index[name].pop(key, None)
                    if not index[name]:
                        del index[name]
        found = entry(value, appended)
        self.changes += found != before
        if found is None:
            return False
        self._entries[key] = found
        self._kinds.add(found.kind)
        for index, names in self._indexes(found):
            for name in names:
                index.setdefault(name, {})[key] = found
        if found == before:
            return False
        if found.what == "erase":
            self.erasures += 1
        return True

    def _indexes(self, one: Entry) -> list[tuple[dict[str, dict[bytes, Entry]], list[str]]]:
        erases = one.what == "erase"
        return [(self._by_mark, [one.mark]), (self._by_print, self._prints.of(one.mark) if erases else [])]

    def of(self, event: Event) -> What | None:
        """What an entry says of this event; an erasure before a withdrawal."""
        if not self._by_mark:
            return None
        found: What | None = None
        for mark in marks(event, self._kinds):
            for one in self._by_mark.get(mark, {}).values():
                if one.reaches(event["received"], event["site"]):
                    if one.what == "erase":
                        return "erase"
                    found = "withdraw"
        return found

    def erases(self, event: Event) -> bool:
        return self.of(event) == "erase"

    def erases_row(self, key: bytes, value: bytes) -> bool:
        """Is this row of table `seen` of somebody who is erased, and does it still say anything of the person?"""
        if key[:1] in (ALIAS, MEMORY):
            return False
        row = orjson.loads(value)
        if row["s"] is None or not row["c"] or not says_of_a_person(row):
            return False
        conversion, site, _ = keys.parts(key)
        named = [
            f"{kind}:{identity.sha256(conversion)}" for kind in ("transaction_id", "event_id") if kind in self._kinds
        ]
        entries = [
            *(one for name in named for one in self._by_mark.get(name, {}).values() if one.what == "erase"),
            *(one for name in row.get("f", ()) for one in self._by_print.get(name, {}).values()),
        ]
        return any(one.reaches(row["c"][0][1], site) for one in entries)


def says_of_a_person(row: Json) -> bool:
    return any(name in row for name in ("w", "p", "f")) or any(copy[4] for copy in row["c"])


# What leaves


def routes(found: Mapping[str, Route], what: What | None) -> Mapping[str, Route]:
    """Nothing goes anywhere that is of somebody who is forgotten."""
    if what is None:
        return found
    state, reason = SUPPRESSED[what]
    return {name: Route(state, reason, one.basis) if one.state == "queued" else one for name, one in found.items()}


def alike(kind: Callable[[Copy], Hashable | None], known: Forgotten) -> Callable[[Copy], Hashable | None]:
    """Names kinds of events with the same routes, as `routing.alike` does. Of somebody who is forgotten none is like another."""

    def found(event: Copy) -> Hashable | None:
        return None if known and known.of(as_event(event)) else kind(event)

    return found


def bare(closing: Closing) -> Closing:
    """A conversion of somebody who was erased: that there was one, and what it was worth."""
    event = from_event(receipts.brief(as_event(closing.event)))
    return msgspec.structs.replace(closing, event=event, how="erased", copies=())


# What remains

KAFKA_LOOKS = 900.0  # seconds until Kafka has looked what it may delete, and has deleted it, with room


@dataclass(frozen=True)
class Pace:
    """Seconds between two times that a worker does what erasure needs. The shorter things are kept, the more often."""

    passes: float  # over the tables: copies that are read late bring rows of somebody who was erased before
    trims: float  # of what destinations are through with
    nudges: float  # of segments that only a record ends


def pace(settings: Settings) -> Pace:
    kafka = settings.kafka
    return Pace(
        passes=min(1800.0, kafka.compact_within / 2),
        trims=min(300.0, kafka.replay_window / 4),
        nudges=min(3660.0, kafka.compact_within, kafka.replay_window),
    )


@dataclass(frozen=True)
class Remains:
    """How long something of a person can stay at a place, in seconds from when the entry is written, while workers run."""

    place: str
    how: str
    usually: float
    most: float  # where a destination stands still


def remains(settings: Settings) -> list[Remains]:
    """Of every topic and table that holds data of people, as this configuration makes them."""
    names, every = topics.names(settings), pace(settings)
    window, tables = settings.kafka.replay_window, 2 * every.passes
    traced = any(
        one.mode == "shadow" or (one.mode == "live" and settings.trace.requests != "none")
        for one in settings.destinations.values()
    )
    found = []
    for topic in topics.plan(settings):
        config = {name: float(value) / 1000 for name, value in topic.config.items() if name.endswith(".ms")}
        roll = config.get("segment.ms", 0.0)
        if lag := config.get("max.compaction.lag.ms"):
            # the old row goes with the compaction of the segment that has its deletion, and that has to end first
            seconds = tables + lag + roll + every.nudges + KAFKA_LOOKS
            found.append(Remains(topic.name, "deleted by its worker, then compacted by Kafka", seconds, seconds))
        elif topic.name in (names.events, names.conversions) or (topic.name == names.trace and traced):
            seconds = config["retention.ms"] + roll + KAFKA_LOOKS
            found.append(Remains(topic.name, "retention", seconds, seconds))
        elif topic.name.startswith(names.to("")):
            most = config["retention.ms"] + roll + KAFKA_LOOKS
            usually = window + every.trims + roll + every.nudges + KAFKA_LOOKS
            how = "deleted behind what is finished" if usually < most else "retention"
            found.append(Remains(topic.name, how, min(usually, most), most))
    found.append(Remains(f"local state of each worker ({settings.worker.data_dir})", "rewritten", tables, tables))
    return found
