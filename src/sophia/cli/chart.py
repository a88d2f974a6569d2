"""Several curves in one frame of characters, each drawn with a mark of its own."""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Series:
    """Points of rising x, connected by straight lines, and the mark that draws them."""

    mark: str
    x: Sequence[float]
    y: Sequence[float]


@dataclass(frozen=True, slots=True)
class Frame:
    """What part of the plane is drawn, and on how many characters; x may be logarithmic."""

    x: tuple[float, float]
    y: tuple[float, float]
    width: int
    height: int
    logarithmic: bool = False

    def column(self, x: float) -> float:
        """Return where x stands, from 0 at the left to `width` - 1; others are outside."""
        low, high = (self._scale(end) for end in self.x)
        if self.logarithmic and x <= 0.0:
            return -1.0
        return (self._scale(x) - low) / (high - low) * (self.width - 1) if high > low else 0.0

    def row(self, y: float) -> int:
        """Return the line of y, from 0 at the top; below 0 or past the last one it is outside."""
        low, high = self.y
        share = (high - y) / (high - low) if high > low else 0.5
        return round(share * (self.height - 1))

    def _scale(self, x: float) -> float:
        return math.log(x) if self.logarithmic else x


def chart(series: Sequence[Series], frame: Frame) -> list[str]:
    """Return `frame.height` lines of at most `frame.width` characters; later series lie on top."""
    cells = [[" "] * frame.width for _ in range(frame.height)]
    for one in series:
        for column, y in _columns(one, frame):
            row = frame.row(y)
            if 0 <= column < frame.width and 0 <= row < frame.height:
                cells[row][column] = one.mark
    return ["".join(row).rstrip() for row in cells]


def _columns(one: Series, frame: Frame) -> list[tuple[int, float]]:
    places = [frame.column(x) for x in one.x]
    if len(places) < 2:
        return [(round(place), y) for place, y in zip(places, one.y, strict=True)]
    drawn = []
    pairs = zip(places, places[1:], one.y, one.y[1:], strict=False)
    for left, right, before, after in pairs:
        for column in range(math.ceil(left), math.floor(right) + 1):
            share = (column - left) / (right - left) if right > left else 1.0
            drawn.append((column, before + share * (after - before)))
    return drawn
