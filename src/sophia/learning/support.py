"""Decisions as they were logged, and how far they can speak of a policy that did not make them."""

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from sophia.learning.outcome_model import Matrix, Vector

MIN_ESS = 200.0
MAX_OUTSIDE = 0.05
_TOLERANCE = 1e-6


class Log(Struct, frozen=True):
    """N decisions among A arms, as they were logged; nobody writes to its arrays.

    Attributes:
        contexts: (N, F), what was known of each request, for the outcome model.
        arms: (N,), the index of the arm that was chosen.
        propensities: (N, A), the exact chance of each arm at the time; 0 for those not allowed.
        rewards: (N,), the score from 0 to 1; NaN where nobody said how it went.
        inverse: (N,), one over the chance that anybody says (see `missing`); None for all ones.
    """

    contexts: Matrix
    arms: NDArray[np.intp]
    propensities: Matrix
    rewards: Vector
    inverse: Vector | None = None

    def __post_init__(self) -> None:
        """Raises ValueError when the columns do not fit together."""
        count = len(self.arms)
        columns = [self.contexts, self.propensities, self.rewards]
        columns += [] if self.inverse is None else [self.inverse]
        if any(len(column) != count for column in columns):
            raise ValueError("every column of a log needs one row per decision")
        if count and (self.arms.min() < 0 or self.arms.max() >= self.propensities.shape[1]):
            raise ValueError("a logged arm is not among the arms")
        if not _distributions(self.propensities):
            raise ValueError("the propensities of a decision must be >= 0 and sum to 1")
        if not np.all(self.propensities[np.arange(count), self.arms] > 0):
            raise ValueError("a logged arm had no chance of being chosen: its log is wrong")

    def only(self, rows: NDArray[np.bool_]) -> "Log":
        """Return the log of these decisions alone, (N,)."""
        inverse = None if self.inverse is None else self.inverse[rows]
        chances, rewards = self.propensities[rows], self.rewards[rows]
        return Log(self.contexts[rows], self.arms[rows], chances, rewards, inverse)

    def heard(self) -> Vector:
        """Return (N,), how many decisions each score stands for: 0 where nobody said."""
        known = np.isfinite(self.rewards).astype(np.float64)
        return known if self.inverse is None else known * self.inverse


class Support(Struct, frozen=True):
    """How far a log can speak of a target.

    Attributes:
        decisions: how many were logged.
        scored: how many of them have a score.
        ess: effective sample size: as many decisions of the target's own would tell as much.
        max_weight: the most that one logged score counts for.
        outside: share of the target's choices that the logger could never have made.
    """

    decisions: int
    scored: int
    ess: float
    max_weight: float
    outside: float


def support(log: Log, target: Matrix) -> Support:
    """Return how far `log` can speak of `target`, (N, A) chances.

    The effective sample size is the lesser of what the drawn weights say and of what the chances
    say: a heavy weight that chance has spared so far is a danger all the same.
    Raises ValueError when `target` is not a distribution for each decision.
    """
    if target.shape != log.propensities.shape:
        raise ValueError("the target needs one chance per decision and arm")
    if not _distributions(target):
        raise ValueError("the target's chances of a decision must be >= 0 and sum to 1")
    count = len(log.arms)
    if not count:
        return Support(0, 0, 0.0, 0.0, 1.0)
    heard = log.heard()
    inside = log.propensities > 0
    weights = weights_of(log, target) * heard
    squares = np.divide(target**2, log.propensities, out=np.zeros_like(target), where=inside)
    spread = float(squares.sum())
    drawn, expected = kish(weights), count**2 / spread if spread > 0 else 0.0
    return Support(
        decisions=count,
        scored=int(np.count_nonzero(heard)),
        ess=min(drawn, expected * kish(heard) / count),
        max_weight=float(weights.max()),
        outside=float(target[~inside].sum() / count),
    )


def refusal(ground: Support) -> str | None:
    """Return why no number may be given on this ground, or None."""
    if not ground.decisions:
        return "there are no decisions to judge it by"
    if ground.outside > MAX_OUTSIDE:
        return (
            f"{ground.outside:.1%} of the target's choices could never have been logged"
            f" (at most {MAX_OUTSIDE:.0%} may be): let the logger explore those arms"
        )
    if not ground.ess >= MIN_ESS:
        return (
            f"the log is worth {ground.ess:.0f} decisions of the target's own"
            f" ({MIN_ESS:.0f} are needed): log more, or a target nearer to the logger"
        )
    return None


def _distributions(chances: Matrix) -> bool:
    return bool(np.all(chances >= 0) and np.all(np.abs(chances.sum(axis=1) - 1) <= _TOLERANCE))


def weights_of(log: Log, target: Matrix) -> Vector:
    """Return (N,), how much likelier `target` was to choose what was chosen."""
    at = np.arange(len(log.arms)), log.arms
    return np.asarray(target[at] / log.propensities[at], dtype=np.float64)


def kish(weights: Vector) -> float:
    """Return how many equal weights would tell as much as `weights` do."""
    squares = float(np.sum(weights**2))
    return float(np.sum(weights)) ** 2 / squares if squares > 0 else 0.0
