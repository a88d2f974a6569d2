"""Budgets of a single process: exact arithmetic in memory, rebuilt from the ledger at start."""

from collections.abc import Sequence

from sophia.core.errors import BudgetExceeded
from sophia.core.money import format_usd
from sophia.core.rows import KeySpend, OpenHold
from sophia.tenants.budget import BudgetBalance

_EMPTY = BudgetBalance()


class LocalCoordinator:
    """Balances by key and window, starting from the ledger's spends and open holds."""

    def __init__(self, spends: Sequence[KeySpend] = (), holds: Sequence[OpenHold] = ()) -> None:
        self._balances: dict[tuple[str, str], BudgetBalance] = {}
        for spend in spends:
            self.settle(spend.key_id, spend.window, 0, spend.spent_nano)
        for hold in holds:
            self.settle(hold.key_id, hold.window, -hold.held_nano, 0)

    async def reserve(self, key_id: str, window: str, limit: int | None, amount: int) -> None:
        """Hold `amount` nano-dollars. Raises BudgetExceeded and holds nothing."""
        balance = self._balances.get((key_id, window), _EMPTY)
        reserved = balance.reserve(amount, limit)
        if reserved is None:
            raise BudgetExceeded(
                f"This key's budget of {format_usd(limit or 0)} for {window} has "
                f"{format_usd(balance.remaining(limit) or 0)} left "
                f"({format_usd(balance.held)} is held); "
                f"this request may cost {format_usd(amount)}. Raise the key's daily "
                "budget, lower max_tokens, or wait for the next day (UTC)."
            )
        self._balances[key_id, window] = reserved

    def settle(self, key_id: str, window: str, held: int, spent: int) -> None:
        """Replace a hold by the real cost."""
        balance = self._balances.get((key_id, window), _EMPTY)
        self._balances[key_id, window] = balance.settle(held, spent)

    def balance(self, key_id: str, window: str) -> tuple[int, int]:
        """Return (spent, held) in nano-dollars."""
        balance = self._balances.get((key_id, window), _EMPTY)
        return balance.spent, balance.held
