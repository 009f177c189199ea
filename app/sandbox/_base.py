"""What a platform is to the sandbox: routes, each a pure function from a request to a ruling, and its ways to fail."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

FOREVER = float("inf")


@dataclass(frozen=True)
class Problem:
    """Why something is refused. Neither part ever quotes a value: values can be secrets or personal data."""

    field: str  # "data[0].user_data.em[1]"
    reason: str
    code: str = ""  # the platform's own, where it has one


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes = b""
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Call:
    """One request to a platform, as its route sees it."""

    path: Mapping[str, str]  # the variable parts of the route's path
    query: Mapping[str, str]
    raw_query: str  # as sent, percent-encoding and all
    headers: Mapping[str, str]  # names match in any case
    body: bytes
    now: float  # Unix seconds
    admits: Callable[[str, str], bool]  # (account, token): is the token good for the account?
    tokens: Callable[[str], Collection[str] | None]  # (account): the good ones, for signatures; None: any is good
    spoils: Callable[[str], bool]  # (account): shall this good event fail? For platforms that fail events one by one
    queue: Callable[[str], float]  # (account): seconds from taking a request to knowing what became of it


@dataclass(frozen=True)
class Checked:
    """One event of a request."""

    body: Any
    event_name: str | None = None
    event_id: str | None = None
    dedup_key: tuple[str, ...] | None = None  # what the platform recognises a repetition by; None: it cannot
    problems: tuple[Problem, ...] = ()
    warnings: tuple[Problem, ...] = ()  # taken, and yet worse than it could be


@dataclass(frozen=True)
class Ruling:
    """What the platform makes of a request."""

    account: str
    answer: Answer
    problems: tuple[Problem, ...] = ()  # of the request: nothing in it is accepted
    events: tuple[Checked, ...] = ()
    envelope: Any = None  # the body around the events
    atomic: bool = False  # one bad event fails the good ones too
    dry_run: bool = False  # the platform only looks, and keeps nothing
    delivers: bool = True  # else it is no delivery: a question, or a token asked for. Nothing of it is kept


@dataclass(frozen=True)
class Route:
    path: str  # below the platform's prefix, in aiohttp's notation
    handle: Callable[[Call], Ruling]
    method: str = "POST"


@dataclass(frozen=True)
class Platform:
    name: str  # prefix of its paths
    title: str
    routes: tuple[Route, ...]
    failures: Mapping[str, Answer]  # fault switch -> how this platform says it; a switch not named here cannot happen
    dedup_window: float = FOREVER  # seconds from the receipt of the first copy
    partial: bool = False  # it can take some events of a request and refuse others, and says so, perhaps later
    queues: bool = False  # it takes requests first, and tells later what became of them
    personal: frozenset[str] = frozenset()  # fields for hashes: clear text in them is masked when refused


def json_answer(status: int, body: Any, headers: Mapping[str, str] | None = None) -> Answer:
    return Answer(status, orjson.dumps(body), headers=headers or {})


def read_json(body: bytes) -> Any:
    """Raises ValueError for what is no JSON, and for what is nested deeper than any platform's schema."""
    value = orjson.loads(body)
    try:
        orjson.dumps(value)
    except TypeError as error:  # orjson reads deeper than it writes, and what was received must be listed
        raise ValueError("nested too deeply") from error
    return value


def read_object(call: Call) -> tuple[dict[str, Any], list[Problem]]:
    """The body of a call that has to be a JSON object, or why it could not be read."""
    if call.headers.get("Content-Type", "").partition(";")[0].strip().lower() != "application/json":
        return {}, [Problem("Content-Type", "must be application/json")]
    try:
        body = read_json(call.body)
    except ValueError:
        return {}, [Problem("body", "cannot be read as JSON")]
    return (body, []) if isinstance(body, dict) else ({}, [Problem("body", "must be an object")])


def part(value: Any, key: str) -> dict[str, Any]:
    """The object under a key; empty when it is missing or of another type, which is told elsewhere."""
    found = value.get(key) if isinstance(value, dict) else None
    return found if isinstance(found, dict) else {}


def as_id(value: Any) -> str | None:
    """A name or id for the listings, also when its type is what is wrong with it."""
    if isinstance(value, str):
        return value or None
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else None
