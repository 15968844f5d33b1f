"""A campaign's canary: the deliveries with the smallest ids, which leave first. Rows only; ``sending`` decides.

Ids are random, so the sample is another one each month; by ``seq`` it would always be the oldest readers. While
``campaign.canary_last`` says how far the sample goes, all other rows are held back. It is cleared once and never set
again, so whoever has seen it cleared need not look any more, and every change here may be made twice.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, func, select, update

from newsletter.model import OPEN_STATES, CampaignState, DeliveryState
from newsletter.store.schema import Instant, campaign, delivery

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Connection

    from newsletter.limits import Canary


@dataclass(frozen=True, slots=True)
class Held:
    """A canary whose campaign holds the rest back, and what was said of it."""

    copies: int
    wait: timedelta
    until: datetime | None  # when the rest may leave; None until each of the sample has had a try
    answered_at: datetime | None  # the last of the sample's answers; None when none of it left
    accepted: int
    refused: int
    unknown: int
    again: int  # not taken yet; they have a later try
    untried: int  # in hand, or not tried

    @property
    def failures(self) -> int:
        """Copies of which it is known that they were not accepted, or that nobody knows."""
        return self.refused + self.unknown


def chosen(conn: Connection, campaign_id: int, first: Canary | None, rows: int) -> dict[str, Any]:
    """What the campaign's row has to say of its canary, of so many rows; a look at all of them, so before the lock."""
    copies = first.copies(rows) if first else 0
    if not first or not copies:
        return {"canary_copies": None, "canary_wait": None, "canary_last": None, "canary_until": None}
    ids = select(delivery.c.id).where(delivery.c.campaign_id == campaign_id).order_by(delivery.c.id)
    last = conn.execute(ids.offset(copies - 1).limit(1)).scalar_one()
    wait = int(first.wait.total_seconds())
    return {
        "canary_copies": copies,
        "canary_wait": wait,
        "canary_last": bytes(last),
        "canary_until": None,
    }


def may_leave(conn: Connection, campaign_id: int) -> tuple[ColumnElement[bool], ...]:
    """The condition that a row of the sample meets; none when nothing is held back."""
    last = conn.scalar(select(campaign.c.canary_last).where(campaign.c.id == campaign_id))
    return () if last is None else (delivery.c.id <= bytes(last),)


def find(conn: Connection, campaign_id: int) -> Held | None:
    """None when nothing is held back. Looks at all rows of the campaign: 0.3 s for a million, without a lock."""
    sample = may_leave(conn, campaign_id)
    if not sample:
        return None
    columns = select(campaign.c.canary_copies, campaign.c.canary_wait, campaign.c.canary_until)
    known = conn.execute(columns.where(campaign.c.id == campaign_id)).one()
    rows = _answers(conn, and_(delivery.c.campaign_id == campaign_id, *sample))
    again = (DeliveryState.PENDING.value, True)
    count = Counter[str]()
    for (state, waits), (number, _) in rows.items():
        count[state] += number if (state, waits) != again else 0
    return Held(
        copies=known.canary_copies,
        wait=timedelta(seconds=known.canary_wait),
        until=known.canary_until,
        answered_at=max((latest for _, latest in rows.values() if latest), default=None),
        accepted=count[DeliveryState.ACCEPTED] + count[DeliveryState.CLOSED],
        refused=count[DeliveryState.REFUSED],
        unknown=count[DeliveryState.UNKNOWN],
        again=rows.get(again, (0, None))[0],
        untried=sum(count[state] for state in OPEN_STATES),
    )


def _answers(
    conn: Connection, sample: ColumnElement[bool]
) -> dict[tuple[str, bool], tuple[int, datetime | None]]:
    """State, and whether it waits for a later try → how many, and the latest answer among them."""
    waits = delivery.c.not_before.is_not(None)
    latest = func.max(delivery.c.settled_at, type_=Instant())
    query = select(delivery.c.state, waits, func.count(), latest).where(sample)
    rows = conn.execute(query.group_by(delivery.c.state, waits))
    return {(state, bool(later)): (number, moment) for state, later, number, moment in rows}


def _holds(campaign_id: int) -> ColumnElement[bool]:
    running = campaign.c.state == CampaignState.RUNNING
    return and_(campaign.c.id == campaign_id, running, campaign.c.canary_last.is_not(None))


def wait(conn: Connection, campaign_id: int, until: datetime) -> bool:
    """Each of the sample has had its try: the rest leaves then. False when another process has said so before."""
    first = update(campaign).where(_holds(campaign_id), campaign.c.canary_until.is_(None))
    return conn.execute(first.values(canary_until=until)).rowcount == 1


def release(conn: Connection, campaign_id: int) -> bool:
    """From now on nothing is held back. False when nothing was."""
    return conn.execute(update(campaign).where(_holds(campaign_id)).values(canary_last=None)).rowcount == 1


def fail(conn: Connection, campaign_id: int, reason: str) -> bool:
    """``running`` → ``paused``; who resumes has decided that the rest leaves, so nothing is held back any more."""
    paused = {"state": CampaignState.PAUSED, "reason": reason, "canary_last": None}
    return conn.execute(update(campaign).where(_holds(campaign_id)).values(paused)).rowcount == 1
