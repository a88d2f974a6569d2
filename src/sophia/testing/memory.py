"""A store that forgets with its process: the shipped double of the ledger, for tests and tries."""

from collections.abc import Sequence

from sophia.core.errors import Unavailable
from sophia.core.ids import JUDGING, first_id
from sophia.core.rows import (
    OWN,
    RUBRIC,
    Doubt,
    Feedback,
    Intent,
    KeyRow,
    LessonRow,
    OpenHold,
    Outcome,
    Spend,
)


class MemoryStore:
    """Keeps rows in dictionaries and answers as the durable stores do.

    Args:
        limit: intents that it takes; beyond it `reserve` refuses, as a full ledger does.
    """

    def __init__(self, limit: int = 1_000_000) -> None:
        self._limit = limit
        self._keys: dict[str, KeyRow] = {}
        self._intents: dict[int, Intent] = {}
        self._outcomes: dict[int, Outcome] = {}
        self._feedback: dict[str, Feedback] = {}
        self._lessons: dict[int, LessonRow] = {}

    async def reserve(self, intent: Intent) -> None:
        """Keep `intent`. Raises Unavailable when there is no more room."""
        if len(self._intents) >= self._limit:
            raise Unavailable("The ledger cannot keep up; try again shortly.", retry_after=1)
        self._intents[intent.attempt_id] = intent

    def settle(self, outcome: Outcome) -> None:
        """Keep an outcome; the first one of an attempt stands, unless it was a guess."""
        known = self._outcomes.setdefault(outcome.attempt_id, outcome)
        if known.cost_source == "estimated" and outcome.cost_source == "upstream":
            self._outcomes[outcome.attempt_id] = outcome

    async def keys(self) -> Sequence[KeyRow]:
        """Return every key, revoked ones included."""
        return list(self._keys.values())

    async def add_key(self, key: KeyRow) -> None:
        """Keep a new key."""
        self._keys[key.id] = key

    async def revoke_key(self, id: str, at_ms: int) -> None:
        """Revoke a key; one that is not there stays so."""
        if id in self._keys:
            self._keys[id] = self._keys[id]._replace(revoked_ms=at_ms)

    async def spends(self, window: str) -> Sequence[Spend]:
        """Return what each key has spent in `window`, in nano-dollars."""
        spent: dict[str, int] = {}
        for row in self._outcomes.values():
            if row.window == window and row.state != "unknown":
                spent[row.key_id] = spent.get(row.key_id, 0) + row.cost_nano
        return [Spend(key_id, window, nano) for key_id, nano in spent.items()]

    async def spent(self, key_id: str, since: str) -> int:
        """Return what a key has spent in windows from day `since` on, in nano-dollars."""
        return sum(
            row.cost_nano
            for row in self._outcomes.values()
            if row.key_id == key_id and row.window >= since and row.state != "unknown"
        )

    async def costs(self) -> Sequence[tuple[str, int]]:
        """Return what each model has cost, in nano-dollars."""
        costs: dict[str, int] = {}
        for row in self._outcomes.values():
            costs[row.model] = costs.get(row.model, 0) + row.cost_nano
        return list(costs.items())

    async def judging(self, window: str) -> int:
        """Return what judging answers later cost all keys in `window`, in nano-dollars."""
        return sum(
            row.cost_nano
            for row in self._outcomes.values()
            if row.window == window and row.state != "unknown" and row.attempt_id & 15 == JUDGING
        )

    async def scores(self) -> Sequence[tuple[str, float, int]]:
        """Return each model's mean score from feedback, 0 to 1, and how many scores it has."""
        given: dict[str, list[float]] = {}
        people = [one for key, one in self._feedback.items() if not key.startswith(OWN)]
        for verdict in people:
            for row in await self.attempts(verdict.decision_id):
                answered = row.failure is None and row.finish_reason != RUBRIC
                if answered and verdict.score is not None:
                    given.setdefault(row.model, []).append(verdict.score)
        return [(model, sum(each) / len(each), len(each)) for model, each in given.items()]

    async def open_holds(self) -> Sequence[OpenHold]:
        """Return attempts that may have been dispatched and whose bill is not known yet."""
        return [
            OpenHold(id, intent.key_id, intent.window, intent.held_nano)
            for id, intent in self._intents.items()
            if id not in self._outcomes or self._outcomes[id].state == "unknown"
        ]

    async def decision(self, request_id: int) -> Intent | None:
        """Return the first intent of a request, which carries its plan."""
        return self._intents.get(request_id)

    async def attempts(self, request_id: int) -> Sequence[Outcome]:
        """Return the outcomes of a request's attempts, in the order they were tried."""
        ids = sorted(id for id in self._outcomes if request_id <= id <= request_id | 15)
        return [self._outcomes[id] for id in ids]

    async def unresolved(self, since_ms: int) -> Sequence[Doubt]:
        """Return guesses since `since_ms` that have a generation id, newest first."""
        found = [
            Doubt(row, self._intents[id].upstream, self._intents[id].held_nano)
            for id, row in self._outcomes.items()
            if id >= first_id(since_ms)
            and id in self._intents
            and row.cost_source == "estimated"
            and row.generation_id is not None
        ]
        return sorted(found, key=lambda doubt: -doubt.outcome.attempt_id)

    async def by_generation(self, generation_id: str) -> Outcome | None:
        """Return the outcome that carries an upstream's generation id."""
        found = (row for row in self._outcomes.values() if row.generation_id == generation_id)
        return next(found, None)

    async def add_feedback(self, feedback: Feedback) -> bool:
        """Keep a verdict; return False when its idempotency key was used before."""
        return self._feedback.setdefault(feedback.idempotency_key, feedback) is feedback

    async def feedback(self, decision_id: int) -> Sequence[Feedback]:
        """Return every verdict on a decision, oldest first."""
        found = [row for row in self._feedback.values() if row.decision_id == decision_id]
        return sorted(found, key=lambda row: row.at_ms)

    async def decisions(self, since_ms: int, limit: int) -> Sequence[Intent]:
        """Return the first `limit` decisions since `since_ms`, oldest first."""
        first = first_id(since_ms)
        ids = sorted(id for id, row in self._intents.items() if id >= first and row.plan)
        return [self._intents[id] for id in ids[:limit]]

    async def add_lesson(self, lesson: LessonRow) -> None:
        """Keep a lesson; the first one of a number stands."""
        self._lessons.setdefault(lesson.number, lesson)

    async def lessons(self, after: int, limit: int) -> Sequence[LessonRow]:
        """Return the first `limit` lessons behind number `after`, in their order."""
        numbers = sorted(number for number in self._lessons if number > after)
        return [self._lessons[number] for number in numbers[:limit]]

    async def compared(self, since_ms: int, limit: int) -> Sequence[Feedback]:
        """Return scores since `since_ms` of the latest `limit` decisions with several channels."""
        scored = [
            row
            for row in self._feedback.values()
            if row.score is not None and row.at_ms >= since_ms
        ]
        channels: dict[int, set[str]] = {}
        for row in scored:
            channels.setdefault(row.decision_id, set()).add(row.channel)
        several = sorted((id for id, names in channels.items() if len(names) > 1), reverse=True)
        found = [row for row in scored if row.decision_id in several[:limit]]
        return sorted(found, key=lambda row: (row.decision_id, row.at_ms))

    async def unlearned(self, since_ms: int) -> Sequence[Feedback]:
        """Return scores since `since_ms` that no lesson stands for, oldest first."""
        taught = {(row.decision_id, row.channel) for row in self._lessons.values()}
        found = [
            row
            for row in self._feedback.values()
            if row.at_ms >= since_ms
            and row.score is not None
            and (row.decision_id, row.channel) not in taught
        ]
        return sorted(found, key=lambda row: row.at_ms)

    async def close(self) -> None:
        """Forget nothing: the object may still be looked at."""
