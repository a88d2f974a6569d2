"""Hundreds of killed processes under load: nothing acknowledged is lost, nothing is billed twice."""

import asyncio
import os
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import pytest

from gateway import MINI, NEMO, Client
from postgres_server import PostgresServer, run_postgres
from processes import Installation, Machine, Served
from sophia.core.ids import decode_id
from sophia.sandbox import ScriptedUpstream, ScriptStep

pytestmark = [pytest.mark.kills, pytest.mark.timeout(1500)]
KILLS, WORKERS, CLIENTS = 300, 4, 24
"""Kills of workers, of their supervisor, with which all its workers end, and of PostgreSQL."""
MOST_IN_ROUND, ROUND_SECONDS = 9, 10.0
"""Kills of workers after which their supervisor is killed: it starts them later and later."""
STEPS = (
    ScriptStep(chunk_delay=0.01),
    ScriptStep(),
    ScriptStep(first_delay=0.05),
    ScriptStep(delay=0.05),
)


class Load:
    """Callers who ask one request after the other, and what they were told."""

    def __init__(self) -> None:
        self.acknowledged: list[int] = []
        self.results: Counter[str] = Counter()
        self.client: Client | None = None
        self.stop = False

    async def ask(self, number: int) -> None:
        models = [MINI, NEMO] if number % 2 else [NEMO, MINI]
        while not self.stop:
            if self.client is None:
                await asyncio.sleep(0.05)
                continue
            try:
                async with asyncio.timeout(10):
                    answer = await self.client.chat(
                        models=models, stream=number % 3 > 0, max_tokens=200
                    )
            except (OSError, TimeoutError):
                self.results["broken"] += 1
                await asyncio.sleep(0.02)
                continue
            is_whole = answer.status == 200 and answer.complete
            is_whole = is_whole and (number % 3 == 0 or answer.done)
            self.results["whole" if is_whole else f"status {answer.status}"] += 1
            if is_whole:
                id = decode_id("req", answer.headers["x-request-id"])
                assert id is not None
                self.acknowledged.append(id)
            elif answer.status != 200:
                await asyncio.sleep(0.02)


async def list_pids(client: Client) -> list[int]:
    """Return the processes of the workers that answer."""
    with suppress(OSError, ValueError, TimeoutError):
        async with asyncio.timeout(3):
            health = (await client.get("/health")).json
            return [worker["pid"] for worker in health["workers"]]
    return []


async def kill_some(served: Served, chance: random.Random) -> int:
    """Kill workers at random moments; return how many."""
    killed, end = 0, asyncio.get_running_loop().time() + ROUND_SECONDS
    while killed < MOST_IN_ROUND and asyncio.get_running_loop().time() < end:
        await asyncio.sleep(chance.uniform(0.05, 1.0))
        pids = await list_pids(served.client)
        for pid in chance.sample(pids, min(len(pids), chance.choice((1, 1, 2, 4)))):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                killed += 1
    return killed


@asynccontextmanager
async def killed_now_and_then(
    server: PostgresServer | None, chance: random.Random
) -> AsyncIterator[list[float]]:
    """Kill a server at random moments, and start it again; yield how long it was away."""
    away: list[float] = []
    has_ended = asyncio.Event()

    async def kill(server: PostgresServer) -> None:
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(has_ended.wait(), chance.triangular(0.2, 3.0, 0.2))
                return
            server.kill()
            away.append(chance.triangular(0.2, 2.0, 0.2))
            await asyncio.sleep(away[-1])
            await asyncio.to_thread(server.start)

    async with asyncio.TaskGroup() as tasks:
        if server is not None:
            tasks.create_task(kill(server))
        yield away
        has_ended.set()


@contextmanager
def progress(total: int) -> Iterator[list[int]]:
    """Count kills, and print them now and then."""
    done: list[int] = []
    yield done
    print(f"\n{len(done)} rounds, {sum(done)} of {total} kills")


@pytest.fixture(params=["sqlite", "postgres"])
def server(request: pytest.FixtureRequest) -> Iterator[PostgresServer | None]:
    """The server that has the store, None where a file has it."""
    if request.param == "sqlite":
        yield None
        return
    with run_postgres(is_durable=True) as server:
        yield server


async def test_kills_lose_nothing_and_bill_nothing_twice(
    tmp_path: Path, migrated: Path, up: ScriptedUpstream, server: PostgresServer | None
) -> None:
    chance = random.Random(11)
    installation = Installation(tmp_path / "data", migrated, up)
    if server is not None:
        installation = Machine(tmp_path / "data", migrated, up, server.create_database())
    up.script("*", *STEPS, times=None)
    load, variables = Load(), {"SOPHIA_SERVER_WORKERS": str(WORKERS)}
    asking = [asyncio.create_task(load.ask(number)) for number in range(CLIENTS)]
    with progress(KILLS) as done:
        while sum(done) < KILLS:
            async with installation.served(**variables) as served:
                load.client = served.client
                async with killed_now_and_then(server, chance) as away:
                    killed = await kill_some(served, chance)
                    served.process.send_signal(signal.SIGKILL)
                    load.client = None
                    await served.ended()
                done.append(killed + 1 + len(away))
                assert not any(each.done() for each in asking)
    load.stop = True
    await asyncio.wait_for(asyncio.gather(*asking), 30)
    variables["SOPHIA_BUDGET_UNKNOWN_HOLD_MINUTES"] = "0"
    async with installation.served(**variables) as served:
        async with asyncio.timeout(120):
            while any(row["held_nano"] for row in installation.rows("accounts")):
                await asyncio.sleep(0.2)
        served.process.send_signal(signal.SIGINT)
        assert await served.ended(30) == 0
    check(installation, up, load, sum(done))


def check(installation: Installation, up: ScriptedUpstream, load: Load, kills: int) -> None:
    """Compare the ledger with the upstream's own bill and with what callers were told."""
    rows = installation.outcomes()
    ids = {row.attempt_id for row in rows}
    assert kills >= KILLS and load.results["whole"] > 1000, (kills, load.results)
    assert ids == {row["attempt_id"] for row in installation.rows("intents")}
    assert len(ids) == len(rows)
    requests = {id & ~15 for id in ids}
    lost = [id for id in load.acknowledged if id not in requests]
    assert not lost and len(set(load.acknowledged)) == len(load.acknowledged)
    bills = {bill.generation_id: bill.cost for bill in up.bill.rows}
    told = {row.generation_id: row for row in rows if row.generation_id is not None}
    assert len(told) == sum(row.generation_id is not None for row in rows), "billed twice"
    assert {id: row.cost_nano for id, row in told.items()} == {id: bills[id] for id in told}
    guessed = [row for row in rows if row.generation_id is None and row.cost_source != "none"]
    assert {row.cost_source for row in guessed} <= {"assumed"}
    assert len(bills.keys() - told.keys()) <= len(guessed)
    (key,) = [row for row in installation.rows("accounts") if row["window"]]
    assert key["spent_nano"] == sum(row.cost_nano for row in rows)
    assert (key["held_nano"], key["leased_nano"]) == (0, 0) and not installation.rows("leases")
    print(f"{len(rows)} attempts, {dict(load.results)}, {len(guessed)} of unknown cost")
