"""Rounds of the gateway benchmark: every target, one at a time, in rotating order."""

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from bench.gateway import paths
from bench.gateway.phases import PHASES, Phase
from bench.gateway.process import (
    BLOCK_METRIC,
    ROUND_TRIPS_METRIC,
    BenchmarkError,
    Cores,
    Running,
    is_listening,
    launch,
    post,
    read_metrics,
    read_resident_mb,
    start,
)
from bench.gateway.targets import SOPHIA_SEED, Target, build_direct, find_nginx, find_sophia
from bench.gateway.window import Stage, Window, run_window
from bench.postgres import run_postgres_database

WARM_UP = Phase("warm", "warm-up", "small", 32)
TLS_PHASES = ("sat",)
# With less headroom a constant rate would measure the queue in front of the gateway.
HEADROOM = 1.1


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of a run; `peer_rounds` are the rounds that include other LLM gateways."""

    rounds: int
    seconds: float
    phases: tuple[str, ...]
    peer_rounds: int
    cores: Cores


@dataclass(slots=True)
class Record:
    """One target in one round. A window is absent when the target cannot carry its rate."""

    round: int
    target: str
    cold_seconds: float = 0.0
    resident_mb: float = 0.0
    windows: dict[str, Window] = field(default_factory=dict)
    over: list[str] = field(default_factory=list)
    unsigned_status: int = 0
    problem: str = ""


def run(
    targets: list[Target], settings: Settings, on_record: Callable[[Record], None]
) -> list[Record]:
    """Run all rounds and call `on_record` with each record; a failed target is not retried."""
    records: list[Record] = []
    failed: set[str] = set()
    with run_upstream(targets, settings.cores) as stage, with_store(targets) as ready:
        for number in range(settings.rounds):
            for target in _order(ready, number):
                if target.name in failed or (
                    target.kind == "peer" and number >= settings.peer_rounds
                ):
                    continue
                record = measure(stage, target, number, settings)
                if record.problem:
                    failed.add(target.name)
                records.append(record)
                on_record(record)
    return records


@contextmanager
def with_store(targets: list[Target]) -> Iterator[list[Target]]:
    """Yield the targets; those on PostgreSQL with the address of a server that runs meanwhile."""
    if not any(target.needs == "PostgreSQL" for target in targets):
        yield targets
        return
    with run_postgres_database(empty=True) as url:
        command = (str(find_sophia()), "migrate-store", "--from", str(SOPHIA_SEED), "--to", url)
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        address = {"SOPHIA_STORE_URL": url}
        yield [
            replace(each, environment=each.environment | address)
            if each.needs == "PostgreSQL"
            else each
            for each in targets
        ]


def _order(targets: list[Target], number: int) -> list[Target]:
    first = number * 3 % len(targets)
    return targets[first:] + targets[:first]


@contextmanager
def run_upstream(targets: list[Target], cores: Cores) -> Iterator[Stage]:
    """Run the mock upstream, and nginx with TLS in front of it if a target needs it."""
    if is_listening(paths.UPSTREAM_PORT):
        raise BenchmarkError(f"port {paths.UPSTREAM_PORT} is in use: is another benchmark running?")
    started = [launch("mock", cores.load, (str(paths.BINARIES / "mock"), str(paths.UPSTREAM_PORT)))]
    try:
        _await_port(paths.UPSTREAM_PORT)
        if any(target.tls for target in targets):
            started.append(launch("tls", cores.load, build_tls_command()))
            _await_port(paths.TLS_PORT)
            started[-1].refresh()
        yield Stage(cores, started)
    finally:
        for running in reversed(started):
            running.stop()


def build_tls_command() -> tuple[str, ...]:
    """Return the command of nginx with TLS in front of the mock; it repeats the mock's answer."""
    _, answer = post(build_direct("direct", 0, tls=False), "small")
    configuration = paths.RUN / "tls.conf"
    values: dict[str, object] = {
        "RUN": paths.RUN,
        "PORT": paths.TLS_PORT,
        "UPSTREAM_PORT": paths.UPSTREAM_PORT,
        "CERTIFICATE": paths.CERTIFICATES / "server.pem",
        "KEY": paths.CERTIFICATES / "server.key",
        "ANSWER": answer.decode(),
    }
    configuration.write_text(paths.render_template("tls.conf.in", values))
    return (find_nginx() or "nginx", "-c", str(configuration))


def _await_port(port: int) -> None:
    for _ in range(500):
        if is_listening(port):
            return
        time.sleep(0.01)
    raise BenchmarkError(f"nothing listens on port {port}, see bench/work/run/")


def measure(stage: Stage, target: Target, number: int, settings: Settings) -> Record:
    """Start a target, verify its answers, send every phase, and stop it."""
    record = Record(number, target.name)
    running: Running | None = None
    try:
        if target.kind != "direct":
            running = start(target, stage.cores.gateway)
            record.cold_seconds = round(running.cold_seconds, 3)
            if number == 0:
                record.unsigned_status = verify_answers(target)
        run_window(stage, target, WARM_UP, 1.0, running)
        for phase in _phases(target, settings):
            if _exceeds_capacity(phase, record):
                record.over.append(phase.name)
                continue
            before = read_metrics(target) if target.kind == "ours" else {}
            window = run_window(stage, target, phase, settings.seconds, running)
            record.windows[phase.name] = window
            if before:
                window |= compare_metrics(before, read_metrics(target), window["finished"])
        if running:
            running.refresh()
            record.resident_mb = read_resident_mb(running.pids)
    except (BenchmarkError, OSError) as problem:
        record.problem = str(problem)[:300]
    finally:
        if running:
            running.stop()
    return record


def compare_metrics(
    before: dict[str, list[float]], after: dict[str, list[float]], requests: float
) -> Window:
    """Return the longest event-loop block, and the questions to the store for each request."""
    trips = sum(after[ROUND_TRIPS_METRIC]) - sum(before[ROUND_TRIPS_METRIC])
    return {
        "loop_block_ms": max(after[BLOCK_METRIC]) * 1e3,
        "round_trips": trips / max(requests, 1.0),
    }


def _phases(target: Target, settings: Settings) -> Iterator[Phase]:
    for name in settings.phases:
        if target.tls and name not in TLS_PHASES:
            continue
        if not target.phases or name in target.phases:
            yield PHASES[name]


def _exceeds_capacity(phase: Phase, record: Record) -> bool:
    before = record.windows.get(phase.capacity or "")
    return bool(phase.rate and before and before["rps"] < phase.rate * HEADROOM)


def verify_answers(target: Target) -> int:
    """Return the status of a request without a key, after checking complete answers.

    Raises BenchmarkError if a plain or a streamed answer is incomplete.
    """
    status, answer = post(target, "small")
    if status != 200 or b"total_tokens" not in answer:
        raise BenchmarkError(f"incomplete answer, status {status}: {answer[:200]!r}")
    if not target.tls:
        status, answer = post(target, "burst")
        if status != 200 or answer.count(b"@") < 100 or b"[DONE]" not in answer:
            raise BenchmarkError(f"incomplete stream, status {status}, ends with {answer[-200:]!r}")
    return post(target, "small", with_key=False)[0]
