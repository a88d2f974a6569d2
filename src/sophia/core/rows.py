"""Rows that the store keeps: append-only facts about money, choices and keys."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

CostSource = Literal["upstream", "priced", "estimated", "none"]
AttemptState = Literal["settled", "released", "unknown"]


class Intent(NamedTuple):
    """Durable before dispatch: what an attempt may cost at the most, and whose budget pays.

    The first attempt of a request carries its plan as JSON, without any prompt text.
    """

    attempt_id: int
    key_id: str
    window: str
    model: str
    upstream: str
    held_nano: int
    at_ms: int
    plan: bytes | None = None


class Outcome(NamedTuple):
    """What became of an attempt; written once, by attempt id.

    `estimate_nano` is Sophia's own price of the same tokens, kept beside the bill so that drift is
    visible. Latencies are in milliseconds.
    """

    attempt_id: int
    key_id: str
    window: str
    model: str
    state: AttemptState
    cost_nano: int
    cost_source: CostSource
    estimate_nano: int
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    reasoning_tokens: int
    finish_reason: str | None
    failure: str | None
    generation_id: str | None
    provider: str | None
    first_content_ms: float | None
    total_ms: float
    at_ms: int


RUBRIC = "rubric"
"""Finish reason of an attempt that judged an answer instead of giving one."""
OWN = "sophia:"
"""How the idempotency key of a verdict begins that Sophia came to by herself."""
REJECTED = "check:"
"""How the failure of an answer begins that came whole, but failed its checks."""


def served(made: Sequence[Outcome]) -> Outcome | None:
    """Return the attempt whose answer the caller got, of a request's attempts in their order.

    It is the last that did not fail. When all did, it is the last that came whole, else the last.
    """
    tried = [one for one in made if one.finish_reason != RUBRIC]
    good = [one for one in tried if one.failure is None]
    whole = [one for one in tried if (one.failure or "").startswith(REJECTED)]
    return next((some[-1] for some in (good, whole, tried) if some), None)


class Doubt(NamedTuple):
    """An outcome whose real cost an upstream may still tell, and what is held for it."""

    outcome: Outcome
    upstream: str
    held_nano: int


class KeyRow(NamedTuple):
    """One API key: its public id and a keyed digest, never the key itself.

    Without `explores` its requests never go to a model that only may be better.
    """

    id: str
    digest: bytes
    name: str
    scope: Literal["inference", "admin"]
    daily_budget_nano: int | None
    per_request_nano: int | None
    created_ms: int
    revoked_ms: int | None = None
    explores: bool = True


class Spend(NamedTuple):
    """What a key has spent in a window, in nano-dollars, as the ledger knows it."""

    key_id: str
    window: str
    spent_nano: int


class OpenHold(NamedTuple):
    """A dispatched attempt without an outcome: it stays charged until somebody reconciles it."""

    attempt_id: int
    key_id: str
    window: str
    held_nano: int


class LessonRow(NamedTuple):
    """What a learned policy was told of a decision: the lessons' numbers say their order.

    `quality` runs from 0 to 1, `weight` is what it counts for; `policy` took the decision,
    `channel` said it (each teaches once of a decision), and `first` says that nobody had judged it
    before.
    """

    number: int
    decision_id: int
    key_id: str
    arm: str
    quality: float
    weight: float
    policy: str
    at_ms: int
    first: bool = True
    channel: str = "score"


class Feedback(NamedTuple):
    """One verdict on a decision: `score` runs from 0 (useless) to 1 (perfect)."""

    idempotency_key: str
    decision_id: int
    key_id: str
    score: float | None
    label: str | None
    comment_chars: int
    preferred_model: str | None
    channel: str
    at_ms: int
