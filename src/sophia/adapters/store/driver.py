"""The SQLite library that Sophia writes with: a bundled one, since older ones can corrupt a WAL."""

from types import ModuleType

SAFE_SINCE = (3, 51, 3)
"""First release without the WAL-reset race that needs two connections on one database."""


def sqlite() -> ModuleType:
    """Return the best DB-API module there is: the bundled library, else the interpreter's own."""
    try:
        from pysqlite3 import dbapi2
    except ImportError:
        import sqlite3 as dbapi2
    module: ModuleType = dbapi2
    return module


def is_safe(module: ModuleType) -> bool:
    """Say whether two connections on one WAL database are safe with this library."""
    version: tuple[int, ...] = module.sqlite_version_info
    return version >= SAFE_SINCE
