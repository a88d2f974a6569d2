"""A new arm gets its trial where it is affordable, and no more than that."""

import numpy as np

from sophia.routing.bandit.trials import (
    CREDIT_REQUESTS,
    MAX_SPEND_SHARE,
    PROBABILITY,
    REQUESTS_PER_TASK,
    ArmTrial,
    build_arm_trial,
    compute_trial_probability,
    count_trial_answer,
    is_trial_over,
)

SHARES = np.array([0.61, 0.35, 0.04])


TASKS = np.eye(3)


def _probability(trial: ArmTrial, task: int = 0, cost: float = 1.0) -> float:
    return compute_trial_probability(trial, TASKS[task], SHARES, cost, 1.0)


def _use_up(trial: ArmTrial, task: int) -> ArmTrial:
    for _ in range(REQUESTS_PER_TASK):
        trial = count_trial_answer(trial, TASKS[task], "new", 1.0, 0.0)
    return trial


def test_main_tasks_are_tried_and_rare_ones_are_not() -> None:
    trial = build_arm_trial("new", 3)
    assert _probability(trial, 0) == PROBABILITY
    assert _probability(trial, 1) == PROBABILITY
    assert _probability(trial, 2) == 0.0
    between = np.array([0.5, 0.0, 0.5])
    assert compute_trial_probability(trial, between, SHARES, 1.0, 1.0) == PROBABILITY / 2


def test_a_quota_is_used_up_task_by_task_and_then_the_trial_is_over() -> None:
    trial = _use_up(build_arm_trial("new", 3), 0)
    assert _probability(trial, 0) == 0.0
    assert _probability(trial, 1) == PROBABILITY
    assert not is_trial_over(trial, SHARES)
    trial = _use_up(trial, 1)
    assert is_trial_over(trial, SHARES)
    assert trial.requests_by_task == (REQUESTS_PER_TASK, REQUESTS_PER_TASK, 0.0)


def test_other_arms_answers_pay_for_a_trial_but_do_not_use_it_up() -> None:
    trial = count_trial_answer(build_arm_trial("new", 3), TASKS[0], "old", 7.0, 0.5)
    assert trial.requests_by_task == (0.0, 0.0, 0.0)
    assert (trial.total_cost, trial.extra_cost) == (7.0, 0.0)


def test_a_trial_costs_at_most_its_share_of_spending() -> None:
    """Credit lets it begin at once; its cost in the end keeps to the share."""
    rng = np.random.default_rng(0)
    trial = build_arm_trial("new", 3)
    for _ in range(3000):
        tried = rng.uniform() < _probability(trial, cost=4.9)
        arm, cost = ("new", 4.9) if tried else ("old", 1.0)
        trial = count_trial_answer(trial, TASKS[0], arm, cost, 3.9)
        # Without the quota, the budget alone is the limit.
        trial = ArmTrial("new", (1.0, 0.0, 0.0), trial.extra_cost, trial.total_cost)
    share = trial.extra_cost / (trial.total_cost + CREDIT_REQUESTS)
    assert 0.9 * MAX_SPEND_SHARE < share <= MAX_SPEND_SHARE


def test_a_cheaper_arm_is_tried_without_any_budget_left() -> None:
    broke = count_trial_answer(build_arm_trial("new", 3), TASKS[0], "new", 1e6, 1e6)
    assert _probability(broke, 0, cost=1.5) == 0.0
    assert _probability(broke, 0, cost=0.5) == PROBABILITY


def test_an_arm_is_tried_however_dear_it_is_while_the_budget_covers_its_answer() -> None:
    """The budget for trials is the only limit on their cost, and it grows with spending."""
    trial = build_arm_trial("new", 3)
    covered = 1.0 + MAX_SPEND_SHARE * CREDIT_REQUESTS
    assert _probability(trial, 0, cost=covered - 0.1) == PROBABILITY
    assert _probability(trial, 0, cost=covered + 0.1) == 0.0
    later = count_trial_answer(trial, TASKS[0], "old", CREDIT_REQUESTS, 0.0)
    assert _probability(later, 0, cost=covered + 0.1) == PROBABILITY


def test_an_answer_of_the_new_arm_counts_with_the_cost_that_the_trial_caused() -> None:
    trial = count_trial_answer(build_arm_trial("new", 3), TASKS[0], "new", 2.5, 0.5)
    assert trial.extra_cost == 0.5
    assert trial.requests_by_task == (1.0, 0.0, 0.0)
    assert trial.total_cost == 2.5
