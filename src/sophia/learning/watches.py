"""Whom each tenant suspects of having become worse: everybody watches for themselves."""

from collections.abc import Iterable

from sophia.routing.drift import Alarm, Alertness, Watch, watch

MOST_TENANTS = 10_000
_APART = "\0"

SavedWatch = tuple[str, int | None, float]
"""A tenant and an arm, the task, and the evidence."""


class Watches:
    """The watch of each tenant who suspects anybody; of too many the longest silent are dropped."""

    def __init__(self, saved: Iterable[SavedWatch] = ()) -> None:
        self._by_tenant: dict[str, Watch] = {}
        for place, task, total in saved:
            tenant, _, arm = place.partition(_APART)
            self._by_tenant.setdefault(tenant, Watch({})).sums[arm, task] = total

    def heard(
        self, tenant: str, arm: str, task: int, found: float, alertness: Alertness
    ) -> Alarm | None:
        """Take in what a tenant's outcome says of an arm; see `drift.watch`."""
        before = self._by_tenant.pop(tenant, None) or Watch()
        after, alarm = watch(before, arm, task, found, alertness)
        if after.sums:
            self._by_tenant[tenant] = after
        if len(self._by_tenant) > MOST_TENANTS:
            del self._by_tenant[next(iter(self._by_tenant))]
        return alarm

    def saved(self) -> list[SavedWatch]:
        """Return the whole state; the same state gives the same list."""
        return [
            (f"{tenant}{_APART}{arm}", task, total)
            for tenant, watched in self._by_tenant.items()
            for (arm, task), total in sorted(watched.sums.items(), key=str)
        ]
