"""Votes of channels: combined by measured accuracies, which no channel exceeds."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sophia.learning.feedback.sources import (
    PRIOR_CHANNELS,
    ChannelAccuracy,
    ChannelVote,
    compute_squared_correlation,
    estimate_quality_from_vote,
    fit_dawid_skene,
)

TRUE = {"score": (0.92, 0.15), "thumb": (0.80, 0.40), "judge": (0.70, 0.10), "retry": (0.97, 0.85)}
votes = st.builds(
    ChannelVote, st.sampled_from(sorted(PRIOR_CHANNELS)), st.floats(0, 1), st.floats(0, 1)
)


def sampled_scores(seed: int, count: int = 4000) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores of four channels that err independently, the truth, and the expected quality."""
    rng = np.random.default_rng(seed)
    expected = rng.choice([0.5, 0.7, 0.85], size=count)
    good = rng.random(count) < expected
    scores = np.stack(
        [
            np.where(good, rng.random(count) < hit, rng.random(count) < slip).astype(float)
            for hit, slip in TRUE.values()
        ],
        axis=1,
    )
    scores[rng.random(scores.shape) < 0.4] = np.nan
    several = np.isfinite(scores).sum(axis=1) > 1
    return scores[several], good[several], expected[several]


def test_rates_are_recovered_where_channels_overlap() -> None:
    """The truth is never seen; the agreement of the channels shows it."""
    scores, _, expected = sampled_scores(1, 12000)
    learned = fit_dawid_skene(scores, expected, list(TRUE))
    for name, (hit, slip) in TRUE.items():
        assert learned[name].true_positive_rate == pytest.approx(hit, abs=0.05), name
        assert learned[name].false_positive_rate == pytest.approx(slip, abs=0.07), name
    assert abs(PRIOR_CHANNELS["thumb"].false_positive_rate - 0.40) > 0.15


def test_expected_qualities_may_all_be_off() -> None:
    """Channels outvote an expectation that is too low for all."""
    scores, _, expected = sampled_scores(1, 12000)
    learned = fit_dawid_skene(scores, expected - 0.2, list(TRUE))
    assert learned["score"].true_positive_rate == pytest.approx(0.92, abs=0.06)
    assert learned["judge"].false_positive_rate == pytest.approx(0.10, abs=0.09)


def test_the_expected_quality_of_each_arm_helps_where_channels_are_weak() -> None:
    """Two channels alone do not show which one errs; a good and a bad arm do."""
    rng = np.random.default_rng(7)
    expected = rng.choice([0.05, 0.95], size=6000)
    good = rng.random(6000) < expected
    scores = np.stack(
        [np.where(good, rng.random(6000) < 0.6, rng.random(6000) < slip) for slip in (0.2, 0.4)],
        axis=1,
    ).astype(float)
    learned = fit_dawid_skene(scores, expected, ["thumb", "judge"])
    assert learned["thumb"].true_positive_rate == pytest.approx(0.6, abs=0.03)
    assert learned["thumb"].false_positive_rate == pytest.approx(0.2, abs=0.03)
    assert learned["judge"].false_positive_rate == pytest.approx(0.4, abs=0.03)


def test_learned_rates_predict_the_truth_better() -> None:
    scores, good, expected = sampled_scores(2)
    learned = fit_dawid_skene(*(sampled_scores(3)[at] for at in (0, 2)), list(TRUE))
    losses = [
        np.mean(
            [
                (combined(row, e, channels) - g) ** 2
                for row, e, g in zip(scores, expected, good, strict=True)
            ]
        )
        for channels in (PRIOR_CHANNELS, learned)
    ]
    assert losses[1] < losses[0] - 0.002
    # Calibrated: of the answers that are good with 80 to 90 %, so many are.
    predicted = np.array(
        [combined(row, e, learned) for row, e in zip(scores, expected, strict=True)]
    )
    sure = (predicted > 0.8) & (predicted < 0.9)
    assert good[sure].mean() == pytest.approx(predicted[sure].mean(), abs=0.04)


def combined(row: np.ndarray, expected: float, channels: dict[str, ChannelAccuracy]) -> float:
    """Return the score after all votes of a decision, one upon the other."""
    for name, value in zip(TRUE, row, strict=True):
        if np.isfinite(value):
            expected, _ = estimate_quality_from_vote(
                ChannelVote(name, value), expected, channels[name]
            )
    return expected


def test_scores_keep_a_right_expectation() -> None:
    """With the right expectation the mean of the scores is the truth, however weak the channel."""
    scores, good, expected = sampled_scores(4, 8000)
    channels = {
        name: ChannelAccuracy((h * 100, (1 - h) * 100), (s * 100, (1 - s) * 100))
        for name, (h, s) in TRUE.items()
    }
    predicted = [combined(row, e, channels) for row, e in zip(scores, expected, strict=True)]
    assert np.mean(predicted) == pytest.approx(good.mean(), abs=0.01)


def scored(vote: ChannelVote, expected: float) -> tuple[float, float]:
    return estimate_quality_from_vote(vote, expected, PRIOR_CHANNELS[vote.channel])


@given(votes, st.floats(0, 1))
def test_score_and_weight_stay_within_their_ranges(vote: ChannelVote, expected: float) -> None:
    score, weight = scored(vote, expected)
    assert 0 <= score <= 1
    assert 0 <= weight <= 1


@given(votes, st.floats(0, 1), st.floats(0, 1))
def test_the_weight_never_depends_on_the_rating(
    vote: ChannelVote, value: float, expected: float
) -> None:
    """Praise that weighs more than blame would lift every arm."""
    other = ChannelVote(vote.channel, value, vote.strength)
    assert scored(vote, expected)[1] == scored(other, expected)[1]


@given(
    st.sampled_from(sorted(PRIOR_CHANNELS)), st.floats(0.05, 0.95), st.floats(0, 1), st.floats(0, 1)
)
def test_a_better_vote_gives_a_better_score(
    channel: str, expected: float, one: float, other: float
) -> None:
    low, high = sorted([one, other])
    scores = [scored(ChannelVote(channel, value), expected)[0] for value in (low, high)]
    assert scores[0] <= scores[1]
    assert scored(ChannelVote(channel, 0), expected)[0] < expected
    assert scored(ChannelVote(channel, 1), expected)[0] > expected


def test_a_vote_without_strength_leaves_the_expectation_with_no_weight() -> None:
    assert scored(ChannelVote("test", 0.0, 0.0), 0.8) == (pytest.approx(0.8), 0.0)


def test_channels_differ_in_information() -> None:
    worth = {name: compute_squared_correlation(channel) for name, channel in PRIOR_CHANNELS.items()}
    assert worth["test"] > worth["score"] > worth["judge"] > worth["completed"]
    assert compute_squared_correlation(
        ChannelAccuracy((1.0, 1e-12), (1e-12, 1.0))
    ) == pytest.approx(1)
    assert compute_squared_correlation(ChannelAccuracy((3.0, 7.0), (3.0, 7.0))) == 0
    assert compute_squared_correlation(ChannelAccuracy((0.8, 0.2), (0.4, 0.6))) == pytest.approx(
        0.1667, abs=1e-4
    )


def test_a_channel_cannot_turn_around() -> None:
    """One that contradicts all others ends up without information, it does not redefine good."""
    scores, _, expected = sampled_scores(5)
    scores[:, 1] = 1 - scores[:, 0]
    learned = fit_dawid_skene(scores, expected, list(TRUE))
    assert all(
        learned[name].true_positive_rate > learned[name].false_positive_rate for name in TRUE
    )
    assert compute_squared_correlation(learned["thumb"]) < 0.01
    assert compute_squared_correlation(learned["judge"]) > 0.2
