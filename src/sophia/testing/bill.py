"""The sandbox's own bill: one row for each generation, priced apart from Sophia's ledger."""

from collections import deque
from dataclasses import dataclass

MAX_ROWS = 100_000


@dataclass(frozen=True, slots=True)
class BillRow:
    """One generation. `cost` is in nano-dollars; `aborted` means that the client left early."""

    generation_id: str
    model: str
    prompt_tokens: int
    completion_tokens: int
    reasoning_tokens: int
    cost: int
    aborted: bool
    streamed: bool
    finish_reason: str | None
    created: int


class Bill:
    """What the sandbox charged, oldest row first; `total` also counts rows long forgotten."""

    def __init__(self) -> None:
        self.rows: deque[BillRow] = deque(maxlen=MAX_ROWS)
        self.total = 0

    def book(self, row: BillRow) -> None:
        """Add `row` and its cost."""
        self.rows.append(row)
        self.total += row.cost

    def find(self, generation_id: str) -> BillRow | None:
        """Return the row of a generation, or None when nothing was booked under that id."""
        return next(
            (row for row in reversed(self.rows) if row.generation_id == generation_id), None
        )
