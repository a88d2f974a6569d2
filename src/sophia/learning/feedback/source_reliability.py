"""Learned reliability of channels and judges, and the vote that feedback is worth by it."""

from collections.abc import Mapping

from msgspec import Struct

from sophia.core.rows import Feedback
from sophia.learning.feedback.judge_bias import BiasEstimate, correct_score
from sophia.learning.feedback.sources import (
    JUDGE_CHANNEL,
    PRIOR_CHANNELS,
    ChannelAccuracy,
    ChannelVote,
)

BiasByJudge = Mapping[tuple[str, str], BiasEstimate]
"""Bias by judge and model family."""


class JudgeBias(Struct, frozen=True, rename={"estimate": "favour"}):
    """Bias of a judge for a model family."""

    judge: str
    family: str
    estimate: BiasEstimate


class SourceReliability(
    Struct, frozen=True, rename={"judge_biases": "favours", "comparisons": "compared"}
):
    """Reliability learned from decisions that several channels rated.

    The prior accuracy holds for channels that are missing. `comparisons` counts by channel the
    decisions that another channel rated as well.
    """

    channels: dict[str, ChannelAccuracy] = {}
    judge_biases: tuple[JudgeBias, ...] = ()
    comparisons: dict[str, int] = {}

    def all_channels(self) -> dict[str, ChannelAccuracy]:
        """Return the accuracy of every channel, learned or prior."""
        return {**PRIOR_CHANNELS, **self.channels}

    def bias_by_judge(self) -> BiasByJudge:
        """Return the measured biases by judge and family."""
        return {(bias.judge, bias.family): bias.estimate for bias in self.judge_biases}


PRIOR_RELIABILITY = SourceReliability()


def build_vote(
    feedback: Feedback, model: str, reliability: SourceReliability
) -> ChannelVote | None:
    """Return the vote of feedback on an answer of `model`, or None when it does not count.

    The label of a judge's feedback names the judge. Its score for its own family is corrected by
    its measured bias, and does not count without one.
    """
    score = feedback.score or 0.0
    if feedback.channel != JUDGE_CHANNEL or not feedback.label:
        return ChannelVote(feedback.channel, score)
    return correct_score(score, feedback.label, model, reliability.bias_by_judge())
