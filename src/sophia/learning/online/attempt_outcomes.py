"""Failures and answer measurements of attempts, as the performance model learns them."""

from collections.abc import Iterator

from sophia.core.events import Settled
from sophia.core.failures import FailureKind
from sophia.core.rows import CHECK_FAILED_PREFIX, RUBRIC_FINISH, AttemptOutcome
from sophia.routing.bandit.arms import format_arm
from sophia.routing.bandit.performance.forecast import AnswerMeasurement
from sophia.routing.bandit.policy import Vector

_ARM_FAILURES = frozenset(
    str(kind)
    for kind in FailureKind
    if kind not in (FailureKind.STATUS, FailureKind.IN_BAND, FailureKind.POOL_EXHAUSTED)
)
_NEUTRAL_STATUSES = frozenset({"400", "401", "402", "403", "412", "413", "422"})
"""Faults of the request, of moderation or of Sophia's account: any model would have failed."""


def is_arm_failure(outcome: AttemptOutcome) -> bool | None:
    """Return whether an attempt failed, or None when the arm is not to blame.

    A complete answer did not fail, whatever its checks found. A client that disconnects, a request
    that no model accepts and a fault of Sophia's own account are no arm's failure.
    """
    cause = outcome.failure
    if outcome.finish_reason == RUBRIC_FINISH:
        return None
    if cause is None or cause.startswith(CHECK_FAILED_PREFIX):
        return False
    kind, _, status = cause.partition(":")
    refused = kind in (FailureKind.STATUS, FailureKind.IN_BAND) and status not in _NEUTRAL_STATUSES
    return True if refused or kind in _ARM_FAILURES else None


def measure_completed_answers(event: Settled, tasks: Vector | None) -> Iterator[AnswerMeasurement]:
    """Yield the complete answers of a request; `tasks`, (T,), are its task probabilities."""
    if event.endpoint == "embeddings":
        return
    for outcome in event.attempts:
        if is_arm_failure(outcome) is False and outcome.finish_reason is not None:
            yield AnswerMeasurement(
                arm=format_arm(outcome.model, event.mode),
                task_probabilities=tasks,
                expected_tokens=event.expected_tokens,
                completion_tokens=outcome.completion_tokens,
                total_ms=outcome.total_ms,
                first_content_ms=outcome.first_content_ms if event.stream else None,
                truncated=outcome.finish_reason == "length",
            )
