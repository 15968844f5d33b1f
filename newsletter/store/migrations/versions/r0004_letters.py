"""Readers come by themselves: letters, the wordings they agreed to, limits on asking, and ids that nobody can guess."""

from __future__ import annotations

import secrets

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

LOWEST, HIGHEST = 1 << 40, 1 << 48


def upgrade() -> None:
    """Forward only: going back means restoring the backup."""
    op.add_column("consent", sa.Column("form", sa.Text(), nullable=False, server_default=""))
    op.create_table(
        "wording",
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("language", sa.Text(), nullable=False),
        sa.Column("first_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("version", name="pk_wording"),
    )
    op.create_table(
        "throttle",
        sa.Column("scope", sa.LargeBinary(16), nullable=False),
        sa.Column("free_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("scope", name="pk_throttle"),
    )
    _letter()
    _number_subscriptions_anew()


def _letter() -> None:
    number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "letter",
        sa.Column("id", number, nullable=False),
        sa.Column("delivery", sa.LargeBinary(16), nullable=False),
        sa.Column("purpose", sa.Text(), nullable=False),
        sa.Column("list_id", sa.Integer(), nullable=False),
        sa.Column("subscription_id", number),
        sa.Column("address", sa.Text()),
        sa.Column("address_key", sa.LargeBinary(16)),
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("name", "form", "source", "wording")),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("not_before", sa.BigInteger()),
        sa.Column("tries", sa.Integer(), nullable=False),
        *(sa.Column(name, sa.BigInteger()) for name in ("leased_until", "settled_at", "used_at")),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_letter"),
        sa.UniqueConstraint("delivery", name="uq_letter_delivery"),
        sa.ForeignKeyConstraint(["list_id"], ["list.id"], name="fk_letter_list_id"),
        sa.ForeignKeyConstraint(["subscription_id"], ["subscription.id"], name="fk_letter_subscription_id"),
        sa.CheckConstraint("purpose IN ('subscribe', 'access', 'change')", name="purpose"),
        sa.CheckConstraint("state IN ('waiting', 'sent', 'gave-up', 'dropped')", name="state"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_letter_state_id", "letter", ["state", "id"])
    op.create_index("ix_letter_subscription_id", "letter", ["subscription_id"])
    op.create_index("ix_letter_address_key", "letter", ["address_key"])


def _number_subscriptions_anew() -> None:
    """The next subscription gets a number that no other database has given out.

    The signing keys may be older than the database (it was lost and made anew): if both counted from 1, a link in an
    old mail would be another person's.
    """
    start = LOWEST + secrets.randbelow(HIGHEST - LOWEST)
    if op.get_bind().dialect.name == "postgresql":
        op.execute(f"ALTER SEQUENCE subscription_id_seq RESTART WITH {start}")
        return
    op.execute("DELETE FROM sqlite_sequence WHERE name = 'subscription'")
    op.execute(f"INSERT INTO sqlite_sequence (name, seq) VALUES ('subscription', {start})")  # noqa: S608 - a number
