"""The length of answers: log(tokens / expected tokens) is a level plus a term for each task.

Both have a part common to all arms and a part of each arm. A Kalman filter of variances alone
updates them, in one pass over the tasks: the parts move by their shares of the uncertainty.
"""

import math

import numpy as np
from msgspec import Struct

from sophia.routing.bandit.performance.latency import (
    PRIOR_RESIDUAL_VARIANCE,
    PROCESS_NOISE,
    clip_residual,
    update_residual_variance,
)
from sophia.routing.bandit.policy import Matrix, Vector

_LEVEL_VARIANCE, _TASK_VARIANCE = 1.0, 0.5
_ARM_LEVEL_VARIANCE, _ARM_TASK_VARIANCE = 0.25, 0.15


class ResidualVariance(Struct, frozen=True, array_like=True):
    """The variance of single answers' logarithms around their expectation, and their number."""

    variance: float = PRIOR_RESIDUAL_VARIANCE
    count: int = 0

    def updated(self, surprise: float, share: float) -> "ResidualVariance":
        """Return it after one more answer; `share` of a surprise's variance is residual."""
        count = self.count + 1
        variance = update_residual_variance(self.variance, surprise, share, count)
        return ResidualVariance(variance, count)


class LengthModel:
    """Beliefs of the lengths of arms, by row; row 0 has no terms of its own.

    Attributes:
        terms: shape (R, 1 + T), common and own terms of each row together.
        variances: shape (R, 1 + T), the variance of each term.
        residuals: of each row's single answers.
    """

    def __init__(self, tasks: int) -> None:
        self._shared_terms = np.zeros(1 + tasks)
        self._shared_variances = _prior_variances(_LEVEL_VARIANCE, _TASK_VARIANCE, tasks)
        self._arm_terms = np.zeros((0, 1 + tasks))
        self._arm_variances = np.zeros((0, 1 + tasks))
        self.residuals: list[ResidualVariance] = []
        self.add_rows(1)

    def add_rows(self, count: int) -> None:
        """Add `count` rows at their prior."""
        terms = len(self._shared_terms)
        prior = _prior_variances(_ARM_LEVEL_VARIANCE, _ARM_TASK_VARIANCE, terms - 1)
        self._arm_terms = np.concatenate([self._arm_terms, np.zeros((count, terms))])
        self._arm_variances = np.concatenate([self._arm_variances, np.tile(prior, (count, 1))])
        self.residuals += [ResidualVariance()] * count
        self._recompute_sums()

    def copy_residual(self, row: int, reference: int) -> None:
        """Start a row's residual variance at that of the row `reference`."""
        self.residuals[row] = ResidualVariance(self.residuals[reference].variance)

    def update(
        self, row: int, task_probabilities: Vector | None, ratio: float, *, truncated: bool
    ) -> None:
        """Update by an answer.

        Args:
            row: the arm that answered.
            task_probabilities: shape (T,), the request's posterior, if there is one.
            ratio: its tokens over those expected of any arm, above 0.
            truncated: it might have become longer, so that a short one is no evidence.
        """
        design = np.zeros(len(self._shared_terms))
        design[0] = 1.0
        if task_probabilities is not None and len(task_probabilities) == len(design) - 1:
            design[1:] = task_probabilities
        shared, own = self._shared_variances * design, self._arm_variances[row] * design
        residual = self.residuals[row].variance
        total = float((shared + own) @ design) + residual
        surprise = math.log(ratio) - float(self.terms[row] @ design)
        if truncated and surprise < 0.0:
            return
        surprise = clip_residual(surprise, total)
        self._shared_terms += shared * (surprise / total)
        self._arm_terms[row] += own * (surprise / total)
        self._shared_variances += PROCESS_NOISE * residual - shared * shared / total
        self._arm_variances[row] += PROCESS_NOISE * residual - own * own / total
        for at in (0, row):
            self.residuals[at] = self.residuals[at].updated(surprise, residual / total)
        self._recompute_sums()

    def dump_state(self) -> tuple[Matrix, Matrix, Matrix]:
        """Return common terms and variances (2, 1 + T), own terms (R, 1 + T) and variances."""
        common = np.stack([self._shared_terms, self._shared_variances])
        return common, self._arm_terms, self._arm_variances

    @classmethod
    def from_state(
        cls, state: tuple[Matrix, Matrix, Matrix], residuals: list[ResidualVariance]
    ) -> "LengthModel":
        """Return the model that `dump_state` was taken of."""
        common, arm_terms, arm_variances = state
        lengths = cls(common.shape[1] - 1)
        lengths._shared_terms, lengths._shared_variances = common.copy()
        lengths._arm_terms, lengths._arm_variances = arm_terms.copy(), arm_variances.copy()
        lengths.residuals = list(residuals)
        lengths._recompute_sums()
        return lengths

    def _recompute_sums(self) -> None:
        self.terms = self._arm_terms + self._shared_terms
        self.variances = self._arm_variances + self._shared_variances


def _prior_variances(level: float, task: float, tasks: int) -> Vector:
    variances: Vector = np.full(1 + tasks, task)
    variances[0] = level
    return variances
