"""The few who speak stand for all: right where silence depends on the score, if a few were asked."""

from typing import NamedTuple

import numpy as np
import pytest
from msgspec.structs import replace
from numpy.typing import NDArray

from sophia.learning.channels import Vote, fuse
from sophia.learning.missing import Means, Voices, means, weigh

EXPECTED = 0.7
TRUTH = np.array([0.85, 0.55])
"""The chance of a good answer by arm."""


class Crowd(NamedTuple):
    """Voices, and what really became of the decisions."""

    voices: Voices
    good: NDArray[np.float64]


def crowd(
    seed: int, share: float, judge: tuple[float, float] = (0.8, 0.3), count: int = 12000
) -> Crowd:
    """A population whose unhappy users speak up thrice as often as the others.

    A share of it, by lot, is judged by somebody who calls good answers good at the one rate, bad
    ones at the other; as it is learned from, that is a chance that the answer was good.
    """
    rng = np.random.default_rng(seed)
    arms = rng.integers(2, size=count)
    contexts = np.eye(3)[rng.integers(3, size=count)]
    good = rng.random(count) < TRUTH[arms]
    volunteered = rng.random(count) < np.where(good, 0.1, 0.3)
    asked = rng.random(count) < share
    called = rng.random(count) < np.where(good, *judge)
    told = [fuse([Vote("judge", value)], EXPECTED).score for value in (0.0, 1.0)]
    verdicts = np.where(asked, np.where(called, told[1], told[0]), np.nan)
    scores = np.where(volunteered, good, verdicts)
    return Crowd(
        Voices(contexts, arms, asked, scores, verdicts, volunteered), good.astype(np.float64)
    )


def told(voices: Voices) -> Means:
    found = means(voices)
    assert found is not None
    return found


def test_unhappy_users_who_speak_thrice_as_often_do_not_carry_the_mean() -> None:
    """The plain mean is far too low, the weighted one and that of the asked are right."""
    plain, weighted, asked = [], [], []
    for seed in range(8):
        one = crowd(seed, share=0.15)
        found, truth = told(one.voices), one.good.mean()
        assert found.by == "score" and found.asked is not None
        plain.append(found.plain.value - truth)
        weighted.append(found.weighted.value - truth)
        asked.append(found.asked.value - truth)
    assert np.mean(plain) < -0.08
    assert abs(np.mean(weighted)) < 0.02 and np.abs(weighted).max() < 0.05
    assert abs(np.mean(asked)) < 0.02


def test_the_arms_are_told_apart_as_they_are() -> None:
    one = crowd(3, share=0.2)
    weights = weigh(one.voices).weights
    for arm in (0, 1):
        of_arm = one.voices.spoke & (one.voices.arms == arm)
        scores = one.voices.scores[of_arm]
        weighed = np.average(scores, weights=weights[of_arm])
        assert abs(weighed - TRUTH[arm]) < 0.6 * abs(scores.mean() - TRUTH[arm])


def test_without_anybody_asked_what_depends_on_the_score_stays() -> None:
    """It is said by what the weights are told, so that nobody takes them for more."""
    found = told(crowd(0, share=0.0).voices)
    assert found.by == "request" and found.asked is None
    assert found.weighted.value < crowd(0, share=0.0).good.mean() - 0.05


def test_a_word_on_everything_is_taken_as_it_is() -> None:
    one = crowd(1, share=0.1)
    found = told(replace(one.voices, scores=one.good))
    assert found.by == "nothing"
    assert found.weighted == found.plain
    assert found.plain.value == pytest.approx(one.good.mean())


def test_few_or_unanswered_questions_are_told_nothing_from() -> None:
    one = crowd(2, share=0.5)
    silent = np.where(np.arange(len(one.good)) % 2 > 0, one.voices.verdicts, np.nan)
    scores = np.where(one.voices.volunteered, one.good, silent)
    half = told(replace(one.voices, scores=scores, verdicts=silent))
    assert half.asked is None
    few = crowd(2, share=0.004)
    assert told(few.voices).asked is None and told(few.voices).by == "request"


def test_nobody_says_nothing() -> None:
    one = crowd(0, share=0.0)
    assert means(replace(one.voices, scores=np.full(len(one.good), np.nan))) is None


def test_the_standard_error_covers_the_truth_as_often_as_it_should() -> None:
    held = 0
    for seed in range(40):
        one = crowd(100 + seed, share=0.15, count=6000)
        asked = told(one.voices).asked
        assert asked is not None
        held += abs(asked.value - TRUTH.mean()) < 2.5 * asked.se
    assert held >= 36
