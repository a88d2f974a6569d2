"""Expand: amounts held for outcomes, accounts with their sums, leases, workers, changes."""

from alembic import op
from sqlalchemy import BigInteger, Column, Integer, String, text

revision = "0003"
down_revision = "0002"

_CLOSE_OPEN_ATTEMPTS = """
INSERT INTO outcomes (attempt_id, key_id, "window", model, state, cost_nano, cost_source,
  estimate_nano, prompt_tokens, completion_tokens, cached_tokens, reasoning_tokens, failure,
  generation_id, total_ms, at_ms)
SELECT i.attempt_id, i.key_id, i."window", i.model, 'unknown', {probable}, 'estimated', {probable},
  0, 0, 0, 0, 'crash', g.generation_id, 0.0, i.at_ms
FROM intents i LEFT JOIN generations g ON g.attempt_id = i.attempt_id
WHERE NOT EXISTS (SELECT 1 FROM outcomes o WHERE o.attempt_id = i.attempt_id)
"""
_SUM_UP_MODELS = """
INSERT INTO accounts (account, "window", spent_nano)
SELECT 'model:' || model, '', SUM(cost_nano) FROM outcomes GROUP BY model
"""
_PROBABLE = """
CASE WHEN i.expected_nano < i.held_nano THEN i.expected_nano ELSE i.held_nano END
"""
_SUM_UP = """
INSERT INTO accounts (account, "window", spent_nano, held_nano)
SELECT {account}, "window", SUM(CASE WHEN state = 'unknown' THEN 0 ELSE cost_nano END),
  SUM(held_nano) FROM outcomes WHERE {condition} GROUP BY "window"
"""


def upgrade() -> None:
    """Add the tables, and the sums of the ledger's rows; attempts left open are closed."""
    op.add_column("outcomes", _nano("held_nano"))
    op.create_table(
        "accounts",
        Column("account", String, primary_key=True),
        Column("window", String, primary_key=True),
        _nano("spent_nano"),
        _nano("held_nano"),
        _nano("leased_nano"),
        _nano("called"),
    )
    op.create_table(
        "leases",
        Column("worker", Integer, primary_key=True, autoincrement=False),
        Column("account", String, primary_key=True),
        Column("window", String, primary_key=True),
        _nano("amount_nano"),
        _nano("heard"),
    )
    op.create_table(
        "workers",
        Column("number", Integer, primary_key=True, autoincrement=False),
        Column("token", String, nullable=False),
        Column("seen_ms", BigInteger, nullable=False),
    )
    op.create_table("changes", Column("topic", String, primary_key=True), _nano("sequence"))
    op.execute(_CLOSE_OPEN_ATTEMPTS.format(probable=_PROBABLE))
    op.execute("UPDATE outcomes SET held_nano = cost_nano WHERE state = 'unknown'")
    op.execute(_SUM_UP.format(account="key_id", condition="1 = 1") + ", key_id")
    op.execute(_SUM_UP.format(account="'sophia:judge'", condition="(attempt_id & 15) = 15"))
    op.execute(_SUM_UP_MODELS)
    held = text("held_nano > 0 OR state = 'unknown'")
    op.create_index(
        "held_outcomes", "outcomes", ["attempt_id"], sqlite_where=held, postgresql_where=held
    )


def _nano(name: str) -> Column[int]:
    return Column(name, BigInteger, nullable=False, server_default="0")
