"""Bits behind base64url, as the IAB's strings have them: six a character, the highest first, no padding."""

from collections.abc import Iterator, Sequence
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
    """A set of vendors. Ranges stay ranges: a short string can name many."""

    ranges: tuple[tuple[int, int], ...] = ()  # ascending, with gaps between them

    def __contains__(self, one: int) -> bool:
        return any(first <= one <= last for first, last in self.ranges)

    def __iter__(self) -> Iterator[int]:
        for first, last in self.ranges:
            yield from range(first, last + 1)

    def __bool__(self) -> bool:
        return bool(self.ranges)


def ids(ranges: Sequence[tuple[int, int]]) -> Ids:
    """Of ranges in any order, which may overlap."""
    joined: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(last, joined[-1][1]))
        else:
            joined.append((first, last))
    return Ids(tuple(joined))


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
        found = []
        for _ in range(self.number(12)):
            is_range = self.flag()
            first = self.number(16)
            last = self.number(16) if is_range else first
            if not 1 <= first <= last <= highest:
                raise self.wrong("has a range that is none")
            found.append((first, last))
        return ids(found)

    def vendors(self) -> Ids:
        """Vendor ids up to a highest one, as a bit field or as ranges, whichever is shorter."""
        highest = self.number(16)
        if self.flag():
            return self.ranges(highest)
        return ids([(place, place) for place in self.field(highest)])

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
