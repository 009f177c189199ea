"""How an event's values look on a page: nothing of a person in clear, and nothing so long that it hides the rest. Pure.

Hashes are shortened; they are personal data still, and a few digits do to compare two of them. An IP address is cut to its network.
User agent, city, region and postal code are not shown: a mark stands for each, the same mark for the same value. Cookies and click
ids are shown, since they are what is looked for.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import orjson

from app import trace
from app.events import Event, Item, Json
from app.log import cut
from app.view.words import moment

LONGEST = 300  # characters of a value
MOST_ITEMS = 20
MOST_OWN = 50  # values of `custom`
PARTS = ("commerce", "user", "context", "ids", "consent", "tags", "custom")
HIDDEN = {"context.user_agent", "user.city", "user.region", "user.postal_code"}

#: Tells whether two values are the same, and nothing else about them: `app.view.access.Access.mark`.
Mark = Callable[[str], str]

_HASH = re.compile(r"\b([0-9a-f]{8})[0-9a-f]{56}\b", re.IGNORECASE)


def fields(event: Event, mark: Mark) -> dict[str, str]:
    """Path -> value, in an order that people read in."""
    found = {"event_id": event["event_id"], "time": moment(event["time"])}
    if labels := event.get("labels"):
        found["labels"] = ", ".join(labels)
    if event.get("pairs") is False:
        found["pairs"] = "no: its id was made up for this call"
    whole: Any = event
    for part in PARTS:
        for path, value in _of_part(part, whole.get(part, {}), mark):
            found[path] = shorter(value)
    return found


def field_of(path: str) -> str:
    """The field of the event that a path of `fields` belongs to."""
    return "commerce.items" if path.startswith("commerce.items") else path


def _of_part(part: str, content: Mapping[str, Any], mark: Mark) -> Iterator[tuple[str, str]]:
    if part == "commerce":
        content, items = {k: v for k, v in content.items() if k != "items"}, content.get("items", ())
        yield from ((f"commerce.{name}", str(value)) for name, value in content.items())
        yield from ((f"commerce.items[{n}]", _item(item)) for n, item in enumerate(items[:MOST_ITEMS]))
        if len(items) > MOST_ITEMS:
            yield f"commerce.items[{MOST_ITEMS}]", f"and {len(items) - MOST_ITEMS} more"
        return
    for n, (name, value) in enumerate(content.items()):
        if part == "custom" and n == MOST_OWN:
            yield "custom", f"and {len(content) - MOST_OWN} more"
            return
        yield f"{part}.{name}", _value(f"{part}.{name}", value, mark)


def _value(path: str, value: Any, mark: Mark) -> str:
    if path in HIDDEN:
        return f"given, {len(value)} characters, mark {mark(value)}"
    if path == "context.ip":
        return cut(value)
    if path.startswith("tags."):
        return _tag(value)
    if path == "consent.categories":
        return ", ".join(f"{name} {'granted' if yes else 'denied'}" for name, yes in value.items())
    if isinstance(value, dict):  # of an identifier: rule -> hash
        return ", ".join(f"{rule} {digest[:8]}…" for rule, digest in value.items())
    if isinstance(value, bool):
        return "yes" if value else "no"
    return _HASH.sub(r"\1…", str(value))


def _item(item: Item) -> str:
    said: Json = dict(item)
    begin = " ".join(str(said.pop(name)) for name in ("quantity", "item_id", "item_name") if name in said)
    if "price" in said:
        begin += f" at {said.pop('price')}"
    return ", ".join([begin.strip(), *(f"{name} {value}" for name, value in said.items())]).strip(", ")


def _tag(tag: Mapping[str, Any]) -> str:
    ran = {True: "ran", False: "did not run"}.get(tag.get("ran"), "")  # type: ignore[arg-type]
    with_id = f"with id {tag['event_id']}" if "event_id" in tag else ""
    return ", ".join(filter(None, (ran, with_id)))


def shorter(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}… ({len(text)} characters)"


def request_body(text: str, event: Event | None) -> str:
    """A request of the topic of traces, as people read JSON. `event`: the one it is about, where that is known."""
    gone = trace.in_clear(event) if event else {}
    try:
        said = orjson.loads(text)
    except orjson.JSONDecodeError:  # of a platform that takes another format, or one that was cut
        for value, instead in gone.items():
            text = re.sub(re.escape(value), instead, text, flags=re.IGNORECASE)
        return _HASH.sub(r"\1…", text)
    return orjson.dumps(_discreet(said, gone), option=orjson.OPT_INDENT_2).decode()


def _discreet(value: Any, gone: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return gone.get(value.lower()) or _HASH.sub(r"\1…", cut(value))
    if isinstance(value, dict):
        return {name: _discreet(inner, gone) for name, inner in value.items()}
    if isinstance(value, list):
        return [_discreet(inner, gone) for inner in value]
    return value
