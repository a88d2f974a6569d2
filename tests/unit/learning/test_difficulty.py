"""Difficulties of different tables come onto one scale, and a line that foresees them keeps its signs."""

import numpy as np
import pytest

from sophia.learning.difficulty import (
    Answers,
    Line,
    Part,
    as_ranks,
    difficulties,
    fit_line,
    weights_of,
)


def answered(
    rng: np.random.Generator, arms: dict[str, float], hard: np.ndarray
) -> Answers:
    """Return answers of arms with these abilities to questions of these difficulties."""
    chance = 1.0 / (1.0 + np.exp(hard[:, None] - np.array(list(arms.values()))[None, :]))
    return Answers(tuple(arms), (rng.random(chance.shape) < chance).astype(np.float64))


def test_an_easy_table_of_weak_models_is_told_from_a_hard_one_of_strong_models() -> None:
    """Both show the same share of right answers; the model that sat both says which is harder."""
    rng = np.random.default_rng(1)
    easy, hard = rng.normal(-1.5, 0.7, 600), rng.normal(1.5, 0.7, 600)
    weak = {f"weak {n}": -1.5 for n in range(12)} | {"both": 0.0}
    strong = {f"strong {n}": 1.5 for n in range(12)} | {"both": 0.0}
    first, second = answered(rng, weak, easy), answered(rng, strong, hard)
    assert first.quality.mean() == pytest.approx(second.quality.mean(), abs=0.06)
    found = difficulties([first, second])
    assert found[1].mean() - found[0].mean() == pytest.approx(3.0, abs=0.8)
    assert np.corrcoef(found[0], easy)[0, 1] > 0.6


def test_without_a_shared_model_tables_stand_alike() -> None:
    rng = np.random.default_rng(2)
    one = answered(rng, {f"a{n}": -1.0 for n in range(12)}, rng.normal(-1.0, 0.5, 500))
    two = answered(rng, {f"b{n}": 1.0 for n in range(12)}, rng.normal(1.0, 0.5, 500))
    found = difficulties([one, two])
    assert abs(found[1].mean() - found[0].mean()) < 0.7


def test_a_figure_that_may_only_add_never_subtracts() -> None:
    rng = np.random.default_rng(3)
    figures = rng.normal(size=(800, 3))
    hard = 2.0 * figures[:, 0] - 1.0 * figures[:, 1] + rng.normal(size=800)
    free = fit_line([Part(figures, hard)], np.zeros(3, np.bool_), 1.0)
    bound = fit_line([Part(figures, hard)], np.ones(3, np.bool_), 1.0)
    assert free.weights == pytest.approx([2.0, -1.0, 0.0], abs=0.1)
    assert bound.weights[0] == pytest.approx(2.0, abs=0.15) and bound.weights[1] == pytest.approx(0.0)


def test_a_small_part_counts_as_much_as_a_large_one_of_its_weight() -> None:
    """So that a table of ten thousand questions does not drown one of five hundred."""
    rng = np.random.default_rng(4)
    many, few = rng.normal(size=(4000, 1)), rng.normal(size=(100, 1))
    parts = [Part(many, np.zeros(4000)), Part(few, 2.0 * few[:, 0])]
    assert weights_of(parts)[:4000].sum() == pytest.approx(weights_of(parts)[4000:].sum())
    line = fit_line(parts, np.zeros(1, np.bool_), 1e-6)
    assert line.weights[0] == pytest.approx(1.0, abs=0.25)


def test_ranks_put_a_quarter_of_the_texts_below_one_quarter() -> None:
    rng = np.random.default_rng(5)
    parts = [Part(rng.normal(7.0, 3.0, size=(999, 1)), np.zeros(999))]
    line = as_ranks(Line(np.array([2.0]), -4.0), parts)
    share = 1.0 / (1.0 + np.exp(-line(parts[0].figures)))
    for quarter in (0.25, 0.5, 0.75):
        assert (share < quarter).mean() == pytest.approx(quarter, abs=0.03)
