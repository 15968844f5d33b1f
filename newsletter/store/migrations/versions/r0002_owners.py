"""Who sends: a row for each sending process, so that several can share a campaign and the dead can be told apart."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Forward only: going back means restoring the backup."""
    op.create_table(
        "owner",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("campaign_id", sa.Integer()),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("way", sa.Text(), nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=False),
        sa.Column("seen_at", sa.BigInteger(), nullable=False),
        sa.Column("settled_at", sa.BigInteger()),
        sa.Column("ended_at", sa.BigInteger()),
        sa.ForeignKeyConstraint(["campaign_id"], ["campaign.id"], name="fk_owner_campaign_id"),
        sa.PrimaryKeyConstraint("id", name="pk_owner"),
    )
    op.add_column("campaign", sa.Column("owner", sa.Text()))
