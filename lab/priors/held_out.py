"""Held-out cells of the benchmark tables and their predictions from the other cells."""

from collections.abc import Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from lab.priors.factor_model import BenchmarkMatrix, fit_factors, from_log_odds, to_log_odds


class HeldOutCell(Struct, frozen=True):
    """A held-out cell: its observed score, its prediction, and the standardised error."""

    task: str
    arm: str
    measured_elsewhere: bool
    observed: float
    predicted: float
    baseline: float
    z_score: float


def predict_held_out(
    cells: BenchmarkMatrix, *, folds: int = 30, by_source: bool = True, seed: int = 0
) -> list[HeldOutCell]:
    """Predict every cell from the others.

    With `by_source` an arm's cells of one source are held out together, as for traffic unlike any
    table; else each cell is held out alone.
    """
    measured = np.isfinite(cells.score)
    blocks: dict[tuple[str, int], list[int]] = {}
    for task, arm in zip(*np.nonzero(measured), strict=True):
        key = cells.sources[task] if by_source else str(task)
        blocks.setdefault((key, int(arm)), []).append(int(task))
    names = sorted(blocks)
    order = np.random.default_rng(seed).permutation(len(names))
    predictions: list[HeldOutCell] = []
    for part in range(folds):
        hidden = np.zeros_like(measured)
        for at in order[part::folds]:
            key, arm = names[at]
            hidden[blocks[key, arm], arm] = True
        predictions += _predict_masked(cells, hidden)
    return predictions


def variance_inflation(cells: Sequence[HeldOutCell]) -> float:
    """Return the factor, at least 1, that fits the variances to the held-out errors."""
    return max(1.0, float(np.mean([one.z_score**2 for one in cells]))) if cells else 1.0


def _predict_masked(cells: BenchmarkMatrix, hidden: NDArray[np.bool_]) -> list[HeldOutCell]:
    factors = fit_factors(cells.mask(hidden))
    score, error = np.where(hidden, cells.score, 0.5), np.where(hidden, cells.error, 1.0)
    odds, sampling = to_log_odds(score, error)
    left = np.isfinite(cells.score) & ~hidden
    predictions = []
    for task, arm in zip(*np.nonzero(hidden), strict=True):
        at = np.array([1.0, factors.source_ability[task, arm]])
        loading = factors.loading[task]
        mean = factors.intercept[task] + loading * at[1]
        variance = loading**2 * factors.source_ability_variance[task, arm] + factors.task_variance
        variance += float(at @ factors.task_covariance[task] @ at) + sampling[task, arm]
        others = cells.score[task][left[task]]
        predictions.append(
            HeldOutCell(
                cells.tasks[task],
                cells.arms[arm],
                bool(left[:, arm].any()),
                float(cells.score[task, arm]),
                float(from_log_odds(np.array([mean]))[0]),
                float(others.mean()) if len(others) else 0.5,
                float((odds[task, arm] - mean) / np.sqrt(variance)),
            )
        )
    return predictions
