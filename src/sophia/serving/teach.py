"""Feedback becomes a lesson: weighed by its channel and its giver, durable, then learned."""

import asyncio

from sophia.core.ports import Store
from sophia.core.rows import Feedback, Intent, LessonRow
from sophia.learning.channels import CHANNELS, Vote, fuse
from sophia.learning.influence import Meter, Offer
from sophia.learning.lessons import ReadPlan, taught_of
from sophia.learning.live import Live
from sophia.routing.arms import arm_of

_PLAIN = frozenset({"score", "test"})
"""Channels that state the quality itself; the others are evidence for it."""


class Teacher:
    """Turns verdicts into lessons, one at a time and each durable before it is learned.

    Args:
        live: who learns.
        store: keeps the lessons.
        read: reads a plan from the ledger.
        shared: whether all keys learn together.
    """

    def __init__(self, live: Live, store: Store, read: ReadPlan, *, shared: bool = False) -> None:
        self._live = live
        self._store = store
        self._read = read
        self._shared = shared
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
            taught = taught_of(row, decision, self._read, shared=self._shared)
            if taught is None or row.weight <= 0.0:
                return False
            await self._store.add_lesson(row)
            self._live.learn(taught)
        return True

    def _row(self, decision: Intent, verdict: Feedback, arm: str) -> LessonRow:
        plan = self._read(decision.plan or b"")
        mode = "" if plan.evidence is None else plan.evidence.mode
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
            arm_of(arm, mode),
            value if verdict.channel in _PLAIN else fused.score,
            granted.local,
            plan.policy,
            verdict.at_ms,
        )

