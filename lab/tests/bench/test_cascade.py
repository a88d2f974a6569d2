"""The cascade benchmark computes expectations as a calculation by hand does."""

import numpy as np
import pytest

from bench.routing.cascade import Checker, build_chain, simulate_chain

CHECKER = Checker("by hand", 0.9, 0.7)
GOOD = np.array([[1.0, 1.0], [1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
COST = np.tile([1.0, 5.0], (4, 1))


def test_every_outcome_counts_with_its_probability() -> None:
    """Good answers pass 9 times in 10, bad ones 3 in 10; the last answer is not checked."""
    resolved, spent = simulate_chain((0, 1), GOOD, COST, CHECKER)
    assert resolved == pytest.approx([1.0, 0.9, 0.7, 0.0])
    assert spent == pytest.approx([1.5, 1.5, 4.5, 4.5])


def test_a_single_arm_has_its_own_quality_and_cost() -> None:
    resolved, spent = simulate_chain((1,), GOOD, COST, CHECKER)
    assert list(resolved) == [1.0, 0.0, 1.0, 0.0] and set(spent) == {5.0}


def test_the_next_arm_is_the_most_profitable() -> None:
    """No next arm if a good answer has little value, the best one if it has much."""
    quality, cost = np.array([0.5, 0.6, 0.9]), np.array([0.1, 0.2, 2.0])
    assert build_chain(0, quality, cost, CHECKER, 0.01) == (0,)
    assert build_chain(0, quality, cost, CHECKER, 1000.0)[:2] == (0, 2)
    assert build_chain(0, quality, cost, CHECKER, 3.0)[:2] == (0, 1)


def test_a_perfect_checker_never_gives_a_bad_answer_while_other_arms_remain() -> None:
    resolved, spent = simulate_chain((0, 1), GOOD, COST, Checker("perfect", 1.0, 1.0))
    assert list(resolved) == [1.0, 1.0, 1.0, 0.0] and list(spent) == [1.0, 1.0, 6.0, 6.0]
