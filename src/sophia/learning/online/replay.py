"""Decisions of the ledger made again, which must come out the same in every number."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from msgspec import Struct

from sophia.core.ports import Store
from sophia.core.rows import AttemptIntent
from sophia.learning.online.archive import PolicyArchive
from sophia.learning.online.catch_up import catch_up
from sophia.learning.online.policy import OnlinePolicy
from sophia.learning.snapshots import BrokenSnapshot
from sophia.routing.explain.trace import replay_decision
from sophia.routing.rank import PRIORS_POLICY
from sophia.routing.types import DecisionTrace, Plan, decode_plan


class ReplayMismatch(Struct, frozen=True):
    """A decision that came out differently, and the difference."""

    decision_id: int
    description: str


class ReplayResult(Struct, frozen=True):
    """Result of a replay.

    `skipped` counts decisions that no learned policy made, `expired` those with snapshots that
    are no longer kept.
    """

    identical: int
    skipped: int
    different: tuple[ReplayMismatch, ...]
    expired: int = 0


class SnapshotExpired(Exception):
    """The snapshot behind a decision is no longer kept; see `learning.keep_days`."""


@dataclass(slots=True)
class DecisionReplay:
    """Make decisions of the ledger again with the snapshots behind them."""

    archive: PolicyArchive
    store: Store
    _policy: OnlinePolicy | None = field(default=None, init=False)

    async def run(self, decisions: Iterable[AttemptIntent]) -> ReplayResult:
        """Replay `decisions`, oldest first."""
        identical, skipped, expired, different = 0, 0, 0, []
        for decision in decisions:
            plan = decode_plan(decision.plan or b"")
            if plan.trace is None or not plan.trace.rated_arms:
                skipped += 1
                continue
            try:
                difference = await self._compare(decision, plan, plan.trace)
            except SnapshotExpired:
                expired += 1
                continue
            if difference:
                different.append(ReplayMismatch(decision.attempt_id, difference))
            else:
                identical += 1
        return ReplayResult(identical, skipped, tuple(different), expired)

    async def _compare(self, decision: AttemptIntent, plan: Plan, trace: DecisionTrace) -> str:
        """Return the difference, or an empty string."""
        try:
            policy = await self._policy_at(trace.state)
            tenant = "" if policy.shared else decision.key_id
            by_priors = plan.policy == PRIORS_POLICY
            learner = policy.priors if by_priors else policy.learner
            model, rows = replay_decision(learner, trace, tenant)
        except (LookupError, ValueError, BrokenSnapshot) as error:
            return str(error)
        changed = [
            row.model for row, logged in zip(rows, trace.rated_arms, strict=True) if row != logged
        ]
        if changed:
            return f"rated differently: {', '.join(changed)}"
        chosen = plan.attempts[0].model
        if model != chosen:
            return f"{model} instead of {chosen}"
        propensity = next(row.propensity for row in rows if row.model == model)
        if propensity != plan.propensity:
            return f"probability {propensity} instead of {plan.propensity}"
        return ""

    async def _policy_at(self, state: str) -> OnlinePolicy:
        """Return the policy in an earlier state: its snapshot, and the lessons since."""
        snapshot, _, number = state.partition("+")
        if not number.isdigit():
            raise SnapshotExpired(state)  # An early release's correction on top of the policy.
        policy, lesson = self._policy, int(number)
        usable = policy is not None and policy.snapshot_id.startswith(snapshot)
        if policy is None or not usable or policy.lesson_count > lesson:
            policy = self._policy = self._restore(snapshot)
        await catch_up(policy, self.store, last_lesson=lesson)
        return policy

    def _restore(self, prefix: str) -> OnlinePolicy:
        if not prefix:
            raise LookupError("there is no snapshot (none)")
        ids = [id for id in self.archive.snapshots.ids() if id.startswith(prefix)]
        if len(ids) == 1:
            return self.archive.load(ids[0])[0]
        history = self.archive.read_history()
        if not ids and any(step.expired and step.id.startswith(prefix) for step in history):
            raise SnapshotExpired(prefix)
        raise LookupError(f"there is no snapshot {prefix}")
