"""Feedback that Sophia itself gives, written in the background: no answer waits for it."""

import logging
from collections.abc import Awaitable, Callable

from sophia.core.background import BackgroundTasks
from sophia.core.errors import SophiaError
from sophia.core.ids import encode_id
from sophia.core.ports import Clock, Store
from sophia.core.rows import INTERNAL_KEY_PREFIX, AttemptIntent, Feedback

log = logging.getLogger("sophia.serving")

FeedbackCallback = Callable[[AttemptIntent, Feedback, str], Awaitable[object]]
"""Called with a decision, its feedback, and the model that it is about."""


class FeedbackQueue:
    """Writes feedback beside that of people; `on_stored` learns from it, None without learning."""

    def __init__(
        self, store: Store, clock: Clock, on_stored: FeedbackCallback | None = None
    ) -> None:
        self._store = store
        self._clock = clock
        self._on_stored = on_stored
        self._tasks = BackgroundTasks()

    def add(  # noqa: PLR0913 - the facts of one row
        self, request_id: int, key_id: str, model: str, *, channel: str, score: float, label: str
    ) -> None:
        """Write feedback on the answer of `model` to a request."""
        feedback = Feedback(
            # No caller's key begins like this, so none can speak in Sophia's place.
            idempotency_key=f"{INTERNAL_KEY_PREFIX}{encode_id('dec', request_id)}:{channel}",
            decision_id=request_id,
            key_id=key_id,
            score=score,
            label=label,
            comment_chars=0,
            preferred_model=None,
            channel=channel,
            at_ms=int(self._clock.wall() * 1000),
        )
        self._tasks.start(self._write(feedback, model))

    async def _write(self, feedback: Feedback, model: str) -> None:
        try:
            is_new = await self._store.add_feedback(feedback)
            decision = await self._store.decision(feedback.decision_id)
            if is_new and self._on_stored is not None and decision is not None:
                await self._on_stored(decision, feedback, model)
        except SophiaError as error:
            log.warning("feedback on channel %s was lost: %s", feedback.channel, error.message)

    async def close(self) -> None:
        """Wait until everything is written."""
        await self._tasks.close()
