"""A set of copies to one event: a pure function of the set, whatever order the copies arrived in.

Some fields only make sense together, so they are taken whole from one copy: money, the GA4 session, the person, the address.
Everything else is filled field by field. Which copy is asked first depends on who knows best: a back end knows the order and
the person, the browser knows its cookies and pages. Consent is the exception: a denial in any copy wins.
"""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import msgspec
import orjson
from msgspec import UNSET

from app.events import CONTRADICTORY, SIGNALS, Event, Json, Source
from app.shape import Copy, Origin, as_event, from_event

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


def content_hash(copy: Event) -> str:
    """Names a copy by what it says, not by when or where it arrived."""
    said = {k: v for k, v in copy.items() if k not in ("received", "origin", "time", "unusable")}
    return hashlib.sha256(orjson.dumps(said, option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]


def distinct(copies: Sequence[Copy]) -> list[Copy]:
    """One copy per source and content, in a fixed order, at most MAX_COPIES; of equal ones the earliest received.

    What is cut never comes back: distinct([*distinct(a), b]) is distinct([*a, b]).
    """
    if _all_differ(copies):
        return sorted(copies, key=_by_order)
    found: dict[Source, list[Copy]] = {}
    for copy in copies:
        found.setdefault(copy.source, []).append(copy)
    ranked = [pair for source in _KNOWS_ORDER for pair in enumerate(_of_one_source(found.get(source, [])))]
    # by rank within its source: many copies of one must not push out the only copy of another
    kept = sorted(range(len(ranked)), key=lambda i: ranked[i][0])[:MAX_COPIES]
    return [ranked[i][1] for i in sorted(kept)]


def _all_differ(copies: Sequence[Copy]) -> bool:
    """Is there one copy a source? Most often; then nothing has to be compared."""
    return len({copy.source for copy in copies}) == len(copies)


def _by_order(copy: Copy) -> int:
    return _KNOWS_ORDER[copy.source]


def _by_browser(copy: Copy) -> int:
    return _KNOWS_BROWSER[copy.source]


def _of_one_source(copies: Sequence[Copy]) -> Sequence[Copy]:
    if len(copies) < 2:
        return copies
    found: dict[str, Copy] = {}
    for copy in copies:
        name = content_hash(as_event(copy))
        if name not in found or _arrival(copy) < _arrival(found[name]):
            found[name] = copy
    return [found[name] for name in sorted(found)]


def _arrival(copy: Copy) -> tuple[int, int, bytes]:
    origin = msgspec.to_builtins(copy.origin or Origin())
    return copy.received, copy.time, orjson.dumps(origin, option=orjson.OPT_SORT_KEYS)


def merge(copies: Iterable[Event]) -> Event:
    """The conversion that these copies report. Raises ValueError for an empty set."""
    told = [from_event(copy) for copy in copies]
    if not told:
        raise ValueError("no copies")
    return as_event(merged(distinct(told), decided(told)))


def merged(known: Sequence[Copy], cut: Json | None = None) -> Copy:
    """The same of copies that `distinct` gave, or of some of them, in whatever order.

    `cut` is what `decided` says of copies that it left out.
    """
    if len(known) == 1:
        return _of_one(known[0])
    by_order, by_browser = _asked(known)
    first = by_order[0]
    consents: list[Any] = [copy.consent for copy in known if copy.consent]
    if cut and len(known) == MAX_COPIES:
        consents.append(cut)
    labels = [copy.labels for copy in known if copy.labels]
    return Copy(
        v=first.v,
        event_id=_event_id(by_browser),
        event_name=first.event_name,
        site=first.site,
        source=first.source,
        time=first.time,
        received=min([copy.received for copy in known]),
        pairs=False if first.pairs is False and all(copy.pairs is False for copy in known) else UNSET,
        apart=first.apart,  # part of the key, so the same in all of them
        user=_part("user", by_order),
        context=_part("context", by_browser),
        ids=_part("ids", by_browser),
        commerce=_part("commerce", by_order),
        consent=merge_consent(consents) or UNSET,  # type: ignore[arg-type]
        tags=_tags(by_browser),
        custom=_part("custom", by_order),
        labels=sorted(set().union(*labels)) if labels else UNSET,
    )


def _of_one(copy: Copy) -> Copy:
    """The same of one copy, as most conversions are, in a fifth of the time."""
    merged = msgspec.structs.replace(copy, origin=UNSET, revision=UNSET, unusable=UNSET)
    if merged.consent and not only_grants(merged.consent):
        merged.consent = merge_consent([merged.consent]) or UNSET  # type: ignore[assignment]
    merged.labels = sorted(set(merged.labels)) if merged.labels else UNSET
    if {} in (merged.user, merged.context, merged.ids, merged.commerce, merged.consent, merged.tags, merged.custom):
        for name in ("consent", *_PARTS):
            if not getattr(merged, name):
                setattr(merged, name, UNSET)
    return merged


def _part(name: str, copies: Iterable[Copy]) -> Any:
    """What these say of a part, in the order in which they are asked."""
    content: Any = UNSET
    for copy in copies:
        said = getattr(copy, name)
        if not content:
            content = said or UNSET
        elif said and said != content:
            content = _both(content, said, _PARTS[name][1])
    return content


def _tags(by_browser: Sequence[Copy]) -> Any:
    """Relayed is relayed, whatever else is said of that tag: the platform has its report."""
    tags = _part("tags", by_browser)
    if not tags:
        return UNSET
    relayed = {name for copy in by_browser for name, tag in (copy.tags or {}).items() if tag.get("relayed")}
    return {name: {**tag, "relayed": True} if name in relayed else tag for name, tag in tags.items()}


def origins(copies: Sequence[Copy]) -> dict[str, list[Copy]]:
    """Which copies each field of their merged event is from: `commerce.value` -> the one that it was taken from.

    Of consent and labels all copies that say something of it: a denial of any of them counts.
    """
    known = distinct(copies)
    by_order, by_browser = _asked(known)
    event_id = _event_id(by_browser)
    found: dict[str, list[Copy]] = {
        "event_id": [next(copy for copy in by_browser if copy.event_id == event_id)],
        "time": [by_order[0]],
    }
    for part, (order, groups) in _PARTS.items():
        content: Json = {}
        for copy in by_order if order is _KNOWS_ORDER else by_browser:
            # what `_both` does depends on the names alone, so in place of each value it is given the copy
            content = _both(content, dict.fromkeys(getattr(copy, part) or (), copy), groups)
        found |= {f"{part}.{name}": [copy] for name, copy in content.items()}
    for copy in known:
        for name in copy.consent or ():
            found.setdefault(f"consent.{name}", []).append(copy)
        if copy.labels:
            found.setdefault("labels", []).append(copy)
    return found


def _asked(known: Sequence[Copy]) -> tuple[list[Copy], list[Copy]]:
    """Copies in the order in which they are asked: of the order, and of the browser.

    Of two different ones of one source the one received first: a reload of the thank-you page comes after the sale.
    """
    if not _all_differ(known):
        known = sorted(known, key=_arrival)
    return sorted(known, key=_by_order), sorted(known, key=_by_browser)


def _event_id(by_browser: Sequence[Copy]) -> str:
    """The id that the browser's own tag was given: of several (reloads) the one that another source knows, too."""
    first = by_browser[0]
    others = {copy.event_id for copy in by_browser if copy.source != first.source}
    if first.event_id in others:
        return first.event_id
    its = [copy.event_id for copy in by_browser if copy.source == first.source]
    return next((event_id for event_id in its if event_id in others), first.event_id)


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


def decided(copies: Iterable[Copy]) -> Json:
    """The merged consent of copies, without the categories: what those decide are signals by now, and there can be any number."""
    consent = merge_consent([copy.consent for copy in copies if copy.consent])
    consent.pop("categories", None)
    return consent
