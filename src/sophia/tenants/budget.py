"""Budget arithmetic: `spent + held <= limit`, in whole nano-dollars, for each key and window."""

from datetime import UTC, datetime, timedelta

from msgspec import Struct


class Account(Struct, frozen=True):
    """One key's standing in one window."""

    spent: int = 0
    held: int = 0

    def reserve(self, amount: int, limit: int | None) -> "Account | None":
        """Return the account with `amount` held, or None when the limit does not allow it."""
        if limit is not None and self.spent + self.held + amount > limit:
            return None
        return Account(self.spent, self.held + amount)

    def settle(self, held: int, spent: int) -> "Account":
        """Return the account with a hold turned into its real cost, which may exceed the hold."""
        return Account(self.spent + spent, self.held - held)

    def left(self, limit: int | None) -> int | None:
        """Return what may still be held, never below zero; None when there is no limit."""
        return None if limit is None else max(limit - self.spent - self.held, 0)


def day_window(wall: float) -> str:
    """Return the name of the UTC day that contains Unix second `wall`."""
    return datetime.fromtimestamp(wall, UTC).strftime("%Y-%m-%d")


def seconds_to_next_day(wall: float) -> int:
    """Return the seconds from Unix second `wall` until the next UTC day begins."""
    now = datetime.fromtimestamp(wall, UTC)
    tomorrow = now.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
    return int((tomorrow - now).total_seconds()) + 1
