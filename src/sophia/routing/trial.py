"""A new arm's trial: a quota of affordable requests that it is given before it may be buried."""

import numpy as np
from msgspec import Struct

from sophia.routing.nouns import Evidence
from sophia.routing.policies.policy import Vector


class Terms(Struct, frozen=True):
    """How much of a trial a new arm gets.

    Attributes:
        quota: the number of requests to be tried on it for each main task.
        share: the probability that an open trial takes a request of a main task.
        main: the least share of requests that makes a task a main one.
        spend: the most that a trial may cost above the best-looking arms, as a share of spending.
        credit: the number of requests whose spending is reckoned with beforehand, so that a trial
            need not wait until others have paid for it.
        patience: tried only where its answer is expected to cost at most this many times the
            best-looking arm's.
    """

    quota: int = 40
    share: float = 0.35
    main: float = 0.05
    spend: float = 0.0125
    credit: float = 1000.0
    patience: float = 5.0


class Trial(Struct, frozen=True):
    """One arm's trial: requests it answered by task (T,), and the money.

    `extra` is what the answers that it was given were expected to cost above the best-looking
    arms', `spent` what all answers cost since the trial began, both in one unit.
    """

    arm: str
    given: tuple[float, ...]
    extra: float = 0.0
    spent: float = 0.0


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


def begin(arm: str, tasks: int) -> Trial:
    """Return the trial of a new arm, with nothing given yet."""
    return Trial(arm, (0.0,) * tasks)


def chance(trial: Trial, request: Request, terms: Terms) -> float:
    """Return the probability that `request` is given to the trial: nought when it cannot pay."""
    extra = request.cost - request.best_cost
    if request.cost > terms.patience * request.best_cost:
        return 0.0
    purse = terms.spend * (trial.spent + terms.credit * request.best_cost)
    if extra > 0.0 and trial.extra + extra > purse:
        return 0.0
    return terms.share * float(_open(trial, request.shares, terms) @ request.tasks)


def give(trial: Trial, request: Request, arm: str, cost: float, forced: float = 1.0) -> Trial:
    """Return the trial after `arm` has answered `request` at `cost`.

    `forced` is the part of the arm's propensity that was set aside for the trial, from 0 to 1: what
    would have gone to it anyway is no cost of the trial's.
    """
    if arm != trial.arm:
        return Trial(trial.arm, trial.given, trial.extra, trial.spent + cost)
    given = tuple(
        float(number + part) for number, part in zip(trial.given, request.tasks, strict=True)
    )
    extra = trial.extra + forced * max(request.cost - request.best_cost, 0.0)
    return Trial(trial.arm, given, extra, trial.spent + cost)


def is_over(trial: Trial, shares: Vector, terms: Terms) -> bool:
    """Say whether the quota of every main task has been given."""
    return not _open(trial, shares, terms).any()


def forced(made: Evidence, arm: str) -> float:
    """Return the part of an arm's propensity that was set aside for its trial."""
    if made.trial is None or made.rated[made.trial[0]].arm != arm:
        return 0.0
    place, probability = made.trial
    return min(probability / max(made.rated[place].propensity, probability), 1.0)


def _open(trial: Trial, shares: Vector, terms: Terms) -> Vector:
    """Return 1 for the main tasks whose quota is not used up, else 0, (T,)."""
    wanting = (shares >= terms.main) & (np.array(trial.given) < terms.quota)
    return wanting.astype(np.float64)
