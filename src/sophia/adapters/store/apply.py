"""Records of a journal as changes of the tables, in one transaction and as often as one likes."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from msgspec.structs import astuple

from sophia.adapters.store.database import Connection
from sophia.adapters.store.journaling.files import Ended, Noted, Record, Reserved
from sophia.adapters.store.statements import COLUMNS, insert_sql
from sophia.core.ids import find_worker
from sophia.core.rows import MODEL_ACCOUNT_PREFIX, AttemptIntent, AttemptOutcome, GenerationNote

_MOST_VALUES = 500
"""Values in one statement."""

_INSERT_INTENT = insert_sql(AttemptIntent) + " ON CONFLICT DO NOTHING"
_INSERT_NOTE = insert_sql(GenerationNote) + " ON CONFLICT DO NOTHING"
_WRITE_OUTCOME = (
    insert_sql(AttemptOutcome)
    + " ON CONFLICT (attempt_id) DO UPDATE SET "
    + ", ".join(f"{name} = excluded.{name}" for name in AttemptOutcome.__struct_fields__[1:])
)
_MOVE_MONEY = (
    "INSERT INTO accounts (account, window, spent_nano, held_nano, leased_nano)"
    " VALUES (?, ?, ?, ?, ?) ON CONFLICT (account, window) DO UPDATE SET"
    " spent_nano = accounts.spent_nano + excluded.spent_nano,"
    " held_nano = accounts.held_nano + excluded.held_nano,"
    " leased_nano = accounts.leased_nano + excluded.leased_nano"
)
_USE_LEASE = (
    "UPDATE leases SET amount_nano = amount_nano - ?"
    " WHERE worker = ? AND account = ? AND window = ?"
)


def apply_records(connection: Connection, records: Iterable[Record]) -> None:
    """Write records that are new, and move their money; those that were written change nothing."""
    intents, notes, ended = [], [], []
    for record in records:
        match record:
            case Reserved(intent):
                intents.append(astuple(intent))
            case Noted(note):
                notes.append(astuple(note))
            case Ended():
                ended.append(record)
    if intents:
        connection.executemany(_INSERT_INTENT, intents)
    if notes:
        connection.executemany(_INSERT_NOTE, notes)
    if ended:
        _apply_outcomes(connection, ended)


def _apply_outcomes(connection: Connection, ended: Sequence[Ended]) -> None:
    current = _read_outcomes(connection, [record.outcome.attempt_id for record in ended])
    changed: dict[int, AttemptOutcome] = {}
    moved: defaultdict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0, 0])
    used: defaultdict[tuple[int, str, str], int] = defaultdict(int)
    for record in ended:
        new = record.outcome
        old = current.get(new.attempt_id)
        if old is not None and not old.gives_way_to(new):
            continue
        current[new.attempt_id] = changed[new.attempt_id] = new
        model = moved[MODEL_ACCOUNT_PREFIX + new.model, ""]
        model[0] += new.cost_nano - (old.cost_nano if old else 0)
        for account in new.accounts:
            money = moved[account, new.window]
            money[0] += new.spent_nano - (old.spent_nano if old else 0)
            money[1] += new.held_nano - (old.held_nano if old else 0)
            if old is None and account in record.leased:
                amount = new.spent_nano + new.held_nano
                money[2] -= amount
                used[find_worker(new.attempt_id), account, new.window] += amount
    if changed:
        connection.executemany(_WRITE_OUTCOME, [astuple(row) for row in changed.values()])
        # Sorted, so that two processes wait for each other in one order only.
        connection.executemany(_MOVE_MONEY, [(*key, *moved[key]) for key in sorted(moved)])
    if used:
        connection.executemany(_USE_LEASE, [(used[key], *key) for key in sorted(used)])


def _read_outcomes(connection: Connection, ids: Sequence[int]) -> dict[int, AttemptOutcome]:
    found = {}
    for start in range(0, len(ids), _MOST_VALUES):
        some = ids[start : start + _MOST_VALUES]
        marks = ", ".join("?" * len(some))
        # Names come from our own row types, never from a request.
        sql = f"SELECT {COLUMNS[AttemptOutcome]} FROM outcomes WHERE attempt_id IN ({marks})"  # noqa: S608
        for row in connection.execute(sql, some).fetchall():
            found[row[0]] = AttemptOutcome(*row)
    return found
