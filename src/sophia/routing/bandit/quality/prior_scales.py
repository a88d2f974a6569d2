"""Prior standard deviations on the scale of a score from 0 to 1, and their empirical Bayes fit."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sophia.routing.bandit.policy import Matrix, Vector
from sophia.routing.bandit.quality.posterior import QualityPosterior

SHARED_BIAS_SD, SHARED_TASK_SD = 0.60, 0.30
"""Of the line common to all arms: its constant and its task effects."""
BIAS_SD, TASK_SD = 0.08, 0.04
"""Of one arm's deviation from the line; only their ratio counts, see `arm_prior_variances`."""
PRIOR_STRENGTH = 6.0
"""How many terms the scale of 1 counts for when scales are fitted."""
EM_ROUNDS = 12

TERM_GROUPS = (slice(0, 1), slice(1, None))
"""The constant and the task effects, which have one scale each."""


def shared_prior_variance(tasks: int, scale_factors: Vector) -> Vector:
    """Return the prior variance of the shared line's terms, (1 + T,); one factor for each group."""
    variance: Vector = np.full(1 + tasks, SHARED_TASK_SD * SHARED_TASK_SD)
    variance[0] = SHARED_BIAS_SD * SHARED_BIAS_SD
    return _scale(variance, scale_factors)


def arm_prior_variances(prior_sd: Matrix, scale_factors: Vector) -> Matrix:
    """Return the prior variance of each arm's terms, (A, 1 + T), from the sd of its prior, (A, T).

    One factor for each group. The variance of the constant and the tasks' are split as usual.
    """
    bias, task = BIAS_SD**2, TASK_SD**2
    share = bias / (bias + task)
    total = prior_sd**2
    variances = np.empty((len(prior_sd), 1 + prior_sd.shape[1]))
    variances[:, 0] = share * total.mean(axis=1)
    variances[:, 1:] = (1.0 - share) * total
    return _scale(variances, scale_factors)


class OutcomeStatistics:
    """The sums over outcomes that a posterior needs, whatever the prior variances.

    Args:
        designs: shape (N, S), the distinct designs.
        rows: for each arm, indices into `designs`.
        residuals: for each arm, the scores less the expectation of its prior.
        noise_variances: for each arm, the variances of these values.
    """

    def __init__(
        self,
        designs: Matrix,
        rows: Sequence[NDArray[np.intp]],
        residuals: Sequence[Vector],
        noise_variances: Sequence[Vector],
    ) -> None:
        terms, arms = designs.shape[1], len(rows)
        self.information = np.zeros((terms, terms))
        self.information_vector = np.zeros(terms)
        self.arm_information = np.zeros((arms, terms, terms))
        self.arm_information_vector = np.zeros((arms, terms))
        for row, (picked, values, noises) in enumerate(
            zip(rows, residuals, noise_variances, strict=True)
        ):
            design = designs[picked]
            weighted = design / noises[:, None]
            self.arm_information[row] = weighted.T @ design
            self.arm_information_vector[row] = values @ weighted
            self.information += self.arm_information[row]
            self.information_vector += self.arm_information_vector[row]

    def posterior(self, shared_variance: Vector, arm_variances: Matrix) -> QualityPosterior:
        """Return the posterior of all outcomes at once, from variances (S,) and (A, S)."""
        arms, _, terms = self.arm_information.shape
        precision = self.arm_information + np.eye(terms) * (1 / arm_variances)[:, None, :]
        spread = np.linalg.inv(precision)
        spread = (spread + spread.transpose(0, 2, 1)) / 2
        coupling = self.arm_information @ spread
        offset = np.einsum("apq,aq->ap", spread, self.arm_information_vector)
        information = np.diag(1 / shared_variance) + self.information
        vector = self.information_vector.copy()
        for arm in range(arms):
            information -= coupling[arm] @ self.arm_information[arm].T
            vector -= self.arm_information[arm] @ offset[arm]
        cov = np.linalg.inv(information)
        cov = (cov + cov.T) / 2
        return QualityPosterior.from_arrays([cov @ vector, cov, offset, coupling, spread])


def fit_scale_factors(
    statistics: OutcomeStatistics, shared_variance: Vector, arm_variances: Matrix
) -> Matrix:
    """Return the factors, (2, groups), under which the outcomes are likeliest, shrunk to 1.

    The first row multiplies the variances of the shared line, the second those of the arms. Each
    round takes the posterior's second moments for the prior's (expectation maximisation). Arms
    without outcomes do not count.
    """
    seen = np.flatnonzero(statistics.arm_information[:, 0, 0]).tolist()
    line, arm = np.ones(len(TERM_GROUPS)), np.ones(len(TERM_GROUPS))
    for _ in range(EM_ROUNDS):
        posterior = statistics.posterior(_scale(shared_variance, line), _scale(arm_variances, arm))
        squares = posterior.mean**2 + np.diag(posterior.cov)
        line = _estimate_factors(squares[None], shared_variance[None])
        if seen:
            moments = [posterior.deviation_moments(row) for row in seen]
            squares = np.stack([mean**2 + variance for mean, variance in moments])
            arm = _estimate_factors(squares, arm_variances[seen])
    return np.stack([line, arm])


def _scale(variances: Vector, factors: Vector) -> Vector:
    """Return variances, (..., 1 + T), times the factor of their group."""
    return variances * np.repeat(factors, (1, variances.shape[-1] - 1))


def _estimate_factors(squares: Matrix, variances: Matrix) -> Vector:
    ratios = np.ones(len(TERM_GROUPS))
    for number, group in enumerate(TERM_GROUPS):
        part = (squares[:, group] / variances[:, group]).ravel()
        ratios[number] = (PRIOR_STRENGTH + part.sum()) / (PRIOR_STRENGTH + len(part))
    return ratios
