"""The IAB's US privacy string: a version and three letters.

github.com/InteractiveAdvertisingBureau/USPrivacy, CCPA/US Privacy String.md
"""

import re
from dataclasses import dataclass
from typing import Any

from app.signals._bits import Unreadable

_SAID = {"Y": True, "N": False, "-": None}


@dataclass(frozen=True)
class UsPrivacy:
    """None: the law does not apply."""

    notice: bool | None  # and the opportunity to opt out
    opt_out_sale: bool | None
    lspa: bool | None  # covered by the IAB's limited service provider agreement

    def as_json(self) -> dict[str, Any]:
        letters = {said: letter for letter, said in _SAID.items()}
        return {
            "Version": 1,
            "Notice": letters[self.notice],
            "OptOutSale": letters[self.opt_out_sale],
            "LspaCovered": letters[self.lspa],
        }


def decode(text: str) -> UsPrivacy:
    """Raises Unreadable. Letters may be small: the specification takes both."""
    if not re.fullmatch("1[YNyn-]{3}", text):
        raise Unreadable("us_privacy", "is not a 1 and three of Y, N and -")
    return UsPrivacy(*(_SAID[letter] for letter in text[1:].upper()))
