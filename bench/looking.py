"""Cost of classifying requests on the event loop and on a thread. `python -m bench.looking`."""

import argparse
import asyncio
import resource
import sys
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import uvloop
from rich.console import Console
from rich.table import Table

from bench.decision import TEXTS, build_prompts, pin_to_one_core
from sophia.learning.online.packaged import load_classifier
from sophia.routing.types import Hints

CHARS = 2_000
CONCURRENCY = 4
TICK_S = 0.001


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU time of one classification in µs, and the delay of the loop's timers in ms."""

    where: str
    cpu_us: float
    late_p99_ms: float


async def measure_cost(where: str, work: Callable[[], Awaitable[None]], looks: int) -> Cost:
    """Return the cost per classification of `work`, which classifies `looks` prompts."""
    late: list[float] = []

    async def tick() -> None:
        while True:
            began = time.perf_counter()
            await asyncio.sleep(TICK_S)
            late.append(time.perf_counter() - began - TICK_S)

    clock = asyncio.create_task(tick())
    began = _read_cpu_seconds()
    await work()
    spent = _read_cpu_seconds() - began
    clock.cancel()
    late.sort()
    return Cost(where, spent / looks * 1e6, late[int(len(late) * 0.99)] * 1e3 if late else 0.0)


async def compare(looks: int) -> list[Cost]:
    """Return the costs on the loop, on a thread, and of the hand-over to a thread alone."""
    classifier, hints = load_classifier(), Hints()
    prompts = [prompt for kind in TEXTS for prompt in build_prompts(kind, CHARS)]
    loop, pool = asyncio.get_running_loop(), ThreadPoolExecutor(1)

    def classify(number: int) -> object:
        return classifier.encode(prompts[number % len(prompts)], hints)

    async def inline() -> None:
        for number in range(looks):
            classify(number)
            if number % CONCURRENCY == 0:
                await asyncio.sleep(0)

    async def run_on_thread(work: Callable[[int], object]) -> None:
        for number in range(0, looks, CONCURRENCY):
            await asyncio.gather(
                *(loop.run_in_executor(pool, work, number + more) for more in range(CONCURRENCY))
            )

    await inline()
    found = [
        await measure_cost("on the loop", inline, looks),
        await measure_cost("on a thread", lambda: run_on_thread(classify), looks),
        await measure_cost("hand-over alone", lambda: run_on_thread(abs), looks),
    ]
    pool.shutdown()
    return found


def _read_cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main(arguments: list[str]) -> int:
    """Measure the costs and print them as a table."""
    parser = argparse.ArgumentParser(prog="python -m bench.looking", description=__doc__)
    parser.add_argument("--looks", type=int, default=4_000)
    looks = parser.parse_args(arguments).looks
    pin_to_one_core()
    table = Table(
        "where",
        "CPU time, µs",
        "timer delay p99, ms",
        title=f"{looks} classifications of 2 kB of text",
    )
    for cost in uvloop.run(compare(looks)):
        table.add_row(cost.where, f"{cost.cpu_us:.0f}", f"{cost.late_p99_ms:.2f}")
    Console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
