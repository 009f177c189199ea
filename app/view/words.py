"""What codes mean, in words for people, and how values are written. Pure."""

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import orjson

from app.events import Json
from app.match import UNUSABLE
from app.reconcile import REASONS as ORDER_REASONS

#: How a conversion closed.
CLOSED: Mapping[str, str] = {
    "complete": "all expected copies were there",
    "no_hold": "this event name is not held",
    "hold_ended": "the hold ended before another copy came",
    "unconfirmed": "no copy came that confirms it",
    "erased": "the person was erased before it closed",
}

#: State of a destination -> what helps.
REMEDIES: Mapping[str, str] = {
    "halted": "Its events wait. Every 15 s one is tried, with secrets read anew: it goes on by itself when that passes.",
    "paused": "Its events wait until somebody resumes it.",
    "retrying": "It goes on by itself when an event passes.",
    "slow": "It goes on by itself, slower.",
}

#: Outcome -> whether that is good, bad, still open, or neither.
MOODS: Mapping[str, str] = {
    "delivered": "good",
    "accepted": "good",
    "shadowed": "good",
    "rejected": "bad",
    "halted": "bad",
    "parked": "wait",
    "queued": "wait",
    "held": "wait",
}

#: Reasons of ours that need more words than their code has. What a platform said stands beside them.
REASONS: Mapping[str, str] = {
    "consent_denied": "consent denied",
    "consent_absent": "no copy tells of the consent that it needs",
    "denied_later": "a copy that came after closing denies consent",
    "withdrawn": "the person has withdrawn",
    "erasure": "the person was erased",
    "destination_off": "this destination is switched off",
    "event_off": "this event is switched off there",
    "before_live_from": "it happened before live_from",
    "not_in_share": "it is not in the share that goes there",
    "label_bot": "it is of a bot",
    "label_prefetch": "it is of a page that was fetched ahead",
    "label_internal": "it is of one of your own people",
    "label_test": "it is a test, and would count as a sale there",
    "beyond_horizon": "too old: nobody can say any more that it is the first",
    "before_memory": "received before our memory begins: nobody can say that it is the first",
    "unconfirmed": "no copy came that confirms it",
    "too_old": "too old for the platform",
    "unknown_outcome": "the platform may have it, and would not recognise a repetition any more",
}


def mood(state: str) -> str:
    return MOODS.get(state, "quiet")


def reason(code: str) -> str:
    return REASONS.get(code, code.replace("_", " "))


def moment(value: str | float | None) -> str:
    """`2026-11-25 18:41:45.123`, of a time in ISO 8601 or in Unix milliseconds; UTC."""
    if value is None or value == "":
        return ""
    try:
        at = datetime.fromisoformat(value) if isinstance(value, str) else datetime.fromtimestamp(value / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return str(value)
    return at.astimezone(UTC).isoformat(sep=" ", timespec="milliseconds").removesuffix("+00:00")


def span(seconds: float) -> str:
    """`450 ms`, `3.2 s`, `4 min 5 s`, `2 h 10 min`, `3 d 4 h`."""
    if abs(seconds) < 1:
        return f"{seconds * 1000:.0f} ms"
    if abs(seconds) < 60:
        return f"{seconds:.1f} s".replace(".0 s", " s")
    whole = round(seconds)
    for big, of_big, small, of_small in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= big:
            rest = whole % big // small
            return f"{whole // big} {of_big}" + (f" {rest} {of_small}" if rest else "")
    return f"{whole} s"


def number(value: float) -> str:
    text = f"{value:,}" if isinstance(value, int) else f"{value:,.1f}".removesuffix(".0")
    return text.replace(",", "\u202f")  # a narrow space, which no country reads as a decimal point


def plural(count: int, one: str, many: str = "") -> str:
    return f"{number(count)} {one if count == 1 else many or one + 's'}"


def by_part(rows: Iterable[Json]) -> list[tuple[str, list[Json]]]:
    """Rows of fields by the part of the event that they belong to, with their names within it."""
    found: dict[str, list[Json]] = {}
    for row in rows:
        part, _, name = row["field"].partition(".")
        found.setdefault(part if name else "event", []).append({**row, "name": (name or part).replace("_", " ")})
    return list(found.items())


#: (verdict, what browser_tag expects) -> in words.
_TAGS: Mapping[tuple[str, str], str] = {
    ("not reported", "none"): "none is expected, and no pixel reported one",
    ("not reported", "same_id"): "expected to report it with the same id; no pixel said whether it ran",
    ("did not run", "none"): "did not run, as expected",
    ("did not run", "same_id"): "did not run",
    ("same id", "same_id"): "ran, and had the same id: the platform keeps one of the two",
    ("same id", "none"): "ran, although browser_tag says none. It had the same id: the platform keeps one of the two",
    ("another id", "same_id"): "ran, and had another id: the platform counts both",
    ("another id", "none"): "ran, although browser_tag says none, and had another id: the platform counts both",
    ("id not reported", "same_id"): "ran; no pixel said with which id",
    ("id not reported", "none"): "ran, although browser_tag says none: the platform may count both",
}


def tag_words(tag: Json) -> str:
    told = _TAGS[tag["verdict"], tag["expected"]]
    return f"{told} ({tag['event_id']})" if tag["verdict"] == "another id" else told


def by_section(rows: Iterable[Json]) -> list[tuple[str, list[Json]]]:
    """Settings by the table of the file that they stand in."""
    found: dict[str, list[Json]] = {}
    for row in rows:
        found.setdefault(row["setting"].partition(".")[0], []).append(row)
    return list(found.items())


def indented(body: Any) -> str:
    """A body of a request, as people read it."""
    return body if isinstance(body, str) else orjson.dumps(body, option=orjson.OPT_INDENT_2).decode()


def order_reason(code: str) -> str:
    """Why an order of a list is in its class."""
    return ORDER_REASONS.get(code) or reason(code)


def unusable(code: str) -> str:
    """Why something of a person could not be used."""
    return UNUSABLE.get(code) or reason(code)


FILTERS: Mapping[str, Callable[..., Any]] = {
    "mood": mood,
    "reason": reason,
    "order_reason": order_reason,
    "unusable": unusable,
    "moment": moment,
    "span": span,
    "number": number,
    "plural": plural,
    "by_part": by_part,
    "by_section": by_section,
    "indented": indented,
    "tag_words": tag_words,
    "urlpath": lambda text: quote(str(text), safe=""),
    "plain": lambda text: str(text).replace("_", " "),
}
