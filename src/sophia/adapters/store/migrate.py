"""Migrate a database to the schema of this release; a current one needs no Alembic."""

from contextlib import closing
from pathlib import Path

from sophia.adapters.store.driver import load_sqlite

HEAD_REVISION = "0003"


def current_revision(path: Path) -> str | None:
    """Return the revision of the database at `path`, or None if it has none yet."""
    driver = load_sqlite()
    with closing(driver.connect(str(path))) as connection:
        try:
            row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        except driver.OperationalError:
            return None
    return str(row[0]) if row else None


def migrate(path: Path) -> None:
    """Create or upgrade the database at `path`.

    A new database is created from the metadata of `schema`; migrations hold later changes only.
    """
    revision = current_revision(path) if path.exists() else None
    if revision == HEAD_REVISION:
        return
    # Slow imports, which a current database does not need.
    from alembic import command
    from alembic.config import Config
    from sqlalchemy import create_engine
    from sqlalchemy.pool import NullPool

    from sophia.adapters.store.schema import metadata

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    engine = create_engine(f"sqlite:///{path}", module=load_sqlite(), poolclass=NullPool)
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        if revision is None:
            metadata.create_all(connection)
            command.stamp(config, "head")
        else:
            command.upgrade(config, "head")
    engine.dispose()
