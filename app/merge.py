"""A set of copies to one event: a pure function of the set, whatever order the copies arrived in.

Some fields only make sense together, so they are taken whole from one copy: money, the GA4 session, the person, the address.
Everything else is filled field by field. Which copy is asked first depends on who knows best: a back end knows the order and
the person, the browser knows its cookies and pages. Consent is the exception: a denial in any copy wins.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import orjson
from msgspec import UNSET

from app.events import CONTRADICTORY, SIGNALS, Event, Json, Source, Tag
from app.shape import Copy, as_event, as_events, from_event

#: Copies kept per conversion; more (by a fixed order that keeps some of every source) are counted and not merged. Their
#: consent is: a denial counts in whichever copy it is.
MAX_COPIES = 8


def _ranks(*sources: Source) -> dict[Source, int]:
    return {source: rank for rank, source in enumerate(sources)}


#: Who is asked first.
_KNOWS_ORDER = _ranks("server", "app", "crm", "offline", "pixel")
_KNOWS_BROWSER = _ranks("pixel", "app", "server", "offline", "crm")


class Group(NamedTuple):
    """Fields that are taken whole, from the first copy that has one of the leading ones."""

    leading: tuple[str, ...]
    others: tuple[str, ...]

    def told_by(self, part: Json) -> int:
        """How much this copy's part says of it: 2 with a leading field, 1 with any, else 0."""
        return 2 if not part.keys().isdisjoint(self.leading) else int(not part.keys().isdisjoint(self.others))


#: part -> (who is asked first, its groups)
_PARTS: dict[str, tuple[dict[Source, int], tuple[Group, ...]]] = {
    "commerce": (_KNOWS_ORDER, (Group(("value",), ("currency", "items", "tax", "shipping", "discount")),)),
    "user": (
        _KNOWS_ORDER,
        (
            Group(("email", "phone"), ("first_name", "last_name", "birth_date", "gender")),
            Group(("country",), ("city", "region", "postal_code", "places", "street")),
        ),
    ),
    "context": (_KNOWS_BROWSER, ()),
    "ids": (_KNOWS_BROWSER, (Group(("ga_client_id",), ("ga_session_id",)),)),
    "custom": (_KNOWS_ORDER, ()),
    "tags": (_KNOWS_BROWSER, ()),
}


#: What stays as it is, whatever it says.
_ALWAYS = frozenset({"v", "event_id", "event_name", "site", "source", "time", "received", "pairs", "apart"})
#: What a copy has and the merged event has not.
_OF_A_COPY = ("origin", "unusable", "revision")


def content_hash(copy: Event) -> str:
    """Names a copy by what it says, not by when or where it arrived."""
    said = {k: v for k, v in copy.items() if k not in ("received", "origin", "time", "unusable")}
    return hashlib.sha256(orjson.dumps(said, option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]


def distinct(copies: Iterable[Event]) -> list[Event]:
    """One copy per source and content, in a fixed order, at most MAX_COPIES; of equal ones the earliest received.

    What is cut never comes back: distinct([*distinct(a), b]) is distinct([*a, b]).
    """
    copies = list(copies)
    if len(copies) < 2:
        return copies
    if _all_differ(copies):
        return _by_rank(copies, _KNOWS_ORDER)
    found: dict[Source, list[Event]] = {}
    for copy in copies:
        found.setdefault(copy["source"], []).append(copy)
    ranked = [pair for source in _KNOWS_ORDER for pair in enumerate(_of_one_source(found.get(source, [])))]
    # by rank within its source: many copies of one must not push out the only copy of another
    kept = sorted(range(len(ranked)), key=lambda i: ranked[i][0])[:MAX_COPIES]
    return [ranked[i][1] for i in sorted(kept)]


def _all_differ(copies: Sequence[Event]) -> bool:
    """Is there one copy a source? Most often; then nothing has to be compared."""
    return len({copy["source"] for copy in copies}) == len(copies)


def _by_rank(copies: Iterable[Event], order: dict[Source, int]) -> list[Event]:
    return sorted(copies, key=lambda copy: order[copy["source"]])


def _of_one_source(copies: Sequence[Event]) -> Sequence[Event]:
    if len(copies) < 2:
        return copies
    found: dict[str, Event] = {}
    for copy in copies:
        name = content_hash(copy)
        if name not in found or _arrival(copy) < _arrival(found[name]):
            found[name] = copy
    return [found[name] for name in sorted(found)]


def _arrival(copy: Event) -> tuple[int, int, bytes]:
    return copy["received"], copy["time"], orjson.dumps(copy.get("origin", {}), option=orjson.OPT_SORT_KEYS)


def merge(copies: Iterable[Event], cut: Json | None = None) -> Event:
    """The conversion that these copies report; `cut` is what `decided` says of copies that `distinct` left out before.

    Raises ValueError for an empty set.
    """
    copies = list(copies)
    if not copies:
        raise ValueError("no copies")
    known = distinct(copies)
    return merge_distinct(known, merge_consent([cut or {}, decided(copies)]) if len(known) == MAX_COPIES else None)


def merge_distinct(known: Sequence[Event], cut: Json | None = None) -> Event:
    """The same of copies that `distinct` gave, or of some of them, in whatever order."""
    return _of_one(known[0]) if len(known) == 1 else _of_several(known, cut)


# The same of copies as dedup has them


def distinct_copies(copies: Sequence[Copy]) -> list[Copy]:
    """`distinct` of copies as dedup has them."""
    if len(copies) == 2 and copies[0].source != copies[1].source:  # most often; then nothing has to be compared
        one, other = copies
        return [one, other] if _KNOWS_ORDER[one.source] < _KNOWS_ORDER[other.source] else [other, one]
    events, copy_of = as_events(copies)
    return [copy_of(event) for event in distinct(events)]


def of_copies(known: Sequence[Copy], cut: Json | None = None) -> Copy:
    """`merge_distinct` of copies as dedup has them."""
    if len(known) == 1:
        return of_one(known[0])
    if len(known) == 2 and known[0].source != known[1].source:
        return of_two(*known)
    return from_event(merge_distinct([as_event(copy) for copy in known], cut))


def of_one(copy: Copy) -> Copy:
    """`merge` of one copy."""
    merged = msgspec.structs.replace(copy, origin=UNSET, revision=UNSET, unusable=UNSET)
    if merged.consent and not only_grants(merged.consent):
        merged.consent = merge_consent([merged.consent]) or UNSET  # type: ignore[assignment]
    merged.labels = sorted(set(merged.labels)) if merged.labels else UNSET
    if {} in (merged.user, merged.context, merged.ids, merged.commerce, merged.consent, merged.tags, merged.custom):
        return from_event(_of_one(as_event(merged)))
    return merged


def of_two(one: Copy, other: Copy) -> Copy:
    """`merge` of two copies from different sources. What only one of them has, or both in the same words, is taken as it is."""
    order, less = (one, other) if _KNOWS_ORDER[one.source] < _KNOWS_ORDER[other.source] else (other, one)
    browser, back = (one, other) if _KNOWS_BROWSER[one.source] < _KNOWS_BROWSER[other.source] else (other, one)
    merged = Copy(
        v=order.v,
        event_id=browser.event_id,
        event_name=order.event_name,
        site=order.site,
        source=order.source,
        time=order.time,
        received=min(one.received, other.received),
        pairs=False if order.pairs is less.pairs is False else UNSET,
        apart=order.apart,
        user=_part(order.user, less.user, "user"),
        context=_part(browser.context, back.context, "context"),
        ids=_part(browser.ids, back.ids, "ids"),
        commerce=_part(order.commerce, less.commerce, "commerce"),
        consent=order.consent or UNSET,
        tags=_part(browser.tags, back.tags, "tags"),
        custom=_part(order.custom, less.custom, "custom"),
    )
    if order.consent != less.consent or not only_grants(order.consent or {}):
        merged.consent = merge_consent([order.consent or {}, less.consent or {}]) or UNSET  # type: ignore[assignment]
    if order.tags and less.tags:
        merged.tags = _tags(merged.tags or {}, [order.tags, less.tags])
    if order.labels or less.labels:
        merged.labels = sorted({*(order.labels or ()), *(less.labels or ())})
    return merged


def _part(first: Any, second: Any, name: str) -> Any:
    """Of two copies, of which the first is asked first."""
    if not second or first == second:
        return first or UNSET
    return _both(first, second, _PARTS[name][1]) if first else second


def _of_one(copy: Event) -> Event:
    """What `_of_several` says of one copy, without comparing it with itself."""
    merged: Any = {**copy}
    for name in _OF_A_COPY:
        merged.pop(name, None)
    if "consent" in merged and not only_grants(merged["consent"]):
        merged["consent"] = merge_consent([merged["consent"]])
    if "labels" in merged:
        merged["labels"] = sorted(set(merged["labels"]))
    if all(merged.values()):  # most often there is no empty part
        return merged  # type: ignore[no-any-return]
    return {name: said for name, said in merged.items() if said or name in _ALWAYS}  # type: ignore[return-value]


def _of_several(known: Sequence[Event], cut: Json | None) -> Event:
    by_order, by_browser = _asked(known)
    known, first = by_order, by_order[0]
    merged: Json = {
        "v": first["v"],
        "event_id": _event_id(by_browser),
        "event_name": first["event_name"],
        "site": first["site"],
        "source": first["source"],
        "time": first["time"],
        "received": min([c["received"] for c in known]),
    }
    if first.get("pairs") is False and all(c.get("pairs") is False for c in known):
        merged["pairs"] = False
    if "apart" in first:  # part of the key, so the same in all of them
        merged["apart"] = first["apart"]
    for part, (order, groups) in _PARTS.items():
        content: Json = {}
        for copy in by_order if order is _KNOWS_ORDER else by_browser:
            if said := copy.get(part):
                content = _both(content, said, groups) if content else said  # type: ignore[arg-type, assignment]
        if content:
            merged[part] = content
    if "tags" in merged:
        merged["tags"] = _tags(merged["tags"], [copy.get("tags", {}) for copy in known])
    told: list[Any] = [c["consent"] for c in known if "consent" in c]
    if cut and len(known) == MAX_COPIES:
        told.append(cut)
    if consent := merge_consent(told):
        merged["consent"] = consent
    if labels := {label for c in known for label in c.get("labels", ())}:
        merged["labels"] = sorted(labels)
    return merged  # type: ignore[return-value]


def _tags(tags: Mapping[str, Tag], told: Iterable[Mapping[str, Tag]]) -> dict[str, Tag]:
    """Relayed is relayed, whatever else is said of that tag: the platform has its report."""
    relayed = {name for one in told for name, tag in one.items() if tag.get("relayed")}
    return {name: {**tag, "relayed": True} if name in relayed else tag for name, tag in tags.items()}


def origins(copies: Iterable[Event]) -> dict[str, list[Event]]:
    """Which copies each field of their merged event is from: `commerce.value` -> the one that it was taken from.

    Of consent and labels all copies that say something of it: a denial of any of them counts.
    """
    known = distinct(copies)
    by_order, by_browser = _asked(known)
    event_id = _event_id(by_browser)
    found: dict[str, list[Event]] = {
        "event_id": [next(copy for copy in by_browser if copy["event_id"] == event_id)],
        "time": [by_order[0]],
    }
    for part, (order, groups) in _PARTS.items():
        content: Json = {}
        for copy in by_order if order is _KNOWS_ORDER else by_browser:
            # what `_both` does depends on the names alone, so in place of each value it is given the copy
            content = _both(content, dict.fromkeys(copy.get(part, ()), copy), groups)  # type: ignore[call-overload]
        found |= {f"{part}.{name}": [copy] for name, copy in content.items()}
    for copy in known:
        for name in copy.get("consent", {}):
            found.setdefault(f"consent.{name}", []).append(copy)
        if "labels" in copy:
            found.setdefault("labels", []).append(copy)
    return found


def _asked(known: Sequence[Event]) -> tuple[list[Event], list[Event]]:
    """Copies in the order in which they are asked: of the order, and of the browser.

    Of two different ones of one source the one received first: a reload of the thank-you page comes after the sale.
    """
    if not _all_differ(known):
        known = sorted(known, key=_arrival)
    return _by_rank(known, _KNOWS_ORDER), _by_rank(known, _KNOWS_BROWSER)


def _event_id(by_browser: Sequence[Event]) -> str:
    """The id that the browser's own tag was given: of several (reloads) the one that another source knows, too."""
    first = by_browser[0]
    others = {copy["event_id"] for copy in by_browser if copy["source"] != first["source"]}
    if first["event_id"] in others:
        return first["event_id"]
    best = [copy["event_id"] for copy in by_browser if copy["source"] == first["source"]]
    return next((event_id for event_id in best if event_id in others), first["event_id"])


def _both(known: Json, other: Json, groups: tuple[Group, ...]) -> Json:
    """What two copies say of a part. `known` was asked first, and may be what several say already."""
    both = other | known
    for group in groups:
        whole = other if group.told_by(known) < group.told_by(other) else known
        for name in (*group.leading, *group.others):
            if name in whole:
                both[name] = whole[name]
            else:
                both.pop(name, None)
    return both


def merge_consent(signals: Sequence[Any]) -> Json:
    """Per signal: denied if any copy denies, granted if any grants, else absent. Strings must agree to stay readable."""
    result: Json = {}
    if all(map(only_grants, signals)):
        for one in signals:
            result |= one
        return result
    told = set().union(*signals)
    for name in SIGNALS:
        if name in told:
            result[name] = "denied" if any(s.get(name) == "denied" for s in signals) else "granted"
    if "gpc" in told:
        result["gpc"] = any(s.get("gpc") for s in signals)
    for name in ("tcf", "gpp", "us_privacy", "region"):
        if name in told:
            said = {s[name] for s in signals if name in s}
            # two different strings contradict each other: policy reads that as denied, and a region as not known
            result[name] = said.pop() if len(said) == 1 else CONTRADICTORY
    if "categories" in told:
        categories = [s["categories"] for s in signals if "categories" in s]
        names = sorted({name for one in categories for name in one})
        result["categories"] = {name: all(one.get(name, True) for one in categories) for name in names}
    return result


def only_grants(consent: Any) -> bool:
    """Most often; then there is nothing to be merged."""
    return [*consent.values()].count("granted") == len(consent)


def denials(signals: Sequence[Any]) -> Json:
    """What takes something away in these consents, merged. Strings are kept whole: what they deny depends on who asks."""
    told = merge_consent(signals)
    return {k: v for k, v in told.items() if k in ("tcf", "gpp", "us_privacy") or v in ("denied", True)}


def narrowed(event: Event, denied: Json) -> Event:
    """The event as if copies that deny this had been merged into it."""
    return {**event, "consent": merge_consent([event.get("consent", {}), denied])}  # type: ignore[typeddict-item]


def decided(copies: Iterable[Event]) -> Json:
    """The merged consent of copies, without the categories: what those decide are signals by now, and there can be any number."""
    consent = merge_consent([c["consent"] for c in copies if "consent" in c])
    consent.pop("categories", None)
    return consent
