"""One window of load on one gateway: what the load generator saw and what it cost the gateway."""

import json
import os
import resource
import subprocess
import time
from dataclasses import dataclass, field

from bench.gateway import places
from bench.gateway.phases import Phase, body_file
from bench.gateway.process import (
    Cores,
    Running,
    Unable,
    cpu_ns,
    lift,
    machine_busy_seconds,
    pinned,
)
from bench.gateway.targets import Target

Window = dict[str, float]

WARM_SECONDS = 0.3
SETTLE_SECONDS = 0.15


@dataclass(frozen=True, slots=True)
class Stage:
    """The cores in use, and the processes that play the upstream."""

    cores: Cores
    upstream: list[Running] = field(default_factory=list)

    def upstream_cpu_ns(self) -> int:
        """Processor time the upstream has used so far."""
        return sum(cpu_ns(running.family) for running in self.upstream)


@dataclass(frozen=True, slots=True)
class Spent:
    """Processor seconds by whom, up to a moment."""

    gateway: float
    upstream: float
    load: float
    machine: float

    def since(self, before: "Spent") -> "Spent":
        """What was spent between two moments."""
        return Spent(
            self.gateway - before.gateway,
            self.upstream - before.upstream,
            self.load - before.load,
            self.machine - before.machine,
        )


def spent(stage: Stage, pids: list[int]) -> Spent:
    """Processor seconds until now; `pids` are the gateway's."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Spent(
        cpu_ns(pids) / 1e9, stage.upstream_cpu_ns() / 1e9, usage.ru_utime + usage.ru_stime, machine_busy_seconds()
    )


def send(stage: Stage, target: Target, phase: Phase, seconds: float, running: Running | None) -> Window:
    """Send one phase to a target; `running` is None when the target is the upstream itself.

    Raises Unable when the load generator gives no result.
    """
    time.sleep(SETTLE_SECONDS)
    if running:
        running.refresh()
    pids = running.family if running else []
    before, began = spent(stage, pids), time.perf_counter()
    load = subprocess.Popen(
        pinned(stage.cores.load, load_command(target, phase, seconds * phase.share)),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    lift(load.pid)
    printed, complaint = load.communicate()
    wall = time.perf_counter() - began
    seen = parse(printed, complaint)
    return seen | costs(seen, spent(stage, pids).since(before), wall, running is not None)


def parse(printed: str, complaint: str) -> Window:
    """The numbers of the load generator's line. Raises Unable when there is none."""
    try:
        line = json.loads(printed)
    except ValueError:
        raise Unable(f"the load generator said: {(printed + complaint)[-200:]}") from None
    if "rps" not in line:
        raise Unable(f"the load generator said: {printed[:200]}")
    return {name: float(value) for name, value in line.items() if isinstance(value, int | float)}


def costs(seen: Window, used: Spent, wall: float, gateway: bool) -> Window:
    """Shares of cores, and the gateway's microseconds per request and per event."""
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


def load_command(target: Target, phase: Phase, seconds: float) -> list[str]:
    """How the load generator is called for one window."""
    command = [str(places.BINARIES / "load"), "--port", str(target.port), "--path", target.path]
    command += ["--body", os.fspath(body_file(phase.body, target.model)), "--connections", str(phase.connections)]
    command += ["--rate", str(phase.rate), "--seconds", f"{seconds:.2f}", "--warm", str(WARM_SECONDS)]
    for header in target.headers:
        command += ["--header", header]
    return command + (["--sse"] if phase.stream else [])
