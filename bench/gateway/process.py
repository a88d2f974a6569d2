"""Processes on pinned cores: start, first answer, CPU time, memory, priority, stop."""

import http.client
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from bench.gateway.paths import RUN
from bench.gateway.phases import write_body
from bench.gateway.targets import Target, build_environment

PROC = Path("/proc")
TICKS = os.sysconf("SC_CLK_TCK")
HIGHEST_PRIORITY = -20
STOP_SECONDS = 4.0


class BenchmarkError(Exception):
    """The machine or a gateway does not meet a requirement of the benchmark."""


@dataclass(frozen=True, slots=True)
class Cores:
    """The core of load generator and mock upstream, and the core of the gateway."""

    load: int
    gateway: int


BLOCK_METRIC, ROUND_TRIPS_METRIC = (
    "sophia_event_loop_block_seconds",
    "sophia_store_round_trips_total",
)


def select_cores() -> Cores:
    """Return the first two cores that this process may use.

    Raises BenchmarkError on a machine with one core: sharing it would measure the load generator.
    """
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < 2:
        raise BenchmarkError(
            "the benchmark needs two processor cores: one for load and upstream, one for the gateway"
        )
    return Cores(load=allowed[0], gateway=allowed[1])


def can_raise_priority() -> bool:
    """Return whether this user may raise priorities, which reduces noise from other processes."""
    return os.geteuid() == 0


def pin_command(core: int | None, command: Iterable[str]) -> list[str]:
    """Return the command pinned to a core, at high priority where that is allowed; None does not."""
    if core is None:
        return [*command]
    nice = ["nice", "-n", str(HIGHEST_PRIORITY)] if can_raise_priority() else []
    return [*nice, "taskset", "-c", str(core), *command]


def raise_session_priority(pid: int) -> None:
    """Raise the priority of a process's session, since autogroups limit nice to a session."""
    if can_raise_priority():
        try:
            (PROC / str(pid) / "autogroup").write_text(str(HIGHEST_PRIORITY))
        except OSError:
            return


def find_process_tree(pid: int) -> list[int]:
    """Return the ids of a process and its descendants."""
    found = [pid]
    try:
        for task in (PROC / str(pid) / "task").iterdir():
            for child in (task / "children").read_text().split():
                found += find_process_tree(int(child))
    except OSError:
        pass
    return found


def read_cpu_ns(pids: Iterable[int]) -> int:
    """Return the CPU time of all threads, from the scheduler's statistics."""
    total = 0
    for pid in pids:
        try:
            for task in (PROC / str(pid) / "task").iterdir():
                total += int((task / "schedstat").read_text().split()[0])
        except OSError:
            continue
    return total


def read_resident_mb(pids: Iterable[int]) -> float:
    """Return resident memory; shared pages count in each process."""
    kilobytes = 0
    for pid in pids:
        try:
            rollup = (PROC / str(pid) / "smaps_rollup").read_text()
        except OSError:
            continue
        kilobytes += sum(
            int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Rss:")
        )
    return round(kilobytes / 1024, 1)


def read_machine_busy_seconds() -> float:
    """Return the CPU seconds used on the whole machine since its start."""
    values = [int(value) for value in (PROC / "stat").read_text().splitlines()[0].split()[1:9]]
    idle, waiting, stolen = values[3], values[4], values[7]
    return (sum(values) - idle - waiting - stolen) / TICKS


def post(
    target: Target, body: str, seconds: float = 20.0, *, with_key: bool = True
) -> tuple[int, bytes]:
    """Send one request to a gateway; return status and body."""
    headers = {"Content-Type": "application/json"}
    if with_key:
        headers |= dict(header.split(": ", 1) for header in target.headers)
    connection = http.client.HTTPConnection("127.0.0.1", target.port, timeout=seconds)
    try:
        connection.request(
            "POST", target.path, write_body(body, target.model).read_bytes(), headers
        )
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def read_metrics(target: Target) -> dict[str, list[float]]:
    """Return the samples of each of a gateway's metrics, empty where it reports none."""
    connection = http.client.HTTPConnection("127.0.0.1", target.port, timeout=5)
    try:
        connection.request("GET", "/metrics")
        page = connection.getresponse().read().decode(errors="replace")
    except (OSError, http.client.HTTPException):
        return {}
    finally:
        connection.close()
    found: dict[str, list[float]] = {}
    for line in page.splitlines():
        if not line.startswith("#"):
            name, _, value = line.rpartition(" ")
            found.setdefault(name.partition("{")[0], []).append(float(value))
    return found


@dataclass(slots=True)
class Running:
    """A started process; `cold_seconds` is the time from its start to its first answer."""

    process: subprocess.Popen[bytes]
    cold_seconds: float = 0.0
    pids: list[int] = field(default_factory=list)

    def refresh(self) -> None:
        """Update the process ids, since workers may start late."""
        self.pids = find_process_tree(self.process.pid)

    def stop(self) -> None:
        """Stop it and its children: SIGTERM, then SIGKILL."""
        self.refresh()
        for number in (signal.SIGTERM, signal.SIGKILL):
            for pid in self.pids:
                try:
                    os.kill(pid, number)
                except OSError:
                    continue
            if self._wait_until_gone(STOP_SECONDS):
                break
        self.process.wait()

    def _wait_until_gone(self, seconds: float) -> bool:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.process.poll()
            if not any(_alive(pid) for pid in self.pids):
                return True
            time.sleep(0.02)
        return False


def _alive(pid: int) -> bool:
    try:
        state = (PROC / str(pid) / "stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def launch(
    name: str, core: int | None, command: Iterable[str], variables: dict[str, str] | None = None
) -> Running:
    """Start a command, on one core if any; its output goes to bench/work/run/NAME.log."""
    RUN.mkdir(parents=True, exist_ok=True)
    with (RUN / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(
            pin_command(core, command), env=variables, cwd=RUN, stdin=subprocess.DEVNULL,
            stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    if core is not None:
        raise_session_priority(process.pid)
    return Running(process, pids=[process.pid])


def is_listening(port: int) -> bool:
    """Return whether a loopback port accepts connections."""
    try:
        socket.create_connection(("127.0.0.1", port), 0.2).close()
    except OSError:
        return False
    return True


def start(target: Target, core: int | None) -> Running:
    """Start a gateway and wait for its first answer.

    Raises BenchmarkError if it exits or gives no 200 within `start_seconds`.
    """
    if target.seed and target.data:
        shutil.rmtree(target.data, ignore_errors=True)
        shutil.copytree(target.seed, target.data)
    if is_listening(target.port):
        raise BenchmarkError(f"port {target.port} is in use")
    began = time.perf_counter()
    running = launch(target.name, core, target.command, build_environment(target))
    last = "no open port"
    while time.perf_counter() - began < target.start_seconds:
        if running.process.poll() is not None:
            raise BenchmarkError(
                f"exited with {running.process.returncode}, see bench/work/run/{target.name}.log"
            )
        if not is_listening(target.port):
            time.sleep(0.004)
            continue
        try:
            status, answer = post(target, "small", 10.0)
        except (OSError, http.client.HTTPException) as problem:
            last = repr(problem)
        else:
            if status == 200:
                running.cold_seconds = time.perf_counter() - began
                running.refresh()
                return running
            last = f"{status} {answer[:200].decode(errors='replace')}"
        time.sleep(0.02)
    running.stop()
    raise BenchmarkError(f"no first answer in {target.start_seconds:.0f} s: {last}")
