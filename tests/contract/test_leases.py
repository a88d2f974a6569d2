"""What a worker leases of a budget: exact over any number of workers, and over their ends."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from disk import full_disk
from sophia.adapters.leases import LeasedBudgets
from sophia.adapters.store.store import SqlStore
from sophia.catalogue.model import Model
from sophia.catalogue.prices import Prices, PriceTier
from sophia.core.calls import Deadlines
from sophia.core.errors import BudgetExceeded, Unavailable
from sophia.core.ids import IdGenerator
from sophia.core.ports import Clock
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
from store_rows import DAY, intent, outcome
from stores import locked_store, open_test_store


class RunningClock:
    """A clock that runs."""

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    def wall(self) -> float:
        return 43_200.0


class Worker:
    """A process that spends: its store, and what it has leased."""

    def __init__(self, store: SqlStore) -> None:
        self.store = store
        self.budgets = LeasedBudgets(store, RunningClock())
        self.ids = IdGenerator(lambda: 1_796_000_000_000, store.worker)

    async def reserve(self, amount: int, limit: int | None = 100) -> bool:
        return await self.budgets.reserve("k", DAY, limit, amount)

    async def spend(self, held: int, cost: int, limit: int | None = 100) -> None:
        """Make an attempt, as the ledger does."""
        leased = await self.reserve(held, limit)
        id = self.ids.next()
        await self.store.reserve(intent(id, held=held))
        self.budgets.settle("k", DAY, held, cost, leased=leased)
        self.store.settle(outcome(id, cost=cost), ("k",) if leased else ())

    async def standing(self) -> tuple[int, int, int]:
        """Return what the account has spent, holds and has leased, in the store."""
        row = await self.store.account("k", DAY)
        return row.spent_nano, row.held_nano, row.leased_nano

    async def answer(self) -> None:
        """Answer calls for ever, as the timer does."""
        while True:
            await self.budgets.answer_calls()
            await asyncio.sleep(0.01)


@asynccontextmanager
async def workers(folder: Path, count: int) -> AsyncIterator[list[Worker]]:
    """Run workers that share a folder."""
    async with AsyncExitStack() as stack:
        running = []
        for _ in range(count):
            worker = Worker(await stack.enter_async_context(open_test_store(folder)))
            stack.push_async_callback(worker.budgets.close)
            running.append(worker)
        tasks = [asyncio.create_task(worker.answer()) for worker in running]
        yield running
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture
async def worker(any_folder: Path) -> AsyncIterator[Worker]:
    async with workers(any_folder, 1) as (only,):
        yield only


async def test_a_hold_counts_until_it_is_settled(worker: Worker) -> None:
    await worker.spend(60, 25)
    assert worker.budgets.remaining("k", DAY, 100) == 75
    await worker.reserve(75)
    assert worker.budgets.in_flight("k", DAY) == 75
    assert worker.budgets.remaining("k", DAY, 100) == 0
    assert (await worker.standing())[0] == 25


async def test_the_limit_is_exact_and_a_refusal_holds_nothing(worker: Worker) -> None:
    await worker.reserve(100)
    with pytest.raises(BudgetExceeded, match="budget"):
        await worker.reserve(1)
    assert worker.budgets.in_flight("k", DAY) == 100
    await worker.reserve(0)


async def test_keys_and_windows_are_apart(worker: Worker) -> None:
    for account, window in (("k", "d1"), ("k", "d2"), ("other", "d1")):
        await worker.budgets.reserve(account, window, 10, 10)
    worker.budgets.settle("k", "d1", 10, 3, leased=True)
    assert worker.budgets.remaining("k", "d1", 10) == 7
    assert worker.budgets.remaining("k", "d2", 10) == 0
    assert worker.budgets.remaining("other", "d1", 10) == 0


async def test_no_limit_is_no_limit_and_leases_nothing(worker: Worker) -> None:
    assert not await worker.reserve(2**62, None)
    assert worker.budgets.in_flight("k", DAY) == 2**62
    assert await worker.standing() == (0, 0, 0)


async def test_a_bill_above_its_hold_is_kept_in_full(worker: Worker) -> None:
    await worker.spend(100, 130)
    assert (await worker.standing())[0] == 130
    with pytest.raises(BudgetExceeded):
        await worker.reserve(1)


async def test_concurrent_reservations_stay_within_the_limit(worker: Worker) -> None:
    results = await asyncio.gather(*(worker.reserve(7) for _ in range(50)), return_exceptions=True)
    refused = [each for each in results if isinstance(each, Exception)]
    assert len(refused) == 36 and all(isinstance(each, BudgetExceeded) for each in refused)
    assert worker.budgets.in_flight("k", DAY) == 98


async def test_a_limit_that_is_raised_or_cut_holds_for_the_next_request(worker: Worker) -> None:
    await worker.spend(40, 40)
    await worker.reserve(50, 1000)
    with pytest.raises(BudgetExceeded):
        await worker.reserve(11, 100)
    await worker.reserve(10, 100)
    spent, _, leased = await worker.standing()
    assert spent + leased == 100
    with pytest.raises(BudgetExceeded):
        await worker.reserve(1, 100)


async def test_what_is_left_is_used_up_to_the_last_request_that_fits(any_folder: Path) -> None:
    """A budget for 1,000 requests over four workers serves 1,000, whoever gets them."""
    limit, each = 1000 * 100, 100
    async with workers(any_folder, 4) as running:

        async def ask(number: int) -> bool:
            worker = running[number % 4]
            try:
                await worker.spend(each, each, limit)
            except BudgetExceeded:
                return False
            return True

        served = 0
        for start in range(0, 1040, 40):
            served += sum(await asyncio.gather(*map(ask, range(start, start + 40))))
        assert served == 1000
        for worker in running:
            await worker.store.account("k", DAY)
        assert (await running[0].standing())[:2] == (limit, 0)


async def test_a_worker_gets_what_another_does_not_use(any_folder: Path) -> None:
    async with workers(any_folder, 2) as (first, second):
        await first.spend(10, 10, 10_000)
        assert (await first.standing())[2] > 1000
        await second.reserve(9_990, 10_000)
        with pytest.raises(BudgetExceeded):
            await first.reserve(1, 10_000)
        second.budgets.settle("k", DAY, 9_990, 0, leased=True)
        await first.reserve(9_990, 10_000)


async def test_a_refusal_waits_for_no_worker_that_has_answered(any_folder: Path) -> None:
    async with workers(any_folder, 3) as (first, second, third):
        for worker in (first, second, third):
            await worker.reserve(20, 60)
        began = asyncio.get_running_loop().time()
        with pytest.raises(BudgetExceeded):
            await first.reserve(1, 60)
        assert asyncio.get_running_loop().time() - began < 0.5


async def test_leases_end_with_their_worker(any_folder: Path) -> None:
    async with workers(any_folder, 1) as (worker,):
        await worker.spend(10, 4)
        assert (await worker.standing())[2] > 0
    async with workers(any_folder, 1) as (worker,):
        assert await worker.standing() == (4, 0, 0)
        await worker.reserve(96)


async def test_the_store_may_be_away_while_leases_last(any_folder: Path) -> None:
    async with workers(any_folder, 1) as (worker,):
        await worker.spend(10, 10, 10_000)
        with locked_store(any_folder):
            for _ in range(20):
                await worker.spend(10, 10, 10_000)
        assert (await worker.standing())[0] == 210


async def cancel_while_locked(folder: Path, work: Coroutine[Any, Any, object]) -> None:
    """Cancel what waits for the ledger; its transaction is made all the same."""
    with locked_store(folder):
        waiting = asyncio.create_task(work)
        await asyncio.sleep(0.1)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    await asyncio.sleep(0.2)


async def test_a_lease_whose_request_has_gone_is_used_by_the_next(any_folder: Path) -> None:
    async with workers(any_folder, 1) as (worker,):
        for limit in (1000, 1001, 1002):
            await cancel_while_locked(any_folder, worker.reserve(10, limit))
        for _ in range(100):
            await worker.spend(10, 10, 1000)
        assert await worker.standing() == (1000, 0, 0)


async def test_what_a_cut_limit_takes_is_gone_even_if_the_request_is(any_folder: Path) -> None:
    async with workers(any_folder, 2) as (first, second):
        await first.spend(10, 0, 10_000)
        await cancel_while_locked(any_folder, first.reserve(10, 100))
        assert (await first.standing())[2] <= 100
        spent = 0
        for worker in (second, first):
            with pytest.raises(BudgetExceeded):
                while True:
                    await worker.spend(10, 10, 10_000)
                    spent += 10
        assert spent == 10_000


async def test_what_cannot_be_given_back_is_kept(any_folder: Path) -> None:
    async with workers(any_folder, 1) as (worker,):
        await worker.spend(10, 10, 1000)
        leased = (await worker.standing())[2]
        with locked_store(any_folder), pytest.raises(Unavailable):
            await worker.budgets._give_back("k", DAY, 0)
        assert worker.budgets._slices["k", DAY].idle == leased > 0


async def test_two_workers_that_call_on_each_other_get_what_is_there(any_folder: Path) -> None:
    """Each has 30 idle and needs 40: one of them gets it, and is not waited for."""
    async with workers(any_folder, 2) as (first, second):
        for worker in (first, second):
            await worker.reserve(50)
        for worker in (first, second):
            worker.budgets.settle("k", DAY, 50, 20, leased=True)
        began = asyncio.get_running_loop().time()
        results = await asyncio.gather(
            first.reserve(40), second.reserve(40), return_exceptions=True
        )
        assert sorted(type(each).__name__ for each in results) == ["BudgetExceeded", "bool"]
        assert asyncio.get_running_loop().time() - began < 0.9


async def test_a_request_that_comes_while_an_idle_lease_is_given_back_is_served(
    any_folder: Path,
) -> None:
    async with workers(any_folder, 1) as (worker,):
        await worker.spend(10, 10, 10_000)
        worker.budgets._slices["k", DAY].last_use = -1e9
        giving = asyncio.create_task(worker.budgets.give_back_idle())
        await asyncio.sleep(0)
        assert await worker.reserve(10, 10_000)
        await giving
        assert worker.budgets.in_flight("k", DAY) == 10


async def test_requests_that_wait_for_a_lost_store_wait_together(any_folder: Path) -> None:
    async with workers(any_folder, 1) as (worker,):
        began = asyncio.get_running_loop().time()
        with locked_store(any_folder):
            results = await asyncio.gather(
                *(worker.reserve(10, 1000) for _ in range(8)), return_exceptions=True
            )
        assert {type(each) for each in results} == {Unavailable}
        assert asyncio.get_running_loop().time() - began < 6.0
        await worker.reserve(10, 1000)


LIMITS = RuntimeLimits(
    daily_budget_nano=5,
    per_request_nano=7,
    max_attempts=1,
    price_margin=0,
    deadlines=Deadlines(),
    non_streaming_deadlines=Deadlines(),
    request_timeout_seconds=1.0,
)


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


def scope_of(
    key: str, limit: int, window: str = "1970-01-01", also: tuple[str, int] | None = None
) -> BudgetScope:
    return BudgetScope(key_id=key, daily_limit=limit, window=window, also=also)


def build_ledger(worker: Worker, clock: Clock | None = None) -> Ledger:
    return Ledger(leases=worker.budgets, store=worker.store, clock=clock or RunningClock())


async def test_a_hold_is_free_again_when_the_intent_cannot_be_written(worker: Worker) -> None:
    ledger, scope = build_ledger(worker), scope_of("k", 100)
    await ledger.reserve(scope, 16, 0, spec(10))
    with full_disk(), pytest.raises(Unavailable):
        await ledger.reserve(scope, 32, 0, spec(50))
    assert worker.budgets.in_flight("k", "1970-01-01") == 10


async def test_a_refused_reservation_says_when_the_next_window_begins(worker: Worker) -> None:
    """The budget may be used up between the decision and the reservation."""
    ledger = build_ledger(worker)
    with pytest.raises(BudgetExceeded) as caught:
        await ledger.reserve(scope_of("k", 49), 16, 0, spec(50))
    assert caught.value.status == 402
    assert caught.value.retry_after == ledger.seconds_to_next_window() > 43_000
    assert worker.budgets.in_flight("k", "1970-01-01") == 0
    assert await worker.store.decision(16) is None


async def test_a_second_account_that_refuses_frees_the_first(worker: Worker) -> None:
    ledger = build_ledger(worker)
    with pytest.raises(BudgetExceeded):
        await ledger.reserve(scope_of("k", 90, DAY, also=("judges", 40)), 16, 0, spec(50))
    assert worker.budgets.in_flight("k", DAY) == worker.budgets.in_flight("judges", DAY) == 0


async def test_a_refused_reservation_says_how_much_is_in_doubt(worker: Worker) -> None:
    ledger, scope = build_ledger(worker), scope_of("k", 100)
    first = await ledger.reserve(scope, 16, 0, spec(60))
    assert (ledger.running, ledger.held_nano) == (1, 60)
    first.close_unknown(AttemptResult())
    assert (ledger.running, ledger.held_nano, ledger.unknown.nano) == (0, 0, 1)
    await ledger.reserve(scope_of("other", 100), 32, 0, spec(1))
    with pytest.raises(BudgetExceeded) as caught:
        await ledger.reserve(scope, 48, 0, spec(100))
    told = caught.value.message
    assert "$0.000000001 of the budget is held for calls whose cost is not known yet (1)" in told
    assert "or 13:00 UTC" in told


async def test_a_new_day_has_the_whole_budget_and_yesterdays_bill_stays_with_yesterday(
    worker: Worker,
) -> None:
    """The window follows the clock while the process runs."""
    clock = ManualClock(wall=86_399.0)
    ledger = build_ledger(worker, clock)
    key = Principal(
        key_id="k", name="name", scope="inference", daily_budget_nano=100, per_request_nano=None
    )
    evening = ledger.budget_scope(key, LIMITS)
    await ledger.refresh(evening)
    late = await ledger.reserve(evening, 16, 0, spec(100))
    assert ledger.remaining(evening) == 0
    clock.advance(2.0)
    morning = ledger.budget_scope(key, LIMITS)
    assert (evening.window, morning.window) == ("1970-01-01", "1970-01-02")
    await ledger.refresh(morning)
    assert ledger.remaining(morning) == 100
    kept = late.close_unknown(AttemptResult()).cost_nano
    account = await worker.store.account("k", evening.window)
    assert (account.spent_nano, account.held_nano) == (0, kept) and kept <= 100
    await ledger.reserve(morning, 32, 0, spec(100))


async def test_a_keys_own_limits_come_before_the_defaults_even_when_they_are_0(
    worker: Worker,
) -> None:
    """0 means that nothing may be spent, not that there is no limit."""
    ledger = build_ledger(worker)
    zero = Principal(
        key_id="k", name="name", scope="inference", daily_budget_nano=0, per_request_nano=0
    )
    unset = Principal(
        key_id="k", name="name", scope="inference", daily_budget_nano=None, per_request_nano=None
    )
    own, default = ledger.budget_scope(zero, LIMITS), ledger.budget_scope(unset, LIMITS)
    assert (own.daily_limit, own.per_request_limit) == (0, 0)
    assert (default.daily_limit, default.per_request_limit) == (5, 7)
