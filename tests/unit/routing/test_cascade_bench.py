"""The cascade's bench reckons with chances as one would by hand."""

import numpy as np
import pytest
from bench.routing.cascade import Checker, chain_of, follow

CHECKER = Checker("by hand", 0.9, 0.7)
GOOD = np.array([[1.0, 1.0], [1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
COST = np.tile([1.0, 5.0], (4, 1))


def test_every_course_counts_with_its_chance() -> None:
    """Accepted 9 in 10 when good and 3 in 10 when bad; the last answer is given anyhow."""
    resolved, spent = follow((0, 1), GOOD, COST, CHECKER)
    assert resolved == pytest.approx([1.0, 0.9, 0.7, 0.0])
    assert spent == pytest.approx([1.5, 1.5, 4.5, 4.5])


def test_a_single_arm_is_what_it_is() -> None:
    resolved, spent = follow((1,), GOOD, COST, CHECKER)
    assert list(resolved) == [1.0, 0.0, 1.0, 0.0] and set(spent) == {5.0}


def test_who_follows_is_who_pays() -> None:
    """Nobody when a good answer is worth nothing, the best when it is worth much."""
    quality, cost = np.array([0.5, 0.6, 0.9]), np.array([0.1, 0.2, 2.0])
    assert chain_of(0, quality, cost, CHECKER, 0.01) == (0,)
    assert chain_of(0, quality, cost, CHECKER, 1000.0)[:2] == (0, 2)
    assert chain_of(0, quality, cost, CHECKER, 3.0)[:2] == (0, 1)


def test_a_perfect_checker_never_gives_a_bad_answer_while_others_are_left() -> None:
    resolved, spent = follow((0, 1), GOOD, COST, Checker("perfect", 1.0, 1.0))
    assert list(resolved) == [1.0, 1.0, 1.0, 0.0] and list(spent) == [1.0, 1.0, 6.0, 6.0]
