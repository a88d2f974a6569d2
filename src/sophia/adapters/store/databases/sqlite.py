"""A store in SQLite's file: one connection that writes and one that reads."""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from sophia.adapters.store.databases.database import Connection, RowFault, Rows
from sophia.adapters.store.driver import load_sqlite
from sophia.adapters.store.folder_lock import lock_file, unlock_file
from sophia.adapters.store.migrate import migrate
from sophia.core.errors import Unavailable

_TURNS_FILE = ".writing"
_TURN_SECONDS = 0.001
_CLOSED = "the store is closed"
_BUSY = "The ledger cannot be written: database is locked by another process"


class _Transaction:
    """A connection; a transaction has the whole file, and others see that the file has changed."""

    row_lock = ""

    def __init__(self, connection: Any) -> None:
        self.execute = connection.execute
        self.executemany = connection.executemany

    def notify(self) -> None:
        """Do nothing."""


class SqliteDatabase:
    """The file `path`, which is created or migrated when it is opened, unless it is `read_only`.

    A transaction waits `wait_seconds` for those of other processes.
    """

    is_shared = False
    now_ms = "CAST(unixepoch('subsec') * 1000 AS INTEGER)"

    def __init__(self, path: Path, wait_seconds: float = 5.0, *, read_only: bool = False) -> None:
        if not read_only:
            migrate(path)
        self._path = path
        self._read_only = read_only
        self._wait_seconds = wait_seconds
        self._is_closed = False
        self.round_trips = 0
        self._writer: Any = None if read_only else self._open_writer()
        self._reader: Any = None if read_only else self._open_reader()
        self._watcher: Any = None
        self._version = -1
        self._turns: IO[bytes] | None = None
        self._write_lock = threading.Lock()
        self._read_lock = threading.Lock()

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Yield a connection; its changes are durable at the end, or undone by an exception."""
        with self._write_lock, self._wait_for_turn():
            self.round_trips += 1
            try:
                connection = self._writer = self._writer or self._open_writer()
                connection.execute("BEGIN IMMEDIATE")
                yield _Transaction(connection)
                connection.execute("COMMIT")
            except BaseException as error:
                raise self._roll_back(error) from error

    @contextmanager
    def _wait_for_turn(self) -> Iterator[None]:
        """Wait for the transactions of other processes, all as often. Raises Unavailable.

        SQLite itself lets each wait longer and longer, by which some wait for seconds.
        """
        if self._is_closed:
            raise Unavailable(_CLOSED)
        if self._turns is None:
            self._turns = self._path.with_name(_TURNS_FILE).open("ab")
        end = time.monotonic() + self._wait_seconds
        while True:
            try:
                lock_file(self._turns, wait=False)
                break
            except OSError:
                if time.monotonic() > end:
                    raise Unavailable(_BUSY, retry_after=1) from None
                time.sleep(_TURN_SECONDS)
        try:
            yield
        finally:
            unlock_file(self._turns)

    def _roll_back(self, error: BaseException) -> BaseException:
        """Undo a transaction; return the error to raise."""
        driver = load_sqlite()
        with suppress(driver.Error):
            if self._writer is not None:
                self._writer.execute("ROLLBACK")
        if is_row_fault(error):
            return RowFault(str(error))
        if not isinstance(error, driver.Error):
            return error
        # The next one opens the file again, which may have been repaired meanwhile.
        connection, self._writer = self._writer, None
        with suppress(driver.Error):
            if connection is not None:
                connection.close()
        return Unavailable(f"The ledger cannot be written: {error}", retry_after=1)

    def read(self, sql: str, values: Sequence[object] = ()) -> Rows:
        """Return the rows of a query. Raises Unavailable."""
        with self._reading() as reader:
            rows: Rows = reader.execute(sql, values).fetchall()
            return rows

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """Yield a connection for queries that all see one moment. Raises Unavailable."""
        with self._reading() as reader:
            reader.execute("BEGIN")
            try:
                yield _Transaction(reader)
            finally:
                reader.execute("ROLLBACK")

    @contextmanager
    def _reading(self) -> Iterator[Any]:
        driver = load_sqlite()
        with self._read_lock:
            self.round_trips += 1
            try:
                reader = self._reader = self._reader or self._open_reader()
                yield reader
            except driver.Error as error:
                connection, self._reader = self._reader, None
                if connection is not None:
                    connection.close()
                raise Unavailable(f"The ledger cannot be read: {error}", retry_after=1) from error

    def has_changed(self) -> bool:
        """Return whether another connection has changed the file since the last call."""
        self.round_trips += 1
        try:
            self._watcher = self._watcher or self._open_reader()
            (version,) = self._watcher.execute("PRAGMA data_version").fetchone()
        except load_sqlite().Error:
            self._watcher = None
            return True
        before, self._version = self._version, version
        return bool(before != version)

    def close(self) -> None:
        """Close the connections, once no thread uses them: SQLite would crash."""
        self._is_closed = True
        with self._read_lock, self._write_lock:
            connections = self._watcher, self._reader, self._writer
            self._watcher = self._reader = self._writer = None
            turns, self._turns = self._turns, None
        for connection in connections:
            if connection is not None:
                with suppress(load_sqlite().Error):
                    connection.close()
        if turns is not None:
            turns.close()

    def _open_writer(self) -> Any:
        connection = self._open()
        connection.execute(f"PRAGMA busy_timeout = {int(self._wait_seconds * 1000)}")
        return connection

    def _open_reader(self) -> Any:
        connection = self._open()
        connection.execute("PRAGMA query_only=ON")
        return connection

    def _open(self) -> Any:
        if self._is_closed:
            raise load_sqlite().OperationalError(_CLOSED)
        return open_ledger_connection(self._path, read_only=self._read_only)


def is_row_fault(error: BaseException) -> bool:
    """Return whether a row cannot be written to any ledger, in whatever state this one is."""
    driver = load_sqlite()
    faults = (driver.IntegrityError, driver.DataError, driver.InterfaceError)
    return isinstance(error, (*faults, driver.ProgrammingError, ValueError, OverflowError))


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
