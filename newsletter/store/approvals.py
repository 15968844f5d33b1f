"""Who said that these very bytes may go: rows in, rows out. ``approval`` decides which of them count."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import insert, select, update

from newsletter.model import Approval
from newsletter.store.schema import approval

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection, Row


def _from_row(row: Row[Any]) -> Approval:
    return Approval(
        id=row.id,
        issue=row.issue,
        list=row.audience,
        role=row.role,
        name=row.name,
        at=row.at,
        digest=row.digest,
        seal=row.seal,
        snapshot=row.snapshot,
        withdrawn_at=row.withdrawn_at,
    )


def add(conn: Connection, given: Approval) -> None:
    """A new row; its id is the database's to choose."""
    values = {
        "issue": given.issue,
        "audience": given.list,
        "role": given.role,
        "name": given.name,
        "at": given.at,
        "digest": given.digest,
        "seal": given.seal,
        "snapshot": given.snapshot,
    }
    conn.execute(insert(approval).values(values))


def of_issue(conn: Connection, issue: str) -> list[Approval]:
    """All that were ever given for an issue, to whichever list, oldest first."""
    rows = conn.execute(select(approval).where(approval.c.issue == issue).order_by(approval.c.id))
    return [_from_row(row) for row in rows]


def withdraw(conn: Connection, approval_id: int, now: datetime) -> bool:
    """Takes one back; False when it was taken back before."""
    where = (approval.c.id == approval_id, approval.c.withdrawn_at.is_(None))
    return conn.execute(update(approval).where(*where).values(withdrawn_at=now)).rowcount == 1
