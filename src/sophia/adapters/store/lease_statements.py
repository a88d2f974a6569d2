"""Parts of budgets that workers lease: `spent + held + leased <= limit` at every commit."""

from sophia.adapters.store.databases.database import Connection
from sophia.core.rows import Lease, LeaseRequest
from sophia.tenants.budget import choose_grant

_OPEN_ACCOUNT = 'INSERT INTO accounts (account, "window") VALUES (?, ?) ON CONFLICT DO NOTHING'
_READ_ACCOUNT = (
    "SELECT spent_nano, held_nano, leased_nano, called FROM accounts"
    " WHERE account = ? AND accounts.window = ?"
)
_READ_LEASES = (
    "SELECT worker, amount_nano, heard FROM leases WHERE account = ? AND leases.window = ?"
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


def change_lease(connection: Connection, worker: int, request: LeaseRequest) -> Lease:
    """Grant as much as is free, and call on the other workers for the rest of the need."""
    key = request.account, request.window
    spent, held, leased, called = _lock_account(connection, key)
    leases = connection.execute(_READ_LEASES, key).fetchall()
    others = [row for row in leases if row[0] != worker]
    holders = 1 + sum(amount > 0 for _, amount, _ in others)
    free = request.limit - spent - held - leased
    granted = choose_grant(request, free, holders)
    call = request.call
    if granted < request.need and not call and any(amount > 0 for _, amount, _ in others):
        call = called = called + 1
        bump(connection, "leases")
    connection.execute(_CHANGE_LEASED, (granted, called, *key))
    connection.execute(_CHANGE_LEASE, (worker, *key, granted, called))
    unheard = sum(amount for _, amount, heard in others if amount > 0 and heard < call)
    return Lease(granted, free - granted, holders, unheard, call)


def _lock_account(connection: Connection, key: tuple[str, str]) -> tuple[int, int, int, int]:
    """Return the money of an account, which this transaction alone may change now."""
    sql = _READ_ACCOUNT + connection.row_lock
    rows = connection.execute(sql, key).fetchall()
    if not rows:
        connection.execute(_OPEN_ACCOUNT, key)
        rows = connection.execute(sql, key).fetchall()
    money: tuple[int, int, int, int] = rows[0]
    return money


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
