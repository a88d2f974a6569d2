"""The learned policy in its snapshots: load it, and put a changed one into service."""

from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from sophia.core.ports import SnapshotStore
from sophia.learning.online.policy import OnlinePolicy
from sophia.learning.snapshots import (
    ActivationHistory,
    BrokenSnapshot,
    Snapshot,
    SnapshotActivation,
    SnapshotConflict,
    SnapshotRetention,
    activate_snapshot,
    active_snapshot_id,
    compute_snapshot_id,
    decode_history,
    decode_snapshot,
    encode_history,
    encode_snapshot,
    prune_snapshots,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyArchive:
    """Snapshots of the learned policy.

    `new_policy` returns a policy without lessons, to restore a snapshot into; `shared` says whether
    all keys learn together from now on.
    """

    snapshots: SnapshotStore
    new_policy: Callable[[], OnlinePolicy]
    retention: SnapshotRetention
    shared: bool

    def read_history(self) -> ActivationHistory:
        """Return the snapshots that were in service, oldest first. Raises BrokenSnapshot."""
        return decode_history(self.snapshots.load_history())

    def load(self, id: str) -> tuple[OnlinePolicy, Snapshot]:
        """Return the policy that a snapshot holds, and the snapshot. Raises BrokenSnapshot."""
        blob = self.snapshots.load(id)
        if blob is None:
            raise BrokenSnapshot(f"the snapshot {id[:16]} is missing")
        snapshot, policy = decode_snapshot(blob, id), self.new_policy()
        try:
            policy.restore(snapshot.state, id)
        except msgspec.DecodeError as error:
            raise BrokenSnapshot(f"the snapshot {id[:16]} holds another state: {error}") from error
        return policy, snapshot

    def load_active(self) -> OnlinePolicy:
        """Return the policy in service, a new one before the first snapshot."""
        id = active_snapshot_id(self.read_history())
        return self.new_policy() if id is None else self.load(id)[0]

    def read_lesson_count(self, id: str) -> int | None:
        """Return the number of the last lesson in a snapshot; None when it cannot be read."""
        try:
            return self.load(id)[0].lesson_count
        except BrokenSnapshot:
            return None

    def publish(  # noqa: PLR0913 - the columns of a history
        self,
        policy: OnlinePolicy,
        now_ms: int,
        reason: str,
        *,
        state: bytes | None = None,
        restores: str | None = None,
        amends: bool = False,
        metrics: dict[str, float] | None = None,
    ) -> str:
        """Put a policy that was loaded here and changed into service; return its snapshot's id.

        `state` is the policy's snapshot, where it was taken already; for `restores` and `amends`
        see `SnapshotActivation`. Snapshots past their retention are deleted.

        Raises SnapshotConflict when another one was put into service since it was loaded, unless it
        restores an earlier one: a server and a command may change the policy at the same time, and
        neither may undo the other's change.
        """
        snapshot = Snapshot(
            policy="live",
            state=policy.snapshot() if state is None else state,
            created_ms=now_ms,
            parent=policy.snapshot_id or None,
            window=(0, now_ms if metrics else 0),
            metrics=metrics or {},
        )
        id = compute_snapshot_id(snapshot)
        activation = SnapshotActivation(
            id=id, at_ms=now_ms, reason=reason, restores=restores, amends_previous=amends
        )
        with self.snapshots.lock():
            history = self.read_history()
            if restores is None and active_snapshot_id(history) != snapshot.parent:
                raise SnapshotConflict(
                    "another snapshot was put into service meanwhile; nothing was changed"
                )
            self.snapshots.save(id, encode_snapshot(snapshot))
            history = prune_snapshots(
                activate_snapshot(history, activation), self.retention, now_ms
            )
            # History first: a file too many is harmless, one too few is not.
            self.snapshots.save_history(encode_history(history))
            for step in history:
                if step.expired:
                    self.snapshots.remove(step.id)
        return id
