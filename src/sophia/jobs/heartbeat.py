"""Measure how long the event loop was kept from turning: the pause that every request may meet."""

import asyncio

_BEAT = 0.02


class Heartbeat:
    """Beats 50 times a second; a beat that comes late by `d` means a block of about `d` seconds."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._longest = 0.0
        self._due = self._loop.time() + _BEAT
        self._timer = self._loop.call_later(_BEAT, self._beat)

    def longest(self) -> float:
        """Return the longest block in seconds since this was last asked."""
        longest, self._longest = self._longest, 0.0
        return longest

    def close(self) -> None:
        """Stop beating."""
        self._timer.cancel()

    def _beat(self) -> None:
        now = self._loop.time()
        self._longest = max(self._longest, now - self._due)
        self._due = now + _BEAT
        self._timer = self._loop.call_later(_BEAT, self._beat)
