"""Reliability of channels and judges, estimated from decisions that several channels rated.

Where keys learn apart, each key's feedback counts for that key alone. Where they learn together,
the keys are pooled by a trimmed mean, so that no single key decides a channel's worth; biases of
judges are measured for separate keys only.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np
from msgspec import Struct

from sophia.learning.feedback.influence_caps import compute_robust_mean
from sophia.learning.feedback.judge_bias import estimate_biases
from sophia.learning.feedback.source_reliability import JudgeBias, SourceReliability
from sophia.learning.feedback.sources import (
    JUDGE_CHANNEL,
    PRIOR_CHANNELS,
    ChannelAccuracy,
    build_channel_accuracy,
    fit_dawid_skene,
)

MIN_DECISIONS = 50  # of a key that several channels rated
_MODEL_FREE_CHANNELS = ("score", "test", "thumb", "accepted", "edit")  # of no family of models


class MultiChannelRatings(Struct, frozen=True, kw_only=True):
    """Scores of one decision by channel, and the expected quality of the model that answered.

    `judge_model` is the model behind the score of the judge channel, or empty.
    """

    key_id: str
    model: str
    expected_quality: float
    scores: Mapping[str, float]
    judge_model: str = ""


def estimate_reliability(
    ratings: Iterable[MultiChannelRatings], *, shared: bool
) -> dict[str, SourceReliability]:
    """Return the reliability by key, or with `shared` that of all keys under the empty name."""
    by_key: defaultdict[str, list[MultiChannelRatings]] = defaultdict(list)
    for rating in ratings:
        by_key[rating.key_id].append(rating)
    estimates = {
        key_id: _estimate_for_key(rows)
        for key_id, rows in sorted(by_key.items())
        if len(rows) >= MIN_DECISIONS
    }
    if not shared:
        return estimates
    return {"": _pool_keys(estimates.values())} if estimates else {}


def _estimate_for_key(ratings: Sequence[MultiChannelRatings]) -> SourceReliability:
    names = sorted({name for row in ratings for name in row.scores if name in PRIOR_CHANNELS})
    scores = np.array([[row.scores.get(name, np.nan) for name in names] for row in ratings])
    expected = np.array([row.expected_quality for row in ratings])
    channels = fit_dawid_skene(scores, expected, names)
    counts = np.isfinite(scores).sum(axis=0).tolist()
    return SourceReliability(
        channels, _estimate_biases(ratings), dict(zip(names, counts, strict=True))
    )


def _estimate_biases(ratings: Sequence[MultiChannelRatings]) -> tuple[JudgeBias, ...]:
    comparisons = []
    for row in ratings:
        references = [row.scores[name] for name in _MODEL_FREE_CHANNELS if name in row.scores]
        if row.judge_model and references:
            gap = row.scores[JUDGE_CHANNEL] - float(np.mean(references))
            comparisons.append((row.judge_model, row.model, gap))
    return tuple(
        JudgeBias(judge, family, bias)
        for (judge, family), bias in sorted(estimate_biases(comparisons).items())
    )


def _pool_keys(keys: Collection[SourceReliability]) -> SourceReliability:
    names = sorted({name for key in keys for name in key.channels})
    comparisons = {name: sum(key.comparisons.get(name, 0) for key in keys) for name in names}
    return SourceReliability({name: _pool_channel(name, keys) for name in names}, (), comparisons)


def _pool_channel(name: str, keys: Collection[SourceReliability]) -> ChannelAccuracy:
    prior = PRIOR_CHANNELS[name]
    learned = [key.channels[name] for key in keys if name in key.channels]
    hits = [(channel.true_positive_rate, sum(channel.good)) for channel in learned]
    slips = [(channel.false_positive_rate, sum(channel.bad)) for channel in learned]
    return build_channel_accuracy(
        compute_robust_mean(hits, prior.true_positive_rate),
        compute_robust_mean(slips, prior.false_positive_rate),
        sum(prior.good),
        sum(prior.bad),
    )
