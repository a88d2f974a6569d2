"""Feedback channels: their accuracy, and the score that a vote amounts to.

A channel has a true and a false positive rate for good answers. The rates start as priors worth a
few observations and are learned from decisions that several channels rated (Dawid and Skene, 1979).
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from msgspec import Struct

from sophia.routing.bandit.policy import Matrix, Vector

MAX_FEEDBACK_AGE_MS = 30 * 86_400_000
"""Feedback that arrives longer after its decision is not learned from."""

MIN_RATE_GAP = 0.02  # of a channel's rates; below it the channel would carry no information
MAX_ROUNDS = 200  # of expectation and maximisation


class ChannelAccuracy(Struct, frozen=True):
    """Counts of a channel's votes, (positive, negative), on good and on bad answers."""

    good: tuple[float, float]
    bad: tuple[float, float]

    @property
    def true_positive_rate(self) -> float:
        """Share of good answers that it rates good."""
        return self.good[0] / sum(self.good)

    @property
    def false_positive_rate(self) -> float:
        """Share of bad answers that it rates good."""
        return self.bad[0] / sum(self.bad)


# Our judgement, each worth some twenty observations. A silent signal counts, too: a client that
# records retries must also record that there was none, or silence would look like praise.
PRIOR_CHANNELS: Mapping[str, ChannelAccuracy] = {
    "score": ChannelAccuracy((9.0, 1.0), (1.5, 8.5)),
    "thumb": ChannelAccuracy((8.5, 1.5), (2.0, 8.0)),
    "test": ChannelAccuracy((19.0, 1.0), (1.0, 19.0)),
    "accepted": ChannelAccuracy((8.5, 1.5), (3.0, 7.0)),
    "edit": ChannelAccuracy((7.0, 3.0), (3.0, 7.0)),
    "retry": ChannelAccuracy((19.0, 1.0), (16.0, 4.0)),
    "validator": ChannelAccuracy((19.0, 1.0), (14.0, 6.0)),
    "judge": ChannelAccuracy((8.0, 2.0), (3.0, 7.0)),
    "completed": ChannelAccuracy((18.0, 2.0), (16.0, 4.0)),
}

JUDGE_CHANNEL = "judge"  # of models that judge

IMPLICIT_CHANNELS = frozenset({"retry", "validator", "completed"})
"""Channels of implicit feedback: weak evidence that does not count as a judgement."""


class ChannelVote(Struct, frozen=True):
    """One channel's rating of a decision: `value` from 0 (bad) to 1 (good).

    `strength`, from 0 to 1, discounts the vote.
    """

    channel: str
    value: float
    strength: float = 1.0


def estimate_quality_from_vote(
    vote: ChannelVote, expected: float, channel: ChannelAccuracy
) -> tuple[float, float]:
    """Return the probability that an answer was good, and the weight of this score.

    The score starts from the arm's expected quality. The weight, from 0 (no information) to 1
    (certain), depends on the channel and not on its rating, so that praise and blame count alike.
    """
    odds = _logit(min(max(expected, 0.01), 0.99))
    odds += vote.strength * _log_likelihood_ratio(vote.value, channel)
    return 1 / (1 + math.exp(-odds)), vote.strength * compute_squared_correlation(channel)


def compute_squared_correlation(channel: ChannelAccuracy) -> float:
    """Return the squared correlation of a channel with the truth, were half of all answers good.

    0 for a channel that rates good and bad answers alike, 1 for one that is never wrong.
    """
    hit, slip = channel.true_positive_rate, channel.false_positive_rate
    rated_good = (hit + slip) / 2
    return (hit - slip) ** 2 / (4 * rated_good * (1 - rated_good))


def fit_dawid_skene(
    scores: Matrix, expected: Vector, names: Sequence[str]
) -> dict[str, ChannelAccuracy]:
    """Return the channels with the counts that their agreement adds to the priors.

    Args:
        scores: (N, C), each channel's rating of each decision, 0 to 1; NaN where there is none.
        expected: (N,), expected quality of each decision's arm.
        names: the C channels, all in `PRIOR_CHANNELS`.
    """
    expected = np.clip(expected, 0.01, 0.99)
    priors = [PRIOR_CHANNELS[name] for name in names]
    rated = np.isfinite(scores)
    praise = np.where(rated, scores, 0.0)
    blame = np.where(rated, 1 - scores, 0.0)
    channels, shift = priors, 0.0
    for _ in range(MAX_ROUNDS):
        odds = np.log(expected / (1 - expected)) + shift
        for_good, for_bad = (
            np.array([_log_likelihood_ratio(value, channel) for channel in channels])
            for value in (1.0, 0.0)
        )
        evidence = praise @ for_good + blame @ for_bad
        good = 1 / (1 + np.exp(-(odds + evidence)))
        # The expected qualities may all be off alike; the channels then outvote them.
        shift += _logit(float(good.mean())) - _logit(float((1 / (1 + np.exp(-odds))).mean()))
        updated = [
            _update_counts(prior, good, praise[:, at], blame[:, at])
            for at, prior in enumerate(priors)
        ]
        change = max(
            abs(new.true_positive_rate - old.true_positive_rate)
            + abs(new.false_positive_rate - old.false_positive_rate)
            for new, old in zip(updated, channels, strict=True)
        )
        channels = updated
        if change < 1e-6:
            break
    return dict(zip(names, channels, strict=True))


def _log_likelihood_ratio(value: float, channel: ChannelAccuracy) -> float:
    hit, slip = channel.true_positive_rate, channel.false_positive_rate
    return value * math.log(hit / slip) + (1 - value) * math.log((1 - hit) / (1 - slip))


def _logit(share: float) -> float:
    return math.log(share / (1 - share))


def _update_counts(
    prior: ChannelAccuracy, good: Vector, praise: Vector, blame: Vector
) -> ChannelAccuracy:
    bad = 1 - good
    channel = ChannelAccuracy(
        (prior.good[0] + float(good @ praise), prior.good[1] + float(good @ blame)),
        (prior.bad[0] + float(bad @ praise), prior.bad[1] + float(bad @ blame)),
    )
    hit, slip = channel.true_positive_rate, channel.false_positive_rate
    if hit - slip >= MIN_RATE_GAP:
        return channel
    # Were the rates to cross, "good" and "bad" would have changed places.
    middle = (hit + slip) / 2
    hit = min(middle + MIN_RATE_GAP / 2, 1 - 1e-6)
    slip = max(middle - MIN_RATE_GAP / 2, 1e-6)
    return build_channel_accuracy(hit, slip, sum(channel.good), sum(channel.bad))


def build_channel_accuracy(hit: float, slip: float, good: float, bad: float) -> ChannelAccuracy:
    """Return a channel with these rates that is worth so many good and bad answers."""
    return ChannelAccuracy((hit * good, (1 - hit) * good), (slip * bad, (1 - slip) * bad))
