"""Admission: how many requests run at a time, shared fairly between keys."""

from sophia.core.errors import Unavailable

_CROWDED_SHARE = 0.8
"""Part of the limit from which no key gets more than its share; one share is kept for another."""


class Admission:
    """Requests that run now. A request beyond the limit is refused before anything is reserved."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._running: dict[str, int] = {}
        self._total = 0

    def enter(self, key_id: str) -> None:
        """Count a request of a key, until `leave`. Raises Unavailable when there is no room."""
        own = self._running.get(key_id, 0)
        if self._total >= self.limit * _CROWDED_SHARE:
            share = self.limit / (len(self._running) + 1)
            if self._total >= self.limit or own >= share:
                raise Unavailable(
                    f"{self._total:,} requests are running, too many for one more of this key; "
                    "try again shortly.",
                    retry_after=1.0,
                )
        self._running[key_id] = own + 1
        self._total += 1

    def leave(self, key_id: str) -> None:
        """Count a request as ended."""
        self._total -= 1
        own = self._running[key_id] - 1
        if own:
            self._running[key_id] = own
        else:
            del self._running[key_id]
