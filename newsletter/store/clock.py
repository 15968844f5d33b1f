"""The database server's own clock."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import func, select

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection


def server_time(conn: Connection) -> datetime | None:
    """What it says now, aware; None for SQLite, which has none but ours."""
    if conn.dialect.name != "postgresql":
        return None
    return conn.execute(select(func.clock_timestamp())).scalar_one()  # type: ignore[no-any-return]
