"""The address of a store: the file in the data folder, or a database of a PostgreSQL server."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from sophia.adapters.store.databases.database import Database
from sophia.adapters.store.databases.sqlite import SqliteDatabase
from sophia.adapters.store.migrate import current_revision, is_current, migrate, migrate_server
from sophia.config import describe_store_url
from sophia.core.errors import ConfigError


@dataclass(frozen=True, slots=True)
class StoreAddress:
    """The file `path`, or the PostgreSQL database at `url` where that is set.

    As text it never has the password.
    """

    path: Path
    url: str = field(default="", repr=False)

    def __str__(self) -> str:
        return describe_store_url(self.url) if self.url else str(self.path)

    def is_missing(self) -> bool:
        """Return whether there is no file yet; a server is not asked."""
        return not self.url and not self.path.exists()

    def open(self) -> Database:
        """Open the database for changes, created or migrated first. Raises ConfigError."""
        if not self.url:
            return SqliteDatabase(self.path)
        self.migrate()
        return self._open_server()

    def open_reader(self) -> Database:
        """Open the database to read it; nothing is created. Raises ConfigError."""
        if self.url:
            return self._open_server(read_only=True)
        return SqliteDatabase(self.path, read_only=True)

    def migrate(self) -> None:
        """Create or upgrade the tables. Raises ConfigError."""
        if not self.url:
            migrate(self.path)
            return
        driver = self._load_driver()
        with self._server_problems():
            if not is_current(driver.read_revision(self.url)):
                migrate_server(lambda: driver.connect_to_migrate(self.url))

    def revision(self) -> str | None:
        """Return the revision of the tables, None without any. Raises ConfigError."""
        if not self.url:
            return current_revision(self.path)
        with self._server_problems():
            revision: str | None = self._load_driver().read_revision(self.url)
            return revision

    def _open_server(self, *, read_only: bool = False) -> Database:
        database: Database = self._load_driver().PostgresDatabase(self.url, read_only=read_only)
        return database

    def _load_driver(self) -> ModuleType:
        try:
            from sophia.adapters.store.databases import postgres
        except ImportError:
            raise ConfigError(
                "`store.url` needs an extra that is not installed: "
                "pip install 'sophia-router[postgres]'"
            ) from None
        return postgres

    @contextmanager
    def _server_problems(self) -> Iterator[None]:
        """Turn the problems of a server into a ConfigError without the password."""
        driver: Any = self._load_driver()
        try:
            driver.check_url(self.url)
            if str(self) == "***":
                raise driver.BadUrl
            yield
        except driver.BadUrl:
            raise ConfigError(
                "`store.url` cannot be read; expected postgresql://USER:PASSWORD@HOST:PORT/DATABASE,"
                " with special characters of the password as %XX"
            ) from None
        except driver.OldServer as error:
            raise ConfigError(
                f"`store.url`: the database {self} cannot be used: {error}. Update the server."
            ) from None
        except driver.ServerError as error:
            reason = " ".join(str(error).split())
            raise ConfigError(
                f"`store.url`: the database {self} cannot be used: {reason}. Start the server, "
                "create the database and its user, or correct the address."
            ) from None
