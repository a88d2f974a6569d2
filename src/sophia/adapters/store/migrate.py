"""Migrate a database to the schema of this release; a current one needs no Alembic."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sophia.adapters.store.driver import load_sqlite
from sophia.core.errors import ConfigError

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

HEAD_REVISION = "0004"
_MIGRATION_LOCK = 7_318_349_394_477_056
"""Key of PostgreSQL's advisory lock: processes that start at once migrate one after the other."""
_READ_REVISION = "SELECT version_num FROM alembic_version"


def current_revision(path: Path) -> str | None:
    """Return the revision of the database at `path`, or None if it has none yet."""
    driver = load_sqlite()
    with closing(driver.connect(str(path))) as connection:
        try:
            row = connection.execute(_READ_REVISION).fetchone()
        except driver.OperationalError:
            return None
    return str(row[0]) if row else None


def migrate(path: Path) -> None:
    """Create or upgrade the database at `path`. Raises ConfigError for one of a newer release."""
    revision = current_revision(path) if path.exists() else None
    if is_current(revision):
        return
    # Slow imports, which a current database does not need.
    from sqlalchemy import create_engine
    from sqlalchemy.pool import NullPool

    url = f"sqlite:///{path}"
    migrate_engine(create_engine(url, module=load_sqlite(), poolclass=NullPool))


def is_current(revision: str | None) -> bool:
    """Return whether a database is of this release. Raises ConfigError when it is of a newer one.

    A new database has no revision.
    """
    if revision is not None and revision > HEAD_REVISION:
        raise ConfigError(
            f"the ledger has schema {revision}, and this release of Sophia knows {HEAD_REVISION} "
            "at most: install the release that wrote it, or a newer one."
        )
    return revision == HEAD_REVISION


def migrate_server(connect: Callable[[], Any]) -> None:
    """Create or upgrade the database of a server. Raises ConfigError, and the driver's errors."""
    from sqlalchemy import create_engine
    from sqlalchemy.exc import DBAPIError
    from sqlalchemy.pool import NullPool

    try:
        migrate_engine(create_engine("postgresql+psycopg://", creator=connect, poolclass=NullPool))
    except DBAPIError as error:
        raise (error.orig or error) from None


def migrate_engine(engine: "Engine") -> None:
    """Create or upgrade the database of `engine`, unless another process has.

    A new database is created from the metadata of `schema`; migrations hold later changes only.
    """
    from alembic import command
    from alembic.config import Config

    from sophia.adapters.store.schema import metadata

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        revision = _lock_revision(connection)
        if revision is None:
            metadata.create_all(connection)
            command.stamp(config, "head")
        elif not is_current(revision):
            command.upgrade(config, "head")
    engine.dispose()


def _lock_revision(connection: "Connection") -> str | None:
    """Return the revision, which no other process changes before this transaction has ended."""
    from sqlalchemy import inspect, text

    if connection.dialect.name == "postgresql":
        connection.execute(text(f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK})"))
    if not inspect(connection).has_table("alembic_version"):
        return None
    row = connection.execute(text(_READ_REVISION)).first()
    return str(row[0]) if row else None
