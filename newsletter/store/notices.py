"""The outbox of mails to editors: rows in, rows out. ``notices`` sends them."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from sqlalchemy import select

from newsletter.model import NoticeState
from newsletter.store.schema import notice

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy import Connection


def queue(
    conn: Connection, key: str, editors: Sequence[str], *, subject: str, text: str, now: datetime
) -> bool:
    """Tells each editor once what ``key`` is about; False, and nothing done, when all of them were told before."""
    told = set(conn.scalars(select(notice.c.address).where(notice.c.key == key)))
    new = [
        {
            "key": key,
            "address": address,
            "delivery": secrets.token_bytes(16),
            "subject": subject,
            "text": text,
            "created_at": now,
            "state": NoticeState.WAITING,
            "tries": 0,
            "reason": "",
        }
        for address in editors
        if address not in told
    ]
    if new:
        conn.execute(notice.insert(), new)
    return bool(new)
