"""What answers to probes say of a new model: pairs with known models, turned into its prior.

Two models answer the same questions, so what counts is where one is right and the other wrong. If
ability and difficulty add up as log odds (Rasch, 1960), the ratio of these two counts estimates the
difference of abilities whatever the questions' difficulty, and questions that both get right or
both wrong say nothing of it. Differences are learned for each kind of work, from what the prior
expected of it; half of the prior's variance is common to all kinds.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from sophia.learning.priors import LEAST_SD, STRANGER_SD
from sophia.routing.policies.policy import Prior, Vector

Matrix = NDArray[np.float64]
Marks = Mapping[str, float]
"""By probe, 1 for a right answer and 0 for a wrong one; those without an answer are not in it."""

LEAST_PAIRS = 20
COMMON = 0.5
"""How much of a prior's variance is the same for all kinds; our judgement, as in `priors`."""
TRANSFER_SD = 0.8
"""By how much two models' difference, as log odds, changes from one source of questions to another.

It is 0.74 over six pairs of models in zeroeval and MMLU-Pro, 0.92 over 55 in zeroeval and BFCL.
"""
_EDGE = 0.02
_STEPS = 20


class Expected(Struct, frozen=True):
    """What is believed of one model before it was probed, by kind of work, (K,) each."""

    quality: Vector
    sd: Vector


class Pairs(Struct, frozen=True):
    """One kind's pairs: how many, and in how many the new model or a known one alone was right.

    With several known models these are means over them: their pairs share the new model's answers.
    """

    count: float = 0.0
    won: float = 0.0
    lost: float = 0.0


class Shift(Struct, frozen=True):
    """By how much a model is better than was believed, as log odds by kind, (K,) each.

    `shrink` is what is left of the variance of what was believed, from 0 to 1.
    """

    moved: Vector
    shrink: Vector


def pairs_of(new: Marks, known: Sequence[Marks], kinds: Mapping[str, str]) -> dict[str, Pairs]:
    """Return the pairs of each kind; `kinds` names that of each probe."""
    found: dict[str, list[float]] = {}
    for marks in known:
        for probe in sorted(new.keys() & marks.keys()):
            sums = found.setdefault(kinds[probe], [0.0, 0.0, 0.0])
            sums[0] += 1.0
            sums[1] += max(new[probe] - marks[probe], 0.0)
            sums[2] += max(marks[probe] - new[probe], 0.0)
    share = 1.0 / max(len(known), 1)
    return {kind: Pairs(*(total * share for total in sums)) for kind, sums in found.items()}


def enough(pairs: Mapping[str, Pairs]) -> bool:
    """Say whether there are pairs enough to change what is believed."""
    return sum(one.count for one in pairs.values()) >= LEAST_PAIRS


def shift(
    names: Sequence[str], pairs: Mapping[str, Pairs], new: Expected, known: Sequence[Expected]
) -> Shift:
    """Return how far pairs move what is believed of a new model.

    Args:
        names: the K kinds of work.
        pairs: by kind; those without any say nothing.
        new: what is believed of the new model.
        known: what is believed of the known ones; their doubt makes the pairs say less.
    """
    odds, variance = _log_odds(new)
    others = [_log_odds(one) for one in known]
    ahead = odds - np.mean([one for one, _ in others], axis=0)
    doubt = np.mean([one for _, one in others], axis=0) / len(others)
    sd = np.sqrt(variance)
    believed = np.outer(sd, sd) * COMMON
    np.fill_diagonal(believed, variance)
    told = [pairs.get(name, Pairs()) for name in names]
    met = believed + TRANSFER_SD**2 + np.diag(doubt)
    surprise, unsure = _mode(told, ahead, met)
    # Of a difference on the pack only this part is the model's own; the rest is the pack's.
    part = np.linalg.solve(met, believed).T
    left = believed - part @ believed + part @ unsure @ part.T
    return Shift(part @ surprise, np.diag(left) / variance)


def believed_after(prior: Prior, moved: Shift, weights: Matrix) -> Prior:
    """Return a prior over classes after a shift.

    Args:
        prior: of the arm, over T classes.
        moved: by kind.
        weights: shape (T, K), the kinds that each class is like; rows sum to 1.
    """
    mean = np.clip(prior.mean, _EDGE, 1.0 - _EDGE)
    after = 1.0 / (1.0 + np.exp(-(np.log(mean / (1.0 - mean)) + weights @ moved.moved)))
    # Where odds are long a step of log odds is a small one of the score, and doubt shrinks with it.
    slope = after * (1.0 - after) / (mean * (1.0 - mean))
    sd = prior.sd * np.sqrt(weights @ moved.shrink) * slope
    most = np.maximum(prior.sd, STRANGER_SD[1])
    return Prior(after, np.clip(sd, np.minimum(prior.sd, LEAST_SD), most))


def _mode(told: Sequence[Pairs], ahead: Vector, believed: Matrix) -> tuple[Vector, Matrix]:
    """Return the likeliest surprises of all kinds, (K,), and their covariance, (K, K).

    Wins are binomial in the log odds `ahead` plus a surprise whose prior covariance is `believed`:
    Newton's steps to the mode, and its curvature (Laplace; Rasmussen and Williams, 2006, 3.4).
    """
    won = np.array([one.won for one in told])
    count = won + np.array([one.lost for one in told])
    surprise = np.zeros(len(told))
    for _ in range(_STEPS):
        chance = 1.0 / (1.0 + np.exp(-(ahead + surprise)))
        weight = count * chance * (1.0 - chance)
        unsure = np.linalg.solve(np.eye(len(told)) + believed * weight, believed)
        surprise = unsure @ (weight * surprise + won - count * chance)
    return surprise, unsure


def _log_odds(one: Expected) -> tuple[Vector, Vector]:
    quality = np.clip(one.quality, _EDGE, 1.0 - _EDGE)
    slope = quality * (1.0 - quality)
    return np.log(quality / (1.0 - quality)), (one.sd / slope) ** 2
