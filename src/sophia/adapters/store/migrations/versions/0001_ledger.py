"""Baseline: a new database gets every table from `schema.metadata` and is stamped at the head."""

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Change nothing: databases at this revision have the tables of the first release."""
