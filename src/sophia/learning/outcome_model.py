"""What each arm would have scored, told for every decision by a model that never saw that decision.

One ridge regression shared by all arms carries how hard a request is; each arm departs from it by a
ridge of its own, shrunk towards none. How much is the same for all arms, and chosen by how well
held-out decisions are foretold.
"""

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
Cube = NDArray[np.float64]

NOISE = 0.15
"""Variance of a single score about its expectation; scores run from 0 to 1."""

BIAS_SD = 0.3
WIDTHS = ((0.01, 0.003), (0.3, 0.01), (0.3, 0.03), (0.3, 0.1))
"""Standard deviations to choose from: of what is shared, and of an arm's departure from it."""


def cross_fitted(  # noqa: PLR0913 # what was logged is six columns
    contexts: Matrix,
    arms: NDArray[np.intp],
    rewards: Vector,
    weights: Vector,
    count: int,
    rng: np.random.Generator,
    *,
    folds: int = 5,
) -> Matrix:
    """Return the expected score of each of `count` arms for each decision, (N, count), in [0, 1].

    Args:
        contexts: (N, F), what is known of each request; any scale.
        arms: (N,), which arm answered.
        rewards: (N,), its score; what stands where `weights` is zero is not looked at.
        weights: (N,), what the score counts for.
        count: how many arms there are.
        rng: who falls into which fold.
        folds: how many parts; a decision is foretold from the other parts.
    """
    design = _design(contexts)
    fold = rng.permutation(len(arms)) % folds
    seen = np.where(weights > 0, rewards, 0.0)
    grams, moments = _sums(design, arms, seen, weights, fold, (folds, count))
    best: Matrix | None = None
    least = np.inf
    for widths in WIDTHS:
        foretold = np.empty((len(arms), count))
        for part in range(folds):
            inside = fold == part
            gram, moment = grams.sum(axis=0) - grams[part], moments.sum(axis=0) - moments[part]
            foretold[inside] = design[inside] @ _coefficients(gram, moment, *widths).T
        np.clip(foretold, 0.0, 1.0, out=foretold)
        missed = seen - foretold[np.arange(len(arms)), arms]
        loss = float(np.sum(weights * missed**2))
        if loss < least:
            best, least = foretold, loss
    assert best is not None
    return best


def _design(contexts: Matrix) -> Matrix:
    spread = contexts.std(axis=0)
    kept = spread > 1e-9
    scaled = (contexts[:, kept] - contexts[:, kept].mean(axis=0)) / spread[kept]
    return np.hstack([np.ones((len(contexts), 1)), scaled])


def _sums(  # noqa: PLR0913 # the columns again
    design: Matrix,
    arms: NDArray[np.intp],
    rewards: Vector,
    weights: Vector,
    fold: NDArray[np.intp],
    shape: tuple[int, int],
) -> tuple[Cube, Cube]:
    width = design.shape[1]
    grams = np.zeros((*shape, width, width))
    moments = np.zeros((*shape, width))
    for part in range(shape[0]):
        for arm in range(shape[1]):
            chosen = np.flatnonzero((fold == part) & (arms == arm) & (weights > 0))
            rows = design[chosen]
            weighed = rows * weights[chosen, None]
            grams[part, arm] = rows.T @ weighed
            moments[part, arm] = weighed.T @ rewards[chosen]
    return grams, moments


def _coefficients(grams: Cube, moments: Matrix, shared_sd: float, sd: float) -> Matrix:
    """Return (A, F): the shared coefficients plus each arm's shrunk departure from them."""
    width = grams.shape[-1]
    easy = np.full(width, NOISE / shared_sd**2)
    easy[0] = 1e-6
    shared = np.linalg.solve(grams.sum(axis=0) + np.diag(easy), moments.sum(axis=0))
    held = np.full(width, NOISE / sd**2)
    held[0] = NOISE / BIAS_SD**2
    left = moments - grams @ shared
    departures = np.linalg.solve(grams + np.diag(held), left[..., None])[..., 0]
    return np.asarray(shared + departures, dtype=np.float64)
