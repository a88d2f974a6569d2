"""Intervals that may be looked at after every outcome and stay as right as they say.

Robbins' normal mixture for scores between 0 and 1: whatever the scores are, the chance that the
interval ever leaves out their expectation, at any of infinitely many looks, is `error` at the most.
"""

import math

from msgspec import Struct

_TUNED = 10.0
"""Where the interval is narrowest: at some four hundred scores."""


class Tally(Struct, frozen=True):
    """How many scores there were, and their sum."""

    count: int = 0
    total: float = 0.0

    @property
    def mean(self) -> float:
        """The mean score; one half before there is any."""
        return self.total / self.count if self.count else 0.5

    def plus(self, score: float) -> "Tally":
        """Return this tally with one score more. Raises ValueError unless it is from 0 to 1."""
        if not 0 <= score <= 1:
            raise ValueError(f"a score must be from 0 to 1, not {score}")
        return Tally(self.count + 1, self.total + score)


class Interval(Struct, frozen=True):
    """Where the expected score lies, after `count` scores of mean `mean`."""

    count: int
    mean: float
    low: float
    high: float


def interval(tally: Tally, error: float) -> Interval:
    """Return the interval after the scores of `tally`; its chance ever to be wrong is `error`."""
    half = radius(tally.count, error)
    mean = tally.mean
    return Interval(tally.count, mean, max(0.0, mean - half), min(1.0, mean + half))


def radius(count: int, error: float) -> float:
    """Return half the width of the interval after `count` scores; infinite before the first."""
    if not count:
        return math.inf
    # A score between 0 and 1 varies by a quarter at the most.
    spread = count / 4 + _TUNED
    return math.sqrt(spread * (math.log(spread / _TUNED) - 2 * math.log(error))) / count
