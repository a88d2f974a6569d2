"""Money held for attempts whose cost is not known yet, until their bill or for a time."""

from collections.abc import Iterator

from msgspec import Struct

from sophia.core.rows import AttemptOutcome, UnsettledAttempt

_DEFAULT_HOLD_SECONDS = 3600.0


class UnknownCosts(Struct, frozen=True):
    """Number and held nano-dollars of attempts of unknown cost, and the end of the last hold."""

    count: int = 0
    nano: int = 0
    until_ms: int = 0


class HeldAttempt(Struct, frozen=True):
    """An attempt of unknown or estimated cost, and the amount held for it until a time."""

    attempt: UnsettledAttempt
    held_nano: int
    until_ms: int


class UnknownAttempts:
    """Attempts whose cost is not known yet, by id; money is held for `hold_seconds` for each."""

    def __init__(self, hold_seconds: float = _DEFAULT_HOLD_SECONDS) -> None:
        self._hold_ms = int(hold_seconds * 1000)
        self._attempts: dict[int, HeldAttempt] = {}
        self.nano = 0

    def __len__(self) -> int:
        return len(self._attempts)

    def __iter__(self) -> Iterator[UnsettledAttempt]:
        return iter([held.attempt for held in self._attempts.values()])

    def add(self, attempt: UnsettledAttempt, held_nano: int, since_ms: int) -> None:
        """Add an attempt for which `held_nano` is held from `since_ms` on."""
        held = HeldAttempt(attempt, held_nano, since_ms + self._hold_ms)
        self._attempts[attempt.outcome.attempt_id] = held
        self.nano += held_nano

    def remove(self, attempt_id: int) -> int:
        """Remove an attempt; return the nano-dollars held for it, 0 for one that is not here."""
        held = self._attempts.pop(attempt_id, None)
        if held is None:
            return 0
        self.nano -= held.held_nano
        return held.held_nano

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
        nano, until_ms = sum(held.held_nano for held in found), max(h.until_ms for h in found)
        return UnknownCosts(len(found), nano, until_ms)
