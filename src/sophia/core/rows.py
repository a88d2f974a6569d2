"""Rows of the store: append-only facts about money, decisions and keys."""

from collections.abc import Sequence
from typing import Literal

from msgspec import Struct

from sophia.core.ids import JUDGE_ATTEMPT, MAX_ATTEMPTS

CostSource = Literal["upstream", "priced", "estimated", "assumed", "none"]
AttemptState = Literal["settled", "released", "unknown"]
RUBRIC_FINISH = "rubric"
"""Finish reason of an attempt that scored an answer instead of giving one."""
INTERNAL_KEY_PREFIX = "sophia:"
"""Prefix of the idempotency key of feedback that Sophia itself gave."""
CHECK_FAILED_PREFIX = "check:"
"""Prefix of the failure of a complete answer that failed its checks."""
MODEL_ACCOUNT_PREFIX = "model:"
"""Prefix of the account of a model, which has its cost of all time, in no window."""
JUDGE_ACCOUNT = "sophia:judge"
"""Account of all judgements together, which are charged to the keys as well."""


class AttemptIntent(Struct, frozen=True, array_like=True, order=True, gc=False):
    """An attempt about to be dispatched: its maximum cost, and the budget that pays.

    Durable before dispatch. The first of a request carries the plan as JSON, without prompt text.
    Intents of earlier releases have no `expected_nano`.
    """

    attempt_id: int
    key_id: str
    window: str
    model: str
    upstream: str
    held_nano: int
    at_ms: int
    plan: bytes | None = None
    expected_nano: int | None = None


class GenerationNote(Struct, frozen=True, array_like=True, order=True, gc=False):
    """The upstream's id of a running attempt, by which its bill can be found after a crash."""

    attempt_id: int
    generation_id: str


class OpenAttempt(Struct, frozen=True, array_like=True, order=True, gc=False):
    """An intent without an outcome, and the upstream's id if it was noted."""

    intent: AttemptIntent
    generation_id: str | None


class AttemptOutcome(Struct, frozen=True, array_like=True, order=True, gc=False):
    """The result of an attempt, by attempt id; the upstream's bill may replace another cost.

    `estimate_nano` is Sophia's own price of the same tokens, stored beside the cost so that a
    difference is visible. `held_nano` stays reserved, beside a cost that counts as spent, until the
    bill is known. Latencies are in milliseconds.
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
    held_nano: int = 0

    @property
    def spent_nano(self) -> int:
        """The cost that counts as spent; an unknown one is held instead."""
        return 0 if self.state == "unknown" else self.cost_nano

    @property
    def accounts(self) -> tuple[str, ...]:
        """The accounts that pay, each in the window."""
        is_judgement = self.attempt_id & MAX_ATTEMPTS == JUDGE_ATTEMPT
        return (self.key_id, JUDGE_ACCOUNT) if is_judgement else (self.key_id,)

    def gives_way_to(self, other: "AttemptOutcome") -> bool:
        """Return whether `other` replaces this one: the first stands unless it is a guess.

        A bill replaces a guess, and an assumption ends a hold.
        """
        if other.cost_source == "upstream":
            return self.cost_source in ("estimated", "assumed")
        is_open = self.state == "unknown" or self.held_nano > 0
        return other.cost_source == "assumed" and is_open


def find_served_outcome(outcomes: Sequence[AttemptOutcome]) -> AttemptOutcome | None:
    """Return the attempt whose answer the caller got, of a request's attempts in their order.

    It is the last that did not fail; when all failed, the last complete one, else the last.
    """
    answers = [row for row in outcomes if row.finish_reason != RUBRIC_FINISH]
    good = [row for row in answers if row.failure is None]
    complete = [row for row in answers if (row.failure or "").startswith(CHECK_FAILED_PREFIX)]
    return next((group[-1] for group in (good, complete, answers) if group), None)


class UnsettledAttempt(Struct, frozen=True, array_like=True, order=True, gc=False):
    """An outcome whose real cost an upstream may still report, and that upstream's name."""

    outcome: AttemptOutcome
    upstream: str


class KeyRow(Struct, frozen=True, array_like=True, order=True, gc=False):
    """One API key: its public id and a keyed digest, never the key itself.

    `explores` allows its requests to try models of uncertain quality.
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


class AccountRow(Struct, frozen=True, array_like=True, order=True, gc=False):
    """Money of an account in a window, in nano-dollars: `spent + held + leased <= limit`.

    `held` is for attempts whose cost is not known, `leased` may be spent by workers.
    """

    account: str
    window: str
    spent_nano: int = 0
    held_nano: int = 0
    leased_nano: int = 0


class LeaseRequest(Struct, frozen=True, kw_only=True):
    """A worker's demand on an account in a window.

    It needs `need` more for a request, has `idle` that it could give back, and its largest
    reservation was `unit`. `call` is the number under which it has called on others, or 0.
    """

    account: str
    window: str
    limit: int
    need: int
    idle: int
    unit: int
    call: int = 0


class Lease(Struct, frozen=True, array_like=True, gc=False):
    """Answer to a worker that asked for a part of a budget, in nano-dollars.

    `granted_nano` is added to its slice, or taken from it where it is negative; `free_nano` is left
    for all. `holders` workers have slices; `unheard_nano` is in those of workers that have not
    answered call number `call` yet.
    """

    granted_nano: int
    free_nano: int
    holders: int
    unheard_nano: int
    call: int


class LessonRow(Struct, frozen=True, array_like=True, order=True, gc=False):
    """One observation that a learned policy is trained on, in the order of `number`.

    `quality` is 0 to 1. `policy` took the decision; `channel` is the source of the feedback, which
    counts once per decision. `first` marks the first feedback on the decision.
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


class Feedback(Struct, frozen=True, array_like=True, order=True, gc=False):
    """Feedback on a decision: `score` runs from 0 (useless) to 1 (perfect)."""

    idempotency_key: str
    decision_id: int
    key_id: str
    score: float | None
    label: str | None
    comment_chars: int
    preferred_model: str | None
    channel: str
    at_ms: int
