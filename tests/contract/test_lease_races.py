"""Leases whose answers are late: no request is refused while the budget covers it."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from sophia.adapters.clock import SystemClock
from sophia.adapters.leases import LeasedBudgets
from sophia.adapters.store.store import SqlStore
from sophia.core.rows import Lease, LeaseRequest
from store_rows import DAY
from stores import open_test_store


class LateAnswers:
    """A store that grants a lease at once, and returns it when `gate` is open."""

    def __init__(self, store: SqlStore) -> None:
        self._store = store
        self.gate = asyncio.Event()
        self.gate.set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def lease(self, request: LeaseRequest) -> Lease:
        lease = await self._store.lease(request)
        await self.gate.wait()
        return lease


async def open_budgets(folder: Path, stack: AsyncExitStack) -> tuple[LeasedBudgets, LateAnswers]:
    store = LateAnswers(await stack.enter_async_context(open_test_store(folder)))
    budgets = LeasedBudgets(store, SystemClock())  # type: ignore[arg-type]
    stack.push_async_callback(budgets.close)
    return budgets, store


async def test_a_call_is_answered_with_a_lease_that_is_on_its_way(any_folder: Path) -> None:
    """A worker that gave nothing back, and had a lease a moment later, made another one refuse."""
    async with AsyncExitStack() as stack:
        first, store = await open_budgets(any_folder, stack)
        second, _ = await open_budgets(any_folder, stack)
        await first.reserve("k", DAY, 1000, 10)
        store.gate.clear()
        slow = asyncio.create_task(first.reserve("k", DAY, 900, 10))
        asking = asyncio.create_task(second.reserve("k", DAY, 900, 880))
        await asyncio.sleep(0.1)
        answering = asyncio.create_task(first.answer_calls())
        await asyncio.sleep(0.1)
        store.gate.set()
        await asyncio.gather(slow, answering)
        await asking


async def test_a_lease_that_another_request_took_is_asked_for_again(any_folder: Path) -> None:
    async with AsyncExitStack() as stack:
        budgets, store = await open_budgets(any_folder, stack)
        await budgets.reserve("k", DAY, 100, 20)
        store.gate.clear()
        slow = asyncio.create_task(budgets.reserve("k", DAY, 100, 30))
        await asyncio.sleep(0.1)

        async def overtake() -> None:
            await store.gate.wait()
            await budgets.reserve("k", DAY, 100, 10)

        overtaking = asyncio.create_task(overtake())
        await asyncio.sleep(0)
        store.gate.set()
        await asyncio.gather(slow, overtaking)
        assert budgets.in_flight("k", DAY) == 60
