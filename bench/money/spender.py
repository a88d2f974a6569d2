"""One process that spends: its clients reserve, and settle at a part of what they reserved."""

import asyncio
import random
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

import uvloop

from bench.money.refusals import REFUSED, RESERVED, UNAVAILABLE, AttemptLog
from bench.money.servers import RunStore
from sophia.adapters.clock import SystemClock
from sophia.adapters.leases import LeasedBudgets
from sophia.adapters.store.store import SqlStore
from sophia.core.errors import BudgetExceeded, Unavailable
from sophia.core.ids import IdGenerator
from sophia.core.rows import AttemptIntent, AttemptOutcome
from sophia.jobs.follow import ChangeFollower
from sophia.jobs.recover_attempts import start_worker
from sophia.jobs.timer import run_every
from sophia.jobs.worker_presence import BEAT_SECONDS, WorkerPresence

DAY = "2026-11-23"
LARGEST = 2_000
"""Nano-dollars that an attempt reserves at most."""
START_LIMIT = 40_000_000
_FOLLOW_SECONDS = 0.1
_REFUSED_SECONDS = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """Work of one process. `uses_up` is whether it spends the first account to its end instead."""

    store: RunStore
    clients: int
    reservations: int
    accounts: int
    number: int
    uses_up: bool = False


class Spender:
    """The clients of one process."""

    def __init__(self, store: SqlStore, task: Task, limit: Any) -> None:
        self._store = store
        self._task = task
        self._limit = limit
        clock = SystemClock()
        self._budgets = LeasedBudgets(store, clock)
        self._ids = IdGenerator(lambda: int(clock.wall() * 1000), store.worker)
        self._random = random.Random(task.number)
        self.log = AttemptLog()
        self.counts: Counter[str] = Counter()

    async def run(self) -> None:
        """Do the task, and what a worker does beside its requests."""
        presence = WorkerPresence(self._store, lambda: None)
        follower = ChangeFollower(self._store, {"leases": self._budgets.answer_calls})
        beside = [
            asyncio.create_task(run_every(_FOLLOW_SECONDS, "following changes", follower)),
            asyncio.create_task(run_every(BEAT_SECONDS, "beats", presence)),
        ]
        if self._task.uses_up:
            await self._use_up()
        else:
            await asyncio.gather(*(self._spend() for _ in range(self._task.clients)))
        for task in beside:
            task.cancel()
        await asyncio.gather(*beside, return_exceptions=True)
        await self._budgets.close()

    async def _use_up(self) -> None:
        """Spend what is left in the first account until not even one nano-dollar is."""
        amount = LARGEST
        while amount:
            if await self._attempt(0, amount, amount) == REFUSED:
                amount //= 2

    async def _spend(self) -> None:
        left = self._task.reservations // self._task.clients
        while self.counts["reserved"] < self._task.reservations and left:
            held = self._random.randint(1, LARGEST)
            cost = self._random.randint(0, held)
            account = self._random.randrange(self._task.accounts)
            if await self._attempt(account, held, cost) == RESERVED:
                left -= 1
            else:
                await asyncio.sleep(_REFUSED_SECONDS)
            # Others run, as they do while a model answers.
            await asyncio.sleep(0)

    async def _attempt(self, account: int, held: int, cost: int) -> int:
        limit = START_LIMIT if account else self._limit.value
        name, began, leased = str(account), time.monotonic_ns(), False
        try:
            leased = await self._budgets.reserve(name, DAY, limit, held)
            result, counted = RESERVED, "reserved"
        except BudgetExceeded:
            result, counted = REFUSED, "refused"
        except Unavailable:
            result, counted = UNAVAILABLE, "unavailable"
        self.counts[counted] += 1
        answered = settled = time.monotonic_ns()
        if result == RESERVED:
            await self._make_attempt(name, held, cost, leased=leased)
            settled = time.monotonic_ns()
        cost = cost if result == RESERVED else 0
        self.log.add(account, (began, answered, settled), limit, held, cost, result)
        return result

    async def _make_attempt(self, account: str, held: int, cost: int, *, leased: bool) -> None:
        id = self._ids.next()
        await self._store.reserve(
            AttemptIntent(
                attempt_id=id, key_id=account, window=DAY, model="m", upstream="up",
                held_nano=held, at_ms=1,
            )
        )  # fmt: skip
        await asyncio.sleep(0)
        self._budgets.settle(account, DAY, held, cost, leased=leased)
        self._store.settle(build_outcome(id, account, cost), (account,) if leased else ())


def build_outcome(id: int, account: str, cost: int) -> AttemptOutcome:
    """Return the outcome of an attempt."""
    return AttemptOutcome(
        attempt_id=id,
        key_id=account,
        window=DAY,
        model="m",
        state="settled",
        cost_nano=cost,
        cost_source="upstream",
        estimate_nano=cost,
        prompt_tokens=1,
        completion_tokens=1,
        cached_tokens=0,
        reasoning_tokens=0,
        finish_reason="stop",
        failure=None,
        generation_id=None,
        provider=None,
        first_content_ms=None,
        total_ms=1.0,
        at_ms=1,
    )


async def spend(task: Task, limit: Any) -> Counter[str]:
    """Run one process's work; return its counts."""
    store = SqlStore(task.store.open())
    await start_worker(store, SystemClock(), task.store.data_folder(task.number), 0.05)
    spender = Spender(store, task, limit)
    try:
        await spender.run()
    finally:
        await store.close()
    kind = "rest" if task.uses_up else "main"
    spender.log.write(task.store.folder / f"{kind}{task.number}.attempts")
    return spender.counts


def run_process(task: Task, limit: Any, results: Any) -> None:
    """Run a process's work and send its counts."""
    results.put(dict(uvloop.run(spend(task, limit))))
