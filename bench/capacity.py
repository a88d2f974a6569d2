"""Requests, memory and disk of one or several workers. `python -m bench.capacity --help`.

One worker has a core of its own. Several share all cores with the load generator and the mock
upstream, so that only their CPU time per request is comparable, not the requests per second.
"""

import argparse
import signal
import sqlite3
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from bench.gateway.machine import describe_machine, write_figures
from bench.gateway.phases import Phase
from bench.gateway.process import PROC, Running, find_process_tree, select_cores, start
from bench.gateway.run import run_upstream
from bench.gateway.setup import plan_installation
from bench.gateway.targets import Target, build_targets
from bench.gateway.window import Stage, run_window
from sophia.adapters.store.journaling.files import SEGMENT_BYTES, list_segments

WARM_UP = Phase("warm", "warm-up", "small", 64)
SATURATED = Phase("sat", "1.5 kB requests, 64 connections, as fast as possible", "small", 64)
STOP_SECONDS = 60
TABLE_HEAD = (
    "| | workers | requests/s measured | CPU time of a request | requests/s of a whole core "
    "| memory of a worker | journal | ledger |",
    "|---|---|---|---|---|---|---|---|",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """Figures of one start; sizes in bytes where they are of one request, otherwise in MB."""

    target: str
    workers: int
    rps: float
    cpu_us: float
    failed: float
    foreign_cores: float
    worker_rss_mb: float
    worker_pss_mb: float
    supervisor_rss_mb: float
    journal_bytes: float
    ledger_bytes: float

    @property
    def rps_per_core(self) -> float:
        """Requests per second that one core's whole time is enough for."""
        return 1e6 / self.cpu_us


def main() -> None:
    """Measure every target with every number of workers, in interleaved rounds."""
    parser = argparse.ArgumentParser(prog="python -m bench.capacity", description=__doc__)
    parser.add_argument("--workers", default="1,2,4", help="numbers of workers")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0, help="length of a window")
    parser.add_argument("--output", type=Path, help="write the JSON here")
    options = parser.parse_args()
    for step in plan_installation({"sophia"}).values():
        step()
    targets, cores = build_targets(("sophia", "sophia-auto")), select_cores()
    counts, found = [int(count) for count in options.workers.split(",")], []
    with run_upstream(targets, cores) as stage:
        for _ in range(options.rounds):
            for target in targets:
                for count in counts:
                    found.append(measure(stage, target, count, options.seconds))
                    print(found[-1], file=sys.stderr, flush=True)
    rows = list(summarise(found))
    print_table(rows)
    if options.output:
        results = {"rows": [asdict(row) for row in rows], "all": [asdict(row) for row in found]}
        write_figures(options.output, "bench.capacity", [], results)


def measure(stage: Stage, target: Target, workers: int, seconds: float) -> Capacity:
    """Start Sophia with a fresh data folder, load it, stop it, and look at its files."""
    assert target.data is not None
    variables = target.environment | {"SOPHIA_SERVER_WORKERS": str(workers)}
    running = start(
        replace(target, environment=variables), stage.cores.gateway if workers == 1 else None
    )
    try:
        before = count_rows(target.data)
        run_window(stage, target, WARM_UP, 1.0, running)
        window = run_window(stage, target, SATURATED, seconds, running)
        root, *children = find_process_tree(running.process.pid)
        served = children or [root]
        memory = {
            name: statistics.mean(read_memory_mb(pid, name) for pid in served)
            for name in ("Rss", "Pss")
        }
        supervisor = read_memory_mb(root, "Rss") if children else 0.0
        time.sleep(1)
        journal = measure_journals(target.data)
        stop(running)
    finally:
        running.stop()
    rows = count_rows(target.data) - before
    grown = ledger_size(target.data) - ledger_size(target.seed or target.data)
    return Capacity(
        target=target.name,
        workers=workers,
        rps=round(window["rps"]),
        cpu_us=window["cpu_us"],
        failed=window["errors"],
        foreign_cores=window["foreign_cores"],
        worker_rss_mb=round(memory["Rss"], 1),
        worker_pss_mb=round(memory["Pss"], 1),
        supervisor_rss_mb=round(supervisor, 1),
        journal_bytes=round(journal / rows),
        ledger_bytes=round(grown / rows),
    )


def stop(running: Running) -> None:
    """Stop it as an operator does, so that the journals are applied."""
    running.process.send_signal(signal.SIGTERM)
    running.process.wait(STOP_SECONDS)


def read_memory_mb(pid: int, name: str) -> float:
    """Return a process's `Rss`, or its `Pss`, in which shared pages are divided."""
    lines = (PROC / str(pid) / "smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) / 1024


def measure_journals(data: Path) -> int:
    """Return the bytes that were written to all journals, removed files included."""
    size = 0
    for folder in (data / "journal").iterdir():
        if numbers := list_segments(folder):
            last = folder / f"{numbers[-1]:08d}.journal"
            size += (numbers[-1] - 1) * SEGMENT_BYTES + last.stat().st_size
    return size


def count_rows(data: Path) -> int:
    """Return the number of attempts in the ledger."""
    with closing(sqlite3.connect(data / "sophia.db")) as ledger:
        count: int = ledger.execute("SELECT COUNT(*) FROM outcomes").fetchone()[0]
    return count


def ledger_size(data: Path) -> int:
    """Return the bytes of the ledger's file once everything is in it."""
    with closing(sqlite3.connect(data / "sophia.db")) as ledger:
        ledger.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return (data / "sophia.db").stat().st_size


def summarise(found: Sequence[Capacity]) -> Iterator[Capacity]:
    """Yield the median of each figure for each target and number of workers."""
    for target, workers in dict.fromkeys((one.target, one.workers) for one in found):
        same = [one for one in found if (one.target, one.workers) == (target, workers)]
        figures = {
            name: statistics.median(getattr(one, name) for one in same)
            for name in Capacity.__dataclass_fields__
            if name not in ("target", "workers")
        }
        yield Capacity(target=target, workers=workers, **figures)


def print_table(rows: Sequence[Capacity]) -> None:
    """Print the table of docs/how-to/workers.md, in Markdown."""
    print(" · ".join(f"{name} {value}" for name, value in describe_machine().items()))
    print(*TABLE_HEAD, sep="\n")
    for row in rows:
        name = "named model" if row.target == "sophia" else "`sophia/auto`"
        figures = (
            f"{row.rps:,.0f}",
            f"{row.cpu_us:,.0f} µs",
            f"{row.rps_per_core:,.0f}",
            f"{row.worker_rss_mb:.0f} MB",
            f"{row.journal_bytes:,.0f} B",
            f"{row.ledger_bytes:,.0f} B",
        )
        print(f"| {name} | {row.workers} | " + " | ".join(figures) + " |")


if __name__ == "__main__":
    main()
