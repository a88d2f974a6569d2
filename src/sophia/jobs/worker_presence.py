"""Timer that shows other machines that this worker lives."""

import logging
from collections.abc import Callable

from sophia.core.ports import Store

BEAT_SECONDS = 5.0

log = logging.getLogger("sophia.ledger")


class WorkerPresence:
    """Renews this worker's number; calls `stop` once, when other machines have taken it over."""

    def __init__(self, store: Store, stop: Callable[[], None]) -> None:
        self._store = store
        self._stop = stop
        self._is_lost = False

    async def __call__(self) -> None:
        """Show once that the worker lives. Raises Unavailable."""
        if self._is_lost or await self._store.beat():
            return
        self._is_lost = True
        log.critical("stopping: %s", self._store.problem)
        self._stop()
