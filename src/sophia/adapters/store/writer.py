"""Group commit: one thread and one connection write; callers wait for the batch they are in."""

import asyncio
import logging
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from sophia.adapters.store.driver import sqlite
from sophia.core.errors import Unavailable

log = logging.getLogger("sophia.ledger")

_SPACING = 0.001
"""Seconds between the starts of two commits: bounds what a busy second spends on syncing."""
_RETRY = 0.25
_LAST_TRIES = 20
"""Tries at the end of the process; what is not kept then counts as a hold at the next start."""
_LINGER = 0.02

Row = tuple[Any, ...]
Item = tuple[str, Row, "asyncio.Future[None] | None"]


@dataclass(slots=True)
class Batch:
    """Rows by statement, and who waits for them to be durable."""

    rows: dict[str, list[Row]] = field(default_factory=dict)
    waiters: list[asyncio.Future[None]] = field(default_factory=list)
    size: int = 0
    failures: int = 0
    ended: bool = False


class GroupCommit:
    """Writes rows of parametrised statements in durable batches.

    Args:
        path: the database.
        limit: rows that may wait; beyond it `write` refuses instead of dropping.
    """

    def __init__(self, path: Path, *, limit: int = 20_000) -> None:
        self._limit = limit
        self._loop = asyncio.get_running_loop()
        self._queue: SimpleQueue[list[Item] | None] = SimpleQueue()
        self._waiting: list[Item] = []
        self._pushing = False
        self._lingering = False
        self._depth = 0
        self.problem = ""
        # Opened here, so that a database that cannot be opened fails the start and not the thread.
        self._connection = connect(path)
        self._thread = threading.Thread(target=self._run, name="sophia-ledger", daemon=True)
        self._thread.start()

    @property
    def depth(self) -> int:
        """Rows that wait to become durable."""
        return self._depth

    def write(self, statement: str, row: Row) -> asyncio.Future[None]:
        """Queue `row` and return a future that is done once it is durable.

        Raises:
            Unavailable: too many rows wait already.
        """
        if self.problem:
            raise Unavailable(self.problem, retry_after=1)
        if self._depth >= self._limit:
            raise Unavailable("The ledger cannot keep up; try again shortly.", retry_after=1)
        future = self._loop.create_future()
        self._depth += 1
        self._waiting.append((statement, row, future))
        if not self._pushing:
            # One hand-over for everything that this turn of the loop writes.
            self._pushing = True
            self._loop.call_soon(self._push)
        return future

    def defer(self, statement: str, row: Row) -> None:
        """Queue `row` for the next batch, within 20 ms, without anybody waiting for it."""
        self._depth += 1
        self._waiting.append((statement, row, None))
        if not self._lingering and not self._pushing:
            self._lingering = True
            self._loop.call_later(_LINGER, self._linger)

    def _linger(self) -> None:
        self._lingering = False
        self._push()

    def _push(self) -> None:
        self._pushing = False
        if self._waiting:
            self._queue.put(self._waiting)
            self._waiting = []

    async def flush(self) -> None:
        """Wait until everything queued so far is durable."""
        future = self._loop.create_future()
        self._depth += 1
        self._waiting.append(("", (), future))
        self._push()
        await future

    async def close(self) -> None:
        """Write what waits and end the thread."""
        self._push()
        self._queue.put(None)
        await self._loop.run_in_executor(None, self._thread.join)

    def _run(self) -> None:
        connection = self._connection
        last = 0.0
        batch = Batch()
        while not batch.ended:
            items = self._queue.get()
            pause = _SPACING - (time.monotonic() - last)
            if pause > 0:
                time.sleep(pause)
            batch = Batch()
            self._gather(items, batch)
            last = time.monotonic()
            self._commit(connection, batch)
        connection.close()

    def _gather(self, items: list[Item] | None, batch: Batch) -> None:
        """Take `items` and everything else that waits into `batch`."""
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
        batch.ended = True

    def _commit(self, connection: Any, batch: Batch) -> None:
        """Write `batch`, however long it takes; who waits meanwhile is refused."""
        while not batch.ended or batch.failures < _LAST_TRIES:
            try:
                if batch.rows:
                    connection.execute("BEGIN IMMEDIATE")
                    for statement, rows in batch.rows.items():
                        connection.executemany(statement, rows)
                    connection.execute("COMMIT")
            except Exception as error:  # noqa: BLE001 - the thread's border: it outlives any row
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                self._refuse(connection, batch, error)
            else:
                self.problem = ""
                break
        self._tell(batch.waiters, batch.size, None)

    def _refuse(self, connection: Any, batch: Batch, error: Exception) -> None:
        """Tell who waits that it failed. The rows stay: a settled bill must not be lost."""
        problem = f"The ledger cannot be written: {error}"
        batch.failures += 1
        if isinstance(error, sqlite().OperationalError):
            if not self.problem:
                log.error("%s; trying again until it can", problem)
            self.problem = problem
            time.sleep(_RETRY)
            if not batch.ended and not self._queue.empty():
                self._gather(self._queue.get(), batch)
        else:
            batch.rows = _without_misfits(connection, batch.rows)
        self._tell(batch.waiters, 0, Unavailable(problem, retry_after=1))
        batch.waiters = []

    def _tell(
        self, waiters: list[asyncio.Future[None]], done: int, error: Exception | None
    ) -> None:
        try:
            self._loop.call_soon_threadsafe(self._resolve, waiters, done, error)
        except RuntimeError:
            return  # the loop is gone, and with it everybody who waited

    def _resolve(
        self, waiters: list[asyncio.Future[None]], done: int, error: Exception | None
    ) -> None:
        self._depth -= done
        for waiter in waiters:
            if not waiter.done():
                if error is None:
                    waiter.set_result(None)
                else:
                    waiter.set_exception(error)


def _without_misfits(connection: Any, rows: dict[str, list[Row]]) -> dict[str, list[Row]]:
    """Return the rows that can be kept; one that never can would keep all others waiting."""
    kept: dict[str, list[Row]] = {}
    for statement, candidates in rows.items():
        for row in candidates:
            connection.execute("BEGIN")
            try:
                connection.execute(statement, row)
            except Exception as error:  # noqa: BLE001 - whatever is wrong with this row
                log.critical("a row cannot be kept in the ledger and is left out: %s", error)
            else:
                kept.setdefault(statement, []).append(row)
            connection.execute("ROLLBACK")
    return kept


def connect(path: Path, *, read_only: bool = False) -> Any:
    """Open the database with Sophia's settings; `read_only` never creates or writes."""
    target = f"file:{path}?mode=ro" if read_only else str(path)
    connection = sqlite().connect(
        target, isolation_level=None, timeout=5.0, uri=read_only, check_same_thread=False
    )
    if not read_only:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
    return connection
