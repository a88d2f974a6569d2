"""The tables of the store as SQLAlchemy Core metadata, with the columns of their row types.

`intents`, `generations` and `outcomes` are append-only and keyed by attempt id, which grows with
time. `accounts` and `leases` are sums of money, `changes` says which other tables have changed,
`workers` has the numbers in use where several machines share the store. A change of a row needs a
migration.
"""

from functools import partial
from typing import Any, get_args, get_type_hints

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    text,
)

from sophia.core.rows import (
    AttemptIntent,
    AttemptOutcome,
    Feedback,
    GenerationNote,
    KeyRow,
    LessonRow,
)

_TYPES: dict[type, Any] = {
    int: BigInteger,
    float: Float,
    str: String,
    bytes: LargeBinary,
    bool: Boolean,
}

_ID = BigInteger().with_variant(Integer, "sqlite")
"""SQLite's tables are ordered by a key of type INTEGER, which has 64 bits there."""

metadata = MetaData()


def _add_table(name: str, row: type, **server_defaults: str) -> Table:
    """Add the table of `row`; the first field is the key, and `| None` allows NULL."""
    columns: list[Column[Any]] = []
    for field, hint in get_type_hints(row).items():
        kind, *others = get_args(hint) or (hint,)
        kind = str if isinstance(kind, str) else kind  # An alternative of a Literal.
        columns.append(
            Column(
                field,
                _TYPES[kind] if columns or kind is not int else _ID,
                primary_key=not columns,
                autoincrement=False,
                nullable=type(None) in others,
                server_default=server_defaults.get(field),
            )
        )
    return Table(name, metadata, *columns)


_add_table("keys", KeyRow, explores="1")
_add_table("intents", AttemptIntent)
_add_table("generations", GenerationNote)
_outcomes = _add_table("outcomes", AttemptOutcome, held_nano="0")
_held = text("held_nano > 0 OR state = 'unknown'")
Index("held_outcomes", _outcomes.c.attempt_id, sqlite_where=_held, postgresql_where=_held)
_add_table("lessons", LessonRow)
_nano = partial(Column, type_=BigInteger, nullable=False, server_default="0")
Table(
    "accounts",
    metadata,
    Column("account", String, primary_key=True),
    Column("window", String, primary_key=True),
    _nano("spent_nano"),
    _nano("held_nano"),
    _nano("leased_nano"),
    # The number of times that a worker has called on the others to give back what they do not use.
    _nano("called"),
)
_leases = Table(
    "leases",
    metadata,
    Column("worker", Integer, primary_key=True, autoincrement=False),
    Column("account", String, primary_key=True),
    Column("window", String, primary_key=True),
    _nano("amount_nano"),
    # The last such call that this worker has answered.
    _nano("heard"),
)
Index("leases_by_account", _leases.c.account, _leases.c.window)
Table(
    "workers",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=False),
    # Random, in the file of the number's folder on the machine that uses it.
    Column("token", String, nullable=False),
    Column("seen_ms", BigInteger, nullable=False),
)
Table("changes", metadata, Column("topic", String, primary_key=True), _nano("sequence"))
Index("feedback_by_decision", _add_table("feedback", Feedback).c.decision_id)
