"""Sophia as a process of its own before the scripted upstream of the test."""

import asyncio
import re
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from gateway import Client, prepare
from sophia.adapters.store.driver import load_sqlite
from sophia.compose.keys import create_key
from sophia.compose.offline import open_store
from sophia.config import Settings, StoreSettings
from sophia.core.rows import AttemptOutcome
from sophia.sandbox import ScriptedUpstream

QUIET = {
    "SOPHIA_CATALOGUE_REFRESH_HOURS": "0",
    "SOPHIA_LEARNING_ENABLED": "false",
    "OPENROUTER_API_KEY": "sk-or-test",
    "SOPHIA_SERVER_LINGER_S": "0",
    "PATH": "/usr/bin:/bin",
}


@dataclass
class Served:
    """A process that serves, a client for it, and the ledger in its folder."""

    process: Process
    client: Client
    folder: Path

    async def ended(self, seconds: float = 10.0) -> int:
        """Return the exit code once the process has ended."""
        async with asyncio.timeout(seconds):
            return await self.process.wait()


class Installation:
    """A data folder with a key, from which one process after the other serves."""

    def __init__(self, folder: Path, template: Path, up: ScriptedUpstream) -> None:
        prepare(folder, template)
        self.folder = folder
        self.key, self._row = create_key(folder, "first")
        self.settings = Settings(data_dir=str(folder))
        paths = {"PYTHONPATH": ":".join(sys.path)}
        self.environment = QUIET | {"OPENROUTER_BASE_URL": up.base_url} | paths

    @asynccontextmanager
    async def served(self, port: int = 0, **variables: Any) -> AsyncIterator[Served]:
        """Run a process on a port, 0 for a free one, until the context ends, if it has not ended by then."""
        if not self.rows("keys"):
            async with open_store(self.settings) as store:
                await store.add_key(self._row)
        command = [sys.executable, "-m", "sophia", "serve", "--port", str(port)]
        with (self.folder / "log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *(*command, "--data-dir", str(self.folder)),
                cwd=self.folder,
                env=self.environment | variables,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
            )
        try:
            yield Served(process, Client(await _find_port(process), self.key), self.folder)
        finally:
            if process.returncode is None:
                process.kill()
            # Read to its end, so that the transport is closed.
            await process.communicate()

    def rows(self, table: str) -> list[dict[str, Any]]:
        """Return the rows of a ledger table."""
        connection = load_sqlite().connect(str(self.folder / "sophia.db"))
        try:
            cursor = connection.execute(f"SELECT * FROM {table}")
            names = [column[0] for column in cursor.description]
            return [dict(zip(names, row, strict=True)) for row in cursor]
        finally:
            connection.close()

    def outcomes(self) -> list[AttemptOutcome]:
        """Return every outcome, oldest attempt first."""
        return sorted(AttemptOutcome(**row) for row in self.rows("outcomes"))


class Machine(Installation):
    """A data folder of its own, and the store that all share."""

    def __init__(self, folder: Path, template: Path, up: ScriptedUpstream, url: str) -> None:
        super().__init__(folder, template, up)
        self.url = url
        self.settings = Settings(data_dir=str(folder), store=StoreSettings(url))
        self.environment |= {"SOPHIA_STORE_URL": url, "SOPHIA_SERVER_WORKERS": "2"}

    def rows(self, table: str) -> list[dict[str, Any]]:
        with psycopg.connect(self.url) as server:
            cursor = server.execute(f"SELECT * FROM {table}")
            names = [column.name for column in cursor.description or ()]
            return [dict(zip(names, row, strict=True)) for row in cursor]


async def _find_port(process: Process) -> int:
    """Return the port once the process says that it serves."""
    assert process.stdout is not None
    async with asyncio.timeout(20):
        while line := await process.stdout.readline():
            if found := re.search(rb"serves \S+:(\d+)/v1", line):
                return int(found[1])
    raise AssertionError("the process ended before it served")
