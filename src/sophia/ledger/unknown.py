"""Attempts of unknown cost: the probable cost stays held for a time, then counts as spent."""

from collections.abc import Iterator

from msgspec import Struct
from msgspec.structs import replace

from sophia.core.rows import AttemptOutcome, UnsettledAttempt

_DEFAULT_HOLD_SECONDS = 3600.0


class UnknownCosts(Struct, frozen=True):
    """Number and nano-dollars of attempts of unknown cost, and the time until the last is held."""

    count: int = 0
    nano: int = 0
    until_ms: int = 0


class UnknownAttempts:
    """Attempts of unknown cost by id; each is held for `hold_seconds`."""

    def __init__(self, hold_seconds: float = _DEFAULT_HOLD_SECONDS) -> None:
        self._hold_ms = int(hold_seconds * 1000)
        self._attempts: dict[int, tuple[UnsettledAttempt, int]] = {}
        self.nano = 0

    def __len__(self) -> int:
        return len(self._attempts)

    def __iter__(self) -> Iterator[UnsettledAttempt]:
        return iter([attempt for attempt, _ in self._attempts.values()])

    def add(self, attempt: UnsettledAttempt, since_ms: int) -> None:
        """Add an attempt, held from `since_ms` on."""
        self._attempts[attempt.outcome.attempt_id] = attempt, since_ms + self._hold_ms
        self.nano += attempt.outcome.cost_nano

    def remove(self, attempt_id: int) -> bool:
        """Remove an attempt; return whether it was held here."""
        attempt, _ = self._attempts.pop(attempt_id, (None, 0))
        if attempt is not None:
            self.nano -= attempt.outcome.cost_nano
        return attempt is not None

    def overdue(self, now_ms: int) -> list[AttemptOutcome]:
        """Return the attempts that have been held long enough."""
        return [each.outcome for each, until in self._attempts.values() if until <= now_ms]

    def sum_up(self, key_id: str, window: str) -> UnknownCosts:
        """Return what is held for a key in a window."""
        found = [
            (attempt.outcome.cost_nano, until)
            for attempt, until in self._attempts.values()
            if (attempt.outcome.key_id, attempt.outcome.window) == (key_id, window)
        ]
        if not found:
            return UnknownCosts()
        return UnknownCosts(
            len(found), sum(nano for nano, _ in found), max(until for _, until in found)
        )


def assume_cost(outcome: AttemptOutcome) -> AttemptOutcome:
    """Return the outcome of an attempt whose probable cost counts as spent."""
    return replace(outcome, state="settled", cost_source="assumed")
