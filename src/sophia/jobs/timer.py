"""A timer: calls a function again and again and survives its failures."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

log = logging.getLogger("sophia.jobs")


async def every(seconds: float, name: str, work: Callable[[], Awaitable[None]]) -> None:
    """Call `work` each time `seconds` have passed, until cancelled."""
    while True:
        await asyncio.sleep(seconds)
        try:
            await work()
        except Exception:
            # The border of a job: the next turn must come whatever this one did.
            log.exception("%s failed; trying again in %s s", name, seconds)
