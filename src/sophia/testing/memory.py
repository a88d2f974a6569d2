"""A store in memory, the double of the durable ones in tests."""

from collections.abc import Sequence

from msgspec.structs import replace

from sophia.core.errors import Unavailable
from sophia.core.ids import JUDGE_ATTEMPT, MAX_ATTEMPTS, first_id_at
from sophia.core.rows import (
    INTERNAL_KEY_PREFIX,
    RUBRIC_FINISH,
    AttemptIntent,
    AttemptOutcome,
    Feedback,
    KeyRow,
    KeySpend,
    LessonRow,
    OpenAttempt,
    OpenHold,
    UnsettledAttempt,
)


class MemoryStore:
    """Keeps rows in dictionaries; with `limit` intents `reserve` refuses, as a full ledger does."""

    problem = ""
    depth = 0

    def __init__(self, limit: int = 1_000_000) -> None:
        self._limit = limit
        self._keys: dict[str, KeyRow] = {}
        self._intents: dict[int, AttemptIntent] = {}
        self._outcomes: dict[int, AttemptOutcome] = {}
        self._generations: dict[int, str] = {}
        self._feedback: dict[str, Feedback] = {}
        self._lessons: dict[int, LessonRow] = {}

    async def reserve(self, intent: AttemptIntent) -> None:
        """Store `intent`. Raises Unavailable when the store is full."""
        if len(self._intents) >= self._limit:
            raise Unavailable("The ledger cannot keep up; try again shortly.", retry_after=1)
        self._intents[intent.attempt_id] = intent

    def note_generation(self, attempt_id: int, generation_id: str) -> None:
        """Store an upstream's id of a running attempt; the first one stands."""
        self._generations.setdefault(attempt_id, generation_id)

    def settle(self, outcome: AttemptOutcome) -> None:
        """Store an outcome; the first stands but for the upstream's bill, or an assumed cost."""
        first = self._outcomes.setdefault(outcome.attempt_id, outcome)
        if outcome.cost_source == "upstream":
            replaces = first.cost_source in ("estimated", "assumed")
        else:
            replaces = outcome.cost_source == "assumed" and first.state == "unknown"
        if replaces:
            self._outcomes[outcome.attempt_id] = outcome

    async def keys(self) -> Sequence[KeyRow]:
        """Return every key, revoked ones included."""
        return list(self._keys.values())

    async def add_key(self, key: KeyRow) -> None:
        """Store a new key."""
        self._keys[key.id] = key

    async def update_key(self, key: KeyRow) -> None:
        """Change a key's name, limits and right to explore; an unknown one stays unknown."""
        if (known := self._keys.get(key.id)) is not None:
            self._keys[key.id] = replace(
                known,
                name=key.name,
                daily_budget_nano=key.daily_budget_nano,
                per_request_nano=key.per_request_nano,
                explores=key.explores,
            )

    async def revoke_key(self, id: str, at_ms: int) -> None:
        """Revoke a key, if it exists."""
        if id in self._keys:
            self._keys[id] = replace(self._keys[id], revoked_ms=at_ms)

    async def spend_by_key(self, window: str) -> Sequence[KeySpend]:
        """Return the spending of each key in `window`, in nano-dollars."""
        spent: dict[str, int] = {}
        for row in self._outcomes.values():
            if row.window == window and row.state != "unknown":
                spent[row.key_id] = spent.get(row.key_id, 0) + row.cost_nano
        return [KeySpend(key_id, window, nano) for key_id, nano in spent.items()]

    async def spend_since(self, key_id: str, since: str) -> int:
        """Return the spending of a key in windows from day `since` on, in nano-dollars."""
        return sum(
            row.cost_nano
            for row in self._outcomes.values()
            if row.key_id == key_id and row.window >= since and row.state != "unknown"
        )

    async def cost_by_model(self) -> Sequence[tuple[str, int]]:
        """Return the cost of each model, in nano-dollars."""
        costs: dict[str, int] = {}
        for row in self._outcomes.values():
            costs[row.model] = costs.get(row.model, 0) + row.cost_nano
        return list(costs.items())

    async def judging_cost(self, window: str) -> int:
        """Return the cost of judging answers afterwards in `window`, in nano-dollars."""
        return sum(
            row.cost_nano
            for row in self._outcomes.values()
            if row.window == window
            and row.state != "unknown"
            and row.attempt_id & MAX_ATTEMPTS == JUDGE_ATTEMPT
        )

    async def mean_scores(self) -> Sequence[tuple[str, float, int]]:
        """Return each model's mean score from feedback, 0 to 1, and the number of scores."""
        scores: dict[str, list[float]] = {}
        for key, feedback in self._feedback.items():
            if key.startswith(INTERNAL_KEY_PREFIX) or feedback.score is None:
                continue
            for row in await self.attempts(feedback.decision_id):
                if row.failure is None and row.finish_reason != RUBRIC_FINISH:
                    scores.setdefault(row.model, []).append(feedback.score)
        return [(model, sum(each) / len(each), len(each)) for model, each in scores.items()]

    async def open_attempts(self) -> Sequence[OpenAttempt]:
        """Return intents without an outcome, oldest first, with the upstream's id if noted."""
        return [
            OpenAttempt(self._intents[id], self._generations.get(id))
            for id in sorted(self._intents.keys() - self._outcomes.keys())
        ]

    async def unknown_attempts(self) -> Sequence[UnsettledAttempt]:
        """Return outcomes of unknown cost, oldest first."""
        return [
            UnsettledAttempt(row, self._intents[id].upstream)
            for id, row in sorted(self._outcomes.items())
            if id in self._intents and row.state == "unknown"
        ]

    async def open_holds(self) -> Sequence[OpenHold]:
        """Return attempts that may have been dispatched and have no bill yet."""
        return [
            OpenHold(id, intent.key_id, intent.window, row.cost_nano if row else intent.held_nano)
            for id, intent in self._intents.items()
            if (row := self._outcomes.get(id)) is None or row.state == "unknown"
        ]

    async def decision(self, request_id: int) -> AttemptIntent | None:
        """Return the first intent of a request, which carries its plan."""
        return self._intents.get(request_id)

    async def attempts(self, request_id: int) -> Sequence[AttemptOutcome]:
        """Return the outcomes of a request's attempts, in their order."""
        ids = sorted(id for id in self._outcomes if request_id <= id <= request_id | MAX_ATTEMPTS)
        return [self._outcomes[id] for id in ids]

    async def unsettled_attempts(self, since_ms: int) -> Sequence[UnsettledAttempt]:
        """Return costs without a bill since `since_ms` that have a generation id, newest first."""
        rows = [
            UnsettledAttempt(row, self._intents[id].upstream)
            for id, row in self._outcomes.items()
            if id >= first_id_at(since_ms)
            and id in self._intents
            and row.cost_source in ("estimated", "assumed")
            and row.generation_id is not None
        ]
        return sorted(rows, key=lambda row: -row.outcome.attempt_id)

    async def outcome_by_generation(self, generation_id: str) -> AttemptOutcome | None:
        """Return the outcome with an upstream's generation id."""
        rows = (row for row in self._outcomes.values() if row.generation_id == generation_id)
        return next(rows, None)

    async def add_feedback(self, feedback: Feedback) -> bool:
        """Store feedback; return False if its idempotency key was used before."""
        return self._feedback.setdefault(feedback.idempotency_key, feedback) is feedback

    async def feedback(self, decision_id: int) -> Sequence[Feedback]:
        """Return all feedback on a decision, oldest first."""
        rows = [row for row in self._feedback.values() if row.decision_id == decision_id]
        return sorted(rows, key=lambda row: row.at_ms)

    async def decisions(self, since_ms: int, limit: int) -> Sequence[AttemptIntent]:
        """Return the first `limit` decisions since `since_ms`, oldest first."""
        first = first_id_at(since_ms)
        ids = sorted(id for id, row in self._intents.items() if id >= first and row.plan)
        return [self._intents[id] for id in ids[:limit]]

    async def add_lesson(self, lesson: LessonRow) -> None:
        """Store a lesson; the first one of a number stands."""
        self._lessons.setdefault(lesson.number, lesson)

    async def lessons(self, after: int, limit: int) -> Sequence[LessonRow]:
        """Return the first `limit` lessons after number `after`, in their order."""
        numbers = sorted(number for number in self._lessons if number > after)
        return [self._lessons[number] for number in numbers[:limit]]

    async def multi_channel_feedback(self, since_ms: int, limit: int) -> Sequence[Feedback]:
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
        rows = [row for row in scored if row.decision_id in several[:limit]]
        return sorted(rows, key=lambda row: (row.decision_id, row.at_ms))

    async def feedback_without_lesson(self, since_ms: int) -> Sequence[Feedback]:
        """Return scores since `since_ms` that have no lesson, oldest first."""
        lessons = {(row.decision_id, row.channel) for row in self._lessons.values()}
        rows = [
            row
            for row in self._feedback.values()
            if row.at_ms >= since_ms
            and row.score is not None
            and (row.decision_id, row.channel) not in lessons
        ]
        return sorted(rows, key=lambda row: row.at_ms)

    async def close(self) -> None:
        """Do nothing, so that tests can inspect the rows afterwards."""
