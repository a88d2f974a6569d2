"""Non-response weights: right where feedback depends on the score, if a sample was judged."""

from typing import NamedTuple

import numpy as np
import pytest
from msgspec.structs import replace
from numpy.typing import NDArray

from sophia.learning.evaluation.nonresponse import (
    FeedbackColumns,
    ScoreEstimates,
    estimate_means,
    fit_response_weights,
)
from sophia.learning.feedback.sources import PRIOR_CHANNELS, ChannelVote, estimate_quality_from_vote

EXPECTED = 0.7
TRUTH = np.array([0.85, 0.55])
"""Probability of a good answer by arm."""


class Population(NamedTuple):
    """Feedback, and the truth of the decisions."""

    feedback: FeedbackColumns
    good: NDArray[np.float64]


def population(
    seed: int, share: float, judge: tuple[float, float] = (0.8, 0.3), count: int = 12000
) -> Population:
    """A population whose unhappy users give feedback three times as often as the others.

    A random share is judged, with a true and a false positive rate; as in learning, a judgement is
    a probability that the answer was good.
    """
    rng = np.random.default_rng(seed)
    arms = rng.integers(2, size=count)
    contexts = np.eye(3)[rng.integers(3, size=count)]
    good = rng.random(count) < TRUTH[arms]
    volunteered = rng.random(count) < np.where(good, 0.1, 0.3)
    sampled = rng.random(count) < share
    called = rng.random(count) < np.where(good, *judge)
    votes = [ChannelVote("judge", value) for value in (0.0, 1.0)]
    levels = [
        estimate_quality_from_vote(vote, EXPECTED, PRIOR_CHANNELS["judge"])[0] for vote in votes
    ]
    verdicts = np.where(sampled, np.where(called, levels[1], levels[0]), np.nan)
    scores = np.where(volunteered, good, verdicts)
    feedback = FeedbackColumns(
        contexts=contexts, arms=arms, judge_sampled=sampled, scores=scores, judge_scores=verdicts
    )
    return Population(feedback, good.astype(np.float64))


def means(feedback: FeedbackColumns) -> ScoreEstimates:
    estimates = estimate_means(feedback, *fit_response_weights(feedback))
    assert estimates is not None
    return estimates


def test_unhappy_users_with_three_times_the_feedback_do_not_bias_the_mean() -> None:
    """The plain mean is far too low, the weighted one and that of the sample are right."""
    plain, weighted, sample = [], [], []
    for seed in range(8):
        case = population(seed, share=0.15)
        estimates, truth = means(case.feedback), case.good.mean()
        assert estimates.basis == "score" and estimates.judge_sampled is not None
        plain.append(estimates.unweighted.value - truth)
        weighted.append(estimates.weighted.value - truth)
        sample.append(estimates.judge_sampled.value - truth)
    assert np.mean(plain) < -0.08
    assert abs(np.mean(weighted)) < 0.02 and np.abs(weighted).max() < 0.05
    assert abs(np.mean(sample)) < 0.02


def test_each_arm_has_its_own_mean() -> None:
    case = population(3, share=0.2)
    weights, _ = fit_response_weights(case.feedback)
    for arm in (0, 1):
        of_arm = case.feedback.has_score & (case.feedback.arms == arm)
        scores = case.feedback.scores[of_arm]
        weighed = np.average(scores, weights=weights[of_arm])
        assert abs(weighed - TRUTH[arm]) < 0.6 * abs(scores.mean() - TRUTH[arm])


def test_without_a_judged_sample_the_dependence_on_the_score_stays() -> None:
    """The basis of the weights shows it."""
    estimates = means(population(0, share=0.0).feedback)
    assert estimates.basis == "request" and estimates.judge_sampled is None
    assert estimates.weighted.value < population(0, share=0.0).good.mean() - 0.05


def test_feedback_on_every_decision_is_not_weighted() -> None:
    case = population(1, share=0.1)
    estimates = means(replace(case.feedback, scores=case.good))
    assert estimates.basis == "nothing"
    assert estimates.weighted == estimates.unweighted
    assert estimates.unweighted.value == pytest.approx(case.good.mean())


def test_too_small_or_unanswered_samples_are_not_used() -> None:
    case = population(2, share=0.5)
    silent = np.where(np.arange(len(case.good)) % 2 > 0, case.feedback.judge_scores, np.nan)
    voluntary = np.random.default_rng(5).random(len(case.good)) < 0.2
    scores = np.where(voluntary, case.good, silent)
    half = means(replace(case.feedback, scores=scores, judge_scores=silent))
    assert half.judge_sampled is None
    few = population(2, share=0.004)
    assert means(few.feedback).judge_sampled is None and means(few.feedback).basis == "request"


def test_without_feedback_there_is_no_estimate() -> None:
    case = population(0, share=0.0)
    silent = replace(case.feedback, scores=np.full(len(case.good), np.nan))
    assert estimate_means(silent, *fit_response_weights(silent)) is None


def test_the_standard_error_covers_the_truth_as_often_as_it_should() -> None:
    held = 0
    for seed in range(40):
        case = population(100 + seed, share=0.15, count=6000)
        sample = means(case.feedback).judge_sampled
        assert sample is not None
        held += abs(sample.value - TRUTH.mean()) < 2.5 * sample.se
    assert held >= 36
