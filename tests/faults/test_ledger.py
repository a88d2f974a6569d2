"""A disk that is full, and a ledger that is damaged or locked: nothing is lost."""

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from disk import full_disk
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
async def test_a_full_disk_refuses_at_once_and_keeps_every_outcome(
    start: Start, stream: bool
) -> None:
    """D22."""
    async with start() as gateway:
        gateway.up.script(MINI, ScriptStep(delay=0.3))
        running = asyncio.create_task(gateway.client.chat(stream=stream))
        async with asyncio.timeout(3):
            while not gateway.up.requests:
                await asyncio.sleep(0.01)
        with full_disk():
            assert (await running).status == 200
            async with asyncio.timeout(3):
                while (await health(gateway))[1].status == 200:
                    await asyncio.sleep(0.01)
            async with asyncio.timeout(1):
                answer = await gateway.client.chat(stream=stream)
            assert (answer.status, answer.headers["retry-after"]) == (503, "1") and answer.error
            live, ready = await health(gateway)
            assert live == 200 and "journal cannot be written" in ready.error["message"]
            assert len(gateway.up.requests) == 1
        async with asyncio.timeout(5):
            while (await health(gateway))[1].status != 200:
                await asyncio.sleep(0.02)
        assert (await gateway.client.chat()).status == 200
        rows = await gateway.settled(2)
        assert sum(row.cost_nano for row in rows) == gateway.up.bill.total
        assert (await gateway.standing())[1] == 0.0


async def test_a_damaged_ledger_delays_its_rows_and_no_request(start: Start) -> None:
    """D22: what is leased can be spent, and the journal keeps what the ledger cannot take."""
    async with start() as gateway:
        assert (await gateway.client.chat()).status == 200
        await gateway.settled(1)
        with damaged(gateway.folder / "sophia.db"):
            for _ in range(3):
                assert (await gateway.client.chat()).status == 200
            await asyncio.sleep(0.5)
            page = (await gateway.client.get("/metrics", headers={})).body.decode()
            (told,) = [one for one in page.splitlines() if one.startswith("sophia_ledger_queue")]
            assert float(told.split()[1]) == 6
            assert (await health(gateway))[1].status == 200
        rows = await gateway.settled(4, 6.0)
        assert sum(row.cost_nano for row in rows) == gateway.up.bill.total
        assert await gateway.standing() == (gateway.up.bill.total / 1e9, 0.0)


async def test_what_the_ledger_did_not_take_is_taken_at_the_next_start(start: Start) -> None:
    async with start() as gateway:
        assert (await gateway.client.chat()).status == 200
        await gateway.settled(1)
        lock = load_sqlite().connect(str(gateway.folder / "sophia.db"), isolation_level=None)
        lock.execute("BEGIN IMMEDIATE")
        assert (await gateway.client.chat()).status == 200
        closing = asyncio.create_task(gateway.sophia.close())
        await asyncio.sleep(0.2)
        bill = gateway.up.bill.total
        done, _ = await asyncio.wait([closing], timeout=15)
        assert done
        lock.execute("ROLLBACK")
        lock.close()
    async with start() as gateway:
        assert len(await gateway.settled(2)) == 2
        assert await gateway.standing() == (bill / 1e9, 0.0)
