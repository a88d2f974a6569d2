"""Observer of an answer while it streams, for implicit feedback and judging."""

from collections.abc import Callable

from msgspec import Struct

from sophia.core.calls import ChunkBatch
from sophia.serving.attempts.reservation import BudgetScope
from sophia.serving.request import Decision, Request


class AnswerEnd(Struct, frozen=True, kw_only=True):
    """End of an answer; `finish_reason` is None when the caller left before.

    `complete`: all of it was delivered; otherwise the caller went away. `clamped`: the budget
    limited its length. `rubric_scored`: a judge scored it already.
    """

    model: str
    finish_reason: str | None
    complete: bool
    clamped: bool = False
    rubric_scored: bool = False


class AnswerObserver:
    """Collects the chunks of one answer.

    Args:
        on_end: called once, when the answer ends.
        max_bytes: size up to which chunks are kept; a longer answer is dropped whole.
    """

    __slots__ = ("_bytes_left", "_on_end", "chunks")

    def __init__(
        self, on_end: Callable[["AnswerObserver", AnswerEnd], None], max_bytes: int = 0
    ) -> None:
        self.chunks: list[bytes] = []
        self._on_end: Callable[[AnswerObserver, AnswerEnd], None] | None = on_end
        self._bytes_left = max_bytes

    @property
    def is_complete(self) -> bool:
        """Whether every chunk so far is kept."""
        return self._bytes_left > 0

    def observe(self, batch: ChunkBatch) -> None:
        """Keep the chunks of a batch while they fit."""
        if self._bytes_left > 0:
            self._bytes_left -= sum(map(len, batch.chunks))
            if self._bytes_left > 0:
                self.chunks += batch.chunks
            else:
                self.chunks = []

    def end(self, end: AnswerEnd) -> None:
        """Report the end; only the first call counts."""
        on_end, self._on_end = self._on_end, None
        if on_end is not None:
            on_end(self, end)


ObserverFactory = Callable[[Request, Decision, BudgetScope, bool], AnswerObserver | None]
"""Returns the observer of an answer that begins; the last argument: whether it was checked."""
