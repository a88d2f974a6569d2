"""Budget arithmetic in whole nano-dollars: leases of workers, and reservations inside them.

`spent + held + leased <= limit` holds in the store, `used + reserved <= granted` in each worker.
"""

from datetime import UTC, datetime

from msgspec import Struct

from sophia.core.rows import LeaseRequest

SHARES = 8
"""A lease is what is free, divided by this and by the number of workers that spend."""
_FEWEST = 4
"""A smaller lease than this many requests is not worth it: then one request is leased at a time."""


def choose_grant(request: LeaseRequest, free: int, holders: int) -> int:
    """Return the part of `free` for a worker; it is negative where the worker has to give back.

    That is a share, so that it need not ask each time, and near the limit just its need.
    """
    if free < 0:
        return -min(max(request.idle, 0), -free)
    share = free // (SHARES * holders)
    if share >= max(_FEWEST * request.unit, request.need):
        return share
    return request.need if request.need <= free else 0


class BudgetSlice(Struct, kw_only=True):
    """A worker's part of a budget: `granted` by the store, `used` for good, `reserved` for now.

    `free` was left in the store for all when it was last asked, `limit` is the one it was asked
    with, `unit` the largest reservation, and `others` the number of other workers that have leases.
    `unlimited` is reserved for requests without a limit, for which nothing is leased; `waiting`
    requests wait for the store.
    """

    limit: int | None = None
    granted: int = 0
    used: int = 0
    reserved: int = 0
    free: int = 0
    unit: int = 0
    others: int = 0
    unlimited: int = 0
    last_use: float = 0.0
    waiting: int = 0

    @property
    def idle(self) -> int:
        """Nano-dollars that can be reserved at once."""
        return self.granted - self.used - self.reserved

    @property
    def should_renew(self) -> bool:
        """Whether more should be, and can be, leased ahead, before a request has to wait for it."""
        if self.idle >= 2 * _FEWEST * self.unit:
            return False
        return self.free // (SHARES * (self.others + 1)) >= max(_FEWEST * self.unit, 1)

    @property
    def is_empty(self) -> bool:
        """Whether nothing is leased or reserved."""
        is_used = self.reserved or self.unlimited or self.waiting
        return self.granted == self.used and not is_used

    def is_vague(self, limit: int) -> bool:
        """Return whether what other workers do decides how much is left."""
        if self.limit is None or not self.others:
            return self.limit is None
        return self.idle < self.wanted(limit)

    def wanted(self, limit: int) -> int:
        """Return the amount that the slice should cover before a request is planned."""
        return _FEWEST * self.unit or limit // 64

    def charge(self, amount: int) -> None:
        """Take a cost that the account pays beside the lease from the free amount."""
        self.free -= amount
        if self.free < 0:
            # A part of the lease has to be given back: the next request asks.
            self.limit = None

    def remaining(self, limit: int) -> int:
        """Return what may still be reserved under `limit`, as far as is known; never below 0."""
        moved = limit - self.limit if self.limit is not None else 0
        return max(self.idle + self.free + moved, 0)


def day_window(wall: float) -> str:
    """Return the name of the UTC day that contains Unix second `wall`."""
    return datetime.fromtimestamp(wall, UTC).strftime("%Y-%m-%d")


def seconds_to_next_day(wall: float) -> int:
    """Return the seconds from Unix second `wall` until the next UTC day begins."""
    return int(86_400 - wall % 86_400) + 1
