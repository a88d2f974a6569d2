"""Spending meets its target by way of a price, whatever the arms cost."""

import numpy as np
import pytest

from sophia.routing.pacer import Pace, Pacing, affordable, pace, target_of

QUALITY = np.array([0.95, 0.9, 0.8, 0.6])
COST = np.array([1.0, 0.3, 0.05, 0.01])


def _spend(target: float, count: int = 4000, *, windowed: bool = True) -> float:
    """Return the share of `target` that is spent when answers are chosen by the price."""
    rng = np.random.default_rng(2)
    state, spent, usual = Pacing(), 0.0, target
    for number in range(count):
        quality = QUALITY + rng.normal(0.0, 0.05, 4)
        arm = int((quality - state.price * COST).argmax())
        cost = float(COST[arm] * rng.gamma(2.0, 0.5))
        spent += cost
        if windowed:
            target = target_of(usual * count - spent, count - number - 1, usual)
        state = pace(state, cost, target, Pace())
    return spent / (usual * count)


@pytest.mark.parametrize("target", [0.03, 0.05, 0.1, 0.25, 0.5])
def test_a_window_is_used_up_to_within_one_per_cent(target: float) -> None:
    assert _spend(target) == pytest.approx(1.0, abs=0.01)


def test_without_a_window_the_average_is_near_its_target() -> None:
    assert _spend(0.1, windowed=False) == pytest.approx(1.0, abs=0.1)


def test_a_budget_that_does_not_bind_costs_no_quality() -> None:
    state = Pacing()
    for _ in range(1000):
        state = pace(state, 1.0, 5.0, Pace())
    assert state.price == 0.0
    state = pace(state, 300.0, 5.0, Pace())
    assert 0.0 < state.price < 0.01


def test_the_price_does_not_wind_up() -> None:
    """Long overspending takes it to its ceiling and no further, nothing left turns it up."""
    settings = Pace(gain=0.2, ceiling=4.0)
    state = Pacing()
    for _ in range(2000):
        state = pace(state, 10.0, 0.0, settings)
    assert state.price == 4.0
    for _ in range(200):
        state = pace(state, 0.0, 1.0, settings)
    assert state.price < 0.1


def test_a_dear_answer_moves_the_price_by_a_bounded_step() -> None:
    state = Pacing(price=0.1)
    settings = Pace(haste=0.0)
    dear = pace(state, 1e6, 1.0, settings).price
    assert dear == pytest.approx(0.1 * np.exp(0.02))
    assert pace(state, 0.0, 1.0, settings).price == pytest.approx(0.1 * np.exp(-0.02))


def test_the_price_finds_its_height_quickly_at_first_and_moves_slowly_after() -> None:
    state = Pacing(price=0.1)
    early = pace(state, 2.0, 1.0, Pace())
    late = state
    for _ in range(500):
        late = pace(late, 1.0, 1.0, Pace())
    later = pace(late, 50.0, 1.0, Pace())
    assert early.price / state.price > 1.05
    assert 1.0 < later.price / late.price < 1.03


def test_the_target_uses_up_what_remains_without_a_jolt() -> None:
    assert target_of(50.0, 100, 1.0) == 0.5
    assert target_of(5.0, 100, 1.0) == pytest.approx(1 / 3)
    assert target_of(900.0, 100, 1.0) == 3.0
    assert target_of(-5.0, 0, 1.0) == pytest.approx(1 / 3)


def test_only_what_fits_may_be_explored() -> None:
    assert affordable(1.0, remaining=5.0, target=0.1)
    assert not affordable(1.0, remaining=0.9, target=0.1)
    assert not affordable(4.0, remaining=50.0, target=0.1)
