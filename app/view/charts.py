"""Small charts as numbers for an inline SVG. What they show stands beside them as a table, for whoever does not see them. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

WIDTH, HEIGHT = 240, 56  # of the drawing, in its own units
GAP = 0.2  # part of a bar's width that is left free


class Bar(NamedTuple):
    x: float
    y: float
    width: float
    height: float
    label: str
    value: float | None  # None: not known


@dataclass(frozen=True)
class Bars:
    """A bar for each value."""

    title: str
    bars: Sequence[Bar]
    highest: float

    @property
    def known(self) -> list[Bar]:
        return [bar for bar in self.bars if bar.value is not None]

    @property
    def last(self) -> float | None:
        return self.bars[-1].value if self.bars else None


def bars(title: str, values: Sequence[float | None], labels: Sequence[str]) -> Bars:
    """The highest value is as high as the drawing; anything above zero can be seen."""
    highest = max((value for value in values if value is not None), default=0)
    width = WIDTH / max(1, len(values))
    found = []
    for n, (value, label) in enumerate(zip(values, labels, strict=True)):
        height = max(1.5, value / highest * HEIGHT) if value and highest else 0.0
        x, y = n * width + width * GAP / 2, HEIGHT - height
        found.append(Bar(round(x, 2), round(y, 2), round(width * (1 - GAP), 2), round(height, 2), label, value))
    return Bars(title, found, highest)
