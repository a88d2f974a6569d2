"""Durability of the store: restarts, kills, locks and broken ledgers."""

import asyncio
import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
from msgspec.structs import replace

from sophia.adapters.store.driver import load_sqlite
from sophia.adapters.store.journaling.files import list_segments
from sophia.adapters.store.journaling.slots import claim_slot
from sophia.adapters.store.migrate import migrate
from sophia.adapters.store.schema import metadata
from sophia.core.errors import Unavailable
from sophia.core.ids import find_worker
from sophia.core.rows import AccountRow
from store_rows import DAY, NOW, intent, outcome
from stores import left_open, open_test_store


async def test_settled_rows_are_there_after_a_restart(folder: Path) -> None:
    async with open_test_store(folder) as store:
        await store.reserve(intent(NOW))
        store.settle(outcome(NOW))
    async with open_test_store(folder) as store:
        assert await store.attempts(NOW) == [outcome(NOW)]
        assert await store.held_attempts() == []
    assert not list_segments(folder / "journal/0"), "nothing is left to apply"


async def test_an_intent_that_comes_again_changes_nothing(folder: Path) -> None:
    """A clock that stepped back over a restart can make an id a second time."""
    async with open_test_store(folder) as store:
        await store.reserve(intent(NOW))
        await store.reserve(intent(NOW, held=999))
        store.settle(outcome(NOW))
        await store.reserve(intent(NOW + 16))
        store.settle(outcome(NOW + 16))
        first = await store.decision(NOW)
        assert first is not None and first.held_nano == 100


async def test_a_locked_ledger_delays_and_loses_nothing(folder: Path) -> None:
    lock = load_sqlite().connect(str(folder / "sophia.db"), isolation_level=None)
    async with open_test_store(folder) as store:
        store.settle(outcome(NOW))
        lock.execute("BEGIN IMMEDIATE")
        await store.reserve(intent(NOW + 16))
        store.settle(outcome(NOW + 1))
        with pytest.raises(Unavailable, match="locked"):
            await store.attempts(NOW)
        assert store.problem == "" and store.depth == 3
        lock.execute("ROLLBACK")
        lock.close()
        assert await store.attempts(NOW) == [outcome(NOW), outcome(NOW + 1)]
        assert store.depth == 0
        store.settle(outcome(NOW + 16))


WRITER = """
import asyncio, sys
from pathlib import Path
from sophia.core.ids import IdGenerator
from sophia.core.rows import AttemptIntent
from stores import open_test_store

async def main():
    async with open_test_store(Path(sys.argv[1])) as store:
        ids = IdGenerator(lambda: 1, store.worker)
        async def reserve_all():
            while True:
                id = ids.next()
                await store.reserve(AttemptIntent(id, "k", "d", "m", "u", 1, 1))
                sys.stdout.write(f"{id}\\n")
                sys.stdout.flush()
                await asyncio.sleep(0)
        await asyncio.gather(*(reserve_all() for _ in range(8)))

asyncio.run(main())
"""


@pytest.mark.parametrize("acked", [1, 300])
def test_what_was_acknowledged_survives_a_kill(folder: Path, acked: int) -> None:
    paths = {"PYTHONPATH": ":".join(sys.path), "PATH": "/usr/bin:/bin"}
    child = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder)], stdout=subprocess.PIPE, env=paths
    )
    assert child.stdout is not None
    lines = [child.stdout.readline() for _ in range(acked)]
    child.kill()
    lines += child.stdout.read().splitlines(keepends=True)
    child.stdout.close()
    child.wait()
    promised = {int(line) for line in lines if line.endswith(b"\n")}
    stored = {each.attempt_id for each in left_open(folder)}
    database = load_sqlite().connect(str(folder / "sophia.db"))
    intact = database.execute("PRAGMA integrity_check").fetchone()
    database.close()
    assert len(promised) >= acked and promised <= stored and intact == ("ok",)


async def test_a_number_that_no_ledger_holds_costs_only_its_own_row(folder: Path) -> None:
    async with open_test_store(folder) as store:
        store.settle(outcome(NOW, cost=1))
        store.settle(outcome(NOW + 1, cost=2**63))
        store.settle(outcome(NOW + 2, cost=2**70))
        store.settle(outcome(NOW + 3, cost=3))
        assert [row.cost_nano for row in await store.attempts(NOW)] == [1, 3]
        with pytest.raises(Unavailable):
            await store.reserve(intent(NOW + 16, held=2**70))
        await store.reserve(intent(NOW + 32))
        assert await store.decision(NOW + 32) == intent(NOW + 32)
        store.settle(outcome(NOW + 32))


async def test_a_broken_ledger_does_not_keep_the_process_from_ending(folder: Path) -> None:
    """What the ledger did not take is in the journal, and taken at the next start."""
    other = load_sqlite().connect(str(folder / "sophia.db"), isolation_level=None)
    async with asyncio.timeout(15):
        async with open_test_store(folder) as store:
            other.execute("ALTER TABLE outcomes RENAME TO away")
            await store.reserve(intent(NOW, held=5))
            store.settle(outcome(NOW))
    other.execute("ALTER TABLE away RENAME TO outcomes")
    other.close()
    async with open_test_store(folder) as store:
        assert await store.attempts(NOW) == [outcome(NOW)]
        assert await store.account("k", DAY) == AccountRow("k", DAY, 7)


async def test_numbers_of_workers_are_apart_and_taken_again(folder: Path) -> None:
    async with open_test_store(folder) as first, open_test_store(folder) as second:
        assert {first.worker, second.worker} == {0, 1}
        assert find_worker(NOW) == 0
    slot = claim_slot(folder)
    assert slot.number == 0
    slot.release()


@pytest.mark.parametrize("went_down", [False, True])
async def test_leases_of_a_machine_that_went_down_stay_held(folder: Path, went_down: bool) -> None:
    """The last records of its journal may be lost, so that more may have been spent."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", LESSEE, str(folder), stdout=asyncio.subprocess.PIPE,
        env={"PYTHONPATH": ":".join(sys.path), "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    assert child.stdout is not None
    granted = int(await child.stdout.readline())
    child.kill()
    await child.communicate()
    if went_down:
        (folder / "journal/0/lock").write_text("another start of the machine")
    async with open_test_store(folder) as store:
        held = granted if went_down else 0
        assert granted > 0 and await store.account("k", DAY) == AccountRow("k", DAY, 0, held)


LESSEE = """
import asyncio, sys
from pathlib import Path
from sophia.core.rows import LeaseRequest
from stores import open_test_store

async def main():
    async with open_test_store(Path(sys.argv[1])) as store:
        request = LeaseRequest(
            account="k", window="2026-11-23", limit=1000, need=9, idle=0, unit=9
        )
        print((await store.lease(request)).granted_nano, flush=True)
        await asyncio.sleep(60)

asyncio.run(main())
"""


async def test_a_ledger_of_an_earlier_release_is_migrated(folder: Path) -> None:
    """It gets the tables of a new one; its sums are right, and open attempts are closed."""
    path = folder / "sophia.db"
    tables = "SELECT name, sql FROM sqlite_master ORDER BY name"
    database = load_sqlite().connect(str(path), isolation_level=None)
    new = database.execute(tables).fetchall()
    database.execute("DROP INDEX held_outcomes")
    for table in ("accounts", "leases", "workers", "changes", "generations"):
        database.execute(f"DROP TABLE {table}")
    database.execute("ALTER TABLE outcomes DROP COLUMN held_nano")
    database.execute("ALTER TABLE intents DROP COLUMN expected_nano")
    database.execute("UPDATE alembic_version SET version_num = '0001'")
    for number, state in ((0, None), (16, "settled"), (32, "unknown"), (63, "settled")):
        values = (NOW + number, "k", DAY, "acme/m", "up", 100, 5)
        database.execute("INSERT INTO intents VALUES (?, ?, ?, ?, ?, ?, ?, NULL)", values)
        if state is not None:
            row = outcome(NOW + number, state, cost=20)  # type: ignore[arg-type]
            names = row.__struct_fields__[:-1]
            marks = ", ".join("?" * len(names))
            sql = f"INSERT INTO outcomes ({', '.join(names)}) VALUES ({marks})"
            database.execute(sql, [getattr(row, name) for name in names])
    migrate(path)
    normal = [(name, " ".join((sql or "").split())) for name, sql in database.execute(tables)]
    assert {name for name, _ in normal} == {name for name, _ in new}
    database.close()
    async with open_test_store(folder) as store:
        held = {each.outcome.attempt_id: each.outcome for each in await store.held_attempts()}
        assert held.keys() == {NOW, NOW + 32}
        assert (held[NOW].failure, held[NOW].held_nano) == ("crash", 100)
        assert await store.account("k", DAY) == AccountRow("k", DAY, 40, 120)
        assert await store.account("sophia:judge", DAY) == AccountRow("sophia:judge", DAY, 20)
        await store.reserve(replace(intent(NOW + 160), expected_nano=7))
        assert await store.decision(NOW + 160) == replace(intent(NOW + 160), expected_nano=7)
        store.settle(outcome(NOW + 160))


def test_a_change_of_the_tables_needs_a_migration() -> None:
    """Rows define the tables of new databases; older ones get a change by a migration alone."""
    columns = [
        f"{column} {column.type} {column.nullable} {column.primary_key}"
        for table in metadata.sorted_tables
        for column in table.columns
    ]
    digest = hashlib.sha256("\n".join(columns).encode()).hexdigest()
    assert digest[:16] == "32cb63f3b4ae39bc", "add a migration, then put the new digest here"
