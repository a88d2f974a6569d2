"""A budget over workers that come and go: never overspent, never refused while it covers."""

import asyncio
import shutil
import tempfile
from collections.abc import Coroutine
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from msgspec.structs import replace

from postgres_server import PostgresServer
from sophia.adapters.clock import SystemClock
from sophia.adapters.leases import LeasedBudgets
from sophia.adapters.store.migrate import migrate
from sophia.adapters.store.store import SqlStore
from sophia.core.errors import BudgetExceeded, Unavailable
from sophia.core.ids import IdGenerator
from sophia.core.rows import AttemptIntent, LeaseRequest
from sophia.jobs.recover_attempts import AttemptRecovery, start_worker
from sophia.tenants.budget import BudgetSlice, choose_grant, day_window, seconds_to_next_day
from store_rows import outcome
from stores import locked_store, open_test_database

AMOUNTS = st.integers(0, 2**53)
DAY = "2026-11-23"


@given(st.integers(-(2**53), 2**53), AMOUNTS, AMOUNTS, AMOUNTS, st.integers(1, 128))
def test_a_grant_is_at_most_what_is_free_and_at_least_what_is_needed(
    free: int, need: int, idle: int, unit: int, holders: int
) -> None:
    request = LeaseRequest(account="k", window="d", limit=1, need=need, idle=idle, unit=unit)
    granted = choose_grant(request, free, holders)
    if free >= 0:
        assert 0 <= granted <= free and (granted >= need or (granted == 0 and need > free))
    else:
        assert granted == -min(idle, -free)


@given(AMOUNTS, AMOUNTS, AMOUNTS, AMOUNTS, st.integers(0, 2**53))
def test_what_remains_is_what_a_slice_and_the_store_have(
    granted: int, used: int, free: int, limit: int, more: int
) -> None:
    part = BudgetSlice(limit=limit, granted=granted, used=used, free=free)
    assert part.remaining(limit) == max(granted - used + free, 0)
    assert part.remaining(limit + more) == max(granted - used + free + more, 0)


@given(st.floats(0, 4e9))
def test_a_day_ends_when_the_next_begins(wall: float) -> None:
    wait = seconds_to_next_day(wall)
    assert 0 < wait <= 86_401
    assert day_window(wall) < day_window(wall + wait)


class Worker:
    """A process: its store, its leases, and a task that answers calls."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = SqlStore(open_test_database(folder, wait_seconds=0.02))
        self.recovery = AttemptRecovery(self.store, SystemClock())
        self.open: dict[int, tuple[int, bool]] = {}

    async def start(self) -> None:
        await start_worker(self.store, SystemClock(), self.folder, 0.01)
        self.budgets = LeasedBudgets(self.store, SystemClock())
        clock = SystemClock()
        self.ids = IdGenerator(lambda: int(clock.wall() * 1000), self.store.worker)
        self.answering = asyncio.create_task(self._answer())

    async def _answer(self) -> None:
        while True:
            try:
                await self.budgets.answer_calls()
            except Unavailable:
                pass
            await asyncio.sleep(0.002)

    async def stop(self) -> None:
        self.answering.cancel()
        await asyncio.gather(self.answering, return_exceptions=True)
        await self.budgets.close()
        await self.store.close()

    async def crash(self) -> None:
        """End as a killed process does: what is in the journal stays there."""
        self.answering.cancel()
        await asyncio.gather(self.answering, return_exceptions=True)
        await self.budgets.close()
        journal = self.store._own_journal
        journal._applier._closes_at = 0.0
        await journal._applier.close()
        journal._journal.close()
        journal.slot.release()
        self.store._database.close()


class Budgets(RuleBasedStateMachine):
    """Two workers spend one budget; the model knows what each attempt costs."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.prepare()
        self.loop = asyncio.new_event_loop()
        self.limit, self.spent, self.unknown, self.highest = 1000, 0, 0, 1000
        self.lock: Any = None
        self.workers = [Worker(self.folder), Worker(self.folder)]
        for worker in self.workers:
            self.run(worker.start())

    def prepare(self) -> None:
        """Make the store of the folder."""
        migrate(self.folder / "sophia.db")

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(work)

    @property
    def held(self) -> int:
        return sum(amount for worker in self.workers for amount, _ in worker.open.values())

    @rule(who=st.integers(0, 1), amount=st.integers(0, 700))
    def reserve(self, who: int, amount: int) -> None:
        worker = self.workers[who]
        covers = self.spent + self.held + self.unknown + amount <= self.limit
        try:
            leased = self.run(worker.budgets.reserve("k", DAY, self.limit, amount))
        except BudgetExceeded:
            assert not covers, "refused, though the budget covers it"
        except Unavailable:
            assert self.lock is not None
        else:
            assert covers, "the budget is overspent"
            id = worker.ids.next()
            intent = AttemptIntent(id, "k", DAY, "m", "up", amount, 1)
            self.run(worker.store.reserve(intent))
            worker.open[id] = amount, leased

    @precondition(lambda self: any(worker.open for worker in self.workers))
    @rule(who=st.integers(0, 1), share=st.floats(0, 1), is_known=st.booleans())
    def settle(self, who: int, share: float, is_known: bool) -> None:
        worker = self.workers[who]
        if not worker.open:
            return
        id, (amount, leased) = worker.open.popitem()
        cost = int(amount * share)
        row = outcome(id, cost=cost)
        if not is_known:
            row = replace(row, state="unknown", cost_source="estimated", held_nano=cost)
        worker.budgets.settle("k", DAY, amount, cost, leased=leased)
        worker.store.settle(row, ("k",) if leased else ())
        self.spent += cost if is_known else 0
        self.unknown += 0 if is_known else cost

    @precondition(lambda self: self.lock is None)
    @rule(who=st.integers(0, 1))
    def crash(self, who: int) -> None:
        """What was open is of unknown cost, once another process has looked at it."""
        worker = self.workers[who]
        self.run(worker.crash())
        self.unknown += sum(amount for amount, _ in worker.open.values())
        self.run(self.workers[1 - who].recovery())
        self.workers[who] = Worker(self.folder)
        self.run(self.workers[who].start())

    @precondition(lambda self: self.lock is None)
    @rule(who=st.integers(0, 1))
    def restart(self, who: int) -> None:
        worker = self.workers[who]
        if not worker.open:
            self.run(worker.stop())
            self.workers[who] = Worker(self.folder)
            self.run(self.workers[who].start())

    @rule(limit=st.integers(0, 2000))
    def change_the_limit(self, limit: int) -> None:
        self.limit, self.highest = limit, max(limit, self.highest)

    @precondition(lambda self: self.lock is None)
    @rule()
    def lose_the_store(self) -> None:
        self.lock = ExitStack()
        self.lock.enter_context(locked_store(self.folder))

    @precondition(lambda self: self.lock is not None)
    @rule()
    def find_the_store(self) -> None:
        self.lock.close()
        self.lock = None

    @invariant()
    def the_store_agrees(self) -> None:
        if self.lock is not None:
            return
        for worker in self.workers:
            row = self.run(worker.store.account("k", DAY))
        assert row.spent_nano == self.spent and row.held_nano == self.unknown
        assert row.leased_nano >= self.held
        assert row.spent_nano + row.held_nano + row.leased_nano <= self.highest

    def teardown(self) -> None:
        if self.lock is not None:
            self.find_the_store()
        for worker in self.workers:
            self.run(worker.stop())
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()
        shutil.rmtree(self.folder)


TestBudgets = pytest.mark.filterwarnings("default::ResourceWarning")(Budgets.TestCase)
TestBudgets.settings = hypothesis_settings(max_examples=15, stateful_step_count=25, deadline=None)


class ServerBudgets(Budgets):
    """The same over a server."""

    server: PostgresServer

    def prepare(self) -> None:
        (self.folder / "store.url").write_text(self.server.create_database())


@pytest.fixture
def _server(request: pytest.FixtureRequest, postgres: PostgresServer) -> None:
    ServerBudgets.server = postgres


TestServerBudgets = pytest.mark.usefixtures("_server")(
    pytest.mark.filterwarnings("default::ResourceWarning")(ServerBudgets.TestCase)
)
TestServerBudgets.settings = hypothesis_settings(
    max_examples=8, stateful_step_count=25, deadline=None
)
