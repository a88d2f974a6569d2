"""Runs the rounds: every target in turn, one at a time, in an order that rotates."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from bench.gateway import places
from bench.gateway.phases import PHASES, Phase
from bench.gateway.process import (
    Cores,
    Running,
    Unable,
    launch,
    listening,
    loop_block_ms,
    post,
    resident_mb,
    start,
)
from bench.gateway.targets import Target, direct, nginx_binary
from bench.gateway.window import Stage, Window, send

WARM_UP = Phase("warm", "warm-up", "small", 32)
TLS_PHASES = ("sat",)
# Below this share of head-room a constant rate would measure the queue in front of the gateway.
HEADROOM = 1.1


@dataclass(frozen=True, slots=True)
class Settings:
    """How much to measure; `peer_rounds` are the rounds in which peers take part."""

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


def run(targets: list[Target], settings: Settings, tell: Callable[[Record], None]) -> list[Record]:
    """All rounds; `tell` hears of each record as it is made. A target that fails to start is not tried again."""
    records: list[Record] = []
    failed: set[str] = set()
    with upstream(targets, settings.cores) as stage:
        for number in range(settings.rounds):
            for target in _order(targets, number):
                if target.name in failed or (target.kind == "peer" and number >= settings.peer_rounds):
                    continue
                record = measure(stage, target, number, settings)
                if record.problem:
                    failed.add(target.name)
                records.append(record)
                tell(record)
    return records


def _order(targets: list[Target], number: int) -> list[Target]:
    first = number * 3 % len(targets)
    return targets[first:] + targets[:first]


@contextmanager
def upstream(targets: list[Target], cores: Cores) -> Iterator[Stage]:
    """The mock upstream, and nginx with TLS before it when a target wants that."""
    if listening(places.UPSTREAM_PORT):
        raise Unable(f"port {places.UPSTREAM_PORT} is taken: is another benchmark running?")
    started = [launch("mock", cores.load, (str(places.BINARIES / "mock"), str(places.UPSTREAM_PORT)))]
    try:
        _await_port(places.UPSTREAM_PORT)
        if any(target.tls for target in targets):
            started.append(launch("tls", cores.load, tls_command()))
            _await_port(places.TLS_PORT)
            started[-1].refresh()
        yield Stage(cores, started)
    finally:
        for running in reversed(started):
            running.stop()


def tls_command() -> tuple[str, ...]:
    """nginx in front of the mock; it repeats the mock's own answer."""
    _, answer = post(direct("direct", 0, tls=False), "small")
    configuration = places.RUN / "tls.conf"
    values: dict[str, object] = {
        "RUN": places.RUN,
        "PORT": places.TLS_PORT,
        "UPSTREAM_PORT": places.UPSTREAM_PORT,
        "CERTIFICATE": places.CERTIFICATES / "server.pem",
        "KEY": places.CERTIFICATES / "server.key",
        "ANSWER": answer.decode(),
    }
    configuration.write_text(places.fill("tls.conf.in", values))
    return (nginx_binary() or "nginx", "-c", str(configuration))


def _await_port(port: int) -> None:
    for _ in range(500):
        if listening(port):
            return
        time.sleep(0.01)
    raise Unable(f"nothing listens on port {port}, see bench/work/run/")


def measure(stage: Stage, target: Target, number: int, settings: Settings) -> Record:
    """Start a target, check that it answers as it must, send every phase, stop it."""
    record = Record(number, target.name)
    running: Running | None = None
    try:
        if target.kind != "direct":
            running = start(target, stage.cores.gateway)
            record.cold_seconds = round(running.cold_seconds, 3)
            if number == 0:
                record.unsigned_status = verify(target)
        send(stage, target, WARM_UP, 1.0, running)
        for phase in _phases(target, settings):
            if _too_fast(phase, record):
                record.over.append(phase.name)
                continue
            tells = target.kind == "ours" and loop_block_ms(target) is not None
            record.windows[phase.name] = send(stage, target, phase, settings.seconds, running)
            if tells and (block := loop_block_ms(target)) is not None:
                record.windows[phase.name]["loop_block_ms"] = block
        if running:
            running.refresh()
            record.resident_mb = resident_mb(running.family)
    except (Unable, OSError) as problem:
        record.problem = str(problem)[:300]
    finally:
        if running:
            running.stop()
    return record


def _phases(target: Target, settings: Settings) -> Iterator[Phase]:
    for name in settings.phases:
        if target.tls and name not in TLS_PHASES:
            continue
        if not target.phases or name in target.phases:
            yield PHASES[name]


def _too_fast(phase: Phase, record: Record) -> bool:
    before = record.windows.get(phase.capacity or "")
    return bool(phase.rate and before and before["rps"] < phase.rate * HEADROOM)


def verify(target: Target) -> int:
    """The status a gateway gives to a request without a key.

    Raises Unable when a whole or a streamed answer is not complete.
    """
    status, answer = post(target, "small")
    if status != 200 or b"total_tokens" not in answer:
        raise Unable(f"a whole answer came as {status}: {answer[:200]!r}")
    if not target.tls:
        status, answer = post(target, "burst")
        if status != 200 or answer.count(b"@") < 100 or b"[DONE]" not in answer:
            raise Unable(f"a stream came as {status}, ending {answer[-200:]!r}")
    return post(target, "small", signed=False)[0]
