"""Outcomes of attempts that a dead process left open: they may have been sent."""

import logging
from pathlib import Path

from sophia.core.ports import Clock, Store
from sophia.core.rows import AttemptOutcome, OpenAttempt

log = logging.getLogger("sophia.ledger")


class AttemptRecovery:
    """Ends what dead processes left, at the start and as long as others may die."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def __call__(self) -> None:
        """Look once for processes that died."""
        _log(len(await self._store.retire_left_workers(self.close)))

    def close(self, attempt: OpenAttempt) -> AttemptOutcome:
        """Return the outcome of an attempt: its probable cost is held until the bill is known."""
        intent = attempt.intent
        expected = intent.expected_nano
        probable = intent.held_nano if expected is None else min(expected, intent.held_nano)
        return AttemptOutcome(
            attempt_id=intent.attempt_id,
            key_id=intent.key_id,
            window=intent.window,
            model=intent.model,
            state="unknown",
            cost_nano=probable,
            cost_source="estimated",
            estimate_nano=probable,
            prompt_tokens=0,
            completion_tokens=0,
            cached_tokens=0,
            reasoning_tokens=0,
            finish_reason=None,
            failure="crash",
            generation_id=attempt.generation_id,
            provider=None,
            first_content_ms=None,
            total_ms=0.0,
            at_ms=int(self._clock.wall() * 1000),
            held_nano=probable,
        )


async def start_worker(store: Store, clock: Clock, data: Path, sync_seconds: float) -> None:
    """Begin the journal of this process, after what dead ones left."""
    recovery = AttemptRecovery(store, clock)
    _log(len(await store.start_worker(data, recovery.close, sync_seconds)))


def _log(closed: int) -> None:
    if closed:
        log.info("closed %d attempts that a dead process left open", closed)
