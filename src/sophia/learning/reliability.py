"""Calibration as a picture: of answers expected to score so much, how well did they score."""

import numpy as np
from msgspec import Struct

from sophia.learning.measures import BINS
from sophia.learning.tables import Matrix


class Bin(Struct, frozen=True):
    """Answers of all arms whose expected scores lie close together.

    Attributes:
        expected: their mean expectation.
        observed: their mean score.
        error: two standard errors of `observed`.
        answers: how many there are.
    """

    expected: float
    observed: float
    error: float
    answers: int


def reliability(expected: Matrix, quality: Matrix) -> tuple[Bin, ...]:
    """Return the bins, of equal width, that hold any of the expectations, (N, A)."""
    place = np.clip((expected * BINS).astype(np.intp), 0, BINS - 1)
    found = []
    for number in range(BINS):
        inside = place == number
        count = int(inside.sum())
        if count:
            scores = quality[inside]
            spread = float(scores.std()) / count**0.5
            found.append(
                Bin(float(expected[inside].mean()), float(scores.mean()), 2 * spread, count)
            )
    return tuple(found)
