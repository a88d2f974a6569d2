"""A clock that stands still until it is moved."""


class ManualClock:
    """Time that only `advance` moves.

    Args:
        wall: seconds since 1970 at the start.
    """

    def __init__(self, wall: float = 1_780_000_000.0) -> None:
        self._wall = wall
        self._monotonic = 0.0

    def monotonic(self) -> float:
        """Return seconds since the clock was made."""
        return self._monotonic

    def wall(self) -> float:
        """Return seconds since 1970."""
        return self._wall + self._monotonic

    def advance(self, seconds: float) -> None:
        """Move the time forward."""
        self._monotonic += seconds
