"""Names of the tables and their columns, for statements that hold in every database."""

from collections.abc import Mapping
from typing import Any

from sophia.core.rows import (
    AccountRow,
    AttemptIntent,
    AttemptOutcome,
    Feedback,
    GenerationNote,
    KeyRow,
    LessonRow,
)

TABLES: Mapping[Any, str] = {
    AttemptIntent: "intents",
    GenerationNote: "generations",
    AttemptOutcome: "outcomes",
    AccountRow: "accounts",
    KeyRow: "keys",
    Feedback: "feedback",
    LessonRow: "lessons",
}
COLUMNS = {
    kind: ", ".join(f"{table}.{name}" for name in kind.__struct_fields__)
    for kind, table in TABLES.items()
}


def insert_sql(kind: Any) -> str:
    """Return the statement that inserts a row of `kind`."""
    # Quoted, since `window` is a word of SQL.
    names = ", ".join(f'"{name}"' for name in kind.__struct_fields__)
    marks = ", ".join("?" for _ in kind.__struct_fields__)
    # Names come from our own row types, never from a request.
    return f"INSERT INTO {TABLES[kind]} ({names}) VALUES ({marks})"  # noqa: S608
