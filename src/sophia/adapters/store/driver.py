"""The SQLite library: a bundled one, since old system libraries can corrupt a WAL."""

from types import ModuleType


def load_sqlite() -> ModuleType:
    """Return the DB-API module of the bundled library, else the interpreter's own."""
    try:
        from pysqlite3 import dbapi2
    except ImportError:
        import sqlite3 as dbapi2
    module: ModuleType = dbapi2
    return module
