"""How the copies of conversions meet: who is missing, how far they are apart, and what another hold would do. Pure.

It is told from the copies themselves, as they stand in `<prefix>.events`, and not from what was merged: so copies that came too
late for their hold are in it, and the distribution of the gaps does not end where the hold ends.
"""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from app import keys
from app.events import Json
from app.settings import EventRule
from app.view.words import plural, span

SETTLE = 60_000  # milliseconds after a first copy before it is said that another one is missing, at least
HOLDS = (0.0, 1.0, 2.0, 3.0, 5.0, 10.0, 20.0, 30.0, 60.0, 300.0)  # seconds that the page compares
EDGES = (0.1, 0.2, 0.5, 1, 2, 3, 5, 10, 20, 30, 60, 300, 3600)  # seconds, of the histogram
ENOUGH = 20  # pairs from which on there is advice
EXAMPLES = 5
FORMS = 3  # of ids, of each source


class Copy(NamedTuple):
    key: bytes
    source: str
    received: int  # record time, Unix milliseconds
    event_id: str
    pairs: bool  # False: its id was made up for this call


@dataclass
class Meeting:
    """The copies of one conversion, in the order of the log."""

    key: bytes
    first: int  # record time of its first copy
    after: dict[str, int] = field(default_factory=dict)  # source -> milliseconds after the first copy
    copies: int = 0
    last: int = 0  # milliseconds after the first copy, of the last one
    lone: bool = False  # no other copy can come

    def gap(self, expect: Sequence[str]) -> int | None:
        """Milliseconds until all of these were there; None: they were not."""
        return max((self.after[source] for source in expect), default=0) if self.after.keys() >= {*expect} else None

    def came_after_closing(self, rule: EventRule) -> bool:
        """Did a copy come when it had closed already: at its last expected copy, or at the end of its hold?"""
        if not rule.expect:
            return self.copies > 1
        gap, hold = self.gap(rule.expect), int(rule.merge_window * 1000)
        return self.last > (hold if gap is None else min(gap, hold))


def meetings(copies: Iterable[Copy]) -> list[Meeting]:
    found: dict[bytes, Meeting] = {}
    for copy in copies:
        one = found.setdefault(copy.key, Meeting(copy.key, copy.received))
        after = max(0, copy.received - one.first)
        one.after[copy.source] = min(after, one.after.get(copy.source, after))
        one.copies += 1
        one.last = max(one.last, after)
        made_up = not copy.pairs and copy.event_id == keys.parts(copy.key)[0]
        one.lone = one.lone or made_up or copy.source in ("offline", "crm")
    return list(found.values())


def judged(
    all_: Iterable[Meeting], rule: Callable[[str], EventRule], since: int, until: int
) -> dict[str, list[tuple[str, Meeting]]]:
    """Event name -> (what became of it, meeting). Those at the edges of what was read cannot be judged, and are `open`.

    together: within the hold; late: all came, but later than that; missing SOURCE; alone: no other copy can come; not_held:
    this event name expects none.
    """
    found: dict[str, list[tuple[str, Meeting]]] = defaultdict(list)
    for one in all_:
        name = keys.parts(one.key)[2]
        its = rule(name)
        hold = int(its.merge_window * 1000)
        settle = max(hold, SETTLE)
        gap = one.gap(its.expect)
        if since and one.first < since + settle:
            what = "open"
        elif not its.expect:
            what = "not_held"
        elif gap is not None:
            what = "together" if gap <= hold else "late"
        elif one.lone:
            what = "alone"
        elif one.first > until - settle:
            what = "open"
        else:
            what = f"missing {min({*its.expect} - one.after.keys())}"
        found[name].append((what, one))
    return found


def health(name: str, some: Sequence[tuple[str, Meeting]], rule: EventRule, asked: float | None = None) -> Json:
    """Of one event name. `asked`: another hold, in seconds, that somebody wants to know about."""
    counts = Counter(what for what, _ in some)
    missing = {what.removeprefix("missing "): n for what, n in counts.items() if what.startswith("missing ")}
    gaps = sorted(
        gap for what, one in some if what in ("together", "late") and (gap := one.gap(rule.expect)) is not None
    )
    whole = counts["together"] + counts["late"]
    could = whole + sum(missing.values())
    of_two_kinds = near(some)
    return {
        "event": name,
        "expect": list(rule.expect),
        "hold": rule.merge_window,
        "conversions": len(some),
        "together": counts["together"],
        "late": counts["late"],
        "missing": dict(sorted(missing.items())),
        "alone": counts["alone"],
        "open": counts["open"],
        "not_held": counts["not_held"],
        "of_several_sources": sum(what == "not_held" and len(one.after) > 1 for what, one in some),
        "repeats": sum(one.copies - len(one.after) for _, one in some),
        "share": round(whole / could, 4) if could else None,
        "merged": round(counts["together"] / could, 4) if could else None,
        "gaps": {f"p{part}": seconds(percentile(gaps, part)) for part in (50, 97, 99)} if gaps else {},
        "histogram": histogram(gaps),
        "holds": what_if(gaps, sorted({*HOLDS, rule.merge_window, *([asked] if asked is not None else [])})),
        "near": [list(pair) for pair in of_two_kinds[:EXAMPLES]],
        "near_total": len(of_two_kinds),
        "forms": forms(some),
        "advice": advice(gaps, rule, len(of_two_kinds)),
    }  # fmt: skip


def percentile(ordered: Sequence[int], part: float) -> int:
    """The smallest value that this part (of 100) of them does not exceed. Of none: 0."""
    return ordered[max(0, math.ceil(part / 100 * len(ordered)) - 1)] if ordered else 0


def seconds(milliseconds: float) -> float:
    return round(milliseconds / 1000, 3)


def histogram(gaps: Iterable[int]) -> list[Json]:
    """Pairs by their gap: up to so many seconds, and more than the one before; None: longer than all."""
    edges = [*EDGES, math.inf]
    counts = Counter(next(edge for edge in edges if gap <= edge * 1000) for gap in gaps)
    return [{"up_to": None if edge == math.inf else edge, "pairs": counts[edge]} for edge in edges]


def what_if(gaps: Sequence[int], holds: Iterable[float]) -> list[Json]:
    """What each hold would have done to these pairs. Of a pair that it splits one copy is sent alone, the other comes too late."""
    return [
        {"hold": hold, "together": len(gaps) - split, "split": split, "share": round(split / len(gaps), 4) if gaps else 0.0}
        for hold in holds
        for split in [sum(gap > hold * 1000 for gap in gaps)]
    ]  # fmt: skip


def advice(gaps: Sequence[int], rule: EventRule, of_two_kinds: int) -> list[str]:
    """What somebody should know, and do."""
    said = []
    hold = rule.merge_window
    if of_two_kinds:
        said.append(f"{of_two_kinds} more would be pairs, if both sides wrote their ids alike")
    if not rule.expect:
        return said
    if len(gaps) < ENOUGH:
        return [*said, f"{plural(len(gaps), 'pair is', 'pairs are')} too few to say more; {ENOUGH} would do"]
    p97, p99 = percentile(gaps, 97), percentile(gaps, 99)
    said.append(f"97 % of pairs meet within {span(seconds(p97))}; your hold is {span(hold)}")
    better = max(1.0, float(math.ceil(p99 / 1000)))
    split = sum(gap > hold * 1000 for gap in gaps)
    if split > len(gaps) / 100 and better > hold:
        said.append(f"{plural(split, 'pair')} came apart: a hold of {span(better)} would have kept 99 % together")
    elif better <= hold / 2:
        said.append(
            f"a hold of {span(better)} would keep 99 % together, and send what stays alone {span(hold - better)} earlier"
        )
    if rule.wait_for:
        said.append(f"nothing is sent before a copy from {rule.wait_for} is there, which may take longer than the hold")
    return said


# Ids


def near(some: Iterable[tuple[str, Meeting]]) -> list[tuple[str, str]]:
    """Pairs of ids that lack each other, and differ by no more than case, leading zeros and signs."""
    by_core: dict[tuple[str, str], list[Meeting]] = defaultdict(list)
    for what, one in some:
        if what.startswith("missing "):
            id_, site, _ = keys.parts(one.key)
            if core := _core(id_):
                by_core[core, site].append(one)
    return [
        (keys.parts(one.key)[0], keys.parts(other.key)[0])
        for (one, *others) in by_core.values()
        for other in others[:1]
        if not one.after.keys() & other.after.keys()
    ]


def _core(id_: str) -> str:
    return re.sub(r"[\W_]+", "", id_).casefold().lstrip("0")


def forms(some: Iterable[tuple[str, Meeting]]) -> dict[str, list[Json]]:
    """What the ids of those look like that lack another copy, by the source that wrote them: the most frequent forms."""
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for what, one in some:
        if what.startswith("missing "):
            for source in one.after:
                found[source][form(keys.parts(one.key)[0])] += 1
    return {
        source: [{"form": name, "conversions": n} for name, n in counts.most_common(FORMS)]
        for source, counts in sorted(found.items())
    }


_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.IGNORECASE)


def form(id_: str) -> str:
    """`1001` is 9999, `EV-1001` is AA-9999; long ones are cut, and a UUID is called so."""
    if _UUID.fullmatch(id_):
        return "a UUID"
    said = re.sub(r"[^\W\d_]", lambda letter: "A" if letter[0].isupper() else "a", re.sub(r"\d", "9", id_))
    return said if len(said) <= 24 else f"{said[:20]}… ({len(id_)} characters)"


# What the workers counted


def summed(told: Iterable[Mapping[str, Mapping[str, int]]]) -> dict[str, dict[str, int]]:
    """Counts by event name and kind, of all workers."""
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for some in told:
        for name, counts in some.items():
            found[name].update(counts)
    return {name: dict(sorted(counts.items())) for name, counts in sorted(found.items())}
