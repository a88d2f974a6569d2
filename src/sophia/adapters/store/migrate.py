"""Bring a database to the schema of this release; a current one is recognised without Alembic."""

from pathlib import Path

from sophia.adapters.store.driver import sqlite

HEAD = "0001"


def current(path: Path) -> str | None:
    """Return the revision of the database at `path`, or None when it has none yet."""
    driver = sqlite()
    connection = driver.connect(str(path))
    try:
        row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    except driver.OperationalError:
        return None
    finally:
        connection.close()
    return str(row[0]) if row else None


def migrate(path: Path) -> None:
    """Create or upgrade the database at `path`; imports SQLAlchemy and Alembic only if it must."""
    if path.exists() and current(path) == HEAD:
        return
    from alembic import command
    from alembic.config import Config
    from sqlalchemy import create_engine
    from sqlalchemy.pool import NullPool

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    engine = create_engine(f"sqlite:///{path}", module=sqlite(), poolclass=NullPool)
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    engine.dispose()
