"""Records of a journal as changes of the tables, in one transaction and as often as one likes."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet

from msgspec.structs import astuple

from sophia.adapters.store.databases.database import ConcurrentChange, Connection
from sophia.adapters.store.journaling.files import Ended, Noted, Record, Reserved
from sophia.adapters.store.statements import COLUMNS, insert_sql
from sophia.core.ids import find_worker
from sophia.core.rows import MODEL_ACCOUNT_PREFIX, AttemptIntent, AttemptOutcome, GenerationNote

_MOST_VALUES = 500
"""Values in one statement."""

_INSERT_INTENT = insert_sql(AttemptIntent) + " ON CONFLICT DO NOTHING"
_INSERT_NOTE = insert_sql(GenerationNote) + " ON CONFLICT DO NOTHING"
_INSERT_OUTCOME = insert_sql(AttemptOutcome) + " ON CONFLICT DO NOTHING"
_REPLACE_OUTCOME = (
    insert_sql(AttemptOutcome)
    + " ON CONFLICT (attempt_id) DO UPDATE SET "
    + ", ".join(f'"{name}" = excluded."{name}"' for name in AttemptOutcome.__struct_fields__[1:])
)
_MOVE_MONEY = (
    'INSERT INTO accounts (account, "window", spent_nano, held_nano, leased_nano)'
    ' VALUES (?, ?, ?, ?, ?) ON CONFLICT (account, "window") DO UPDATE SET'
    " spent_nano = accounts.spent_nano + excluded.spent_nano,"
    " held_nano = accounts.held_nano + excluded.held_nano,"
    " leased_nano = accounts.leased_nano + excluded.leased_nano"
)
_USE_LEASE = (
    "UPDATE leases SET amount_nano = amount_nano - ?"
    " WHERE worker = ? AND account = ? AND leases.window = ?"
)


def apply_records(
    connection: Connection, records: Iterable[Record], *, has_leases: bool = True
) -> None:
    """Write records that are new, and move their money; those that were written change nothing.

    `has_leases` is whether their worker still has its leases. Raises ConcurrentChange.
    """
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
        _apply_outcomes(connection, ended, has_leases=has_leases)


def _apply_outcomes(connection: Connection, ended: Sequence[Ended], *, has_leases: bool) -> None:
    current = _read_outcomes(connection, [record.outcome.attempt_id for record in ended])
    known = frozenset(current)
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
            if old is None and has_leases and account in record.leased:
                amount = new.spent_nano + new.held_nano
                money[2] -= amount
                used[find_worker(new.attempt_id), account, new.window] += amount
    if changed:
        _write_outcomes(connection, changed, known)
        # Sorted, so that two processes wait for each other in one order only.
        connection.executemany(_MOVE_MONEY, [(*key, *moved[key]) for key in sorted(moved)])
    if used:
        connection.executemany(_USE_LEASE, [(used[key], *key) for key in sorted(used)])


def _write_outcomes(
    connection: Connection, changed: Mapping[int, AttemptOutcome], known: AbstractSet[int]
) -> None:
    """Write outcomes; rows that are `known` are locked. Raises ConcurrentChange."""
    new = [astuple(row) for id, row in sorted(changed.items()) if id not in known]
    replaced = [astuple(row) for id, row in sorted(changed.items()) if id in known]
    if new and connection.executemany(_INSERT_OUTCOME, new).rowcount < len(new):
        raise ConcurrentChange("Another process has written the same outcome.")
    if replaced:
        connection.executemany(_REPLACE_OUTCOME, replaced)


def _read_outcomes(connection: Connection, ids: Sequence[int]) -> dict[int, AttemptOutcome]:
    found = {}
    for start in range(0, len(ids), _MOST_VALUES):
        some = ids[start : start + _MOST_VALUES]
        marks = ", ".join("?" * len(some))
        # Names come from our own row types, never from a request.
        sql = f"SELECT {COLUMNS[AttemptOutcome]} FROM outcomes WHERE attempt_id IN ({marks})"  # noqa: S608
        for row in connection.execute(sql + connection.row_lock, some).fetchall():
            found[row[0]] = AttemptOutcome(*row)
    return found
