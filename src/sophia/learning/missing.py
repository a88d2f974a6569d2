"""Who says how it went: weights that make the few who speak stand for those who do not.

People speak up about some requests and some arms more than about others, so a plain mean over what
was said answers for the talkative. The chance of a word is estimated from the request, the arm, and
whether we asked for one; each score then counts for one over its chance. This removes what those
three explain. Silence that depends on the score itself beyond them is not removed: asking a random
few is the cure, and `asked_only` uses them alone.
"""

import numpy as np
from numpy.typing import NDArray

from sophia.learning.outcome_model import Matrix, Vector

LEAST_CHANCE = 0.02
"""A score never counts for more than fifty decisions."""

_STEPS = 25


def inverse_chances(  # noqa: PLR0913 # the columns of a log
    contexts: Matrix,
    arms: NDArray[np.intp],
    asked: NDArray[np.bool_],
    spoke: NDArray[np.bool_],
    *,
    least: float = LEAST_CHANCE,
    ridge: float = 1.0,
) -> Vector:
    """Return (N,), one over the chance that anybody says how a decision went.

    Args:
        contexts: (N, F), what is known of each request.
        arms: (N,), which arm answered.
        asked: (N,), whether we asked for a word.
        spoke: (N,), whether one came.
        least: the smallest chance that is believed; smaller ones are raised to it.
        ridge: the pull of every coefficient but the intercept towards zero.
    """
    design = _design(contexts, arms, asked)
    chances = _logistic(design, spoke.astype(np.float64), ridge)
    return np.asarray(1.0 / np.maximum(chances, least))


def asked_only(asked: NDArray[np.bool_], spoke: NDArray[np.bool_]) -> Vector:
    """Return (N,) weights that hear only those who were asked, at the rate at which they answer.

    Right when whom we asked was drawn by lot and nearly all who were asked answered.
    """
    answered = asked & spoke
    rate = answered.sum() / max(int(asked.sum()), 1)
    share = asked.mean() if len(asked) else 0.0
    if rate * share == 0:
        return np.zeros(len(asked))
    return np.where(answered, 1.0 / (rate * share), 0.0)


def _design(contexts: Matrix, arms: NDArray[np.intp], asked: NDArray[np.bool_]) -> Matrix:
    spread = contexts.std(axis=0)
    kept = spread > 1e-9
    scaled = (contexts[:, kept] - contexts[:, kept].mean(axis=0)) / spread[kept]
    chosen = np.eye(int(arms.max()) + 1 if len(arms) else 1)[arms]
    solicited = asked.astype(np.float64)[:, None]
    # Those who are asked differ less from one another than those who speak up by themselves.
    own = [chosen, scaled, chosen * solicited, scaled * solicited, solicited]
    return np.hstack([np.ones((len(arms), 1)), *own])


def _logistic(design: Matrix, said: Vector, ridge: float) -> Vector:
    """Return the fitted chances, by Newton steps on the penalised likelihood."""
    pull = np.full(design.shape[1], ridge)
    pull[0] = 1e-6
    coefficients = np.zeros(design.shape[1])
    chances = np.full(len(said), 0.5)
    for _ in range(_STEPS):
        slope = design.T @ (said - chances) - pull * coefficients
        curve = (design * (chances * (1 - chances))[:, None]).T @ design + np.diag(pull)
        step = np.linalg.solve(curve, slope)
        # Far from the optimum a whole step can overshoot; no coefficient needs to leap.
        coefficients += step * min(1.0, 5.0 / max(float(np.abs(step).max()), 1e-12))
        chances = 1.0 / (1.0 + np.exp(-np.clip(design @ coefficients, -30, 30)))
        if float(np.abs(step).max()) < 1e-8:
            break
    return chances
