"""A clock for tests that need control over time."""


class ManualClock:
    """A clock that only `advance` moves; `wall` is in Unix seconds."""

    def __init__(self, wall: float = 1_780_000_000.0) -> None:
        self._wall = wall
        self._monotonic = 0.0

    def monotonic(self) -> float:
        """Return the seconds since the clock was created."""
        return self._monotonic

    def wall(self) -> float:
        """Return Unix seconds."""
        return self._wall + self._monotonic

    def advance(self, seconds: float) -> None:
        """Move the time forward."""
        self._monotonic += seconds
