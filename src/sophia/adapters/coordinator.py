"""Budgets of a single process: exact arithmetic in memory, rebuilt from the ledger at start."""

from collections.abc import Sequence

from sophia.core.errors import BudgetExceeded
from sophia.core.money import format_usd
from sophia.core.rows import OpenHold, Spend
from sophia.tenants.budget import Account

_NOTHING = Account()


class LocalCoordinator:
    """Accounts by (key, window); the ledger's spends and open holds are where it starts from."""

    def __init__(self, spends: Sequence[Spend] = (), holds: Sequence[OpenHold] = ()) -> None:
        self._accounts: dict[tuple[str, str], Account] = {}
        for spend in spends:
            self._put(spend.key_id, spend.window, spend.spent_nano, 0)
        for hold in holds:
            self._put(hold.key_id, hold.window, 0, hold.held_nano)

    def _put(self, key_id: str, window: str, spent: int, held: int) -> None:
        account = self._accounts.get((key_id, window), _NOTHING)
        self._accounts[key_id, window] = Account(account.spent + spent, account.held + held)

    async def reserve(self, key_id: str, window: str, limit: int | None, amount: int) -> None:
        """Hold `amount` nano-dollars. Raises BudgetExceeded and holds nothing."""
        account = self._accounts.get((key_id, window), _NOTHING)
        held = account.reserve(amount, limit)
        if held is None:
            raise BudgetExceeded(
                f"This key's budget of {format_usd(limit or 0)} for {window} has "
                f"{format_usd(account.left(limit) or 0)} left ({format_usd(account.held)} is held "
                f"for requests that are running); this request may cost {format_usd(amount)}. "
                "Raise the key's daily budget, lower max_tokens, or wait for the next day (UTC)."
            )
        self._accounts[key_id, window] = held

    def settle(self, key_id: str, window: str, held: int, spent: int) -> None:
        """Turn a hold into what was really spent."""
        account = self._accounts.get((key_id, window), _NOTHING)
        self._accounts[key_id, window] = account.settle(held, spent)

    def standing(self, key_id: str, window: str) -> tuple[int, int]:
        """Return (spent, held) in nano-dollars."""
        account = self._accounts.get((key_id, window), _NOTHING)
        return account.spent, account.held
