"""Durability of the SQLite store: restarts, kills, locks and broken ledgers."""

import asyncio
import hashlib
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest
from msgspec.structs import replace
from store_rows import DAY, NOW, intent, outcome

from sophia.adapters.store.driver import load_sqlite
from sophia.adapters.store.schema import metadata
from sophia.adapters.store.sqlite import SqliteStore
from sophia.adapters.store.writer import GroupCommit
from sophia.core.errors import SophiaError, Unavailable
from sophia.core.rows import AttemptIntent


async def test_settled_rows_are_there_after_a_restart(folder: Path) -> None:
    store = SqliteStore(folder / "sophia.db")
    await store.reserve(intent(NOW))
    store.settle(outcome(NOW))
    await store.close()
    again = SqliteStore(folder / "sophia.db")
    assert await again.attempts(NOW) == [outcome(NOW)]
    assert await again.open_holds() == []
    await again.close()


async def test_an_invalid_row_does_not_stop_the_ledger(folder: Path) -> None:
    """A clock that stepped back over a restart can make an id a second time."""
    store = SqliteStore(folder / "sophia.db")
    await store.reserve(intent(NOW))
    async with asyncio.timeout(3):
        with pytest.raises(SophiaError):
            await store.reserve(intent(NOW, held=999))
        store.settle(outcome(NOW + 1))
        await store.reserve(intent(NOW + 16))
        assert await store.attempts(NOW) == [outcome(NOW + 1)]
        first = await store.decision(NOW)
        assert first is not None and first.held_nano == 100
    await store.close()


async def test_a_locked_ledger_refuses_but_loses_nothing(folder: Path) -> None:
    store = SqliteStore(folder / "sophia.db")
    lock = load_sqlite().connect(str(folder / "sophia.db"), isolation_level=None)
    store._writer._connection.execute("PRAGMA busy_timeout = 100")
    store.settle(outcome(NOW))
    lock.execute("BEGIN IMMEDIATE")
    waiting = asyncio.ensure_future(store.reserve(intent(NOW + 16)))
    store.settle(outcome(NOW + 1))
    with pytest.raises(Unavailable):
        await asyncio.wait_for(waiting, 8)
    lock.execute("ROLLBACK")
    lock.close()
    assert await store.attempts(NOW) == [outcome(NOW), outcome(NOW + 1)]
    await store.reserve(intent(NOW + 32))
    await store.close()


async def test_a_full_queue_refuses_and_recovers(folder: Path) -> None:
    writer = GroupCommit(folder / "sophia.db", limit=3)
    sql = "INSERT INTO keys (id, digest, name, scope, created_ms) VALUES (?, 'd', 'n', 's', 1)"
    lock = load_sqlite().connect(str(folder / "sophia.db"), isolation_level=None)
    lock.execute("BEGIN IMMEDIATE")
    taken = [writer.write(sql, (str(n),)) for n in range(3)]
    with pytest.raises(Unavailable, match="keep up"):
        writer.write(sql, ("x",))
    writer.defer(sql, ("deferred",))
    lock.execute("ROLLBACK")
    await asyncio.gather(*taken)
    await writer.flush()
    assert writer.depth == 0
    await writer.write(sql, ("y",))
    names = [row[0] for row in lock.execute("SELECT id FROM keys ORDER BY id")]
    lock.close()
    assert names == ["0", "1", "2", "deferred", "y"]
    await writer.close()


WRITER = """
import asyncio, sys
from pathlib import Path
from sophia.adapters.store.sqlite import SqliteStore
from sophia.core.rows import AttemptIntent

async def main():
    store = SqliteStore(Path(sys.argv[1]))
    async def reserve_all(lane):
        for number in range(100_000):
            id = (lane * 1_000_000 + number) * 16
            await store.reserve(AttemptIntent(id, "k", "d", "m", "u", 1, 1))
            sys.stdout.write(f"{id}\\n")
            sys.stdout.flush()
    await asyncio.gather(*map(reserve_all, range(8)))

asyncio.run(main())
"""


@pytest.mark.parametrize("acked", [1, 300])
def test_what_was_acknowledged_survives_a_kill(folder: Path, acked: int) -> None:
    path = folder / "sophia.db"
    child = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE)
    assert child.stdout is not None
    lines = [child.stdout.readline() for _ in range(acked)]
    child.kill()
    lines += child.stdout.read().splitlines(keepends=True)
    child.stdout.close()
    child.wait()
    promised = {int(line) for line in lines if line.endswith(b"\n")}
    database = load_sqlite().connect(str(path))
    stored = {row[0] for row in database.execute("SELECT attempt_id FROM intents")}
    intact = database.execute("PRAGMA integrity_check").fetchone()
    database.close()
    assert len(promised) >= acked and promised <= stored and intact == ("ok",)


async def test_a_number_that_no_ledger_holds_costs_only_its_own_row(folder: Path) -> None:
    store = SqliteStore(folder / "sophia.db")
    store.settle(outcome(NOW, cost=1))
    store.settle(outcome(NOW + 1, cost=2**63))
    store.settle(outcome(NOW + 2, cost=3))
    async with asyncio.timeout(3):
        # A write of the same batch may be refused once; its rows are kept all the same.
        with suppress(Unavailable):
            await store.attempts(NOW)
        assert [row.cost_nano for row in await store.attempts(NOW)] == [1, 3]
        with pytest.raises(SophiaError):
            await store.reserve(intent(NOW + 16, held=2**63))
        await store.reserve(intent(NOW + 32))
        assert await store.decision(NOW + 32) == intent(NOW + 32)
    await store.close()


async def test_a_ledger_that_cannot_be_written_refuses_at_once_and_recovers(tmp_path: Path) -> None:
    """A broken ledger refuses waiting writes and new ones, and blocks none of them."""
    path = tmp_path / "ledger.db"
    store = SqliteStore(path)
    other = load_sqlite().connect(str(path), isolation_level=None)
    other.execute("ALTER TABLE intents RENAME TO away")
    for number in range(3):
        with pytest.raises(Unavailable, match="cannot be written"):
            await asyncio.wait_for(
                store.reserve(
                    AttemptIntent(
                        attempt_id=NOW + 16 * number,
                        key_id="k",
                        window=DAY,
                        model="m",
                        upstream="up",
                        held_nano=1,
                        at_ms=1,
                    )
                ),
                2.0,
            )
    assert "intents" in store.problem
    other.execute("ALTER TABLE away RENAME TO intents")
    other.close()
    while store.problem:
        await asyncio.sleep(0.02)
    await store.reserve(
        AttemptIntent(
            attempt_id=NOW + 160,
            key_id="k",
            window=DAY,
            model="m",
            upstream="up",
            held_nano=1,
            at_ms=1,
        )
    )
    assert NOW + 160 in {hold.attempt_id for hold in await store.open_holds()}
    await store.close()


async def test_a_broken_ledger_does_not_keep_the_process_from_ending(tmp_path: Path) -> None:
    """An outcome that cannot be written counts as an open hold at the next start."""
    path = tmp_path / "ledger.db"
    store = SqliteStore(path)
    await store.reserve(intent(NOW, held=5))
    await store.close()
    other = load_sqlite().connect(str(path), isolation_level=None)
    other.execute("ALTER TABLE outcomes RENAME TO away")
    writer = GroupCommit(path, retry_delay_s=0.001)
    writer.defer("INSERT INTO outcomes (attempt_id) VALUES (?)", (NOW,))
    await asyncio.wait_for(writer.close(), 5.0)
    other.execute("ALTER TABLE away RENAME TO outcomes")
    other.close()
    again = SqliteStore(path)
    assert [hold.held_nano for hold in await again.open_holds()] == [5]
    await again.close()


async def test_a_ledger_of_an_earlier_release_is_migrated(folder: Path) -> None:
    """It gets the tables of a new one, and its intents without expected costs are read."""
    path = folder / "sophia.db"
    tables = "SELECT name, sql FROM sqlite_master WHERE name IN ('generations') ORDER BY name"
    columns = "SELECT name, type, \"notnull\", pk FROM pragma_table_info('intents')"
    database = load_sqlite().connect(str(path), isolation_level=None)
    new = [database.execute(sql).fetchall() for sql in (tables, columns)]
    database.execute("ALTER TABLE intents DROP COLUMN expected_nano")
    database.execute("DROP TABLE generations")
    database.execute("UPDATE alembic_version SET version_num = '0001'")
    values = (NOW, "k", DAY, "acme/m", "up", 100, 5)
    database.execute("INSERT INTO intents VALUES (?, ?, ?, ?, ?, ?, ?, NULL)", values)
    store = SqliteStore(path)
    store.note_generation(NOW, "gen-1")
    await store.attempts(NOW)
    (row,) = await store.open_attempts()
    await store.close()
    assert row.intent == replace(intent(NOW), plan=None) and row.generation_id == "gen-1"
    assert [database.execute(sql).fetchall() for sql in (tables, columns)] == new
    database.close()


def test_a_change_of_the_tables_needs_a_migration() -> None:
    """Rows define the tables of new databases; older ones get a change by a migration alone."""
    columns = [
        f"{column} {column.type} {column.nullable} {column.primary_key}"
        for table in metadata.sorted_tables
        for column in table.columns
    ]
    digest = hashlib.sha256("\n".join(columns).encode()).hexdigest()
    assert digest[:16] == "dc1aab8a908806fa", "add a migration, then put the new digest here"


async def test_a_writer_that_hangs_refuses_until_it_answers(folder: Path) -> None:
    """As on a disk that does not answer: nothing waits for it, and nothing is lost."""
    writer = GroupCommit(folder / "sophia.db", silence_s=1)
    released = threading.Event()
    writer._connection.create_function("hang", 0, released.wait)
    sql = "INSERT INTO keys (id, digest, name, scope, created_ms) VALUES (?, 'd', 'n', 's', 1)"
    writer.defer(sql.replace("'d'", "hang()"), ("hung",))
    with pytest.raises(Unavailable, match="not answered"):
        await asyncio.wait_for(writer.write(sql, ("kept",)), 5)
    with pytest.raises(Unavailable, match="not answered"):
        writer.write(sql, ("refused",))
    writer.defer(sql, ("deferred",))
    released.set()
    await writer.flush()
    assert writer.problem == "" and writer.depth == 0
    await writer.close()
    database = load_sqlite().connect(str(folder / "sophia.db"))
    assert {row[0] for row in database.execute("SELECT id FROM keys")} == {
        "hung",
        "kept",
        "deferred",
    }
    database.close()


async def test_a_row_that_comes_twice_at_once_is_kept_once(folder: Path) -> None:
    writer = GroupCommit(folder / "sophia.db")
    sql = "INSERT INTO keys (id, digest, name, scope, created_ms) VALUES (?, 'd', 'n', 's', 1)"
    async with asyncio.timeout(3):
        twice = [writer.write(sql, ("k",)), writer.write(sql, ("k",))]
        await asyncio.gather(*twice, return_exceptions=True)
        await writer.flush()
    assert writer.depth == 0
    await writer.close()
