"""Lessons as the ledger keeps them, and as policies learn them."""

from collections.abc import Callable

from sophia.core.ports import Store
from sophia.core.rows import Intent, LessonRow
from sophia.learning.channels import SIGNS
from sophia.learning.live import Live
from sophia.learning.taught import Taught
from sophia.routing.evidence import corrected_by, unpack
from sophia.routing.nouns import Plan
from sophia.routing.policies.policy import Lesson

ReadPlan = Callable[[bytes], Plan]

_AT_ONCE = 1000


def taught_of(row: LessonRow, decision: Intent, read: ReadPlan, *, shared: bool) -> Taught | None:
    """Return the lesson of a row, with what was seen of the request; None when nothing was kept.

    With `shared` all keys learn together, so that the lesson is nobody's in particular.
    """
    plan = read(decision.plan) if decision.plan else None
    if plan is None or plan.evidence is None:
        return None
    sight = unpack(plan.evidence.sight, "" if shared else row.key_id)
    lesson = Lesson(sight, row.arm, row.quality, row.weight)
    by_lot = plan.evidence.by_lot and row.first
    rated_by = corrected_by(plan.evidence.state) if plan.evidence.rated else ""
    word = row.channel not in SIGNS
    return Taught(lesson, row.policy, row.at_ms, by_lot, word, decision.at_ms, rated_by)


async def catch_up(live: Live, store: Store, read: ReadPlan, *, until: int | None = None) -> int:
    """Learn what the ledger holds behind the live policy's last lesson; return how many.

    Args:
        live: learns, each key by itself or all together as its snapshot says.
        store: holds the lessons and the decisions that they are about.
        read: reads a plan.
        until: number of the last lesson to learn; None for all there are.

    Raises:
        LookupError: a lesson is about a decision that is not kept, or one is missing.
    """
    before = live.lessons
    while until is None or live.lessons < until:
        most = _AT_ONCE if until is None else min(_AT_ONCE, until - live.lessons)
        rows = await store.lessons(live.lessons, most)
        for row in rows:
            decision = await store.decision(row.decision_id)
            taught = taught_of(row, decision, read, shared=live.shared) if decision else None
            if taught is None or row.number != live.lessons + 1:
                raise LookupError(f"the ledger does not hold what lesson {row.number} stands on")
            live.learn(taught)
        if not rows:
            break
    if until is not None and live.lessons < until:
        raise LookupError(f"the ledger ends before lesson {until}")
    return live.lessons - before


async def lessons_of(
    store: Store, read: ReadPlan, *, shared: bool
) -> list[tuple[LessonRow, Taught]]:
    """Return the ledger's lessons as rows and as learned, but those whose decisions are gone."""
    found: list[tuple[LessonRow, Taught]] = []
    after = 0
    while rows := await store.lessons(after, _AT_ONCE):
        after = rows[-1].number
        for row in rows:
            decision = await store.decision(row.decision_id)
            taught = taught_of(row, decision, read, shared=shared) if decision else None
            if taught is not None:
                found.append((row, taught))
    return found


async def last_lesson(store: Store, after: int = 0) -> int:
    """Return the number of the ledger's last lesson, or `after` when none is behind it."""
    while rows := await store.lessons(after, _AT_ONCE):
        after = rows[-1].number
    return after
