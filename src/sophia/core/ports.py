"""Ports: the Protocols between Sophia and the outside world, implemented by `adapters`.

Both implementations of `Store` pass the same contract tests. `Sink` has several implementations,
`Clock` a real and a manual one, `Upstream`, `Coordinator` and `SnapshotStore` one each.
"""

from collections.abc import Awaitable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from sophia.core.calls import ChunkBatch, UpstreamCall, Usage
from sophia.core.events import Settled
from sophia.core.rows import (
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


class DispatchedCall(Protocol):
    """One dispatched call. `close` frees its connection at once and cancels what is unfinished.

    `left_out_events` counts malformed events of a stream that were left out.
    """

    generation_id: str | None

    @property
    def left_out_events(self) -> int: ...

    async def next(self) -> ChunkBatch | None:
        """Return the next batch, or None after a complete answer. Raises UpstreamFailure."""

    def close(self) -> None: ...


class Upstream(Protocol):
    """A server of OpenAI-shaped calls; `can_fetch_usage` says whether it reports past costs.

    `is_drained` says whether a call is read to its end when its caller leaves, for its usage.
    """

    name: str
    can_fetch_usage: bool
    is_drained: bool

    async def open(self, call: UpstreamCall) -> DispatchedCall:
        """Dispatch `call` and wait for the head of a good answer. Raises UpstreamFailure."""

    async def get(self, path: str) -> bytes:
        """Return the body of `path` below the base URL. Raises UpstreamFailure."""

    async def fetch_usage(self, generation_id: str) -> Usage | None:
        """Return the usage of an earlier call, or None when the upstream does not report it."""

    async def close(self) -> None: ...


class Clock(Protocol):
    """Monotonic seconds, and wall-clock seconds since 1970."""

    def monotonic(self) -> float: ...
    def wall(self) -> float: ...


class Sink(Protocol):
    """Receiver of every settled request; must not block and must not raise."""

    def emit(self, event: Settled) -> None: ...


class LedgerStore(Protocol):
    """Attempts: what was reserved for them, and their outcomes.

    `reserve` is durable when it returns. `settle` and `note_generation` hand a row over: it becomes
    durable soon after and is never dropped; until then the attempt counts as an open hold.
    """

    def reserve(self, intent: AttemptIntent) -> Awaitable[None]: ...
    def note_generation(self, attempt_id: int, generation_id: str) -> None: ...
    def settle(self, outcome: AttemptOutcome) -> None: ...
    async def open_attempts(self) -> Sequence[OpenAttempt]: ...
    async def unknown_attempts(self) -> Sequence[UnsettledAttempt]: ...
    async def open_holds(self) -> Sequence[OpenHold]: ...
    async def unsettled_attempts(self, since_ms: int) -> Sequence[UnsettledAttempt]: ...
    async def attempts(self, request_id: int) -> Sequence[AttemptOutcome]: ...
    async def outcome_by_generation(self, generation_id: str) -> AttemptOutcome | None: ...
    async def decision(self, request_id: int) -> AttemptIntent | None: ...
    async def decisions(self, since_ms: int, limit: int) -> Sequence[AttemptIntent]: ...


class KeyStore(Protocol):
    """API keys, and sums of spending."""

    async def keys(self) -> Sequence[KeyRow]: ...
    async def add_key(self, key: KeyRow) -> None: ...
    async def update_key(self, key: KeyRow) -> None: ...
    async def revoke_key(self, id: str, at_ms: int) -> None: ...
    async def spend_by_key(self, window: str) -> Sequence[KeySpend]: ...
    async def spend_since(self, key_id: str, since: str) -> int: ...
    async def cost_by_model(self) -> Sequence[tuple[str, int]]: ...
    async def judging_cost(self, window: str) -> int: ...


class FeedbackStore(Protocol):
    """Feedback on decisions, and the lessons drawn from it."""

    async def add_feedback(self, feedback: Feedback) -> bool: ...
    async def feedback(self, decision_id: int) -> Sequence[Feedback]: ...
    async def multi_channel_feedback(self, since_ms: int, limit: int) -> Sequence[Feedback]: ...
    async def feedback_without_lesson(self, since_ms: int) -> Sequence[Feedback]: ...
    async def mean_scores(self) -> Sequence[tuple[str, float, int]]: ...
    async def add_lesson(self, lesson: LessonRow) -> None: ...
    async def lessons(self, after: int, limit: int) -> Sequence[LessonRow]: ...


class Store(LedgerStore, KeyStore, FeedbackStore, Protocol):
    """All three stores in one database: everything that must outlive the process.

    `problem` is a sentence while nothing can be written, else empty; `depth` counts the rows that
    wait to be durable.
    """

    @property
    def problem(self) -> str: ...
    @property
    def depth(self) -> int: ...
    async def close(self) -> None: ...


class SnapshotStore(Protocol):
    """Snapshots of the learned policy by id, and the history of those in service."""

    def ids(self) -> Sequence[str]: ...
    def save(self, id: str, blob: bytes) -> None: ...
    def load(self, id: str) -> bytes | None: ...
    def remove(self, id: str) -> None: ...
    def load_history(self) -> bytes | None: ...
    def save_history(self, history: bytes) -> None: ...
    def lock(self) -> AbstractContextManager[None]: ...


class Coordinator(Protocol):
    """Budgets shared by everything that spends: `spent + held <= limit` at every moment."""

    async def reserve(self, key_id: str, window: str, limit: int | None, amount: int) -> None:
        """Hold `amount` nano-dollars. Raises BudgetExceeded and holds nothing."""

    def settle(self, key_id: str, window: str, held: int, spent: int) -> None:
        """Turn a hold into the real cost."""

    def balance(self, key_id: str, window: str) -> tuple[int, int]:
        """Return (spent, held) in nano-dollars."""
