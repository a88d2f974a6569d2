"""The challenges that are going on, by tenant: whose turn it is, and who steps back by itself."""

import logging
from collections.abc import Mapping

from sophia.learning.challenge import Challenge, Hearing, drawn, heard, kept_as
from sophia.learning.promotion import Gate
from sophia.routing.policies.policy import Policy
from sophia.routing.policies.residual import Correction, Residual, Rival

log = logging.getLogger("sophia.learning")

_READ = 500


class Challengers:
    """All tenants' challenges; they change as a whole, so that a snapshot can go before.

    Args:
        gate: of every contest.
        all: the challenges by tenant.
    """

    def __init__(self, gate: Gate, all: Mapping[str, Challenge] | None = None) -> None:
        self.all: Mapping[str, Challenge] = all or {}
        self.gate = gate
        self._read: dict[str, Correction] = {}

    def drawn(self, tenant: str, turn: float) -> str:
        """Return the correction that `turn`, uniform in [0, 1), deals to; "" for none."""
        challenge = self.all.get(tenant)
        return "" if challenge is None else drawn(challenge, turn, self.gate)

    def policy(self, base: Policy, tenant: str, name: str) -> Policy:
        """Return `base` with the tenant's correction of that name; "" for none.

        Raises LookupError when there is no such correction.
        """
        return Residual(base, self._correction(tenant, name)) if name else base

    def rival(self, tenant: str, name: str) -> Rival | None:
        """Return whom exploring is to follow where the correction `name` decides, if anybody."""
        challenge = self.all.get(tenant)
        if challenge is None or challenge.contest.stage not in {"shadow", "canary"}:
            return None
        ours = challenge.contest.challenger
        if name == ours:
            return None
        theirs = self._correction(tenant, name) if name else None
        return Rival(self._correction(tenant, ours), theirs)

    def hear(self, tenant: str, told: Hearing, lessons: int) -> None:
        """Take in a live score of a tenant who has given so many lessons."""
        challenge = self.all.get(tenant)
        if challenge is None:
            return
        after = heard(challenge, told, lessons, self.gate)
        if after is challenge:
            return
        tell(tenant, challenge, after)
        self.all = {**self.all, tenant: after}

    def _correction(self, tenant: str, name: str) -> Correction:
        known = self._read.get(name)
        if known is not None:
            return known
        challenge = self.all.get(tenant)
        packed = None if challenge is None else kept_as(challenge, name)
        if not packed:
            raise LookupError(f"the correction {name} is not of this state")
        if len(self._read) >= _READ:
            self._read.clear()
        self._read[name] = Correction.unpack(packed)
        return self._read[name]


def tell(tenant: str, before: Challenge | None, after: Challenge) -> None:
    """Write a line when the stage is another than it was."""
    contest = after.contest
    if before is None or before.contest.challenger != contest.challenger:
        log.info("%s challenges %s for %s", contest.challenger, contest.incumbent, tenant or "all")
    elif before.contest.stage != contest.stage:
        step = contest.history[-1]
        log.info(
            "%s for %s: %s, %s", contest.challenger, tenant or "all", step.after, step.reason
        )
