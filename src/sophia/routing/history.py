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
from sophia.routing.tasks import of_prompt

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
        credit: log-odds that the counts tell more of the next request than nothing does.
        requests: how many there were.
    """

    counts: Vector
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


def recall(
    history: History, own: Vector, base: Vector | float, *, repeated: bool = False
) -> Recalled:
    """Return the posterior of a request whose own posterior is `own`, (T,).

    `base` is how usual each task is anywhere. With `repeated` the request was counted before, and
    is taken out, so that nothing is its own witness.
    """
    counts = np.maximum(history.counts - own, 0.0) if repeated else history.counts
    evidence = of_prompt(counts, base)
    likelier = float(own @ evidence)
    if likelier <= 0.0:
        return Recalled(own, 0.0, 0.0)
    trust = 1.0 / (1.0 + math.exp(-history.credit))
    # Bayes' rule, its share, and the share of what no history says, in as few steps as there are.
    evidence *= trust / likelier
    evidence += 1.0 - trust
    return Recalled(evidence * own, trust, math.log(likelier))


def after(history: History, own: Vector, foretold: float) -> History:
    """Return the history with one more request, whose own posterior is `own`, (T,).

    `foretold` is what `recall` said of it before it was counted.
    """
    credit = (history.credit + DOUBT) * KEPT - DOUBT + foretold
    return History(
        history.counts * KEPT + own,
        min(max(credit, -MOST_CREDIT), MOST_CREDIT),
        history.requests + 1,
    )
