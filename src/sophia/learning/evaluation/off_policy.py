"""Expected score of a policy on logged decisions of another one, or the reason for none.

Logged scores are weighted by the ratio of both policies' probabilities. `dr`, doubly robust, adds a
model of the other arms' scores and is right when either the model or the propensities are.
Intervals are for requests like the logged ones, not for the logged ones alone.
"""

import math
from statistics import NormalDist

import numpy as np
from msgspec import Struct

from sophia.learning.evaluation.outcome_model import cross_fit_rewards
from sophia.learning.evaluation.support import (
    BanditLog,
    LogSupport,
    check_support,
    expected_square_weights,
    importance_weights,
    kish_sample_size,
    measure_support,
)
from sophia.routing.bandit.policy import Matrix, Vector

LEVEL = 0.95  # of the intervals


class ValueEstimate(Struct, frozen=True):
    """An estimate with its standard error and its interval."""

    value: float
    se: float
    low: float
    high: float


class InsufficientData(Struct, frozen=True, tag=True):
    """No estimate, since the evidence is too weak."""

    reason: str
    support: LogSupport


class OffPolicyEstimate(Struct, frozen=True, tag=True, kw_only=True):
    """Expected score of a target by four estimators; `dr` is the one to act on.

    `clipped` bounds the weights by the fourth root of the number of decisions.
    """

    ips: ValueEstimate
    snips: ValueEstimate
    dr: ValueEstimate
    clipped: ValueEstimate
    support: LogSupport


class PolicyComparison(Struct, frozen=True, tag=True):
    """Difference of two targets on the same decisions (doubly robust, paired)."""

    difference: ValueEstimate
    challenger: ValueEstimate
    incumbent: ValueEstimate
    support: LogSupport


def estimate_value(
    log: BanditLog, target: Matrix, predicted: Matrix
) -> OffPolicyEstimate | InsufficientData:
    """Return the expected score of `target`, (N, A) probabilities, on the requests of `log`.

    `predicted` is the result of `predict_rewards` on a log that contains these decisions.
    """
    support = measure_support(log, target)
    reason = check_support(support)
    if reason:
        return InsufficientData(reason, support)
    importance, scores = importance_weights(log, target), log.rewards
    weights = importance * log.response_weights
    clipped = np.minimum(importance, len(log.arms) ** 0.25) * log.response_weights
    mean = np.sum(weights * scores) / np.sum(weights)
    size, least_se = support.effective_sample_size, _expected_se(log, target, predicted)

    def doubly_robust(weights: Vector) -> ValueEstimate:
        terms = _doubly_robust_terms(log, target, weights, predicted)
        return _t_interval(terms, size, least_se=least_se)

    return OffPolicyEstimate(
        ips=_t_interval(weights * scores, size),
        snips=_t_interval(mean + weights * (scores - mean) / weights.mean(), size),
        dr=doubly_robust(weights),
        clipped=doubly_robust(clipped),
        support=support,
    )


def estimate_difference(
    log: BanditLog, challenger: Matrix, predicted: Matrix
) -> PolicyComparison | InsufficientData:
    """Return by how much `challenger` beats the logging policy on the requests of `log`, paired.

    Choices that both have in common cancel, so the interval is narrower than that of two separate
    estimates. `predicted` is as for `estimate_value`.
    """
    incumbent = log.propensities
    supports = [measure_support(log, challenger), measure_support(log, incumbent)]
    for support in supports:
        reason = check_support(support)
        if reason:
            return InsufficientData(reason, support)
    weakest = min(supports, key=lambda support: support.effective_sample_size)
    ours, theirs, difference = (
        _t_interval(
            _doubly_robust_terms(
                log, target, importance_weights(log, target) * log.response_weights, predicted
            ),
            weakest.effective_sample_size,
            least_se=_expected_se(log, target, predicted),
        )
        for target in (challenger, incumbent, challenger - incumbent)
    )
    return PolicyComparison(difference, ours, theirs, weakest)


def predict_rewards(log: BanditLog, seed: int = 0) -> Matrix:
    """Return the cross-fitted score of each arm on each decision, (N, A)."""
    arms, rng = log.propensities.shape[1], np.random.default_rng(seed)
    return cross_fit_rewards(log.contexts, log.arms, log.rewards, log.response_weights, arms, rng)


def _doubly_robust_terms(
    log: BanditLog, target: Matrix, weights: Vector, predicted: Matrix
) -> Vector:
    residuals = log.rewards - predicted[np.arange(len(log.arms)), log.arms]
    return np.asarray((target * predicted).sum(axis=1) + weights * residuals, dtype=np.float64)


def _expected_se(log: BanditLog, target: Matrix, predicted: Matrix) -> float:
    """Return the standard error expected from the propensities.

    The spread of the sampled terms looks small when the heavy weights happen not to have been
    sampled, which is just when the estimate is off; the exact propensities know better.
    """
    count, responses = len(log.arms), log.response_weights
    residuals = log.rewards - predicted[np.arange(count), log.arms]
    noise = float(np.sum(responses * residuals**2) / np.sum(responses))
    inflation = expected_square_weights(log, target) / kish_sample_size(responses)
    certain = (target * predicted).sum(axis=1)
    return math.sqrt((noise * inflation + float(certain.var())) / count)


def _t_interval(terms: Vector, size: float, *, least_se: float = 0.0) -> ValueEstimate:
    """Return the mean of `terms` with a t interval for the effective sample size."""
    value = float(terms.mean())
    se = max(float(terms.std(ddof=1) / math.sqrt(len(terms))), least_se)
    z = NormalDist().inv_cdf(0.5 + LEVEL / 2)
    half = se * (z + (z**3 + z) / (4 * max(size - 1, 1.0)))
    return ValueEstimate(value, se, value - half, value + half)
