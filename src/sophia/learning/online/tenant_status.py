"""Lessons as a policy learns them, and its progress with one tenant up to its rollout."""

from msgspec import Struct, field
from msgspec.structs import replace

from sophia.learning.rollout import Rollout, RolloutSide, record_rollout_score
from sophia.routing.bandit.policy import Lesson
from sophia.routing.bandit.quality.hierarchical import HierarchicalPolicy
from sophia.routing.rank import PRIORS_POLICY

RETRY_LESSONS = 500
"""Lessons between a retirement and the next rollout, times the number of retirements."""
_COMPARED_POLICIES = frozenset({PRIORS_POLICY, HierarchicalPolicy.name})


class LoggedLesson(Struct, frozen=True, kw_only=True):
    """A lesson, the policy that made the decision, and the time of the feedback.

    Attributes:
        policy_randomized: whether the policy was assigned at random and this is the decision's
            first feedback; only such scores compare policies.
        explicit: whether the feedback was a judgement, not an implicit signal.
    """

    lesson: Lesson
    decided_by: str
    at_ms: int
    policy_randomized: bool = True
    explicit: bool = True


class TenantStatus(Struct, frozen=True, rename={"eligible_at": "waits_until"}):
    """A tenant's lessons, the count at which they may decide, and their rollout if begun."""

    eligible_at: int
    lessons: int = 0
    rollout: Rollout | None = field(default=None, name="contest")


def update_status(status: TenantStatus, logged: LoggedLesson) -> TenantStatus:
    """Return the status after one lesson, which may begin, settle or end a rollout."""
    status = replace(status, lessons=status.lessons + 1)
    rollout = status.rollout
    if rollout is None or rollout.stage == "retired":
        if status.lessons < status.eligible_at:
            return status
        retirements = 0 if rollout is None else rollout.retirements + 1
        return replace(status, rollout=Rollout(retirements=retirements))
    if not logged.policy_randomized or logged.decided_by not in _COMPARED_POLICIES:
        return status
    side: RolloutSide = "priors" if logged.decided_by == PRIORS_POLICY else "learned"
    rollout = record_rollout_score(rollout, side, logged.lesson.quality, logged.at_ms)
    eligible_at = status.eligible_at
    if rollout.stage == "retired":
        eligible_at = status.lessons + RETRY_LESSONS * (1 + rollout.retirements)
    return replace(status, rollout=rollout, eligible_at=eligible_at)
