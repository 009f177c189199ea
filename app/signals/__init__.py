"""Consent strings and what they say, as their standards write it. Pure, and total: a string is read whole or is `Unreadable`.

    tcf.py         IAB Transparency and Consent Framework v2: what people in Europe said, purpose by purpose and vendor by vendor
    gpp.py         IAB Global Privacy Platform: a header and sections, of which TCF is one and US privacy laws are others
    us_privacy.py  the IAB's older four characters for the US
    google.py      Google consent mode as its tags send it: gcs and gcd

Nothing here says what is allowed: that is for app/consent.py. No decoder of ours is a copy of a library, for there is no
library in Python that reads TCF 2.3, or GPP at all, and is kept up.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from app.signals import google, gpp, tcf, us_privacy
from app.signals._bits import Unreadable

__all__ = ["KINDS", "Unreadable", "google", "gpp", "kind_of", "tcf", "told", "us_privacy"]

#: kind -> its string to JSON that names things as the standard does. Raises Unreadable.
KINDS: Mapping[str, Callable[[str], dict[str, Any]]] = {
    "tcf": lambda text: tcf.decode(text).as_json(),
    "gpp": lambda text: gpp.decode(text).as_json(),
    "us_privacy": lambda text: us_privacy.decode(text).as_json(),
    "gcs": lambda text: dict(google.gcs(text)),
    "gcd": lambda text: dict(google.gcd(text)),
}

_LOOKS = {
    "us_privacy": r"[0-9][YNyn-]{3}",
    "gcs": r"[Gg][0-9].*",
    "gcd": r"[0-9]{2}[A-Za-z][0-9].*",
    "gpp": r"D[A-P].*",  # its first six bits are the type 3, and the next begin a version below 16
    "tcf": r"[BC].*",  # its first six bits are the version: 2, or 1, which is told apart and not read
}


def kind_of(text: str) -> str:
    """Which kind a string is, by its beginning. Raises Unreadable for one of no kind."""
    for kind, looks in _LOOKS.items():
        if re.fullmatch(looks, text, re.DOTALL):
            return kind
    raise Unreadable("string", "is of no kind that is read here")


def looks_like(kind: str, text: object) -> bool:
    """May it be a string of this kind? Seen by its signs and its beginning alone; what follows may still be unreadable."""
    if not isinstance(text, str) or not re.fullmatch(r"[\w.~-]+", text, re.ASCII):
        return False
    return re.fullmatch(_LOOKS[kind], text) is not None


def told(kind: str, text: str) -> dict[str, Any]:
    """What a string says, as JSON. Raises Unreadable."""
    return KINDS[kind](text)
