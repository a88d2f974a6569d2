"""Rollout: a worse policy is retired, one that is as good is settled, at any look."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sophia.learning.rollout import (
    Rollout,
    ScoreTally,
    anytime_interval,
    compute_learned_share,
    record_rollout_score,
)


def scored(rollout: Rollout, learned: list[float], priors: list[float]) -> Rollout:
    for n, (ours, theirs) in enumerate(zip(learned, priors, strict=True)):
        rollout = record_rollout_score(rollout, "learned", ours, n)
        rollout = record_rollout_score(rollout, "priors", theirs, n)
    return rollout


def test_a_policy_that_is_as_good_is_settled() -> None:
    """It serves all but the holdback first, then everything; the evidence is kept."""
    rollout = Rollout()
    assert compute_learned_share(rollout) == 0.95
    rollout = scored(rollout, [0.8] * 5000, [0.8] * 5000)
    assert (rollout.stage, compute_learned_share(rollout)) == ("settled", 1.0)
    (step,) = rollout.history
    assert (step.before, step.after) == ("champion", "settled")
    assert step.evidence.learned.count == 5000


@pytest.mark.parametrize(("gap", "most"), [(0.5, 120), (0.2, 900), (0.1, 3800)])
def test_a_policy_that_is_worse_is_retired(gap: float, most: int) -> None:
    """After no more scores than the intervals need to part, for every way in which scores vary."""
    draws = np.random.default_rng(3)
    learned = (draws.random(most) < 0.8 - gap).astype(float).tolist()
    priors = (draws.random(most) < 0.8).astype(float).tolist()
    rollout = scored(Rollout(), learned, priors)
    assert (rollout.stage, compute_learned_share(rollout)) == ("retired", 0.0)
    assert rollout.history[-1].reason == "worse than the priors"


def test_a_settled_or_retired_policy_is_no_longer_scored() -> None:
    retired = scored(Rollout(), [0.0] * 200, [1.0] * 200)
    assert retired.stage == "retired"
    assert record_rollout_score(retired, "learned", 1.0, 0) is retired


def test_a_policy_without_a_difference_is_hardly_ever_retired() -> None:
    """At most `alpha` of them, however often one looks."""
    retired = 0
    for seed in range(60):
        draws = np.random.default_rng(seed)
        scores = (draws.random((2, 400)) < 0.7).astype(float)
        rollout = scored(Rollout(), scores[0].tolist(), scores[1].tolist())
        retired += rollout.stage == "retired"
    assert retired <= 3


@given(st.lists(st.floats(0, 1), max_size=60))
def test_an_interval_holds_its_mean_and_stays_within_the_range(scores: list[float]) -> None:
    interval = anytime_interval(ScoreTally(len(scores), sum(scores)))
    assert 0.0 <= interval.low <= interval.mean <= interval.high <= 1.0
    assert interval.count == len(scores)


def test_intervals_narrow_with_scores() -> None:
    few, many = anytime_interval(ScoreTally(100, 50.0)), anytime_interval(ScoreTally(1000, 500.0))
    assert 0.0 < few.low < many.low < 0.5 < many.high < few.high < 1.0
    none = anytime_interval(ScoreTally())
    assert (none.low, none.mean, none.high) == (0.0, 0.5, 1.0)
