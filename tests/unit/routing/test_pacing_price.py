"""Spending meets its target by way of a price, whatever the arms cost."""

import numpy as np
import pytest

from sophia.routing.bandit.pacing import GAIN, MAX_PRICE, PacingState, update_pacing

QUALITY = np.array([0.95, 0.9, 0.8, 0.6])
COST = np.array([1.0, 0.3, 0.05, 0.01])


def _spend(even: float, count: int = 4000, *, windowed: bool = True) -> float:
    """Return the share of the target that is spent when answers are chosen by the price."""
    rng = np.random.default_rng(2)
    state, spent, target = PacingState(price=0.02), 0.0, even
    for number in range(count):
        quality = QUALITY + rng.normal(0.0, 0.05, 4)
        arm = int((quality - state.price * COST).argmax())
        cost = float(COST[arm] * rng.gamma(2.0, 0.5))
        spent += cost
        if windowed:
            target = (even * count - spent) / max(count - number - 1, 1)
        state = update_pacing(state, cost, target)
    return spent / (even * count)


@pytest.mark.parametrize("target", [0.03, 0.05, 0.1, 0.25, 0.5])
def test_a_window_is_used_up_to_within_one_per_cent(target: float) -> None:
    assert _spend(target) == pytest.approx(1.0, abs=0.01)


def test_without_a_window_the_average_is_near_its_target() -> None:
    assert _spend(0.1, windowed=False) == pytest.approx(1.0, abs=0.1)


def test_a_budget_that_does_not_bind_costs_no_quality() -> None:
    state = PacingState(price=0.02)
    for _ in range(1000):
        state = update_pacing(state, 1.0, 5.0)
    assert state.price == 0.0
    state = update_pacing(state, 300.0, 5.0)
    assert 0.0 < state.price < 0.01


def test_the_price_does_not_wind_up() -> None:
    """Long overspending raises it to its maximum and no further, and it recovers at once."""
    state = PacingState()
    for _ in range(2000):
        state = update_pacing(state, 10.0, 0.0)
    assert state.price == MAX_PRICE
    for _ in range(500):
        state = update_pacing(state, 0.0, 1.0)
    assert state.price < 0.05


def test_an_expensive_answer_moves_the_price_by_a_bounded_step() -> None:
    state = PacingState(price=0.1, average_cost=1.0, weight=1.0)
    expensive = update_pacing(state, 1e6, 1.0).price
    assert expensive == pytest.approx(0.1 * np.exp(GAIN))
    saving = PacingState(price=0.1, average_cost=1e-6, weight=1.0)
    assert update_pacing(saving, 0.0, 1.0).price == pytest.approx(0.1 * np.exp(-GAIN))


def test_the_price_moves_quickly_at_first_and_slowly_after() -> None:
    state = PacingState(price=0.1)
    early = update_pacing(state, 2.0, 1.0)
    late = state
    for _ in range(500):
        late = update_pacing(late, 1.0, 1.0)
    later = update_pacing(late, 50.0, 1.0)
    assert early.price / state.price > 1.05
    assert 1.0 < later.price / late.price < 1.03
