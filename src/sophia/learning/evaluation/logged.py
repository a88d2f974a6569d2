"""Decisions of learned policies in the ledger, with their feedback."""

from collections.abc import AsyncIterator

import numpy as np
from msgspec import Struct

from sophia.core.ids import extract_timestamp_ms
from sophia.core.ports import FeedbackStore, Store
from sophia.core.rows import AttemptIntent, LessonRow
from sophia.learning.feedback.sources import IMPLICIT_CHANNELS, JUDGE_CHANNEL
from sophia.routing.bandit.arms import format_arm
from sophia.routing.bandit.choose import ChoiceSet
from sophia.routing.bandit.policy import ArmRatings, PolicyContext, Vector
from sophia.routing.explain.trace import build_choice_set, unpack_context
from sophia.routing.types import Exploration, Features, UtilityWeights, decode_plan

PAGE_SIZE = 1000
MAX_DECISIONS = 200_000


class LoggedFeedback(Struct, frozen=True):
    """Explicit feedback on a decision: weighted mean score, from 0 to 1, and total weight.

    `arm` is the one that answered, which is not the chosen one after a failover.
    """

    score: float
    weight: float
    arm: str
    judge_score: float | None = None


class LoggedDecision(Struct, frozen=True, kw_only=True):
    """One decision of a learned policy among A arms.

    Attributes:
        options: ratings and costs, in nano-dollars, of the arms.
        propensities: (A,), exact probability of each arm.
        chosen: position of the chosen arm.
        features: request features for the heuristic.
        list_costs: (A,), expected costs by list prices in nano-dollars, or else `options.cost`.
        judge_sampled: whether the answer was sampled to be judged.
    """

    at_ms: int
    context: PolicyContext
    arms: tuple[str, ...]
    options: ChoiceSet
    utility_weights: UtilityWeights
    exploration: Exploration
    propensities: Vector
    chosen: int
    feedback: LoggedFeedback | None
    id: int
    key_id: str
    features: Features
    list_costs: Vector
    judge_sampled: bool


async def read_decisions(
    store: Store, since_ms: int, *, shared: bool
) -> tuple[list[LoggedDecision], list[int]]:
    """Return the decisions of learned policies with their feedback, and the ids of all others.

    These are the first 200,000 since a moment, in their order. The model of another decision was
    certain, so it holds no evidence on other models. With `shared` all keys learn together, and
    contexts have no tenant.
    """
    feedback = await read_feedback(store, since_ms)
    learned, others = [], []
    for row in await store.decisions(since_ms, MAX_DECISIONS):
        decision = _build_decision(row, feedback.get(row.attempt_id), shared=shared)
        if decision is None:
            others.append(row.attempt_id)
        else:
            learned.append(decision)
    return sorted(learned, key=lambda decision: decision.at_ms), others


async def read_feedback(store: FeedbackStore, since_ms: int = 0) -> dict[int, LoggedFeedback]:
    """Return the explicit feedback by decision since a moment."""
    feedback: dict[int, LoggedFeedback] = {}
    async for row in iterate_lesson_rows(store):
        explicit = row.weight > 0.0 and row.channel not in IMPLICIT_CHANNELS
        if explicit and extract_timestamp_ms(row.decision_id) >= since_ms:
            feedback[row.decision_id] = _merge_feedback(feedback.get(row.decision_id), row)
    return feedback


async def iterate_lesson_rows(store: FeedbackStore, after: int = 0) -> AsyncIterator[LessonRow]:
    """Yield the ledger's lessons with numbers above `after`, in their order."""
    while rows := await store.lessons(after, PAGE_SIZE):
        for row in rows:
            yield row
        after = rows[-1].number


def _merge_feedback(before: LoggedFeedback | None, row: LessonRow) -> LoggedFeedback:
    judge_score = row.quality if row.channel == JUDGE_CHANNEL else None
    if before is None:
        return LoggedFeedback(row.quality, row.weight, row.arm, judge_score)
    weight = before.weight + row.weight
    score = (before.score * before.weight + row.quality * row.weight) / weight
    judge_score = before.judge_score if judge_score is None else judge_score
    return LoggedFeedback(score, weight, row.arm, judge_score)


def _build_decision(
    row: AttemptIntent, feedback: LoggedFeedback | None, *, shared: bool
) -> LoggedDecision | None:
    """Return a decision with its feedback, or None when no learned policy made it."""
    plan = decode_plan(row.plan) if row.plan else None
    trace = plan.trace if plan is not None else None
    if plan is None or trace is None or not plan.attempts:
        return None
    if trace.utility_weights is None or trace.exploration is None:
        return None
    models = [arm.model for arm in trace.rated_arms]
    chosen = plan.attempts[0].model
    if chosen not in models:
        return None
    ratings = ArmRatings(
        np.array([arm.quality for arm in trace.rated_arms]),
        np.array([arm.sd for arm in trace.rated_arms]),
    )
    propensities = np.array([arm.propensity for arm in trace.rated_arms])
    options = build_choice_set(trace, ratings)
    costs = {candidate.model: float(candidate.expected_nano) for candidate in plan.candidates}
    listed = costs.keys() >= set(models)
    return LoggedDecision(
        at_ms=row.at_ms,
        context=unpack_context(trace.context, "" if shared else row.key_id),
        arms=tuple(format_arm(model, trace.call_mode) for model in models),
        options=options,
        utility_weights=trace.utility_weights,
        exploration=trace.exploration,
        # Numbers that were written as decimals sum to one only nearly.
        propensities=propensities / propensities.sum(),
        chosen=models.index(chosen),
        feedback=feedback,
        id=row.attempt_id,
        key_id=row.key_id,
        features=plan.features,
        list_costs=np.array([costs[model] for model in models]) if listed else options.cost,
        judge_sampled=trace.judge_sampled,
    )
