"""Leases of many accounts: granted together, each as if it were alone."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any

import pytest

from sophia.adapters.clock import SystemClock
from sophia.adapters.store.databases.database import Connection
from sophia.adapters.store.databases.sqlite import SqliteDatabase
from sophia.adapters.store.lease_statements import change_leases
from sophia.adapters.store.store import SqlStore
from sophia.core.rows import LeaseRequest
from sophia.jobs.recover_attempts import start_worker
from store_rows import DAY
from stores import open_test_database


class Counted:
    """A database that counts its transactions."""

    def __init__(self, folder: Path) -> None:
        self._database: Any = open_test_database(folder, wait_seconds=0.5)
        self.transactions = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._database, name)

    def transaction(self) -> AbstractContextManager[Connection]:
        self.transactions += 1
        transaction: AbstractContextManager[Connection] = self._database.transaction()
        return transaction


@pytest.fixture
async def counted(any_folder: Path) -> AsyncIterator[tuple[SqlStore, Counted]]:
    database = Counted(any_folder)
    store = SqlStore(database)
    await start_worker(store, SystemClock(), any_folder, 0.05)
    yield store, database
    await store.close()


def request(account: str, need: int, limit: int = 1000) -> LeaseRequest:
    return LeaseRequest(account=account, window=DAY, limit=limit, need=need, idle=0, unit=1)


async def test_leases_of_many_accounts_take_few_transactions(
    counted: tuple[SqlStore, Counted],
) -> None:
    store, database = counted
    await store.lease(request("5", 5))
    before = database.transactions
    accounts = [str(number) for number in range(60, 0, -1)]
    leases = await asyncio.gather(*(store.lease(request(each, 10)) for each in accounts))
    assert database.transactions - before <= 2
    assert {lease.granted_nano for lease in leases} == {125, 109}
    rows = {row.account: row.leased_nano for row in await store.accounts(DAY)}
    assert rows.pop("5") == 125 + 109 and set(rows.values()) == {125} and len(rows) == 59


async def test_two_requests_for_one_account_do_not_get_the_same_money(
    counted: tuple[SqlStore, Counted],
) -> None:
    store, _ = counted
    asked = [request("k", 300, limit=500), request("k", 300, limit=500), request("k", 200, 500)]
    leases = await asyncio.gather(*(store.lease(each) for each in asked))
    assert [lease.granted_nano for lease in leases] == [300, 0, 200]
    assert (await store.account("k", DAY)).leased_nano == 500


async def test_an_impossible_request_costs_only_itself(counted: tuple[SqlStore, Counted]) -> None:
    store, _ = counted
    asked = [request("a", 10), request("b", 2**70, limit=2**80), request("c", 10)]
    results = await asyncio.gather(*map(store.lease, asked), return_exceptions=True)
    assert [type(each).__name__ for each in results] == ["Lease", "RowFault", "Lease"]


def test_a_lease_reads_no_leases_of_other_accounts(folder: Path) -> None:
    """With ten thousand accounts each lease would read all of them, else."""
    statements: list[str] = []
    with closing(SqliteDatabase(folder / "sophia.db")) as database:
        with database.transaction() as connection:
            database._writer.set_trace_callback(statements.append)
            change_leases(connection, 0, [request("a", 10), request("b", 10)])
            database._writer.set_trace_callback(None)
        reads = [each for each in statements if each.startswith("SELECT")]
        assert len(reads) == 3
        for read in reads:
            plan = [row[-1] for row in database.read("EXPLAIN QUERY PLAN " + read)]
            assert any(line.startswith("SEARCH") for line in plan), plan
            assert not any(line.startswith("SCAN") and "leases" in line for line in plan), plan
