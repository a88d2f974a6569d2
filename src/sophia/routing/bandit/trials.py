"""Trials of new arms: each gets a quota of affordable requests before it can be ruled out."""

import numpy as np
from msgspec import Struct

from sophia.routing.bandit.policy import Vector
from sophia.routing.types import DecisionTrace

REQUESTS_PER_TASK = 40
PROBABILITY = 0.35
"""The probability that an open trial gets a request of a main task."""
MIN_TASK_SHARE = 0.05
"""The share of requests from which a task is a main task."""
MAX_SPEND_SHARE = 0.0125
"""The most that a trial may cost above the best-looking arms, as a share of spending."""
CREDIT_REQUESTS = 1000.0
"""Requests whose spending is counted in advance, so that a trial can begin at once."""


class ArmTrial(
    Struct,
    frozen=True,
    rename={"requests_by_task": "given", "extra_cost": "extra", "total_cost": "spent"},
):
    """The trial of a new arm.

    Attributes:
        requests_by_task: shape (T,), the requests it got.
        extra_cost: the expected cost of its answers above the best-looking arms'.
        total_cost: the cost of all arms' answers since the trial began, in the same unit.
    """

    arm: str
    requests_by_task: tuple[float, ...]
    extra_cost: float = 0.0
    total_cost: float = 0.0


def build_arm_trial(arm: str, tasks: int) -> ArmTrial:
    """Return the trial of a new arm, without requests."""
    return ArmTrial(arm, (0.0,) * tasks)


def compute_trial_probability(
    trial: ArmTrial, tasks: Vector, task_shares: Vector, cost: float, best_cost: float
) -> float:
    """Return the probability that a request goes to the trial: 0 when it is not affordable.

    Args:
        trial: the trial so far.
        tasks: shape (T,), the request's task posterior.
        task_shares: shape (T,), the distribution of all requests over the tasks.
        cost: the expected cost of the new arm's answer.
        best_cost: the expected cost of the best-looking arm's answer.
    """
    extra = cost - best_cost
    budget = MAX_SPEND_SHARE * (trial.total_cost + CREDIT_REQUESTS * best_cost)
    if extra > 0.0 and trial.extra_cost + extra > budget:
        return 0.0
    return PROBABILITY * float(_open_tasks(trial, task_shares) @ tasks)


def count_trial_answer(
    trial: ArmTrial, tasks: Vector, arm: str, cost: float, extra_cost: float
) -> ArmTrial:
    """Return the trial after `arm` has answered a request of the task posterior `tasks` at `cost`.

    `extra_cost` is the part of the expected cost that the trial caused if it is the new arm.
    """
    total = trial.total_cost + cost
    if arm != trial.arm:
        return ArmTrial(trial.arm, trial.requests_by_task, trial.extra_cost, total)
    requests = np.array(trial.requests_by_task) + tasks
    return ArmTrial(trial.arm, tuple(requests.tolist()), trial.extra_cost + extra_cost, total)


def is_trial_over(trial: ArmTrial, task_shares: Vector) -> bool:
    """Return whether the quota of every main task is used up."""
    return not _open_tasks(trial, task_shares).any()


def compute_trial_share(trace: DecisionTrace, arm: str) -> float:
    """Return the part of an arm's propensity that was set aside for its trial, from 0 to 1."""
    if trace.trial is None or trace.rated_arms[trace.trial[0]].model != arm:
        return 0.0
    position, probability = trace.trial
    return min(probability / max(trace.rated_arms[position].propensity, probability), 1.0)


def _open_tasks(trial: ArmTrial, task_shares: Vector) -> Vector:
    """Return 1 for the main tasks with quota left, else 0, (T,)."""
    requests = np.array(trial.requests_by_task)
    is_open = (task_shares >= MIN_TASK_SHARE) & (requests < REQUESTS_PER_TASK)
    return is_open.astype(np.float64)
