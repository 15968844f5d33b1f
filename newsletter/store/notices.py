"""The outbox of mails to editors: rows in, rows out. ``notices`` sends them."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sqlalchemy import func, select, update

from newsletter.model import NOT_ALLOWED, NoticeState
from newsletter.store.letters import LEASE, free
from newsletter.store.schema import notice

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy import Connection


@dataclass(frozen=True, slots=True)
class Notice:
    """One row, as far as whoever sends it needs it."""

    id: int
    delivery: bytes
    address: str = field(repr=False)
    subject: str
    text: str
    created_at: datetime
    tries: int  # before this one


@dataclass(frozen=True, slots=True)
class Outbox:
    """How many mails to editors have not left, for ``status``."""

    waiting: int
    gave_up: int  # since the moment that was asked for
    why: str  # of one that waits, in codes and our own words


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


def told(conn: Connection, prefix: str) -> int:
    """How many different keys that begin so there are: the number of the last one, where keys are numbered."""
    same = notice.c.key.startswith(prefix, autoescape=True)
    return int(conn.scalar(select(func.count(notice.c.key.distinct())).where(same)) or 0)


def due(conn: Connection, now: datetime) -> bool:
    """Whether ``claim`` would find one."""
    return conn.execute(select(notice.c.id).where(free(notice, now)).limit(1)).first() is not None


def claim(conn: Connection, now: datetime) -> Notice | None:
    """Takes the next notice that is due, for ``LEASE``; no other process gets it meanwhile."""
    columns = (
        notice.c.id,
        notice.c.delivery,
        notice.c.address,
        notice.c.subject,
        notice.c.text,
        notice.c.created_at,
        notice.c.tries,
    )
    row = conn.execute(select(*columns).where(free(notice, now)).order_by(notice.c.id).limit(1)).first()
    if row is None:
        return None
    mine = update(notice).where(notice.c.id == row.id)
    conn.execute(mine.values(leased_until=now + LEASE, tries=notice.c.tries + 1))
    return Notice(**{**row._mapping, "delivery": bytes(row.delivery)})


def settle(conn: Connection, notice_id: int, state: NoticeState, now: datetime, reason: str = "") -> None:
    """It is done with. One that was sent stays so: whoever was slow with a second try knows less."""
    done = {"state": state, "settled_at": now, "leased_until": None, "not_before": None, "reason": reason}
    unsent = (notice.c.id == notice_id, notice.c.state != NoticeState.SENT)
    conn.execute(update(notice).where(*unsent).values(done))


def postpone(conn: Connection, claimed: Notice, until: datetime, reason: str) -> None:
    """It was not taken, or nobody knows: it is tried again. Nothing, if another process has it by now."""
    later = {"not_before": until, "leased_until": None, "reason": reason}
    mine = (
        notice.c.id == claimed.id,
        notice.c.tries == claimed.tries + 1,
        notice.c.state == NoticeState.WAITING,
    )
    conn.execute(update(notice).where(*mine).values(later))


def outbox(conn: Connection, since: datetime) -> Outbox:
    """What has not left: all that waits, and what was given up since then, but for whom the allowlist leaves out."""
    waiting, why = conn.execute(
        select(func.count(), func.coalesce(func.max(notice.c.reason), "")).where(
            notice.c.state == NoticeState.WAITING
        )
    ).one()
    failed = (notice.c.state == NoticeState.GAVE_UP, notice.c.settled_at >= since)
    gave_up = conn.scalar(select(func.count()).where(*failed, notice.c.reason != NOT_ALLOWED))
    return Outbox(waiting, gave_up or 0, why)
