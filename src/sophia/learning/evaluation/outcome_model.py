"""Expected score of every arm on every decision, cross-fitted on the other decisions.

A ridge regression shared by all arms models the difficulty of a request; each arm has a ridge
regression of its own for the departure from it. The strength of both penalties is chosen on
held-out decisions.
"""

import numpy as np
from numpy.typing import NDArray

from sophia.routing.bandit.policy import Matrix, Vector

Tensor = NDArray[np.float64]

FOLDS = 5
SCORE_VARIANCE = 0.15  # of a single score about its expectation; scores run from 0 to 1
BIAS_SD = 0.3
PRIOR_SDS = ((0.01, 0.003), (0.3, 0.01), (0.3, 0.03), (0.3, 0.1))
"""Candidate standard deviations of the shared coefficients and of an arm's departures."""


def cross_fit_rewards(  # noqa: PLR0913 - the columns of a log
    contexts: Matrix,
    arms: NDArray[np.intp],
    rewards: Vector,
    weights: Vector,
    count: int,
    rng: np.random.Generator,
) -> Matrix:
    """Return the expected score of each of `count` arms on each decision, (N, count), in [0, 1].

    The contexts, (N, F), may have any scale; rewards without weight are ignored. `rng` assigns the
    decisions to folds.
    """
    design = np.hstack([np.ones((len(contexts), 1)), standardize(contexts)])
    fold = rng.permutation(len(arms)) % FOLDS
    grams = np.zeros((FOLDS, count, design.shape[1], design.shape[1]))
    moments = np.zeros(grams.shape[:3])
    for part, arm in np.ndindex(FOLDS, count):
        chosen = np.flatnonzero((fold == part) & (arms == arm) & (weights > 0))
        weighted = design[chosen] * weights[chosen, None]
        grams[part, arm] = design[chosen].T @ weighted
        moments[part, arm] = weighted.T @ rewards[chosen]
    best, least = np.empty((0, count)), np.inf
    for sds in PRIOR_SDS:
        predicted = np.empty((len(arms), count))
        for part in range(FOLDS):
            held_out = fold == part
            gram, moment = grams.sum(axis=0) - grams[part], moments.sum(axis=0) - moments[part]
            predicted[held_out] = design[held_out] @ _solve_coefficients(gram, moment, *sds).T
        np.clip(predicted, 0.0, 1.0, out=predicted)
        residuals = rewards - predicted[np.arange(len(arms)), arms]
        loss = float(np.sum(weights * residuals**2))
        if loss < least:
            best, least = predicted, loss
    return best


def standardize(contexts: Matrix) -> Matrix:
    """Return the columns that vary, with mean 0 and standard deviation 1."""
    sd = contexts.std(axis=0)
    varying = sd > 1e-9
    return np.asarray((contexts[:, varying] - contexts[:, varying].mean(axis=0)) / sd[varying])


def _solve_coefficients(grams: Tensor, moments: Matrix, shared_sd: float, sd: float) -> Matrix:
    """Return (A, F): the shared coefficients plus each arm's shrunk departure from them."""
    width = grams.shape[-1]
    penalty = np.full(width, SCORE_VARIANCE / shared_sd**2)
    penalty[0] = 1e-6
    shared = np.linalg.solve(grams.sum(axis=0) + np.diag(penalty), moments.sum(axis=0))
    arm_penalty = np.full(width, SCORE_VARIANCE / sd**2)
    arm_penalty[0] = SCORE_VARIANCE / BIAS_SD**2
    residual = moments - grams @ shared
    departures = np.linalg.solve(grams + np.diag(arm_penalty), residual[..., None])[..., 0]
    return np.asarray(shared + departures, dtype=np.float64)
