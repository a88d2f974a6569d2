"""A ledger that is damaged, or whose writer ended: unready, refused at once, and nothing lost."""

import asyncio
import ctypes
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gateway import MINI, Answer, Gateway, Start
from sophia.adapters.store.driver import load_sqlite
from sophia.sandbox import ScriptStep

pytestmark = pytest.mark.parametrize("server", ["native"])
PAGE = 4096


@contextmanager
def damaged(ledger: Path) -> Iterator[None]:
    """Overwrite every page but the first, and put them back in the end."""
    other = load_sqlite().connect(str(ledger), isolation_level=None)
    # All is in the file by then, and no connection trusts the pages that it has read.
    other.execute("UPDATE keys SET name = name")
    other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    other.close()
    pages = ledger.read_bytes()[PAGE:]
    with ledger.open("r+b", buffering=0) as file:
        try:
            file.seek(PAGE)
            file.write(os.urandom(len(pages)))
            yield
        finally:
            file.seek(PAGE)
            file.write(pages)


async def health(gateway: Gateway) -> tuple[int, Answer]:
    """Return the status of liveness, and the answer to readiness."""
    live = await gateway.client.get("/health/live")
    return live.status, await gateway.client.get("/health/ready")


@pytest.mark.parametrize("stream", [False, True])
async def test_a_damaged_ledger_refuses_at_once_and_keeps_every_outcome(
    start: Start, stream: bool
) -> None:
    """D22."""
    async with start() as gateway:
        gateway.up.script(MINI, ScriptStep(delay=0.3))
        running = asyncio.create_task(gateway.client.chat(stream=stream))
        async with asyncio.timeout(3):
            while not gateway.up.requests:
                await asyncio.sleep(0.01)
        with damaged(gateway.folder / "sophia.db"):
            assert (await running).status == 200
            async with asyncio.timeout(3):
                while (await health(gateway))[1].status == 200:
                    await asyncio.sleep(0.01)
            async with asyncio.timeout(1):
                answer = await gateway.client.chat(stream=stream)
            assert (answer.status, answer.headers["retry-after"]) == (503, "1") and answer.error
            live, ready = await health(gateway)
            assert live == 200 and "malformed" in ready.error["message"]
            assert len(gateway.up.requests) == 1
        async with asyncio.timeout(5):
            while (await health(gateway))[1].status != 200:
                await asyncio.sleep(0.02)
        assert (await gateway.client.chat()).status == 200
        rows = await gateway.settled(2)
        assert sum(row.cost_nano for row in rows) == gateway.up.bill.total
        assert (await gateway.standing())[1] == 0.0


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_another_writer_takes_over_when_one_ends(start: Start) -> None:
    """D22: a request that waits for the ledger gets its answer, and no row is lost."""
    async with start() as gateway:
        assert (await gateway.client.chat()).status == 200
        for _ in range(3):
            (writer,) = [one for one in threading.enumerate() if one.name == "sophia-ledger"]
            ended = ctypes.c_ulong(writer.ident or 0), ctypes.py_object(SystemExit)
            assert ctypes.pythonapi.PyThreadState_SetAsyncExc(*ended) == 1
            async with asyncio.timeout(3):
                assert (await gateway.client.chat()).status == 200
            writer.join(3)
            assert not writer.is_alive()
        assert (await health(gateway))[1].status == 200
        rows = await gateway.settled(4)
        assert len(rows) == 4 and sum(row.cost_nano for row in rows) == gateway.up.bill.total
