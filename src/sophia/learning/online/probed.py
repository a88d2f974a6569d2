"""Prior of a new model from its probes, set where no outcome is known yet."""

from collections.abc import Mapping, Sequence

import numpy as np
from msgspec import Struct

from sophia.learning.online.policy import OnlinePolicy
from sophia.learning.priors.probe_prior import (
    MIN_PAIRS,
    ExpectedQualityByKind,
    ProbeWins,
    estimate_ability_shift,
    shift_prior,
)
from sophia.routing.bandit.arms import CALL_KINDS, format_arm
from sophia.routing.bandit.policy import Matrix, PolicyContext


class TaskKindWeights(Struct, frozen=True):
    """Names of the K kinds of work, and how each task is spread over them.

    `weights` has shape (T, K); its rows sum to 1.
    """

    names: tuple[str, ...]
    weights: Matrix


class ProbeResult(Struct, frozen=True):
    """Expected quality by kind before and after the probes; `posterior` is None for too few."""

    prior: ExpectedQualityByKind
    posterior: ExpectedQualityByKind | None


def has_outcomes(policy: OnlinePolicy, model: str) -> bool:
    """Return whether outcomes of a model were learned, so that a probe has nothing to add."""
    return any(policy.learner.has_outcomes(format_arm(model, call)) for call in CALL_KINDS)


def update_prior_from_probes(
    policy: OnlinePolicy,
    model: str,
    reference_models: Sequence[str],
    pairs: Mapping[str, ProbeWins],
    categories: TaskKindWeights,
) -> ProbeResult:
    """Set the prior of `model` from its pairs with the reference models, all known to `policy`.

    The shipped prior is the starting point, so that earlier probes do not count twice.

    Raises:
        ValueError: outcomes of the model were learned already.
    """
    arms = [format_arm(model, call) for call in CALL_KINDS]
    for arm in arms:
        policy.set_prior(arm, policy.unprobed_prior(arm))
    prior = _quality_by_kind(policy, model, categories)
    if sum(counts.count for counts in pairs.values()) < MIN_PAIRS:
        for arm in arms:
            policy.set_prior(arm, policy.prior(arm))
        return ProbeResult(prior, None)
    references = [_quality_by_kind(policy, name, categories) for name in reference_models]
    shift = estimate_ability_shift(categories.names, pairs, prior, references)
    for arm in arms:
        shifted = shift_prior(policy.unprobed_prior(arm), shift, categories.weights)
        policy.set_probe_prior(arm, shifted)
    return ProbeResult(prior, _quality_by_kind(policy, model, categories))


def _quality_by_kind(
    policy: OnlinePolicy, model: str, categories: TaskKindWeights
) -> ExpectedQualityByKind:
    weights = categories.weights
    ratings = [policy.learner.rate(PolicyContext(task), [model]) for task in np.eye(len(weights))]
    quality = np.array([rating.quality[0] for rating in ratings])
    sd = np.array([rating.sd[0] for rating in ratings])
    quality_by_kind, variance = (
        (values @ weights) / weights.sum(axis=0) for values in (quality, sd * sd)
    )
    return ExpectedQualityByKind(quality_by_kind, np.sqrt(variance))
