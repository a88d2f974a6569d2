"""Budget arithmetic: `spent + held <= limit`, in whole nano-dollars, for each key and window."""

from datetime import UTC, datetime

from msgspec import Struct


class BudgetBalance(Struct, frozen=True):
    """Nano-dollars of one key in one window: spent, and held for what has no bill yet."""

    spent: int = 0
    held: int = 0

    def reserve(self, amount: int, limit: int | None) -> "BudgetBalance | None":
        """Return the balance with `amount` held, or None when it would exceed the limit."""
        if limit is not None and self.spent + self.held + amount > limit:
            return None
        return BudgetBalance(self.spent, self.held + amount)

    def settle(self, held: int, spent: int) -> "BudgetBalance":
        """Return the balance with a hold turned into its real cost, which may exceed the hold."""
        return BudgetBalance(self.spent + spent, self.held - held)

    def remaining(self, limit: int | None) -> int | None:
        """Return the amount that may still be held, never below 0; None without a limit."""
        return None if limit is None else max(limit - self.spent - self.held, 0)


def day_window(wall: float) -> str:
    """Return the name of the UTC day that contains Unix second `wall`."""
    return datetime.fromtimestamp(wall, UTC).strftime("%Y-%m-%d")


def seconds_to_next_day(wall: float) -> int:
    """Return the seconds from Unix second `wall` until the next UTC day begins."""
    return int(86_400 - wall % 86_400) + 1
