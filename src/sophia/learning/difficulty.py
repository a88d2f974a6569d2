"""How hard questions are on one scale over all tables, and a line that foresees it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sophia.learning.tables import Matrix
from sophia.routing.policies.policy import Vector

ROUNDS = 60
SPREAD = 2.0
"""Variance of difficulty around its table's mean that is believed beforehand."""
EQUAL = 2000.0
"""Answers that a table counts for when abilities are estimated, however many it has."""
EACH = 500.0
"""Questions that a part of weight 1 counts for against the penalty."""
QUARTILES = (0.25, 0.5, 0.75)


@dataclass(frozen=True)
class Answers:
    """One table: `quality`, (N, A), of the answers of `arms`, named alike in all tables."""

    arms: tuple[str, ...]
    quality: Matrix


@dataclass(frozen=True)
class Part:
    """One source of training: figures (N, F), difficulties (N,) in log-odds, and its weight."""

    figures: Matrix
    difficulty: Vector
    weight: float = 1.0


@dataclass(frozen=True)
class Line:
    """A linear function of figures, (F,)."""

    weights: Vector
    bias: float

    def __call__(self, figures: Matrix) -> Vector:
        """Return its value for each row, (N,)."""
        found: Vector = self.bias + figures @ self.weights
        return found


def difficulties(tables: Sequence[Answers]) -> list[Vector]:
    """Return the difficulty of each question of each table in log-odds, on one scale.

    The Rasch model: an arm of ability a is right with log-odds a - d. Arms that stand in several
    tables tie them together; difficulties are drawn towards their table's mean, abilities to 0.
    """
    names = sorted({arm for table in tables for arm in table.arms})
    columns = [np.array([names.index(arm) for arm in table.arms]) for table in tables]
    ability = np.zeros(len(names))
    found = [np.zeros(len(table.quality)) for table in tables]
    for _ in range(ROUNDS):
        slope, curve = -ability / 4.0, np.full(len(names), 0.25)
        for at, (table, column) in enumerate(zip(tables, columns, strict=True)):
            found[at] = _harder(found[at], table.quality, ability[column])
            right = _right(ability[column], found[at])
            share = EQUAL / len(right)
            np.add.at(slope, column, share * (table.quality - right).sum(axis=0))
            np.add.at(curve, column, share * (right * (1 - right)).sum(axis=0))
        ability += np.clip(slope / curve, -0.5, 0.5)
    return found


def _harder(hard: Vector, quality: Matrix, ability: Vector) -> Vector:
    """Return difficulties after one of Newton's steps."""
    right = _right(ability, hard)
    gain = (right - quality).sum(axis=1) - (hard - hard.mean()) / SPREAD
    step = gain / ((right * (1 - right)).sum(axis=1) + 1 / SPREAD)
    nearer: Vector = hard + np.clip(step, -1.0, 1.0)
    return nearer


def fit_line(parts: Sequence[Part], rising: NDArray[np.bool_], penalty: float) -> Line:
    """Return the ridge regression of difficulty on figures; figures in `rising` may only add.

    Parts count by their weight, however many rows they have. Needs the extra `learn`.
    """
    from scipy.optimize import lsq_linear

    figures, hard = np.vstack([part.figures for part in parts]), _joined(parts)
    weight = weights_of(parts)
    centre = np.average(figures, axis=0, weights=weight)
    spread = figures.std(axis=0)
    spread = np.where(spread > 1e-9, spread, np.inf)
    root = np.sqrt(weight)
    usual = float(np.average(hard, weights=weight))
    design = np.vstack(
        [(figures - centre) / spread * root[:, None], np.sqrt(penalty) * np.eye(figures.shape[1])]
    )
    wanted = np.concatenate([(hard - usual) * root, np.zeros(figures.shape[1])])
    least = np.where(rising, 0.0, -np.inf)
    slopes: Vector = lsq_linear(design, wanted, bounds=(least, np.inf)).x / spread
    return Line(slopes, usual - float(slopes @ centre))


def as_ranks(line: Line, parts: Sequence[Part]) -> Line:
    """Return the line in log-odds of the share of the parts' texts that it finds easier.

    A logistic distribution with the median and the quartiles of what it finds in `parts`.
    """
    found = np.concatenate([line(part.figures) for part in parts])
    order = np.argsort(found, kind="stable")
    share = np.cumsum(weights_of(parts)[order])
    low, middle, high = np.interp(QUARTILES, share / share[-1], found[order])
    scale = 2.0 * np.log(3.0) / max(float(high - low), 1e-9)
    return Line(line.weights * scale, (line.bias - float(middle)) * scale)


def weights_of(parts: Sequence[Part]) -> Vector:
    """Return the weight of each row, (N,): a part's is shared out among its rows."""
    each: Vector = np.concatenate(
        [
            np.full(len(part.difficulty), EACH * part.weight / len(part.difficulty))
            for part in parts
        ]
    )
    return each


def _right(ability: Vector, hard: Vector) -> Matrix:
    chances: Matrix = 1.0 / (1.0 + np.exp(hard[:, None] - ability[None, :]))
    return chances


def _joined(parts: Sequence[Part]) -> Vector:
    joined: Vector = np.concatenate([part.difficulty for part in parts])
    return joined
