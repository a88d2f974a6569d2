"""The outcome model: foretells each arm from other decisions, whatever the scale of the contexts."""

import numpy as np
import pytest

from sophia.learning.missing import inverse_chances
from sophia.learning.outcome_model import cross_fitted


def drawn(seed: int, count: int = 2000) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    contexts = rng.normal(size=(count, 2))
    truth = np.clip(
        0.5 + contexts[:, :1] * [0.15, 0.15, 0.15] + contexts[:, 1:] * [0.1, 0, -0.1]
        + [0.1, 0.0, -0.2], 0, 1,
    )
    arms = rng.integers(0, 3, count)
    rewards = (rng.random(count) < truth[np.arange(count), arms]).astype(float)
    return contexts, arms, rewards, truth


def foretold(contexts: np.ndarray, arms: np.ndarray, rewards: np.ndarray, **other: object) -> np.ndarray:
    weights = np.ones(len(arms))
    return cross_fitted(contexts, arms, rewards, weights, 3, np.random.default_rng(0), **other)  # type: ignore[arg-type]


def test_every_arm_is_foretold_from_what_the_others_share() -> None:
    contexts, arms, rewards, truth = drawn(1)
    told = foretold(contexts, arms, rewards)
    assert told.shape == truth.shape
    assert np.sqrt(np.mean((told - truth) ** 2)) < 0.045
    flat = rewards.mean()
    assert np.sqrt(np.mean((flat - truth) ** 2)) > 0.15


def test_few_decisions_lean_on_what_all_arms_share() -> None:
    """An arm with five decisions is foretold as the others are, not from those five."""
    contexts, arms, rewards, truth = drawn(2)
    rare = np.flatnonzero(arms == 1)
    kept = np.setdiff1d(np.arange(len(arms)), rare[5:])
    told = foretold(contexts[kept], arms[kept], rewards[kept])
    assert np.corrcoef(told[:, 1], truth[kept, 1])[0, 1] > 0.85
    assert np.abs(told[:, 1] - truth[kept, 1]).mean() < 0.2


def test_a_wide_pool_is_foretold_at_its_own_levels() -> None:
    """A hopeless arm beside good ones: its level is its own, not the pool's."""
    contexts, arms, _, _ = drawn(3)
    told = foretold(contexts, arms, np.array([0.9, 0.8, 0.05])[arms])
    assert told.mean(axis=0) == pytest.approx([0.9, 0.8, 0.05], abs=0.02)


def test_the_scale_and_origin_of_the_contexts_do_not_matter() -> None:
    contexts, arms, rewards, _ = drawn(4)
    moved = contexts * [1000.0, 0.001] + [5.0, -70.0]
    assert foretold(moved, arms, rewards) == pytest.approx(foretold(contexts, arms, rewards))
    nobody = np.zeros(len(arms), dtype=bool)
    spoke = np.random.default_rng(0).random(len(arms)) < 1 / (1 + np.exp(-contexts[:, 0]))
    assert inverse_chances(moved, arms, nobody, spoke) == pytest.approx(
        inverse_chances(contexts, arms, nobody, spoke)
    )


def test_chances_of_a_word_are_those_of_the_world() -> None:
    """A talkative few against a silent many, far from where the fit begins."""
    rng = np.random.default_rng(1)
    contexts = rng.normal(size=(20000, 1))
    chance = 1 / (1 + np.exp(2.5 - 2.0 * contexts[:, 0]))
    spoke = rng.random(20000) < chance
    nobody = np.zeros(20000, dtype=bool)
    inverse = inverse_chances(contexts, np.zeros(20000, dtype=int), nobody, spoke, least=0.001)
    assert np.abs(1 / inverse - chance).max() < 0.05
    assert (spoke * inverse).sum() == pytest.approx(20000, rel=0.05)


def test_a_decision_is_never_foretold_from_itself() -> None:
    """Scores that are pure noise: what is foretold knows nothing of them."""
    rng = np.random.default_rng(5)
    contexts, arms = rng.normal(size=(600, 30)), rng.integers(0, 3, 600)
    rewards = (rng.random(600) < 0.5).astype(float)
    told = foretold(contexts, arms, rewards)[np.arange(600), arms]
    assert np.corrcoef(told, rewards)[0, 1] < 0.05
    assert told.std() < 0.06


def test_what_weighs_nothing_is_not_looked_at() -> None:
    contexts, arms, rewards, _ = drawn(6)
    weights = (np.arange(len(arms)) % 2).astype(float)
    broken = np.where(weights > 0, rewards, np.nan)
    told = [
        cross_fitted(contexts, arms, one, weights, 3, np.random.default_rng(0))
        for one in (rewards, broken)
    ]
    assert told[0] == pytest.approx(told[1])
    assert np.isfinite(told[1]).all()
