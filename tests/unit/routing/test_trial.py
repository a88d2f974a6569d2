"""A new arm gets its trial where it is affordable, and no more than that."""

import numpy as np

from sophia.routing.trial import Request, Terms, begin, chance, give, is_over

TERMS = Terms(quota=10, share=0.25, main=0.1, spend=0.02, credit=100.0, patience=4.0)
SHARES = np.array([0.6, 0.35, 0.05])


def _request(task: int = 0, cost: float = 1.0, best_cost: float = 1.0) -> Request:
    return Request(np.eye(3)[task], SHARES, cost, best_cost)


def test_main_tasks_are_tried_and_rare_ones_are_not() -> None:
    trial = begin("new", 3)
    assert chance(trial, _request(0), TERMS) == 0.25
    assert chance(trial, _request(1), TERMS) == 0.25
    assert chance(trial, _request(2), TERMS) == 0.0
    between = Request(np.array([0.5, 0.0, 0.5]), SHARES, 1.0, 1.0)
    assert chance(trial, between, TERMS) == 0.125


def test_a_quota_is_given_task_by_task_and_then_it_is_over() -> None:
    trial = begin("new", 3)
    for _ in range(10):
        trial = give(trial, _request(0), "new", 1.0)
    assert chance(trial, _request(0), TERMS) == 0.0
    assert chance(trial, _request(1), TERMS) == 0.25
    assert not is_over(trial, SHARES, TERMS)
    for _ in range(10):
        trial = give(trial, _request(1), "new", 1.0)
    assert is_over(trial, SHARES, TERMS)
    assert trial.given == (10.0, 10.0, 0.0)


def test_other_arms_answers_pay_for_a_trial_but_do_not_use_it_up() -> None:
    trial = give(begin("new", 3), _request(0), "old", 7.0)
    assert trial.given == (0.0, 0.0, 0.0)
    assert (trial.spent, trial.extra) == (7.0, 0.0)


def test_a_trial_costs_its_share_of_spending_at_most() -> None:
    """Credit lets it begin at once; what it costs in the end keeps to the share."""
    rng = np.random.default_rng(0)
    trial = begin("new", 3)
    request = _request(0, cost=3.0)
    terms = Terms(quota=10_000, share=0.5, main=0.1, spend=0.02, credit=100.0, patience=4.0)
    for _ in range(2000):
        tried = rng.uniform() < chance(trial, request, terms)
        trial = give(trial, request, "new" if tried else "old", 3.0 if tried else 1.0)
    assert trial.given[0] > 10
    assert 0.015 < trial.extra / (trial.spent + 100.0) <= 0.02


def test_a_cheaper_arm_is_tried_whatever_is_left_of_the_purse() -> None:
    trial = begin("new", 3)
    broke = give(trial, _request(0, cost=1e6), "new", 1e6)
    assert chance(broke, _request(0, cost=1.5), TERMS) == 0.0
    assert chance(broke, _request(0, cost=0.5), TERMS) == 0.25


def test_an_arm_far_dearer_than_the_best_is_not_tried() -> None:
    trial = begin("new", 3)
    rich = Terms(credit=1e9)
    assert chance(trial, _request(0, cost=rich.patience + 0.1), rich) == 0.0
    assert chance(trial, _request(0, cost=rich.patience - 0.1), rich) == rich.share


def test_what_would_have_gone_to_the_arm_anyway_is_no_cost_of_the_trial() -> None:
    trial = give(begin("new", 3), _request(0, cost=3.0), "new", 2.5, forced=0.25)
    assert trial.extra == 0.5
    assert trial.given == (1.0, 0.0, 0.0)
    assert trial.spent == 2.5
