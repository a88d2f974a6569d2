"""Stores for tests: a file or a server's database, the journal of a worker, what a dead one left."""

from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg
from msgspec.structs import astuple

from sophia.adapters.clock import SystemClock
from sophia.adapters.store.apply import apply_records
from sophia.adapters.store.databases.address import StoreAddress
from sophia.adapters.store.databases.database import Database
from sophia.adapters.store.databases.postgres import PostgresDatabase
from sophia.adapters.store.databases.sqlite import SqliteDatabase
from sophia.adapters.store.driver import load_sqlite
from sophia.adapters.store.journaling.files import Ended, Reserved, decode_records
from sophia.adapters.store.statements import COLUMNS, insert_sql
from sophia.adapters.store.store import SqlStore
from sophia.core.rows import AttemptIntent, AttemptOutcome
from sophia.jobs.recover_attempts import start_worker


def find_test_store(folder: Path) -> StoreAddress:
    """Return the server that the folder's `store.url` names, or else the folder's file."""
    named = folder / "store.url"
    return StoreAddress(folder / "sophia.db", named.read_text() if named.exists() else "")


def open_test_database(folder: Path, wait_seconds: float) -> Database:
    """Open the folder's store, which waits less long than a server does."""
    if url := find_test_store(folder).url:
        return PostgresDatabase(url, wait_seconds)
    return SqliteDatabase(folder / "sophia.db", wait_seconds)


@contextmanager
def locked_store(folder: Path) -> Iterator[None]:
    """Keep every other process from using the folder's store."""
    if url := find_test_store(folder).url:
        with psycopg.connect(url) as server:
            server.execute("LOCK TABLE accounts, leases, outcomes IN ACCESS EXCLUSIVE MODE")
            yield
            server.rollback()
        return
    with closing(load_sqlite().connect(str(folder / "sophia.db"), isolation_level=None)) as lock:
        lock.execute("PRAGMA busy_timeout = 5000")
        lock.execute("BEGIN IMMEDIATE")
        yield
        lock.execute("ROLLBACK")


@asynccontextmanager
async def open_test_store(folder: Path, sync_seconds: float = 0.05) -> AsyncIterator[SqlStore]:
    """Open a store in `folder`, as a server does."""
    store = SqlStore(open_test_database(folder, wait_seconds=0.5))
    try:
        await start_worker(store, SystemClock(), folder, sync_seconds)
        yield store
    finally:
        await store.close()


def write_rows(path: Path, rows: Iterable[Any]) -> None:
    """Write rows of any kind into the ledger at `path` in one transaction."""
    write_rows_to(SqliteDatabase(path), rows)


def write_rows_to(database: Database, rows: Iterable[Any]) -> None:
    """Write rows into a database in one transaction, and close it."""
    kinds = {AttemptIntent: Reserved, AttemptOutcome: Ended}
    with database.transaction() as connection:
        for row in rows:
            if (record := kinds.get(type(row))) is not None:
                apply_records(connection, [record(row)])
            else:
                connection.execute(insert_sql(type(row)), astuple(row))
    database.close()


def left_open(folder: Path) -> list[AttemptIntent]:
    """Return the attempts without an outcome, of the ledger in `folder` and its journals."""
    with closing(load_sqlite().connect(str(folder / "sophia.db"))) as database:
        rows = database.execute(f"SELECT {COLUMNS[AttemptIntent]} FROM intents").fetchall()
        ended = {id for (id,) in database.execute("SELECT attempt_id FROM outcomes")}
    intents = {row[0]: AttemptIntent(*row) for row in rows}
    for path in sorted(folder.glob("journal/*/*.journal")):
        for record, _ in decode_records(path.read_bytes()):
            if isinstance(record, Reserved):
                intents[record.intent.attempt_id] = record.intent
            elif isinstance(record, Ended):
                ended.add(record.outcome.attempt_id)
    return [intent for id, intent in sorted(intents.items()) if id not in ended]
