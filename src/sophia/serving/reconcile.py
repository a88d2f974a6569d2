"""Find out what abandoned attempts cost; until it is known, their holds stay charged."""

import asyncio
from collections.abc import Callable, Sequence

from sophia.core.ports import Upstream
from sophia.serving.tab import Answered, Tab

_DELAYS = (0.2, 1.0, 5.0, 15.0, 60.0)


class Reconciler:
    """Asks upstreams for bills in the background; `delays` are seconds between the questions."""

    def __init__(self, delays: Sequence[float] = _DELAYS) -> None:
        self._delays = delays
        self._tasks: set[asyncio.Task[None]] = set()

    def later(
        self, upstream: Upstream, tab: Tab, answered: Answered, closed: Callable[[], None]
    ) -> None:
        """Settle `tab` as soon as the upstream names its price, then call `closed`."""
        task = asyncio.get_running_loop().create_task(self._ask(upstream, tab, answered, closed))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _ask(
        self, upstream: Upstream, tab: Tab, answered: Answered, closed: Callable[[], None]
    ) -> None:
        try:
            for delay in self._delays if upstream.bills and answered.generation_id else ():
                await asyncio.sleep(delay)
                answered.usage = await upstream.bill(answered.generation_id or "")
                if answered.usage is not None:
                    break
        finally:
            # A shutdown ends the waiting too. A guess is not the last word: `jobs.resolve` asks on.
            if answered.usage is not None or answered.chars:
                tab.settle(answered)
            else:
                tab.doubt(answered)
            closed()

    async def close(self, patience: float = 2.0) -> None:
        """Give running questions `patience` seconds, then settle with what is known."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=patience)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
