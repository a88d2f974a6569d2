"""One window of load on one gateway: the load generator's figures and CPU time."""

import json
import os
import resource
import subprocess
import time
from dataclasses import dataclass, field

from bench.gateway import paths
from bench.gateway.phases import Phase, write_body
from bench.gateway.process import (
    BenchmarkError,
    Cores,
    Running,
    pin_command,
    raise_session_priority,
    read_cpu_ns,
    read_machine_busy_seconds,
)
from bench.gateway.targets import Target

Window = dict[str, float]

WARM_SECONDS = 0.3
SETTLE_SECONDS = 0.15


@dataclass(frozen=True, slots=True)
class Stage:
    """The cores in use, and the processes of the mock upstream."""

    cores: Cores
    upstream: list[Running] = field(default_factory=list)

    def upstream_cpu_ns(self) -> int:
        """Return the CPU time of the upstream so far."""
        return sum(read_cpu_ns(running.pids) for running in self.upstream)


@dataclass(frozen=True, slots=True)
class CpuSeconds:
    """CPU seconds up to a moment, by user."""

    gateway: float
    upstream: float
    load: float
    machine: float

    def since(self, before: "CpuSeconds") -> "CpuSeconds":
        """Return the CPU seconds since an earlier moment."""
        return CpuSeconds(
            self.gateway - before.gateway,
            self.upstream - before.upstream,
            self.load - before.load,
            self.machine - before.machine,
        )


def read_cpu_seconds(stage: Stage, pids: list[int]) -> CpuSeconds:
    """Read the CPU seconds until now; `pids` are the gateway's."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return CpuSeconds(
        read_cpu_ns(pids) / 1e9,
        stage.upstream_cpu_ns() / 1e9,
        usage.ru_utime + usage.ru_stime,
        read_machine_busy_seconds(),
    )


def run_window(
    stage: Stage, target: Target, phase: Phase, seconds: float, running: Running | None
) -> Window:
    """Send one phase to a target; `running` is None when the target is the upstream itself.

    Raises BenchmarkError if the load generator gives no result.
    """
    time.sleep(SETTLE_SECONDS)
    if running:
        running.refresh()
    pids = running.pids if running else []
    before, began = read_cpu_seconds(stage, pids), time.perf_counter()
    load = subprocess.Popen(
        pin_command(stage.cores.load, build_load_command(target, phase, seconds * phase.share)),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    raise_session_priority(load.pid)
    output, errors = load.communicate()
    wall = time.perf_counter() - began
    seen = parse_output(output, errors)
    return seen | compute_cpu_figures(
        seen, read_cpu_seconds(stage, pids).since(before), wall, running is not None
    )


def parse_output(output: str, errors: str) -> Window:
    """Return the load generator's figures. Raises BenchmarkError if there are none."""
    try:
        line = json.loads(output)
    except ValueError:
        raise BenchmarkError(
            f"unexpected output of the load generator: {(output + errors)[-200:]}"
        ) from None
    if "rps" not in line:
        raise BenchmarkError(f"unexpected output of the load generator: {output[:200]}")
    return {name: float(value) for name, value in line.items() if isinstance(value, int | float)}


def compute_cpu_figures(seen: Window, used: CpuSeconds, wall: float, gateway: bool) -> Window:
    """Return shares of cores, and the gateway's microseconds per request and per event."""
    foreign = used.machine - used.gateway - used.upstream - used.load
    result = {
        "gateway_core": round(used.gateway / wall, 3),
        "load_core": round((used.upstream + used.load) / wall, 3),
        "foreign_cores": round(max(foreign, 0.0) / wall, 3),
    }
    if gateway and seen["finished"]:
        result["cpu_us"] = round(used.gateway * 1e6 / seen["finished"], 2)
    if gateway and seen["events_seen"]:
        result["cpu_us_event"] = round(used.gateway * 1e6 / seen["events_seen"], 2)
    return result


def build_load_command(target: Target, phase: Phase, seconds: float) -> list[str]:
    """Return the load generator's command for one window."""
    command = [str(paths.BINARIES / "load"), "--port", str(target.port), "--path", target.path]
    command += [
        "--body",
        os.fspath(write_body(phase.body, target.model)),
        "--connections",
        str(phase.connections),
    ]
    command += [
        "--rate",
        str(phase.rate),
        "--seconds",
        f"{seconds:.2f}",
        "--warm",
        str(WARM_SECONDS),
    ]
    for header in target.headers:
        command += ["--header", header]
    return command + (["--sse"] if phase.stream else [])
