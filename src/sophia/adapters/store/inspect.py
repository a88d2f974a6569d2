"""Health of a ledger and of the SQLite library, for `sophia doctor`."""

from contextlib import closing
from dataclasses import dataclass

from sophia.adapters.store.databases.address import StoreAddress
from sophia.adapters.store.driver import load_sqlite
from sophia.adapters.store.migrate import HEAD_REVISION
from sophia.adapters.store.report import LedgerDamaged, LedgerUnreadable
from sophia.core.errors import Unavailable

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
    """State of a ledger.

    `quick_check` is SQLite's result, "ok" for an intact file; `revision` is the ledger's schema,
    None before the first, `latest_revision` this release's; `active_keys` counts inference keys.
    """

    quick_check: str
    revision: str | None
    latest_revision: str
    active_keys: int


def inspect_ledger(address: StoreAddress) -> LedgerCheck:
    """Check a ledger, changing nothing. Raises LedgerUnreadable or ConfigError."""
    quick_check, active = "ok", 0
    try:
        revision = address.revision()
        with closing(address.open_reader()) as database:
            if not address.url:
                quick_check = str(database.read("PRAGMA quick_check(1)")[0][0])
            if revision is not None and revision <= HEAD_REVISION:
                keys = "keys WHERE revoked_ms IS NULL AND scope = 'inference'"
                active = int(database.read(f"SELECT COUNT(*) FROM {keys}")[0][0])  # noqa: S608
    except (Unavailable, load_sqlite().Error) as error:
        raise _explain(error) from error
    return LedgerCheck(quick_check, revision, HEAD_REVISION, active)


def _explain(error: Exception) -> LedgerUnreadable:
    """Return the error to raise: damage is what SQLite finds in a file that it can open."""
    cause, driver = error.__cause__ or error, load_sqlite()
    is_damage = isinstance(cause, driver.DatabaseError)
    is_damage = is_damage and not isinstance(cause, driver.OperationalError)
    return (LedgerDamaged if is_damage else LedgerUnreadable)(str(cause))


def describe_sqlite_library() -> SqliteLibrary:
    """Return the SQLite library in use."""
    module = load_sqlite()
    is_safe = module.sqlite_version_info >= _WAL_SAFE_SINCE
    return SqliteLibrary(module.sqlite_version, module.__name__.partition(".")[0], is_safe)
