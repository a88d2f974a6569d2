"""The hot account of a run: its limits, and what is spent beyond them."""

import random
import time
from typing import Any

from sophia.adapters.store.databases.database import Database

_ROOMS = (-100_000, 20_000, 300_000, 20_000_000, 80_000_000)
"""Room that a change of the limit leaves above what is spent, or takes from it."""
_ROOM_WEIGHTS = (1, 1, 2, 8, 8)
_SETTLED_SECONDS = 3.0
"""Time after which a limit that was cut must hold everywhere."""
_CHANGE_SECONDS, _CHANGE_WEIGHTS = (0.5, 3.0), (9, 1)
"""Times that a limit stays; only in the longer one can it be said whether a refusal was right."""


class Watcher:
    """Reads the hot account while others spend, and changes its limit."""

    def __init__(self, database: Database, limit: Any, chance: random.Random) -> None:
        self._database = database
        self.limit = limit
        self._chance = chance
        self._limits = [(0.0, limit.value)]
        self._next_change = time.monotonic() + 1.0
        self._last_spent = 0
        self.changes = self.commits = self.overspent = 0

    def look(self) -> None:
        """Add what was spent beyond the limits of the last moments, or granted beyond any."""
        now = time.monotonic()
        since = max((at for at, _ in self._limits if at < now - _SETTLED_SECONDS), default=0.0)
        highest = max(limit for at, limit in self._limits if at >= since)
        ever = max(limit for _, limit in self._limits)
        for spent, held, leased in self._database.read(
            "SELECT spent_nano, held_nano, leased_nano FROM accounts WHERE account = '0'"
        ):
            self.commits += 1
            if spent > highest:
                # What was spent before a cut stays spent; more must not come.
                self.overspent += spent - max(self._last_spent, highest)
            self.overspent += max(spent + held + leased - ever, 0)
            self._last_spent = spent

    def change_limit(self) -> None:
        """Raise or cut the limit when it is time to, now and then below what is spent."""
        now = time.monotonic()
        if now < self._next_change:
            return
        (room,) = self._chance.choices(_ROOMS, weights=_ROOM_WEIGHTS)
        self.set_limit(max(self.read_spent() + room, 1))
        self.changes += 1
        (stays,) = self._chance.choices(_CHANGE_SECONDS, weights=_CHANGE_WEIGHTS)
        self._next_change = now + stays

    def set_limit(self, limit: int) -> None:
        """Put a limit in force."""
        self.limit.value = limit
        self._limits.append((time.monotonic(), limit))

    def read_spent(self) -> int:
        """Return what is spent."""
        rows = self._database.read("SELECT spent_nano FROM accounts WHERE account = '0'")
        return int(rows[0][0]) if rows else 0

    def close(self) -> None:
        """Close the database."""
        self._database.close()
