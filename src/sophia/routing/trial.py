"""A new arm's trial: a quota of affordable requests that it is given before it may be buried."""

import numpy as np
from msgspec import Struct

from sophia.routing.policies.policy import Vector


class Terms(Struct, frozen=True):
    """How much of a trial a new arm gets.

    Attributes:
        quota: the number of requests to be tried on it for each main task.
        share: the probability that an open trial takes a request of a main task.
        main: the least share of requests that makes a task a main one.
        spend: the most that a trial may cost, as a share of all spending while it lasts.
        patience: tried only where its answer is expected to cost at most this many times the
            best-looking arm's.
        advance: how many answers' worth of extra cost a trial may run up before all other spending
            has made room for it.
    """

    quota: int = 40
    share: float = 0.10
    main: float = 0.08
    spend: float = 0.02
    patience: float = 4.0
    advance: float = 50.0


class Trial(Struct, frozen=True):
    """One arm's trial: requests given to it by task (T,), and the money it took.

    `extra` is what its answers cost above the best-looking arms', `spent` what all answers cost
    since the trial began, both in one unit.
    """

    arm: str
    given: tuple[float, ...]
    extra: float = 0.0
    spent: float = 0.0


def begin(arm: str, tasks: int) -> Trial:
    """Return the trial of a new arm, with nothing given yet."""
    return Trial(arm, (0.0,) * tasks)


def main_tasks(shares: Vector, terms: Terms) -> Vector:
    """Return 1 for the tasks that make up at least `terms.main` of the requests, else 0, (T,)."""
    return (shares >= terms.main).astype(np.float64)


class Request(Struct, frozen=True):
    """What a trial has to know of a request.

    Attributes:
        tasks: shape (T,), its task posterior.
        shares: shape (T,), how requests are spread over the tasks.
        cost: what the new arm's answer is expected to cost.
        best_cost: what the best-looking arm's answer is expected to cost.
    """

    tasks: Vector
    shares: Vector
    cost: float
    best_cost: float


def chance(trial: Trial, request: Request, terms: Terms) -> float:
    """Return the probability that `request` is given to the trial: nought when it cannot pay."""
    extra = request.cost - request.best_cost
    if request.cost > terms.patience * request.best_cost:
        return 0.0
    if extra > 0.0 and trial.extra + extra > terms.spend * (trial.spent + terms.advance * extra):
        return 0.0
    open_tasks = main_tasks(request.shares, terms) * (np.array(trial.given) < terms.quota)
    return terms.share * float(open_tasks @ request.tasks)


def give(trial: Trial, tasks: Vector, taken: str, cost: float, best_cost: float) -> Trial:
    """Return the trial after a request that the arm `taken` answered at `cost`.

    `best_cost` is what the best-looking arm was expected to cost.
    """
    if taken != trial.arm:
        return Trial(trial.arm, trial.given, trial.extra, trial.spent + cost)
    given = tuple(float(number + part) for number, part in zip(trial.given, tasks, strict=True))
    extra = trial.extra + max(cost - best_cost, 0.0)
    return Trial(trial.arm, given, extra, trial.spent + cost)


def is_over(trial: Trial, shares: Vector, terms: Terms) -> bool:
    """Say whether the quota of every main task has been given."""
    return not np.any(main_tasks(shares, terms) * (np.array(trial.given) < terms.quota))
