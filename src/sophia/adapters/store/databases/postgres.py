"""A store on a PostgreSQL server: one connection that writes and one that reads and listens."""

import itertools
import logging
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any, NamedTuple

import psycopg
from psycopg import errors
from psycopg.abc import Buffer
from psycopg.adapt import Loader
from psycopg.conninfo import conninfo_to_dict

from sophia.adapters.store.databases.database import ConcurrentChange, Connection, RowFault, Rows
from sophia.core.errors import CommitUnknown, Unavailable

log = logging.getLogger("sophia.ledger")

ServerError = psycopg.Error
OLDEST_VERSION = 15
CONNECT_SECONDS = 5
_CHANNEL = "sophia"
_POLL_SECONDS = 0.5
"""Time after which changes are looked for without a notification."""
_LIMITS = (
    "SET idle_in_transaction_session_timeout = '10s'; SET lock_timeout = {};"
    " SET statement_timeout = '{}s'"
)
_STATEMENT_SECONDS = 5
_REPORT_SECONDS = 120
_INSERT = re.compile(r"(INSERT INTO .* VALUES )(\(\?(?:, \?)*\))(.*)")
_ROWS_PER_INSERT = 500
_FAULTS = (errors.DataError, errors.IntegrityError, ValueError, OverflowError)
_CONFLICTS = (errors.SerializationFailure, errors.DeadlockDetected)


class _SumLoader(Loader):
    """Loader of the sums of whole numbers, which PostgreSQL returns as `numeric`."""

    def load(self, data: Buffer) -> int:
        return int(bytes(data))


class RowCount(NamedTuple):
    """The number of rows that a statement changed."""

    rowcount: int


class _Transaction:
    """A connection that takes question marks as parameters."""

    row_lock = " FOR UPDATE"

    def __init__(self, connection: psycopg.Connection[Any], count: Callable[[], None]) -> None:
        self._connection = connection
        self._count = count

    def execute(self, sql: str, values: Sequence[object] = ()) -> psycopg.Cursor[Any]:
        self._count()
        return self._connection.execute(translate(sql), _clean(values))

    def executemany(self, sql: str, rows: Sequence[Sequence[object]]) -> RowCount:
        """Run a statement for each row; inserts have many rows each, a third of the work.

        No two rows of one call may have the same key where the statement updates on conflict.
        """
        head, marks, tail = _split_insert(sql)
        if not marks:
            self._count()
            cursor = self._connection.cursor()
            cursor.executemany(translate(sql), map(_clean, rows))
            return RowCount(cursor.rowcount)
        count = 0
        for start in range(0, len(rows), _ROWS_PER_INSERT):
            some = rows[start : start + _ROWS_PER_INSERT]
            values = [value for row in some for value in row]
            insert = head + ", ".join([marks] * len(some)) + tail
            count += self.execute(insert, values).rowcount
        return RowCount(count)

    def notify(self) -> None:
        """Wake the processes that listen, once this transaction is committed."""
        self.execute(f"NOTIFY {_CHANNEL}")


class PostgresDatabase:
    """The database at `url`, with current tables; a lost connection is opened again.

    No statement takes longer than 5 s, or 2 minutes where all is `read_only`; it waits
    `wait_seconds` for those of other processes.
    """

    is_shared = True
    now_ms = "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)"

    def __init__(self, url: str, wait_seconds: float = 4.0, *, read_only: bool = False) -> None:
        self._url = url
        self._wait_seconds = wait_seconds
        self._read_only = read_only
        self._writer: psycopg.Connection[Any] | None = None
        self._reader: psycopg.Connection[Any] | None = None
        self._write_lock = threading.Lock()
        self._read_lock = threading.Lock()
        self._polled = 0.0
        self.round_trips = 0
        self._is_notified = True
        self._is_away = self._is_closed = self._is_committing = False

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Yield a connection; its changes are durable at the end, or undone by an exception."""
        with self._write_lock:
            try:
                writer = self._begin()
                self.round_trips += 2  # BEGIN and COMMIT
                yield _Transaction(writer, self._count)
                self._is_committing = True
                writer.execute("COMMIT")
            except BaseException as error:
                reason = self._roll_back(error)
                is_undone = isinstance(reason, ConcurrentChange)
                if self._is_committing and isinstance(reason, Unavailable) and not is_undone:
                    reason = CommitUnknown(reason.message, retry_after=1)
                raise reason from error
            finally:
                self._is_committing = False

    def _begin(self) -> psycopg.Connection[Any]:
        if self._writer is not None:
            try:
                self._writer.execute("BEGIN")
            except psycopg.OperationalError:
                # The server was restarted, or a firewall forgot the connection.
                self._close_writer()
            else:
                return self._writer
        self._writer = self._connect()
        self._writer.execute("BEGIN")
        return self._writer

    def _roll_back(self, error: BaseException) -> BaseException:
        """Undo a transaction; return the error to raise."""
        with suppress(psycopg.Error):
            if self._writer is not None:
                self._writer.execute("ROLLBACK")
        if isinstance(error, _CONFLICTS):
            return ConcurrentChange("The ledger was changed meanwhile.", retry_after=1)
        if isinstance(error, _FAULTS):
            # The next lines quote the row.
            return RowFault(str(error).partition("\n")[0])
        if not isinstance(error, psycopg.Error):
            return error
        # The next one connects again: to a server that takes changes, if another one does now.
        self._close_writer()
        return Unavailable(f"The ledger cannot be written: {_describe(error)}", retry_after=1)

    def read(self, sql: str, values: Sequence[object] = ()) -> Rows:
        """Return the rows of a query, made again if the connection was lost. Raises Unavailable."""
        is_new = self._reader is None
        try:
            return self._query(sql, values)
        except Unavailable as error:
            if is_new or not _is_lost(error.__cause__):
                raise
        return self._query(sql, values)

    def _query(self, sql: str, values: Sequence[object]) -> Rows:
        with self._reading() as reader:
            self._count()
            return reader.execute(translate(sql), _clean(values)).fetchall()

    def _count(self) -> None:
        self.round_trips += 1

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """Yield a connection for queries that all see one moment. Raises Unavailable."""
        with self._reading() as reader:
            reader.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            try:
                yield _Transaction(reader, self._count)
            finally:
                with suppress(psycopg.Error):
                    reader.execute("ROLLBACK")

    @contextmanager
    def _reading(self) -> Iterator[psycopg.Connection[Any]]:
        with self._read_lock:
            try:
                if self._reader is None:
                    self._reader = self._connect()
                    self._listen(self._reader)
                yield self._reader
            except psycopg.Error as error:
                self._close_reader()
                raise Unavailable(
                    f"The ledger cannot be read: {_describe(error)}", retry_after=1
                ) from error

    def _listen(self, reader: psycopg.Connection[Any]) -> None:
        """Note the changes of other processes that come while `reader` is used."""
        if self._read_only:
            return
        reader.add_notify_handler(self._note_change)
        reader.execute(f"LISTEN {_CHANNEL}")
        self._is_notified = True

    def _note_change(self, _: object) -> None:
        self._is_notified = True

    def has_changed(self) -> bool:
        """Return whether there was a notification, or none was possible for half a second."""
        # A query that runs meanwhile takes notifications too.
        if self._read_lock.acquire(blocking=False):
            try:
                self._take_notifications()
            finally:
                self._read_lock.release()
        now = time.monotonic()
        if not self._is_notified and now - self._polled < _POLL_SECONDS:
            return False
        self._is_notified, self._polled = False, now
        return True

    def _take_notifications(self) -> None:
        if self._reader is None:
            return
        try:
            # The socket never blocks.
            self._reader.pgconn.consume_input()
            while self._reader.pgconn.notifies() is not None:
                self._is_notified = True
        except psycopg.Error:
            self._close_reader()

    def close(self) -> None:
        """Close the connections, once no thread uses them: libpq would crash."""
        self._is_closed = True
        with self._read_lock:
            self._close_reader()
        with self._write_lock:
            self._close_writer()

    def _close_writer(self) -> None:
        writer, self._writer = self._writer, None
        _close(writer)

    def _close_reader(self) -> None:
        reader, self._reader = self._reader, None
        _close(reader)

    def _connect(self) -> psycopg.Connection[Any]:
        if self._is_closed:
            raise psycopg.InterfaceError("the store is closed")
        try:
            connection = connect(self._url)
        except psycopg.Error as error:
            if not self._is_away:
                log.error("the PostgreSQL server cannot be used: %s", error)
            self._is_away = True
            raise
        self._is_away = False
        self._is_committing = False
        seconds = _REPORT_SECONDS if self._read_only else _STATEMENT_SECONDS
        connection.execute(_LIMITS.format(int(self._wait_seconds * 1000), seconds))
        if self._read_only:
            connection.execute("SET default_transaction_read_only = on")
        connection.adapters.register_loader("numeric", _SumLoader)
        connection.cursor_factory = psycopg.RawCursor
        return connection


class OldServer(psycopg.NotSupportedError):
    """The server is older than Sophia needs."""


class BadUrl(Exception):
    """An address that the driver cannot read."""


def check_url(url: str) -> None:
    """Raise BadUrl, without the reason: it may quote a part of the password."""
    try:
        conninfo_to_dict(url)
    except psycopg.Error:
        raise BadUrl from None


def connect_to_migrate(url: str) -> psycopg.Connection[Any]:
    """Open a connection for a migration, which waits for that of another process."""
    connection = connect(url)
    connection.execute("SET lock_timeout = '60s'")
    connection.autocommit = False
    return connection


def read_revision(url: str) -> str | None:
    """Return the revision of the tables, or None if there are none yet. Raises psycopg.Error."""
    with connect(url) as connection:
        table = connection.execute("SELECT to_regclass('alembic_version')").fetchone()
        if table is None or table[0] is None:
            return None
        row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        return str(row[0]) if row else None


def connect(url: str) -> psycopg.Connection[Any]:
    """Open a connection without limits of time for its statements. Raises psycopg.Error."""
    connection = psycopg.connect(
        url,
        autocommit=True,
        connect_timeout=CONNECT_SECONDS,
        application_name="sophia",
        keepalives_idle=2,
        keepalives_interval=1,
        keepalives_count=3,
        tcp_user_timeout=CONNECT_SECONDS * 1000,
    )
    if connection.info.server_version < OLDEST_VERSION * 10_000:
        version = connection.info.server_version // 10_000
        connection.close()
        raise OldServer(f"it is PostgreSQL {version}, and Sophia needs {OLDEST_VERSION} or newer")
    return connection


@cache
def _split_insert(sql: str) -> tuple[str, str, str]:
    """Return a statement's parts before, in and after its values; no values for another one."""
    match = _INSERT.fullmatch(sql)
    return (match[1], match[2], match[3]) if match else (sql, "", "")


@cache
def translate(sql: str) -> str:
    """Return a statement with PostgreSQL's own parameters, which the driver need not look for."""
    numbers = itertools.count(1)
    return re.sub(r"\?", lambda _: f"${next(numbers)}", sql)


def _clean(values: Sequence[object]) -> Sequence[object]:
    """Return values that can be stored: text has no place for the character 0."""
    if any(type(value) is str and "\0" in value for value in values):
        return [
            value.replace("\0", "\ufffd") if isinstance(value, str) else value for value in values
        ]
    return values


def _is_lost(error: BaseException | None) -> bool:
    """Return whether the connection broke, or the server closed it."""
    state = getattr(error, "sqlstate", "")
    return isinstance(error, psycopg.OperationalError) and (state or "57P").startswith("57P")


def _describe(error: psycopg.Error) -> str:
    """Return the reason for callers: without the server's address and user, which the log has."""
    if _is_lost(error):
        return "the database server does not answer"
    return str(error).partition("\n")[0]


def _close(connection: psycopg.Connection[Any] | None) -> None:
    if connection is not None:
        with suppress(psycopg.Error):
            connection.close()
