"""Stores of a run: one data folder for all processes, or one for each and a PostgreSQL server."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.postgres import run_postgres_database
from sophia.adapters.store.databases.address import StoreAddress
from sophia.adapters.store.databases.database import Database


@dataclass(frozen=True, slots=True)
class RunStore:
    """Folder of a run, and the address of its server; "" is SQLite's file in the folder."""

    folder: Path
    url: str

    def open(self) -> Database:
        """Open the store, created first where it is missing."""
        return StoreAddress(self.folder / "sophia.db", self.url).open()

    def data_folder(self, process: int) -> Path:
        """Return the data folder of a process: on a server's store each has its own."""
        folder = self.folder / str(process) if self.url else self.folder
        folder.mkdir(exist_ok=True)
        return folder


@contextmanager
def open_run_store(kind: str, folder: Path) -> Iterator[RunStore]:
    """Yield a new store; a PostgreSQL server runs as in the tests, but syncs its files."""
    if kind == "sqlite":
        yield RunStore(folder, "")
        return
    with run_postgres_database() as url:
        yield RunStore(folder, url)
