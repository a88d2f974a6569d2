"""Prior of a new model from probes: pairs of its answers with those of known models.

Two models answer the same questions; the informative ones are those that only one gets right. If
ability and difficulty add up as log odds (Rasch, 1960), the ratio of these two counts estimates the
difference of abilities at any difficulty. Differences are estimated by kind of work, starting from
the prior; half of its variance is common to all kinds.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from msgspec import Struct

from sophia.learning.priors.book import MIN_SD, UNKNOWN_SD
from sophia.routing.bandit.policy import Matrix, Prior, Vector

ProbeScores = Mapping[str, float]
"""1 for a right answer and 0 for a wrong one, by probe; probes without an answer are missing."""

MIN_PAIRS = 20
SHARED_VARIANCE = 0.5
"""Share of a prior's variance that is common to all kinds; our judgement, as in `book`."""
TRANSFER_SD = 0.8
"""Change of two models' difference, in log odds, from one source of questions to another.

It is 0.74 over six pairs of models in zeroeval and MMLU-Pro, 0.92 over 55 in zeroeval and BFCL.
"""
_MIN_PROBABILITY = 0.02
_NEWTON_STEPS = 20


class ExpectedQualityByKind(Struct, frozen=True):
    """Expected quality of one model and its uncertainty by kind of work, (K,) each."""

    quality: Vector
    sd: Vector


class ProbeWins(Struct, frozen=True):
    """Pairs of one kind, and those where only the new model (wins) or a known one was right.

    With several known models these are means over them, since their pairs share the new model's
    answers.
    """

    count: float = 0.0
    wins: float = 0.0
    losses: float = 0.0


class AbilityShift(Struct, frozen=True):
    """Difference of a model's ability from its prior, in log odds by kind, (K,) each.

    `variance_ratio` is the share of the prior's variance that is left, from 0 to 1.
    """

    log_odds: Vector
    variance_ratio: Vector


def count_probe_wins(
    new: ProbeScores, known: Sequence[ProbeScores], kinds: Mapping[str, str]
) -> dict[str, ProbeWins]:
    """Return the pairs of each kind; `kinds` maps probes to kinds."""
    sums: dict[str, list[float]] = {}
    for scores in known:
        for probe in sorted(new.keys() & scores.keys()):
            counts = sums.setdefault(kinds[probe], [0.0, 0.0, 0.0])
            counts[0] += 1.0
            counts[1] += max(new[probe] - scores[probe], 0.0)
            counts[2] += max(scores[probe] - new[probe], 0.0)
    share = 1.0 / max(len(known), 1)
    return {kind: ProbeWins(*(total * share for total in counts)) for kind, counts in sums.items()}


def estimate_ability_shift(
    names: Sequence[str],
    pairs: Mapping[str, ProbeWins],
    new: ExpectedQualityByKind,
    known: Sequence[ExpectedQualityByKind],
) -> AbilityShift:
    """Return the shift of the new model's ability by its pairs, over the K kinds in `names`.

    `new` is its prior; the uncertainty of the known models weakens the evidence.
    """
    odds, variance = _to_log_odds(new)
    references = [_to_log_odds(model) for model in known]
    lead = odds - np.mean([mean for mean, _ in references], axis=0)
    reference_variance = np.mean([var for _, var in references], axis=0) / len(references)
    sd = np.sqrt(variance)
    prior = np.outer(sd, sd) * SHARED_VARIANCE
    np.fill_diagonal(prior, variance)
    counts = [pairs.get(name, ProbeWins()) for name in names]
    total = prior + TRANSFER_SD**2 + np.diag(reference_variance)
    mode, covariance = _laplace_mode(counts, lead, total)
    # Only this part of a difference on the probes is the model's own; the rest is the probes'.
    own = np.linalg.solve(total, prior).T
    posterior = prior - own @ prior + own @ covariance @ own.T
    return AbilityShift(own @ mode, np.diag(posterior) / variance)


def shift_prior(prior: Prior, shift: AbilityShift, weights: Matrix) -> Prior:
    """Return a prior over T tasks after a shift.

    `weights`, (T, K), spreads each task over the kinds that it is like; its rows sum to 1.
    """
    mean = np.clip(prior.mean, _MIN_PROBABILITY, 1.0 - _MIN_PROBABILITY)
    shifted = 1.0 / (1.0 + np.exp(-(np.log(mean / (1.0 - mean)) + weights @ shift.log_odds)))
    # At extreme odds a step in log odds is a small one in score, and the sd shrinks with it.
    slope = shifted * (1.0 - shifted) / (mean * (1.0 - mean))
    sd = prior.sd * np.sqrt(weights @ shift.variance_ratio) * slope
    largest = np.maximum(prior.sd, UNKNOWN_SD)
    return Prior(shifted, np.clip(sd, np.minimum(prior.sd, MIN_SD), largest))


def _laplace_mode(
    counts: Sequence[ProbeWins], lead: Vector, prior: Matrix
) -> tuple[Vector, Matrix]:
    """Return the posterior mode of all kinds' shifts, (K,), and their covariance, (K, K).

    Wins are binomial in the log odds `lead` plus a shift with prior covariance `prior`: Newton
    steps to the mode, and its curvature (Laplace; Rasmussen and Williams, 2006, 3.4).
    """
    wins = np.array([row.wins for row in counts])
    decided = wins + np.array([row.losses for row in counts])
    shift = np.zeros(len(counts))
    for _ in range(_NEWTON_STEPS):
        probability = 1.0 / (1.0 + np.exp(-(lead + shift)))
        weight = decided * probability * (1.0 - probability)
        covariance = np.linalg.solve(np.eye(len(counts)) + prior * weight, prior)
        shift = covariance @ (weight * shift + wins - decided * probability)
    return shift, covariance


def _to_log_odds(model: ExpectedQualityByKind) -> tuple[Vector, Vector]:
    """Return mean and variance of a model's log odds of a right answer, (K,) each."""
    quality = np.clip(model.quality, _MIN_PROBABILITY, 1.0 - _MIN_PROBABILITY)
    slope = quality * (1.0 - quality)
    return np.log(quality / (1.0 - quality)), (model.sd / slope) ** 2
