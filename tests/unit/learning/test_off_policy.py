"""Off-policy estimates: right where the truth is known, refused where the evidence is too weak."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from sophia.learning.evaluation.nonresponse import FeedbackColumns, fit_response_weights
from sophia.learning.evaluation.off_policy import (
    InsufficientData,
    OffPolicyEstimate,
    PolicyComparison,
    estimate_difference,
    estimate_value,
    predict_rewards,
)
from sophia.learning.evaluation.support import BanditLog, check_support, measure_support

Matrix = NDArray[np.float64]
Vector = NDArray[np.float64]
ARMS = 4


def bandit_log(
    contexts: Matrix,
    arms: NDArray[np.intp],
    propensities: Matrix,
    rewards: Vector,
    inverse: Vector | float = 1.0,
) -> BanditLog:
    """Return a log; rewards are NaN where there is no feedback."""
    return BanditLog(
        contexts=contexts,
        arms=arms,
        propensities=propensities,
        rewards=np.nan_to_num(rewards),
        response_weights=np.isfinite(rewards) * inverse,
    )


def world(
    seed: int, count: int = 3000, *, sharpness: float = 2.0
) -> tuple[BanditLog, Matrix, Matrix]:
    """A log, every arm's expected score on each request, and the logger's expectations."""
    rng = np.random.default_rng(seed)
    contexts = rng.normal(size=(count, 3))
    slopes = np.random.default_rng(99).normal(scale=0.1, size=(3, ARMS))
    truth = np.clip(0.6 + 0.1 * contexts[:, :1] + contexts @ slopes, 0.02, 0.98)
    belief = truth + rng.normal(scale=0.15, size=ARMS)
    propensities = 0.9 * softmax(sharpness * belief) + 0.1 / ARMS
    arms = (propensities.cumsum(axis=1) < rng.random((count, 1))).sum(axis=1)
    rewards = (rng.random(count) < truth[np.arange(count), arms]).astype(float)
    return bandit_log(contexts, arms, propensities, rewards), truth, belief


def softmax(values: Matrix) -> Matrix:
    raised = np.exp(values - values.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)


def greedy(values: Matrix) -> Matrix:
    return np.eye(values.shape[1])[values.argmax(axis=1)]


def sharp_world() -> tuple[BanditLog, Matrix]:
    """A log and a target with weights beyond the bound of `clipped`."""
    log, truth, _ = world(4, sharpness=8.0)
    return log, 0.3 * np.eye(ARMS)[truth.argmin(axis=1)] + 0.7 * log.propensities


def value_of(log: BanditLog, target: Matrix) -> OffPolicyEstimate | InsufficientData:
    return estimate_value(log, target, predict_rewards(log))


def gain_of(log: BanditLog, challenger: Matrix) -> PolicyComparison | InsufficientData:
    return estimate_difference(log, challenger, predict_rewards(log))


def estimated(log: BanditLog, target: Matrix) -> OffPolicyEstimate:
    estimate = value_of(log, target)
    assert isinstance(estimate, OffPolicyEstimate), estimate
    return estimate


def test_intervals_cover_the_truth_as_often_as_stated() -> None:
    """A 95 % interval holds the expected score of new requests in at least 93 % of worlds."""
    held = {"ips": 0, "snips": 0, "dr": 0, "clipped": 0}
    errors = dict.fromkeys(held, 0.0)
    seeds, expected = 150, expectation()
    for seed in range(seeds):
        log, truth, _ = world(seed)
        target = 0.8 * greedy(truth) + 0.2 / ARMS
        estimate = estimated(log, target)
        for method in held:
            case = getattr(estimate, method)
            held[method] += case.low <= expected <= case.high
            errors[method] += (case.value - expected) ** 2 / seeds

    assert min(held["dr"], held["snips"], held["clipped"]) >= 0.93 * seeds
    # Not wide for nothing: twice the standard error is what an interval is.
    assert held["dr"] < seeds
    assert errors["dr"] < errors["ips"]
    assert errors["dr"] ** 0.5 < 0.02


def expectation() -> float:
    """Expected score of the target, from worlds that no estimate saw."""
    values = []
    for seed in range(200, 260):
        _, truth, _ = world(seed)
        values.append(float(((0.8 * greedy(truth) + 0.2 / ARMS) * truth).sum(axis=1).mean()))
    return float(np.mean(values))


def test_a_target_that_is_the_logger_scores_what_was_logged() -> None:
    log, _, _ = world(3)
    estimate = estimated(log, log.propensities)
    assert estimate.support.effective_sample_size == pytest.approx(3000)
    assert estimate.support.max_weight == pytest.approx(1)
    assert estimate.ips.value == pytest.approx(log.rewards.mean())
    assert estimate.snips.value == pytest.approx(log.rewards.mean())
    assert estimate.dr.value == pytest.approx(log.rewards.mean(), abs=0.01)
    se = log.rewards.std(ddof=1) / 3000**0.5
    assert estimate.ips.se == pytest.approx(se)
    assert estimate.snips.se == pytest.approx(se)


def test_an_interval_is_student_s_at_the_effective_sample_size() -> None:
    log, _, _ = world(3)
    few = bandit_log(log.contexts[:200], log.arms[:200], log.propensities[:200], log.rewards[:200])
    case = estimated(few, few.propensities).ips
    assert (case.high - case.value) / case.se == pytest.approx(1.972, abs=0.001)
    assert case.value - case.low == pytest.approx(case.high - case.value)


def test_dr_is_right_with_a_useless_model_and_with_wrong_propensities() -> None:
    """Either the model or the propensities may fail, not both."""
    blind, informed, plain = [], [], []
    for seed in range(30):
        log, truth, _ = world(seed)
        target = greedy(truth)
        worth = float((target * truth).sum(axis=1).mean())
        nothing = bandit_log(np.zeros((3000, 1)), log.arms, log.propensities, log.rewards)
        blind.append(estimated(nothing, target).dr.value - worth)
        flat = np.full_like(log.propensities, 1 / ARMS)
        wrong = bandit_log(log.contexts, log.arms, flat, log.rewards)
        informed.append(estimated(wrong, target).dr.value - worth)
        plain.append(estimated(wrong, target).ips.value - worth)
    assert abs(np.mean(blind)) < 0.01
    assert abs(np.mean(informed)) < 0.012
    assert abs(np.mean(plain)) > 0.03


def test_self_normalised_weights_ignore_a_scale_and_clipped_ones_are_bounded() -> None:
    log, truth, _ = world(4)
    target = 0.8 * greedy(truth) + 0.2 / ARMS
    halved = bandit_log(log.contexts, log.arms, log.propensities, log.rewards, np.full(3000, 2.0))
    plain, doubled = estimated(log, target), estimated(halved, target)
    assert doubled.snips.value == pytest.approx(plain.snips.value)
    assert doubled.snips.se == pytest.approx(plain.snips.se)
    assert doubled.ips.value == pytest.approx(2 * plain.ips.value)
    rare = 0.98 * log.propensities + 0.02 * np.eye(ARMS)[truth.argmin(axis=1)]
    assert estimated(log, rare).clipped == estimated(log, rare).dr
    sharp = estimated(*sharp_world())
    assert sharp.clipped.value != sharp.dr.value
    assert sharp.clipped.value == pytest.approx(sharp.dr.value, abs=0.05)


def test_refuses_a_target_beyond_what_was_logged() -> None:
    """Over 5 % of choices that could never have been logged: no number."""
    log, _, _ = world(1)
    chances = log.propensities.copy()
    chances[:, 0] = 0
    chances /= chances.sum(axis=1, keepdims=True)
    kept = log.arms != 0
    rest = bandit_log(log.contexts[kept], log.arms[kept], chances[kept], log.rewards[kept])

    def target(share: float) -> Matrix:
        return (1 - share) * rest.propensities + share * np.eye(ARMS)[[0] * len(rest.arms)]

    estimate = value_of(rest, target(0.06))
    assert isinstance(estimate, InsufficientData)
    assert "6.0%" in estimate.reason
    assert isinstance(value_of(rest, target(0.05)), OffPolicyEstimate)


def test_refuses_a_log_that_is_worth_fewer_than_200_decisions() -> None:
    log, _, belief = world(1, sharpness=40)
    worst = np.eye(ARMS)[belief.argmin(axis=1)]
    estimate = value_of(log, worst)
    assert isinstance(estimate, InsufficientData)
    assert "200 are needed" in estimate.reason
    assert estimate.support.effective_sample_size < 200
    few = 199
    short = bandit_log(
        log.contexts[:few], log.arms[:few], log.propensities[:few], log.rewards[:few]
    )
    assert isinstance(value_of(short, short.propensities), InsufficientData)
    more = bandit_log(log.contexts[:200], log.arms[:200], log.propensities[:200], log.rewards[:200])
    assert isinstance(value_of(more, more.propensities), OffPolicyEstimate)


def test_a_heavy_weight_that_was_not_sampled_still_counts_against_the_log() -> None:
    """Sampled weights look even while the rare arm has not been chosen; the propensities know."""
    count = 1000
    chances = np.tile([0.9999, 0.0001], (count, 1))
    log = bandit_log(np.zeros((count, 1)), np.zeros(count, dtype=int), chances, np.ones(count))
    estimate = value_of(log, np.tile([0.5, 0.5], (count, 1)))
    assert isinstance(estimate, InsufficientData)
    assert estimate.support.effective_sample_size < 10


def test_an_empty_log_is_refused() -> None:
    nothing = bandit_log(np.zeros((0, 1)), np.zeros(0, dtype=int), np.zeros((0, 2)), np.zeros(0))
    assert isinstance(estimate_value(nothing, *[np.zeros((0, 2))] * 2), InsufficientData)


def test_decisions_without_feedback_only_lower_the_worth_of_a_log() -> None:
    log, _, _ = world(2)
    rewards = log.rewards.copy()
    rewards[::2] = np.nan
    half = bandit_log(log.contexts, log.arms, log.propensities, rewards)
    ground = measure_support(half, log.propensities)
    assert ground.effective_sample_size == pytest.approx(1500)
    assert (ground.decisions, ground.scored) == (3000, 1500)
    silent = bandit_log(log.contexts, log.arms, log.propensities, np.full(3000, np.nan))
    assert check_support(measure_support(silent, log.propensities)) is not None


def test_a_comparison_is_paired_and_narrower_than_two_apart() -> None:
    log, truth, _ = world(5)
    better = 0.5 * greedy(truth) + 0.5 * log.propensities
    comparison = gain_of(log, better)
    assert isinstance(comparison, PolicyComparison)
    gain = comparison.difference
    assert gain.value == pytest.approx(
        comparison.challenger.value - comparison.incumbent.value, abs=1e-9
    )
    worth = float(((better - log.propensities) * truth).sum(axis=1).mean())
    assert gain.low <= worth <= gain.high
    assert gain.se < (comparison.challenger.se**2 + comparison.incumbent.se**2) ** 0.5
    same = gain_of(log, log.propensities)
    assert isinstance(same, PolicyComparison)
    assert same.difference.value == 0


def test_a_comparison_needs_both_sides_supported() -> None:
    log, _, belief = world(1, sharpness=40)
    assert isinstance(gain_of(log, np.eye(ARMS)[belief.argmin(axis=1)]), InsufficientData)
    short = log.select(np.arange(len(log.arms)) < 150)
    assert isinstance(gain_of(short, short.propensities), InsufficientData)


def test_a_log_whose_choice_was_impossible_is_refused_at_once() -> None:
    wrong = np.array([[0.0, 1.0], [1.0, 0.0]])
    with pytest.raises(ValueError, match="propensity 0"):
        bandit_log(np.zeros((2, 1)), np.array([0, 0]), wrong, np.zeros(2))


@given(st.integers(0, 10_000), st.floats(0.0, 1.0))
def test_the_effective_sample_is_never_more_than_what_was_scored(seed: int, mix: float) -> None:
    log, truth, _ = world(seed, 300)
    ground = measure_support(log, mix * greedy(truth) + (1 - mix) * log.propensities)
    assert 0 < ground.effective_sample_size <= ground.scored + 1e-6


def test_the_same_seed_gives_the_same_number() -> None:
    log, truth, _ = world(8)
    target = 0.5 * greedy(truth) + 0.5 * log.propensities
    first, second = (estimate_value(log, target, predict_rewards(log, seed)) for seed in (1, 2))
    assert first == estimate_value(log, target, predict_rewards(log, seed=1)) != second


def response_weights(
    contexts: Matrix, arms: NDArray[np.intp], sampled: NDArray[np.bool_], scores: Vector
) -> Vector:
    table = FeedbackColumns(
        contexts=contexts,
        arms=arms,
        judge_sampled=sampled,
        scores=scores,
        judge_scores=np.full(len(arms), np.nan),
    )
    weights, basis = fit_response_weights(table)
    assert basis == "request"
    return weights


def biased_feedback(seed: int) -> tuple[BanditLog, BanditLog, float]:
    """Users rate failures and one arm more often; judges rate all alike."""
    rng = np.random.default_rng(seed)
    log, truth, _ = world(seed, 8000)
    sampled = rng.random(8000) < 0.15
    voluntary = 1 / (1 + np.exp(2.2 + 1.2 * log.contexts[:, 0] - 1.0 * (log.arms == 1)))
    chance = np.where(sampled, 0.95, voluntary)
    scored = rng.random(8000) < chance
    rewards = np.where(scored, log.rewards, np.nan)
    inverse = response_weights(log.contexts, log.arms, sampled, rewards)
    columns = log.contexts, log.arms, log.propensities
    return (
        bandit_log(*columns, rewards),
        bandit_log(*columns, rewards, inverse),
        float((log.propensities * truth).sum(axis=1).mean()),
    )


def test_feedback_is_weighted_by_its_probability() -> None:
    """Ignoring that hard requests are rated more often biases every estimate down."""
    errors = np.array(
        [
            [estimated(log, log.propensities).snips.value - truth for log in logs]
            for *logs, truth in (biased_feedback(seed) for seed in range(12))
        ]
    )
    ignored, weighted = errors.mean(axis=0)
    assert ignored < -0.025
    assert abs(weighted) < 0.006


def test_no_score_counts_for_more_than_fifty_decisions() -> None:
    rng = np.random.default_rng(0)
    contexts = rng.normal(size=(4000, 1))
    scored = rng.random(4000) < 1 / (1 + np.exp(6 - contexts[:, 0]))
    sampled = np.zeros(4000, dtype=bool)
    scores = np.where(scored, 1.0, np.nan)
    weights = response_weights(contexts, np.zeros(4000, dtype=int), sampled, scores)
    assert weights.max() == 50
    assert weights[scored].min() >= 1
    assert not weights[~scored].any()
