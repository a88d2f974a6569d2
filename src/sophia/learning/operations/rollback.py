"""Return to an earlier snapshot of the learned policy."""

from sophia.core.ports import FeedbackStore
from sophia.learning.online.archive import PolicyArchive
from sophia.learning.online.catch_up import find_last_lesson
from sophia.learning.snapshots import find_rollback_target


async def roll_back(
    archive: PolicyArchive, store: FeedbackStore, target: str | None, now_ms: int
) -> str:
    """Put a copy of an earlier snapshot into service; return the copy's id.

    The copy counts as having learned every lesson of the ledger, so that none is learned again.
    `target` is a snapshot's id or its beginning; None for the step before the current one.

    Raises:
        UnknownSnapshot: no snapshot, or more than one, begins with `target`.
        BrokenSnapshot: it cannot be read.
    """
    step = find_rollback_target(archive.read_history(), target)
    policy, _ = archive.load(step.id)
    policy.lesson_count = await find_last_lesson(store, policy.lesson_count)
    policy.shared = archive.shared
    origin = step.restores or step.id
    return archive.publish(policy, now_ms, f"rolled back to {origin[:16]}", restores=origin)
