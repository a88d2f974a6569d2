"""Drift detectors by tenant: each tenant's outcomes raise alarms for that tenant alone."""

from collections.abc import Iterable

from sophia.core.bounded import BoundedDict
from sophia.routing.bandit.drift import DriftAlarm, DriftState, update_drift

MAX_TENANTS = 10_000
_SEPARATOR = "\0"

DriftSum = tuple[str, int | None, float]
"""Tenant and arm, task, and accumulated evidence."""


class DriftDetectors:
    """Drift states of the tenants with evidence against any arm, the latest 10,000 of them."""

    def __init__(self, saved: Iterable[DriftSum] = ()) -> None:
        self._by_tenant: BoundedDict[str, DriftState] = BoundedDict(MAX_TENANTS)
        for place, task, total in saved:
            tenant, _, arm = place.partition(_SEPARATOR)
            self._by_tenant.setdefault(tenant, DriftState({})).sums[arm, task] = total

    def update(self, tenant: str, arm: str, task: int, evidence: float) -> DriftAlarm | None:
        """Add evidence against an arm; see `update_drift`."""
        before = self._by_tenant.pop(tenant, None) or DriftState()
        state, alarm = update_drift(before, arm, task, evidence)
        if state.sums:
            self._by_tenant[tenant] = state
        return alarm

    def to_state(self) -> list[DriftSum]:
        """Return the whole state; equal states give equal lists."""
        return [
            (f"{tenant}{_SEPARATOR}{arm}", task, total)
            for tenant, state in self._by_tenant.items()
            for (arm, task), total in sorted(state.sums.items(), key=str)
        ]
