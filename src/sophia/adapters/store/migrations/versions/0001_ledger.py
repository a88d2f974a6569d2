"""Ledger, keys and feedback."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the first tables."""
    op.create_table(
        "keys",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("digest", sa.LargeBinary, nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("scope", sa.String, nullable=False),
        sa.Column("daily_budget_nano", sa.BigInteger),
        sa.Column("per_request_nano", sa.BigInteger),
        sa.Column("created_ms", sa.BigInteger, nullable=False),
        sa.Column("revoked_ms", sa.BigInteger),
        sa.Column("explores", sa.Boolean, nullable=False, server_default="1"),
    )
    op.create_table(
        "intents",
        sa.Column("attempt_id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("key_id", sa.String, nullable=False),
        sa.Column("window", sa.String, nullable=False),
        sa.Column("model", sa.String, nullable=False),
        sa.Column("upstream", sa.String, nullable=False),
        sa.Column("held_nano", sa.BigInteger, nullable=False),
        sa.Column("at_ms", sa.BigInteger, nullable=False),
        sa.Column("plan", sa.LargeBinary),
    )
    op.create_table(
        "outcomes",
        sa.Column("attempt_id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("key_id", sa.String, nullable=False),
        sa.Column("window", sa.String, nullable=False),
        sa.Column("model", sa.String, nullable=False),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("cost_nano", sa.BigInteger, nullable=False),
        sa.Column("cost_source", sa.String, nullable=False),
        sa.Column("estimate_nano", sa.BigInteger, nullable=False),
        sa.Column("prompt_tokens", sa.BigInteger, nullable=False),
        sa.Column("completion_tokens", sa.BigInteger, nullable=False),
        sa.Column("cached_tokens", sa.BigInteger, nullable=False),
        sa.Column("reasoning_tokens", sa.BigInteger, nullable=False),
        sa.Column("finish_reason", sa.String),
        sa.Column("failure", sa.String),
        sa.Column("generation_id", sa.String),
        sa.Column("provider", sa.String),
        sa.Column("first_content_ms", sa.Float),
        sa.Column("total_ms", sa.Float, nullable=False),
        sa.Column("at_ms", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "feedback",
        sa.Column("idempotency_key", sa.String, primary_key=True),
        sa.Column("decision_id", sa.BigInteger, nullable=False),
        sa.Column("key_id", sa.String, nullable=False),
        sa.Column("score", sa.Float),
        sa.Column("label", sa.String),
        sa.Column("comment_chars", sa.BigInteger, nullable=False),
        sa.Column("preferred_model", sa.String),
        sa.Column("channel", sa.String, nullable=False),
        sa.Column("at_ms", sa.BigInteger, nullable=False),
    )
    op.create_index("feedback_by_decision", "feedback", ["decision_id"])
    op.create_table(
        "lessons",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("decision_id", sa.BigInteger, nullable=False),
        sa.Column("key_id", sa.String, nullable=False),
        sa.Column("arm", sa.String, nullable=False),
        sa.Column("quality", sa.Float, nullable=False),
        sa.Column("weight", sa.Float, nullable=False),
        sa.Column("policy", sa.String, nullable=False),
        sa.Column("at_ms", sa.BigInteger, nullable=False),
        sa.Column("first", sa.Boolean, nullable=False),
        sa.Column("channel", sa.String, nullable=False),
    )


def downgrade() -> None:
    """Drop everything that `upgrade` made."""
    for table in ("lessons", "feedback", "outcomes", "intents", "keys"):
        op.drop_table(table)
