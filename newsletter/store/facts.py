"""What the database knows of itself: small facts, a row of ``meta`` each. Rows only."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from sqlalchemy import delete, insert, select

from newsletter.store.schema import meta

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Connection


def every(conn: Connection) -> dict[str, str]:
    """All of them."""
    return {row.key: row.value for row in conn.execute(select(meta))}


def recall(conn: Connection, key: str) -> str:
    """What was remembered; empty if nothing was."""
    return conn.scalar(select(meta.c.value).where(meta.c.key == key)) or ""


def recall_moment(conn: Connection, key: str) -> datetime | None:
    """An instant that was remembered as ISO text."""
    text = recall(conn, key)
    return datetime.fromisoformat(text) if text else None


def remember(conn: Connection, said: Mapping[str, str]) -> None:
    """These, in place of what stood there."""
    conn.execute(delete(meta).where(meta.c.key.in_(list(said))))
    conn.execute(insert(meta), [{"key": key, "value": value} for key, value in said.items()])
