"""It goes out by itself: appointments, approvals, mails to editors, canaries, and which machine the database is on."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Forward only: going back means restoring the backup."""
    _campaign()
    _appointment()
    _approval()
    _notice()


def _campaign() -> None:
    for column in (
        sa.Column("appointment_id", sa.Integer()),
        sa.Column("override", sa.Text(), nullable=False, server_default=""),
        sa.Column("approvals", sa.JSON()),
        sa.Column("canary_copies", sa.Integer()),
        sa.Column("canary_wait", sa.Integer()),
        sa.Column("canary_last", sa.LargeBinary(16)),
        sa.Column("canary_until", sa.BigInteger()),
    ):
        op.add_column("campaign", column)
    op.create_index("uq_campaign_appointment_id", "campaign", ["appointment_id"], unique=True)


def _appointment() -> None:
    op.create_table(
        "appointment",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("period", sa.Text(), nullable=False),
        sa.Column("audience", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("issue", sa.Text()),
        sa.Column("due_at", sa.BigInteger(), nullable=False),
        sa.Column("options", sa.JSON(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("changed_at", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("state IN ('waiting', 'held', 'dropped', 'cancelled')", name="state"),
        sa.CheckConstraint("kind IN ('live', 'rehearsal', 'correction')", name="kind"),
        sa.PrimaryKeyConstraint("id", name="pk_appointment"),
        sa.UniqueConstraint("period", "audience", "kind", name="uq_appointment_period_audience_kind"),
        sqlite_autoincrement=True,
    )


def _approval() -> None:
    op.create_table(
        "approval",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("issue", sa.Text(), nullable=False),
        sa.Column("audience", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("seal", sa.JSON(), nullable=False),
        sa.Column("snapshot", sa.JSON(), nullable=False),
        sa.Column("withdrawn_at", sa.BigInteger()),
        sa.PrimaryKeyConstraint("id", name="pk_approval"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_approval_issue_audience", "approval", ["issue", "audience"])


def _notice() -> None:
    number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "notice",
        sa.Column("id", number, nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("delivery", sa.LargeBinary(16), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("not_before", sa.BigInteger()),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("leased_until", sa.BigInteger()),
        sa.Column("settled_at", sa.BigInteger()),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.CheckConstraint("state IN ('waiting', 'sent', 'gave-up')", name="state"),
        sa.PrimaryKeyConstraint("id", name="pk_notice"),
        sa.UniqueConstraint("delivery", name="uq_notice_delivery"),
        sa.UniqueConstraint("key", "address", name="uq_notice_key_address"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_notice_state_id", "notice", ["state", "id"])
