"""Expand: expected costs of intents, and the upstreams' ids of running attempts."""

from alembic import op
from sqlalchemy import BigInteger, Column, Integer, String

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the column and the table; a process that ends leaves the ids for the next one."""
    op.add_column("intents", Column("expected_nano", BigInteger, nullable=True))
    op.create_table(
        "generations",
        Column("attempt_id", Integer, primary_key=True, autoincrement=False),
        Column("generation_id", String, nullable=False),
    )
