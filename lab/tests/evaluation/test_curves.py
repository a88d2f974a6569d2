"""Metrics of a router: hulls, areas and costs; operating points are never tuned on test data."""

import numpy as np
import pytest

from lab.evaluation.curves import (
    COST_WEIGHTS,
    CostQualityCurve,
    OperatingPoints,
    build_single_arm_baseline,
    choose_arms,
    concave_hull,
    cross_validate_points,
    take_chosen,
)
from lab.evaluation.measures import (
    EvaluationBaseline,
    auc,
    ece,
    measure_calibration,
    measure_policy,
)

COST = np.array([1.0, 2.0, 4.0])


def test_a_hull_contains_random_mixtures() -> None:
    line = concave_hull(np.array([1.0, 2.0, 3.0, 4.0, 5.0]), np.array([0.2, 0.3, 0.6, 0.7, 0.65]))
    assert line.cost.tolist() == [1.0, 3.0, 4.0]
    assert line.quality.tolist() == [0.2, 0.6, 0.7]
    assert line.quality_at(np.array([0.5, 2.0, 9.0])).tolist() == pytest.approx([0.2, 0.4, 0.7])


def test_of_points_of_one_cost_the_best_counts() -> None:
    line = concave_hull(np.array([1.0, 1.0, 2.0]), np.array([0.1, 0.4, 0.5]))
    assert line.cost.tolist() == [1.0, 2.0]
    assert line.quality.tolist() == [0.4, 0.5]


def test_the_area_under_a_curve_is_between_two_costs() -> None:
    line = CostQualityCurve(np.array([1.0, 3.0]), np.array([0.0, 1.0]))
    assert line.area(1.0, 3.0) == pytest.approx(1.0)
    assert line.area(2.0, 5.0) == pytest.approx(0.75 + 2.0)
    assert line.area(3.0, 3.0) == 0.0


def test_a_cost_is_interpolated_between_points() -> None:
    line = CostQualityCurve(np.array([1.0, 3.0]), np.array([0.2, 0.6]))
    assert line.cost_of(0.4) == pytest.approx(2.0)
    assert line.cost_of(0.1) == 1.0
    assert line.cost_of(0.7) == float("inf")


def test_of_equally_good_arms_the_cheaper_is_the_best() -> None:
    line = build_single_arm_baseline(np.array([0.8, 0.8, 0.5]), np.array([3.0, 2.0, 1.0]))
    assert (line.best, line.cost, line.cheapest) == (1, 2.0, 1.0)


def test_a_higher_cost_weight_moves_the_choice_from_good_to_cheap() -> None:
    chosen = choose_arms(np.array([[0.5, 0.7, 0.9]]), COST[None], 4.0)[:, 0]
    assert chosen[0] == 2
    assert chosen[-1] == 0
    assert (np.diff(chosen) <= 0).all()
    assert len(chosen) == len(COST_WEIGHTS)


def test_the_oracle_has_the_whole_gap_and_a_single_arm_none() -> None:
    quality, cost, folds = _make_world()
    baseline = EvaluationBaseline.prepare(quality, cost, folds)
    oracle = measure_policy(baseline, quality, cost)
    assert oracle.hindsight["gap"].value == pytest.approx(1.0)
    flat = np.tile(quality.mean(axis=0), (len(quality), 1))
    blind = measure_policy(baseline, flat, np.tile(COST, (len(quality), 1)))
    for part in (blind.hindsight, blind.held_out):
        assert part["gap"].value == pytest.approx(0.0, abs=0.03)
        assert part["peak_gain"].value == pytest.approx(0.0, abs=0.3)
        assert part["c100"].value == pytest.approx(1.0, abs=1e-6)
    assert blind.hindsight["harm"].value == pytest.approx(0.0, abs=0.05)


def test_a_policy_that_knows_the_task_is_between_the_single_arms_and_the_oracle() -> None:
    quality, cost, folds = _make_world()
    metrics = measure_policy(
        EvaluationBaseline.prepare(quality, cost, folds), _task_means(quality), cost
    )
    gap, swept = metrics.held_out["gap"], metrics.hindsight["gap"]
    assert gap.value is not None
    assert gap.low is not None
    assert gap.high is not None
    assert swept.value is not None
    assert 0.1 < gap.value < 0.9
    assert gap.low < gap.value < gap.high
    assert gap.value <= swept.value + 1e-9
    assert metrics.held_out["peak_gain"].value is not None
    assert metrics.held_out["peak_gain"].value > 1.5
    assert metrics.held_out["c100"].value is not None
    assert metrics.held_out["c100"].value < 0.9


def test_a_policy_with_reversed_expectations_is_below_the_hull() -> None:
    quality, cost, folds = _make_world()
    metrics = measure_policy(
        EvaluationBaseline.prepare(quality, cost, folds), 1.0 - _task_means(quality), cost
    )
    assert metrics.hindsight["gap"].value is not None
    assert metrics.hindsight["gap"].value < 0.0
    assert metrics.hindsight["harm"].value is not None
    assert metrics.hindsight["harm"].value > 1.0


def test_no_fold_chooses_its_own_points() -> None:
    """Inverting the outcomes of one fold does not change its own operating points."""
    quality, cost, folds = _make_world()
    chosen = choose_arms(_task_means(quality), cost, 4.0)
    before = cross_validate_points(quality, cost, chosen, folds)
    inverted = quality.copy()
    inverted[folds == 0] = 1.0 - inverted[folds == 0]
    after = cross_validate_points(inverted, cost, chosen, folds)
    held = folds == 0
    same = np.abs(before.quality[:, held] - (1.0 - after.quality[:, held]))
    assert same.max() < 1e-9
    inverted[~held] = 1.0 - inverted[~held]
    others = cross_validate_points(inverted, cost, chosen, folds)
    assert np.abs(before.cost[:, held] - others.cost[:, held]).max() > 0.1


def test_a_budget_is_kept_on_average() -> None:
    quality, cost, folds = _make_world()
    points = cross_validate_points(
        quality, cost, choose_arms(_task_means(quality), cost, 4.0), folds
    )
    spent = points.cost.mean(axis=1)[:-1]
    assert (np.diff(spent) > -1e-9).all()
    assert spent[0] == pytest.approx(1.0, abs=1e-6)


def test_points_cheaper_than_any_router_are_the_cheapest_arm() -> None:
    points = OperatingPoints(np.array([[0.9, 0.7]]), np.array([[3.0, 3.0]]), held_out=False)
    line = points.curve(np.array([0.5, 0.5]), (1.0, 0.2))
    assert line.cost.tolist() == [1.0, 3.0]
    assert line.quality.tolist() == [0.2, 0.8]


def test_picking_follows_the_choice() -> None:
    table = np.array([[1.0, 2.0], [3.0, 4.0]])
    assert take_chosen(table, np.array([[0, 1], [1, 1]])).tolist() == [[1.0, 4.0], [2.0, 4.0]]


def test_auc_counts_pairs_and_shares_ties() -> None:
    quality = np.array([0.0, 1.0, 0.0, 1.0])
    assert auc(np.array([0.1, 0.9, 0.2, 0.8]), quality) == 1.0
    assert auc(np.array([0.5, 0.5, 0.5, 0.5]), quality) == 0.5
    assert auc(np.array([0.1, 0.15, 0.2, 0.8]), quality) == 0.75
    assert np.isnan(auc(np.array([0.1, 0.2]), np.array([1.0, 1.0])))


def test_calibration_is_the_gap_within_bins() -> None:
    expected = np.array([0.15, 0.15, 0.95, 0.95])
    assert ece(expected, np.array([0.0, 1.0, 1.0, 1.0])) == pytest.approx((0.7 + 0.1) / 4)


def test_exact_probabilities_show_only_the_floor_of_the_calibration_error() -> None:
    rng = np.random.default_rng(0)
    probabilities = rng.uniform(0.05, 0.95, size=(4000, 3))
    metrics = measure_calibration(
        probabilities, (rng.random(probabilities.shape) < probabilities).astype(float)
    )
    assert metrics.ece.value is not None
    assert metrics.ece_floor is not None
    assert metrics.ece.value == pytest.approx(metrics.ece_floor, rel=0.6)
    shifted = measure_calibration(
        probabilities, (rng.random(probabilities.shape) < probabilities - 0.04).astype(float)
    )
    assert shifted.ece.value is not None
    assert shifted.ece.value > 2 * metrics.ece_floor


def _make_world() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return outcomes of three arms; the middle one matches the expensive one on even questions."""
    rng = np.random.default_rng(1)
    probabilities = np.where((np.arange(900) % 2 == 0)[:, None], [0.5, 0.85, 0.8], [0.4, 0.5, 0.9])
    quality = (rng.random(probabilities.shape) < probabilities).astype(np.float64)
    return quality, np.tile(COST, (900, 1)), np.arange(900) // 2 % 5


def _task_means(quality: np.ndarray) -> np.ndarray:
    even = np.arange(len(quality)) % 2 == 0
    means = np.where(even[:, None], quality[even].mean(axis=0), quality[~even].mean(axis=0))
    return np.asarray(means)
