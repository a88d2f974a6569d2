"""Timer that calls a function repeatedly and survives its failures."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from sophia.core.errors import Unavailable

log = logging.getLogger("sophia.jobs")


async def run_every(
    seconds: float, name: str, work: Callable[[], Awaitable[None]], *, first: float | None = None
) -> None:
    """Call `work` every `seconds` until cancelled, the first time after `first` seconds."""
    await asyncio.sleep(seconds if first is None else first)
    is_away = False
    while True:
        try:
            await work()
            is_away = False
        except Unavailable as error:
            if not is_away:
                log.warning("%s failed; trying again in %s s: %s", name, seconds, error)
            is_away = True
        except Exception:
            # The outermost frame of a job: a failure must not prevent the next turn.
            log.exception("%s failed; trying again in %s s", name, seconds)
        await asyncio.sleep(seconds)
