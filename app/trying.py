"""What would a source make of these values? `capistream map try`: the event, what was not used of it, and what nothing reads.

Nothing reads a part of a value when neither its absence nor another value in its place changes the event. That is found out by
trying, so it holds for a format's table, a map and a filter alike, and also for a part that another one outdoes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from app import formats, reading
from app.errors import BadEvent
from app.events import Event, Json
from app.fields import compiled
from app.formats import Ignored
from app.normalize import Inlet, Normalized, Refused, Result, normalize, parse
from app.reading import Carried, Rules

MOST_PARTS = 2_000  # parts of one value that are tried; each is a reading of all of it
_MUCH = 10**9  # more, and with a minus less, than an amount is compared with
_GONE = object()
_MEANING = {"unreadable": "unreadable, so it counts as denied"}
_ORIGIN = "try"  # the topic that origins name


@dataclass(frozen=True)
class Tried:
    """One event of a value, or what became of the value."""

    line: int
    result: Result
    unread: Sequence[str] | None = None  # paths into the value; None where it was not tried

    def as_json(self) -> Json:
        said: Json = {"line": self.line}
        if isinstance(self.result, Normalized):
            said["event"] = self.result.event
            said["dropped"] = [{"field": field, "reason": reason} for field, reason in self.result.drops]
        elif isinstance(self.result, Ignored):
            said["ignored"] = self.result.kind
        else:
            said["refused"] = {name: getattr(self.result, name) for name in ("reason", "field", "detail")}
        return said | ({} if self.unread is None else {"unread": list(self.unread)})

    def for_people(self) -> str:
        lines = [f"line {self.line}: {_headline(self.result)}"]
        if isinstance(self.result, Normalized):
            text = orjson.dumps(self.result.event, option=orjson.OPT_INDENT_2).decode()
            lines += [f"  {line}" for line in text.splitlines()]
            lines += [f"  not used: {field}, {_MEANING.get(reason, reason)}" for field, reason in self.result.drops]
        lines += [f"  nothing reads: {path}" for path in self.unread or ()]
        return "\n".join(lines)


def _headline(result: Result) -> str:
    if isinstance(result, Normalized):
        event: Event = result.event
        return f"{event['event_name']} {event['event_id']}"
    if isinstance(result, Ignored):
        return f"ignored: {result.kind}"
    return f"refused: {result.reason}: {f'{result.field} {result.detail}'.strip()}"


def tries(documents: Sequence[tuple[int, bytes]], inlet: Inlet, now: int, carried: Carried) -> Iterator[Tried]:
    """Each event of each (line, JSON), received at `now` in Unix milliseconds, from a record that carries that."""
    for line, text in documents:
        try:
            body = parse(text)
        except BadEvent as exc:
            yield Tried(line, Refused(exc.reason, exc.field, exc.detail))
            continue
        results = normalize(body, inlet, now, {"topic": _ORIGIN, "partition": 0, "offset": line}, carried=carried)
        unread = unread_parts(body, inlet, carried) if any(isinstance(one, Normalized) for one in results) else None
        for index, result in enumerate(results):
            yield Tried(line, result, unread if index == 0 else None)


def unread_parts(body: Any, inlet: Inlet, carried: Carried) -> list[str]:
    """The paths of what changes nothing, each once, with `[]` for any member of a list; in the value's own order."""
    before, read, seen = _drafts(body, inlet, carried), set[str](), dict[str, None]()
    compared_with = _literals(inlet.rules)
    for path in list(_leaves(body))[:MOST_PARTS]:
        name = _written(path)
        seen[name] = None
        others = (*_others(_at(body, path)), *compared_with)
        if name not in read and any(_drafts(_with(body, path, one), inlet, carried) != before for one in others):
            read.add(name)
    return [name for name in seen if name not in read]


def _literals(rules: Rules) -> list[Any]:
    """What the expressions compare with: only such a value in its place may tell that `state == 'paid'` reads `state`."""
    expressions = [rules.filter or "@", *(one for _, one in rules.fields), *(one for _, one, _ in rules.lists)]
    expressions += [one for _, _, members in rules.lists for _, one in members]
    nodes, found = [compiled(one).parsed for one in expressions], list[Any]()
    while nodes:
        node = nodes.pop()
        nodes += [child for child in node["children"] if isinstance(child, dict)]
        if node["type"] == "literal" and node["value"] not in found:
            found.append(node["value"])
    return found


def _drafts(body: Any, inlet: Inlet, carried: Carried) -> list[Any]:
    """What the source's settings make of the value, before it is checked."""
    try:
        body, carried = reading.opened(body, carried)
        ones = formats.split(inlet.format, body)
    except BadEvent as exc:
        return [(exc.reason, exc.field)]
    found: list[Any] = []
    for one in ones:
        try:
            found.append(reading.draft(one, inlet.format, inlet.rules, carried))
        except BadEvent as exc:
            found.append((exc.reason, exc.field))
    return [*found, reading.kept(carried.headers)]


def _leaves(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    inner: Any = ()
    if isinstance(value, dict):
        inner = value.items()
    elif isinstance(value, list):
        inner = enumerate(value)
    if not inner and path:
        yield path
    for name, one in inner:
        yield from _leaves(one, (*path, name))


def _written(path: Sequence[str | int]) -> str:
    return "".join("[]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


def _at(value: Any, path: Sequence[str | int]) -> Any:
    for part in path:
        value = value[part]
    return value


def _others(value: Any) -> tuple[Any, ...]:
    """What may stand in its place: nothing, and something of its own kind."""
    if isinstance(value, bool):
        return _GONE, not value
    if isinstance(value, int | float):
        return _GONE, value + 1, -_MUCH, _MUCH
    return _GONE, f"{value}~" if isinstance(value, str) else "~"


def _with(value: Any, path: Sequence[str | int], other: Any) -> Any:
    """A copy with `other` at that place. A member of a list becomes null: the others keep their places."""
    first, *rest = path
    changed: Any = dict(value) if isinstance(value, dict) else list(value)
    if rest:
        changed[first] = _with(value[first], rest, other)
    elif other is not _GONE:
        changed[first] = other
    elif isinstance(value, dict):
        del changed[first]
    else:
        changed[first] = None
    return changed
