"""The phases of a run: requests at a constant rate, samples of the process, and their counts."""

import asyncio
import json
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any, NamedTuple

from bench.chaos.client import Outcome, classify, exchange, is_continued, write_request
from bench.chaos.faults import (
    PRIMARY,
    Phase,
    build_body,
    choose_fault,
    is_streamed,
    list_words,
)  # fmt: skip
from bench.chaos.gateways import write_chat
from bench.chaos.upstream import LOG_PATH
from bench.gateway.paths import UPSTREAM_PORT
from bench.gateway.process import PROC, Running, read_loop_block_ms, read_resident_mb
from bench.gateway.targets import Target

JsonObject = dict[str, Any]
HUNG_SECONDS = 20.0
EARLY_SECONDS = 5.0
"""Start of an outage, in which a gateway may still learn of it."""
SETTLE_SECONDS = 75.0
"""Sophia asks for the cost of broken streams up to a minute later."""


class Load(NamedTuple):
    """The requests of a phase, their rate per second, and the seed of their faults."""

    phase: Phase
    requests: int
    rate: float
    seed: int


def summarise(values: list[float]) -> dict[str, float]:
    """Return median, 99th percentile and maximum; nothing for no values."""
    ordered = sorted(values)
    places = {"p50": len(ordered) // 2, "p99": len(ordered) * 99 // 100, "max": -1}
    return {name: round(ordered[at], 3) for name, at in places.items()} if ordered else {}


async def run_phase(target: Target, load: Load, advance: Callable[[], None]) -> JsonObject:
    """Send requests at the load's rate, whether or not earlier ones have ended; return counts."""
    phase = load.phase
    outcomes: defaultdict[str, Counter[Outcome]] = defaultdict(Counter)
    healthy: Counter[Outcome] = Counter()
    continued: Counter[Outcome] = Counter()
    healthy_ms: list[float] = []

    async def send(number: int) -> None:
        fault = choose_fault(load.seed, phase, number, 0, PRIMARY)
        request, began = write_chat(target, build_body(phase, number, fault)), time.perf_counter()
        received = await exchange(target.port, request, HUNG_SECONDS)
        text = "".join(list_words(phase, number))
        outcome = classify(received, text, streamed=is_streamed(phase, number))
        continued[outcome] += is_continued(received)
        if fault is None:
            healthy_ms.append((time.perf_counter() - began) * 1e3)
        (healthy if fault is None else outcomes[fault.kind])[outcome] += 1
        advance()

    start = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for number in range(load.requests):
            await asyncio.sleep(start + number / load.rate - time.perf_counter())
            group.create_task(send(number))
    log = (await _read_log())["dispatches"]
    faulty = sum(outcomes.values(), Counter[Outcome]())
    return {
        "requests": load.requests,
        "rate": load.rate,
        "with_fault": faulty.total(),
        "outcomes": dict(faulty),
        "outcomes_by_fault": {kind: dict(counts) for kind, counts in outcomes.items()},
        "outcomes_without_fault": dict(healthy),
        "continued": dict(+continued),
        "healthy_ms": summarise(healthy_ms),
        **_count_attempts([entry for entry in log if entry["phase"] == phase]),
    }


async def _read_log() -> Any:
    received = await exchange(UPSTREAM_PORT, write_request(LOG_PATH, (), None), HUNG_SECONDS)
    return json.loads(received.body if received else b"")


def _count_attempts(dispatches: list[JsonObject]) -> JsonObject:
    """Return attempts per request and times to the next attempt, as the upstream saw them."""
    by_request: defaultdict[int, list[JsonObject]] = defaultdict(list)
    for entry in dispatches:
        by_request[entry["number"]].append(entry)
    late_at = min((entry["arrived_at"] for entry in dispatches), default=0.0) + EARLY_SECONDS
    late = [len(tries) for tries in by_request.values() if tries[0]["arrived_at"] > late_at]
    attempts = [len(tries) for tries in by_request.values()]
    failover_ms = [
        max(0.0, (after["arrived_at"] - before["failed_at"]) * 1e3)
        for tries in by_request.values()
        for before, after in pairwise(tries)
        # When a gateway gives a silent connection up, only its own clock knows.
        if before["failed_at"] and before["fault"] != "silence"
    ]
    return {
        "attempts": _mean_and_max(attempts),
        "late_attempts": _mean_and_max(late),
        "failovers": len(failover_ms),
        "failover_ms": summarise(failover_ms),
    }


def _mean_and_max(counts: list[int]) -> dict[str, float]:
    return {"mean": round(statistics.mean(counts), 3), "max": max(counts)} if counts else {}


@asynccontextmanager
async def sampling(target: Target, gateway: Running) -> AsyncIterator[Callable[[], JsonObject]]:
    """Sample memory, descriptors and event-loop blocks each second; yield their summary."""
    pid = gateway.process.pid
    samples: list[tuple[float, float, int, float]] = []

    async def sample() -> None:
        # The first value is that of the start.
        await asyncio.to_thread(read_loop_block_ms, target)
        while True:
            await asyncio.sleep(1.0)
            block = await asyncio.to_thread(read_loop_block_ms, target)
            descriptors = sum(1 for _ in (PROC / str(pid) / "fd").iterdir())
            hours = time.monotonic() / 3600
            samples.append((hours, read_resident_mb([pid]), descriptors, block or 0.0))

    def summary() -> JsonObject:
        hours, memory, descriptors, block = map(list, zip(*samples, strict=True))
        half = len(hours) // 2
        return {
            "seconds": round((hours[-1] - hours[0]) * 3600, 1),
            "resident_mb": {"first": memory[0], "last": memory[-1]},
            "resident_mb_per_hour": _slope(hours[half:], memory[half:]),
            "descriptors": {"min": min(descriptors), "max": max(descriptors)},
            "descriptors_per_hour": _slope(hours[half:], descriptors[half:]),
            "block_ms": summarise(block),
        }

    task = asyncio.create_task(sample())
    try:
        yield summary
    finally:
        task.cancel()


def _slope(hours: list[float], values: list[float]) -> float | None:
    """Return the change per hour; None for less than a minute, which says nothing."""
    if len(values) < 60:
        return None
    return round(statistics.linear_regression(hours, values).slope, 1)


async def compare_books(target: Target) -> dict[str, int]:
    """Return the upstream's bill and Sophia's ledger in nano-dollars, once they stop changing."""
    end, request = time.monotonic() + SETTLE_SECONDS, write_request("/v1/key", target.headers, None)
    while True:
        bill = (await _read_log())["bill_nano"]
        received = await exchange(target.port, request, HUNG_SECONDS)
        data = json.loads(received.body if received else b"")["data"]
        ledger, held = (round(data[name] * 1e9) for name in ("usage", "held"))
        if ledger == bill or time.monotonic() > end:
            return {"bill": bill, "ledger": ledger, "held": held}
        await asyncio.sleep(1.0)
