"""A lesson with its circumstances: who decided the request, when, and how the policy was drawn."""

from msgspec import Struct

from sophia.routing.policies.policy import Lesson


class Taught(Struct, frozen=True):
    """A lesson, who decided the request (`policy`), and when, in milliseconds since 1970.

    `by_lot` says that the policy was drawn, not asked for by name, and that this is the first
    verdict on the decision: only such scores compare policies. `word` says that somebody meant to
    judge: a mere sign teaches, but is no outcome that the learned policy waits for. The decision
    was taken at `decided_ms`, on the correction `rated_by` ("" for none).
    """

    lesson: Lesson
    policy: str
    at_ms: int
    by_lot: bool = True
    word: bool = True
    decided_ms: int = 0
    rated_by: str = ""
