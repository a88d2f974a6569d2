"""The measures of a router: hulls, areas, prices, and that nothing is set on what it is judged by."""

import numpy as np
import pytest

from sophia.learning.curves import (
    WEIGHTS,
    Curve,
    Points,
    choose,
    hull,
    pick,
    set_on_others,
    singles,
)
from sophia.learning.measures import Ground, auc, calibration, ece, judge

COST = np.array([1.0, 2.0, 4.0])


def test_a_hull_is_what_coins_can_reach() -> None:
    line = hull(np.array([1.0, 2.0, 3.0, 4.0, 5.0]), np.array([0.2, 0.3, 0.6, 0.7, 0.65]))
    assert line.cost.tolist() == [1.0, 3.0, 4.0]
    assert line.quality.tolist() == [0.2, 0.6, 0.7]
    assert line.at(np.array([0.5, 2.0, 9.0])).tolist() == pytest.approx([0.2, 0.4, 0.7])


def test_of_points_of_one_cost_the_best_counts() -> None:
    line = hull(np.array([1.0, 1.0, 2.0]), np.array([0.1, 0.4, 0.5]))
    assert line.cost.tolist() == [1.0, 2.0]
    assert line.quality.tolist() == [0.4, 0.5]


def test_the_area_under_a_curve_is_between_two_costs() -> None:
    line = Curve(np.array([1.0, 3.0]), np.array([0.0, 1.0]))
    assert line.area(1.0, 3.0) == pytest.approx(1.0)
    assert line.area(2.0, 5.0) == pytest.approx(0.75 + 2.0)
    assert line.area(3.0, 3.0) == 0.0


def test_a_price_is_found_between_points() -> None:
    line = Curve(np.array([1.0, 3.0]), np.array([0.2, 0.6]))
    assert line.price_of(0.4) == pytest.approx(2.0)
    assert line.price_of(0.1) == 1.0
    assert line.price_of(0.7) == float("inf")


def test_of_equally_good_arms_the_cheaper_is_the_best() -> None:
    line = singles(np.array([0.8, 0.8, 0.5]), np.array([3.0, 2.0, 1.0]))
    assert (line.best, line.cost, line.cheapest) == (1, 2.0, 1.0)


def test_the_weight_of_a_dollar_moves_the_choice_from_good_to_cheap() -> None:
    chosen = choose(np.array([[0.5, 0.7, 0.9]]), COST[None], 4.0)[:, 0]
    assert chosen[0] == 2
    assert chosen[-1] == 0
    assert (np.diff(chosen) <= 0).all()
    assert len(chosen) == len(WEIGHTS)


def test_the_oracle_has_the_whole_gap_and_a_single_arm_none() -> None:
    quality, cost, folds = _world()
    ground = Ground.of(quality, cost, folds)
    oracle = judge(ground, quality, cost)
    assert oracle.swept["gap"].value == pytest.approx(1.0)
    flat = np.tile(quality.mean(axis=0), (len(quality), 1))
    blind = judge(ground, flat, np.tile(COST, (len(quality), 1)))
    for part in (blind.swept, blind.fixed):
        assert part["gap"].value == pytest.approx(0.0, abs=0.03)
        assert part["peak_gain"].value == pytest.approx(0.0, abs=0.3)
        assert part["c100"].value == pytest.approx(1.0, abs=1e-6)
    assert blind.swept["harm"].value == pytest.approx(0.0, abs=0.05)


def test_who_knows_the_task_is_between_the_single_arms_and_the_oracle() -> None:
    quality, cost, folds = _world()
    verdict = judge(Ground.of(quality, cost, folds), _told(quality), cost)
    gap, swept = verdict.fixed["gap"], verdict.swept["gap"]
    assert gap.value is not None
    assert gap.low is not None
    assert gap.high is not None
    assert swept.value is not None
    assert 0.1 < gap.value < 0.9
    assert gap.low < gap.value < gap.high
    assert gap.value <= swept.value + 1e-9
    assert verdict.fixed["peak_gain"].value is not None
    assert verdict.fixed["peak_gain"].value > 1.5
    assert verdict.fixed["c100"].value is not None
    assert verdict.fixed["c100"].value < 0.9


def test_who_gets_everything_wrong_is_below_the_hull() -> None:
    quality, cost, folds = _world()
    verdict = judge(Ground.of(quality, cost, folds), 1.0 - _told(quality), cost)
    assert verdict.swept["gap"].value is not None
    assert verdict.swept["gap"].value < 0.0
    assert verdict.swept["harm"].value is not None
    assert verdict.swept["harm"].value > 1.0


def test_no_fold_sets_its_own_points() -> None:
    """Turning the outcomes of one fold upside down does not move what was chosen for it."""
    quality, cost, folds = _world()
    chosen = choose(_told(quality), cost, 4.0)
    before = set_on_others(quality, cost, chosen, folds)
    turned = quality.copy()
    turned[folds == 0] = 1.0 - turned[folds == 0]
    after = set_on_others(turned, cost, chosen, folds)
    held = folds == 0
    same = np.abs(before.quality[:, held] - (1.0 - after.quality[:, held]))
    assert same.max() < 1e-9
    turned[~held] = 1.0 - turned[~held]
    others = set_on_others(turned, cost, chosen, folds)
    assert np.abs(before.cost[:, held] - others.cost[:, held]).max() > 0.1


def test_a_budget_is_kept_on_average() -> None:
    quality, cost, folds = _world()
    points = set_on_others(quality, cost, choose(_told(quality), cost, 4.0), folds)
    spent = points.cost.mean(axis=1)[:-1]
    assert (np.diff(spent) > -1e-9).all()
    assert spent[0] == pytest.approx(1.0, abs=1e-6)


def test_points_cheaper_than_any_router_are_the_cheapest_arm() -> None:
    points = Points(np.array([[0.9, 0.7]]), np.array([[3.0, 3.0]]), fixed=False)
    line = points.curve(np.array([0.5, 0.5]), (1.0, 0.2))
    assert line.cost.tolist() == [1.0, 3.0]
    assert line.quality.tolist() == [0.2, 0.8]


def test_picking_follows_the_choice() -> None:
    table = np.array([[1.0, 2.0], [3.0, 4.0]])
    assert pick(table, np.array([[0, 1], [1, 1]])).tolist() == [[1.0, 4.0], [2.0, 4.0]]


def test_auc_counts_pairs_and_shares_ties() -> None:
    quality = np.array([0.0, 1.0, 0.0, 1.0])
    assert auc(np.array([0.1, 0.9, 0.2, 0.8]), quality) == 1.0
    assert auc(np.array([0.5, 0.5, 0.5, 0.5]), quality) == 0.5
    assert auc(np.array([0.1, 0.15, 0.2, 0.8]), quality) == 0.75
    assert np.isnan(auc(np.array([0.1, 0.2]), np.array([1.0, 1.0])))


def test_calibration_is_the_gap_within_bins() -> None:
    expected = np.array([0.15, 0.15, 0.95, 0.95])
    assert ece(expected, np.array([0.0, 1.0, 1.0, 1.0])) == pytest.approx((0.7 + 0.1) / 4)


def test_exact_chances_show_no_more_error_than_chance() -> None:
    rng = np.random.default_rng(0)
    chances = rng.uniform(0.05, 0.95, size=(4000, 3))
    verdict = calibration(chances, (rng.random(chances.shape) < chances).astype(float))
    assert verdict.ece.value is not None
    assert verdict.ece_floor is not None
    assert verdict.ece.value == pytest.approx(verdict.ece_floor, rel=0.6)
    shifted = calibration(chances, (rng.random(chances.shape) < chances - 0.04).astype(float))
    assert shifted.ece.value is not None
    assert shifted.ece.value > 2 * verdict.ece_floor


def _world() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return outcomes of three arms; the middle one is as good as the dear one at every other."""
    rng = np.random.default_rng(1)
    chances = np.where((np.arange(900) % 2 == 0)[:, None], [0.5, 0.85, 0.8], [0.4, 0.5, 0.9])
    quality = (rng.random(chances.shape) < chances).astype(np.float64)
    return quality, np.tile(COST, (900, 1)), np.arange(900) // 2 % 5


def _told(quality: np.ndarray) -> np.ndarray:
    even = np.arange(len(quality)) % 2 == 0
    means = np.where(even[:, None], quality[even].mean(axis=0), quality[~even].mean(axis=0))
    return np.asarray(means)
