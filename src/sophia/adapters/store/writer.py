"""Group commit: one thread with one connection writes rows in batches."""

import asyncio
import logging
import threading
import time
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
    """Rows by statement, and the futures that wait for them to be durable."""

    rows: dict[str, list[Row]] = field(default_factory=dict)
    waiters: list[asyncio.Future[None]] = field(default_factory=list)
    size: int = 0
    failures: int = 0
    is_last: bool = False


class GroupCommit:
    """Writes rows of parametrised statements in durable batches.

    Args:
        path: the database.
        limit: size of the queue; beyond it `write` refuses instead of dropping rows.
        retry_delay_s: wait after a batch that could not be written.

    `depth` is the number of rows that are not durable yet, `problem` the reason why nothing can be
    written now, or "".
    """

    def __init__(self, path: Path, *, limit: int = 20_000, retry_delay_s: float = 0.25) -> None:
        self._limit = limit
        self._retry_delay_s = retry_delay_s
        self._loop = asyncio.get_running_loop()
        self._queue: SimpleQueue[list[QueuedRow] | None] = SimpleQueue()
        self._pending: list[QueuedRow] = []
        self._push_scheduled = False
        self._defer_scheduled = False
        self.depth = 0
        self.problem = ""
        # Opened here, so that a database that cannot be opened fails the start and not the thread.
        self._connection = open_ledger_connection(path)
        self._thread = threading.Thread(target=self._run, name="sophia-ledger", daemon=True)
        self._thread.start()

    def write(self, statement: str, row: Row) -> asyncio.Future[None]:
        """Queue `row` and return a future that is done once it is durable.

        Raises Unavailable: the ledger cannot be written, or the queue is full.
        """
        if self.problem:
            raise Unavailable(self.problem, retry_after=1)
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
            self._queue.put(self._pending)
            self._pending = []

    async def flush(self) -> None:
        """Wait until everything queued so far is durable."""
        future = self._loop.create_future()
        self.depth += 1
        self._pending.append(("", (), future))
        self._push()
        await future

    async def close(self) -> None:
        """Write the rows in the queue and end the thread."""
        self._push()
        self._queue.put(None)
        await self._loop.run_in_executor(None, self._thread.join)

    def _run(self) -> None:
        last = 0.0
        batch = WriteBatch()
        while not batch.is_last:
            items = self._queue.get()
            pause = _COMMIT_INTERVAL_S - (time.monotonic() - last)
            if pause > 0:
                time.sleep(pause)
            batch = WriteBatch()
            self._collect(items, batch)
            last = time.monotonic()
            self._commit(self._connection, batch)
        self._connection.close()

    def _collect(self, items: list[QueuedRow] | None, batch: WriteBatch) -> None:
        """Add `items` and the rest of the queue to `batch`."""
        while items is not None:
            batch.size += len(items)
            for statement, row, waiter in items:
                if statement:
                    batch.rows.setdefault(statement, []).append(row)
                if waiter is not None:
                    batch.waiters.append(waiter)
            try:
                items = self._queue.get_nowait()
            except Empty:
                return
        batch.is_last = True

    def _commit(self, connection: Any, batch: WriteBatch) -> None:
        """Write `batch`, however long it takes."""
        while not batch.is_last or batch.failures < _MAX_FINAL_TRIES:
            try:
                if batch.rows:
                    connection.execute("BEGIN IMMEDIATE")
                    for statement, rows in batch.rows.items():
                        connection.executemany(statement, rows)
                    connection.execute("COMMIT")
            except Exception as error:  # noqa: BLE001 - the thread's border: it outlives any row
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                self._fail_batch(connection, batch, error)
            else:
                self.problem = ""
                break
        self._notify(batch.waiters, batch.size, None)

    def _fail_batch(self, connection: Any, batch: WriteBatch, error: Exception) -> None:
        """Fail the futures of a batch. Its rows stay, but for those that are invalid themselves."""
        problem = f"The ledger cannot be written: {error}"
        batch.failures += 1
        if isinstance(error, load_sqlite().OperationalError):
            if not self.problem:
                log.error("%s; trying again until it can", problem)
            self.problem = problem
            time.sleep(self._retry_delay_s)
            if not batch.is_last and not self._queue.empty():
                self._collect(self._queue.get(), batch)
        else:
            batch.rows = _drop_invalid_rows(connection, batch.rows)
        self._notify(batch.waiters, 0, Unavailable(problem, retry_after=1))
        batch.waiters = []

    def _notify(
        self, waiters: list[asyncio.Future[None]], done: int, error: Exception | None
    ) -> None:
        try:
            self._loop.call_soon_threadsafe(self._resolve, waiters, done, error)
        except RuntimeError:
            return  # The loop is closed, and nothing waits any more.

    def _resolve(
        self, waiters: list[asyncio.Future[None]], done: int, error: Exception | None
    ) -> None:
        self.depth -= done
        for waiter in waiters:
            if not waiter.done():
                if error is None:
                    waiter.set_result(None)
                else:
                    waiter.set_exception(error)


def _drop_invalid_rows(connection: Any, rows: dict[str, list[Row]]) -> dict[str, list[Row]]:
    """Return the rows that can be written; an invalid one would block all others."""
    valid: dict[str, list[Row]] = {}
    for statement, candidates in rows.items():
        for row in candidates:
            connection.execute("BEGIN")
            try:
                connection.execute(statement, row)
            except Exception as error:  # noqa: BLE001 - whatever is wrong with this row
                log.critical("a row cannot be written to the ledger and is left out: %s", error)
            else:
                valid.setdefault(statement, []).append(row)
            connection.execute("ROLLBACK")
    return valid


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
