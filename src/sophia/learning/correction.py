"""What a policy missed, learned from lessons: by kind of request and arm, shrunk towards nothing.

Two ridge regressions on what was left of each score: one that all arms share, and on top of it one
for each arm. How far either may go is chosen by how well the latest lessons are foretold.
"""

from collections.abc import Sequence
from itertools import product

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from sophia.routing.policies.joint import Matrix
from sophia.routing.policies.policy import Lesson, Vector
from sophia.routing.policies.residual import Correction, describe

LEAST = 50
"""Lessons of an arm below which it is not corrected by itself."""
HELD_OUT = 0.2
SHARED_SD = (0.01, 0.03, 0.1)
OWN_SD = (0.01, 0.02, 0.04, 0.08)
"""Standard deviations to choose from: of a shared weight, and of an arm's departure from it."""
BIAS_SD = 0.05


class Miss(Struct, frozen=True):
    """One lesson, what the policy expected of it, and how its request looks (see `describe`)."""

    lesson: Lesson
    expected: float
    looks: Vector


def miss_of(lesson: Lesson, expected: float) -> Miss:
    """Return a lesson as a correction learns from it."""
    return Miss(lesson, expected, describe(lesson.sight))


class Fitted(Struct, frozen=True):
    """A correction, and how it was chosen.

    Attributes:
        lessons: how many it was learned from.
        arms: how many arms are corrected by themselves.
        before, after: mean squared error on the held-out lessons, without it and with it.
        shared_sd, own_sd: how far the weights may go.
    """

    correction: Correction
    lessons: int
    arms: int
    before: float
    after: float
    shared_sd: float
    own_sd: float


class _Columns(Struct, frozen=True):
    design: Matrix
    arm: NDArray[np.intp]
    missed: Vector
    weight: Vector
    noise: float

    def part(self, rows: slice) -> "_Columns":
        return _Columns(
            self.design[rows], self.arm[rows], self.missed[rows], self.weight[rows], self.noise
        )


def fit(misses: Sequence[Miss]) -> Fitted | None:
    """Return the correction that `misses`, in their order, ask for.

    None when fewer than two arms have enough lessons: then there is nobody to prefer.
    """
    misses = [one for one in misses if one.lesson.weight > 0.0]
    counts: dict[str, int] = {}
    for one in misses:
        counts[one.lesson.arm] = counts.get(one.lesson.arm, 0) + 1
    places = {arm: row for row, arm in enumerate(a for a, n in counts.items() if n >= LEAST)}
    if len(places) < 2:
        return None
    looks = np.empty((len(misses), len(misses[0].looks)))
    for row, one in enumerate(misses):
        looks[row] = one.looks
    spread = looks.std(axis=0)
    frame = Correction(
        places,
        looks.mean(axis=0),
        np.where(spread > 1e-6, 1.0 / np.maximum(spread, 1e-6), 0.0),
        np.zeros((0, 0)),
        np.zeros((0, 0)),
    )
    columns = _columns(misses, looks, frame)
    cut = len(misses) - max(int(len(misses) * HELD_OUT), 1)
    past, rest = columns.part(slice(cut)), columns.part(slice(cut, None))
    errors = {}
    for widths in product(SHARED_SD, OWN_SD):
        weights, _ = _weights(past, len(places), *widths)
        errors[widths] = _error(rest, weights)
    chosen = min(errors, key=errors.__getitem__)
    weights, variances = _weights(columns, len(places), *chosen)
    correction = Correction(places, frame.centre, frame.scale, weights, variances)
    before = _error(rest, np.zeros_like(weights))
    return Fitted(correction, len(misses), len(places), before, errors[chosen], *chosen)


def _columns(misses: Sequence[Miss], looks: Matrix, frame: Correction) -> _Columns:
    novelty = np.array([one.lesson.sight.novelty for one in misses])
    missed = np.array([one.lesson.quality - one.expected for one in misses])
    weight = np.array([one.lesson.weight for one in misses])
    return _Columns(
        frame.design(looks, novelty),
        np.array([frame.places.get(one.lesson.arm, -1) for one in misses], dtype=np.intp),
        missed,
        weight,
        float(np.average(missed**2, weights=weight)),
    )


def _weights(
    columns: _Columns, arms: int, shared_sd: float, own_sd: float
) -> tuple[Matrix, Matrix]:
    """Return the weights and their variances, (arms + 1, 1 + P); the last row is the shared one."""
    design, noise = columns.design, max(columns.noise, 1e-6)
    terms = design.shape[1]
    weighed = design * columns.weight[:, None]
    held = np.full(terms, noise / shared_sd**2)
    held[0] = noise / BIAS_SD**2
    shared = np.linalg.solve(design.T @ weighed + np.diag(held), weighed.T @ columns.missed)
    left = columns.missed - design @ shared
    weights, variances = np.tile(shared, (arms + 1, 1)), np.zeros((arms + 1, terms))
    held = np.full(terms, noise / own_sd**2)
    held[0] = noise / BIAS_SD**2
    gram = design.T @ design
    for arm in range(arms):
        there = columns.arm == arm
        cov = np.linalg.inv(design[there].T @ weighed[there] + np.diag(held))
        weights[arm] += cov @ (weighed[there].T @ left[there])
        apart = np.diag(cov) * noise
        # Errors of weights hang together; on the requests there were they add up to just this.
        whole = float((cov * gram).sum()) * noise
        variances[arm] = apart * (whole / max(float(np.diag(gram) @ apart), 1e-12))
    return weights, variances


def _error(columns: _Columns, weights: Matrix) -> float:
    foretold = (columns.design * weights[columns.arm]).sum(axis=1)
    return float(np.average((columns.missed - foretold) ** 2, weights=columns.weight))
