"""Journals, leases and holds that dead processes left, for `sophia doctor`; nothing is changed."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from sophia.adapters.store.databases.address import StoreAddress
from sophia.adapters.store.databases.database import Connection, Database
from sophia.adapters.store.journaling.files import decode_records, list_segments, segment_path
from sophia.adapters.store.journaling.numbers import LOST_SECONDS, read_token
from sophia.adapters.store.journaling.slots import JOURNALS_FOLDER, is_slot_used
from sophia.core.ids import JUDGE_ATTEMPT, MAX_ATTEMPTS, extract_timestamp_ms
from sophia.core.rows import JUDGE_ACCOUNT


@dataclass(frozen=True, slots=True)
class LeftJournal:
    """The files of a dead worker: their whole records, all bytes, and those of no whole record."""

    worker: int
    records: int
    size: int
    unreadable: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftLease:
    """A lease of a worker that does not run.

    `key` is the name of the account's key where it has one; `unseen_s` is the time since another
    machine's worker has shown itself, None for one of this data folder.
    """

    worker: int
    account: str
    key: str
    window: str
    nano: int
    unseen_s: float | None


@dataclass(frozen=True, slots=True)
class LeftHold:
    """An amount that stays held for a day because a part of a journal may be lost."""

    account: str
    key: str
    nano: int


@dataclass(frozen=True, slots=True)
class Leftovers:
    """The leases and holds in the ledger, and the time of its newest attempt, 0 without any."""

    leases: Sequence[LeftLease]
    holds: Sequence[LeftHold]
    newest_ms: int


def list_left_journals(data: Path) -> Iterator[LeftJournal]:
    """Yield the journals in a data folder that no running process writes."""
    for folder in sorted((data / JOURNALS_FOLDER).glob("*")):
        if not folder.name.isdigit() or is_slot_used(folder):
            continue
        # A running Sophia may apply and remove them meanwhile.
        with suppress(FileNotFoundError):
            paths = [segment_path(folder, number) for number in list_segments(folder)]
            if contents := [path.read_bytes() for path in paths]:
                yield _measure(int(folder.name), contents)


def _measure(worker: int, contents: Sequence[bytes]) -> LeftJournal:
    ends = [[end for _, end in decode_records(content)] for content in contents]
    size, whole = sum(map(len, contents)), sum(max(one, default=0) for one in ends)
    return LeftJournal(worker, sum(map(len, ends)), size, size - whole)


def find_leftovers(address: StoreAddress, data: Path, today: str) -> Leftovers:
    """Return what the ledger has of dead workers; it has the current schema. Raises Unavailable."""
    with closing(address.open_reader()) as database, database.snapshot() as connection:
        names = dict(connection.execute("SELECT id, name FROM keys").fetchall())
        leases = list(_find_leases(connection, database, data, names))
        holds = list(_find_holds(connection, today, names))
        (newest,) = connection.execute("SELECT MAX(attempt_id) FROM intents").fetchone()
    return Leftovers(leases, holds, extract_timestamp_ms(newest or 0))


def _find_leases(
    connection: Connection, database: Database, data: Path, names: dict[str, str]
) -> Iterator[LeftLease]:
    sql = f"SELECT number, token, {database.now_ms} - seen_ms FROM workers"  # noqa: S608
    workers = {row[0]: row[1:] for row in connection.execute(sql).fetchall()}
    sql = (
        "SELECT worker, account, leases.window, amount_nano FROM leases WHERE amount_nano > 0"
        " ORDER BY 1, 2, 3"
    )
    for worker, account, window, nano in connection.execute(sql).fetchall():
        token, unseen_ms = workers.get(worker, ("", 0))
        folder = data / JOURNALS_FOLDER / str(worker)
        if not database.is_shared or token == read_token(folder):
            if is_slot_used(folder):
                continue
            unseen = None
        elif token and unseen_ms < LOST_SECONDS * 1000:
            continue
        else:
            unseen = unseen_ms / 1000
        yield LeftLease(
            worker=worker,
            account=account,
            key=names.get(account, ""),
            window=window,
            nano=nano,
            unseen_s=unseen,
        )


def _find_holds(connection: Connection, today: str, names: dict[str, str]) -> Iterator[LeftHold]:
    """Yield what accounts hold beyond the attempts of unknown cost."""
    sql = (
        "SELECT key_id, attempt_id & ?, SUM(held_nano) FROM outcomes"
        " WHERE held_nano > 0 AND outcomes.window = ? GROUP BY 1, 2"
    )
    known: defaultdict[str, int] = defaultdict(int)
    for key, attempt, nano in connection.execute(sql, (MAX_ATTEMPTS, today)).fetchall():
        known[key] += nano
        if attempt == JUDGE_ATTEMPT:
            known[JUDGE_ACCOUNT] += nano
    sql = "SELECT account, held_nano FROM accounts WHERE accounts.window = ? ORDER BY 1"
    for account, nano in connection.execute(sql, (today,)).fetchall():
        if nano > known[account]:
            yield LeftHold(account, names.get(account, ""), nano - known[account])
