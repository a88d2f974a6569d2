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

from bench.gateway.phases import body_file
from bench.gateway.places import RUN
from bench.gateway.targets import Target, environment

PROC = Path("/proc")
TICKS = os.sysconf("SC_CLK_TCK")
HIGHEST = -20
STOP_SECONDS = 4.0


class Unable(Exception):
    """A gateway did not start, or does not answer as it must."""


@dataclass(frozen=True, slots=True)
class Cores:
    """Which core carries load and mock, and which the gateway."""

    load: int
    gateway: int


BLOCK_METRIC = "sophia_event_loop_block_seconds"


def cores() -> Cores:
    """The first two cores this process may use.

    Raises Unable on a machine with a single core: sharing it would measure the load generator.
    """
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < 2:
        raise Unable("the benchmark needs two processor cores: one for load and upstream, one for the gateway")
    return Cores(load=allowed[0], gateway=allowed[1])


def may_lift() -> bool:
    """Whether this user may raise priorities, so that a busy machine disturbs less."""
    return os.geteuid() == 0


def pinned(core: int, command: Iterable[str]) -> list[str]:
    """The command held on one core, at high priority where that is allowed."""
    lifted = ["nice", "-n", str(HIGHEST)] if may_lift() else []
    return [*lifted, "taskset", "-c", str(core), *command]


def lift(pid: int) -> None:
    """Raise the session too: with autogroup scheduling nice counts only inside one."""
    if may_lift():
        try:
            (PROC / str(pid) / "autogroup").write_text(str(HIGHEST))
        except OSError:
            return


def family(pid: int) -> list[int]:
    """A process and everything it started."""
    found = [pid]
    try:
        for task in (PROC / str(pid) / "task").iterdir():
            for child in (task / "children").read_text().split():
                found += family(int(child))
    except OSError:
        pass
    return found


def cpu_ns(pids: Iterable[int]) -> int:
    """Processor time of all threads, from the scheduler's own count."""
    total = 0
    for pid in pids:
        try:
            for task in (PROC / str(pid) / "task").iterdir():
                total += int((task / "schedstat").read_text().split()[0])
        except OSError:
            continue
    return total


def resident_mb(pids: Iterable[int]) -> float:
    """Resident memory; pages that processes share count in each."""
    kilobytes = 0
    for pid in pids:
        try:
            rollup = (PROC / str(pid) / "smaps_rollup").read_text()
        except OSError:
            continue
        kilobytes += sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Rss:"))
    return round(kilobytes / 1024, 1)


def machine_busy_seconds() -> float:
    """Processor seconds used on the whole machine since it started."""
    values = [int(value) for value in (PROC / "stat").read_text().splitlines()[0].split()[1:9]]
    idle, waiting, stolen = values[3], values[4], values[7]
    return (sum(values) - idle - waiting - stolen) / TICKS


def post(target: Target, body: str, seconds: float = 20.0, *, signed: bool = True) -> tuple[int, bytes]:
    """One request to a gateway: status and whole body."""
    headers = {"Content-Type": "application/json"}
    if signed:
        headers |= dict(header.split(": ", 1) for header in target.headers)
    connection = http.client.HTTPConnection("127.0.0.1", target.port, timeout=seconds)
    try:
        connection.request("POST", target.path, body_file(body, target.model).read_bytes(), headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def loop_block_ms(target: Target) -> float | None:
    """The longest event-loop block since the last call, in milliseconds; None if it is not told."""
    connection = http.client.HTTPConnection("127.0.0.1", target.port, timeout=5)
    try:
        connection.request("GET", "/metrics")
        page = connection.getresponse().read().decode(errors="replace")
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
    for line in page.splitlines():
        name, _, value = line.partition(" ")
        if name == BLOCK_METRIC:
            return float(value) * 1e3
    return None


@dataclass(slots=True)
class Running:
    """A started process; `cold_seconds` is the time from its start to its first answer."""

    process: subprocess.Popen[bytes]
    cold_seconds: float = 0.0
    family: list[int] = field(default_factory=list)

    def refresh(self) -> None:
        """Look again who belongs to it: workers may start late."""
        self.family = family(self.process.pid)

    def stop(self) -> None:
        """End it and its children: politely, then not."""
        self.refresh()
        for number in (signal.SIGTERM, signal.SIGKILL):
            for pid in self.family:
                try:
                    os.kill(pid, number)
                except OSError:
                    continue
            if self._gone_within(STOP_SECONDS):
                break
        self.process.wait()

    def _gone_within(self, seconds: float) -> bool:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.process.poll()
            if not any(_alive(pid) for pid in self.family):
                return True
            time.sleep(0.02)
        return False


def _alive(pid: int) -> bool:
    try:
        state = (PROC / str(pid) / "stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def launch(name: str, core: int, command: Iterable[str], variables: dict[str, str] | None = None) -> Running:
    """Start a command on one core; its output goes to bench/work/run/NAME.log."""
    RUN.mkdir(parents=True, exist_ok=True)
    with (RUN / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(
            pinned(core, command), env=variables, cwd=RUN, stdin=subprocess.DEVNULL,
            stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    lift(process.pid)
    return Running(process, family=[process.pid])


def listening(port: int) -> bool:
    """Whether somebody accepts connections on a loopback port."""
    try:
        socket.create_connection(("127.0.0.1", port), 0.2).close()
    except OSError:
        return False
    return True


def start(target: Target, core: int) -> Running:
    """Start a gateway and wait for its first answer.

    Raises Unable when it exits, or gives no 200 in its time.
    """
    if target.seed and target.data:
        shutil.rmtree(target.data, ignore_errors=True)
        shutil.copytree(target.seed, target.data)
    if listening(target.port):
        raise Unable(f"port {target.port} is taken")
    began = time.perf_counter()
    running = launch(target.name, core, target.command, environment(target))
    last = "nothing listened"
    while time.perf_counter() - began < target.start_seconds:
        if running.process.poll() is not None:
            raise Unable(f"exited with {running.process.returncode}, see bench/work/run/{target.name}.log")
        if not listening(target.port):
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
    raise Unable(f"no first answer in {target.start_seconds:.0f} s: {last}")
