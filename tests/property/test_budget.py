"""A budget: `spent + held <= limit` at every moment, and no nano-dollar appears or is lost."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from sophia.adapters.coordinator import LocalCoordinator
from sophia.core.errors import BudgetExceeded
from sophia.core.rows import KeySpend, OpenHold
from sophia.tenants.budget import BudgetBalance, day_window, seconds_to_next_day

AMOUNTS = st.integers(0, 2**53)


@given(AMOUNTS, AMOUNTS, AMOUNTS, st.none() | AMOUNTS)
def test_a_hold_fits_or_changes_nothing(
    spent: int, held: int, amount: int, limit: int | None
) -> None:
    account = BudgetBalance(spent, held)
    after = account.reserve(amount, limit)
    if after is None:
        assert limit is not None and spent + held + amount > limit
    else:
        assert (after.spent, after.held) == (spent, held + amount)
        assert limit is None or after.spent + after.held <= limit


@given(AMOUNTS, AMOUNTS, AMOUNTS, AMOUNTS)
def test_settling_gives_the_difference_back(spent: int, held: int, amount: int, cost: int) -> None:
    account = BudgetBalance(spent, held + amount)
    assert account.settle(amount, cost) == BudgetBalance(spent + cost, held)


@given(AMOUNTS, AMOUNTS, AMOUNTS)
def test_what_is_left_can_be_held_and_no_more(spent: int, held: int, limit: int) -> None:
    account = BudgetBalance(spent, held)
    left = account.remaining(limit)
    assert left is not None and left >= 0
    if spent + held <= limit:
        assert account.reserve(left, limit) is not None
        assert account.reserve(left + 1, limit) is None
    assert account.remaining(None) is None


@given(st.floats(0, 4e9))
def test_a_day_ends_when_the_next_begins(wall: float) -> None:
    wait = seconds_to_next_day(wall)
    assert 0 < wait <= 86_401
    assert day_window(wall) < day_window(wall + wait)


class Budgets(RuleBasedStateMachine):
    """Two keys in two windows, reserved and settled in any order."""

    holds = Bundle("holds")
    LIMIT = 1000

    def __init__(self) -> None:
        super().__init__()
        self.coordinator = LocalCoordinator()
        self.spent: dict[tuple[str, str], int] = {}
        self.open: list[tuple[str, str, int]] = []

    @rule(
        target=holds,
        key=st.sampled_from("ab"),
        window=st.sampled_from(["d1", "d2"]),
        amount=st.integers(0, 700),
    )
    def reserve(self, key: str, window: str, amount: int) -> tuple[str, str, int] | None:
        before = self.coordinator.balance(key, window)
        try:
            asyncio.run(self.coordinator.reserve(key, window, self.LIMIT, amount))
        except BudgetExceeded as refused:
            assert sum(before) + amount > self.LIMIT
            assert self.coordinator.balance(key, window) == before
            assert refused.status == 402
            return None
        hold = (key, window, amount)
        self.open.append(hold)
        return hold

    @rule(hold=consumes(holds), share=st.floats(0, 1))
    def settle(self, hold: tuple[str, str, int] | None, share: float) -> None:
        if hold is None:
            return
        key, window, amount = hold
        cost = int(amount * share)
        self.coordinator.settle(key, window, amount, cost)
        self.open.remove(hold)
        self.spent[key, window] = self.spent.get((key, window), 0) + cost

    @rule()
    def restart(self) -> None:
        self.coordinator = LocalCoordinator(
            [KeySpend(key, window, nano) for (key, window), nano in self.spent.items()],
            [OpenHold(n, key, window, nano) for n, (key, window, nano) in enumerate(self.open)],
        )

    @invariant()
    def nothing_is_lost_and_nothing_is_overspent(self) -> None:
        for key in "ab":
            for window in ("d1", "d2"):
                spent, held = self.coordinator.balance(key, window)
                assert spent == self.spent.get((key, window), 0)
                assert held == sum(n for k, w, n in self.open if (k, w) == (key, window))
                assert spent + held <= self.LIMIT


TestBudgets = pytest.mark.filterwarnings("default::ResourceWarning")(Budgets.TestCase)
