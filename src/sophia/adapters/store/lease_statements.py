"""Parts of budgets that workers lease: `spent + held + leased <= limit` at every commit."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from sophia.adapters.store.databases.database import Connection
from sophia.core.rows import Lease, LeaseRequest
from sophia.tenants.budget import choose_grant

_Key = tuple[str, str]

_OPEN_ACCOUNT = 'INSERT INTO accounts (account, "window") VALUES (?, ?) ON CONFLICT DO NOTHING'
# Sorted, so that two processes lock rows in one order only.
_READ_ACCOUNTS = (
    "SELECT account, accounts.window, spent_nano + held_nano + leased_nano, called FROM accounts"
    " WHERE (account, accounts.window) IN (VALUES {}) ORDER BY account, accounts.window"
)
_READ_LEASES = (
    "SELECT account, leases.window, amount_nano, heard FROM leases"
    " WHERE (account, leases.window) IN (VALUES {}) AND worker != ? AND amount_nano > 0"
)
_CHANGE_LEASE = (
    'INSERT INTO leases (worker, account, "window", amount_nano, heard) VALUES (?, ?, ?, ?, ?)'
    ' ON CONFLICT (worker, account, "window") DO UPDATE SET'
    " amount_nano = leases.amount_nano + excluded.amount_nano"
)
_CHANGE_LEASED = (
    "UPDATE accounts SET leased_nano = leased_nano + ?, called = ?"
    " WHERE account = ? AND accounts.window = ?"
)
CALLS_SQL = (
    "SELECT a.account, a.window, a.called FROM leases l JOIN accounts a"
    " ON a.account = l.account AND a.window = l.window WHERE l.worker = ? AND a.called > l.heard"
)


@dataclass(slots=True, kw_only=True)
class _Account:
    """An account, which this transaction alone may change now: what is spent, held and leased.

    `others` has the lease of each other worker, and the last call that it has answered.
    """

    taken: int
    called: int
    granted: int = 0
    has_called: bool = False
    others: list[tuple[int, int]] = field(default_factory=list)

    def grant(self, request: LeaseRequest) -> Lease:
        """Grant as much as is free, and call on the other workers for the rest of the need."""
        holders = 1 + len(self.others)
        free = request.limit - self.taken
        granted = choose_grant(request, free, holders)
        call = request.call
        if granted < request.need and not call and self.others:
            call = self.called = self.called + 1
            self.has_called = True
        self.taken += granted
        self.granted += granted
        unheard = sum(amount for amount, heard in self.others if heard < call)
        return Lease(granted, free - granted, holders, unheard, call)


def change_leases(
    connection: Connection, worker: int, requests: Sequence[LeaseRequest]
) -> list[Lease]:
    """Grant what is asked for, in the order of the requests."""
    keys = sorted({(each.account, each.window) for each in requests})
    accounts = _lock_accounts(connection, worker, keys)
    leases = [accounts[each.account, each.window].grant(each) for each in requests]
    changed = [(key, accounts[key]) for key in keys]
    connection.executemany(
        _CHANGE_LEASED, [(account.granted, account.called, *key) for key, account in changed]
    )
    connection.executemany(
        _CHANGE_LEASE, [(worker, *key, account.granted, account.called) for key, account in changed]
    )
    if any(account.has_called for account in accounts.values()):
        # Last: all workers write this row, and who waits for it must not have what others wait for.
        bump(connection, "leases")
    return leases


def _lock_accounts(
    connection: Connection, worker: int, keys: Sequence[_Key]
) -> dict[_Key, _Account]:
    marks = ", ".join(["(?, ?)"] * len(keys))
    values = [part for key in keys for part in key]
    sql = _READ_ACCOUNTS.format(marks) + connection.row_lock
    rows = connection.execute(sql, values).fetchall()
    if len(rows) < len(keys):
        known = {(account, window) for account, window, *_ in rows}
        connection.executemany(_OPEN_ACCOUNT, [key for key in keys if key not in known])
        rows = connection.execute(sql, values).fetchall()
    accounts = {(row[0], row[1]): _Account(taken=row[2], called=row[3]) for row in rows}
    for account, window, amount, heard in connection.execute(
        _READ_LEASES.format(marks), [*values, worker]
    ).fetchall():
        accounts[account, window].others.append((amount, heard))
    return accounts


def return_lease(  # noqa: PLR0913 - a row of the table, and what changes in it
    connection: Connection, worker: int, account: str, window: str, amount: int, heard: int
) -> None:
    """Give a part of a lease back, after a call or for want of use."""
    # The account first, as everywhere, so that no two processes wait for each other.
    connection.execute(
        "UPDATE accounts SET leased_nano = leased_nano - ?"
        " WHERE account = ? AND accounts.window = ?",
        (amount, account, window),
    )
    connection.execute(
        "UPDATE leases SET amount_nano = amount_nano - ?, heard = CASE WHEN heard > ? THEN heard"
        " ELSE ? END WHERE worker = ? AND account = ? AND leases.window = ?",
        (amount, heard, heard, worker, account, window),
    )


def end_leases(connection: Connection, worker: int, *, as_held: bool) -> int:
    """End all leases of a dead worker; return their sum.

    They are free again, or stay `held` where a part of the journal may be lost.
    """
    sql = "SELECT account, leases.window, amount_nano FROM leases WHERE worker = ? ORDER BY 1, 2"
    rows = connection.execute(sql, (worker,)).fetchall()
    for account, window, amount in rows:
        connection.execute(
            "UPDATE accounts SET leased_nano = leased_nano - ?, held_nano = held_nano + ?"
            " WHERE account = ? AND accounts.window = ?",
            (amount, max(amount, 0) if as_held else 0, account, window),
        )
    connection.execute("DELETE FROM leases WHERE worker = ?", (worker,))
    return sum(max(amount, 0) for *_, amount in rows)


def bump(connection: Connection, topic: str) -> None:
    """Let all workers notice that something of `topic` has changed."""
    connection.execute(
        "INSERT INTO changes (topic, sequence) VALUES (?, 1) ON CONFLICT (topic)"
        " DO UPDATE SET sequence = changes.sequence + 1",
        (topic,),
    )
    connection.notify()
