"""Decisions made again: with what was known then, every number must come out the same."""

from collections.abc import Callable, Iterable, Sequence

from msgspec import Struct

from sophia.core.ports import Store
from sophia.core.rows import Intent
from sophia.learning.lessons import ReadPlan, catch_up
from sophia.learning.live import Live
from sophia.learning.snapshots import BrokenSnapshot, decode
from sophia.routing.evidence import again, corrected_by, uncorrected
from sophia.routing.nouns import Evidence, Plan

Load = Callable[[str], bytes | None]


class Difference(Struct, frozen=True):
    """A decision that did not come out the same, and in what."""

    decision_id: int
    what: str


class Replayed(Struct, frozen=True):
    """What a replay came to.

    `unlearned` decisions were not taken by a learned policy; those that rest on snapshots which are
    no longer kept are `gone`: nobody can make them again.
    """

    same: int
    unlearned: int
    different: tuple[Difference, ...]
    gone: int = 0


class Gone(LookupError):
    """What a decision rests on is no longer kept, as `learning.keep_days` allows."""


class Replay:
    """Makes decisions of the ledger again.

    Args:
        store: holds decisions and lessons.
        ids: of the snapshots that are kept.
        gone: of those that were kept once.
        load: returns a snapshot's bytes.
        fresh: returns a live policy to restore a snapshot into.
        read: reads a plan.
    """

    def __init__(  # noqa: PLR0913 - each is one thing that decisions stand on
        self,
        store: Store,
        ids: Sequence[str],
        load: Load,
        fresh: Callable[[], Live],
        read: ReadPlan,
        gone: Sequence[str] = (),
    ) -> None:
        self._store = store
        self._ids = ids
        self._gone = gone
        self._load = load
        self._fresh = fresh
        self._read = read
        self._live: Live | None = None

    async def run(self, decisions: Iterable[Intent]) -> Replayed:
        """Replay `decisions`, oldest first."""
        same, unlearned, gone, different = 0, 0, 0, []
        for decision in decisions:
            plan = self._read(decision.plan or b"")
            if plan.evidence is None or not plan.evidence.rated:
                unlearned += 1
                continue
            try:
                what = await self._compare(decision, plan, plan.evidence)
            except Gone:
                gone += 1
                continue
            if what:
                different.append(Difference(decision.attempt_id, what))
            else:
                same += 1
        return Replayed(same, unlearned, tuple(different), gone)

    async def _compare(self, decision: Intent, plan: Plan, evidence: Evidence) -> str:
        """Return in what the decision comes out differently, or nothing."""
        try:
            live = await self._as_of(uncorrected(evidence.state))
            tenant = "" if live.shared else decision.key_id
            name = corrected_by(evidence.state)
            policy = live.challengers.policy(live.learner, tenant, name)
            arm, rated = again(policy, evidence, tenant)
        except Gone:
            raise
        except (LookupError, ValueError, BrokenSnapshot) as error:
            return str(error)
        if rated != evidence.rated:
            changed = [
                one.arm for one, kept in zip(rated, evidence.rated, strict=True) if one != kept
            ]
            return f"rated differently: {', '.join(changed)}"
        taken = plan.attempts[0].model
        if arm != taken:
            return f"{arm} instead of {taken}"
        chance = next(one.propensity for one in rated if one.arm == arm)
        return "" if chance == plan.propensity else f"probability {plan.propensity}, not {chance}"

    async def _as_of(self, state: str) -> Live:
        """Return the policy as it was: its snapshot, and the lessons since."""
        base, _, lessons = state.partition("+")
        known = self._live
        if known is None or not known.base.startswith(base) or known.lessons > int(lessons):
            known = self._restored(base)
        self._live = known
        await catch_up(known, self._store, self._read, until=int(lessons))
        return known

    def _restored(self, start: str) -> Live:
        found = [id for id in self._ids if start and id.startswith(start)]
        blob = self._load(found[0]) if len(found) == 1 else None
        if not found and start and any(id.startswith(start) for id in self._gone):
            raise Gone(start)
        if blob is None:
            raise LookupError(f"the snapshot {start or '(none)'} is not kept")
        live = self._fresh()
        live.restore(decode(blob, found[0]).state, found[0])
        return live
