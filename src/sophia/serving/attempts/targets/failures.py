"""Errors for the caller when attempts failed. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from sophia.core.errors import AllAttemptsFailed, BadRequest, ContextLengthExceeded, SophiaError
from sophia.core.failures import FailureKind, UpstreamFailure
from sophia.serving.attempts.targets.classifier import NO_CAPACITY_STATUSES, classify, is_too_long

_TIMEOUTS = frozenset(
    {
        FailureKind.CONNECT_TIMEOUT,
        FailureKind.FIRST_BYTE_TIMEOUT,
        FailureKind.CONTENT_TIMEOUT,
        FailureKind.STALL,
        FailureKind.TOTAL_TIMEOUT,
    }
)
_NO_REFUSAL_STATUSES = frozenset({401, 402, 403, 407, 408, 409, 421, 423, 425, 429, 499})
"""Client errors that say nothing about the request: Sophia's own account, or the moment."""
_CONSTRAINT_ROWS, _ACCOUNT_ROWS = (16, 17), (14, 15)


@dataclass(frozen=True, slots=True)
class FailedAttempt:
    """One failed attempt, as the caller may read it."""

    model: str
    upstream: str
    failure: UpstreamFailure


def build_attempts_error(tried: Sequence[FailedAttempt]) -> SophiaError:
    """Return the error for the caller when other models might have done better.

    When every model refused the request itself, the caller gets that refusal, with its own status:
    clients repeat what looks like an outage.
    """
    if not tried:
        return AllAttemptsFailed("No further attempt was possible.")
    if all(_is_refusal(attempt.failure) for attempt in tried):
        return build_caller_error(tried)
    causes = "; ".join(f"{attempt.model}: {_safe_message(attempt.failure)}" for attempt in tried)
    whole = "The only model that was tried" if len(tried) == 1 else f"All {len(tried)} attempts"
    error = AllAttemptsFailed(
        f"{whole} failed. {causes}"[:2000],
        retry_after=_retry_after(tried),
        details=_describe(tried),
    )
    error.status, error.error_type = _error_status(tried)
    return error


def build_caller_error(tried: Sequence[FailedAttempt]) -> SophiaError:
    """Return the error for the caller, whose own request is at fault by the last failure."""
    failure, details = tried[-1].failure, _describe(tried)
    message = f"{tried[-1].model} refused the request: {failure.message}"
    if is_too_long(failure) and failure.status != 413:
        return ContextLengthExceeded(message, details=details)
    error = BadRequest(message, details=details)
    error.status = failure.status or 400
    error.error_type = failure.error_type or "invalid_request"
    return error


def _is_refusal(failure: UpstreamFailure) -> bool:
    status, row = failure.status or 0, classify(failure).number
    answered = failure.kind in (FailureKind.STATUS, FailureKind.IN_BAND)
    is_own = status not in _NO_REFUSAL_STATUSES or row in _CONSTRAINT_ROWS
    return answered and 400 <= status < 500 and is_own and row not in _ACCOUNT_ROWS


def _error_status(tried: Sequence[FailedAttempt]) -> tuple[int, str]:
    failures = [attempt.failure for attempt in tried]
    if all(failure.status == 429 for failure in failures):
        return 429, "rate_limit_exceeded"
    if all(failure.status in NO_CAPACITY_STATUSES for failure in failures):
        # Not a 5xx: clients that retry those for an hour would never see the Retry-After.
        return 429, "provider_overloaded"
    if all(failure.kind is FailureKind.POOL_EXHAUSTED for failure in failures):
        return 503, "overloaded"
    if all(failure.kind in _TIMEOUTS for failure in failures):
        return 504, "timeout"
    return 502, "provider_unavailable"


def _retry_after(tried: Sequence[FailedAttempt]) -> float | None:
    failures = [attempt.failure for attempt in tried]
    no_capacity = all(
        failure.status in NO_CAPACITY_STATUSES or failure.kind is FailureKind.POOL_EXHAUSTED
        for failure in failures
    )
    waits = [failure.retry_after for failure in failures if failure.retry_after is not None]
    return min(waits, default=1.0 if no_capacity else None)


def _safe_message(failure: UpstreamFailure) -> str:
    """Return a message safe to repeat: a refusal of Sophia's own key could quote that key."""
    if classify(failure).number in _ACCOUNT_ROWS:
        return f"the upstream refused Sophia's own account (HTTP {failure.status})"
    return failure.message


def _describe(tried: Sequence[FailedAttempt]) -> dict[str, object]:
    attempts = [
        {
            "model": attempt.model,
            "upstream": attempt.upstream,
            "cause": str(attempt.failure.kind),
            "status": attempt.failure.status,
            "message": _safe_message(attempt.failure),
            "provider": attempt.failure.provider,
        }
        for attempt in tried
    ]
    return {"attempts": attempts}
