"""Rows for the tests of stores."""

import time

from sophia.core.ids import first_id_at
from sophia.core.rows import AttemptIntent, AttemptOutcome, AttemptState, Feedback

NOW = first_id_at(time.time_ns() // 1_000_000)
DAY = "2026-11-23"


def intent(id: int, key: str = "k", window: str = DAY, held: int = 100) -> AttemptIntent:
    return AttemptIntent(
        attempt_id=id,
        key_id=key,
        window=window,
        model="acme/m",
        upstream="up",
        held_nano=held,
        at_ms=5,
        plan=b"{}" if id % 16 == 0 else None,
    )


def outcome(
    id: int,
    state: AttemptState = "settled",
    cost: int = 7,
    *,
    key: str = "k",
    window: str = DAY,
    generation: str | None = None,
) -> AttemptOutcome:
    return AttemptOutcome(
        attempt_id=id,
        key_id=key,
        window=window,
        model="acme/m",
        state=state,
        cost_nano=cost,
        cost_source="upstream",
        estimate_nano=8,
        prompt_tokens=1,
        completion_tokens=2,
        cached_tokens=0,
        reasoning_tokens=0,
        finish_reason="stop",
        failure=None,
        generation_id=generation,
        provider="Acme",
        first_content_ms=1.5,
        total_ms=2.5,
        at_ms=6,
    )


def feedback(
    key: str = "a", decision: int = NOW, score: float | None = 0.5, at: int = 1
) -> Feedback:
    return Feedback(
        idempotency_key=key,
        decision_id=decision,
        key_id="k",
        score=score,
        label="good",
        comment_chars=3,
        preferred_model="acme/n",
        channel="api",
        at_ms=at,
    )
