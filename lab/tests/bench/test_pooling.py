"""Denoising a table of priors removes noise and keeps structure."""

import numpy as np
import pytest

from bench.routing.pooling import denoise_priors
from sophia.routing.bandit.policy import Prior


def _table(means: np.ndarray, sd: float = 0.06) -> dict[str, Prior]:
    return {str(arm): Prior(row, np.full(len(row), sd)) for arm, row in enumerate(means)}


def _means(priors: dict[str, Prior]) -> np.ndarray:
    return np.stack([prior.mean for prior in priors.values()])


def _truth() -> np.ndarray:
    rng = np.random.default_rng(6)
    ability, loading = rng.normal(0.0, 0.1, 12), rng.uniform(0.5, 1.5, 15)
    return 0.6 + np.outer(ability, loading) + rng.normal(0.0, 0.1, 15)


def test_noise_is_reduced_and_the_best_arms_are_found_more_often() -> None:
    truth, rng = _truth(), np.random.default_rng(7)
    before, after, right = [], [], 0
    for _ in range(20):
        noisy = truth + rng.normal(0.0, 0.06, truth.shape)
        clear = _means(denoise_priors(_table(noisy)))
        before.append(np.abs(noisy - truth).mean())
        after.append(np.abs(clear - truth).mean())
        best = truth.max(axis=0)
        taken = (
            truth[clear.argmax(axis=0), range(15)].sum()
            - truth[noisy.argmax(axis=0), range(15)].sum()
        )
        right += taken >= 0.0
        assert taken <= best.sum()
    assert np.mean(after) < 0.6 * np.mean(before)
    assert right >= 18


def test_structure_far_above_the_noise_stays() -> None:
    """A group of arms that fails some tasks entirely is preserved."""
    means = np.full((8, 10), 0.7)
    means[:3, :4] = 0.1
    assert _means(denoise_priors(_table(means))) == pytest.approx(means, abs=0.03)


def test_means_of_arms_and_tasks_stay() -> None:
    noisy = _truth() + np.random.default_rng(8).normal(0.0, 0.02, (12, 15))
    clear = _means(denoise_priors(_table(noisy, sd=0.02)))
    assert clear.mean(axis=0) == pytest.approx(noisy.mean(axis=0), abs=1e-9)
    assert clear.mean(axis=1) == pytest.approx(noisy.mean(axis=1), abs=1e-9)


def test_scores_without_error_and_small_tables_are_returned_as_they_are() -> None:
    table = _truth()
    assert _means(denoise_priors(_table(table, sd=0.0))) == pytest.approx(np.clip(table, 0, 1))
    for small in (table[:2], table[:, :2]):
        assert np.array_equal(_means(denoise_priors(_table(small))), small)
    assert denoise_priors({}) == {}


def test_the_sd_is_kept_and_means_stay_within_scores() -> None:
    priors = denoise_priors(_table(np.random.default_rng(1).uniform(-0.1, 1.1, (5, 6)), sd=0.05))
    assert all((prior.sd == 0.05).all() for prior in priors.values())
    assert (_means(priors) >= 0.0).all()
    assert (_means(priors) <= 1.0).all()
