"""Budgets over several processes: reservations per second, overspend and false refusals.

`python -m bench.money --help`. Each process leases from one ledger, as a worker does; no request is
sent. The limit of the hot account is raised and cut meanwhile.
"""

import argparse
import asyncio
import multiprocessing
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import uvloop
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from bench.gateway.machine import write_figures
from sophia.adapters.clock import SystemClock
from sophia.adapters.leases import LeasedBudgets
from sophia.adapters.store.databases.sqlite import SqliteDatabase
from sophia.adapters.store.store import SqlStore
from sophia.core.errors import BudgetExceeded, Unavailable
from sophia.core.ids import IdGenerator
from sophia.core.rows import AttemptIntent, AttemptOutcome
from sophia.jobs.recover_attempts import start_worker

DAY = "2026-11-23"
LARGEST = 2_000
"""Nano-dollars that an attempt reserves at most."""
START_LIMIT = 40_000_000
_ANSWER_SECONDS = 0.05
_WATCH_SECONDS = 0.1
_ROOMS = (-100_000, 20_000, 300_000, 20_000_000, 80_000_000)
"""Room that a change of the limit leaves above what is spent, or takes from it."""
_ROOM_WEIGHTS = (1, 1, 2, 8, 8)
_SETTLED_SECONDS = 3.0
"""Time after which a limit that was cut must hold everywhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """Figures of one run; money in nano-dollars, times in seconds."""

    accounts: int
    processes: int
    clients: int
    reservations: int
    refusals: int
    unavailable: int
    seconds: float
    per_second: float
    limit_changes: int
    commits_seen: int
    overspent_nano: int
    left_unused_nano: int
    largest_reservation_nano: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """Work of one process."""

    folder: Path
    clients: int
    reservations: int
    accounts: int
    seed: int


class Spender:
    """One process: its clients reserve, and settle at a part of what they reserved."""

    def __init__(self, store: SqlStore, task: Task, limit: Any) -> None:
        self._store = store
        self._task = task
        self._limit = limit
        self._budgets = LeasedBudgets(store, SystemClock())
        clock = SystemClock()
        self._ids = IdGenerator(lambda: int(clock.wall() * 1000), store.worker)
        self._random = random.Random(task.seed)
        self.counts: Counter[str] = Counter()

    async def run(self) -> None:
        """Make all reservations of the task."""
        answering = asyncio.create_task(self._answer())
        await asyncio.gather(*(self._spend() for _ in range(self._task.clients)))
        answering.cancel()
        await asyncio.gather(answering, return_exceptions=True)
        await self._budgets.close()

    async def use_up(self) -> None:
        """Spend what is left in the first account until not even one nano-dollar is."""
        answering = asyncio.create_task(self._answer())
        amount = LARGEST
        while amount:
            try:
                await self._attempt("0", amount, amount)
            except BudgetExceeded:
                amount //= 2
        answering.cancel()
        await asyncio.gather(answering, return_exceptions=True)
        await self._budgets.close()

    async def _answer(self) -> None:
        while True:
            await self._budgets.answer_calls()
            await asyncio.sleep(_ANSWER_SECONDS)

    async def _spend(self) -> None:
        left = self._task.reservations // self._task.clients
        while self.counts["reserved"] < self._task.reservations and left:
            held = self._random.randint(1, LARGEST)
            cost = self._random.randint(0, held)
            account = str(self._random.randrange(self._task.accounts))
            try:
                await self._attempt(account, held, cost)
                self.counts["reserved"] += 1
                left -= 1
            except BudgetExceeded:
                self.counts["refused"] += 1
                await asyncio.sleep(_ANSWER_SECONDS)
            except Unavailable:
                self.counts["unavailable"] += 1
                await asyncio.sleep(_ANSWER_SECONDS)
            # Others run, as they do while a model answers.
            await asyncio.sleep(0)

    async def _attempt(self, account: str, held: int, cost: int) -> None:
        limit = self._limit.value if account == "0" else START_LIMIT
        leased = await self._budgets.reserve(account, DAY, limit, held)
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


async def spend(task: Task, limit: Any, *, to_the_end: bool) -> Counter[str]:
    """Run one process's work; return its counts."""
    store = SqlStore(SqliteDatabase(task.folder / "sophia.db"))
    await start_worker(store, SystemClock(), task.folder, 0.05)
    spender = Spender(store, task, limit)
    try:
        await (spender.use_up() if to_the_end else spender.run())
    finally:
        await store.close()
    return spender.counts


def run_process(task: Task, limit: Any, results: Any, to_the_end: bool) -> None:
    """Run a process's work and send its counts."""
    results.put(dict(uvloop.run(spend(task, limit, to_the_end=to_the_end))))


class Watcher:
    """Reads the hot account while others spend, and changes its limit."""

    def __init__(self, folder: Path, limit: Any, chance: random.Random) -> None:
        self._database = SqliteDatabase(folder / "sophia.db")
        self._limit = limit
        self._chance = chance
        self._limits = [(0.0, limit.value)]
        self._last_spent = 0
        self.changes = self.commits = self.overspent = 0

    def look(self) -> None:
        """Add what was spent beyond the limits of the last moments, or granted beyond any."""
        now = time.monotonic()
        since = max((at for at, _ in self._limits if at < now - _SETTLED_SECONDS), default=0.0)
        highest = max(limit for at, limit in self._limits if at >= since)
        ever = max(limit for _, limit in self._limits)
        for spent, held, leased in self._database.read(
            "SELECT spent_nano, held_nano, leased_nano FROM accounts WHERE account = '0'"
        ):
            self.commits += 1
            if spent > highest:
                # What was spent before a cut stays spent; more must not come.
                self.overspent += spent - max(self._last_spent, highest)
            self.overspent += max(spent + held + leased - ever, 0)
            self._last_spent = spent

    def change_limit(self) -> None:
        """Raise or cut the limit, now and then below what is spent."""
        (room,) = self._chance.choices(_ROOMS, weights=_ROOM_WEIGHTS)
        self.set_limit(max(self.read_spent() + room, 1))
        self.changes += 1

    def set_limit(self, limit: int) -> None:
        """Put a limit in force."""
        self._limit.value = limit
        self._limits.append((time.monotonic(), limit))

    def read_spent(self) -> int:
        """Return what is spent."""
        rows = self._database.read("SELECT spent_nano FROM accounts WHERE account = '0'")
        return int(rows[0][0]) if rows else 0

    def close(self) -> None:
        """Close the database."""
        self._database.close()


def measure(options: argparse.Namespace, accounts: int, progress: Progress) -> Result:
    """Measure one run over some accounts."""
    context = multiprocessing.get_context("spawn")
    limit, results = context.Value("q", START_LIMIT), context.Queue()
    share = options.reservations // options.processes
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        watcher = Watcher(folder, limit, random.Random(5))
        tasks = [
            Task(folder=folder, clients=options.clients // options.processes, reservations=share,
                 accounts=accounts, seed=number)
            for number in range(options.processes)
        ]  # fmt: skip
        began = time.monotonic()
        counts = run_all(context, tasks, limit, results, watcher, progress)
        seconds = time.monotonic() - began
        watcher.set_limit(watcher.read_spent() + 50 * LARGEST)
        run_all(context, tasks[:2], limit, results, watcher, progress, to_the_end=True)
        left = limit.value - watcher.read_spent()
        watcher.close()
    return Result(
        accounts=accounts,
        processes=options.processes,
        clients=options.clients,
        reservations=counts["reserved"],
        refusals=counts["refused"],
        unavailable=counts["unavailable"],
        seconds=round(seconds, 1),
        per_second=round(counts["reserved"] / seconds),
        limit_changes=watcher.changes,
        commits_seen=watcher.commits,
        overspent_nano=max(watcher.overspent, 0),
        left_unused_nano=left,
        largest_reservation_nano=LARGEST,
    )


def run_all(  # noqa: PLR0913 - the parts of a run
    context: Any,
    tasks: Sequence[Task],
    limit: Any,
    results: Any,
    watcher: Watcher,
    progress: Progress,
    *,
    to_the_end: bool = False,
) -> Counter[str]:
    """Run the processes to their end, watch them, and return their counts together."""
    name = "using up the rest" if to_the_end else f"{tasks[0].accounts:,} accounts"
    shown = progress.add_task(name, total=None)
    running = [
        context.Process(target=run_process, args=(task, limit, results, to_the_end))
        for task in tasks
    ]
    for process in running:
        process.start()
    counts: Counter[str] = Counter()
    next_change = time.monotonic() + 1.0
    for _ in running:
        while results.empty():
            time.sleep(_WATCH_SECONDS)
            watcher.look()
            progress.advance(shown, _WATCH_SECONDS)
            if not to_the_end and time.monotonic() > next_change:
                watcher.change_limit()
                next_change = time.monotonic() + 0.5
        counts.update(results.get())
    for process in running:
        process.join()
    progress.update(shown, total=1, completed=1)
    return counts


def print_results(results: Sequence[Result], console: Console) -> None:
    """Print a table."""
    names = list(asdict(results[0]))
    table = Table("", *(f"{each.accounts:,} accounts" for each in results))
    for name in names:
        table.add_row(name.replace("_", " "), *(f"{asdict(each)[name]:,}" for each in results))
    console.print(table)


def main(arguments: list[str]) -> int:
    """Return 0, or 1 when a budget was overspent or not used up."""
    parser = argparse.ArgumentParser(prog="python -m bench.money", description=__doc__)
    parser.add_argument("--reservations", type=int, default=1_000_000)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--output", type=Path, help="write the figures here as JSON")
    options = parser.parse_args(arguments)
    console = Console() if Console().is_terminal else Console(width=100)
    columns = TextColumn("{task.description:<20}"), BarColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console) as progress:
        results = [measure(options, accounts, progress) for accounts in (1, 10_000)]
    print_results(results, console)
    if options.output:
        rows = [asdict(result) for result in results]
        write_figures(options.output, "bench.money", arguments, rows)
    is_wrong = [each for each in results if each.overspent_nano or each.left_unused_nano]
    return 1 if is_wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
