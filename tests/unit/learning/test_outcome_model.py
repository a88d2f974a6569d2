"""The outcome model predicts each arm from other decisions, whatever the scale of the contexts."""

import numpy as np
import pytest

from sophia.learning.evaluation.nonresponse import FeedbackColumns, fit_response_weights
from sophia.learning.evaluation.outcome_model import cross_fit_rewards


def sampled_log(
    seed: int, count: int = 2000
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    contexts = rng.normal(size=(count, 2))
    truth = np.clip(
        0.5
        + contexts[:, :1] * [0.15, 0.15, 0.15]
        + contexts[:, 1:] * [0.1, 0, -0.1]
        + [0.1, 0.0, -0.2],
        0,
        1,
    )
    arms = rng.integers(0, 3, count)
    rewards = (rng.random(count) < truth[np.arange(count), arms]).astype(float)
    return contexts, arms, rewards, truth


def predicted(contexts: np.ndarray, arms: np.ndarray, rewards: np.ndarray) -> np.ndarray:
    weights = np.ones(len(arms))
    return cross_fit_rewards(contexts, arms, rewards, weights, 3, np.random.default_rng(0))


def response_weights(contexts: np.ndarray, arms: np.ndarray, scored: np.ndarray) -> np.ndarray:
    table = FeedbackColumns(
        contexts=contexts,
        arms=arms,
        judge_sampled=np.zeros(len(arms), dtype=bool),
        scores=np.where(scored, 1.0, np.nan),
        judge_scores=np.full(len(arms), np.nan),
    )
    return fit_response_weights(table)[0]


def test_every_arm_is_predicted_with_shared_coefficients() -> None:
    contexts, arms, rewards, truth = sampled_log(1)
    scores = predicted(contexts, arms, rewards)
    assert scores.shape == truth.shape
    assert np.sqrt(np.mean((scores - truth) ** 2)) < 0.045
    flat = rewards.mean()
    assert np.sqrt(np.mean((flat - truth) ** 2)) > 0.15


def test_an_arm_with_few_decisions_leans_on_the_shared_coefficients() -> None:
    """An arm with five decisions is predicted like the others, not from those five."""
    contexts, arms, rewards, truth = sampled_log(2)
    rare = np.flatnonzero(arms == 1)
    kept = np.setdiff1d(np.arange(len(arms)), rare[5:])
    scores = predicted(contexts[kept], arms[kept], rewards[kept])
    assert np.corrcoef(scores[:, 1], truth[kept, 1])[0, 1] > 0.85
    assert np.abs(scores[:, 1] - truth[kept, 1]).mean() < 0.2


def test_each_arm_of_a_wide_pool_has_its_own_level() -> None:
    """A hopeless arm beside good ones keeps its own level, not the pool's."""
    contexts, arms, _, _ = sampled_log(3)
    scores = predicted(contexts, arms, np.array([0.9, 0.8, 0.05])[arms])
    assert scores.mean(axis=0) == pytest.approx([0.9, 0.8, 0.05], abs=0.02)


def test_the_scale_and_origin_of_the_contexts_do_not_matter() -> None:
    contexts, arms, rewards, _ = sampled_log(4)
    moved = contexts * [1000.0, 0.001] + [5.0, -70.0]
    assert predicted(moved, arms, rewards) == pytest.approx(predicted(contexts, arms, rewards))
    scored = np.random.default_rng(0).random(len(arms)) < 1 / (1 + np.exp(-contexts[:, 0]))
    assert response_weights(moved, arms, scored) == pytest.approx(
        response_weights(contexts, arms, scored)
    )


def test_response_probabilities_are_recovered() -> None:
    """A few frequent raters among many silent users, far from the start of the fit."""
    rng = np.random.default_rng(1)
    contexts = rng.normal(size=(20000, 1))
    chance = 1 / (1 + np.exp(2.5 - 2.0 * contexts[:, 0]))
    scored = rng.random(20000) < chance
    weights = response_weights(contexts, np.zeros(20000, dtype=int), scored)
    assert np.abs(1 / weights[scored] - chance[scored]).max() < 0.05
    frequent = chance > 0.02
    assert weights[frequent].sum() == pytest.approx(frequent.sum(), rel=0.05)


def test_a_decision_is_never_predicted_from_itself() -> None:
    """Predictions of pure noise do not correlate with it."""
    rng = np.random.default_rng(5)
    contexts, arms = rng.normal(size=(600, 30)), rng.integers(0, 3, 600)
    rewards = (rng.random(600) < 0.5).astype(float)
    scores = predicted(contexts, arms, rewards)[np.arange(600), arms]
    assert np.corrcoef(scores, rewards)[0, 1] < 0.05
    assert scores.std() < 0.06


def test_scores_without_weight_are_ignored() -> None:
    contexts, arms, rewards, _ = sampled_log(6)
    weights = (np.arange(len(arms)) % 2).astype(float)
    other = np.where(weights > 0, rewards, 7.0)
    both = [
        cross_fit_rewards(contexts, arms, scores, weights, 3, np.random.default_rng(0))
        for scores in (rewards, other)
    ]
    assert both[0] == pytest.approx(both[1])
