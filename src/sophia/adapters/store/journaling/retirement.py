"""Journals as changes of the store, and the end of the workers that wrote them."""

import logging
import time
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path

from sophia.adapters.store.apply import apply_records
from sophia.adapters.store.databases.database import Connection, Database, RowFault, run_transaction
from sophia.adapters.store.journaling.files import (
    Ended,
    JournalReader,
    Record,
    Reserved,
    list_segments,
)
from sophia.adapters.store.journaling.numbers import WorkerNumbers
from sophia.adapters.store.journaling.slots import WorkerSlot, list_left_slots
from sophia.adapters.store.lease_statements import end_leases
from sophia.adapters.store.statements import COLUMNS
from sophia.core.ids import MAX_WORKERS, WORKER_SHIFT, first_id_at
from sophia.core.ports import CloseAttempt
from sophia.core.rows import AttemptIntent, AttemptOutcome, OpenAttempt

log = logging.getLogger("sophia.ledger")

_OPEN_DAYS_MS = 8 * 86_400_000
"""Age up to which an attempt without an outcome is looked for after a crash."""


class WorkerRetirement:
    """Applies journals to `database`, and ends workers that write no more.

    Attempts that they left open end with the outcome that `close` gives them; such outcomes are
    returned. All methods raise Unavailable.
    """

    def __init__(self, database: Database, numbers: WorkerNumbers) -> None:
        self._database = database
        self._numbers = numbers

    def apply(self, slot: WorkerSlot, records: Sequence[Record]) -> None:
        """Write records in one transaction; an impossible one is left out."""

        def apply(connection: Connection) -> None:
            has_leases = self._numbers.owns(connection, slot)
            apply_records(connection, records, has_leases=has_leases)

        try:
            run_transaction(self._database, apply)
        except RowFault as fault:
            if len(records) == 1:
                log.critical("a row cannot be written to the ledger and is left out: %s", fault)
                return
            for record in records:
                self.apply(slot, [record])

    def claim(self, data: Path, close: CloseAttempt) -> tuple[WorkerSlot, Sequence[AttemptOutcome]]:
        """Take a number, after what dead workers left."""
        closed = self.retire_left(data, close)
        slot = self._numbers.claim(data)
        if not self._database.is_shared:
            closed += self._retire_left(slot, close if list_segments(slot.folder) else None)
        return slot, closed

    def retire_left(self, data: Path, close: CloseAttempt) -> list[AttemptOutcome]:
        """Apply the journals of dead workers in `data` and end them, and lost workers elsewhere."""
        closed = []
        for slot in list_left_slots(data):
            try:
                closed += self._retire_left(slot, close)
            finally:
                slot.release()
        for number, token in self._numbers.find_lost():
            closed += self._retire_lost(number, token, close)
        return closed

    def _retire_left(self, slot: WorkerSlot, close: CloseAttempt | None) -> list[AttemptOutcome]:
        reader, running = JournalReader(slot.folder, is_left=True), set[int]()
        while records := reader.read():
            self.apply(slot, records)
            reader.commit()
            for record in records:
                if isinstance(record, Reserved):
                    running.add(record.intent.attempt_id)
                elif isinstance(record, Ended):
                    running.discard(record.outcome.attempt_id)
        return self.retire(slot, close, running)

    def retire(
        self, slot: WorkerSlot, close: CloseAttempt | None, running: AbstractSet[int]
    ) -> list[AttemptOutcome]:
        """End a worker after its journal was applied; `running` are attempts that it opened."""

        def end(connection: Connection) -> tuple[list[AttemptOutcome], int]:
            if self._numbers.give_up(connection, slot):
                closed = _close_attempts(connection, slot.number, close)
                return closed, end_leases(connection, slot.number, as_held=not slot.survived_boot)
            # Another machine has ended it, but did not know of all its attempts.
            return _close_attempts(connection, slot.number, close, running), 0

        outcomes, ended = run_transaction(self._database, end)
        if ended and not slot.survived_boot:
            log.warning(
                "the machine went down while worker %d ran: %d nano-dollars of its leases stay "
                "held, since the last records of its journal may be lost", slot.number, ended,
            )  # fmt: skip
        JournalReader(slot.folder, is_left=True).remove()
        return outcomes

    def _retire_lost(self, number: int, token: str, close: CloseAttempt) -> list[AttemptOutcome]:
        """End a worker of another machine, without its journal."""

        def end(connection: Connection) -> tuple[list[AttemptOutcome], int] | None:
            if not self._numbers.give_up_lost(connection, number, token):
                return None
            closed = _close_attempts(connection, number, close)
            return closed, end_leases(connection, number, as_held=True)

        if (result := run_transaction(self._database, end)) is None:
            return []
        log.warning(
            "worker %d of another machine is lost: %d nano-dollars of its leases stay held, and "
            "the cost of its %d open attempts is unknown", number, result[1], len(result[0]),
        )  # fmt: skip
        return result[0]


def _close_attempts(
    connection: Connection,
    worker: int,
    close: CloseAttempt | None,
    only: AbstractSet[int] | None = None,
) -> list[AttemptOutcome]:
    """Write the outcomes that `close` gives a worker's open attempts, or `only` these of them."""
    if close is None:
        return []
    rows = connection.execute(
        f"SELECT {COLUMNS[AttemptIntent]}, generations.generation_id FROM intents"  # noqa: S608
        " LEFT JOIN generations ON generations.attempt_id = intents.attempt_id"
        " WHERE intents.attempt_id >= ? AND (intents.attempt_id >> ?) & ? = ?"
        " AND NOT EXISTS (SELECT 1 FROM outcomes o WHERE o.attempt_id = intents.attempt_id)"
        " ORDER BY intents.attempt_id",
        (first_id_at(time.time_ns() // 1_000_000 - _OPEN_DAYS_MS), WORKER_SHIFT, MAX_WORKERS - 1,
         worker),
    ).fetchall()  # fmt: skip
    outcomes = [
        close(OpenAttempt(AttemptIntent(*row[:-1]), row[-1]))
        for row in rows
        if only is None or row[0] in only
    ]
    apply_records(connection, map(Ended, outcomes))
    return outcomes
