"""Question difficulties on one scale over all tables, and a linear model of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lab.evaluation.tables import Matrix
from sophia.routing.bandit.policy import Vector

ROUNDS = 60
PRIOR_VARIANCE = 2.0
"""Prior variance of a difficulty around its table's mean."""
TABLE_WEIGHT = 2000.0
"""Weight of a table in the estimate of abilities, in answers, whatever its size."""
SOURCE_WEIGHT = 500.0
"""Weight of a source of weight 1 against the penalty, in questions."""
QUARTILES = (0.25, 0.5, 0.75)


@dataclass(frozen=True)
class AnswerTable:
    """Scores of one table, (N, A), by arms with the same names in all tables."""

    arms: tuple[str, ...]
    quality: Matrix


@dataclass(frozen=True)
class TrainingSource:
    """Training data of one source: features (N, F), difficulties (N,) in log-odds, weight."""

    features: Matrix
    difficulty: Vector
    weight: float = 1.0


@dataclass(frozen=True)
class LinearModel:
    """A linear function of features, (F,)."""

    weights: Vector
    bias: float

    def __call__(self, features: Matrix) -> Vector:
        """Return its value for each row, (N,)."""
        found: Vector = self.bias + features @ self.weights
        return found


def estimate_difficulties(tables: Sequence[AnswerTable]) -> list[Vector]:
    """Return the difficulty of each question of each table in log-odds, on one scale.

    The Rasch model: an arm of ability a is right with log-odds a - d. Arms in several tables link
    their scales; difficulties are shrunk to their table's mean, abilities to 0.
    """
    names = sorted({arm for table in tables for arm in table.arms})
    columns = [np.array([names.index(arm) for arm in table.arms]) for table in tables]
    ability = np.zeros(len(names))
    found = [np.zeros(len(table.quality)) for table in tables]
    for _ in range(ROUNDS):
        slope, curve = -ability / 4.0, np.full(len(names), 0.25)
        for at, (table, column) in enumerate(zip(tables, columns, strict=True)):
            found[at] = _update_difficulties(found[at], table.quality, ability[column])
            right = _correct_probabilities(ability[column], found[at])
            share = TABLE_WEIGHT / len(right)
            np.add.at(slope, column, share * (table.quality - right).sum(axis=0))
            np.add.at(curve, column, share * (right * (1 - right)).sum(axis=0))
        ability += np.clip(slope / curve, -0.5, 0.5)
    return found


def _update_difficulties(difficulty: Vector, quality: Matrix, ability: Vector) -> Vector:
    """Return difficulties after one Newton step."""
    right = _correct_probabilities(ability, difficulty)
    gain = (right - quality).sum(axis=1) - (difficulty - difficulty.mean()) / PRIOR_VARIANCE
    step = gain / ((right * (1 - right)).sum(axis=1) + 1 / PRIOR_VARIANCE)
    updated: Vector = difficulty + np.clip(step, -1.0, 1.0)
    return updated


def fit_linear_model(
    sources: Sequence[TrainingSource], nonnegative: NDArray[np.bool_], penalty: float
) -> LinearModel:
    """Return the ridge regression of difficulty on features, bounded below by 0 in `nonnegative`.

    Sources count by their weight, whatever their number of rows.
    """
    from scipy.optimize import lsq_linear

    features, difficulty = (
        np.vstack([source.features for source in sources]),
        _concat_difficulties(sources),
    )
    weight = compute_row_weights(sources)
    centre = np.average(features, axis=0, weights=weight)
    spread = features.std(axis=0)
    spread = np.where(spread > 1e-9, spread, np.inf)
    root = np.sqrt(weight)
    mean_difficulty = float(np.average(difficulty, weights=weight))
    design = np.vstack(
        [(features - centre) / spread * root[:, None], np.sqrt(penalty) * np.eye(features.shape[1])]
    )
    target = np.concatenate([(difficulty - mean_difficulty) * root, np.zeros(features.shape[1])])
    least = np.where(nonnegative, 0.0, -np.inf)
    slopes: Vector = lsq_linear(design, target, bounds=(least, np.inf)).x / spread
    return LinearModel(slopes, mean_difficulty - float(slopes @ centre))


def rescale_to_ranks(line: LinearModel, sources: Sequence[TrainingSource]) -> LinearModel:
    """Return the model rescaled to log-odds of a rank among the texts of `sources`.

    The rank is that of a logistic distribution with the median and quartiles of its values there.
    """
    found = np.concatenate([line(source.features) for source in sources])
    order = np.argsort(found, kind="stable")
    share = np.cumsum(compute_row_weights(sources)[order])
    low, middle, high = np.interp(QUARTILES, share / share[-1], found[order])
    scale = 2.0 * np.log(3.0) / max(float(high - low), 1e-9)
    return LinearModel(line.weights * scale, (line.bias - float(middle)) * scale)


def compute_row_weights(sources: Sequence[TrainingSource]) -> Vector:
    """Return the weight of each row, (N,), a source's weight split evenly among its rows."""
    each: Vector = np.concatenate(
        [
            np.full(len(source.difficulty), SOURCE_WEIGHT * source.weight / len(source.difficulty))
            for source in sources
        ]
    )
    return each


def _correct_probabilities(ability: Vector, difficulty: Vector) -> Matrix:
    probabilities: Matrix = 1.0 / (1.0 + np.exp(difficulty[:, None] - ability[None, :]))
    return probabilities


def _concat_difficulties(sources: Sequence[TrainingSource]) -> Vector:
    joined: Vector = np.concatenate([source.difficulty for source in sources])
    return joined
