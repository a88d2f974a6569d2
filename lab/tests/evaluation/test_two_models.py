"""RouteLLM's metrics on examples computed by hand."""

import numpy as np
import pytest
from numpy.typing import NDArray

from lab.evaluation.two_models import WeakStrongMetrics, measure_weak_strong

Matrix = NDArray[np.float64]
QUALITY = np.array([[0.0, 1.0], [0.0, 1.0], [1.0, 1.0], [1.0, 1.0]])
ARMS = ("weak", "strong")


def measure(advantage: list[float], quality: Matrix = QUALITY) -> WeakStrongMetrics:
    expected = np.stack([np.zeros(len(quality)), np.array(advantage)], axis=1)
    draws = np.ones((5, len(quality))) / len(quality)
    found = measure_weak_strong(ARMS, expected, quality, draws)
    assert found is not None
    return found


def test_a_perfect_order_recovers_the_gap_with_half_the_calls() -> None:
    found = measure([0.9, 0.8, 0.2, 0.1])
    assert found.strong == "strong"
    assert found.apgr.value == pytest.approx(0.75)
    assert found.cpt50.value == pytest.approx(0.25)
    assert found.cpt80.value == pytest.approx(0.40)


def test_random_routing_recovers_its_share_of_strong_calls() -> None:
    """With equal expectations the order of the questions does not count."""
    found = measure([0.5, 0.5, 0.5, 0.5])
    assert found.apgr.value == pytest.approx(0.5)
    assert found.cpt50.value == pytest.approx(0.5)
    assert found.cpt80.value == pytest.approx(0.8)


def test_the_worst_order_recovers_half_the_gap_last() -> None:
    found = measure([0.1, 0.2, 0.8, 0.9])
    assert found.apgr.value == pytest.approx(0.25)
    assert found.cpt50.value == pytest.approx(0.75)


def test_between_two_questions_the_curve_is_linear() -> None:
    """The first question recovers 45 %; the rest of the half is a share of the second."""
    found = measure([0.9, 0.1], np.array([[0.0, 0.45], [0.0, 0.55]]))
    assert found.cpt50.value == pytest.approx(0.5 + 0.5 * 0.05 / 0.55)


def test_the_strong_arm_is_the_better_one_wherever_it_stands() -> None:
    draws = np.ones((3, 4)) / 4
    turned = np.ascontiguousarray(QUALITY[:, ::-1])
    found = measure_weak_strong(("b", "a"), turned, turned, draws)
    assert found is not None
    assert found.strong == "b"
    assert found.apgr.value == pytest.approx(0.75)


def test_three_arms_or_equal_arms_have_no_metrics() -> None:
    draws = np.ones((3, 4)) / 4
    assert measure_weak_strong(("a", "b", "c"), np.zeros((4, 3)), np.zeros((4, 3)), draws) is None
    assert measure_weak_strong(ARMS, np.zeros((4, 2)), np.zeros((4, 2)), draws) is None


def test_resamples_in_which_the_strong_arm_is_weaker_do_not_count() -> None:
    quality = np.array([[0.0, 1.0], [0.0, 1.0], [1.0, 0.0]])
    draws = np.array([[1 / 3] * 3, [0.5, 0.5, 0.0], [0.2, 0.0, 0.8]])
    expected = np.stack([np.zeros(3), np.array([3.0, 2.0, 1.0])], axis=1)
    found = measure_weak_strong(ARMS, expected, quality, draws)
    assert found is not None
    assert found.apgr.low == found.apgr.high == pytest.approx(0.5)
    assert found.apgr.value == pytest.approx(7 / 6)
