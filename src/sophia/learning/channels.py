"""What many channels say of one decision, as one score with how much it tells.

An answer was good or it was not. A channel calls good answers good at its `hit` rate and bad ones
at its `slip` rate; a test that ran tells the two apart, a stream that was read to its end hardly
does. Rates start as our judgement, worth a few observations, and are learned wherever several
channels speak of the same decisions (Dawid and Skene, 1979).
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
Vector = NDArray[np.float64]

LEAST_APART = 0.02
"""A channel whose rates lie closer than this would tell nothing, or the contrary of its name."""


class Channel(Struct, frozen=True):
    """How a channel speaks, as counts: (called good, called bad) of good and of bad answers."""

    good: tuple[float, float]
    bad: tuple[float, float]

    @property
    def hit(self) -> float:
        """The share of good answers that it calls good."""
        return self.good[0] / sum(self.good)

    @property
    def slip(self) -> float:
        """The share of bad answers that it calls good."""
        return self.bad[0] / sum(self.bad)


# Our judgement, each worth some twenty observations. What happens silently is a signal, too:
# whoever records retries must also record that there was none, or silence would look like praise.
CHANNELS: Mapping[str, Channel] = {
    "score": Channel((9.0, 1.0), (1.5, 8.5)),
    "thumb": Channel((8.5, 1.5), (2.0, 8.0)),
    "test": Channel((19.0, 1.0), (1.0, 19.0)),
    "accepted": Channel((8.5, 1.5), (3.0, 7.0)),
    "edit": Channel((7.0, 3.0), (3.0, 7.0)),
    "retry": Channel((19.0, 1.0), (16.0, 4.0)),
    "validator": Channel((19.0, 1.0), (14.0, 6.0)),
    "judge": Channel((8.0, 2.0), (3.0, 7.0)),
    "completed": Channel((18.0, 2.0), (16.0, 4.0)),
}


JUDGE = "judge"
"""The channel of models that judge."""

SIGNS = frozenset({"retry", "validator", "completed"})
"""Channels on which nobody means to judge: they tell little, and do not count as an outcome."""


class Vote(Struct, frozen=True):
    """What one channel says of a decision: `value` from 0 (bad) to 1 (good).

    `strength` from 0 to 1 is what is left of it after contradictions; 1 for a plain word.
    """

    channel: str
    value: float
    strength: float = 1.0


class Fused(Struct, frozen=True):
    """One score for a decision.

    Attributes:
        score: the chance that the answer was good, from 0 to 1.
        variance: of that verdict.
        weight: how much it tells, from 0 (nothing) to 1 (the truth itself); depends on which
            channels spoke, never on what they said, so that praise and blame weigh alike.
    """

    score: float
    variance: float
    weight: float


def fuse(
    votes: Sequence[Vote], expected: float, channels: Mapping[str, Channel] = CHANNELS
) -> Fused:
    """Return what `votes` say together, seen from what was expected of the arm beforehand.

    Channels are taken to err independently. The score leans towards `expected` as far as the
    channels are weak; whose expectation is right therefore keeps it, whatever the channel. Votes of
    unknown channels are not heard.
    """
    prior = min(max(expected, 0.01), 0.99)
    odds = math.log(prior / (1 - prior))
    untold = 1.0
    for vote in votes:
        channel = channels.get(vote.channel)
        if channel is None:
            continue
        odds += vote.strength * _evidence(vote.value, channel.hit, channel.slip)
        untold *= 1 - vote.strength * telling(channel)
    score = 1 / (1 + math.exp(-odds))
    return Fused(score, score * (1 - score), 1 - untold)


def telling(channel: Channel) -> float:
    """Return the squared correlation of a channel with the truth when both verdicts are as likely.

    0 for a channel that says the same of good and bad answers, 1 for one that is never wrong.
    """
    called = (channel.hit + channel.slip) / 2
    return (channel.hit - channel.slip) ** 2 / (4 * called * (1 - called))


def calibrate(
    ballots: Matrix,
    expected: Vector,
    names: Sequence[str],
    channels: Mapping[str, Channel] = CHANNELS,
    *,
    rounds: int = 200,
) -> dict[str, Channel]:
    """Return the channels with what they reveal about each other added to their counts.

    Args:
        ballots: (N, C), what each channel said of each decision, 0 to 1; NaN where it was silent.
        expected: (N,), what was expected of each decision's arm before.
        names: the C channels, all in `channels`.
        channels: what is believed so far; its counts are kept and added to.
        rounds: of expectation and maximisation, at most.
    """
    several = np.isfinite(ballots).sum(axis=1) > 1
    ballots, expected = ballots[several], np.clip(expected[several], 0.01, 0.99)
    known = [channels[name] for name in names]
    if not len(ballots):
        return dict(zip(names, known, strict=True))
    spoke = np.isfinite(ballots)
    called = np.where(spoke, ballots, 0.0)
    blamed = np.where(spoke, 1 - ballots, 0.0)
    before, shift, good = known, 0.0, expected
    for _ in range(rounds):
        odds = np.log(expected / (1 - expected)) + shift
        leaning = called @ _logs(before, 0) + blamed @ _logs(before, 1)
        good = 1 / (1 + np.exp(-(odds + leaning)))
        # What was expected may be off for everybody alike; the channels then outvote it.
        shift += _logit(float(good.mean())) - _logit(float((1 / (1 + np.exp(-odds))).mean()))
        after = [
            _added(channel, good, called[:, at], blamed[:, at]) for at, channel in enumerate(known)
        ]
        moved = max(
            abs(new.hit - old.hit) + abs(new.slip - old.slip)
            for new, old in zip(after, before, strict=True)
        )
        before = after
        if moved < 1e-6:
            break
    return dict(zip(names, before, strict=True))


def _evidence(value: float, hit: float, slip: float) -> float:
    return value * math.log(hit / slip) + (1 - value) * math.log((1 - hit) / (1 - slip))


def _logs(channels: Sequence[Channel], side: int) -> Vector:
    """Return each channel's log odds for a good answer when it praises (0) or blames (1)."""
    return np.array([_evidence(1.0 - side, channel.hit, channel.slip) for channel in channels])


def _logit(share: float) -> float:
    return math.log(share / (1 - share))


def _added(channel: Channel, good: Vector, called: Vector, blamed: Vector) -> Channel:
    heard = Channel(
        (channel.good[0] + float(good @ called), channel.good[1] + float(good @ blamed)),
        (channel.bad[0] + float((1 - good) @ called), channel.bad[1] + float((1 - good) @ blamed)),
    )
    if heard.hit - heard.slip >= LEAST_APART:
        return heard
    # Turned around, the labels "good" and "bad" would have changed places: no channel may do that.
    middle, weight = (heard.hit + heard.slip) / 2, LEAST_APART / 2
    hit, slip = min(middle + weight, 1 - 1e-6), max(middle - weight, 1e-6)
    worth = sum(heard.good), sum(heard.bad)
    return Channel(
        (hit * worth[0], (1 - hit) * worth[0]), (slip * worth[1], (1 - slip) * worth[1])
    )
