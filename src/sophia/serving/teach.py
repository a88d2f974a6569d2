"""Feedback becomes a lesson: weighed by its channel and its giver, durable, then learned."""

import asyncio
from collections.abc import Callable

from sophia.core.ports import Store
from sophia.core.rows import Feedback, Intent, LessonRow
from sophia.learning.channels import CHANNELS, Vote, fuse
from sophia.learning.influence import Meter, Offer
from sophia.learning.live import Live, Taught
from sophia.routing.evidence import unpack
from sophia.routing.nouns import Plan
from sophia.routing.policies.policy import Lesson

_PLAIN = frozenset({"score", "test"})
"""Channels that state the quality itself; the others are evidence for it."""


class Teacher:
    """Turns verdicts into lessons, one at a time and each durable before it is learned.

    Args:
        live: who learns.
        store: keeps the lessons.
        read: reads a plan from the ledger.
    """

    def __init__(self, live: Live, store: Store, read: Callable[[bytes], Plan]) -> None:
        self._live = live
        self._store = store
        self._read = read
        self._meter = Meter()
        self._one_at_a_time = asyncio.Lock()

    async def hear(self, decision: Intent, verdict: Feedback, arm: str) -> bool:
        """Learn from a verdict on what `arm` answered; return whether there was something to learn.

        Nothing is learned from feedback of unknown channels, without a score, or on a decision
        that no policy could have taken.
        """
        if verdict.score is None or verdict.channel not in CHANNELS:
            return False
        async with self._one_at_a_time:
            row = self._row(decision, verdict, arm)
            taught = taught_of(row, decision, self._read)
            if taught is None or row.weight <= 0.0:
                return False
            await self._store.add_lesson(row)
            self._live.learn(taught)
        return True

    def _row(self, decision: Intent, verdict: Feedback, arm: str) -> LessonRow:
        plan = self._read(decision.plan or b"")
        expected = next((one.quality for one in plan.candidates if one.model == arm), 0.5)
        value = verdict.score or 0.0
        fused = fuse([Vote(verdict.channel, value)], expected)
        self._meter.forget(verdict.at_ms)
        granted = self._meter.grant(
            Offer(decision.key_id, decision.key_id, arm, verdict.at_ms, fused.weight)
        )
        return LessonRow(
            self._live.lessons + 1,
            decision.attempt_id,
            decision.key_id,
            arm,
            value if verdict.channel in _PLAIN else fused.score,
            granted.local,
            plan.policy,
            verdict.at_ms,
        )


def taught_of(row: LessonRow, decision: Intent, read: Callable[[bytes], Plan]) -> Taught | None:
    """Return the lesson of a row, with what was seen of the request; None when nothing was kept."""
    plan = read(decision.plan) if decision.plan else None
    if plan is None or plan.evidence is None:
        return None
    sight = unpack(plan.evidence.sight, row.key_id)
    return Taught(Lesson(sight, row.arm, row.quality, row.weight), row.policy, row.at_ms)


async def catch_up(live: Live, store: Store, read: Callable[[bytes], Plan]) -> int:
    """Learn what the ledger holds behind the live policy's last lesson; return how many."""
    before = live.lessons
    while rows := await store.lessons(live.lessons, 1000):
        for row in rows:
            decision = await store.decision(row.decision_id)
            taught = taught_of(row, decision, read) if decision is not None else None
            if taught is None:
                raise LookupError(f"lesson {row.number} is about a decision that is not kept")
            live.learn(taught)
    return live.lessons - before
