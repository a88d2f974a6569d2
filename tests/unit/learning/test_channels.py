"""Fusing channels: what each tells is measured, and none says more than it knows."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sophia.learning.channels import CHANNELS, Channel, Vote, calibrate, fuse, telling

TRUE = {
    "score": (0.92, 0.15),
    "thumb": (0.80, 0.40),
    "judge": (0.70, 0.10),
    "retry": (0.97, 0.85),
}
votes = st.lists(
    st.builds(
        Vote, st.sampled_from(sorted(CHANNELS)), st.floats(0, 1), st.floats(0, 1)
    ),
    max_size=6,
)


def told(seed: int, count: int = 4000) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ballots of four channels that err independently, the truth, and what was expected."""
    rng = np.random.default_rng(seed)
    expected = rng.choice([0.5, 0.7, 0.85], size=count)
    good = rng.random(count) < expected
    ballots = np.stack(
        [
            np.where(good, rng.random(count) < hit, rng.random(count) < slip).astype(float)
            for hit, slip in TRUE.values()
        ],
        axis=1,
    )
    ballots[rng.random(ballots.shape) < 0.4] = np.nan
    return ballots, good, expected


def test_rates_are_recovered_where_channels_overlap() -> None:
    """Nobody ever sees the truth; the channels' agreement gives it away."""
    ballots, _, expected = told(1, 12000)
    learned = calibrate(ballots, expected, list(TRUE))
    for name, (hit, slip) in TRUE.items():
        assert learned[name].hit == pytest.approx(hit, abs=0.05), name
        assert learned[name].slip == pytest.approx(slip, abs=0.07), name
    assert abs(CHANNELS["thumb"].slip - 0.40) > 0.15


def test_what_is_expected_of_everybody_may_be_off() -> None:
    """Channels outvote an expectation that is too low for all."""
    ballots, _, expected = told(1, 12000)
    learned = calibrate(ballots, expected - 0.2, list(TRUE))
    assert learned["score"].hit == pytest.approx(0.92, abs=0.06)
    assert learned["judge"].slip == pytest.approx(0.10, abs=0.09)


def test_what_is_expected_of_each_arm_helps_where_channels_are_weak() -> None:
    """Two channels alone cannot tell who errs; that one arm is good and another bad can."""
    rng = np.random.default_rng(7)
    expected = rng.choice([0.05, 0.95], size=6000)
    good = rng.random(6000) < expected
    ballots = np.stack(
        [np.where(good, rng.random(6000) < 0.6, rng.random(6000) < slip) for slip in (0.2, 0.4)],
        axis=1,
    ).astype(float)
    learned = calibrate(ballots, expected, ["thumb", "judge"])
    assert learned["thumb"].hit == pytest.approx(0.6, abs=0.03)
    assert learned["thumb"].slip == pytest.approx(0.2, abs=0.03)
    assert learned["judge"].slip == pytest.approx(0.4, abs=0.03)


def test_learned_rates_foretell_the_truth_better() -> None:
    ballots, good, expected = told(2)
    learned = calibrate(*(told(3)[at] for at in (0, 2)), list(TRUE))
    losses = [
        np.mean([(fused(row, e, known) - g) ** 2 for row, e, g in zip(ballots, expected, good, strict=True)])
        for known in (CHANNELS, learned)
    ]
    assert losses[1] < losses[0] - 0.002
    # Calibrated: among those said to be good with 80 to 90 %, so many are.
    said = np.array([fused(row, e, learned) for row, e in zip(ballots, expected, strict=True)])
    sure = (said > 0.8) & (said < 0.9)
    assert good[sure].mean() == pytest.approx(said[sure].mean(), abs=0.04)


def fused(row: np.ndarray, expected: float, known: dict[str, Channel]) -> float:
    cast = [Vote(name, v) for name, v in zip(TRUE, row, strict=True) if np.isfinite(v)]
    return fuse(cast, expected, known).score


def test_scores_keep_the_right_expectation() -> None:
    """With the right expectation the mean of the scores is the truth, however weak the channel."""
    ballots, good, expected = told(4, 8000)
    known = {name: Channel((h * 100, (1 - h) * 100), (s * 100, (1 - s) * 100)) for name, (h, s) in TRUE.items()}
    said = [fused(row, e, known) for row, e in zip(ballots, expected, strict=True)]
    assert np.mean(said) == pytest.approx(good.mean(), abs=0.01)


@given(votes, st.floats(0, 1))
def test_fusing_stays_within_its_ranges(cast: list[Vote], expected: float) -> None:
    one = fuse(cast, expected)
    assert 0 <= one.score <= 1
    assert 0 <= one.weight <= 1
    assert one.variance == pytest.approx(one.score * (1 - one.score))
    assert fuse(list(reversed(cast)), expected).score == pytest.approx(one.score)


@given(votes, st.floats(0, 1), st.floats(0, 1))
def test_the_weight_never_depends_on_what_was_said(
    cast: list[Vote], value: float, expected: float
) -> None:
    """Praise that weighs more than blame would lift everybody."""
    other = [Vote(vote.channel, value, vote.strength) for vote in cast]
    assert fuse(cast, expected).weight == pytest.approx(fuse(other, expected).weight)


@given(st.sampled_from(sorted(CHANNELS)), st.floats(0.05, 0.95), st.floats(0, 1), st.floats(0, 1))
def test_a_better_word_gives_a_better_score(
    channel: str, expected: float, one: float, other: float
) -> None:
    low, high = sorted([one, other])
    scores = [fuse([Vote(channel, value)], expected).score for value in (low, high)]
    assert scores[0] <= scores[1]
    assert fuse([Vote(channel, 0)], expected).score < expected
    assert fuse([Vote(channel, 1)], expected).score > expected


def test_nothing_said_leaves_the_expectation_with_no_weight() -> None:
    assert fuse([], 0.8).score == pytest.approx(0.8)
    assert fuse([], 0.8).weight == 0
    assert fuse([Vote("gossip", 0.0)], 0.8).weight == 0
    assert fuse([Vote("test", 0.0, 0.0)], 0.8).score == pytest.approx(0.8)


def test_channels_tell_what_they_are_worth() -> None:
    worth = {name: telling(channel) for name, channel in CHANNELS.items()}
    assert worth["test"] > worth["score"] > worth["judge"] > worth["completed"]
    assert telling(Channel((1.0, 1e-12), (1e-12, 1.0))) == pytest.approx(1)
    assert telling(Channel((3.0, 7.0), (3.0, 7.0))) == 0
    assert telling(Channel((0.8, 0.2), (0.4, 0.6))) == pytest.approx(0.1667, abs=1e-4)


def test_a_channel_cannot_turn_around() -> None:
    """One that contradicts all others ends up telling nothing, it does not redefine good."""
    ballots, _, expected = told(5)
    ballots[:, 1] = 1 - ballots[:, 0]
    learned = calibrate(ballots, expected, list(TRUE))
    assert all(learned[name].hit > learned[name].slip for name in TRUE)
    assert telling(learned["thumb"]) < 0.01
    assert telling(learned["judge"]) > 0.2


def test_without_overlap_nothing_is_learned() -> None:
    alone = np.full((50, 4), np.nan)
    alone[:, 0] = 1.0
    learned = calibrate(alone, np.full(50, 0.5), list(TRUE))
    assert learned == {name: CHANNELS[name] for name in TRUE}
