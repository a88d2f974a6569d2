"""What the ledger tells about money and tokens, by model, key or day; reading only."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from sophia.adapters.store.writer import connect
from sophia.core.ids import JUDGING

By = Literal["model", "key", "day"]
GROUPS: tuple[By, ...] = ("model", "key", "day")

_COLUMNS: dict[By, str] = {"model": "model", "key": "key_id", "day": "window"}
# An attempt's id is its request's with a number in the low four bits.
_USED = """
SELECT o.{column}, COUNT(DISTINCT o.attempt_id & ~15), COUNT(*),
  SUM(CASE WHEN o.failure IS NOT NULL AND o.failure != 'client_gone' THEN 1 ELSE 0 END),
  SUM(o.prompt_tokens), SUM(o.completion_tokens),
  SUM(CASE WHEN o.state != 'unknown' THEN o.cost_nano ELSE 0 END)
FROM outcomes o WHERE o.window >= ? GROUP BY 1
"""
_HELD = """
SELECT i.{column}, COUNT(*), SUM(i.held_nano)
FROM intents i LEFT JOIN outcomes o USING (attempt_id)
WHERE i.window >= ? AND (o.attempt_id IS NULL OR o.state = 'unknown') GROUP BY 1
"""


@dataclass(frozen=True, slots=True)
class Used:
    """What one model, key or day used; money in nano-dollars.

    `failures` counts attempts that failed, not callers who left. `open_holds` are attempts that
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


def used(path: Path, by: By, since: str) -> Sequence[Used]:
    """Return what was used since the UTC day `since`, the dearest first, days in their order.

    `path` is a database of this release; it is opened read-only.
    """
    column = _COLUMNS[by]
    connection = connect(path, read_only=True)
    try:
        # The two queries see one moment of the ledger.
        connection.execute("BEGIN")
        rows = connection.execute(_USED.format(column=column), (since,)).fetchall()
        held = connection.execute(_HELD.format(column=column), (since,)).fetchall()
    finally:
        connection.close()
    found = {str(row[0]): Used(*row) for row in rows}
    for name, count, nano in held:
        found[name] = replace(found.get(name, Used(name)), open_holds=count, held_nano=nano)
    if by == "day":
        return sorted(found.values(), key=lambda one: one.name)
    return sorted(found.values(), key=lambda one: (-one.cost_nano, one.name))


def bills(path: Path, since: int) -> dict[int, int]:
    """Return what each request cost whose id is at least `since`, in nano-dollars, by its id.

    Attempts whose bill is not known yet are left out, and so is what judging an answer later cost.
    """
    connection = connect(path, read_only=True)
    try:
        rows = connection.execute(
            "SELECT attempt_id & ~15, SUM(cost_nano) FROM outcomes"
            " WHERE attempt_id >= ? AND state != 'unknown' AND attempt_id & 15 != ? GROUP BY 1",
            (since, JUDGING),
        )
        return {int(id): int(nano) for id, nano in rows}
    finally:
        connection.close()


def key_names(path: Path) -> dict[str, str]:
    """Return the name of every key by its id."""
    connection = connect(path, read_only=True)
    try:
        return dict(connection.execute("SELECT id, name FROM keys").fetchall())
    finally:
        connection.close()
