"""What looks too wrong to be sent: worth more than the highest plausible value, or, against the same hour of last week, too many
events of a name, or worth too much or too little in the mean. Pure: the moment is given, and so is what was remembered.

Platforms cannot unsend, so agents/deliver asks before it sends, and holds the destination for what `judge` says. It also tells
the guard what goes on:

    enter   an event is on its way. It counts from now on: a thousand at once must not all pass before the first is delivered
    sent    it was delivered or accepted, and is remembered in the hour of that moment
    leave   it is on its way no more, and does not count unless it was sent
    let     somebody looked at what was held, and wants it to go on
    recall  these partitions are ours now, and this is what is remembered of them

Remembered are, by partition, hour and event name, the number of events, and by currency the number and sum of their values. All
partitions of a worker are compared together, because one alone often has too few. One of which it is not known that its memory
is whole counts on neither side: it must have begun to remember before the hour of last week that is looked at.
"""

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from app import destination
from app.events import Event

HOUR = 3_600_000  # milliseconds
WEEK = 7 * 24  # hours
KEPT = 8 * 24  # hours that are remembered: a day more, to tell a quiet hour from one of which nothing is known
NAMES = 200  # event names in one row; whoever has the public key can make up more, and they are not compared
CURRENCIES = 20  # the same, of one event name


@dataclass(frozen=True)
class Hold:
    """`guard` is which one: what an order to go on lets through."""

    guard: str
    reason: str


@dataclass(slots=True)
class Tally:
    """Of the events of one name."""

    count: int = 0
    values: dict[str, tuple[int, float]] = field(default_factory=dict)  # currency -> (how many, their sum)

    def add(self, event: Event, times: int = 1) -> None:
        self.count += times
        commerce = event.get("commerce", {})
        if "value" in commerce and "currency" in commerce:
            self._value(commerce["currency"], times, times * commerce["value"])

    def merge(self, other: "Tally") -> None:
        self.count += other.count
        for currency, (count, total) in other.values.items():
            self._value(currency, count, total)

    def _value(self, currency: str, count: int, total: float) -> None:
        if currency in self.values or len(self.values) < CURRENCIES:
            before, sum_before = self.values.get(currency, (0, 0.0))
            self.values[currency] = before + count, sum_before + total


Names = dict[str, Tally]
Row = tuple[int, bytes, bytes | None]  # partition, key, value; None deletes


class Guard:
    """Of one destination in one worker. Moments are Unix milliseconds."""

    def __init__(self, settings: destination.Guard) -> None:
        self.settings = settings
        self.compares = settings.rate is not None or settings.mean is not None
        self.off = not (self.compares or settings.highest)
        self._let: dict[str, int] = {}  # guard -> when it was told to
        self._past: dict[int, dict[int, Names]] = {}  # by partition and hour since 1970
        self._waiting: dict[bytes, tuple[int, Event]] = {}
        # sums over the partitions that count, for one hour
        self._hour = -1
        self._whole: set[int] = set()
        self._then: Names = {}
        self._so_far: Names = {}

    # -- what goes on

    def recall(self, rows: Mapping[int, Iterable[tuple[bytes, bytes]]]) -> None:
        """All partitions that are ours, each with its rows as `sent` made them. Nothing is on its way."""
        self._past = {p: dict(filter(None, itertools.starmap(_read, some))) for p, some in rows.items()}
        self._waiting.clear()
        self._hour = -1

    def enter(self, key: bytes, partition: int, event: Event) -> None:
        self.leave(key)
        self._waiting[key] = partition, event
        if partition in self._whole:
            _tally(self._so_far, event).add(event)

    def leave(self, key: bytes) -> None:
        """Does nothing for what was sent, or never entered."""
        found = self._waiting.pop(key, None)
        if found and found[0] in self._whole:
            _tally(self._so_far, found[1]).add(found[1], -1)

    def sent(self, keys: Iterable[bytes], now: int) -> list[Row]:
        """Remember these, each once. Returns the rows to write: they replace the ones with the same keys."""
        hour = now // HOUR
        self._turn(hour)
        rows: dict[tuple[int, int], Names | None] = {}
        for key in keys:
            if (found := self._waiting.pop(key, None)) is None:
                continue
            p, event = found  # and it stays in what went out so far
            hours = self._past.setdefault(p, {})
            if hour not in hours:
                for old in [one for one in hours if one < hour - KEPT]:
                    del hours[old]
                    rows[p, old] = None
                hours[hour] = {}
            names = rows[p, hour] = hours[hour]
            if event["event_name"] in names or len(names) < NAMES:
                _tally(names, event).add(event)
        return [(p, b"%d" % one, None if names is None else _row(names, now)) for (p, one), names in rows.items()]

    def let(self, guard: str, at: int) -> None:
        self._let[guard] = max(at, self._let.get(guard, 0))

    # -- what looks wrong

    def judge(self, event: Event, now: int, arrived: int = 0) -> Hold | None:
        """Why to hold it, if there is a reason. `arrived`: when it was put where the destination's events wait."""
        return self._too_high(event, arrived) or self._unlike_last_week(event, now // HOUR)

    def _too_high(self, event: Event, arrived: int) -> Hold | None:
        name, commerce = event["event_name"], event.get("commerce", {})
        currency = commerce.get("currency", "")
        highest = self.settings.highest.get(name, {}).get(currency)
        if highest is None or commerce.get("value", 0.0) <= highest:
            return None
        guard = f"highest {name} {currency}"
        if arrived <= self._let.get(guard, -1):
            return None
        return Hold(guard, f"guard: a {name} is worth more than {highest:g} {currency}: event {event['event_id']}")

    def _unlike_last_week(self, event: Event, hour: int) -> Hold | None:
        if not self.compares:
            return None
        self._turn(hour)
        then, so_far = self._then.get(event["event_name"]), self._so_far.get(event["event_name"])
        if then is None or so_far is None or then.count < self.settings.least:
            return None
        return self._too_many(event, so_far.count, then.count) or self._off_the_mean(event, so_far, then)

    def _too_many(self, event: Event, so_far: int, then: int) -> Hold | None:
        name, rate = event["event_name"], self.settings.rate
        if rate is None or so_far <= rate * then or self._quiet(guard := f"rate {name}"):
            return None
        return Hold(
            guard,
            f"guard: {so_far} {name} in this hour, more than {rate:g} times the {then} of the same hour last week; "
            f"one of them is event {event['event_id']}",
        )

    def _off_the_mean(self, event: Event, so_far: Tally, then: Tally) -> Hold | None:
        name, most, currency = event["event_name"], self.settings.mean, event.get("commerce", {}).get("currency", "")
        (count, total), (count_then, total_then) = (one.values.get(currency, (0, 0.0)) for one in (so_far, then))
        if most is None or min(count, count_then) < self.settings.least or not total_then:
            return None
        # below 0 where only one of the means is: refunds may be told as less than nothing
        times = (total * count_then) / (total_then * count)
        if not (times > most or times < 1 / most) or self._quiet(guard := f"mean {name} {currency}"):
            return None
        limit = f"more than {most:.3g}" if times > most else f"less than {1 / most:.3g}"
        return Hold(
            guard,
            f"guard: a {name} is worth {total / count:.6g} {currency} in the mean of this hour, {limit} times the "
            f"{total_then / count_then:.6g} of the same hour last week; one of them is event {event['event_id']}",
        )

    def _quiet(self, guard: str) -> bool:
        """For the rest of the hour in which somebody looked."""
        return self._let.get(guard, -1) // HOUR == self._hour

    def _turn(self, hour: int) -> None:
        """Add up for this hour; from then on the sums are kept up."""
        if hour == self._hour:
            return
        then, known = hour - WEEK, range(hour - KEPT, hour - WEEK)
        self._hour = hour
        self._whole = {p for p, hours in self._past.items() if any(one in known for one in hours)}
        self._then = _sum(self._past[p].get(then, {}) for p in self._whole)
        self._so_far = _sum(self._past[p].get(hour, {}) for p in self._whole)
        for p, event in self._waiting.values():
            if p in self._whole:
                _tally(self._so_far, event).add(event)


def _tally(names: Names, event: Event) -> Tally:
    return names.setdefault(event["event_name"], Tally())


def _sum(some: Iterable[Names]) -> Names:
    found: Names = {}
    for names in some:
        for name, tally in names.items():
            found.setdefault(name, Tally()).merge(tally)
    return found


def _row(names: Names, now: int) -> bytes:
    said = {name: {"n": tally.count, "m": tally.values} for name, tally in names.items()}
    return orjson.dumps({"v": 1, "t": now, "names": said})


def _read(key: bytes, value: bytes) -> tuple[int, Names] | None:
    """(hour, what was sent in it); None for a stranger's row."""
    try:
        said: Any = orjson.loads(value)["names"]
        return int(key), {
            str(name): Tally(int(one["n"]), {str(c): (int(n), float(total)) for c, (n, total) in one["m"].items()})
            for name, one in said.items()
        }
    except (TypeError, ValueError, KeyError, AttributeError):
        return None
