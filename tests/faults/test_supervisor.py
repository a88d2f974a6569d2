"""A supervisor that gets signals while its workers start, and workers that cannot start."""

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from processes import Installation
from sophia.cli.supervisor import Supervisor
from sophia.http.server import bind_listener
from sophia.sandbox import ScriptedUpstream

WORKER = """
import os, pathlib, signal, sys, time
folder = pathlib.Path(sys.argv[1])

def end(number, _):
    with (folder / "signals").open("a") as file:
        file.write(f"{os.getpid()} {number}\\n")
    sys.exit(0)

signal.signal(signal.SIGUSR2, end)
with (folder / "started").open("a") as file:
    file.write(f"{os.getpid()}\\n")
number = (folder / "started").read_text().split().index(str(os.getpid()))
if (folder / "broken").exists():
    sys.exit(3)
while number >= int((folder / "may_start").read_text()):
    os.write(1, b"alive\\n")
    time.sleep(0.01)
signal.signal(signal.SIGTERM, end)
os.write(1, b"ready\\n")
while True:
    os.write(1, b"alive\\n")
    time.sleep(0.2)
"""
"""Stands for `sophia serve` as a worker; it is ready once the file `may_start` allows it."""


class Workers:
    """A supervisor over stand-ins, and what these wrote down."""

    def __init__(self, folder: Path, count: int) -> None:
        self.folder = folder
        (folder / "started").touch()
        (folder / "signals").touch()
        (folder / "script.py").write_text(WORKER)
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.supervisor = Supervisor(
            [sys.executable, "-S", str(folder / "script.py"), str(folder)],
            {},
            partial(bind_listener, "127.0.0.1", port, shared=True),
            count=count,
            stop_seconds=5,
        )

    def allow(self, count: int) -> None:
        """Let so many processes become ready."""
        (self.folder / "next").write_text(str(count))
        (self.folder / "next").rename(self.folder / "may_start")

    @property
    def started(self) -> list[int]:
        return [int(pid) for pid in (self.folder / "started").read_text().split()]

    @property
    def signals(self) -> list[str]:
        return (self.folder / "signals").read_text().splitlines()

    @property
    def running(self) -> list[int]:
        return [pid for pid in self.started if is_alive(pid)]


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.fixture
async def workers(tmp_path: Path) -> AsyncIterator[Workers]:
    workers = Workers(tmp_path, count=2)
    yield workers
    workers.supervisor.stop(signal.SIGKILL)
    async with asyncio.timeout(5):
        await workers.supervisor.wait()
    assert not workers.running


async def end(workers: Workers, number: int = signal.SIGTERM) -> int:
    """Return the exit code after a signal; it takes less time than any back-off."""
    workers.supervisor.stop(number)
    async with asyncio.timeout(2):
        return await workers.supervisor.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_while_the_first_worker_starts_ends_all(
    workers: Workers, number: signal.Signals
) -> None:
    workers.allow(0)
    starting = asyncio.create_task(workers.supervisor.start())
    await until(lambda: len(workers.started) == 1)
    assert await end(workers, number) == 0
    assert not await starting and len(workers.started) == 1


async def test_a_signal_while_another_worker_starts_comes_once(workers: Workers) -> None:
    """A second one would cut the requests of a worker that serves already."""
    workers.allow(1)
    starting = asyncio.create_task(workers.supervisor.start())
    await until(lambda: len(workers.started) == 2)
    assert await end(workers) == 0
    assert not await starting
    assert workers.signals == [f"{workers.started[0]} {signal.SIGTERM.value}"]


async def test_workers_are_replaced_after_a_start_that_was_under_way(workers: Workers) -> None:
    """A SIGHUP meanwhile is neither lost nor does it leave a worker that nobody knows."""
    workers.allow(0)
    starting = asyncio.create_task(workers.supervisor.start())
    await until(lambda: len(workers.started) == 1)
    workers.supervisor.roll()
    workers.allow(4)
    assert await starting
    await until(lambda: len(workers.started) == 4 and len(workers.running) == 2)
    assert workers.running == workers.started[2:]
    assert await end(workers) == 0


async def test_workers_are_replaced_once_more_after_a_replacement_under_way(
    workers: Workers,
) -> None:
    """The first new ones may have read settings that have changed since."""
    workers.allow(2)
    assert await workers.supervisor.start()
    workers.supervisor.roll()
    await until(lambda: len(workers.started) == 3)
    for _ in range(3):
        workers.supervisor.roll()
    workers.allow(6)
    await until(lambda: len(workers.started) == 6 and len(workers.running) == 2)
    assert workers.running == workers.started[4:]
    assert await end(workers) == 0


async def test_a_signal_while_a_worker_is_replaced_ends_old_and_new(workers: Workers) -> None:
    workers.allow(2)
    assert await workers.supervisor.start()
    workers.supervisor.roll()
    await until(lambda: len(workers.started) == 3)
    assert await end(workers) == 0
    assert len(workers.started) == 3


async def test_a_worker_that_cannot_start_is_started_less_and_less_often(
    workers: Workers, caplog: pytest.LogCaptureFixture
) -> None:
    """The log says how it ended and when the next one starts; a signal is obeyed at once."""
    workers.allow(2)
    assert await workers.supervisor.start()
    (workers.folder / "broken").touch()
    os.kill(workers.started[1], signal.SIGKILL)
    await until(lambda: len(caplog.records) >= 4)
    lines = [record.message.split(" ", 2)[2] for record in caplog.records]
    assert lines[:4] == [
        "ended with code 137; another one starts in 0.1 s",
        "ended with code 3 before it was ready; another one starts in 0.2 s",
        "ended with code 3 before it was ready; another one starts in 0.4 s",
        "ended with code 3 before it was ready; another one starts in 0.8 s",
    ]
    assert workers.running[0] == workers.started[0], "the other one goes on"
    assert await end(workers) == 0


async def test_a_first_worker_that_cannot_start_gives_its_exit_code(
    workers: Workers, caplog: pytest.LogCaptureFixture
) -> None:
    (workers.folder / "broken").touch()
    assert not await workers.supervisor.start()
    async with asyncio.timeout(2):
        assert await workers.supervisor.wait() == 3
    assert len(workers.started) == 1
    assert [record.message for record in caplog.records if record.levelno >= logging.ERROR] == [
        "the first worker ended with code 3 before it was ready"
    ]


@asynccontextmanager
async def begun(installation: Installation) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run `sophia serve` with two workers, of which the first is starting."""
    command = ("serve", "--port", "0", "--workers", "2", "--data-dir", str(installation.folder))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "sophia", *command),
        env=installation.environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        await until(lambda: bool(children.read_text()), 20)
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_the_command_ends_quietly_while_its_workers_start(
    tmp_path: Path, migrated: Path, up: ScriptedUpstream, number: signal.Signals
) -> None:
    installation = Installation(tmp_path / "data", migrated, up)
    async with begun(installation) as process:
        process.send_signal(number)
        async with asyncio.timeout(10):
            out, err = await process.communicate()
    assert (process.returncode, err.decode()) == (0, "")
    assert b"serves" not in out
