"""Reliability of channels and judges follows from their agreement; no key decides it for others."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sophia.core.rows import Feedback
from sophia.learning.feedback.reliability import (
    MIN_DECISIONS,
    MultiChannelRatings,
    estimate_reliability,
)
from sophia.learning.feedback.source_reliability import (
    PRIOR_RELIABILITY,
    SourceReliability,
    build_vote,
)
from sophia.learning.feedback.sources import (
    PRIOR_CHANNELS,
    ChannelVote,
    compute_squared_correlation,
)

GPT, NOVA, MINI = "openai/gpt-5", "amazon/nova-lite-v1", "openai/gpt-4o-mini"
RATES = {"score": (0.95, 0.10), "thumb": (0.60, 0.50), "judge": (0.90, 0.10)}


def sampled_ratings(
    key: str, seed: int, count: int = 1500, lies: bool = False
) -> list[MultiChannelRatings]:
    """Decisions whose thumbs are nearly noise; a liar's scores are inverted."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(count):
        good = rng.random() < 0.7
        scores = {
            name: float(rng.random() < (hit if good else slip))
            for name, (hit, slip) in RATES.items()
            if rng.random() < 0.7
        }
        if lies:
            scores = {
                name: 1.0 - value if name == "score" else value for name, value in scores.items()
            }
        if len(scores) > 1:
            rows.append(
                MultiChannelRatings(
                    key_id=key,
                    model=MINI,
                    expected_quality=0.7,
                    scores=scores,
                    judge_model=NOVA if "judge" in scores else "",
                )
            )
    return rows


def test_each_key_learns_what_its_own_channels_are_worth() -> None:
    """A key whose thumbs are noise has them count for little; another key's count as before."""
    reliability = estimate_reliability(sampled_ratings("noisy", 1), shared=False)
    assert reliability.keys() == {"noisy"}
    thumb = reliability["noisy"].channels["thumb"]
    assert (thumb.true_positive_rate, thumb.false_positive_rate) == (
        pytest.approx(0.6, abs=0.08),
        pytest.approx(0.5, abs=0.1),
    )
    assert (
        compute_squared_correlation(thumb)
        < 0.1
        < compute_squared_correlation(PRIOR_CHANNELS["thumb"])
    )
    assert compute_squared_correlation(
        reliability["noisy"].channels["judge"]
    ) > compute_squared_correlation(PRIOR_CHANNELS["judge"])
    assert reliability["noisy"].comparisons["thumb"] > 500


def test_too_few_decisions_are_not_estimated_from() -> None:
    assert estimate_reliability(sampled_ratings("new", 1)[: MIN_DECISIONS - 1], shared=False) == {}
    assert estimate_reliability(sampled_ratings("new", 1)[: MIN_DECISIONS - 1], shared=True) == {}


def test_no_single_key_decides_the_reliability_for_a_team() -> None:
    """However much feedback it sends, the seats of the prior cut it off."""
    (team,) = estimate_reliability(sampled_ratings("loud", 1, 6000), shared=True).values()
    for name, channel in team.channels.items():
        assert channel.true_positive_rate == pytest.approx(PRIOR_CHANNELS[name].true_positive_rate)
        assert channel.false_positive_rate == pytest.approx(
            PRIOR_CHANNELS[name].false_positive_rate
        )


def test_many_keys_that_agree_are_followed() -> None:
    ratings = [row for key in range(12) for row in sampled_ratings(f"key {key}", key, 300)]
    thumb = estimate_reliability(ratings, shared=True)[""].channels["thumb"]
    assert thumb.true_positive_rate < PRIOR_CHANNELS["thumb"].true_positive_rate - 0.1
    assert thumb.false_positive_rate > PRIOR_CHANNELS["thumb"].false_positive_rate + 0.1


def test_a_liar_among_keys_does_not_turn_a_channel_around() -> None:
    honest = [row for key in range(7) for row in sampled_ratings(f"key {key}", key, 300)]
    before = estimate_reliability(honest, shared=True)[""].channels["score"]
    after = estimate_reliability(
        [*honest, *sampled_ratings("liar", 99, 5000, lies=True)], shared=True
    )[""]
    score = after.channels["score"]
    assert (
        abs(score.true_positive_rate - before.true_positive_rate) < 0.03
        and abs(score.false_positive_rate - before.false_positive_rate) < 0.03
    )
    assert compute_squared_correlation(score) > 0.4


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.floats(0, 1), st.floats(0, 1))
def test_whatever_one_key_sends_good_and_bad_keep_their_meaning(
    seed: int, hit: float, slip: float
) -> None:
    rng = np.random.default_rng(seed)
    ratings = [
        MultiChannelRatings(
            key_id="one",
            model=MINI,
            expected_quality=0.7,
            scores={"score": float(rng.random() < hit), "test": float(rng.random() < slip)},
        )
        for _ in range(60)
    ]
    alone, team = (
        estimate_reliability(ratings, shared=False)["one"],
        estimate_reliability(ratings, shared=True)[""],
    )
    for reliability in (alone, team):
        assert all(
            channel.true_positive_rate > channel.false_positive_rate
            for channel in reliability.channels.values()
        )


def verdict(label: str | None, score: float = 0.9, channel: str = "judge") -> Feedback:
    return Feedback(
        idempotency_key="k",
        decision_id=16,
        key_id="key",
        score=score,
        label=label,
        comment_chars=0,
        preferred_model=None,
        channel=channel,
        at_ms=1,
    )


def biased_ratings(key: str) -> list[MultiChannelRatings]:
    """A judge that scores its own family 0.2 too high, and other families right."""
    rng = np.random.default_rng(4)
    rows = []
    for at in range(400):
        model = MINI if at % 2 else NOVA
        score = float(np.clip(rng.normal(0.6, 0.1), 0, 1))
        judged = min(score + (0.2 if model == MINI else 0.0), 1.0)
        rows.append(
            MultiChannelRatings(
                key_id=key,
                model=model,
                expected_quality=0.6,
                scores={"score": score, "judge": judged},
                judge_model=GPT,
            )
        )
    return rows


def test_a_score_within_the_family_counts_once_the_bias_is_measured() -> None:
    assert build_vote(verdict(GPT), MINI, PRIOR_RELIABILITY) is None
    assert build_vote(verdict(GPT), NOVA, PRIOR_RELIABILITY) == ChannelVote("judge", 0.9)
    reliability = estimate_reliability(biased_ratings("key"), shared=False)["key"]
    vote = build_vote(verdict(GPT), MINI, reliability)
    assert vote is not None
    assert vote.value == pytest.approx(0.72, abs=0.04) and 0.4 < vote.strength <= 0.5


def test_where_keys_learn_together_no_bias_is_measured() -> None:
    assert estimate_reliability(biased_ratings("key"), shared=True)[""].judge_biases == ()


@pytest.mark.parametrize("label", [None, "", "rubric", "good"])
def test_a_judge_without_a_family_counts_in_full(label: str | None) -> None:
    assert build_vote(verdict(label), MINI, PRIOR_RELIABILITY) == ChannelVote("judge", 0.9)
    assert build_vote(verdict(GPT, channel="score"), MINI, PRIOR_RELIABILITY) == ChannelVote(
        "score", 0.9
    )


def test_unknown_channels_keep_their_priors() -> None:
    assert PRIOR_RELIABILITY.all_channels() == PRIOR_CHANNELS
    reliability = estimate_reliability(sampled_ratings("k", 1), shared=False)["k"]
    assert SourceReliability(reliability.channels).all_channels()["test"] == PRIOR_CHANNELS["test"]
