"""Looks at requests on the event loop and on a thread beside it, and tells what each costs. `python -m bench.looking`."""

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

from bench.decision import TEXTS, prompts, quiet
from sophia.compose.learning import first_steps
from sophia.routing.features import extract
from sophia.routing.nouns import Hints

CHARS = 2_000
AT_ONCE = 4
TICK_S = 0.001


@dataclass(frozen=True, slots=True)
class Cost:
    """Processor time of one look in microseconds, and by how many milliseconds the loop's timers were late."""

    where: str
    cpu_us: float
    late_p99_ms: float


async def measured(where: str, work: Callable[[], Awaitable[None]], looks: int) -> Cost:
    """What `work`, which looks so many times, costs the process."""
    late: list[float] = []

    async def tick() -> None:
        while True:
            began = time.perf_counter()
            await asyncio.sleep(TICK_S)
            late.append(time.perf_counter() - began - TICK_S)

    clock = asyncio.create_task(tick())
    began = _spent()
    await work()
    spent = _spent() - began
    clock.cancel()
    late.sort()
    return Cost(where, spent / looks * 1e6, late[int(len(late) * 0.99)] * 1e3 if late else 0.0)


async def compare(looks: int) -> list[Cost]:
    """The cost on the loop, on one thread, and of handing over alone."""
    _, look = first_steps()
    hints = Hints()
    given = [(prompt, extract(prompt, hints)) for kind in TEXTS for prompt in prompts(kind, CHARS)]
    loop, pool = asyncio.get_running_loop(), ThreadPoolExecutor(1)

    def one(number: int) -> object:
        prompt, features = given[number % len(given)]
        return look(prompt, features, hints, "key")

    async def inline() -> None:
        for number in range(looks):
            one(number)
            if number % AT_ONCE == 0:
                await asyncio.sleep(0)

    async def beside(work: Callable[[int], object]) -> None:
        for number in range(0, looks, AT_ONCE):
            await asyncio.gather(*(loop.run_in_executor(pool, work, number + more) for more in range(AT_ONCE)))

    await inline()
    found = [
        await measured("on the loop", inline, looks),
        await measured("on a thread", lambda: beside(one), looks),
        await measured("handing over alone", lambda: beside(abs), looks),
    ]
    pool.shutdown()
    return found


def _spent() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main(arguments: list[str]) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.looking", description=__doc__)
    parser.add_argument("--looks", type=int, default=4_000)
    looks = parser.parse_args(arguments).looks
    quiet()
    table = Table("where", "processor time, µs", "timers late by, p99, ms", title=f"{looks} looks at 2 kB of text")
    for cost in uvloop.run(compare(looks)):
        table.add_row(cost.where, f"{cost.cpu_us:.0f}", f"{cost.late_p99_ms:.2f}")
    Console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
