"""The seams: each Protocol has two real implementations and one contract battery run on both."""

from collections.abc import Awaitable, Sequence
from typing import Protocol

from sophia.core.calls import Call, Piece, Usage
from sophia.core.events import Settled
from sophia.core.rows import (
    Doubt,
    Feedback,
    Intent,
    KeyRow,
    LessonRow,
    OpenHold,
    Outcome,
    Spend,
)


class Exchange(Protocol):
    """One dispatched call. `close` frees its connection at once and cancels what is unfinished."""

    generation_id: str | None

    async def next(self) -> Piece | None:
        """Return what came next, or None after a complete answer. Raises UpstreamFailure."""

    def close(self) -> None: ...


class Upstream(Protocol):
    """A place that answers OpenAI-shaped calls; `bills` says that `bill` can tell past costs."""

    name: str
    bills: bool

    async def open(self, call: Call) -> Exchange:
        """Dispatch `call` and wait for an accepting answer's head. Raises UpstreamFailure."""

    async def get(self, path: str) -> bytes:
        """Return the body of `path` below the base URL. Raises UpstreamFailure."""

    async def bill(self, generation_id: str) -> Usage | None:
        """Return what an earlier call cost, or None when the upstream cannot say."""

    async def close(self) -> None: ...


class Clock(Protocol):
    """Time, so that tests can hold it."""

    def monotonic(self) -> float: ...

    def wall(self) -> float: ...


class Sink(Protocol):
    """Hears of every settled request; must not block and must not raise."""

    def emit(self, event: Settled) -> None: ...


class Store(Protocol):
    """What must outlive the process.

    What is awaited is durable when it returns. `settle` hands a row over: it becomes durable soon
    after and is never dropped; until then the attempt counts as an open hold.
    """

    def reserve(self, intent: Intent) -> Awaitable[None]: ...

    def settle(self, outcome: Outcome) -> None: ...

    async def keys(self) -> Sequence[KeyRow]: ...

    async def add_key(self, key: KeyRow) -> None: ...

    async def revoke_key(self, id: str, at_ms: int) -> None: ...

    async def spends(self, window: str) -> Sequence[Spend]: ...

    async def spent(self, key_id: str, since: str) -> int: ...

    async def costs(self) -> Sequence[tuple[str, int]]: ...

    async def judging(self, window: str) -> int: ...

    async def scores(self) -> Sequence[tuple[str, float, int]]: ...

    async def open_holds(self) -> Sequence[OpenHold]: ...

    async def decision(self, request_id: int) -> Intent | None: ...

    async def attempts(self, request_id: int) -> Sequence[Outcome]: ...

    async def unresolved(self, since_ms: int) -> Sequence[Doubt]: ...

    async def by_generation(self, generation_id: str) -> Outcome | None: ...

    async def add_feedback(self, feedback: Feedback) -> bool: ...

    async def feedback(self, decision_id: int) -> Sequence[Feedback]: ...

    async def decisions(self, since_ms: int, limit: int) -> Sequence[Intent]: ...

    async def add_lesson(self, lesson: LessonRow) -> None: ...

    async def lessons(self, after: int, limit: int) -> Sequence[LessonRow]: ...

    async def compared(self, since_ms: int, limit: int) -> Sequence[Feedback]: ...

    async def unlearned(self, since_ms: int) -> Sequence[Feedback]: ...

    async def close(self) -> None: ...


class Coordinator(Protocol):
    """Budgets shared by everything that spends: `spent + held <= limit` at every moment."""

    async def reserve(self, key_id: str, window: str, limit: int | None, amount: int) -> None:
        """Hold `amount` nano-dollars. Raises BudgetExceeded and holds nothing."""

    def settle(self, key_id: str, window: str, held: int, spent: int) -> None:
        """Turn a hold into what was really spent."""

    def standing(self, key_id: str, window: str) -> tuple[int, int]:
        """Return (spent, held) in nano-dollars."""
