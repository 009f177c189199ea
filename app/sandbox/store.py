"""What the platforms accepted and refused: bounded, without secrets, and with the platforms' own de-duplication marked.

Secrets are masked before anything is kept: by the names of headers, query parameters and top-level fields, and by their
values wherever these turn up again. Of refused events also clear personal data is masked, as it may be why they were
refused.
"""

import re
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import orjson

from app.sandbox._base import Checked, Platform, Ruling
from app.sandbox._checks import HASH, personal

KEEP = 200_000
MOST_DESTINATIONS = 1000
MASK = "***"
LONGEST_ACCOUNT = 100
SHORTEST_SECRET = 8  # a shorter one is masked by its field only: it would be found in any text

_SECRET_NAME = re.compile(r"token|secret|authori[sz]ation|cookie|passw|proof|signature|api[-_]?key", re.IGNORECASE)


@dataclass(slots=True)
class Copies:
    """How often one key was accepted inside the platform's window. Shared by the copies, so that each shows the sum."""

    first: float
    times: int = 0


@dataclass(frozen=True, slots=True)
class Entry:
    """One event in a listing, as JSON where nobody looks into it: a fifth of the memory."""

    seq: int
    event_name: str | None
    event_id: str | None
    received: float
    shown: bytes  # the listing's object, all but the two below
    request: bytes  # one for all events of a request
    copies: Copies | None = None  # of accepted events

    def json(self) -> bytes:
        times = b',"times":%d' % self.copies.times if self.copies else b""
        return b'%s%s,"request":%s}' % (self.shown[:-1], times, self.request)


@dataclass
class Counts:
    requests: int = 0  # all that arrived, whatever came of them
    accepted: int = 0  # events; unique and duplicates together
    unique: int = 0
    duplicates: int = 0  # the platform would have recognised and dropped them
    warned: int = 0  # accepted events that could be better
    refused: int = 0  # events refused for their own sake or their request's; a request without readable events is one
    collateral: int = 0  # good events that fell with a bad one in their request
    dry_runs: int = 0  # requests to an endpoint that only validates
    faults: dict[str, int] = field(default_factory=dict)  # requests struck, by switch
    dropped: dict[str, int] = field(default_factory=lambda: {"accepted": 0, "refused": 0})  # from listings, for room


class Shelf:
    """One destination: a platform's account."""

    def __init__(self, platform: Platform, account: str, keep: int) -> None:
        self.platform = platform
        self.account = account
        self.counts = Counts()
        self._keep = keep
        self._seen: dict[tuple[str, ...], Copies] = {}
        self._kept: dict[str, deque[Entry]] = {"accepted": deque(), "refused": deque()}

    @property
    def destination(self) -> str:
        return f"{self.platform.name}:{self.account}"

    def entries(self, kind: str) -> Iterable[Entry]:
        return self._kept[kind]

    def keep(self, kind: str, entry: Entry) -> None:
        kept = self._kept[kind]
        kept.append(entry)
        if len(kept) > self._keep:
            kept.popleft()
            self.counts.dropped[kind] += 1

    def copies(self, key: tuple[str, ...] | None, now: float) -> Copies:
        """Count one more copy of a key; the window runs from the first one."""
        if key is None:
            return Copies(now, 1)
        found = self._seen.get(key)
        if found is None or now - found.first >= self.platform.dedup_window:
            self._seen.pop(key, None)  # the newest stand at the end
            found = self._seen[key] = Copies(now)
            if len(self._seen) > self._keep:
                del self._seen[next(iter(self._seen))]
        found.times += 1
        return found


@dataclass(frozen=True)
class Filter:
    destination: str | None = None  # platform, account or platform:account
    event_id: str | None = None
    event_name: str | None = None
    after: int = 0  # sequence number
    limit: int | None = None

    def takes_shelf(self, shelf: Shelf) -> bool:
        return self.destination in {None, shelf.platform.name, shelf.account, shelf.destination}

    def takes(self, entry: Entry) -> bool:
        return (
            entry.seq > self.after
            and self.event_id in {None, entry.event_id}
            and self.event_name in {None, entry.event_name}
        )


@dataclass(frozen=True)
class Sent:
    """A request, as the listings show it."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]


class Store:
    def __init__(self, keep: int = KEEP) -> None:
        self._keep = keep
        self._shelves: dict[tuple[str, str], Shelf] = {}
        self._seq = 0

    def shelf(self, platform: Platform, account: str) -> Shelf:
        key = (platform.name, account[:LONGEST_ACCOUNT])
        if key not in self._shelves and len(self._shelves) >= MOST_DESTINATIONS:
            key = (platform.name, "(others)")
        if key not in self._shelves:
            self._shelves[key] = Shelf(platform, key[1], self._keep)
        return self._shelves[key]

    def book(self, platform: Platform, ruling: Ruling, sent: Sent, now: float) -> None:
        """Keep what came of a request."""
        shelf = self.shelf(platform, ruling.account)
        if not ruling.delivers:
            return
        if ruling.dry_run:
            shelf.counts.dry_runs += 1
            return
        clerk = _Clerk(shelf, ruling, sent, now)
        bad = [event for event in ruling.events if event.problems]
        if ruling.problems:
            self._refuse(clerk, ruling.events or (Checked(None),))
        elif bad and ruling.atomic:
            shelf.counts.collateral += len(ruling.events) - len(bad)
            self._refuse(clerk, bad)
        else:
            self._refuse(clerk, bad)
            self._accept(clerk, (event for event in ruling.events if not event.problems))

    def _accept(self, clerk: "_Clerk", events: Iterable[Checked]) -> None:
        counts = clerk.shelf.counts
        for event in events:
            copies = clerk.shelf.copies(event.dedup_key, clerk.now)
            counts.accepted += 1
            counts.unique += copies.times == 1
            counts.duplicates += copies.times > 1
            counts.warned += bool(event.warnings)
            clerk.shelf.keep("accepted", clerk.accepted(self._next(), event, copies))

    def _refuse(self, clerk: "_Clerk", events: Iterable[Checked]) -> None:
        for event in events:
            clerk.shelf.counts.refused += 1
            clerk.shelf.keep("refused", clerk.refused(self._next(), event))

    def _next(self) -> int:
        self._seq += 1
        return self._seq

    def listing(self, kind: str, wanted: Filter) -> dict[str, Any]:
        """The events of "accepted" or "refused", oldest first."""
        shelves = [shelf for shelf in self._shelves.values() if wanted.takes_shelf(shelf)]
        found = [entry for shelf in shelves for entry in shelf.entries(kind) if wanted.takes(entry)]
        found.sort(key=lambda entry: entry.seq)
        return {
            "count": len(found),
            "dropped": sum(shelf.counts.dropped[kind] for shelf in shelves),
            "events": [orjson.Fragment(entry.json()) for entry in found[: wanted.limit]],
        }

    def latest(self, kind: str, count: int) -> list[dict[str, Any]]:
        """The newest first."""
        newest = [entry for shelf in self._shelves.values() for entry in list(shelf.entries(kind))[-count:]]
        newest.sort(key=lambda entry: entry.seq, reverse=True)
        return [orjson.loads(entry.json()) for entry in newest[:count]]

    def balance(self, wanted: Filter) -> dict[str, Any]:
        return {
            shelf.destination: {"platform": shelf.platform.name, "account": shelf.account, **asdict(shelf.counts)}
            for shelf in sorted(self._shelves.values(), key=lambda shelf: shelf.destination)
            if wanted.takes_shelf(shelf)
        }


class _Clerk:
    """Writes the entries of one request, masking what must not be read."""

    def __init__(self, shelf: Shelf, ruling: Ruling, sent: Sent, now: float) -> None:
        self.shelf = shelf
        self.now = now
        self._ruling = ruling
        envelope = ruling.envelope if isinstance(ruling.envelope, dict) else {}
        self._secrets = [*_secrets(sent.headers), *_secrets(sent.query), *_secrets(envelope)]
        request = {
            "method": sent.method,
            "path": sent.path,
            "query": _masked(sent.query),
            "headers": _masked(sent.headers),
            "envelope": _masked(envelope),
        }
        self._request = self._dump(request)
        self._request_if_refused = self._dump(_without_people(request, shelf.platform.personal))

    def accepted(self, seq: int, event: Checked, copies: Copies) -> Entry:
        warnings = [asdict(warning) for warning in event.warnings]
        more = {"duplicate": copies.times > 1, "event": event.body, "warnings": warnings}
        shown = self._shown(seq, event.event_name, event.event_id, more)
        return Entry(seq, event.event_name, event.event_id, self.now, shown, self._request, copies)

    def refused(self, seq: int, event: Checked) -> Entry:
        name, event_id = _without_people(event.event_name), _without_people(event.event_id)
        more = {
            "status": self._ruling.answer.status,
            "reasons": [asdict(problem) for problem in (*self._ruling.problems, *event.problems)],
            "event": _without_people(event.body, self.shelf.platform.personal),
        }
        return Entry(seq, name, event_id, self.now, self._shown(seq, name, event_id, more), self._request_if_refused)

    def _shown(self, seq: int, event_name: str | None, event_id: str | None, more: Mapping[str, Any]) -> bytes:
        return self._dump(
            {
                "seq": seq,
                "platform": self.shelf.platform.name,
                "account": self.shelf.account,
                "destination": self.shelf.destination,
                "event_name": event_name,
                "event_id": event_id,
                "received": self.now,
                **more,
            }
        )

    def _dump(self, shown: dict[str, Any]) -> bytes:
        dumped = orjson.dumps(shown)
        if any(orjson.dumps(secret)[1:-1] in dumped for secret in self._secrets):
            return orjson.dumps({key: _scrubbed(value, self._secrets) for key, value in shown.items()})
        return dumped


def _secrets(fields: Mapping[str, Any]) -> list[str]:
    """The values that must not be read, without the scheme of an Authorization header."""
    values = [value for name, value in fields.items() if _SECRET_NAME.search(name) and isinstance(value, str)]
    return [word for value in values for word in value.split() if len(word) >= SHORTEST_SECRET]


def _masked(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: MASK if _SECRET_NAME.search(name) else value for name, value in fields.items()}


def _scrubbed(value: Any, secrets: Iterable[str]) -> Any:
    """The same, with the secrets masked wherever they turn up."""
    if isinstance(value, dict):
        return {_scrubbed(key, secrets): _scrubbed(member, secrets) for key, member in value.items()}
    if isinstance(value, list):
        return [_scrubbed(member, secrets) for member in value]
    if isinstance(value, str):
        for secret in secrets:
            value = value.replace(secret, MASK)
    return value


def _without_people(value: Any, fields: frozenset[str] = frozenset(), *, is_hash: bool = False) -> Any:
    """The same, without clear e-mail addresses and phones, and without clear text where a hash belongs."""
    if isinstance(value, dict):
        return {
            _without_people(key): _without_people(member, fields, is_hash=is_hash or key in fields)
            for key, member in value.items()
        }
    if isinstance(value, list):
        return [_without_people(member, fields, is_hash=is_hash) for member in value]
    if isinstance(value, str):
        return MASK if personal(value) or (is_hash and not HASH.match(value)) else value
    return MASK if is_hash and value is not None else value
