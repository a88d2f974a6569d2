"""A store on a PostgreSQL server: its restarts, several machines, and lost ones."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, closing
from pathlib import Path

import pytest
from msgspec.structs import replace

from postgres_server import PASSWORD, PostgresServer
from sophia.adapters.store.apply import apply_records
from sophia.adapters.store.databases.address import StoreAddress
from sophia.adapters.store.databases.database import Connection, run_transaction
from sophia.adapters.store.databases.postgres import PostgresDatabase
from sophia.adapters.store.journaling import numbers
from sophia.adapters.store.journaling.files import Ended
from sophia.adapters.store.lease_statements import bump
from sophia.adapters.store.store import SqlStore
from sophia.core.errors import ConfigError, Unavailable
from sophia.core.ids import IdGenerator, find_worker
from sophia.core.rows import AccountRow, KeyRow, LeaseRequest
from sophia.jobs.recover_attempts import AttemptRecovery
from sophia.testing.clock import ManualClock
from store_rows import DAY, NOW, intent, outcome
from stores import open_test_store

NOW_MS = int(time.time() * 1000)


def request(need: int, limit: int = 1000) -> LeaseRequest:
    return LeaseRequest(account="k", window=DAY, limit=limit, need=need, idle=0, unit=1)


@pytest.fixture
async def machines(
    tmp_path: Path, postgres: PostgresServer
) -> AsyncIterator[tuple[SqlStore, SqlStore]]:
    """Two machines with a data folder each, which share a database."""
    url = postgres.create_database()
    async with AsyncExitStack() as stack:
        running = []
        for name in ("first", "second"):
            folder = tmp_path / name
            folder.mkdir()
            (folder / "store.url").write_text(url)
            running.append(await stack.enter_async_context(open_test_store(folder)))
        yield running[0], running[1]


def lose(store: SqlStore, by: SqlStore) -> None:
    """Let a worker be unseen for a minute, in which another one was in touch."""
    with store._database.transaction() as connection:
        sql = "UPDATE workers SET seen_ms = seen_ms - 60001 WHERE number = ?"
        connection.execute(sql, (store.worker,))
    by._numbers._in_touch_since -= numbers.LOST_SECONDS


async def retire(store: SqlStore) -> int:
    close = AttemptRecovery(store, ManualClock()).close
    return len(await store.retire_left_workers(close))


async def test_a_restart_of_the_server_loses_nothing(
    server_folder: Path, postgres: PostgresServer
) -> None:
    """Attempts go on while it is away, and are all there afterwards."""
    async with open_test_store(server_folder) as store:
        lease = await store.lease(request(500))
        ids = [NOW + 16 * number for number in range(60)]
        for number, id in enumerate(ids):
            if number == 20:
                postgres.stop()
            if number == 40:
                with pytest.raises(Unavailable, match="does not answer") as caught:
                    await store.lease(request(500))
                assert "127.0.0.1" not in caught.value.message, "callers get no address"
                postgres.start()
            await store.reserve(intent(id))
            store.settle(outcome(id, cost=1), ("k",))
            await asyncio.sleep(0.01)
        async with asyncio.timeout(10):
            while store.depth:
                await asyncio.sleep(0.05)
        account = await store.account("k", DAY)
        assert account == AccountRow("k", DAY, 60, 0, lease.granted_nano - 60)
        assert [len(await store.attempts(id)) for id in ids] == [1] * 60
        assert (await store.lease(request(100))).granted_nano >= 100
    async with open_test_store(server_folder) as store:
        assert await store.account("k", DAY) == AccountRow("k", DAY, 60)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (("s3cret", "s3cret-wrong"), "password authentication failed"),
        (("/test_", "/absent_"), "does not exist"),
        (("127.0.0.1:", "127.0.0.1:1"), "cannot be (used|read)"),
        (("s3cret", "s3cret?"), "cannot be read"),
        (("sophia:s3cret@", "sophia:s3cret/s3cret@"), "cannot be read"),
        (("127.0.0.1", "s3cret@127.0.0.1:s3cret"), "cannot be read"),
    ],
)
def test_an_address_that_is_wrong_is_explained_without_its_password(
    tmp_path: Path, postgres: PostgresServer, change: tuple[str, str], match: str
) -> None:
    url = postgres.create_database(empty=True).replace(*change)
    address = StoreAddress(tmp_path / "sophia.db", url)
    for use in (address.open, address.migrate, address.revision):
        with pytest.raises(ConfigError, match=match) as caught:
            use()
        assert PASSWORD not in str(caught.value) + str(address) + repr(address)
        assert "`store.url`" in str(caught.value)


def test_a_server_that_is_away_at_the_start_is_explained(
    tmp_path: Path, postgres: PostgresServer
) -> None:
    url = postgres.create_database()
    postgres.stop()
    try:
        with pytest.raises(ConfigError, match="Start the server"):
            StoreAddress(tmp_path / "sophia.db", url).open()
    finally:
        postgres.start()


def test_a_store_of_a_newer_release_is_refused(tmp_path: Path, postgres: PostgresServer) -> None:
    url = postgres.create_database()
    postgres.execute("UPDATE alembic_version SET version_num = '9999'", url.rpartition("/")[2])
    with pytest.raises(ConfigError, match=r"9999.*install the release"):
        StoreAddress(tmp_path / "sophia.db", url).open()


def test_replicas_that_start_at_once_create_the_tables_once(
    tmp_path: Path, postgres: PostgresServer
) -> None:
    address = StoreAddress(tmp_path / "sophia.db", postgres.create_database(empty=True))
    ready = threading.Barrier(6)

    def start(_: int) -> str | None:
        ready.wait()
        address.migrate()
        return address.revision()

    with ThreadPoolExecutor(6) as pool:
        assert set(pool.map(start, range(6))) == {"0004"}


def test_tables_of_an_earlier_schema_are_upgraded(tmp_path: Path, postgres: PostgresServer) -> None:
    """They get the tables and columns of new ones, and attempts left open are closed."""
    url = postgres.create_database()
    address, name = StoreAddress(tmp_path / "sophia.db", url), url.rpartition("/")[2]
    columns = (
        "SELECT string_agg(concat_ws(' ', table_name, column_name, data_type, is_nullable,"
        " column_default), ';' ORDER BY table_name, column_name)"
        " FROM information_schema.columns WHERE table_schema = 'public'"
    )
    new = postgres.execute(columns, name)
    postgres.execute(
        "DROP TABLE accounts, leases, workers, changes; ALTER TABLE outcomes DROP COLUMN held_nano;"
        "UPDATE alembic_version SET version_num = '0002';"
        f"INSERT INTO intents VALUES ({NOW}, 'k', '{DAY}', 'm', 'u', 100, 5, NULL, 30)",
        name,
    )
    address.migrate()
    assert postgres.execute(columns, name) == new
    with closing(address.open()) as database:
        rows = database.read("SELECT state, held_nano, failure FROM outcomes")
        assert rows == [("unknown", 30, "crash")]
        assert database.read("SELECT spent_nano, held_nano FROM accounts WHERE account = 'k'") == [
            (0, 30)
        ]


async def test_machines_that_start_at_once_get_numbers_of_their_own(
    tmp_path: Path, postgres: PostgresServer
) -> None:
    url = postgres.create_database()
    async with AsyncExitStack() as stack:

        async def start(number: int) -> int:
            folder = tmp_path / str(number)
            folder.mkdir()
            (folder / "store.url").write_text(url)
            return (await stack.enter_async_context(open_test_store(folder))).worker

        assert set(await asyncio.gather(*map(start, range(4)))) == {0, 1, 2, 3}
    assert postgres.execute("SELECT COUNT(*) FROM workers", url.rpartition("/")[2]) == (0,)


async def test_a_lost_worker_keeps_its_money_held(machines: tuple[SqlStore, SqlStore]) -> None:
    first, second = machines
    lease = await first.lease(request(600))
    id = IdGenerator(lambda: NOW_MS, first.worker).next()
    await first.reserve(replace(intent(id, held=40), key_id="k"))
    assert await first.decision(id) is not None
    assert await retire(second) == 0, "it beats"
    lose(first, second)
    assert await retire(second) == 1
    (row,) = await second.attempts(id)
    assert (row.state, row.failure, row.held_nano) == ("unknown", "crash", 40)
    lost = AccountRow("k", DAY, 0, lease.granted_nano + 40, 0)
    assert await second.account("k", DAY) == lost
    assert await retire(second) == 0
    assert await second.beat()


async def test_a_worker_that_was_taken_for_dead_takes_no_more_attempts(
    machines: tuple[SqlStore, SqlStore],
) -> None:
    """Its outcomes are written, and touch no lease of anybody."""
    first, second = machines
    lease = await first.lease(request(600))
    ids = IdGenerator(lambda: NOW_MS, first.worker)
    ended, late = ids.next(), ids.next()
    await first.reserve(intent(ended))
    await first.decision(ended)
    assert await first.beat()
    lose(first, second)
    await retire(second)
    assert not await first.beat()
    assert "taken" in first.problem or "took it for dead" in first.problem
    with pytest.raises(Unavailable, match="took it for dead"):
        await first.reserve(intent(late))
    with pytest.raises(Unavailable, match="took it for dead"):
        await first.lease(request(1))
    await first.return_lease("k", DAY, 5, 0)
    (first._own_journal.slot.folder / "token").unlink()
    assert not await first.beat(), "a lost token is nobody's"
    bill = outcome(ended, cost=8)
    first.settle(bill, ("k",))
    assert await first.attempts(ended) == [bill], "a bill replaces the guess"
    assert await second.account("k", DAY) == AccountRow("k", DAY, 8, lease.granted_nano, 0)


async def test_a_journal_of_a_lost_worker_is_applied_when_its_machine_is_back(
    tmp_path: Path, machines: tuple[SqlStore, SqlStore]
) -> None:
    """Its leases have ended by then: what it spent moves, and nothing else."""
    first, second = machines
    lease = await first.lease(request(100))
    ids = IdGenerator(lambda: NOW_MS, first.worker)
    first._own_journal._applier._closes_at = 0.0
    await first._own_journal._applier.close()
    settled, opened = ids.next(), ids.next()
    await first.reserve(intent(settled))
    first.settle(outcome(settled, cost=7), ("k",))
    await first.reserve(intent(opened, held=9))
    lose(first, second)
    assert await retire(second) == 0, "its journal was not applied"
    first._own_journal._journal.close()
    first._own_journal.slot.release()
    used = first._own_journal
    first._journal = None
    async with open_test_store(tmp_path / "first") as again:
        assert again.worker != used.slot.number
        assert [row.cost_nano for row in await again.attempts(settled)] == [7]
        (open_row,) = await again.attempts(opened)
        assert (open_row.state, open_row.held_nano) == ("unknown", 9)
        held = lease.granted_nano + 9
        assert await again.account("k", DAY) == AccountRow("k", DAY, 7, held, 0)


async def test_when_the_server_was_away_for_all_nobody_is_lost(
    machines: tuple[SqlStore, SqlStore],
) -> None:
    """All workers are unseen then, and live."""
    first, second = machines
    lose(first, second)
    second._numbers._beaten -= numbers.LATE_SECONDS + 1
    assert await second.beat()
    assert await retire(second) == 0
    assert await first.beat()


def test_two_processes_that_apply_one_outcome_move_its_money_once(postgres: PostgresServer) -> None:
    """The second one waits for the first, sees its row, and changes nothing."""
    url = postgres.create_database()
    record = Ended(outcome(NOW, cost=5))
    with closing(PostgresDatabase(url)) as one, closing(PostgresDatabase(url)) as two:
        with ThreadPoolExecutor(1) as pool:
            with one.transaction() as connection:
                apply_records(connection, [record])
                second = pool.submit(run_transaction, two, lambda to: apply_records(to, [record]))
                _wait_for_lock(postgres, url)
            second.result()
        assert one.read("SELECT spent_nano FROM accounts WHERE account = 'k'") == [(5,)]


def test_a_conflict_of_two_transactions_is_repeated(postgres: PostgresServer) -> None:
    """Each waits for a row of the other; the server ends one, which is made again."""
    url = postgres.create_database()
    both = threading.Barrier(2)
    tries = []

    def work(database: PostgresDatabase, *topics: str) -> None:
        def change(connection: Connection) -> None:
            tries.append(topics)
            bump(connection, topics[0])
            if len(tries) <= 2:
                both.wait(5)
            bump(connection, topics[1])

        run_transaction(database, change)

    with closing(PostgresDatabase(url)) as one, closing(PostgresDatabase(url)) as two:
        with ThreadPoolExecutor(2) as pool:
            works = [pool.submit(work, one, "a", "b"), pool.submit(work, two, "b", "a")]
        assert [each.result() for each in works] == [None, None]
        assert len(tries) == 3
        assert one.read("SELECT topic, sequence FROM changes ORDER BY 1") == [("a", 2), ("b", 2)]


def test_two_bills_for_one_guess_move_its_money_once(postgres: PostgresServer) -> None:
    url = postgres.create_database()
    guess = replace(outcome(NOW, cost=50), cost_source="estimated")
    bill = Ended(outcome(NOW, cost=7))
    with closing(PostgresDatabase(url)) as one, closing(PostgresDatabase(url)) as two:
        with one.transaction() as connection:
            apply_records(connection, [Ended(guess)])
        with ThreadPoolExecutor(1) as pool:
            with one.transaction() as connection:
                apply_records(connection, [bill])
                second = pool.submit(run_transaction, two, lambda to: apply_records(to, [bill]))
                _wait_for_lock(postgres, url)
            second.result()
        assert one.read("SELECT spent_nano FROM accounts WHERE account = 'k'") == [(7,)]


def _wait_for_lock(postgres: PostgresServer, url: str) -> None:
    """Wait until a process waits for another one's row."""
    name = url.rpartition("/")[2]
    sql = f"SELECT COUNT(*) FROM pg_stat_activity WHERE datname = '{name}' AND wait_event_type = 'Lock'"
    until = time.monotonic() + 5
    while postgres.execute(sql) == (0,):
        assert time.monotonic() < until, "nobody waits"
        time.sleep(0.01)


async def test_changes_of_other_machines_are_heard_at_once(
    machines: tuple[SqlStore, SqlStore],
) -> None:
    first, second = machines
    while await second.changed_topics():
        pass
    second._database._polled = time.monotonic() + 3600  # type: ignore[attr-defined]
    await asyncio.sleep(0.05)
    assert not await second.changed_topics()
    await first.add_key(
        KeyRow("id", b"d", "n", "inference", None, None, 1)  # type: ignore[call-arg]
    )
    async with asyncio.timeout(0.4):
        while "keys" not in await second.changed_topics():
            await asyncio.sleep(0.01)


async def test_text_with_a_zero_character_is_stored(server_folder: Path) -> None:
    """PostgreSQL's text has none; an upstream must not get its costs dropped by sending it."""
    async with open_test_store(server_folder) as store:
        store.settle(outcome(NOW, cost=3, generation="a\0b"))
        assert [row.generation_id for row in await store.attempts(NOW)] == ["a\ufffdb"]
        store.settle(outcome(NOW + 1, cost=2**63))
        store.settle(outcome(NOW + 2, cost=4))
        assert (await store.account("k", DAY)).spent_nano == 7
        assert find_worker(NOW) == 0
