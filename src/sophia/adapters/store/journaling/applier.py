"""The thread that syncs a worker's journal and brings its records into the store."""

import asyncio
import errno
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from sophia.adapters.store.journaling.files import Journal, JournalReader, Record
from sophia.core.errors import Unavailable

log = logging.getLogger("sophia.ledger")

APPLY_SECONDS = 0.4
"""Time between two transactions, unless a request waits for one."""
_RETRY_SECONDS = 1.0
_NICENESS = 10
_CLOSING_SECONDS = 5.0
"""Time that the store gets at the end; what is left stays in the journal for the next start."""

Apply = Callable[[Sequence[Record]], None]


class JournalApplier:
    """Applies a journal behind its worker, in order; create it in the worker's event loop.

    Args:
        journal: the growing journal, of which only counts and `descriptor` are read.
        reader: the same journal's reader.
        apply: writes records durably. Raises Unavailable.
        sync_seconds: time after which written records are synced to the disk.
    """

    def __init__(
        self, journal: Journal, reader: JournalReader, apply: Apply, sync_seconds: float
    ) -> None:
        self._journal = journal
        self._reader = reader
        self._apply = apply
        self._sync_seconds = sync_seconds
        self._loop = asyncio.get_running_loop()
        self._begin = threading.Event()
        self._hurry = threading.Event()
        self._applied = self._synced = 0
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        self._syncing: list[tuple[int, asyncio.Future[None]]] = []
        self._closes_at = float("inf")
        self.problem = ""
        self._thread = threading.Thread(target=self._run, name="sophia-journal", daemon=True)
        self._thread.start()

    @property
    def behind(self) -> int:
        """The number of records that are not in the store yet."""
        return self._journal.appended - self._applied

    def notify(self) -> None:
        """Say that records were written."""
        if not self._begin.is_set():
            self._begin.set()

    async def flush(self) -> None:
        """Wait until all records that are written are in the store. Raises Unavailable."""
        await self._wait_in(self._waiting)

    async def sync(self) -> None:
        """Wait until all records that are written are on the disk. Raises Unavailable."""
        await self._wait_in(self._syncing)

    async def _wait_in(self, line: list[tuple[int, asyncio.Future[None]]]) -> None:
        """Wait in a line; the thread looks at it after whatever it does now."""
        if not self._thread.is_alive():
            return
        future = self._loop.create_future()
        line.append((self._journal.written, future))
        self._hurry.set()
        self._begin.set()
        await future

    async def close(self) -> None:
        """Apply the rest, and end the thread."""
        self._closes_at = time.monotonic() + _CLOSING_SECONDS
        self._hurry.set()
        self._begin.set()
        await self._loop.run_in_executor(None, self._thread.join)

    def _run(self) -> None:
        # Requests come first where there is one core for both.
        with suppress(OSError, AttributeError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
        last = 0.0
        while True:
            self._begin.wait()
            self._begin.clear()
            while self._has_work() and time.monotonic() < self._closes_at:
                is_urgent = self._hurry.wait(self._sync_seconds or APPLY_SECONDS)
                self._hurry.clear()
                self._sync()
                now = time.monotonic()
                pause = _RETRY_SECONDS if self.problem else APPLY_SECONDS
                if is_urgent or now - last >= pause:
                    self._apply_written()
                    last = now
            if self._closes_at < float("inf"):
                return

    def _has_work(self) -> bool:
        written = self._journal.written
        is_behind = self._applied < written or self._synced < written
        return is_behind or bool(self._waiting or self._syncing)

    def _sync(self) -> None:
        written = self._journal.written
        if self._synced < written:
            try:
                os.fdatasync(self._journal.descriptor)
            except OSError as error:
                # A file that was full and closed meanwhile was synced then.
                if error.errno not in (errno.EBADF, errno.EINVAL):
                    problem = f"The journal cannot be synced: {error.strerror}"
                    self._resolve(self._syncing, written, problem)
                    return
            self._synced = written
        self._resolve(self._syncing, self._synced, "")

    def _apply_written(self) -> None:
        # What comes meanwhile waits for the next time: a transaction costs as much as many records.
        written = self._journal.written
        try:
            while self._applied < written and (records := self._reader.read()):
                self._apply(records)
                self._reader.commit()
                self._applied += len(records)
            self._reader.commit()
        except Exception as error:  # noqa: BLE001 - the thread's border: it outlives any fault
            if not self.problem:
                log.error("the store does not take records, they stay in the journal: %s", error)
            self.problem = str(error)
            self._resolve(self._waiting, 1 << 62, self.problem)
            return
        if self.problem:
            log.warning("the store takes records again")
        self.problem = ""
        self._resolve(self._waiting, self._applied, "")

    def _resolve(
        self, line: list[tuple[int, asyncio.Future[None]]], done: int, problem: str
    ) -> None:
        if not line:
            return
        ready = [entry for entry in tuple(line) if entry[0] <= done]

        def resolve() -> None:
            for entry in ready:
                if entry in line:
                    line.remove(entry)
                if entry[1].done():
                    continue
                if problem:
                    entry[1].set_exception(Unavailable(problem, retry_after=1))
                else:
                    entry[1].set_result(None)

        # Nothing waits any more once the loop is closed.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(resolve)
