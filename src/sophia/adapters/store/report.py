"""Usage and cost reports from the ledger, read-only and without a running Sophia."""

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import Literal

from sophia.adapters.store.databases.address import StoreAddress
from sophia.adapters.store.databases.database import Connection
from sophia.adapters.store.driver import load_sqlite
from sophia.adapters.store.migrate import HEAD_REVISION
from sophia.core.errors import Unavailable
from sophia.core.ids import JUDGE_ATTEMPT, MAX_ATTEMPTS
from sophia.core.rows import CHECK_FAILED_PREFIX, RUBRIC_FINISH

GroupBy = Literal["model", "key", "day"]

_GROUP_COLUMNS: dict[GroupBy, str] = {"model": "model", "key": "key_id", "day": "window"}
_USAGE_COLUMNS = (
    *("name", "requests", "attempts", "failures", "prompt_tokens", "completion_tokens"),
    "cost_nano",
)
# An attempt's id is its request's with a number in the low four bits.
_USAGE_SQL = """
SELECT o.{column}, COUNT(DISTINCT o.attempt_id & ~?), COUNT(*),
  SUM(CASE WHEN o.failure IS NOT NULL AND o.failure != 'client_gone' THEN 1 ELSE 0 END),
  SUM(o.prompt_tokens), SUM(o.completion_tokens),
  SUM(CASE WHEN o.state != 'unknown' THEN o.cost_nano ELSE 0 END)
FROM outcomes o WHERE o.window >= ? GROUP BY 1
"""
_OPEN_HOLDS_SQL = """
SELECT i.{column}, COUNT(*), SUM(COALESCE(o.held_nano, i.held_nano))
FROM intents i LEFT JOIN outcomes o USING (attempt_id)
WHERE i.window >= ? AND (o.attempt_id IS NULL OR o.held_nano > 0 OR o.state = 'unknown') GROUP BY 1
"""
# The attempt whose answer the caller got, as `find_served_outcome` finds it.
_SERVED_SQL = """
SELECT COALESCE(SUM(prompt_tokens), 0), COALESCE(SUM(completion_tokens), 0) FROM (
  SELECT prompt_tokens, completion_tokens, ROW_NUMBER() OVER (
    PARTITION BY attempt_id & ~? ORDER BY failure IS NULL DESC,
      COALESCE(failure LIKE ?, FALSE) DESC, attempt_id DESC) AS place
  FROM outcomes WHERE outcomes.window >= ? AND attempt_id & ? != ?
    AND finish_reason IS DISTINCT FROM ?
    AND (failure IS NULL OR failure = 'client_gone' OR failure LIKE ?)) AS served
WHERE place = 1
"""


class LedgerUnreadable(Exception):
    """The ledger cannot be read; the message says why."""


class LedgerDamaged(LedgerUnreadable):
    """The ledger's file is damaged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageTotals:
    """Usage of one model, key or day; money in nano-dollars.

    `failures` counts failed attempts, without callers that hung up. `open_holds` are attempts that
    may have been billed and are not settled: `held_nano` stays charged to their keys until then.
    """

    name: str
    requests: int = 0
    attempts: int = 0
    failures: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_nano: int = 0
    open_holds: int = 0
    held_nano: int = 0


@dataclass(frozen=True, slots=True)
class UsageReport:
    """Usage by group and by day, and the names of keys by id.

    `served_tokens` are the prompt and completion tokens of the answers that callers got: one
    attempt of each request, and no judge's.
    """

    rows: Sequence[UsageTotals]
    daily: Sequence[UsageTotals]
    key_names: dict[str, str]
    served_tokens: tuple[int, int]


def read_usage(address: StoreAddress, group_by: GroupBy, since: str) -> UsageReport | None:
    """Return the usage since the UTC day `since`; None when the ledger is of another release.

    Raises LedgerUnreadable when it cannot be read.
    """
    if not is_ledger_current(address):
        return None
    # All queries see one moment of the ledger.
    with _open_snapshot(address) as connection:
        rows = _sum_by(connection, group_by, since)
        daily = rows if group_by == "day" else _sum_by(connection, "day", since)
        names = connection.execute("SELECT id, name FROM keys") if group_by == "key" else ()
        names = {str(id): str(name) for id, name in names}
        ids = (since, MAX_ATTEMPTS, JUDGE_ATTEMPT)
        failed_check = f"{CHECK_FAILED_PREFIX}%"
        values = (MAX_ATTEMPTS, failed_check, *ids, RUBRIC_FINISH, failed_check)
        (served,) = connection.execute(_SERVED_SQL, values).fetchall()
        return UsageReport(rows, daily, names, served)


def is_ledger_current(address: StoreAddress) -> bool:
    """Return whether the ledger is of this release. Raises LedgerUnreadable when it is damaged."""
    try:
        return address.revision() == HEAD_REVISION
    except load_sqlite().Error as error:
        raise LedgerUnreadable(str(error)) from error


def read_request_costs(address: StoreAddress, since: int) -> dict[int, int]:
    """Return the cost in nano-dollars of each request whose id is at least `since`, by id.

    Attempts without a known bill are left out, and so is the cost of judging.
    """
    with _open_snapshot(address) as connection:
        rows = connection.execute(
            "SELECT attempt_id & ~?, SUM(cost_nano) FROM outcomes"
            " WHERE attempt_id >= ? AND state != 'unknown' AND attempt_id & ? != ? GROUP BY 1",
            (MAX_ATTEMPTS, since, MAX_ATTEMPTS, JUDGE_ATTEMPT),
        )
        return {int(id): int(nano) for id, nano in rows}


@contextmanager
def _open_snapshot(address: StoreAddress) -> Iterator[Connection]:
    database = address.open_reader()
    with closing(database):
        try:
            with database.snapshot() as connection:
                yield connection
        except Unavailable as error:
            raise LedgerUnreadable(str(error.__cause__ or error)) from error


def _sum_by(connection: Connection, group_by: GroupBy, since: str) -> Sequence[UsageTotals]:
    """Return one row per group: days in their order, anything else by falling cost."""
    column = _GROUP_COLUMNS[group_by]
    rows = connection.execute(_USAGE_SQL.format(column=column), (MAX_ATTEMPTS, since)).fetchall()
    totals = {
        str(row[0]): UsageTotals(**dict(zip(_USAGE_COLUMNS, row, strict=True))) for row in rows
    }
    for name, count, nano in connection.execute(_OPEN_HOLDS_SQL.format(column=column), (since,)):
        known = totals.get(name, UsageTotals(name=name))
        totals[name] = replace(known, open_holds=count, held_nano=nano)
    if group_by == "day":
        return sorted(totals.values(), key=lambda row: row.name)
    return sorted(totals.values(), key=lambda row: (-row.cost_nano, row.name))
