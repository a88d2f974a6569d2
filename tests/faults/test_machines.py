"""Machines with several processes each, on one PostgreSQL: one budget, one ledger."""

import asyncio
import shutil
import signal
from pathlib import Path

from postgres_server import PostgresServer
from processes import Machine
from sophia.compose.keys import create_key
from sophia.compose.offline import open_store
from sophia.core.money import nano_from_usd
from sophia.sandbox import ScriptedUpstream


async def test_a_budget_over_two_machines_is_exact(
    tmp_path: Path, migrated: Path, up: ScriptedUpstream, postgres: PostgresServer
) -> None:
    """It is used up to the last request that fits, and not beyond."""
    url = postgres.create_database(empty=True)
    first = Machine(tmp_path / "first", migrated, up, url)
    second = Machine(tmp_path / "second", migrated, up, url)
    shutil.copy(tmp_path / "first" / "pepper", tmp_path / "second" / "pepper")
    token, row = create_key(first.folder, "shared")
    first.key = second.key = token
    async with open_store(first.settings) as store:
        await store.add_key(row)
    async with first.served() as served:
        cost = nano_from_usd((await served.client.chat(max_tokens=20)).json["usage"]["cost"])
        served.process.send_signal(signal.SIGINT)
        assert await served.ended() == 0
    held = first.rows("intents")[0]["held_nano"]
    limit = cost + 30 * cost + held
    budget = {"SOPHIA_BUDGET_DAILY_USD": str(limit / 1e9)}
    async with first.served(**budget) as one, second.served(**budget) as other:
        statuses = [
            (await (one, other)[number % 2].client.chat(max_tokens=20)).status
            for number in range(80)
        ]
        assert statuses.index(402) >= 30 and set(statuses[statuses.index(402) :]) == {402}
        assert limit - held < up.bill.total <= limit
        numbers = [
            worker["worker"]
            for each in (one, other)
            for worker in (await each.client.get("/health")).json["workers"]
        ]
        assert len(set(numbers)) == 4
        for each in (one, other):
            each.process.send_signal(signal.SIGINT)
        assert await asyncio.gather(one.ended(), other.ended()) == [0, 0]
    (account,) = [each for each in first.rows("accounts") if each["window"]]
    assert (account["spent_nano"], account["leased_nano"]) == (up.bill.total, 0)
    assert not first.rows("leases")
