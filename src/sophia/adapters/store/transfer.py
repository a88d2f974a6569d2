"""Copies of a whole store from one database to another."""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Boolean, Table

from sophia.adapters.store import folder_lock
from sophia.adapters.store.databases.address import StoreAddress
from sophia.adapters.store.databases.database import Connection
from sophia.adapters.store.journaling.files import list_segments
from sophia.adapters.store.journaling.slots import JOURNALS_FOLDER
from sophia.adapters.store.migrate import HEAD_REVISION
from sophia.adapters.store.schema import metadata
from sophia.core.errors import ConfigError, Unavailable

_BATCH_ROWS = 1000
_TABLES = [table for table in metadata.sorted_tables if table.name not in ("leases", "workers")]
"""Tables that are copied; the others are of running workers."""

Report = Callable[[str, int, int], None]
"""Takes a table's name and its number of rows in the source and, so far, in the target."""


def copy_store(source: StoreAddress, target: StoreAddress, report: Report) -> None:
    """Copy all rows in one transaction of the target, after creating its tables.

    Raises ConfigError for a source that is served from, and a target that is not empty, and
    Unavailable or RowFault when one of them fails: then no row was copied.
    """
    if source.is_missing():
        raise ConfigError(f"there is no store at {source}")
    if source.revision() != HEAD_REVISION:
        raise ConfigError(
            f"{source} is of another release: `sophia db upgrade` brings an older one up to date."
        )
    with (
        _kept_from_serving(source),
        _kept_from_serving(target),
        closing(source.open_reader()) as reader,
        closing(target.open()) as writer,
        reader.snapshot() as rows,
        writer.transaction() as to,
    ):
        _check_stopped(source, rows)
        for table in _TABLES:
            if _count(to, table):
                raise ConfigError(f"{target} is not empty: its table `{table.name}` has rows")
        for table in _TABLES:
            _copy_table(table, rows, to, report)


@contextmanager
def _kept_from_serving(address: StoreAddress) -> Iterator[None]:
    """Lock the data folder of a file. Raises FolderInUse."""
    if address.url:
        yield
        return
    address.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with folder_lock.lock_for_serving(address.path.parent):
        yield


def _check_stopped(source: StoreAddress, rows: Connection) -> None:
    """Raise ConfigError where workers run, or have left a part of their work in a journal."""
    running = rows.execute("SELECT COUNT(*) FROM workers WHERE token != ''").fetchone()[0]
    leases = rows.execute("SELECT COUNT(*) FROM leases").fetchone()[0]
    left = not source.url and any(map(list_segments, _journal_folders(source.path.parent)))
    if running or leases or left:
        raise ConfigError(
            f"{source} is served from, or was not closed properly: stop every Sophia that uses it; "
            "where one was killed, start it once more and stop it with SIGTERM."
        )


def _journal_folders(data: Path) -> list[Path]:
    return [path for path in (data / JOURNALS_FOLDER).glob("*") if path.is_dir()]


def _copy_table(table: Table, rows: Connection, to: Connection, report: Report) -> None:
    total, copied = _count(rows, table), 0
    names = ", ".join(f'"{column.name}"' for column in table.columns)
    keys = [column.name for column in table.primary_key]
    order = ", ".join(f'"{name}"' for name in keys)
    marks = ", ".join("?" * len(table.columns))
    # Names come from the schema, never from a row.
    select = f'SELECT {names} FROM "{table.name}"'  # noqa: S608
    insert = f'INSERT INTO "{table.name}" ({names}) VALUES ({marks})'  # noqa: S608
    places = [list(table.columns.keys()).index(name) for name in keys]
    after: tuple[object, ...] = ()
    while True:
        where = f" WHERE ({order}) > ({', '.join('?' * len(after))})" if after else ""
        sql = f"{select}{where} ORDER BY {order} LIMIT {_BATCH_ROWS}"
        if not (batch := rows.execute(sql, after).fetchall()):
            break
        to.executemany(insert, [_convert(table, row) for row in batch])
        copied += len(batch)
        after = tuple(batch[-1][place] for place in places)
        report(table.name, total, copied)
    written = _count(to, table)
    report(table.name, total, written)
    if written != total:
        raise Unavailable(f"table `{table.name}` has {total} rows, and {written} were copied")


def _convert(table: Table, row: tuple[Any, ...]) -> list[object]:
    """Return a row with truth values as such: SQLite has numbers for them."""
    return [
        bool(value) if value is not None and isinstance(column.type, Boolean) else value
        for column, value in zip(table.columns, row, strict=True)
    ]


def _count(connection: Connection, table: Table) -> int:
    sql = f'SELECT COUNT(*) FROM "{table.name}"'  # noqa: S608
    return int(connection.execute(sql).fetchone()[0])
