"""A database as the store needs it; its statements hold in SQLite and in PostgreSQL alike."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar

from sophia.core.errors import Unavailable

Rows = list[tuple[Any, ...]]
_Result = TypeVar("_Result")
_TRIES = 5


class Connection(Protocol):
    """A transaction's connection; parameters are question marks.

    `row_lock` ends a SELECT of rows that no other transaction may change before this one has ended.
    """

    row_lock: str

    def execute(self, sql: str, values: Sequence[object] = (), /) -> Any: ...
    def executemany(self, sql: str, rows: Sequence[Sequence[object]], /) -> Any: ...
    def notify(self) -> None: ...


class Database(Protocol):
    """A database, used from any thread.

    `read`, `snapshot` and `transaction` raise Unavailable when the database cannot be used, and
    RowFault for a row that no database of this schema takes. All reads of a `snapshot` see one
    moment. `has_changed` never waits. `is_shared` is whether processes of several machines use it,
    and `now_ms` an expression for its own clock, in milliseconds since 1970. `round_trips` counts
    the questions to it: statements over a network, else transactions and queries outside of one.
    """

    is_shared: bool
    round_trips: int
    now_ms: str

    def read(self, sql: str, values: Sequence[object] = ()) -> Rows: ...
    def snapshot(self) -> AbstractContextManager[Connection]: ...
    def transaction(self) -> AbstractContextManager[Connection]: ...
    def has_changed(self) -> bool: ...
    def close(self) -> None: ...


class RowFault(Exception):
    """A row cannot be written, in whatever state the database is."""


class ConcurrentChange(Unavailable):
    """Another process changed the same rows at the same time; the transaction can be repeated."""


def run_transaction(database: Database, work: Callable[[Connection], _Result]) -> _Result:
    """Return the result of `work` in one transaction, repeated after concurrent changes.

    Raises Unavailable or RowFault.
    """
    for _ in range(_TRIES - 1):
        try:
            with database.transaction() as connection:
                return work(connection)
        except ConcurrentChange:
            continue
    with database.transaction() as connection:
        return work(connection)
