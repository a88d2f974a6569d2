"""Budgets over several processes: reservations per second, overspend and false refusals.

`python -m bench.money --help`. Each process leases from one store, as a worker does; no request is
sent. The limit of the hot account is raised and cut meanwhile. On PostgreSQL each process has a data
folder of its own, as those of different machines have.
"""

import argparse
import multiprocessing
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from bench.gateway.machine import write_figures
from bench.money.refusals import judge_refusals, read_attempts
from bench.money.servers import RunStore, open_run_store
from bench.money.spender import LARGEST, START_LIMIT, Task, run_process
from bench.money.watcher import Watcher

_WATCH_SECONDS = 0.1
_REST = 50 * LARGEST
"""Nano-dollars that two processes use up at the end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """Figures of one run; money in nano-dollars, times in seconds."""

    store: str
    accounts: int
    processes: int
    clients: int
    reservations: int
    refusals: int
    false_refusals: int
    unclear_refusals: int
    unavailable: int
    seconds: float
    per_second: float
    limit_changes: int
    commits_seen: int
    overspent_nano: int
    left_unused_nano: int
    largest_reservation_nano: int

    @property
    def is_right(self) -> bool:
        """Whether the budget was used up, not overspent, and nothing was refused that it covered."""
        return not (self.overspent_nano or self.left_unused_nano or self.false_refusals)


def measure(options: argparse.Namespace, accounts: int, progress: Progress) -> Result:
    """Measure one run over some accounts."""
    with tempfile.TemporaryDirectory() as name, open_run_store(options.store, Path(name)) as store:
        return measure_in(store, options, accounts, progress)


def measure_in(
    store: RunStore, options: argparse.Namespace, accounts: int, progress: Progress
) -> Result:
    """Measure one run in a new store."""
    context = multiprocessing.get_context("spawn")
    limit = context.Value("q", START_LIMIT)
    watcher = Watcher(store.open(), limit, random.Random(5))
    task = Task(
        store=store,
        clients=options.clients // options.processes,
        reservations=options.reservations // options.processes,
        accounts=accounts,
        number=0,
    )
    began = time.monotonic()
    counts = run_all(context, task, options.processes, watcher, progress)
    seconds = time.monotonic() - began
    watcher.set_limit(watcher.read_spent() + _REST)
    rest = run_all(context, replace(task, uses_up=True), 2, watcher, progress)
    left = limit.value - watcher.read_spent()
    watcher.close()
    refusals = judge_refusals(read_attempts(store.folder))
    return Result(
        store=options.store,
        accounts=accounts,
        processes=options.processes,
        clients=options.clients,
        reservations=counts["reserved"],
        refusals=counts["refused"] + rest["refused"],
        false_refusals=refusals.false,
        unclear_refusals=refusals.unclear,
        unavailable=counts["unavailable"] + rest["unavailable"],
        seconds=round(seconds, 1),
        per_second=round(counts["reserved"] / seconds),
        limit_changes=watcher.changes,
        commits_seen=watcher.commits,
        overspent_nano=max(watcher.overspent, 0),
        left_unused_nano=left,
        largest_reservation_nano=LARGEST,
    )


def run_all(
    context: Any, task: Task, processes: int, watcher: Watcher, progress: Progress
) -> Counter[str]:
    """Run the processes to their end, watch them, and return their counts together."""
    name = "using up the rest" if task.uses_up else f"{task.accounts:,} accounts"
    shown = progress.add_task(name, total=None)
    results = context.Queue()
    running = [
        context.Process(
            target=run_process, args=(replace(task, number=number), watcher.limit, results)
        )
        for number in range(processes)
    ]
    for process in running:
        process.start()
    counts: Counter[str] = Counter()
    for _ in running:
        while results.empty():
            time.sleep(_WATCH_SECONDS)
            watcher.look()
            progress.advance(shown, _WATCH_SECONDS)
            if not task.uses_up:
                watcher.change_limit()
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
        values = [asdict(each)[name] for each in results]
        shown = [value if isinstance(value, str) else f"{value:,}" for value in values]
        table.add_row(name.replace("_", " "), *shown)
    console.print(table)


def main(arguments: list[str]) -> int:
    """Return 0, or 1 when a budget was overspent, not used up, or refused though it covered."""
    parser = argparse.ArgumentParser(prog="python -m bench.money", description=__doc__)
    parser.add_argument("--store", choices=("sqlite", "postgres"), default="sqlite")
    parser.add_argument("--reservations", type=int, default=1_000_000)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--accounts", type=int, nargs="+", default=[1, 10_000])
    parser.add_argument("--output", type=Path, help="write the figures here as JSON")
    options = parser.parse_args(arguments)
    console = Console() if Console().is_terminal else Console(width=100)
    columns = TextColumn("{task.description:<20}"), BarColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console) as progress:
        results = [measure(options, accounts, progress) for accounts in options.accounts]
    print_results(results, console)
    if options.output:
        rows = [asdict(result) for result in results]
        write_figures(options.output, "bench.money", arguments, rows)
    return 0 if all(each.is_right for each in results) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
