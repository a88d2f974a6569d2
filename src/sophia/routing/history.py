"""What earlier requests under the same system prompt say about the task of the next one.

A history is believed as far as it has foretold the requests that came after it: its evidence and
no evidence at all are two models of a prompt, averaged by how likely each made what was seen
(Bayesian model averaging; Hoeting et al., 1999). So a prompt that stands before all kinds of
requests takes nothing from them.
"""

import math

import numpy as np
from msgspec import Struct

from sophia.routing.policies.policy import Vector

CONCENTRATION = 10.0
"""Requests that a history's counts are as good as when they have seen nothing (Dirichlet)."""
KEPT = 0.98
"""What is left of a history's counts and of its credit after one more request."""
DOUBT = 5.0
"""Log-odds against a history that has foretold nothing yet."""
MOST_CREDIT = 8.0


class History(Struct, frozen=True):
    """What was seen under one system prompt; nobody writes to its array.

    Attributes:
        counts: shape (T,), the tasks of earlier requests by what they and their callers said,
            older ones counting less.
        weight: the sum of `counts`.
        credit: log-odds that the counts tell more of the next request than nothing does.
        requests: how many there were.
    """

    counts: Vector
    weight: float = 0.0
    credit: float = -DOUBT
    requests: int = 0


class Recalled(Struct, frozen=True):
    """What a history made of a request.

    Attributes:
        tasks: shape (T,), the posterior with the history's word in it.
        trust: how far the history was believed, 0 to 1.
        foretold: how much likelier the history made the request than no history, as a logarithm.
    """

    tasks: Vector
    trust: float
    foretold: float


def recall(history: History, own: Vector, base: float, *, repeated: bool = False) -> Recalled:
    """Return the posterior of a request whose own posterior is `own`, (T,).

    `base` is how usual each task is anywhere, all alike. What is expected under the prompt is the
    mean of a Dirichlet posterior; over `base` it is evidence by Bayes' rule. With `repeated` the
    request was counted before, and is taken out, so that nothing is its own witness.
    """
    counts, weight = history.counts, history.weight
    if repeated:
        counts = np.maximum(counts - own, 0.0)
        weight = float(counts.sum())
    floor = CONCENTRATION * base
    usual = (weight + CONCENTRATION) * base
    likelier = (float(own.dot(counts)) + floor) / usual
    trust = 1.0 / (1.0 + math.exp(-history.credit))
    # The share of the history and that of no history, in as few steps over the array as there are.
    share = trust / (likelier * usual)
    tasks = counts * share
    tasks += floor * share + 1.0 - trust
    tasks *= own
    return Recalled(tasks, trust, math.log(likelier))


def after(history: History, own: Vector, foretold: float) -> History:
    """Return the history with one more request, whose own posterior is `own`, (T,).

    `foretold` is what `recall` said of it before it was counted.
    """
    credit = (history.credit + DOUBT) * KEPT - DOUBT + foretold
    return History(
        history.counts * KEPT + own,
        history.weight * KEPT + 1.0,
        min(max(credit, -MOST_CREDIT), MOST_CREDIT),
        history.requests + 1,
    )
