"""A process's own record of its attempts: its number, its journal and the thread behind it."""

import asyncio
import logging

from sophia.adapters.store.journaling.applier import Apply, JournalApplier
from sophia.adapters.store.journaling.files import (
    Ended,
    Journal,
    JournalReader,
    Noted,
    Record,
    Reserved,
)
from sophia.adapters.store.journaling.slots import WorkerSlot
from sophia.core.errors import Unavailable
from sophia.core.rows import AttemptIntent, AttemptOutcome, GenerationNote

log = logging.getLogger("sophia.ledger")

_NOTE_SECONDS = 0.02
_RETRY_SECONDS = 0.25


class WorkerJournal:
    """The journal of this process; create it in the event loop that serves.

    `running` are the ids of attempts without an outcome. With `sync_seconds` 0 an intent is on the
    disk before its attempt is dispatched.
    """

    def __init__(self, slot: WorkerSlot, apply: Apply, sync_seconds: float) -> None:
        self.slot = slot
        slot.begin()
        self._journal = Journal(slot.folder)
        reader = JournalReader(slot.folder, is_left=False)
        self._applier = JournalApplier(self._journal, reader, apply, sync_seconds)
        self._syncs_first = not sync_seconds
        self._loop = asyncio.get_running_loop()
        self._notes: dict[int, str] = {}
        self._notes_scheduled = False
        self._write_scheduled = False
        self._failure = self._stopped = ""
        self.running = set[int]()

    @property
    def problem(self) -> str:
        """The reason why nothing can be written now, or ""."""
        return self._stopped or self._failure

    @property
    def behind(self) -> int:
        """The number of records that are not in the store yet."""
        return self._applier.behind

    async def reserve(self, intent: AttemptIntent) -> None:
        """Write `intent`, and all that waits. Raises Unavailable, and it is not written then."""
        if self._stopped:
            raise Unavailable(self._stopped, retry_after=1)
        try:
            self._journal.write_with(Reserved(intent))
        except OSError as error:
            raise self._note_failure(error) from error
        except (ValueError, OverflowError) as error:
            raise Unavailable(f"The attempt cannot be written down: {error}") from error
        self._failure = ""
        self.running.add(intent.attempt_id)
        self._applier.notify()
        if self._syncs_first:
            await self._applier.sync()

    def stop(self, problem: str) -> None:
        """Take no more intents, because of `problem`; outcomes are still written."""
        self._stopped = problem

    def note_generation(self, attempt_id: int, generation_id: str) -> None:
        """Write an upstream's id of an attempt that still runs in 20 ms; the first one stands."""
        if not self._notes_scheduled:
            self._notes_scheduled = True
            self._loop.call_later(_NOTE_SECONDS, self._write_notes)
        self._notes.setdefault(attempt_id, generation_id)

    def settle(self, outcome: AttemptOutcome, leased: tuple[str, ...]) -> None:
        """Write an outcome at the end of this turn of the loop; it is never dropped."""
        if self._notes:
            # The outcome holds the id as well.
            self._notes.pop(outcome.attempt_id, None)
        self.running.discard(outcome.attempt_id)
        self._append(Ended(outcome, leased))

    async def flush(self) -> None:
        """Wait until everything so far is in the store. Raises Unavailable."""
        self._write_notes()
        self._write()
        if self._failure:
            raise Unavailable(self._failure, retry_after=1)
        await self._applier.flush()

    async def close(self) -> bool:
        """End the thread; return whether everything is in the store."""
        self._write_notes()
        self._write()
        await self._applier.close()
        self._journal.close()
        return not self._applier.behind

    def _write_notes(self) -> None:
        self._notes_scheduled = False
        notes, self._notes = self._notes, {}
        for note in notes.items():
            self._append(Noted(GenerationNote(*note)))

    def _append(self, record: Record) -> None:
        try:
            self._journal.append(record)
        except (ValueError, OverflowError) as error:
            log.critical("a row cannot be written to the ledger and is left out: %s", error)
            return
        if not self._write_scheduled:
            self._write_scheduled = True
            self._loop.call_soon(self._write)

    def _write(self) -> None:
        self._write_scheduled = False
        try:
            self._journal.write()
        except OSError as error:
            self._note_failure(error)
            self._write_scheduled = True
            self._loop.call_later(_RETRY_SECONDS, self._write)
            return
        self._failure = ""
        self._applier.notify()

    def _note_failure(self, error: OSError) -> Unavailable:
        if not self._failure:
            log.error("the journal cannot be written: %s", error)
        self._failure = f"The journal cannot be written: {error.strerror or error}"
        return Unavailable(self._failure, retry_after=1)
