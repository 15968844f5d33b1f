"""How fast copies may leave: a row for each limit, shared by all processes that send."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Forward only: going back means restoring the backup."""
    op.create_table(
        "allowance",
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("free_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("scope", name="pk_allowance"),
    )
