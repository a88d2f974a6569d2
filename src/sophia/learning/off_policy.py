"""What a policy would have scored on decisions that another one made, or why that cannot be told.

Estimates weigh logged scores by how much likelier the target was to choose what was chosen. `dr`
adds a model of what the other arms would have scored and stays right when either the model or the
propensities are. Intervals are for requests like the logged ones, not for the logged ones alone.
"""

import math
from statistics import NormalDist

import numpy as np
from msgspec import Struct

from sophia.learning.outcome_model import Matrix, Vector, cross_fitted
from sophia.learning.support import Log, Support, kish, refusal, support, weights_of


class Estimate(Struct, frozen=True):
    """A value with its standard error and its interval."""

    value: float
    se: float
    low: float
    high: float


class Refused(Struct, frozen=True, tag=True):
    """No number: the log cannot tell, and `reason` says why."""

    reason: str
    support: Support


class Assessment(Struct, frozen=True, tag=True):
    """What a target would have scored, by four estimators; `dr` is the one to act on."""

    ips: Estimate
    snips: Estimate
    dr: Estimate
    clipped: Estimate
    support: Support


class Comparison(Struct, frozen=True, tag=True):
    """By how much one target beats another on the same decisions (doubly robust, paired)."""

    difference: Estimate
    challenger: Estimate
    incumbent: Estimate
    support: Support


def assess(  # noqa: PLR0913 - what may be left out has names
    log: Log,
    target: Matrix,
    *,
    seed: int = 0,
    level: float = 0.95,
    clip: float | None = None,
    foretold: Matrix | None = None,
) -> Assessment | Refused:
    """Return what `target`, (N, A) chances, would have scored on the requests of `log`.

    Args:
        log: decisions with their exact propensities.
        target: the chances that the target gives each arm.
        seed: of the folds of the outcome model.
        level: of the intervals.
        clip: the most that a score counts for in `clipped`, which trades a little bias for calm;
            by default the fourth root of the number of decisions.
        foretold: (N, A), what `foretell` returned for a log that these decisions are a part of.
    """
    ground = support(log, target)
    reason = refusal(ground)
    if reason:
        return Refused(reason, ground)
    weights = weights_of(log, target)
    heard = log.heard()
    rewards = np.where(heard > 0, log.rewards, 0.0)
    foretold = foretell(log, seed) if foretold is None else foretold
    whole = weights * heard
    mean = float(np.sum(whole * rewards) / np.sum(whole))
    limit = len(log.arms) ** 0.25 if clip is None else clip
    trusted = np.minimum(weights, limit) * heard
    doubt = _doubt(log, target, foretold)

    def estimate(terms: Vector, centre: float | None = None) -> Estimate:
        return _interval(terms, ground.ess, level, centre)

    return Assessment(
        ips=estimate(whole * rewards),
        snips=estimate(mean + whole * (rewards - mean) / whole.mean(), mean),
        dr=_interval(_robust(log, target, whole, foretold), ground.ess, level, least=doubt),
        clipped=_interval(_robust(log, target, trusted, foretold), ground.ess, level, least=doubt),
        support=ground,
    )


def compare(  # noqa: PLR0913 - what may be left out has names
    log: Log,
    challenger: Matrix,
    incumbent: Matrix,
    *,
    seed: int = 0,
    level: float = 0.95,
    foretold: Matrix | None = None,
    prices: Matrix | None = None,
) -> Comparison | Refused:
    """Return by how much `challenger` beats `incumbent` on the requests of `log`, paired.

    What both would have done alike cancels, so the interval is narrower than two apart. `foretold`
    is as for `assess`. What an arm costs by `prices`, (N, A), in units of score, is taken off: it
    is known, so nothing is guessed.
    """
    grounds = [support(log, challenger), support(log, incumbent)]
    for ground in grounds:
        reason = refusal(ground)
        if reason:
            return Refused(reason, ground)
    foretold = foretell(log, seed) if foretold is None else foretold
    heard = log.heard()
    charged = np.zeros_like(foretold) if prices is None else prices
    targets = challenger, incumbent, challenger - incumbent
    ours, theirs, apart = (
        _interval(
            _robust(log, target, weights_of(log, target) * heard, foretold)
            - (target * charged).sum(axis=1),
            min(ground.ess for ground in grounds),
            level,
            least=_doubt(log, target, foretold, charged),
        )
        for target in targets
    )
    return Comparison(apart, ours, theirs, min(grounds, key=lambda one: one.ess))


def paired(challenger: Vector, incumbent: Vector, *, level: float = 0.95) -> Comparison | Refused:
    """Return the same where the score of every choice is known, as on a table: (N,) scores each."""
    count = len(challenger)
    ground = Support(count, count, float(count), 1.0, 0.0)
    reason = refusal(ground)
    if reason:
        return Refused(reason, ground)
    apart, ours, theirs = (
        _interval(terms, count, level) for terms in (challenger - incumbent, challenger, incumbent)
    )
    return Comparison(apart, ours, theirs, ground)


def foretell(log: Log, seed: int = 0) -> Matrix:
    """Return what each arm would score on each decision, (N, A), told by the other decisions."""
    rng = np.random.default_rng(seed)
    arms = log.propensities.shape[1]
    return cross_fitted(log.contexts, log.arms, log.rewards, log.heard(), arms, rng)


def _robust(log: Log, target: Matrix, weights: Vector, foretold: Matrix) -> Vector:
    there = foretold[np.arange(len(log.arms)), log.arms]
    missed = np.where(np.isfinite(log.rewards), log.rewards, there) - there
    return np.asarray((target * foretold).sum(axis=1) + weights * missed, dtype=np.float64)


def _doubt(log: Log, target: Matrix, foretold: Matrix, charged: Matrix | float = 0.0) -> float:
    """Return the standard error that the chances themselves foretell.

    The spread of the drawn terms looks small when the heavy weights happen not to have been drawn,
    which is just when the estimate is off; the exact propensities know better.
    """
    count, heard = len(log.arms), log.heard()
    missed = np.where(heard > 0, log.rewards - foretold[np.arange(count), log.arms], 0.0)
    noise = float(np.sum(heard * missed**2) / np.sum(heard))
    inside = log.propensities > 0
    squares = np.divide(target**2, log.propensities, out=np.zeros_like(target), where=inside)
    told = float(squares.sum()) / kish(heard)
    certain = (target * (foretold - charged)).sum(axis=1)
    return math.sqrt((noise * told + float(certain.var())) / count)


def _interval(
    terms: Vector, ess: float, level: float, centre: float | None = None, *, least: float = 0.0
) -> Estimate:
    """Return the mean of `terms` with a t interval of as many degrees as the log is worth."""
    value = float(terms.mean()) if centre is None else centre
    se = max(float(terms.std(ddof=1) / math.sqrt(len(terms))), least)
    z = NormalDist().inv_cdf(0.5 + level / 2)
    half = se * (z + (z**3 + z) / (4 * max(ess - 1, 1.0)))
    return Estimate(value, se, value - half, value + half)
