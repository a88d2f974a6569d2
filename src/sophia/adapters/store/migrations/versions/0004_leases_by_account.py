"""Expand: an index by which the leases of one account are found."""

from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add the index."""
    op.create_index("leases_by_account", "leases", ["account", "window"])
