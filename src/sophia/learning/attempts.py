"""What an attempt says of the arm that made it: whether it failed, and how it answered."""

from collections.abc import Iterator

from sophia.core.events import Settled
from sophia.core.failures import FailureKind
from sophia.core.rows import REJECTED, RUBRIC, Outcome
from sophia.routing.arms import arm_of
from sophia.routing.forecast import Answer
from sophia.routing.policies.policy import Vector

_ITS_OWN = frozenset(
    str(kind)
    for kind in FailureKind
    if kind not in (FailureKind.STATUS, FailureKind.IN_BAND, FailureKind.POOL_EXHAUSTED)
)
_NOT_ITS_OWN = frozenset({"400", "401", "402", "403", "412", "413", "422"})
"""A request's own fault, moderation, or Sophia's own account: any model would have refused."""


def failed(outcome: Outcome) -> bool | None:
    """Say whether an attempt failed; None when that says nothing of its arm.

    An answer that came whole did not fail, whatever its checks found. Who hung up, a request that
    no model takes and Sophia's own account are nobody's failures.
    """
    cause = outcome.failure
    if outcome.finish_reason == RUBRIC:
        return None
    if cause is None or cause.startswith(REJECTED):
        return False
    kind, _, status = cause.partition(":")
    if kind in _ITS_OWN:
        return True
    if kind in (FailureKind.STATUS, FailureKind.IN_BAND):
        return None if status in _NOT_ITS_OWN else True
    return None


def answers(event: Settled, tasks: Vector | None) -> Iterator[Answer]:
    """Yield the answers of a request that came whole; `tasks` is its posterior, (T,), if known."""
    if event.endpoint == "embeddings":
        return
    for outcome in event.attempts:
        if failed(outcome) is False and outcome.finish_reason is not None:
            yield Answer(
                arm_of(outcome.model, event.mode),
                tasks,
                event.expected_tokens,
                outcome.completion_tokens,
                outcome.total_ms,
                outcome.first_content_ms if event.stream else None,
                outcome.finish_reason == "length",
            )
