"""Monitor of the event loop: the longest pause, which any request may have met."""

import asyncio

_INTERVAL_SECONDS = 0.02


class EventLoopMonitor:
    """Ticks 50 times a second; a tick late by `d` seconds means a block of about that length."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._longest = 0.0
        self._due = self._loop.time()
        self._tick()

    def take_longest_block(self) -> float:
        """Return the longest block in seconds since the previous call."""
        longest, self._longest = self._longest, 0.0
        return longest

    def close(self) -> None:
        """Stop the monitor."""
        self._timer.cancel()

    def _tick(self) -> None:
        now = self._loop.time()
        self._longest = max(self._longest, now - self._due)
        self._due = now + _INTERVAL_SECONDS
        self._timer = self._loop.call_later(_INTERVAL_SECONDS, self._tick)
