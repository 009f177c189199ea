"""Bits behind base64url, as the IAB's strings have them: six a character, the highest first, no padding."""

from collections.abc import Iterator
from dataclasses import dataclass

from app.errors import CapistreamError

LONGEST = 20_000  # characters of a string; the longest seen on sites have some thousand

_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
_SIX_BITS = {character: f"{value:06b}" for value, character in enumerate(_ALPHABET)}

#: Encoders fill up to a whole byte, and then to a whole character or to four of them.
_LONGEST_FILL = 23


class Unreadable(CapistreamError):
    """A consent string that cannot be read whole. Neither text quotes it."""

    def __init__(self, segment: str, why: str) -> None:
        super().__init__(f"{segment}: {why}")
        self.segment = segment
        self.why = why


@dataclass(frozen=True)
class Ids:
    """A set of vendors, a bit for each: a short string can name very many of them, and many strings are remembered."""

    bits: int = 0

    def __contains__(self, one: int) -> bool:
        return bool(self.bits >> one & 1)

    def __iter__(self) -> Iterator[int]:
        return (one for one, bit in enumerate(f"{self.bits:b}"[::-1]) if bit == "1")

    def __bool__(self) -> bool:
        return bool(self.bits)

    def __or__(self, other: "Ids") -> "Ids":
        return Ids(self.bits | other.bits)


class Bits:
    """Reads one segment from its start to its end. Whatever is not as it must be raises Unreadable with the segment's name."""

    def __init__(self, text: str, segment: str) -> None:
        self.segment = segment
        self._at = 0
        try:
            self._bits = "".join([_SIX_BITS[character] for character in text])
        except KeyError:
            raise self.wrong("has a character that is not of base64url") from None

    def wrong(self, why: str) -> Unreadable:
        return Unreadable(self.segment, why)

    def take(self, count: int) -> str:
        taken = self._bits[self._at : self._at + count]
        if len(taken) < count:
            raise self.wrong("ends too early")
        self._at += count
        return taken

    def number(self, count: int) -> int:
        return int(self.take(count), 2)

    def flag(self) -> bool:
        return self.take(1) == "1"

    def numbers(self, count: int, each: int) -> tuple[int, ...]:
        return tuple(self.number(each) for _ in range(count))

    def field(self, count: int) -> tuple[int, ...]:
        """The places of the ones in a bit field, counted from 1."""
        return tuple(place for place, bit in enumerate(self.take(count), 1) if bit == "1")

    def letters(self, count: int) -> str:
        found = self.numbers(count, 6)
        if any(number > 25 for number in found):
            raise self.wrong("has a letter that is none")
        return "".join(chr(ord("A") + number) for number in found)

    def ranges(self, highest: int) -> Ids:
        """A number of entries, each one id or a range of them."""
        found = 0
        for _ in range(self.number(12)):
            is_range = self.flag()
            first = self.number(16)
            last = self.number(16) if is_range else first
            if not 1 <= first <= last <= highest:
                raise self.wrong("has a range that is none")
            found |= (1 << last + 1) - (1 << first)
        return Ids(found)

    def vendors(self) -> Ids:
        """Vendor ids up to a highest one, as a bit field or as ranges, whichever is shorter."""
        highest = self.number(16)
        if self.flag():
            return self.ranges(highest)
        return Ids(int(f"{self.take(highest)[::-1]}0", 2))

    def fibonacci(self) -> int:
        """A number of 1 or more in Fibonacci coding: the lowest place first, and two ones in a row end it."""
        value, place, after, last = 0, 1, 2, ""
        while True:
            bit = self.take(1)
            if bit == last == "1":
                return value
            if value > 1 << 16:
                raise self.wrong("has a number that is too large")
            value += place if bit == "1" else 0
            place, after, last = after, place + after, bit

    def end(self) -> None:
        """Nothing may follow but what fills up the last characters."""
        rest = self._bits[self._at :]
        if "1" in rest or len(rest) > _LONGEST_FILL:
            raise self.wrong("has something behind its end")
