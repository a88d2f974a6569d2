"""What every coordinator of budgets promises."""

import asyncio

import pytest

from sophia.adapters.coordinator import LocalCoordinator
from sophia.catalogue.model import Model
from sophia.catalogue.prices import Prices, Tier
from sophia.core.errors import BudgetExceeded, Unavailable
from sophia.core.ports import Coordinator
from sophia.core.rows import OpenHold, Spend
from sophia.routing.nouns import Attempt
from sophia.serving.tab import Bid, Books, Payer
from sophia.testing.memory import MemoryStore


@pytest.fixture(params=[LocalCoordinator])
def coordinator(request: pytest.FixtureRequest) -> Coordinator:
    made: Coordinator = request.param()
    return made


async def test_a_hold_counts_until_it_is_settled(coordinator: Coordinator) -> None:
    await coordinator.reserve("k", "d", 100, 60)
    assert coordinator.standing("k", "d") == (0, 60)
    coordinator.settle("k", "d", 60, 25)
    assert coordinator.standing("k", "d") == (25, 0)


async def test_the_limit_is_exact_and_a_refusal_holds_nothing(coordinator: Coordinator) -> None:
    await coordinator.reserve("k", "d", 100, 100)
    with pytest.raises(BudgetExceeded, match="budget"):
        await coordinator.reserve("k", "d", 100, 1)
    assert coordinator.standing("k", "d") == (0, 100)
    await coordinator.reserve("k", "d", 100, 0)


async def test_keys_and_windows_are_apart(coordinator: Coordinator) -> None:
    await coordinator.reserve("k", "d1", 10, 10)
    await coordinator.reserve("k", "d2", 10, 10)
    await coordinator.reserve("other", "d1", 10, 10)
    coordinator.settle("k", "d1", 10, 3)
    assert coordinator.standing("k", "d1") == (3, 0)
    assert coordinator.standing("k", "d2") == coordinator.standing("other", "d1") == (0, 10)


async def test_no_limit_is_no_limit(coordinator: Coordinator) -> None:
    await coordinator.reserve("k", "d", None, 2**62)
    assert coordinator.standing("k", "d") == (0, 2**62)


async def test_a_bill_above_its_hold_is_kept_in_full(coordinator: Coordinator) -> None:
    await coordinator.reserve("k", "d", 100, 100)
    coordinator.settle("k", "d", 100, 130)
    assert coordinator.standing("k", "d") == (130, 0)
    with pytest.raises(BudgetExceeded):
        await coordinator.reserve("k", "d", 100, 1)


async def test_at_once_nobody_gets_more_than_there_is(coordinator: Coordinator) -> None:
    asked = (coordinator.reserve("k", "d", 100, 7) for _ in range(50))
    refused = [e for e in await asyncio.gather(*asked, return_exceptions=True) if e is not None]
    assert len(refused) == 36 and all(isinstance(e, BudgetExceeded) for e in refused)
    assert coordinator.standing("k", "d") == (0, 98)


async def test_it_starts_from_what_the_ledger_knows() -> None:
    coordinator = LocalCoordinator(
        [Spend("k", "d", 30)], [OpenHold(1, "k", "d", 20), OpenHold(2, "k", "d", 5)]
    )
    assert coordinator.standing("k", "d") == (30, 25)


class StillClock:
    """Noon of the first day."""

    def monotonic(self) -> float:
        return 5.0

    def wall(self) -> float:
        return 43_200.0


async def test_a_hold_is_free_again_when_the_ledger_cannot_take_the_intent(
    coordinator: Coordinator,
) -> None:
    books = Books(coordinator, MemoryStore(limit=0), StillClock())
    prices = Prices((Tier(0, 1, 1),))
    model = Model("m", "m", 100, None, prices, frozenset(), frozenset(), frozenset(), "chat")
    bid = Bid(Attempt("m", "named", 1, 50), model, "up", 1)
    payer = Payer("k", 100, "1970-01-01")
    with pytest.raises(Unavailable):
        await books.open(payer, 16, 0, bid)
    assert coordinator.standing("k", "1970-01-01") == (0, 0)
