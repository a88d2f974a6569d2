"""Feedback becomes a lesson: weighed by its channel and its giver, durable, then learned."""

import asyncio
from collections.abc import Sequence

from sophia.core.ports import Store
from sophia.core.rows import OWN, REJECTED, Feedback, Intent, LessonRow, Outcome, served
from sophia.learning.channels import CHANNELS, JUDGE, SIGNS, fuse
from sophia.learning.credence import vote_of
from sophia.learning.influence import DAY_MS, Caps, Meter, Offer
from sophia.learning.lessons import ReadPlan, catch_up, last_lesson
from sophia.learning.live import Live
from sophia.learning.verdicts import LATEST_MS
from sophia.routing.arms import arm_of

_PLAIN = frozenset({"score", "test"})
"""Channels that state the quality itself; the others are evidence for it."""
TEAM = Caps(key=500.0)
"""Where keys learn together, what one of them may weigh on an arm in a day."""
_REFILL = 20_000
"""Lessons that are looked through for those of today when a server starts."""
_OVERTAKEN_MS = 3_600_000
"""How much older than the latest lesson a verdict may be that was not learned from."""


class Teacher:
    """Turns verdicts into lessons, one at a time and each durable before it is learned.

    What is learned is what the ledger holds, in its order: a lesson that was written although its
    caller went away, or by somebody else, is learned before the next one gets its number.

    Args:
        live: who learns.
        store: keeps the lessons.
        read: reads a plan from the ledger.
        lock: held whenever `live` changes by lessons or snapshots.
    """

    def __init__(self, live: Live, store: Store, read: ReadPlan, lock: asyncio.Lock) -> None:
        self._live = live
        self._store = store
        self._read = read
        self._lock = lock
        self._meter = Meter(TEAM)
        self._tasks: set[asyncio.Task[bool]] = set()

    async def begin(self, now_ms: int) -> int:
        """Go on where an earlier process stopped, or was stopped; return how many it had not heard.

        Verdicts that it kept but did not live to learn from are learned now, in their order, and
        weigh what they would have weighed then.
        """
        last = await last_lesson(self._store, self._live.lessons)
        latest = await self._store.lessons(max(last - _REFILL, 0), _REFILL)
        since = max((row.at_ms for row in latest), default=now_ms - LATEST_MS) - _OVERTAKEN_MS
        missed = await self._store.unlearned(since)
        if self._live.shared:
            self._remember(latest, min([now_ms, *(one.at_ms for one in missed)]))
        learned = 0
        for verdict in missed:
            learned += await self._make_up(verdict)
        return learned

    def _remember(self, latest: Sequence[LessonRow], since_ms: int) -> None:
        """Count what was said of late, so that a restart gives nobody a second voice."""
        first = since_ms // DAY_MS * DAY_MS
        for row in latest:
            if row.at_ms >= first:
                self._meter.recall(Offer(row.key_id, row.key_id, row.arm, row.at_ms, row.weight))

    async def _make_up(self, verdict: Feedback) -> bool:
        decision = await self._store.decision(verdict.decision_id)
        if decision is None:
            return False
        made = await self._store.attempts(verdict.decision_id)
        return await self.hear(decision, verdict, _about(decision, verdict, made))

    async def hear(self, decision: Intent, verdict: Feedback, model: str) -> bool:
        """Learn from a verdict on what `model` answered; return whether there was anything to.

        Nothing is learned from feedback of unknown channels, without a score, of a judge whose
        favour for its own family is unknown, or on a decision of which nothing was kept. Who stops
        waiting does not stop the learning.
        """
        if verdict.score is None or verdict.channel not in CHANNELS:
            return False
        task = asyncio.get_running_loop().create_task(self._hear(decision, verdict, model))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return await asyncio.shield(task)

    async def close(self) -> None:
        """Wait until everything that was heard is learned."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _hear(self, decision: Intent, verdict: Feedback, model: str) -> bool:
        plan = self._read(decision.plan) if decision.plan else None
        credence = self._live.credence(decision.key_id)
        vote = vote_of(verdict, model, credence)
        if plan is None or plan.evidence is None or vote is None:
            return False
        expected = next((one.quality for one in plan.candidates if one.model == model), 0.5)
        fused = fuse([vote], expected, credence.known())
        arm, key = arm_of(model, plan.evidence.mode), decision.key_id
        said = [
            one
            for one in await self._store.feedback(decision.attempt_id)
            if one.channel in CHANNELS and one.score is not None and vote_of(one, model, credence)
        ]
        alike = next((one for one in said if one.channel == verdict.channel), verdict)
        if alike.idempotency_key != verdict.idempotency_key:
            # On one channel the first word counts, however many are sent.
            return False
        async with self._lock:
            weight = fused.weight
            if self._live.shared:
                self._meter.forget(verdict.at_ms)
                weight = self._meter.grant(Offer(key, key, arm, verdict.at_ms, weight)).local
            row = LessonRow(
                0,
                decision.attempt_id,
                key,
                arm,
                vote.value if verdict.channel in _PLAIN else fused.score,
                weight,
                plan.policy,
                verdict.at_ms,
                _is_first(verdict, said),
                verdict.channel,
            )
            return weight > 0.0 and await self._write(row)

    async def _write(self, row: LessonRow) -> bool:
        """Give the lesson the next number that is free, and learn all there is up to it."""
        await self._catch_up()
        while True:
            numbered = row._replace(number=self._live.lessons + 1)
            await self._store.add_lesson(numbered)
            kept = await self._store.lessons(self._live.lessons, 1)
            await self._catch_up()
            if kept and kept[0] == numbered:
                return True

    async def _catch_up(self) -> None:
        await catch_up(self._live, self._store, self._read)


def _is_first(verdict: Feedback, said: Sequence[Feedback]) -> bool:
    """Say whether nobody meant to judge the decision before; `said` is heard, and in order."""
    if verdict.channel in SIGNS:
        return False
    words = [one.idempotency_key for one in said if one.channel not in SIGNS]
    return not words or words[0] == verdict.idempotency_key


def _about(decision: Intent, verdict: Feedback, made: Sequence[Outcome]) -> str:
    """Return the model that a verdict is about, of the attempts that were `made`.

    Checks look at the first answer, whatever became of it; everybody else judges what was given.
    """
    checked = any((one.failure or "").startswith(REJECTED) for one in made)
    answered = served(made)
    own = verdict.idempotency_key.startswith(OWN)
    # A judge that was drawn by lot is named, a cascade's is not: only that one came before.
    late = verdict.channel == JUDGE and "/" in (verdict.label or "")
    if answered is None or (checked and own and not late):
        return decision.model
    return answered.model
