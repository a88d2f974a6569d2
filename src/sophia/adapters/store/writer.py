"""Group commit: one thread with one connection writes rows in batches."""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from sophia.adapters.store.driver import load_sqlite
from sophia.core.errors import Unavailable

log = logging.getLogger("sophia.ledger")

_COMMIT_INTERVAL_S = 0.001
"""Minimum time between the starts of two commits, which bounds the time spent on syncing."""
_MAX_FINAL_TRIES = 20
"""Tries at the end of the process; attempts without an outcome stay holds at the next start."""
_DEFER_S = 0.02

Row = tuple[Any, ...]
QueuedRow = tuple[str, Row, "asyncio.Future[None] | None"]


@dataclass(slots=True, kw_only=True)
class WriteBatch:
    """Rows by statement, the futures that wait for them, and their number of lists in the queue."""

    rows: dict[str, list[Row]] = field(default_factory=dict)
    waiters: list[asyncio.Future[None]] = field(default_factory=list)
    size: int = 0
    lists: int = 0
    failures: int = 0
    is_last: bool = False


class GroupCommit:
    """Writes rows of parametrised statements in durable batches.

    Rows stay in the queue until they are durable, so that a thread that takes over loses none.

    Args:
        path: the database.
        limit: size of the queue; beyond it `write` refuses instead of dropping rows.
        retry_delay_s: wait after a batch that could not be written.
        silence_s: time without an answer, as from a disk that hangs, after which `write` refuses.

    `depth` is the number of rows that are not durable yet.
    """

    def __init__(
        self, path: Path, *, limit: int = 20_000, retry_delay_s: float = 0.25, silence_s: int = 10
    ) -> None:
        self._path = path
        self._limit = limit
        self._retry_delay_s = retry_delay_s
        self._silence_s = silence_s
        self._loop = asyncio.get_running_loop()
        self._queue: deque[list[QueuedRow]] = deque()
        self._wake: SimpleQueue[None] = SimpleQueue()
        self._pending: list[QueuedRow] = []
        self._push_scheduled = False
        self._defer_scheduled = False
        self._watching = False
        self._silent_seconds = 0
        self._closing = False
        self._ended = False
        self._failure = ""
        self.depth = 0
        # Opened here, so that a database that cannot be opened fails the start and not the thread.
        self._connection: Any = open_ledger_connection(path)
        self._start()

    @property
    def problem(self) -> str:
        """The reason why nothing can be written now, or ""."""
        if self._silent_seconds >= self._silence_s:
            return f"The ledger has not answered for {self._silent_seconds} s."
        return self._failure

    def write(self, statement: str, row: Row) -> asyncio.Future[None]:
        """Queue `row` and return a future that is done once it is durable.

        Raises Unavailable: the ledger cannot be written, or the queue is full.
        """
        if problem := self.problem:
            raise Unavailable(problem, retry_after=1)
        if self.depth >= self._limit:
            raise Unavailable("The ledger cannot keep up; try again shortly.", retry_after=1)
        future = self._loop.create_future()
        self.depth += 1
        self._pending.append((statement, row, future))
        if not self._push_scheduled:
            # One push for all rows of this turn of the loop.
            self._push_scheduled = True
            self._loop.call_soon(self._push)
        return future

    def defer(self, statement: str, row: Row) -> None:
        """Queue `row` for the next batch, within 20 ms, without a future."""
        self.depth += 1
        self._pending.append((statement, row, None))
        if not self._defer_scheduled and not self._push_scheduled:
            self._defer_scheduled = True
            self._loop.call_later(_DEFER_S, self._push_deferred)

    def _push_deferred(self) -> None:
        self._defer_scheduled = False
        self._push()

    def _push(self) -> None:
        self._push_scheduled = False
        if self._pending:
            self._queue.append(self._pending)
            self._pending = []
            self._wake.put(None)
            if not self._watching:
                self._watching = True
                self._loop.call_later(1.0, self._watch)

    async def flush(self) -> None:
        """Wait until everything queued so far is durable. Raises Unavailable."""
        future = self._loop.create_future()
        self.depth += 1
        self._pending.append(("", (), future))
        self._push()
        await future

    async def close(self) -> None:
        """Write the rows in the queue and end the thread."""
        self._push()
        self._closing = True
        self._wake.put(None)
        while not self._ended:
            await self._loop.run_in_executor(None, self._thread.join)

    def _watch(self) -> None:
        """Count the seconds without an answer while rows wait; refuse them after too many."""
        self._watching = bool(self.depth) and not self._closing
        if not self._watching:
            return
        self._loop.call_later(1.0, self._watch)
        self._silent_seconds += 1
        if self._silent_seconds >= self._silence_s:
            # A copy, since the other thread takes rows out.
            waiters = [
                waiter for rows in tuple(self._queue) for _, _, waiter in rows if waiter is not None
            ]
            _resolve(waiters, self.problem)

    def _start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="sophia-ledger", daemon=True)
        self._thread.start()
        self._wake.put(None)

    def _run(self) -> None:
        try:
            self._write_batches()
            self._ended = True
        finally:
            self._close_connection()
            if not self._ended:
                log.critical("the ledger's writer ended by a fault; another one takes over")
                self._call_loop(self._start)

    def _write_batches(self) -> None:
        """Write all rows until the end of the process."""
        last, batch = 0.0, WriteBatch()
        while not batch.is_last:
            self._wake.get()
            # Bounded: a clock that steps back must not stop the ledger.
            pause = min(_COMMIT_INTERVAL_S, last + _COMMIT_INTERVAL_S - time.monotonic())
            if pause > 0:
                time.sleep(pause)
            batch = WriteBatch()
            self._collect(batch)
            last = time.monotonic()
            self._commit(batch)

    def _collect(self, batch: WriteBatch) -> None:
        """Add what came to the queue since `batch` was collected."""
        with suppress(Empty):
            while True:
                self._wake.get_nowait()
        batch.is_last = self._closing
        for number in range(batch.lists, len(self._queue)):
            items = self._queue[number]
            batch.lists += 1
            batch.size += len(items)
            for statement, row, waiter in items:
                if statement:
                    batch.rows.setdefault(statement, []).append(row)
                if waiter is not None:
                    batch.waiters.append(waiter)

    def _commit(self, batch: WriteBatch) -> None:
        """Write `batch`, however long it takes; at the end of the process a bounded time."""
        fault: Exception | None = None
        while not batch.is_last or batch.failures < _MAX_FINAL_TRIES:
            try:
                fault = self._write_rows(batch.rows)
            except Exception as error:  # noqa: BLE001 - the thread's border: it outlives any row
                self._wait_after_failure(batch, error)
            else:
                self._failure = ""
                break
        else:
            log.critical("%d rows are not in the ledger: %s", batch.size, self._failure)
        for _ in range(batch.lists):
            self._queue.popleft()
        self._notify(batch.waiters, batch.size, fault)

    def _write_rows(self, rows: dict[str, list[Row]]) -> Exception | None:
        """Write rows in one transaction; return the fault of one that had to be left out."""
        if not rows:
            return None
        connection = self._connection = self._connection or open_ledger_connection(self._path)
        fault = None
        connection.execute("BEGIN IMMEDIATE")
        try:
            for statement, values in rows.items():
                connection.executemany(statement, values)
        except Exception as error:
            if not _is_row_fault(error):
                raise
            fault = error
            connection.execute("ROLLBACK")
            connection.execute("BEGIN IMMEDIATE")
            _write_valid_rows(connection, rows)
        connection.execute("COMMIT")
        return fault

    def _wait_after_failure(self, batch: WriteBatch, error: Exception) -> None:
        """Fail the futures of a batch, keep its rows, and wait before the next try."""
        problem = f"The ledger cannot be written: {error}"
        if not self._failure:
            log.error("%s; trying again until it can", problem)
        self._failure = problem
        batch.failures += 1
        self._notify(batch.waiters, 0, error)
        batch.waiters = []
        # A new connection reads the file again, which may have been repaired meanwhile.
        self._close_connection()
        time.sleep(self._retry_delay_s)
        self._collect(batch)

    def _close_connection(self) -> None:
        connection, self._connection = self._connection, None
        with suppress(load_sqlite().Error):
            if connection is not None:
                connection.close()

    def _notify(
        self, waiters: list[asyncio.Future[None]], done: int, error: Exception | None
    ) -> None:
        def notify() -> None:
            self._silent_seconds = 0
            self.depth -= done
            _resolve(waiters, None if error is None else f"The ledger cannot be written: {error}")

        self._call_loop(notify)

    def _call_loop(self, work: Callable[[], None]) -> None:
        try:
            self._loop.call_soon_threadsafe(work)
        except RuntimeError:
            return  # The loop is closed, and nothing waits any more.


def _resolve(waiters: list[asyncio.Future[None]], problem: str | None) -> None:
    for waiter in waiters:
        if not waiter.done():
            if problem is None:
                waiter.set_result(None)
            else:
                waiter.set_exception(Unavailable(problem, retry_after=1))


def _is_row_fault(error: Exception) -> bool:
    """Return whether a row cannot be written to any ledger, in whatever state this one is."""
    driver = load_sqlite()
    faults = (driver.IntegrityError, driver.DataError, driver.InterfaceError)
    return isinstance(error, (*faults, driver.ProgrammingError, ValueError, OverflowError))


def _write_valid_rows(connection: Any, rows: dict[str, list[Row]]) -> None:
    """Write the rows that can be written; an invalid one would block all others."""
    for statement, values in rows.items():
        for row in values:
            try:
                connection.execute(statement, row)
            except Exception as error:
                if not _is_row_fault(error):
                    raise
                log.critical("a row cannot be written to the ledger and is left out: %s", error)


def open_ledger_connection(path: Path, *, read_only: bool = False) -> Any:
    """Open the database with Sophia's settings; `read_only` never creates or writes."""
    target = f"file:{path}?mode=ro" if read_only else str(path)
    connection = load_sqlite().connect(
        target, isolation_level=None, timeout=5.0, uri=read_only, check_same_thread=False
    )
    if not read_only:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
    return connection
