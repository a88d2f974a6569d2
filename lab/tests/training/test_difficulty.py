"""Difficulties of different tables share one scale, and the linear model keeps its signs."""

import numpy as np
import pytest

from lab.training.difficulty import (
    AnswerTable,
    LinearModel,
    TrainingSource,
    compute_row_weights,
    estimate_difficulties,
    fit_linear_model,
    rescale_to_ranks,
)


def simulate_answers(
    rng: np.random.Generator, arms: dict[str, float], hard: np.ndarray
) -> AnswerTable:
    """Return answers of arms with these abilities to questions of these difficulties."""
    chance = 1.0 / (1.0 + np.exp(hard[:, None] - np.array(list(arms.values()))[None, :]))
    return AnswerTable(tuple(arms), (rng.random(chance.shape) < chance).astype(np.float64))


def test_an_easy_table_of_weak_models_is_distinguished_from_a_hard_one_of_strong_models() -> None:
    """Both have the same share of right answers; the model in both links the scales."""
    rng = np.random.default_rng(1)
    easy, hard = rng.normal(-1.5, 0.7, 600), rng.normal(1.5, 0.7, 600)
    weak = {f"weak {n}": -1.5 for n in range(12)} | {"both": 0.0}
    strong = {f"strong {n}": 1.5 for n in range(12)} | {"both": 0.0}
    first, second = simulate_answers(rng, weak, easy), simulate_answers(rng, strong, hard)
    assert first.quality.mean() == pytest.approx(second.quality.mean(), abs=0.06)
    found = estimate_difficulties([first, second])
    assert found[1].mean() - found[0].mean() == pytest.approx(3.0, abs=0.8)
    assert np.corrcoef(found[0], easy)[0, 1] > 0.6


def test_without_a_shared_model_tables_have_equal_means() -> None:
    rng = np.random.default_rng(2)
    one = simulate_answers(rng, {f"a{n}": -1.0 for n in range(12)}, rng.normal(-1.0, 0.5, 500))
    two = simulate_answers(rng, {f"b{n}": 1.0 for n in range(12)}, rng.normal(1.0, 0.5, 500))
    found = estimate_difficulties([one, two])
    assert abs(found[1].mean() - found[0].mean()) < 0.7


def test_a_nonnegative_feature_never_has_a_negative_weight() -> None:
    rng = np.random.default_rng(3)
    features = rng.normal(size=(800, 3))
    hard = 2.0 * features[:, 0] - 1.0 * features[:, 1] + rng.normal(size=800)
    free = fit_linear_model([TrainingSource(features, hard)], np.zeros(3, np.bool_), 1.0)
    bound = fit_linear_model([TrainingSource(features, hard)], np.ones(3, np.bool_), 1.0)
    assert free.weights == pytest.approx([2.0, -1.0, 0.0], abs=0.1)
    assert bound.weights[0] == pytest.approx(2.0, abs=0.15) and bound.weights[1] == pytest.approx(
        0.0
    )


def test_sources_of_equal_weight_count_the_same() -> None:
    """A table of ten thousand questions does not outweigh one of five hundred."""
    rng = np.random.default_rng(4)
    many, few = rng.normal(size=(4000, 1)), rng.normal(size=(100, 1))
    parts = [TrainingSource(many, np.zeros(4000)), TrainingSource(few, 2.0 * few[:, 0])]
    assert compute_row_weights(parts)[:4000].sum() == pytest.approx(
        compute_row_weights(parts)[4000:].sum()
    )
    line = fit_linear_model(parts, np.zeros(1, np.bool_), 1e-6)
    assert line.weights[0] == pytest.approx(1.0, abs=0.25)


def test_ranks_put_a_quarter_of_the_texts_below_one_quarter() -> None:
    rng = np.random.default_rng(5)
    parts = [TrainingSource(rng.normal(7.0, 3.0, size=(999, 1)), np.zeros(999))]
    line = rescale_to_ranks(LinearModel(np.array([2.0]), -4.0), parts)
    share = 1.0 / (1.0 + np.exp(-line(parts[0].features)))
    for quarter in (0.25, 0.5, 0.75):
        assert (share < quarter).mean() == pytest.approx(quarter, abs=0.03)
