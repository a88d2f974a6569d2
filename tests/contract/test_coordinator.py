"""What every coordinator of budgets promises."""

import asyncio

import pytest

from sophia.adapters.coordinator import LocalCoordinator
from sophia.catalogue.model import Model
from sophia.catalogue.prices import Prices, PriceTier
from sophia.core.calls import Deadlines
from sophia.core.errors import BudgetExceeded, Unavailable
from sophia.core.ports import Coordinator
from sophia.core.rows import KeySpend, OpenHold
from sophia.routing.types import Attempt
from sophia.serving.attempts.reservation import (
    AttemptResult,
    AttemptSpec,
    BudgetScope,
    Ledger,
    RuntimeLimits,
)
from sophia.tenants.keys import Principal
from sophia.testing.clock import ManualClock
from sophia.testing.memory import MemoryStore


@pytest.fixture(params=[LocalCoordinator])
def coordinator(request: pytest.FixtureRequest) -> Coordinator:
    coordinator: Coordinator = request.param()
    return coordinator


async def test_a_hold_counts_until_it_is_settled(coordinator: Coordinator) -> None:
    await coordinator.reserve("k", "d", 100, 60)
    assert coordinator.balance("k", "d") == (0, 60)
    coordinator.settle("k", "d", 60, 25)
    assert coordinator.balance("k", "d") == (25, 0)


async def test_the_limit_is_exact_and_a_refusal_holds_nothing(coordinator: Coordinator) -> None:
    await coordinator.reserve("k", "d", 100, 100)
    with pytest.raises(BudgetExceeded, match="budget"):
        await coordinator.reserve("k", "d", 100, 1)
    assert coordinator.balance("k", "d") == (0, 100)
    await coordinator.reserve("k", "d", 100, 0)


async def test_keys_and_windows_are_apart(coordinator: Coordinator) -> None:
    await coordinator.reserve("k", "d1", 10, 10)
    await coordinator.reserve("k", "d2", 10, 10)
    await coordinator.reserve("other", "d1", 10, 10)
    coordinator.settle("k", "d1", 10, 3)
    assert coordinator.balance("k", "d1") == (3, 0)
    assert coordinator.balance("k", "d2") == coordinator.balance("other", "d1") == (0, 10)


async def test_no_limit_is_no_limit(coordinator: Coordinator) -> None:
    await coordinator.reserve("k", "d", None, 2**62)
    assert coordinator.balance("k", "d") == (0, 2**62)


async def test_a_bill_above_its_hold_is_kept_in_full(coordinator: Coordinator) -> None:
    await coordinator.reserve("k", "d", 100, 100)
    coordinator.settle("k", "d", 100, 130)
    assert coordinator.balance("k", "d") == (130, 0)
    with pytest.raises(BudgetExceeded):
        await coordinator.reserve("k", "d", 100, 1)


async def test_concurrent_reservations_stay_within_the_limit(coordinator: Coordinator) -> None:
    reservations = (coordinator.reserve("k", "d", 100, 7) for _ in range(50))
    refused = [
        e for e in await asyncio.gather(*reservations, return_exceptions=True) if e is not None
    ]
    assert len(refused) == 36 and all(isinstance(e, BudgetExceeded) for e in refused)
    assert coordinator.balance("k", "d") == (0, 98)


async def test_it_starts_from_what_the_ledger_knows() -> None:
    coordinator = LocalCoordinator(
        [KeySpend("k", "d", 30)], [OpenHold(1, "k", "d", 20), OpenHold(2, "k", "d", 5)]
    )
    assert coordinator.balance("k", "d") == (30, 25)


LIMITS = RuntimeLimits(
    daily_budget_nano=5,
    per_request_nano=7,
    max_attempts=1,
    price_margin=0,
    deadlines=Deadlines(),
    non_streaming_deadlines=Deadlines(),
    request_timeout_seconds=1.0,
)


class StillClock:
    """Noon of the first day."""

    def monotonic(self) -> float:
        return 5.0

    def wall(self) -> float:
        return 43_200.0


def spec(held_nano: int) -> AttemptSpec:
    """Return an attempt that reserves `held_nano`."""
    prices = Prices((PriceTier(min_prompt_tokens=0, prompt=1, completion=1),))
    model = Model(
        id="m",
        name="m",
        context_length=100,
        max_output_tokens=None,
        prices=prices,
        input_modalities=frozenset(),
        output_modalities=frozenset(),
        supported_parameters=frozenset(),
        kind="chat",
    )
    return AttemptSpec(
        attempt=Attempt("m", "named", 1, held_nano),
        model=model,
        upstream="up",
        reports_cost=False,
        prompt_tokens=1,
    )


async def test_a_hold_is_free_again_when_the_ledger_cannot_take_the_intent(
    coordinator: Coordinator,
) -> None:
    ledger = Ledger(coordinator=coordinator, store=MemoryStore(limit=0), clock=StillClock())
    scope = BudgetScope("k", 100, "1970-01-01")
    with pytest.raises(Unavailable):
        await ledger.reserve(scope, 16, 0, spec(50))
    assert coordinator.balance("k", "1970-01-01") == (0, 0)


async def test_a_refused_reservation_says_when_the_next_window_begins(
    coordinator: Coordinator,
) -> None:
    """The budget may be used up between the decision and the reservation."""
    store = MemoryStore()
    ledger = Ledger(coordinator=coordinator, store=store, clock=StillClock())
    with pytest.raises(BudgetExceeded) as caught:
        await ledger.reserve(BudgetScope("k", 49, "1970-01-01"), 16, 0, spec(50))
    assert caught.value.status == 402
    assert caught.value.retry_after == ledger.seconds_to_next_window() > 43_000
    assert coordinator.balance("k", "1970-01-01") == (0, 0)
    assert not await store.open_holds()


async def test_a_refused_reservation_says_how_much_is_in_doubt(coordinator: Coordinator) -> None:
    ledger = Ledger(coordinator=coordinator, store=MemoryStore(), clock=StillClock())
    scope = BudgetScope("k", 100, "1970-01-01")
    first = await ledger.reserve(scope, 16, 0, spec(60))
    assert (ledger.running, ledger.held_nano) == (1, 60)
    first.close_unknown(AttemptResult())
    assert (ledger.running, ledger.held_nano, ledger.unknown.nano) == (0, 0, 1)
    await ledger.reserve(BudgetScope("other", 100, "1970-01-01"), 32, 0, spec(1))
    with pytest.raises(BudgetExceeded) as caught:
        await ledger.reserve(scope, 48, 0, spec(100))
    told = caught.value.message
    assert "$0.000000001 of the budget is held for calls whose cost is not known yet (1)" in told
    assert "or 13:00 UTC" in told


async def test_a_new_day_has_the_whole_budget_and_yesterdays_bill_stays_with_yesterday(
    coordinator: Coordinator,
) -> None:
    """The window follows the clock while the process runs."""
    clock = ManualClock(wall=86_399.0)
    ledger = Ledger(coordinator=coordinator, store=MemoryStore(), clock=clock)
    key = Principal(
        key_id="k", name="name", scope="inference", daily_budget_nano=100, per_request_nano=None
    )
    evening = ledger.budget_scope(key, LIMITS)
    late = await ledger.reserve(evening, 16, 0, spec(100))
    assert ledger.remaining(evening) == 0
    clock.advance(2.0)
    morning = ledger.budget_scope(key, LIMITS)
    assert (evening.window, morning.window) == ("1970-01-01", "1970-01-02")
    assert ledger.remaining(morning) == 100
    kept = late.close_unknown(AttemptResult()).cost_nano
    assert coordinator.balance("k", evening.window) == (0, kept) and kept <= 100
    await ledger.reserve(morning, 32, 0, spec(100))


def test_a_keys_own_limits_come_before_the_defaults_even_when_they_are_0() -> None:
    """0 means that nothing may be spent, not that there is no limit."""
    ledger = Ledger(coordinator=LocalCoordinator(), store=MemoryStore(), clock=StillClock())
    zero = Principal(
        key_id="k", name="name", scope="inference", daily_budget_nano=0, per_request_nano=0
    )
    unset = Principal(
        key_id="k", name="name", scope="inference", daily_budget_nano=None, per_request_nano=None
    )
    own, default = ledger.budget_scope(zero, LIMITS), ledger.budget_scope(unset, LIMITS)
    assert (own.daily_limit, own.per_request_limit) == (0, 0)
    assert (default.daily_limit, default.per_request_limit) == (5, 7)
