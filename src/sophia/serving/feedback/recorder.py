"""Feedback to lessons: weighted by channel and key, durable, then learned."""

import asyncio
from collections.abc import Sequence

from msgspec.structs import replace

from sophia.core.background import BackgroundTasks
from sophia.core.ports import Store
from sophia.core.rows import (
    CHECK_FAILED_PREFIX,
    INTERNAL_KEY_PREFIX,
    AttemptIntent,
    AttemptOutcome,
    Feedback,
    LessonRow,
    find_served_outcome,
)
from sophia.learning.feedback.influence_caps import DAY_MS, InfluenceLimiter
from sophia.learning.feedback.source_reliability import build_vote
from sophia.learning.feedback.sources import (
    IMPLICIT_CHANNELS,
    JUDGE_CHANNEL,
    MAX_FEEDBACK_AGE_MS,
    PRIOR_CHANNELS,
    estimate_quality_from_vote,
)
from sophia.learning.online.catch_up import catch_up, find_last_lesson
from sophia.learning.online.policy import OnlinePolicy
from sophia.routing.bandit.arms import format_arm
from sophia.routing.types import decode_plan

_DIRECT_CHANNELS = frozenset({"score", "test"})
"""Channels that state the quality itself; the others are evidence for it."""
_RECENT_LESSONS = 20_000
"""Lessons that are searched for those of today when a server starts."""
_CATCH_UP_MARGIN_MS = 3_600_000
"""Age beyond the latest lesson up to which feedback may have been missed."""


class FeedbackRecorder:
    """Turns feedback into lessons, one at a time and each durable before it is learned.

    The order of the store is the order of learning: a lesson that another process wrote is learned
    before the next one gets its number. `lock` is held whenever the policy changes.
    """

    def __init__(self, policy: OnlinePolicy, store: Store, lock: asyncio.Lock) -> None:
        self._policy = policy
        self._store = store
        self._lock = lock
        self._limiter = InfluenceLimiter()
        self._tasks = BackgroundTasks()

    async def catch_up(self, now_ms: int) -> int:
        """Learn from feedback that an earlier process stored only; return how much it was.

        It is learned in its order, with the weights that it would have had then.
        """
        last = await find_last_lesson(self._store, self._policy.lesson_count)
        recent = await self._store.lessons(max(last - _RECENT_LESSONS, 0), _RECENT_LESSONS)
        latest_ms = max((row.at_ms for row in recent), default=now_ms - MAX_FEEDBACK_AGE_MS)
        missed = await self._store.feedback_without_lesson(latest_ms - _CATCH_UP_MARGIN_MS)
        if self._policy.shared:
            # Recent lessons are counted, so that a restart does not reset any key's limit.
            first = min([now_ms, *(row.at_ms for row in missed)]) // DAY_MS * DAY_MS
            for row in recent:
                if row.at_ms >= first:
                    self._limiter.record_granted(row.key_id, row.arm, row.at_ms, row.weight)
        learned = 0
        for feedback in missed:
            decision = await self._store.decision(feedback.decision_id)
            if decision is not None:
                outcomes = await self._store.attempts(feedback.decision_id)
                model = _find_judged_model(decision, feedback, outcomes)
                learned += await self.record(decision, feedback, model)
        return learned

    async def record(self, decision: AttemptIntent, feedback: Feedback, model: str) -> bool:
        """Learn from feedback on an answer of `model`; return whether a lesson came of it.

        None comes of feedback without a score, of unknown channels, of a judge with an unknown
        bias towards its own family, or on a decision without a trace. A cancelled caller does not
        stop the learning.
        """
        if feedback.score is None or feedback.channel not in PRIOR_CHANNELS:
            return False
        return await asyncio.shield(self._tasks.start(self._record(decision, feedback, model)))

    async def follow(self) -> None:
        """Learn the lessons that other processes have stored."""
        async with self._lock:
            await self._learn_stored()

    async def close(self) -> None:
        """Wait until everything that was recorded is learned."""
        await self._tasks.close()

    async def _record(self, decision: AttemptIntent, feedback: Feedback, model: str) -> bool:
        plan = decode_plan(decision.plan) if decision.plan else None
        reliability = self._policy.reliability(decision.key_id)
        vote = build_vote(feedback, model, reliability)
        if plan is None or plan.trace is None or vote is None:
            return False
        expected = next((c.quality for c in plan.candidates if c.model == model), 0.5)
        score, weight = estimate_quality_from_vote(
            vote, expected, reliability.all_channels()[vote.channel]
        )
        arm, key = format_arm(model, plan.trace.call_mode), decision.key_id
        usable = [
            row
            for row in await self._store.feedback(decision.attempt_id)
            if row.channel in PRIOR_CHANNELS
            and row.score is not None
            and build_vote(row, model, reliability)
        ]
        first = next((row for row in usable if row.channel == feedback.channel), feedback)
        if first.idempotency_key != feedback.idempotency_key:
            # Only the first feedback on each channel counts.
            return False
        async with self._lock:
            if self._policy.shared:
                weight = self._limiter.grant(key, arm, feedback.at_ms, weight)
            row = LessonRow(
                number=0,
                decision_id=decision.attempt_id,
                key_id=key,
                arm=arm,
                quality=vote.value if feedback.channel in _DIRECT_CHANNELS else score,
                weight=weight,
                policy=plan.policy,
                at_ms=feedback.at_ms,
                first=_is_first_judgement(feedback, usable),
                channel=feedback.channel,
            )
            return weight > 0.0 and await self._append_lesson(row)

    async def _append_lesson(self, row: LessonRow) -> bool:
        """Store the lesson under the next free number, and learn everything up to it."""
        await self._learn_stored()
        while True:
            numbered = replace(row, number=self._policy.lesson_count + 1)
            await self._store.add_lesson(numbered)
            stored = await self._store.lessons(self._policy.lesson_count, 1)
            is_own = bool(stored) and stored[0] == numbered
            await self._learn_stored(granted=numbered.number if is_own else 0)
            if is_own:
                return True

    async def _learn_stored(self, granted: int = 0) -> None:
        """Learn what is stored; all lessons but number `granted` count for the limits of keys."""
        before = self._policy.lesson_count
        count = await catch_up(self._policy, self._store)
        if self._policy.shared and count > (granted > 0):
            for row in await self._store.lessons(before, count):
                if row.number != granted:
                    self._limiter.record_granted(row.key_id, row.arm, row.at_ms, row.weight)


def _is_first_judgement(feedback: Feedback, usable: Sequence[Feedback]) -> bool:
    """Return whether no explicit feedback came before; `usable` is in order."""
    if feedback.channel in IMPLICIT_CHANNELS:
        return False
    explicit = [row.idempotency_key for row in usable if row.channel not in IMPLICIT_CHANNELS]
    return not explicit or explicit[0] == feedback.idempotency_key


def _find_judged_model(
    decision: AttemptIntent, feedback: Feedback, outcomes: Sequence[AttemptOutcome]
) -> str:
    """Return the model that feedback is about.

    Checks are about the first answer, all other feedback about the delivered one.
    """
    checked = any((o.failure or "").startswith(CHECK_FAILED_PREFIX) for o in outcomes)
    served = find_served_outcome(outcomes)
    internal = feedback.idempotency_key.startswith(INTERNAL_KEY_PREFIX)
    # A sampled judge is labelled with its model, the rubric of a cascade is not.
    sampled_judge = feedback.channel == JUDGE_CHANNEL and "/" in (feedback.label or "")
    if served is None or (checked and internal and not sampled_judge):
        return decision.model
    return served.model
