"""Decisions of the ledger that several channels rated."""

from collections.abc import Sequence
from itertools import groupby

from sophia.core.ports import LedgerStore, Store
from sophia.core.rows import CHECK_FAILED_PREFIX, Feedback, find_served_outcome
from sophia.learning.feedback.reliability import MultiChannelRatings
from sophia.learning.feedback.sources import JUDGE_CHANNEL, PRIOR_CHANNELS
from sophia.routing.types import decode_plan

MAX_DECISIONS = 5000


async def read_multi_channel_ratings(store: Store, since_ms: int) -> list[MultiChannelRatings]:
    """Return the latest decisions since a moment that several channels rated, 5,000 at most.

    Left out are decisions where a cascade rejected the first answer, since the channels may have
    rated different answers.
    """
    rows = await store.multi_channel_feedback(since_ms, MAX_DECISIONS)
    ratings = [
        await _build_joint_ratings(store, decision_id, list(feedback))
        for decision_id, feedback in groupby(rows, lambda row: row.decision_id)
    ]
    return [rating for rating in ratings if rating is not None]


async def _build_joint_ratings(
    store: LedgerStore, decision_id: int, feedback: Sequence[Feedback]
) -> MultiChannelRatings | None:
    decision = await store.decision(decision_id)
    outcomes = await store.attempts(decision_id)
    served = find_served_outcome(outcomes)
    if decision is None or not decision.plan or served is None:
        return None
    if any((outcome.failure or "").startswith(CHECK_FAILED_PREFIX) for outcome in outcomes):
        return None
    scores: dict[str, float] = {}
    judge = ""
    for row in feedback:
        # The first score of a channel counts.
        if row.channel in PRIOR_CHANNELS and row.channel not in scores and row.score is not None:
            scores[row.channel] = row.score
            judge = row.label or "" if row.channel == JUDGE_CHANNEL else judge
    if len(scores) < 2:
        return None
    candidates = decode_plan(decision.plan).candidates
    expected = (row.quality for row in candidates if row.model == served.model)
    return MultiChannelRatings(
        key_id=decision.key_id,
        model=served.model,
        expected_quality=next(expected, 0.5),
        scores=scores,
        judge_model=judge,
    )
