"""Non-response weights: scored decisions stand for those without feedback.

Users rate some requests and some arms more often than others, so the plain mean of the scores is
biased. The probability of feedback is estimated from the request, the arm, and whether a judge was
sampled; each score then counts for the inverse of it. Feedback that depends on the score itself is
corrected where a random sample was judged: the weights of voluntary scores are calibrated to the
judged ones (`fit_response_weights`; Deville and Särndal, 1992).
"""

import math
from collections.abc import Callable
from typing import Literal

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from sophia.learning.evaluation.outcome_model import standardize
from sophia.routing.bandit.policy import Matrix, Vector

MIN_RESPONSE_PROBABILITY = 0.02  # so that no score counts for over fifty decisions
# An estimate from judged answers needs so many of them, and this share of the sampled ones;
# voluntary scores are calibrated to them from so many voluntary scores on.
MIN_SAMPLED_RESPONSES, MIN_RESPONSE_RATE, MIN_VOLUNTARY_RESPONSES = 100, 0.8, 20

_NEWTON_STEPS = 50
_RIDGE = 1.0  # penalty of every coefficient but the intercept

BoolVector = NDArray[np.bool_]

WeightBasis = Literal["nothing", "request", "score"]
"""Basis of the response probabilities: `nothing` where every decision has a score, `request` for
request and arm, `score` where judged answers show the dependence on the score as well."""


class FeedbackColumns(Struct, frozen=True, kw_only=True):
    """Feedback on N decisions; its arrays are never written to.

    Attributes:
        contexts: (N, F), features of each request.
        arms: (N,), index of the arm that answered.
        judge_sampled: (N,), whether the answer was sampled to be judged.
        scores: (N,), mean score of all feedback; NaN without any.
        judge_scores: (N,), score of the sampled judge; NaN without any, or where none was sampled.
    """

    contexts: Matrix
    arms: NDArray[np.intp]
    judge_sampled: BoolVector
    scores: Vector
    judge_scores: Vector

    @property
    def has_score(self) -> BoolVector:
        """(N,), whether there is any feedback."""
        return np.isfinite(self.scores)

    @property
    def judged(self) -> BoolVector:
        """(N,), whether the answer was sampled and judged."""
        return np.isfinite(self.judge_scores)


class MeanEstimate(Struct, frozen=True):
    """A mean score, its standard error, and the number of scores."""

    value: float
    se: float
    count: int


class ScoreEstimates(Struct, frozen=True):
    """Mean score of all decisions: plain, with non-response weights, and of the judged sample.

    The sample's is None when too few were judged.
    """

    unweighted: MeanEstimate
    weighted: MeanEstimate
    basis: WeightBasis
    judge_sampled: MeanEstimate | None = None


def fit_response_weights(feedback: FeedbackColumns) -> tuple[Vector, WeightBasis]:
    """Return the weight of each score, (N,), 0 without a score, and the basis of the weights."""
    scored, sampled, judged = feedback.has_score, feedback.judge_sampled, feedback.judged
    if scored.all() or not scored.any():
        return scored.astype(np.float64), "nothing"
    voluntary = scored & ~sampled
    base = _base_design(feedback.contexts, feedback.arms)
    if not _is_enough(judged, sampled) or voluntary.sum() < MIN_VOLUNTARY_RESPONSES:
        return scored * _inverse_response_probabilities(base, sampled, scored), "request"
    design = np.hstack([base, np.nan_to_num(feedback.scores)[:, None]])
    totals = design[~sampled].sum(axis=0)
    totals[-1] = (~sampled).sum() * feedback.judge_scores[judged].mean()
    weights = scored * (sampled.sum() / judged.sum())
    weights[voluntary] = _calibration_weights(design[voluntary], totals)
    return weights, "score"


def estimate_means(
    feedback: FeedbackColumns, weights: Vector, basis: WeightBasis
) -> ScoreEstimates | None:
    """Return the mean score of all decisions; None without any feedback."""
    scored, judged = feedback.has_score, feedback.judged
    if not scored.any():
        return None
    sample = None
    if _is_enough(judged, feedback.judge_sampled):
        sample = _weighted_mean(feedback.judge_scores[judged], np.ones(int(judged.sum())))
    scores = feedback.scores
    if basis == "score":
        # Voluntary feedback beside a judge's comes from users unlike the silent ones.
        scores = np.where(judged, feedback.judge_scores, scores)
    weighted = _weighted_mean(scores[scored], weights[scored])
    if basis == "score" and sample is not None:
        # The calibration can be no more certain than the sample it rests on.
        weighted = MeanEstimate(weighted.value, max(weighted.se, sample.se), weighted.count)
    unweighted = _weighted_mean(feedback.scores[scored], np.ones(int(scored.sum())))
    return ScoreEstimates(unweighted, weighted, basis, sample)


def _inverse_response_probabilities(
    base: Matrix, judge_sampled: BoolVector, has_score: BoolVector
) -> Vector:
    """Return (N,), one over the estimated probability that a decision gets feedback."""
    sampled = judge_sampled.astype(np.float64)[:, None]
    # Answers that a judge rates differ less from one another than those that users rate.
    design = np.hstack([base, base[:, 1:] * sampled, sampled])
    probabilities = _sigmoid(design @ _fit_logistic(design, has_score.astype(np.float64)))
    return np.asarray(1.0 / np.maximum(probabilities, MIN_RESPONSE_PROBABILITY))


def _is_enough(judged: BoolVector, sampled: BoolVector) -> bool:
    count = int(judged.sum())
    return count >= MIN_SAMPLED_RESPONSES and count >= MIN_RESPONSE_RATE * int(sampled.sum())


def _weighted_mean(scores: Vector, weights: Vector) -> MeanEstimate:
    total = float(weights.sum())
    value = float(weights @ scores) / total
    spread = float(((weights * (scores - value)) ** 2).sum())
    return MeanEstimate(value, math.sqrt(spread) / total, len(scores))


def _base_design(contexts: Matrix, arms: NDArray[np.intp]) -> Matrix:
    """Return an intercept, the arm as one-hot columns, and the standardized contexts."""
    one_hot = np.eye(int(arms.max()) + 1)[arms]
    return np.hstack([np.ones((len(arms), 1)), one_hot, standardize(contexts)])


def _calibration_weights(design: Matrix, totals: Vector) -> Vector:
    """Return weights of at least 1 with which the rows of `design` nearly sum to `totals`.

    They have the form of inverse logistic probabilities.
    """
    penalty = _penalty(design)
    limit = -math.log(1 / MIN_RESPONSE_PROBABILITY - 1)
    start = np.zeros(design.shape[1])
    start[0] = -math.log(max(totals[0] / len(design) - 1, 1e-3))

    def inverse_odds(coefficients: Vector) -> Vector:
        return np.asarray(np.exp(-np.clip(design @ coefficients, limit, 30)))

    def derivatives(coefficients: Vector) -> tuple[Vector, Matrix]:
        odds = inverse_odds(coefficients)
        slope = design.T @ (1 + odds) - totals - penalty * coefficients
        return slope, (design * odds[:, None]).T @ design + np.diag(penalty)

    return 1 + inverse_odds(_maximize(start, derivatives, max_step=1.0))


def _fit_logistic(design: Matrix, responses: Vector) -> Vector:
    """Return the coefficients that maximise the penalised likelihood of `responses`."""
    penalty = _penalty(design)

    def derivatives(coefficients: Vector) -> tuple[Vector, Matrix]:
        probabilities = _sigmoid(design @ coefficients)
        slope = design.T @ (responses - probabilities) - penalty * coefficients
        variance = probabilities * (1 - probabilities)
        return slope, (design * variance[:, None]).T @ design + np.diag(penalty)

    return _maximize(np.zeros(design.shape[1]), derivatives, max_step=5.0)


def _maximize(
    coefficients: Vector, derivatives: Callable[[Vector], tuple[Vector, Matrix]], *, max_step: float
) -> Vector:
    """Return the maximum of a concave function by Newton's method.

    `derivatives` returns its gradient and negative Hessian. Far from the maximum a whole step can
    overshoot, so no coefficient moves by more than `max_step` at once.
    """
    for _ in range(_NEWTON_STEPS):
        slope, curvature = derivatives(coefficients)
        step = np.linalg.solve(curvature, slope)
        largest = max(float(np.abs(step).max()), 1e-12)
        coefficients = coefficients + step * min(1.0, max_step / largest)
        if largest < 1e-8:
            break
    return coefficients


def _penalty(design: Matrix) -> Vector:
    penalty = np.full(design.shape[1], _RIDGE)
    penalty[0] = 1e-6
    return penalty


def _sigmoid(values: Vector) -> Vector:
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(values, -30, 30))))
