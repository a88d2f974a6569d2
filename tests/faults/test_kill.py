"""A process that is killed under load leaves no attempt open, and none is billed wrongly."""

import asyncio
import signal
from pathlib import Path

import pytest

from gateway import MINI, NEMO
from processes import Installation, Served
from sophia.sandbox import ScriptedUpstream, ScriptStep
from stores import left_open

CLIENTS, KILLS = 24, 3
STEPS = (
    ScriptStep(chunk_delay=0.01),
    ScriptStep(),
    ScriptStep(first_delay=0.1),
    ScriptStep(delay=0.05),
    ScriptStep(no_answer="hang"),
)


async def ask_on(served: Served, number: int) -> None:
    """Ask one call after the other until the process is gone."""
    models = [MINI, NEMO] if number % 2 else [NEMO, MINI]
    while served.process.returncode is None:
        try:
            await served.client.chat(models=models, stream=number % 3 > 0, max_tokens=200)
        except OSError:
            return


@pytest.mark.timeout(120)
async def test_every_attempt_of_a_killed_process_is_billed(
    tmp_path: Path, migrated: Path, up: ScriptedUpstream
) -> None:
    """D23: exactly where the upstream tells, else at the probable cost; nothing stays held."""
    installation = Installation(tmp_path / "data", migrated, up)
    up.script("*", *STEPS, times=None)
    open_count = 0
    for kill in range(KILLS):
        asked = len(up.requests)
        async with installation.served() as served:
            load = [asyncio.create_task(ask_on(served, number)) for number in range(CLIENTS)]
            async with asyncio.timeout(10):
                while len(up.requests) < asked + CLIENTS * (2 + kill):
                    await asyncio.sleep(0.005)
            served.process.send_signal(signal.SIGKILL)
            await asyncio.wait_for(asyncio.gather(*load), 10)
        open_count += len(left_open(installation.folder))
    assert open_count >= CLIENTS
    async with installation.served(SOPHIA_BUDGET_UNKNOWN_HOLD_MINUTES="0") as served:
        async with asyncio.timeout(15):
            while b"sophia_held_dollars 0.0\n" not in (await served.client.get("/metrics")).body:
                await asyncio.sleep(0.1)
        served.process.send_signal(signal.SIGINT)
        assert await served.ended() == 0
    bills = {bill.generation_id: bill for bill in up.bill.rows}
    rows = installation.outcomes()
    assert {row["attempt_id"] for row in installation.rows("intents")} == {
        row.attempt_id for row in rows
    }
    told = {row.generation_id: row for row in rows if row.generation_id}
    assert told and told.keys() <= bills.keys() and len(told) == sum(map(_has_id, rows))
    assert {id: row.cost_nano for id, row in told.items()} == {id: bills[id].cost for id in told}
    assert {row.state for row in rows} <= {"settled", "released"}
    assert {row.cost_source for row in rows if not _has_id(row)} <= {"assumed", "none"}


def _has_id(row: object) -> bool:
    return getattr(row, "generation_id", None) is not None
