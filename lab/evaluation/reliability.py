"""Reliability diagram: expected and observed scores by bin."""

import numpy as np
from msgspec import Struct

from lab.evaluation.measures import BINS
from lab.evaluation.tables import Matrix


class CalibrationBin(Struct, frozen=True):
    """Answers of all arms in one bin of expected scores.

    Attributes:
        expected: their mean expected score.
        observed: their mean score.
        error: two standard errors of `observed`.
        count: their number.
    """

    expected: float
    observed: float
    error: float
    count: int


def bin_calibration(expected: Matrix, quality: Matrix) -> tuple[CalibrationBin, ...]:
    """Return the non-empty bins, of equal width, of expected scores, (N, A)."""
    place = np.clip((expected * BINS).astype(np.intp), 0, BINS - 1)
    found = []
    for number in range(BINS):
        inside = place == number
        count = int(inside.sum())
        if count:
            scores = quality[inside]
            spread = float(scores.std()) / count**0.5
            found.append(
                CalibrationBin(
                    float(expected[inside].mean()), float(scores.mean()), 2 * spread, count
                )
            )
    return tuple(found)
