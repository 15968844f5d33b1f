"""What must be true of the rows and no constraint holds: a look at all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import and_, exists, func, or_, select

from newsletter.model import OPEN_STATES, CampaignState, DeliveryState
from newsletter.store.schema import campaign, delivery, email, owner, subscriber, subscription

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Connection

_ENDED = campaign.c.state == CampaignState.FINISHED
_THEIRS = delivery.c.campaign_id == campaign.c.id
_OPEN = delivery.c.state.in_([state.value for state in OPEN_STATES])
_HELD = delivery.c.state.in_([DeliveryState.CLAIMED, DeliveryState.HANDED])

# What would be wrong of a delivery and its campaign, in words.
_OF_DELIVERIES: dict[str, ColumnElement[bool]] = {
    "are open, and their campaign is finished": and_(_ENDED, _OPEN),
    "were begun, and their campaign is still being prepared": and_(
        campaign.c.state == CampaignState.PREPARING, delivery.c.state != DeliveryState.PENDING
    ),
    "are of another issue, kind or attempt than their campaign": or_(
        delivery.c.issue != campaign.c.issue,
        delivery.c.kind != campaign.c.kind,
        delivery.c.attempt != campaign.c.attempt,
    ),
    "are claimed or handed by a sender that there never was": and_(
        _HELD, ~exists().where(owner.c.id == delivery.c.owner)
    ),
    "are handed without a moment": and_(
        delivery.c.state == DeliveryState.HANDED, delivery.c.handed_at.is_(None)
    ),
}
_OF_CAMPAIGNS: dict[str, ColumnElement[bool]] = {
    "are finished without a moment": and_(_ENDED, campaign.c.finished_at.is_(None)),
    "have no email": ~exists().where(email.c.campaign_id == campaign.c.id),
}


def broken(conn: Connection) -> list[str]:
    """Each promise that does not hold, with the number of rows; empty if all is well. Reads everything."""
    found = [
        (_count(conn, delivery.join(campaign, _THEIRS), wrong), f"deliveries {words}")
        for words, wrong in _OF_DELIVERIES.items()
    ]
    found += [(_count(conn, campaign, wrong), f"campaigns {words}") for words, wrong in _OF_CAMPAIGNS.items()]
    erased = and_(subscriber.c.erased_at.is_not(None), subscriber.c.address.is_not(None))
    found.append((_count(conn, subscriber, erased), "subscribers are erased and still have an address"))
    stranger = delivery.c.subscriber_id != subscription.c.subscriber_id
    both = delivery.join(subscription, subscription.c.id == delivery.c.subscription_id)
    found.append((_count(conn, both, stranger), "deliveries have the subscription of another subscriber"))
    return [f"{number} {words}" for number, words in found if number]


def _count(conn: Connection, of: object, where: ColumnElement[bool]) -> int:
    return int(conn.execute(select(func.count()).select_from(of).where(where)).scalar_one())  # type: ignore[arg-type]
