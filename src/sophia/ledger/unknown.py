"""Money held for attempts whose cost is not known yet, until their bill or for a time."""

from collections.abc import Collection, Iterator

from msgspec import Struct

from sophia.core.rows import AttemptOutcome, UnsettledAttempt

_DEFAULT_HOLD_SECONDS = 3600.0


class UnknownCosts(Struct, frozen=True):
    """Number and held nano-dollars of attempts of unknown cost, and the end of the last hold."""

    count: int = 0
    nano: int = 0
    until_ms: int = 0


class HeldAttempt(Struct, frozen=True):
    """An attempt of unknown or estimated cost, for which money is held until a time."""

    attempt: UnsettledAttempt
    until_ms: int


class UnknownAttempts:
    """Attempts whose cost is not known yet, by id; money is held for `hold_seconds` for each."""

    def __init__(self, hold_seconds: float = _DEFAULT_HOLD_SECONDS) -> None:
        self._hold_ms = int(hold_seconds * 1000)
        self._attempts: dict[int, HeldAttempt] = {}

    def __len__(self) -> int:
        return len(self._attempts)

    def __iter__(self) -> Iterator[UnsettledAttempt]:
        return iter([held.attempt for held in self._attempts.values()])

    @property
    def nano(self) -> int:
        """All that is held, in nano-dollars."""
        return sum(held.attempt.outcome.held_nano for held in self._attempts.values())

    def add(self, attempt: UnsettledAttempt, since_ms: int | None = None) -> None:
        """Add an attempt; its money is held from `since_ms` on, by default from its end."""
        outcome = attempt.outcome
        until_ms = max(outcome.at_ms, since_ms or 0) + self._hold_ms
        self._attempts[outcome.attempt_id] = HeldAttempt(attempt, until_ms)

    def remove(self, attempt_id: int) -> None:
        """Remove an attempt, if it is here."""
        self._attempts.pop(attempt_id, None)

    def retain(self, attempt_ids: Collection[int]) -> None:
        """Remove all other attempts."""
        for attempt_id in self._attempts.keys() - attempt_ids:
            del self._attempts[attempt_id]

    def overdue(self, now_ms: int) -> list[AttemptOutcome]:
        """Return the attempts for which money has been held long enough."""
        return [held.attempt.outcome for held in self._attempts.values() if held.until_ms <= now_ms]

    def sum_up(self, key_id: str, window: str) -> UnknownCosts:
        """Return the amount held for a key in a window."""
        found = [
            held
            for held in self._attempts.values()
            if (held.attempt.outcome.key_id, held.attempt.outcome.window) == (key_id, window)
        ]
        if not found:
            return UnknownCosts()
        nano = sum(held.attempt.outcome.held_nano for held in found)
        until_ms = max(held.until_ms for held in found)
        return UnknownCosts(len(found), nano, until_ms)
