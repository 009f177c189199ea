"""Google consent mode, as Google's tags tell it in the parameters gcs and gcd of their requests.

Google names the signals (developers.google.com/tag-platform/security/concepts/consent-mode) and not the letters of gcd. Those are
as people have found them: www.simoahava.com/analytics/consent-mode-v2-google-tags. So a letter that nobody knows is a denial.
"""

import re
from collections.abc import Mapping
from typing import Literal

from app.signals._bits import Unreadable

Said = Literal["granted", "denied"]

_ORDER = ("ad_storage", "analytics_storage", "ad_user_data", "ad_personalization")
_DIGITS: Mapping[str, Said] = {"1": "granted", "0": "denied"}
#: By default, by an update, or both; the last word counts.
_LETTERS: Mapping[str, Said] = {
    "p": "denied",  # by default
    "q": "denied",  # by default, and by an update
    "m": "denied",  # by an update
    "u": "denied",  # granted by default, and denied by an update
    "t": "granted",  # by default
    "r": "granted",  # denied by default, and granted by an update
    "n": "granted",  # by an update
    "v": "granted",  # by default, and by an update
}
_NOT_TOLD = "l"


def gcs(text: str) -> Mapping[str, Said]:
    """`G1xy`: x is ad_storage, y is analytics_storage; 1 granted, 0 denied, - not told. Raises Unreadable."""
    match = re.fullmatch("G1(.)(.)", text, re.DOTALL)
    if not match:
        raise Unreadable("gcs", "is not G1 and two signs")
    return {
        name: _DIGITS.get(sign, "denied") for name, sign in zip(_ORDER, match.groups(), strict=False) if sign != "-"
    }


def gcd(text: str) -> Mapping[str, Said]:
    """`11r1r1r1r5`: a letter for each signal, with digits around them; newer tags add more behind. Raises Unreadable."""
    match = re.fullmatch(r"1[0-9]([A-Za-z])[0-9]([A-Za-z])[0-9]([A-Za-z])[0-9]([A-Za-z])[0-9][0-9A-Za-z]{0,20}", text)
    if not match:
        raise Unreadable("gcd", "is not a letter for each of four signals with digits around them")
    return {
        name: _LETTERS.get(letter, "denied")
        for name, letter in zip(_ORDER, match.groups(), strict=True)
        if letter != _NOT_TOLD
    }
