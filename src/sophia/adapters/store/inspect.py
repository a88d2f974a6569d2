"""Health of a ledger's file and of the SQLite library, for `sophia doctor`."""

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from sophia.adapters.store.database import open_ledger_connection
from sophia.adapters.store.driver import load_sqlite
from sophia.adapters.store.migrate import HEAD_REVISION, current_revision
from sophia.adapters.store.report import LedgerUnreadable

_WAL_SAFE_SINCE = (3, 51, 3)
"""First release without the WAL-reset race that needs two connections on one database."""


@dataclass(frozen=True, slots=True)
class SqliteLibrary:
    """The SQLite library in use, and the first release safe with two connections."""

    version: str
    module: str
    safe: bool
    safe_since: tuple[int, ...] = _WAL_SAFE_SINCE


@dataclass(frozen=True, slots=True)
class LedgerCheck:
    """State of a ledger's file.

    `quick_check` is SQLite's result, "ok" for an intact file; `revision` is the file's schema, None
    before the first, `latest_revision` this release's; `active_keys` counts inference keys.
    """

    quick_check: str
    revision: str | None
    latest_revision: str
    active_keys: int


def inspect_ledger(path: Path) -> LedgerCheck:
    """Check a ledger's file, changing nothing. Raises LedgerUnreadable when it is damaged."""
    try:
        revision = current_revision(path)
        with closing(open_ledger_connection(path, read_only=True)) as connection:
            quick_check = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            keys = revision and connection.execute(
                "SELECT COUNT(*) FROM keys WHERE revoked_ms IS NULL AND scope = 'inference'"
            )
            active = int(keys.fetchone()[0]) if keys else 0
    except load_sqlite().Error as error:
        raise LedgerUnreadable(str(error)) from error
    return LedgerCheck(str(quick_check), revision, HEAD_REVISION, active)


def describe_sqlite_library() -> SqliteLibrary:
    """Return the SQLite library in use."""
    module = load_sqlite()
    is_safe = module.sqlite_version_info >= _WAL_SAFE_SINCE
    return SqliteLibrary(module.sqlite_version, module.__name__.partition(".")[0], is_safe)
