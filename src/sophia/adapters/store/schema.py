"""The tables of the store as SQLAlchemy Core metadata, with the columns of their row types.

`intents`, `generations` and `outcomes` are append-only and keyed by attempt id, which grows with
time. A change of a row needs a migration.
"""

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
                _TYPES[kind] if columns or kind is not int else Integer,
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
_add_table("outcomes", AttemptOutcome)
_add_table("lessons", LessonRow)
Index("feedback_by_decision", _add_table("feedback", Feedback).c.decision_id)
