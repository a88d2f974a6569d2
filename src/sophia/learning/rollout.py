"""Rollout of what was learned beside the priors: it serves, is compared, and may be retired.

    champion ── enough scores, never worse ──► settled
        └────── shown to be worse ───────────► retired

While it is champion, a share of the traffic stays with the priors. The intervals of both mean
scores hold at every look, so that frequent looks retire no policy by chance: Robbins' normal
mixture for scores from 0 to 1 (H. Robbins, "Statistical methods related to the law of the iterated
logarithm", 1970).
"""

import math
from typing import Literal

from msgspec import Struct, field
from msgspec.structs import replace

RolloutStage = Literal["champion", "settled", "retired"]
RolloutSide = Literal["learned", "priors"]

ALPHA = 0.05
"""Upper bound on the probability that a policy which is no worse is ever retired."""
HOLDBACK_SHARE = 0.05  # of the traffic, which the priors keep until the policy is settled
MAX_SCORES = 5000  # of the learned policy, after which it is settled

# A quarter each was tuned for two intervals in two stages; kept, so that old rollouts replay.
_INTERVAL_ALPHA = ALPHA / 4
_MIXTURE_VARIANCE = 10.0  # makes the interval narrowest at about four hundred scores


class ScoreTally(Struct, frozen=True):
    """Number of scores and their sum."""

    count: int = 0
    total: float = 0.0


class AnytimeInterval(Struct, frozen=True):
    """Interval of the expected score after `count` scores with mean `mean`."""

    count: int
    mean: float
    low: float
    high: float


class RolloutIntervals(Struct, frozen=True, tag="Standing"):
    """Anytime-valid intervals of both mean scores."""

    learned: AnytimeInterval = field(name="challenger")
    priors: AnytimeInterval = field(name="incumbent")


class RolloutStageChange(Struct, frozen=True, kw_only=True):
    """One change of stage and the evidence for it."""

    at_ms: int
    before: RolloutStage
    after: RolloutStage
    reason: str
    evidence: RolloutIntervals


class Rollout(Struct, frozen=True, kw_only=True):
    """State of the comparison; `retirements` counts how often the policy was retired before."""

    stage: RolloutStage = "champion"
    retirements: int = field(default=0, name="defeats")
    learned_scores: ScoreTally = field(default=ScoreTally(), name="ours")
    prior_scores: ScoreTally = field(default=ScoreTally(), name="theirs")
    history: tuple[RolloutStageChange, ...] = ()


def compute_learned_share(rollout: Rollout) -> float:
    """Return the share of traffic that the learned policy serves."""
    return {"champion": 1 - HOLDBACK_SHARE, "settled": 1.0}.get(rollout.stage, 0.0)


def record_rollout_score(rollout: Rollout, side: RolloutSide, score: float, at_ms: int) -> Rollout:
    """Return the rollout after one score, from 0 to 1, of a request with a random policy."""
    if rollout.stage != "champion":
        return rollout
    if side == "learned":
        rollout = replace(rollout, learned_scores=_add_score(rollout.learned_scores, score))
    else:
        rollout = replace(rollout, prior_scores=_add_score(rollout.prior_scores, score))
    intervals = RolloutIntervals(
        anytime_interval(rollout.learned_scores), anytime_interval(rollout.prior_scores)
    )
    after: RolloutStage
    if intervals.learned.high < intervals.priors.low:
        after, reason = "retired", "worse than the priors"
    elif side == "learned" and rollout.learned_scores.count >= MAX_SCORES:
        after, reason = "settled", "as good as promised"
    else:
        return rollout
    step = RolloutStageChange(
        at_ms=at_ms, before=rollout.stage, after=after, reason=reason, evidence=intervals
    )
    return replace(rollout, stage=after, history=(*rollout.history, step))


def anytime_interval(tally: ScoreTally) -> AnytimeInterval:
    """Return the interval of the expected score; it is [0, 1] around 0.5 before the first score.

    The probability that it ever excludes the expected score, at any of infinitely many looks, is at
    most a quarter of `ALPHA`.
    """
    if not tally.count:
        return AnytimeInterval(0, 0.5, 0.0, 1.0)
    # A score between 0 and 1 varies by a quarter at the most.
    spread = tally.count / 4 + _MIXTURE_VARIANCE
    half = (
        math.sqrt(spread * (math.log(spread / _MIXTURE_VARIANCE) - 2 * math.log(_INTERVAL_ALPHA)))
        / tally.count
    )
    mean = tally.total / tally.count
    return AnytimeInterval(tally.count, mean, max(0.0, mean - half), min(1.0, mean + half))


def _add_score(tally: ScoreTally, score: float) -> ScoreTally:
    return ScoreTally(tally.count + 1, tally.total + score)
