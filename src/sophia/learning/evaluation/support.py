"""Logged decisions, and the evidence that they hold on a policy that did not make them."""

import numpy as np
from msgspec import Struct
from msgspec.structs import asdict
from numpy.typing import NDArray

from sophia.routing.bandit.policy import Matrix, Vector

MIN_ESS = 200.0
MAX_UNSUPPORTED_SHARE = 0.05


class BanditLog(Struct, frozen=True, kw_only=True):
    """Log of N decisions among A arms; its arrays are never written to.

    Attributes:
        contexts: (N, F), features of each request, for the outcome model.
        arms: (N,), index of the chosen arm.
        propensities: (N, A), exact probability of each arm; 0 for those not allowed.
        rewards: (N,), score from 0 to 1; 0 without feedback.
        response_weights: (N,), decisions that each score stands for, see `nonresponse`; 0 without
            feedback.
    """

    contexts: Matrix
    arms: NDArray[np.intp]
    propensities: Matrix
    rewards: Vector
    response_weights: Vector

    def __post_init__(self) -> None:
        """Raises ValueError when a decision could not have been made as it was logged."""
        if not np.all(self.propensities[np.arange(len(self.arms)), self.arms] > 0):
            raise ValueError("a logged arm has propensity 0: the log is wrong")

    def select(self, rows: NDArray[np.bool_]) -> "BanditLog":
        """Return the log of these decisions alone, (N,)."""
        return BanditLog(**{name: column[rows] for name, column in asdict(self).items()})


class LogSupport(Struct, frozen=True, kw_only=True):
    """Evidence of a log on a target policy.

    Attributes:
        effective_sample_size: number of the target's own decisions that would be worth as much.
        max_weight: greatest weight of a logged score.
        unsupported_share: share of the target's choices that the logging policy never makes.
    """

    decisions: int
    scored: int
    effective_sample_size: float = 0.0
    max_weight: float = 0.0
    unsupported_share: float = 1.0


def measure_support(log: BanditLog, target: Matrix) -> LogSupport:
    """Return the evidence of `log` on `target`, (N, A) probabilities.

    The effective sample size is the lesser of that of the sampled weights and of the expected one:
    a heavy weight that happened not to be sampled is a risk all the same.
    """
    count, responses = len(log.arms), log.response_weights
    if not count:
        return LogSupport(decisions=0, scored=0)
    weights = importance_weights(log, target) * responses
    squares = expected_square_weights(log, target)
    expected = count**2 / squares if squares > 0 else 0.0
    return LogSupport(
        decisions=count,
        scored=int(np.count_nonzero(responses)),
        effective_sample_size=min(
            kish_sample_size(weights), expected * kish_sample_size(responses) / count
        ),
        max_weight=float(weights.max()),
        unsupported_share=float(target[log.propensities <= 0].sum() / count),
    )


def check_support(support: LogSupport) -> str | None:
    """Return the reason why the evidence is too weak for an estimate, or None."""
    if not support.decisions:
        return "there are no decisions to estimate from"
    if support.unsupported_share > MAX_UNSUPPORTED_SHARE:
        return (
            f"{support.unsupported_share:.1%} of the target's choices could never have been logged"
            f" (at most {MAX_UNSUPPORTED_SHARE:.0%} may be): let the logger explore those arms"
        )
    if not support.effective_sample_size >= MIN_ESS:
        return (
            f"the log is worth {support.effective_sample_size:.0f} decisions of the target's own"
            f" ({MIN_ESS:.0f} are needed): log more, or choose a target nearer to the logger"
        )
    return None


def importance_weights(log: BanditLog, target: Matrix) -> Vector:
    """Return (N,), the ratio of the target's and the logged probability of the chosen arm."""
    at = np.arange(len(log.arms)), log.arms
    return np.asarray(target[at] / log.propensities[at], dtype=np.float64)


def expected_square_weights(log: BanditLog, target: Matrix) -> float:
    """Return the sum over decisions of the expected square of the importance weight."""
    possible = log.propensities > 0
    squares = np.divide(target**2, log.propensities, out=np.zeros_like(target), where=possible)
    return float(squares.sum())


def kish_sample_size(weights: Vector) -> float:
    """Return the number of equal weights that would be worth as much as `weights`."""
    squares = float(np.sum(weights**2))
    return float(np.sum(weights)) ** 2 / squares if squares > 0 else 0.0
