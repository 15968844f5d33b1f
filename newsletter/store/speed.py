"""How fast copies leave or left, read from a few rows: counting a million each second would slow the sender down.

Rows are claimed in the order in which they were frozen, so the last accepted ones of a campaign are those with the
highest ``seq``, give or take what several lanes have in hand. That is an index read from its end.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from sqlalchemy import case, exists, func, select

from newsletter.model import OPEN_STATES, Campaign, CampaignState, DeliveryState
from newsletter.store import campaigns
from newsletter.store.schema import campaign, delivery, owner, subscriber

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from datetime import datetime

    from sqlalchemy import Connection

ROWS = 2_000
"""Rows that are looked at: ten milliseconds, and half a second of the fastest sender."""
SPAN = timedelta(seconds=10)
FEW = 20
"""Where fewer than these left within ``SPAN``, a longer time is looked at: twenty an hour is a speed too."""
QUIET = timedelta(seconds=30)
"""After so long without an answer, or three times the usual interval, there is no speed to speak of."""
ENOUGH = 1_000
"""Copies that a finished send needs to tell how fast the next one may be."""
CANDIDATES = 5


def recent(conn: Connection, campaign_id: int, now: datetime) -> float | None:
    """Accepted copies per second over the last ten seconds; None when nothing moves."""
    return over(_last(conn, campaign_id), now)


def over(moments: Sequence[datetime], now: datetime) -> float | None:
    """The speed that the latest of these moments show. Pure. ``now`` may be of another machine's clock."""
    latest = sorted(moments, reverse=True)
    within = [moment for moment in latest if latest[0] - moment <= SPAN]
    some = within if len(within) >= FEW else latest[:FEW]
    if len(some) < 2 or some[0] == some[-1]:
        return None
    each = (some[0] - some[-1]) / (len(some) - 1)
    return None if now - some[0] > max(QUIET, 3 * each) else 1 / each.total_seconds()


def reached(conn: Connection, transport: str, machine: str) -> tuple[Campaign, float] | None:
    """The last finished campaign that went through ``transport`` from ``machine``, and its copies per second.

    None when the last few were too small to tell.
    """
    here = exists().where(
        owner.c.campaign_id == campaign.c.id, owner.c.name.contains(f" on {machine},", autoescape=True)
    )
    like = (campaign.c.state == CampaignState.FINISHED, campaign.c.transport == transport, here)
    ids = select(campaign.c.id).where(*like).order_by(campaign.c.finished_at.desc()).limit(CANDIDATES)
    for campaign_id in conn.scalars(ids).all():
        speed = steady(_last(conn, campaign_id))
        if speed is not None:
            return campaigns.get(conn, campaign_id), speed
    return None


def steady(moments: Sequence[datetime]) -> float | None:
    """Copies per second, without the first tenth and the last one: some of those were tried again. Pure."""
    if len(moments) < ENOUGH:
        return None
    tenth = len(moments) // 10
    middle = sorted(moments)[tenth:-tenth]
    took = (middle[-1] - middle[0]).total_seconds()
    return (len(middle) - 1) / took if took else None


def _last(conn: Connection, campaign_id: int) -> Sequence[datetime]:
    accepted = (delivery.c.campaign_id == campaign_id, delivery.c.state == DeliveryState.ACCEPTED)
    query = select(delivery.c.settled_at).where(*accepted).order_by(delivery.c.seq.desc()).limit(ROWS)
    return [moment for moment in conn.scalars(query) if moment is not None]


def waiting_by_domain(conn: Connection, campaign_id: int, domains: Collection[str]) -> dict[str, int]:
    """How many open rows each of these domains has; domains without any are left out."""
    if not domains:
        return {}
    part = case(
        *(
            (func.lower(subscriber.c.address).endswith(f"@{domain}", autoescape=True), domain)
            for domain in domains
        )
    )
    opened = [state.value for state in OPEN_STATES]
    query = select(part.label("domain"), func.count()).select_from(delivery)
    query = query.join(subscriber, subscriber.c.id == delivery.c.subscriber_id)
    query = query.where(delivery.c.campaign_id == campaign_id, delivery.c.state.in_(opened))
    return {domain: n for domain, n in conn.execute(query.group_by("domain")) if domain}
