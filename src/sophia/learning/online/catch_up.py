"""Lessons of the ledger, read as policies learn them."""

from sophia.core.ports import FeedbackStore, LedgerStore, Store
from sophia.core.rows import LessonRow
from sophia.learning.evaluation.logged import PAGE_SIZE, iterate_lesson_rows
from sophia.learning.feedback.sources import IMPLICIT_CHANNELS
from sophia.learning.online.policy import OnlinePolicy
from sophia.learning.online.tenant_status import LoggedLesson
from sophia.routing.bandit.policy import Lesson
from sophia.routing.explain.trace import unpack_context
from sophia.routing.types import decode_plan


async def catch_up(policy: OnlinePolicy, store: Store, *, last_lesson: int | None = None) -> int:
    """Learn the ledger's lessons after the policy's last one up to `last_lesson`; return the count.

    Raises LookupError when a lesson or its decision is missing.
    """
    before = policy.lesson_count
    while last_lesson is None or policy.lesson_count < last_lesson:
        missing = PAGE_SIZE if last_lesson is None else last_lesson - policy.lesson_count
        rows = await store.lessons(policy.lesson_count, min(PAGE_SIZE, missing))
        for row in rows:
            logged = await _load_lesson(store, row, shared=policy.shared)
            if logged is None or row.number != policy.lesson_count + 1:
                raise LookupError(f"the ledger does not hold lesson {row.number} or its decision")
            policy.learn(logged)
        if not rows:
            break
    if last_lesson is not None and policy.lesson_count < last_lesson:
        raise LookupError(f"the ledger ends before lesson {last_lesson}")
    return policy.lesson_count - before


async def load_lessons(store: Store, *, shared: bool) -> list[tuple[LessonRow, LoggedLesson]]:
    """Return the ledger's lessons with a decision that it still holds, as rows and as learned."""
    return [
        (row, logged)
        async for row in iterate_lesson_rows(store)
        if (logged := await _load_lesson(store, row, shared=shared)) is not None
    ]


async def find_last_lesson(store: FeedbackStore, after: int = 0) -> int:
    """Return the number of the ledger's last lesson, or `after` when there is none behind it."""
    async for row in iterate_lesson_rows(store, after):
        after = row.number
    return after


async def _load_lesson(store: LedgerStore, row: LessonRow, *, shared: bool) -> LoggedLesson | None:
    """Return a row's lesson, or None when the context of its decision is not kept."""
    decision = await store.decision(row.decision_id)
    plan = decode_plan(decision.plan) if decision is not None and decision.plan else None
    if plan is None or plan.trace is None:
        return None
    context = unpack_context(plan.trace.context, "" if shared else row.key_id)
    return LoggedLesson(
        lesson=Lesson(context, row.arm, row.quality, row.weight),
        decided_by=row.policy,
        at_ms=row.at_ms,
        policy_randomized=plan.trace.policy_randomized and row.first,
        explicit=row.channel not in IMPLICIT_CHANNELS,
    )
