"""What a failed attempt means: go on with the next model, or tell the caller. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from sophia.core.errors import (
    AllAttemptsFailed,
    BadRequest,
    ContextLengthExceeded,
    SophiaError,
)
from sophia.core.failures import FailureKind, UpstreamFailure

_TIMEOUTS = frozenset(
    {
        FailureKind.CONNECT_TIMEOUT,
        FailureKind.FIRST_BYTE_TIMEOUT,
        FailureKind.CONTENT_TIMEOUT,
        FailureKind.STALL,
        FailureKind.TOTAL_TIMEOUT,
    }
)
_NO_CAPACITY = frozenset({429, 503, 529})
_CALLERS_FAULT = frozenset({400, 412, 422})
_OTHER_MODEL_HELPS = frozenset(
    {
        "context_length_exceeded",
        "model_not_found",
        "max_tokens_exceeded",
        "token_limit_exceeded",
        "string_too_long",
    }
)
_MODERATION = frozenset({"content_policy_violation", "refusal", "moderation", "content_filter"})


class Step(Enum):
    """What to do after a failure that the caller has not seen."""

    NEXT = "next"
    TELL = "tell"


@dataclass(frozen=True, slots=True)
class Tried:
    """One failed attempt, as the caller may read it."""

    model: str
    failure: UpstreamFailure


def next_step(failure: UpstreamFailure) -> Step:
    """Return whether another model may do better; a request's own fault is told at once."""
    if failure.error_type in _OTHER_MODEL_HELPS or "context length" in failure.message.lower():
        return Step.NEXT
    if failure.error_type in _MODERATION:
        return Step.TELL
    if failure.status in _CALLERS_FAULT:
        return Step.TELL
    if failure.status == 403 and "moderation" in failure.message.lower():
        return Step.TELL
    return Step.NEXT


def may_bill(failure: UpstreamFailure) -> bool:
    """Say whether the upstream may charge for the attempt although it gave no answer."""
    if not failure.sent:
        return False
    return failure.kind not in (FailureKind.STATUS, FailureKind.IN_BAND)


def as_error(tried: Sequence[Tried], *, told: bool) -> SophiaError:
    """Return the caller's error after `tried`; `told`: the last failure is the caller's own."""
    last = tried[-1]
    attempts = [_describe(one) for one in tried]
    if told:
        return _callers(last, attempts)
    causes = "; ".join(f"{one.model}: {_said(one.failure)}" for one in tried)
    whole = "The only model that was tried" if len(tried) == 1 else f"All {len(tried)} models tried"
    error = AllAttemptsFailed(
        f"{whole} failed. {causes}"[:2000],
        retry_after=_wait(tried),
        details={"attempts": attempts},
    )
    error.status, error.error_type = _verdict(tried)
    return error


def _callers(last: Tried, attempts: list[dict[str, object]]) -> SophiaError:
    failure = last.failure
    message = f"{last.model} refused the request: {failure.message}"
    details: dict[str, object] = {"attempts": attempts}
    if failure.error_type == "context_length_exceeded":
        return ContextLengthExceeded(message, details=details)
    error = BadRequest(message, details=details)
    error.status = failure.status or 400
    error.error_type = failure.error_type or "invalid_request"
    return error


def _verdict(tried: Sequence[Tried]) -> tuple[int, str]:
    failures = [one.failure for one in tried]
    if all(failure.status == 429 for failure in failures):
        return 429, "rate_limit_exceeded"
    if all(failure.status in _NO_CAPACITY for failure in failures):
        # Not a 5xx: clients that retry those for an hour would never see the Retry-After.
        return 429, "provider_overloaded"
    if all(failure.kind in _TIMEOUTS for failure in failures):
        return 504, "timeout"
    return 502, "provider_unavailable"


def _wait(tried: Sequence[Tried]) -> float | None:
    waits = [one.failure.retry_after for one in tried if one.failure.retry_after is not None]
    if waits:
        return min(waits)
    return 1.0 if all(one.failure.status in _NO_CAPACITY for one in tried) else None


def _said(failure: UpstreamFailure) -> str:
    """Return what may be repeated: a refusal of Sophia's own key could quote that key."""
    if failure.status in (401, 402) or (failure.status == 403 and not failure.error_type):
        return f"the upstream refused Sophia's own account (HTTP {failure.status})"
    return failure.message


def _describe(one: Tried) -> dict[str, object]:
    failure = one.failure
    return {
        "model": one.model,
        "cause": str(failure.kind),
        "status": failure.status,
        "message": _said(failure),
        "provider": failure.provider,
    }
