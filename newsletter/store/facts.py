"""Small facts about the database itself, a row of ``meta`` each. Rows only."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from sqlalchemy import delete, insert, select

from newsletter.store.schema import meta

if TYPE_CHECKING:
    from sqlalchemy import Connection


def recall(conn: Connection, key: str) -> str:
    """What was remembered; empty if nothing was."""
    return conn.scalar(select(meta.c.value).where(meta.c.key == key)) or ""


def remember(conn: Connection, key: str, value: str) -> None:
    """In place of what was remembered before."""
    conn.execute(delete(meta).where(meta.c.key == key))
    conn.execute(insert(meta).values(key=key, value=value))


def recall_moment(conn: Connection, key: str) -> datetime | None:
    """An instant that was remembered as ISO text."""
    text = recall(conn, key)
    return datetime.fromisoformat(text) if text else None
