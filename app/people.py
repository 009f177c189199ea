"""Who is it? Told from the hashed identifiers of copies, for one question: is one id used by several people?

Page caches and hard-coded ids do that. Merged, such copies would mix one person's order with another's cookies. Copies are of
different people only for certain: both name one by an identifier of the same kind, hashed by us, and share none of any kind.
(A hash that arrived as a hash says nothing when it differs: nobody knows what was hashed.)
"""

import hashlib
import hmac
from collections.abc import Iterator, Sequence
from typing import Any

from app.events import Event

#: Kinds of identifiers that tell people apart, strongest first, each with the letter that names it in a row.
_STRONG = {"email": "e", "phone": "p", "user_id": "u"}
#: Kinds that only tell what belongs together: one person has many of these.
_WEAK = ("ga_client_id", "fbp", "ttp")


def _all(copy: Event, kind: str) -> Sequence[str]:
    """Every form of an identifier: an e-mail has one hash per rule, and two copies need only share one of them."""
    user = copy.get("user", {})
    if kind in ("email", "phone"):
        return [*user.get(kind, {}).values()]  # type: ignore[attr-defined]
    found = user.get("user_id") if kind == "user_id" else copy.get("ids", {}).get(kind)
    return [str(found)] if found else []


def _certain(copy: Event, kind: str) -> str | None:
    """The one form of an identifier that can be compared, if there is one."""
    found: Any = copy.get("user", {}).get(kind)
    if not isinstance(found, dict):
        return found  # type: ignore[no-any-return]
    return (
        found.get("plain")
        or found.get("e164")
        or min((h for rule, h in found.items() if rule != "given"), default=None)
    )


def _together(copies: Sequence[Event]) -> list[list[Event]]:
    """Copies that share an identifier, directly or by way of others."""
    home = list(range(len(copies)))  # index of a copy -> index of one of its kin; of the first: itself
    first: dict[tuple[str, str], int] = {}

    def root(n: int) -> int:
        while home[n] != n:
            n = home[n]
        return n

    for n, copy in enumerate(copies):
        for kind in (*_STRONG, *_WEAK):
            for value in _all(copy, kind):
                one, other = sorted((root(n), root(first.setdefault((kind, value), n))))
                home[other] = one
    kin: dict[int, list[Event]] = {}
    for n, copy in enumerate(copies):
        kin.setdefault(root(n), []).append(copy)
    return list(kin.values())


def groups(copies: Sequence[Event]) -> list[tuple[str, list[Event]]]:
    """(mark, copies) per person, in a fixed order; most often one group, with an empty mark.

    The strongest kind of identifier that any copy has tells them apart. Copies without one go to the first group.
    """
    for kind in _STRONG if len([copy for copy in copies if "user" in copy]) > 1 else ():
        known = {value for copy in copies if (value := _certain(copy, kind))}
        if len(known) == 1:
            break
        if known:
            return _groups(copies, kind)
    return [("", list(copies))]


def _groups(copies: Sequence[Event], kind: str) -> list[tuple[str, list[Event]]]:
    named: dict[str, list[Event]] = {}
    nameless: list[Event] = []
    for some in _together(copies):
        if values := [value for copy in some if (value := _certain(copy, kind))]:
            named[min(values)] = some
        else:
            nameless += some
    (first, its), *others = sorted(named.items())
    if not others:
        return [("", list(copies))]
    return [(_short(kind, first), its + nameless), *((_short(kind, value), some) for value, some in others)]


def mark(copy: Event) -> str:
    """Eight hex digits for the person, as `groups` would name them, or nothing."""
    return next((_short(kind, value) for kind in _STRONG if (value := _certain(copy, kind))), "")


def marks(copies: Sequence[Event], key: bytes = b"") -> str:
    """All that is certain about the person behind these copies, five characters for each kind of identifier.

    With a key they are keyed hashes, which nobody can compare without it, and the first five characters name the key.
    """
    told = ""
    for kind, letter in _STRONG.items():
        for copy in reversed(copies):
            if "user" in copy and (value := _certain(copy, kind)):
                told += letter + _four(kind, value, key)
                break
    return _named(key) + told if key and told else told


def stranger(known: str, copy: Event, keys: Sequence[bytes] = ()) -> bool:
    """Is this copy for certain of somebody else than those `marks` are of? Under a key that is gone nobody can tell."""
    key = b""
    if known[:1] == _KEY:
        key = next((one for one in keys if known.startswith(_named(one))), b"")
        known = known[5:] if key else ""
    if not known:
        return False
    told = marks([copy], key)[5 if key else 0 :]
    theirs, its = ({text[i]: text[i + 1 : i + 5] for i in range(0, len(text), 5)} for text in (known, told))
    both = theirs.keys() & its.keys()
    return bool(both) and all(theirs[letter] != its[letter] for letter in both)


def visitor(copy: Event, key: bytes = b"") -> str:
    """Six hex digits for the person or the browser, or nothing when the copy tells of neither."""
    context = copy.get("context", {})

    def told() -> Iterator[str]:
        for kind in (*_STRONG, *_WEAK):
            yield from (_short(kind, value, key) for value in sorted(_all(copy, kind))[:1])
        if "ip" in context:
            yield _short("ip", f"{context['ip']} {context.get('user_agent')}", key)

    return next(told(), "")[:6]


_KEY = "k"  # before the name of a key, where a letter of _STRONG would stand


def _named(key: bytes) -> str:
    return _KEY + _short("key", "", key)[:4]


def _four(kind: str, value: str, key: bytes) -> str:
    if not key and kind != "user_id":
        return value[:4]  # e-mail and phone are hashes already
    return _short(kind, value, key)[:4]


def _short(kind: str, value: str, key: bytes = b"") -> str:
    said = f"{kind} {value}".encode()
    return (hmac.digest(key, said, hashlib.sha256).hex() if key else hashlib.sha256(said).hexdigest())[:8]
